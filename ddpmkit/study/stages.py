"""What each kind of stage does: build the objects its spec names, call the mathematics, commit the numbers."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.numpy import load as load_arrays
from torch.utils.flop_counter import FlopCounterMode

from ddpmkit import __version__, checkpoint, files
from ddpmkit import device as devices
from ddpmkit.diffusion.gaussian import Prediction
from ddpmkit.diffusion.tables import Array, Tables, decoder_log_variance, log_bounds, tables_for
from ddpmkit.diffusion.variance import log_variance, step_deviations
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.evaluation.baselines import categorical_bits, uniform_bits
from ddpmkit.evaluation.fit import fit_statistics
from ddpmkit.evaluation.nll_bound import Bound, bound
from ddpmkit.evaluation.nll_control import LinearGaussian
from ddpmkit.evaluation.nll_draw import beside_the_middle, draw
from ddpmkit.evaluation.nll_draws import Draws
from ddpmkit.evaluation.panel import prepare, score
from ddpmkit.initialise import initialise
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin import contract
from ddpmkit.plugin.culprit import culprit
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import permutation, seeded_libraries
from ddpmkit.sampling import Denoise, Predict, denoiser, predictor, sample
from ddpmkit.study.config import IMAGE_METRICS, RunOptions
from ddpmkit.study.identity import value_hash
from ddpmkit.study.plan import AS_BEFORE, Stage, bare_name
from ddpmkit.study.store import Store
from ddpmkit.text import one_line
from ddpmkit.training import Hooks, Progress, TrainConfig, build_objective, train

Event = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Work:
    """What a stage's function gets."""

    stage: Stage
    store: Store
    registry: Registry
    options: RunOptions
    device: torch.device
    emit: Event
    should_stop: Callable[[], bool]

    def component(self, kind: str) -> Any:
        """Build the component that the stage was planned with."""
        return self.registry.rebuild(self.stage.how[kind])

    @property
    def spec(self) -> dict[str, Any]:
        """What the stage was planned with."""
        return self.stage.full

    def upstream(self, kind: str) -> dict[str, Any]:
        """Return the spec of the stage of that kind that this one reads."""
        return {**AS_BEFORE[kind], **self.store.spec(kind, self.spec[kind])}

    def trained_as(self) -> dict[str, Any]:
        """Return the spec of the training behind this stage; its own if it is one."""
        if self.stage.kind == "train":
            return self.spec
        training = self.spec["train"] if "train" in self.spec else self.upstream("draw")["train"]
        return {**AS_BEFORE["train"], **self.store.spec("train", training)}

    def tables(self) -> Tables:
        """Return the full chain of the schedule that the network was trained with.

        Raises:
            DdpmkitError: when a plugin's schedule gives other numbers than when the stage was planned.
        """
        trained = self.trained_as()
        tables = tables_for(self.component("schedule"), trained["T"])
        self.hold("schedule", trained["schedule"], tables.a, tables.b2, tables.prior_variance)
        return tables

    def hold(self, kind: str, identity: dict[str, Any], *values: Any) -> None:
        """Refuse values of a plugin's component that are not those of the plan.

        Raises:
            DdpmkitError: with the component's name.
        """
        if identity.get("values") not in (None, value_hash(*values)):
            raise DdpmkitError(
                f"{kind} '{identity['name']}' gives other numbers than when the stage was planned",
                "run the study again: its stages get new ids",
            )

    def images(self) -> Images:
        """Load the stage's data, and check that they are the data it was planned with."""
        record = self.stage.how["dataset"]
        images, found = _load_images(self.registry, json.dumps(record, sort_keys=True))
        if {found, self.stage.how["data"], *self._data_in_specs()} != {found}:
            raise DdpmkitError(f"data set '{record['name']}' has changed since the stage was planned", "run it again")
        return images

    def _data_in_specs(self) -> Iterator[str]:
        if "data" in self.spec:
            yield self.spec["data"]
        elif self.stage.kind == "score":
            yield self.upstream("ref")["data"]
        else:
            yield self.trained_as()["data"]

    def progress(self, done: float, **details: Any) -> None:
        """Tell how far the stage is, 0 to 1."""
        self.emit({"event": "progress", "stage": self.stage.id, "done": done, **details})


@functools.lru_cache(maxsize=2)
def _load_images(registry: Registry, record: str) -> tuple[Images, str]:
    images = contract.images(registry.rebuild(json.loads(record)))
    return images, images.fingerprint()


