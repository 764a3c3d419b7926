"""The likelihood of one trained network, outside a study: any sigma, decoder and number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ddpmkit import device as devices
from ddpmkit.diffusion.gaussian import Prediction
from ddpmkit.diffusion.likelihood import Decoder
from ddpmkit.diffusion.tables import Tables, decoder_log_variance
from ddpmkit.diffusion.variance import log_variance
from ddpmkit.errors import DdpmkitError
from ddpmkit.evaluation.nll_bound import bound
from ddpmkit.evaluation.nll_control import LinearGaussian
from ddpmkit.evaluation.nll_draw import beside_the_middle, draw
from ddpmkit.evaluation.ode import from_network, ode_likelihood
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.contract import timesteps
from ddpmkit.plugin.interfaces import Images, Sigma
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.spec import format as spell
from ddpmkit.sampling import predictor
from ddpmkit.study.config import RunOptions
from ddpmkit.study.plan import AS_BEFORE, Stage
from ddpmkit.study.stages import Work, bound_record, split_images, trained_network
from ddpmkit.study.store import Store


@dataclass(frozen=True)
class Asked:
    """What is asked of a trained network.

    Attributes:
        sigma: spec of the reverse variance; None for the one that the network learned, or beta-tilde where it learned
            none.
        split: ``test`` or ``train``.
        evals: network evaluations for the middle sum, unless ``se`` or ``full``.
        se: standard error to reach, bits/dim.
        full: every image at every step.
        decoder: what stands for p(x_0 | x_1).
        decoder_variance: its variance, ``tilde2`` or ``beta1`` of the chain that is bounded.
        steps: K steps of a strided chain, evenly spaced; all T when None.
        ema: rate of the average whose weights are used; None where the training kept one.
        batch: images per network pass.
        seed: key of all noise.
        ode: images for the likelihood of the probability-flow ODE, another number; 0 for none. It takes d gradients
            a network pass, so it is for small images and few of them.
    """

    sigma: str | None = None
    split: str = "test"
    evals: int = 8192
    se: float | None = None
    full: bool = False
    decoder: Decoder = "cdf"
    decoder_variance: str = "tilde2"
    steps: int | None = None
    ema: float | None = None
    batch: int = 128
    seed: int = 0
    ode: int = 0


def find_training(store: Store, text: str) -> str:
    """Return the id of a finished training whose id begins with ``text``.

    Raises:
        DdpmkitError: when there is none, or more than one.
    """
    ids = [p.name for p in store.root.glob("train/*/*") if p.is_dir()]
    found = [i for i in ids if i.startswith(text)] if text else []
    if len(found) != 1:
        problem = "no training" if not found else f"{len(found)} trainings"
        hint = f"the column train_stage of a study's results.csv has them; {len(ids)} are in {store.root}"
        raise DdpmkitError(f"{problem} in the store begins with '{text}'", hint)
    if not store.done("train", found[0]):
        raise DdpmkitError(f"training {found[0][:12]} is not finished", "run its study again")
    return found[0]


def likelihood(
    store: Store,
    registry: Registry,
    training: str,
    asked: Asked,
    *,
    device: str = "auto",
    on_progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Bound the negative log-likelihood of a split under a finished training; bits/dim, as JSON values.

    Raises:
        DdpmkitError: when a choice does not go with the network, or the data are not here any more.
        Diverged: when the network gives a value that is not finite.
    """
    stage = find_training(store, training)
    spec, how = {**AS_BEFORE["train"], **store.spec("train", stage)}, store.status("train", stage)
    if "how" not in how:
        path = store.folder("train", stage) / "status.json"
        raise DdpmkitError(f"'{path}' is damaged or lost", "run the study again: it is written from the plan")
    sigma, learned = _sigma(registry, asked.sigma, how["how"].get("sigma"))
    if sigma.fitted:
        raise DdpmkitError(f"sigma '{sigma.name}' is fitted in a study", f"ddpmkit ablate --sigmas {sigma.name}")
    if sigma.learned and sigma != learned:
        told = "use --sigma beta-tilde" if learned is None else f"it learned {spell(learned)}: leave out --sigma"
        raise DdpmkitError(f"this network was not trained with sigma '{spell(sigma)}'", told)
    if learned is not None and not sigma.learned:
        raise DdpmkitError(f"this network learned its own variance, '{spell(learned)}'", "leave out --sigma")
    if sigma.learned and asked.decoder_variance != "tilde2":
        raise DdpmkitError(f"sigma '{sigma.name}' gives the decoder its variance too", "leave out --decoder-variance")
    kept = ", ".join(map(repr, spec["emas"]))
    if asked.ema is None and len(spec["emas"]) > 1:
        raise DdpmkitError(f"this training kept several averages: {kept}", f"--ema {spec['emas'][-1]!r}")
    rate = spec["emas"][0] if asked.ema is None else asked.ema
    if rate not in spec["emas"]:
        raise DdpmkitError(f"the average of rate {rate!r} was not kept", f"kept: {kept}")
    where = devices.resolve(device)
    asking = Stage(
        "draw",
        {"train": stage, "weights": f"ema {rate!r}", "eval_precision": "fp32", "data": spec["data"]},
        (),
        {**how["how"], "sigma": registry.record(sigma)},
        f"likelihood of {stage[:12]}",
        1.0,
    )
    work = Work(asking, store, registry, RunOptions(device=device), where, lambda _: None, lambda: False)
    with devices.one_thread(), devices.reproducible(where):
        images, net, full, _, prediction = trained_network(work)
        flow = _ode(net, full, prediction, sigma.learned, images, asked, where) if asked.ode else {}
        chain = (
            full
            if asked.steps is None
            else full.strided(timesteps(registry.build("sampler", "ancestral"), full.T, asked.steps))
        )
        split = to_pixels(torch.from_numpy(split_images(images, asked.split)).to(where), images.levels)
        fixed = beside_the_middle(chain.T, len(split))
        sampled = not asked.full and asked.se is None
        draws = draw(
            predictor(net, chain, prediction, where, sigma),
            chain,
            images=split,
            pilot=to_pixels(torch.from_numpy(images.validation).to(where), images.levels),
            levels=images.levels,
            evaluations=fixed + asked.evals if sampled else None,
            target_se=None if asked.full else asked.se,
            full=asked.full,
            seed=asked.seed,
            micro_batch=asked.batch,
            linear=LinearGaussian.fit(to_pixels(torch.from_numpy(images.train), images.levels)),
            on_progress=on_progress,
        )
    log_sigma2 = None if sigma.learned else log_variance(sigma, chain)
    decoder = None if sigma.learned else decoder_log_variance(chain, asked.decoder_variance)
    found = {
        name: bound_record(
            bound(draws, chain, log_sigma2, decoder, asked.decoder, levels=images.levels, clip=name == "clipped")
        )
        for name in ("clipped", "unclipped")
    }
    return {
        "train": stage,
        "label": how["label"],
        **asdict(asked),
        "sigma": spell(sigma) if asked.sigma is None else asked.sigma,
        "evals": asked.evals if sampled else None,
        "ema": rate,
        "decoder_variance": "learned" if sigma.learned else asked.decoder_variance,
        "steps": chain.T,
        "T": full.T,
        "images": len(split),
        "dims": split[0].numel(),
        "levels": images.levels,
        "evaluations": draws.evaluations,
        "full_sweep": len(split) * chain.T,
        "reported": "clipped" if chain.variance_preserving else "unclipped",
        **found,
        **flow,
    }


