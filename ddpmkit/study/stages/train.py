"""train: a network from its first weights to its last, with the averages that later stages read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit import files
from ddpmkit.diffusion.tables_for import Tables, decoder_log_variance, log_bounds, tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Array, Images, Prediction, Schedule, Sigma
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.begin import begin
from ddpmkit.study.config import Cell
from ddpmkit.study.identity import Identity, hold
from ddpmkit.study.kind import StageKind
from ddpmkit.study.out_of_memory import is_out_of_memory, micro_batch_of, release
from ddpmkit.study.planning import Place, network
from ddpmkit.study.records import TrainRecord
from ddpmkit.study.settings import FIELDS, cooldown_steps
from ddpmkit.study.stage import Output, Stage, added

if TYPE_CHECKING:
    from ddpmkit.study.work import Work
    from ddpmkit.training.loop import Progress

# Axes that no training sees: cells that differ in these alone share theirs, and it is not named after one of them.
AFTER_TRAINING = (
    "sampler", "sampling_steps", "samples", "ema", "eval_batch", "eval_precision", "reference_split",
    "nll_evals", "nll_se", "nll_full", "nll_chain", "nll_split",
    "decoder_variance", "fit_images", "guidance", "sample_labels",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Train(StageKind):
    """A network, a forward process, a loss, a course of optimisation, and the seed of all noise in it."""

    kind = "train"
    version = 2
    priority = 1  # long stages first keep all workers busy to the end
    cost = "training"
    per = "train seed"
    data: str
    schedule: Identity
    weighting: Identity
    backbone: Identity
    T: int
    prediction: Identity
    steps: int
    batch_size: int
    micro_batch: int
    learning_rate: float
    lr_decay: str
    warmup: int
    weight_decay: float
    grad_clip: float
    emas: tuple[float, ...]
    timestep_sampling: str
    dropout: float | None
    precision: str
    seed: int
    # Both only where the loss holds the reverse variance, or teaches it.
    sigma: Identity | None = added(None)
    decoder_variance: str | None = added(None)
    flip: bool = added(False)
    # Both only of a training with labels; the classes and each image's own are in the hash of the data.
    conditional: bool = added(False)
    label_dropout: float = added(0.0)
    # The last steps, over which the rate falls; of lr_decay "cooldown" alone.
    cooldown: int = added(0)
    clip_ratio: float | None = added(None)

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Train]]:
        """Give one."""
        s, parts = at.settings, at.parts
        components = ["schedule", "weighting", "backbone", "prediction"]
        spec = cls(
            changed_by=at.context.changed_by,
            data=at.context.data,
            schedule=parts.identities["schedule"],
            weighting=parts.identities["weighting"],
            backbone=parts.identities["backbone"],
            T=s.timesteps,
            prediction=parts.identities["prediction"],
            steps=s.train_steps,
            batch_size=s.batch_size,
            micro_batch=min(s.micro_batch, s.batch_size),
            learning_rate=s.learning_rate,
            lr_decay=s.lr_decay,
            warmup=s.warmup,
            weight_decay=s.weight_decay,
            grad_clip=s.grad_clip,
            emas=at.context.rates,
            timestep_sampling=s.timestep_sampling,
            dropout=s.dropout,
            precision=s.precision,
            seed=at.train_seed,
            flip=s.flip,
            cooldown=cooldown_steps(s),
            clip_ratio=s.clip_ratio,
        )
        if parts.weighting.uses_sigma or parts.sigma.learned:
            spec = replace(spec, sigma=parts.identities["sigma"], decoder_variance=s.decoder_variance)
            components.append("sigma")
        if s.conditional:
            spec = replace(spec, conditional=True, label_dropout=s.label_dropout)
        yield at.stage(
            spec, f"train {_shown(at, spec)} seed {at.train_seed}", s.train_steps * s.batch_size, *components
        )

    @property
    def stable(self) -> int:
        """The first steps that a longer training makes too: those before the rate falls, none where it always does."""
        return self.steps - self.cooldown if self.lr_decay in ("constant", "cooldown") else 0

    def trunk(self, steps: int) -> Train:
        """Return the training of so many steps at a constant rate; its first ``stable`` steps are this one's."""
        return replace(self, steps=steps, lr_decay="constant", cooldown=0)

    def shared(self, other: Train) -> int:
        """Return how many first steps of two trainings are the same, bit for bit."""
        steps = min(self.stable, other.stable)
        alike = steps and files.canonical(self.trunk(0).json()) == files.canonical(other.trunk(0).json())
        return steps if alike else 0

    def tables(self, schedule: Schedule) -> Tables:
        """Return the chain that the network is trained on.

        Raises:
            DdpmkitError: when a plugin's schedule gives other numbers than when the stage was planned.
        """
        tables = tables_for(schedule, self.T)
        hold("schedule", self.schedule, tables.a, tables.b2, tables.prior_variance)
        return tables

    def predicts(self, recipe: Mapping[str, Any], registry: Registry, tables: Tables) -> Prediction:
        """Return what the network is asked for; ``recipe`` is the stage's.

        Raises:
            DdpmkitError: when a plugin's prediction gives other numbers than when the stage was planned.
        """
        if "prediction" in recipe:
            found: Prediction = registry.rebuild(recipe["prediction"])
        else:  # the stage is older than predictions from plugins, and its name says it all
            found = registry.build("prediction", self.prediction["name"])
        hold("prediction", self.prediction, contract.divisor(found, tables))
        return found

    def classes(self, images: Images) -> int | None:
        """Return the number of classes that the network is told; None where it is told none."""
        from ddpmkit.diffusion.labels import classes_of

        return classes_of(images.labels) if self.conditional else None

    def log_variances(self, tables: Tables, sigma: Sigma | None) -> tuple[Array, float]:
        """Return a loss's log-variances, (T,), learned ones at their upper end, and that of the decoder."""
        log_sigma2 = np.log(tables.b2) if sigma is None else log_bounds(sigma, tables)[1]
        # Only a loss that has the decoder's term knows its variance; nothing else of it depends on this entry.
        choice = "tilde2" if self.decoder_variance in (None, "fitted") else str(self.decoder_variance)
        return log_sigma2, decoder_log_variance(tables, choice)

    def run(self, w: Work) -> Output:
        """Train from the seed; the checkpoints stay in the stage's folder.

        Where memory runs out, it goes on from the last checkpoint with half as many images at once.
        """
        micro_batch = micro_batch_of(w, self.micro_batch)
        while True:
            try:
                return self._trained(w, micro_batch)
            except (RuntimeError, MemoryError, DdpmkitError) as err:
                if micro_batch == 1 or not is_out_of_memory(err):
                    raise
            # Behind the block: the error's traceback holds all tensors of the step that failed.
            micro_batch = (min(micro_batch, self.batch_size) + 1) // 2
            print(
                f"warning: {w.stage.label}: memory ran out; it goes on with {micro_batch} images at once, "
                f"not {self.micro_batch}",
                file=sys.stderr,
            )
            release()

    def _trained(self, w: Work, micro_batch: int) -> Output:
        """Train with so many images at once."""
        import torch

        from ddpmkit import device as devices
        from ddpmkit.diffusion.labels import Shown
        from ddpmkit.study.compiled import flops, prepare_training
        from ddpmkit.study.memory_format import placed
        from ddpmkit.training.config import TrainConfig
        from ddpmkit.training.initialise import initialise
        from ddpmkit.training.loop import Hooks, build_objective, train

        images, weighting, tables = w.images(self.data), w.component("weighting"), self.tables(w.component("schedule"))
        stated = {f.name: getattr(self, f.name) for f in fields(TrainConfig)}
        prediction = self.predicts(w.stage.recipe, w.registry, tables)
        config = TrainConfig(**{**stated, "prediction": prediction, "micro_batch": micro_batch})
        sigma = w.component("sigma") if self.sigma is not None else None
        learned = sigma if sigma is not None and sigma.learned else None
        backbone = w.component("backbone")
        told = self.classes(images)
        before = begin(w, self, self.shared, micro_batch)
        built = initialise(lambda: network(backbone, images, learned=learned is not None, classes=told), config.seed)
        net = placed(built, w, images.train.shape[1:], config.micro_batch, config.precision)
        if sigma is not None and self.sigma is not None:
            hold("sigma", self.sigma, *log_bounds(sigma, tables))
        log_sigma2, decoder = self.log_variances(tables, sigma)
        with_decoder = np.array([decoder, *log_sigma2[1:]])
        weights = contract.checked_weights(weighting, tables, with_decoder)
        hold("weighting", self.weighting, weights, contract.vlb_share(weighting, self.T))
        objective = build_objective(tables, weighting, log_sigma2, decoder, config, images.levels, w.device, learned)
        metrics = w.folder / "metrics.jsonl"

        def done(step: int) -> float:  # of the work as it was planned: of a length, the steps that it adds
            return max(0.0, 1 - (self.steps - step) * self.batch_size / w.stage.work)

        def on_resume(step: int) -> None:
            kept = [row for row in files.read_lines(metrics) if row["step"] <= step]
            files.write_lines(metrics, map(files.canonical, kept))
            w.progress(done(step), step=step, begins=True)

        def on_progress(p: Progress) -> None:
            files.append_line(metrics, files.canonical(asdict(p)))
            w.progress(done(p.step), step=p.step, loss=p.loss)

        hooks = Hooks(
            w.folder / "ckpt",
            w.options.checkpoint_every,
            w.options.checkpoint_seconds,
            w.options.log_every,
            on_progress,
            on_resume,
            w.should_stop,
            on_saved=w.kept,
            on_steps=lambda how: w.ran.update(steps=how),
        )
        pixels = torch.from_numpy(images.train).to(w.device)
        labels = None
        if told is not None:
            y = torch.from_numpy(images.labels["train"]).to(w.device)
            labels = Shown.of(y, told, config.label_dropout, config.seed)
        prepare_training(w, net, config, images, told)
        with devices.products(w.device, config.precision):
            averages = train(net, pixels, objective, config, w.device, hooks, labels)
        rows = list(files.read_lines(metrics))
        # The log may have been lost after the last step, or be damaged there.
        last = next((row for row in rows if row["step"] == config.steps), {"loss": None, "eps_mse": None})
        record = TrainRecord(
            parameters=sum(p.numel() for p in net.parameters()),
            flops=flops(next(iter(averages.values())), images, w.device),
            chain=_chain(tables),
            loss=last["loss"],
            eps_mse=last["eps_mse"],
            steps=config.steps,
            micro_batch=micro_batch if micro_batch < self.micro_batch else None,
        )
        return Output(record, work=float((self.steps - before) * self.batch_size))


def _shown(at: Place, spec: Train) -> str:
    """The cell's label without what no training sees."""
    unseen = [k for k in FIELDS if k in AFTER_TRAINING or (k == "sigma" and spec.sigma is None)]
    unseen += [] if spec.conditional else ["label_dropout"]
    unseen += [] if spec.cooldown else ["cooldown_share"]
    point = {k: v for k, v in at.cell.point.items() if k not in unseen}
    if point:
        return Cell(at.settings, point).label
    if at.cell.point:
        return at.settings.schedule
    return Cell(replace(at.settings, **{k: FIELDS[k].default for k in unseen}), {}).label


def _chain(tables: Tables, points: int = 101) -> dict[str, list[float]]:
    """The schedule as a report draws it, without the schedule: at so many steps and those at both ends, t from 1."""
    every = np.arange(tables.T)
    shown = np.unique(np.r_[every[:11], np.linspace(0, tables.T - 1, points).round().astype(int), every[-11:]])
    shown = shown[tables.snr[shown] > 0]  # where no signal is left, log SNR has no value
    return {
        "t": (shown + 1).tolist(),
        "alpha_bars": tables.alpha_bars[shown].tolist(),
        "log_snr": np.log(tables.snr[shown]).tolist(),
    }