def execute(
    stage: Stage,
    store: Store,
    registry: Registry,
    options: RunOptions,
    emit: Event,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Run one stage unless its output is there; return its state and write it to status.json.

    Whatever goes wrong stays in the stage: done, failed, diverged or interrupted. Another process that runs the same
    stage is waited for.
    """
    folder = store.folder(stage.kind, stage.id)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=1)
    while True:
        try:
            with lock:
                return _execute_locked(stage, store, registry, options, emit, should_stop)
        except Timeout:
            emit({"event": "progress", "stage": stage.id, "done": 0.0, "note": "another process runs it"})
            if should_stop():
                return "interrupted"


def _execute_locked(
    stage: Stage,
    store: Store,
    registry: Registry,
    options: RunOptions,
    emit: Event,
    should_stop: Callable[[], bool],
) -> str:
    folder = store.folder(stage.kind, stage.id)
    if store.intact(stage.kind, stage.id):
        return "done"
    if (folder / "out").exists():  # something is there, but not what was committed
        place = files.quarantine(folder / "out")
        print(f"warning: the output of {stage.label} is damaged; set aside as {place.name}", file=sys.stderr)
    before = store.status(stage.kind, stage.id)
    status = {
        "state": "running",
        "attempt": before.get("attempt", 0) + 1,
        "seconds": before.get("seconds", 0.0) if before.get("state") != "done" else 0.0,
        "work": stage.work,
        "label": stage.label,
        "how": stage.how,
        "ddpmkit": __version__,
    }
    store.write_spec(stage)
    files.write_sealed(folder / "status.json", status)
    emit({"event": "attempt", "stage": stage.id})
    started, where = time.perf_counter(), None
    try:
        device = devices.resolve(options.device)
        with devices.one_thread(), devices.reproducible(device), seeded_libraries(stage.id, "stage", 0):
            status["fingerprint"] = devices.fingerprint(device)
            _same_libraries(stage, registry)
            RUN[stage.kind](Work(stage, store, registry, options, device, emit, should_stop))
        status["state"] = "done"
    except Interrupted as err:
        status.update(state="interrupted", error=str(err))
    except Diverged as err:
        status.update(state="diverged", error=str(err))
    except DdpmkitError as err:
        status.update(state="failed", error=err.message)
    except BaseException as err:
        # Whatever a plugin raises stays in its own cell, an exit too. A second Ctrl-C reaches a stage of this process
        # as an exception; one that nobody typed is the plugin's.
        state = "interrupted" if isinstance(err, KeyboardInterrupt) and should_stop() else "failed"
        status.update(state=state, error=f"{type(err).__name__}: {err}", traceback=traceback.format_exc())
        where = culprit(err, registry)
    status["seconds"] += time.perf_counter() - started
    files.write_sealed(folder / "status.json", status)
    if status["state"] in ("failed", "diverged"):
        of = f" [{where}]" if where else ""
        print(f"warning: {stage.label}: {status['state']}: {one_line(status['error'])}{of}", file=sys.stderr)
    return str(status["state"])


def _same_libraries(stage: Stage, registry: Registry) -> None:
    """Refuse to run where plugins have changed other things in torch than where the stage was planned.

    Raises:
        DdpmkitError: with the plugins' names.
    """
    planned = stage.full.get("changed_by", {})
    if planned:
        registry.plugins()  # all of them: a change reaches every cell
    here = registry.changed_by()
    if here != planned:
        names = ", ".join(sorted({*here, *planned}))
        raise DdpmkitError(
            f"plugin {names} replaces parts of torch, numpy or scipy in one process and not in another",
            "make the change where the plugin is imported, so that ids hold it",
        )


def run_ref(w: Work) -> None:
    """Features of the reference split, the floor of each metric (real against real), plain baselines of the NLL."""
    spec, images, features = w.spec, w.images(), w.component("features")
    metrics = [bare_name(m) for m in spec["metrics"]]
    made = prepare(images, features, split=spec["split"], floor=spec["samples"], metrics=metrics)
    made.check_again()
    y = made.features
    if y is None:
        raise DdpmkitError(f"features '{features.name}' left no features of the reference")
    names = {m: metric_name(m, made.protocol) for m in metrics}
    result = {
        **made.protocol,
        "names": names,
        "features_label": made.protocol["features"],
        "features": made.protocol["extractor"],
        "floors": {names[m]: record["value"] for m, record in made.floor.items() if m in names},
        "n_floor": next((record["n"] for record in made.floor.values()), 0),
        "baselines": {
            "uniform": uniform_bits(images.levels),
            "per-pixel categorical": categorical_bits(images.train, images.test, images.levels),
        },
    }
    _commit(w, result, {"features": {"reference": y}})


def run_train(w: Work) -> None:
    """Train a network from the train seed; its checkpoints stay in the stage's folder."""
    spec, folder = w.spec, w.store.folder("train", w.stage.id)
    images, weighting, tables = w.images(), w.component("weighting"), w.tables()
    stated = {f.name: spec[f.name] for f in fields(TrainConfig)}
    config = TrainConfig(**{**stated, "emas": tuple(spec["emas"]), "prediction": bare_name(spec["prediction"])})
    sigma = w.component("sigma") if "sigma" in spec else None
    learned = sigma if sigma is not None and sigma.learned else None
    net = devices.place(initialise(lambda: _backbone(w, images, learned is not None), config.seed), w.device)
    log_sigma2 = np.log(tables.b2) if sigma is None else log_bounds(sigma, tables)[1]
    # Only a loss that has the decoder's term knows its variance; nothing else of it depends on this entry.
    choice = spec.get("decoder_variance", "tilde2")
    decoder = decoder_log_variance(tables, "tilde2" if choice == "fitted" else choice)
    objective = build_objective(tables, weighting, log_sigma2, decoder, config, images.levels, w.device, learned)
    metrics = folder / "metrics.jsonl"

    def on_resume(step: int) -> None:
        kept = [row for row in files.read_lines(metrics) if row["step"] <= step]
        files.write_lines(metrics, map(files.canonical, kept))
        w.progress(step / config.steps, step=step)

    def on_progress(p: Progress) -> None:
        files.append_line(metrics, files.canonical(asdict(p)))
        w.progress(p.step / config.steps, step=p.step, loss=p.loss)

    hooks = Hooks(
        folder / "ckpt",
        w.options.checkpoint_every,
        w.options.checkpoint_seconds,
        w.options.log_every,
        on_progress,
        on_resume,
        w.should_stop,
    )
    data = torch.from_numpy(images.train).to(w.device)
    averages = train(net, data, objective, config, w.device, hooks)
    rows = list(files.read_lines(metrics))
    # The log may have been lost after the last step, or be damaged there.
    last = next((row for row in rows if row["step"] == config.steps), {"loss": None, "eps_mse": None})
    result = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "flops": _flops(next(iter(averages.values())), images, w.device),
        "chain": _chain_record(tables),
        "loss": last["loss"],
        "eps_mse": last["eps_mse"],
        "steps": config.steps,
    }
    _commit(w, result)


