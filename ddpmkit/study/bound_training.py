"""The likelihood of one trained network, outside a study: any sigma, decoder and number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

import torch

from ddpmkit import device as devices
from ddpmkit.diffusion.bound_terms import Decoder
from ddpmkit.diffusion.reverse_variance import log_variance
from ddpmkit.diffusion.tables_for import decoder_log_variance
from ddpmkit.errors import DdpmkitError, Diverged
from ddpmkit.likelihood.probability_flow import from_network, ode_likelihood
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.contract import timesteps
from ddpmkit.plugin.interfaces import Sigma
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.spec import format as spell
from ddpmkit.study.stages.draw import answers, split_images
from ddpmkit.study.stages.nll import bounds, reported
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.study.trained import Trained, find_training, load_trained, status_of_training, which_average

CHOICES = {"split": ("test", "train"), "decoder": get_args(Decoder), "decoder_variance": ("tilde2", "beta1")}


@dataclass(frozen=True)
class BoundRequest:
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
    decoder: str = "cdf"
    decoder_variance: str = "tilde2"
    steps: int | None = None
    ema: float | None = None
    batch: int = 128
    seed: int = 0
    ode: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no choice.

        Raises:
            DdpmkitError: with the choices that there are.
        """
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                flag = f"--{name.replace('_', '-')}"
                raise DdpmkitError(f"{flag} can't be '{getattr(self, name)}'", f"one of {', '.join(known)}")
        if self.se is not None and self.full:
            raise DdpmkitError("--nll-se and --nll-full are two ways of saying how much", "give one of them")


def bound_training(
    store: Store,
    registry: Registry,
    training: str,
    asked: BoundRequest,
    *,
    device: str = "auto",
    on_progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Bound the negative log-likelihood of a split under a finished training; bits/dim, as JSON values.

    Raises:
        DdpmkitError: when a choice does not go with the network, or the data are not here any more.
        Diverged: when the network gives a value that is not finite.
    """
    found = find_training(store, training)
    spec, status = store.read_spec(Train, found), status_of_training(store, found)
    recipe = status["how"]
    sigma, learned = _sigma(registry, asked.sigma, recipe.get("sigma"))
    if sigma.fitted:
        raise DdpmkitError(f"sigma '{sigma.name}' is fitted in a study", f"ddpmkit ablate --sigmas {sigma.name}")
    if sigma.learned and sigma != learned:
        told = "use --sigma beta-tilde" if learned is None else f"it learned {spell(learned)}: leave out --sigma"
        raise DdpmkitError(f"this network was not trained with sigma '{spell(sigma)}'", told)
    if learned is not None and not sigma.learned:
        raise DdpmkitError(f"this network learned its own variance, '{spell(learned)}'", "leave out --sigma")
    if sigma.learned and asked.decoder_variance != "tilde2":
        raise DdpmkitError(f"sigma '{sigma.name}' gives the decoder its variance too", "leave out --decoder-variance")
    if spec.conditional and asked.ode:
        raise DdpmkitError(
            "the ODE's likelihood is not there for a network that was trained with labels", "leave out --ode"
        )
    rate, where = which_average(spec, asked.ema), devices.resolve(device)
    with devices.one_thread(), devices.reproducible(where):
        network = load_trained(store, registry, found, recipe, ema=rate, sigma=sigma, device=where)
        full, levels = network.tables, network.images.levels
        flow = _ode(network, asked) if asked.ode else {}
        chain = (
            full
            if asked.steps is None
            else full.strided(timesteps(registry.build("sampler", "ancestral"), full.T, asked.steps))
        )
        evals = asked.evals if not asked.full and asked.se is None else None
        draws, count = answers(
            network,
            chain,
            asked.split,
            evals=evals,
            se=None if asked.full else asked.se,
            full=asked.full,
            seed=asked.seed,
            batch=asked.batch,
            on_progress=on_progress,
        )
    log_sigma2 = None if sigma.learned else log_variance(sigma, chain)
    decoder = None if sigma.learned else decoder_log_variance(chain, asked.decoder_variance)
    clipped, unclipped = bounds(draws, chain, log_sigma2, decoder, cast(Decoder, asked.decoder), levels)
    if not (math.isfinite(clipped.total) and math.isfinite(unclipped.total)):
        raise Diverged("the bound is not finite")
    return {
        "train": found,
        "label": status["label"],
        **asdict(asked),
        "sigma": spell(sigma) if asked.sigma is None else asked.sigma,
        "evals": evals,
        "ema": rate,
        "decoder_variance": "learned" if sigma.learned else asked.decoder_variance,
        "steps": chain.T,
        "T": full.T,
        "images": count,
        "dims": network.images.test[0].size,
        "levels": levels,
        "evaluations": draws.evaluations,
        "full_sweep": count * chain.T,
        "reported": reported(chain),
        "given": "class" if spec.conditional else None,
        "clipped": asdict(clipped),
        "unclipped": asdict(unclipped),
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


def _ode(network: Trained, asked: BoundRequest) -> dict[str, Any]:
    """The likelihood of the probability-flow ODE on the first images of the split, bits/dim, as a record."""
    images = network.images
    chosen = torch.from_numpy(split_images(images, asked.split)[: asked.ode])
    flow = ode_likelihood(
        from_network(network.net, network.tables, network.prediction, learned=network.sigma.learned),
        network.tables,
        to_pixels(chosen.to(network.device), images.levels),
        levels=images.levels,
        seed=asked.seed,
    )
    return {
        "probability_flow": {
            "total": flow.total,
            "test_set_error": flow.test_set_error if math.isfinite(flow.test_set_error) else None,
            "step_error": flow.step_error,
            "images": len(flow.images),
            "evaluations": flow.evaluations,
            "divergence": flow.divergence,
        }
    }