def _sigma(registry: Registry, asked: str | None, record: dict[str, Any] | None) -> tuple[Sigma, Sigma | None]:
    """Return the sigma that is asked for, and the one that the network learned; the record is its training's.

    A weighting may have put a sigma into the training that the network did not learn.
    """
    taught: Sigma | None = None if record is None else registry.rebuild(record)
    learned = taught if taught is not None and taught.learned else None
    if asked is None:
        return learned or registry.build("sigma", "beta-tilde"), learned
    return registry.build("sigma", asked), learned


def _ode(
    net: torch.nn.Module,
    full: Tables,
    prediction: Prediction,
    learned: bool,
    images: Images,
    asked: Asked,
    device: torch.device,
) -> dict[str, Any]:
    """The likelihood of the probability-flow ODE on the first images of the split, bits/dim, as a record."""

    def mean(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = net(x, t)
        return out.chunk(2, dim=1)[0] if learned else out

    chosen = torch.from_numpy(split_images(images, asked.split)[: asked.ode])
    found = ode_likelihood(
        from_network(mean, full, prediction),
        full,
        to_pixels(chosen.to(device), images.levels),
        levels=images.levels,
        seed=asked.seed,
    )
    return {
        "probability_flow": {
            "total": found.total,
            "test_set_error": found.test_set_error if math.isfinite(found.test_set_error) else None,
            "step_error": found.step_error,
            "images": len(found.images),
            "evaluations": found.evaluations,
            "divergence": found.divergence,
        }
    }