def run_fit(w: Work) -> None:
    """Take the second moments of a trained network on training images at every step."""
    spec = w.spec
    images, predict, tables, _ = trained(w)
    order = permutation(spec["seed"], len(images.train), 0, torch.device("cpu"))
    found = fit_statistics(
        predict(tables),
        tables,
        images=to_pixels(torch.from_numpy(images.train)[order].to(w.device), images.levels),
        draws=spec["draws"],
        levels=images.levels,
        seed=spec["seed"],
        micro_batch=spec["batch"],
        on_progress=w.progress,
        should_stop=w.should_stop,
    )
    result = {"draws": spec["draws"], "split": spec["split"], "T": tables.T}
    _commit(w, result, {"statistics": found})


def run_sample(w: Work) -> None:
    """Draw images from a trained network."""
    spec = w.spec
    images, denoise, tables = reverse_chain(w)
    drawn = sample(
        denoise,
        tables,
        w.component("sampler"),
        count=spec["count"],
        shape=images.train.shape[1:],
        levels=images.levels,
        seed=spec["seed"],
        micro_batch=spec["batch"],
        device=w.device,
        on_progress=lambda n: w.progress(n / spec["count"]),
        should_stop=w.should_stop,
    )
    result = {"count": spec["count"], "levels": images.levels, "evaluations": spec["count"] * tables.T}
    _commit(w, result, {"samples": {"levels": drawn.numpy()}})


def run_draw(w: Work) -> None:
    """Ask a trained network for what the bound of a split is made of."""
    spec = w.spec
    images, predict, tables, _ = trained(w)
    split = to_pixels(torch.from_numpy(split_images(images, spec["split"])).to(w.device), images.levels)
    pilot = to_pixels(torch.from_numpy(images.validation).to(w.device), images.levels)
    # A setting counts the draws of the middle sum; the pilot's and the decoder's come on top.
    fixed = beside_the_middle(tables.T, len(split))
    found = draw(
        predict(tables),
        tables,
        images=split,
        pilot=pilot,
        levels=images.levels,
        evaluations=fixed + spec["evals"] if "evals" in spec else None,
        target_se=spec.get("se"),
        full=spec.get("full", False),
        seed=spec["seed"],
        micro_batch=spec["batch"],
        linear=LinearGaussian.fit(to_pixels(torch.from_numpy(images.train), images.levels)),
        on_progress=w.progress,
        should_stop=w.should_stop,
    )
    result = {"evaluations": found.evaluations, "images": len(split), "split": spec["split"], "T": tables.T}
    _commit(w, result, {"draws": found.arrays()})


def run_nll(w: Work) -> None:
    """Bound the negative log-likelihood of a split from what was drawn, under one sigma and one decoder."""
    spec = w.spec
    images, sigma, asked, tables = w.images(), w.component("sigma"), w.upstream("draw"), w.tables()
    w.hold("sigma", spec["sigma"], *log_bounds(sigma, tables))
    pixels = to_pixels(torch.from_numpy(split_images(images, asked["split"])), images.levels)
    draws = Draws.from_arrays(_arrays(w, "draw", spec["draw"], "draws.safetensors"), pixels.numpy())
    statistics, choice = _statistics(w), spec["decoder_variance"]
    log_sigma2, decoder = None, None
    if not sigma.learned:
        log_sigma2 = log_variance(sigma, tables, statistics)
        if choice == "fitted" and statistics is not None:
            decoder = float(statistics["decoder_log_variance"])
        else:
            decoder = decoder_log_variance(tables, choice)
    found = {
        name: bound(draws, tables, log_sigma2, decoder, spec["decoder"], levels=images.levels, clip=name == "clipped")
        for name in ("clipped", "unclipped")
    }
    if not all(math.isfinite(b.total) for b in found.values()):
        raise Diverged("the bound is not finite")
    result = {
        **{name: bound_record(b) for name, b in found.items()},
        # A valid model mean lies in the range of the data; the walk that explodes is told as it is.
        "reported": "clipped" if tables.variance_preserving else "unclipped",
        "evaluations": draws.evaluations,
        "images": len(pixels),
        "levels": images.levels,
        "data": asked["data"],
        "split": asked["split"],
        "decoder": spec["decoder"],
        "decoder_variance": "learned" if sigma.learned else choice,
        "T": tables.T,
    }
    _commit(w, result)


def bound_record(b: Bound) -> dict[str, Any]:
    """A bound as JSON values, bits/dim."""
    return {
        "total": b.total,
        "standard_error": b.standard_error,
        "test_set_error": b.test_set_error if math.isfinite(b.test_set_error) else None,
        "prior": b.terms.prior,
        "middle": b.terms.middle,
        "decoder": b.terms.decoder,
        "rate": b.rate,
        "distortion": b.distortion,
        "rmse": b.rmse,
        "curve": {
            f.name: [v if math.isfinite(v) else None for v in getattr(b.curve, f.name).tolist()]
            for f in fields(b.curve)
        },
    }


def _finite(values: list[float]) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values]


def split_images(images: Images, split: str) -> np.ndarray[Any, Any]:
    """Return the images of a split that are bounded: the whole test split, and as many of the training split."""
    if split == "test":
        return images.test
    order = permutation(0, len(images.train), 0, torch.device("cpu")).numpy()  # the same ones in every cell
    chosen: np.ndarray[Any, Any] = images.train[np.sort(order[: len(images.test)])]
    return chosen


def run_score(w: Work) -> None:
    """Compare drawn images with the reference: one pass through the extractor for all metrics."""
    spec = w.spec
    levels = _arrays(w, "sample", spec["sample"], "samples.safetensors")["levels"]
    taken = _arrays(w, "ref", spec["ref"], "features.safetensors")["reference"]
    made = prepare(w.images(), w.component("features"), split=w.upstream("ref")["split"], taken=taken)
    made.check_again()
    panel = score(levels, made, metrics=[bare_name(m) for m in spec["metrics"]], keep=True)
    for name, why in panel.failed.items():
        print(f"warning: {w.stage.label}: {name} failed: {why}", file=sys.stderr)
    metrics = {m: metric.record() for m, metric in panel.items()}
    _commit(w, {"metrics": metrics, "notes": list(panel.notes), "failed": panel.failed, "n": len(levels)})


METRIC_NAMES = {"kid": "KID", "sw": "SW"}


def metric_name(metric: str, protocol: dict[str, Any]) -> str:
    """Return the column of a metric: ``FD-digits``, ``precision-digits``; those of pixels have no extractor."""
    if metric == "fd":
        return str(protocol["label"])
    if metric in IMAGE_METRICS:
        return metric
    return f"{METRIC_NAMES.get(metric, metric)}-{protocol['features']}"


RUN: dict[str, Callable[[Work], None]] = {
    "ref": run_ref,
    "train": run_train,
    "fit": run_fit,
    "sample": run_sample,
    "draw": run_draw,
    "nll": run_nll,
    "score": run_score,
}


def _backbone(w: Work, images: Images, learned: bool) -> torch.nn.Module:
    channels, size = images.train.shape[1], images.train.shape[2]
    outputs = channels * (2 if learned else 1)
    return contract.network(w.component("backbone"), in_channels=channels, out_channels=outputs, image_size=size)


def _chain_record(tables: Tables, points: int = 101) -> dict[str, list[float]]:
    """The schedule as a report draws it, without the schedule: at so many steps, t counted from 1."""
    shown = np.unique(np.linspace(0, tables.T - 1, points).round().astype(int))
    shown = shown[tables.snr[shown] > 0]  # where no signal is left, log SNR has no value
    return {
        "t": (shown + 1).tolist(),
        "alpha_bars": tables.alpha_bars[shown].tolist(),
        "log_snr": np.log(tables.snr[shown]).tolist(),
    }


def _flops(net: torch.nn.Module, images: Images, device: torch.device) -> int:
    """Floating-point operations of one network evaluation on one image, as torch counts them."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        net(to_pixels(torch.from_numpy(images.train[:1]).to(device), images.levels), torch.zeros(1, device=device))
    return int(counter.get_total_flops())


def trained_network(w: Work) -> tuple[Images, torch.nn.Module, Tables, Any, Prediction]:
    """Return the data, the trained average of a network, the full chain, the sigma, and what the network predicts."""
    train_id = w.spec["train"]
    folder = w.store.folder("train", train_id)
    spec = w.trained_as()
    images, sigma = w.images(), w.component("sigma")
    net = _backbone(w, images, sigma.learned)
    found = checkpoint.newest(folder / "ckpt")
    if found is None or found.step != spec["steps"]:
        # A network of fewer steps must not stand in for this one: the training is to be finished again.
        with contextlib.suppress(FileNotFoundError):
            files.quarantine(folder / "out")
        raise DdpmkitError(f"the last checkpoint of training {train_id[:12]} is damaged", "run the study again")
    net.load_state_dict(checkpoint.under(found.ema, w.spec["weights"].removeprefix("ema ")))
    net = devices.place(net, w.device).eval()
    prediction: Any = bare_name(spec["prediction"])
    tables = w.tables()
    if "sigma" in spec:
        w.hold("sigma", spec["sigma"], *log_bounds(sigma, tables))
    return images, net, tables, sigma, prediction


def trained(w: Work) -> tuple[Images, Callable[[Tables], Predict], Tables, Any]:
    """Return the data, tables -> predict of the trained average, the full chain, and the sigma."""
    images, net, tables, sigma, prediction = trained_network(w)
    precision = w.spec["eval_precision"]
    return images, lambda chain: predictor(net, chain, prediction, w.device, sigma, precision), tables, sigma


def reverse_chain(w: Work) -> tuple[Images, Denoise, Tables]:
    """Return the data, the denoiser with the noise of each step, and the chain that a sample stage walks."""
    images, predict, full, sigma = trained(w)
    sampler, chain = w.component("sampler"), full.strided(w.spec["times"])
    w.hold("sampler", w.spec["sampler"], *sampler.kernel(chain))
    if "sigma" in w.spec:
        w.hold("sigma", w.spec["sigma"], *log_bounds(sigma, chain))
    deviations = step_deviations(sampler, sigma, full, chain, images.levels, _statistics(w))
    return images, denoiser(predict(chain), deviations), chain


def _statistics(w: Work) -> dict[str, Array] | None:
    """Return what the fit stage found, where the stage has one."""
    if "fit" not in w.spec:
        return None
    return _arrays(w, "fit", w.spec["fit"], "statistics.safetensors")


def _arrays(w: Work, kind: str, stage: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
    folder = w.store.folder(kind, stage) / "out"
    if files.verify_folder(folder) is None:
        with contextlib.suppress(FileNotFoundError):  # another reader was faster
            files.quarantine(folder)
        raise DdpmkitError(f"the output of {kind} {stage[:12]} is damaged and was set aside", "run the study again")
    arrays: dict[str, np.ndarray[Any, Any]] = load_arrays((folder / name).read_bytes())
    return arrays


def _commit(w: Work, result: dict[str, Any], arrays: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Commit what a stage found: its result, and a .safetensors file for each named group of arrays."""
    blobs = {f"{name}.safetensors": files.pack(group) for name, group in (arrays or {}).items()}
    text = (json.dumps(result, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    folder = w.store.folder(w.stage.kind, w.stage.id)
    files.commit_folder(folder / "out", {"result.json": text, **blobs}, {"stage": w.stage.id})
