"""draw: what a trained network is asked for the bound; every fixed sigma and decoder reads the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpmkit.diffusion.tables_for import Tables
from ddpmkit.study.records import DrawRecord
from ddpmkit.study.stage import Output, Stage, added
from ddpmkit.study.stages.of_network import OfNetwork, asked
from ddpmkit.study.stages.train import Train

if TYPE_CHECKING:
    import torch

    from ddpmkit.likelihood.draws import Draws
    from ddpmkit.plugin.interfaces import Images
    from ddpmkit.study.planning import Place
    from ddpmkit.study.trained import Trained
    from ddpmkit.study.work import Work


@dataclass(frozen=True, kw_only=True)
class Draw(OfNetwork):
    """An average of a network over one split: every image at every step, up to an error, or so many evaluations."""

    kind = "draw"
    version = 2
    priority = 4
    cost = "pass"
    per = "train seed"
    data: str
    split: str
    seed: int  # its own noise for each replicate: the interval then holds the Monte-Carlo error
    full: bool = added(False)
    se: float | None = added(None)
    evals: int | None = added(None)
    times: tuple[int, ...] | None = added(None)  # steps of the chain that is bounded, where it is not the full one

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Draw]]:
        """Give one for each split, where the NLL is asked for."""
        if "nll" not in at.context.study.metrics:
            return
        s, train, images = at.settings, at.one(Train), at.context.images
        count = len(images.test if s.nll_split == "test" else images.validation)
        # A walk of all steps has the full chain, and so its very bound: one id, drawn once.
        times = tuple(at.parts.strided) if s.nll_chain == "walk" and len(at.parts.strided) < s.timesteps else None
        work = (s.timesteps if times is None else len(times)) * count if s.nll_full else s.nll_evals
        for split in ("test", "train") if s.nll_split == "test" else (s.nll_split,):
            spec = cls(
                **asked(at, train),
                data=at.context.data,
                split=split,
                seed=at.train_seed,
                full=s.nll_full,
                se=None if s.nll_full else s.nll_se,
                evals=s.nll_evals if not s.nll_full and s.nll_se is None else None,
                times=times,
            )
            label = f"draw {at.cell.label} {split} seed {at.train_seed}"
            yield at.stage(spec, label, work + 2 * count, "sigma", like=train)

    def chain(self, full: Tables) -> Tables:
        """Return the chain that is bounded, of the full one."""
        return full if self.times is None else full.strided(self.times)

    def run(self, w: Work) -> Output:
        """Ask the network."""
        from ddpmkit.study.trained import trained_for

        network = trained_for(self, w, data=self.data)
        chain = self.chain(network.tables)
        draws, count = answers(
            network,
            chain,
            self.split,
            evals=self.evals,
            se=self.se,
            full=self.full,
            seed=self.seed,
            batch=self.batch,
            precision=self.eval_precision,
            on_progress=w.progress,
            should_stop=w.should_stop,
        )
        record = DrawRecord(evaluations=draws.evaluations, images=count, split=self.split, T=chain.T)
        return Output(record, {"draws": draws.arrays()})


def answers(
    network: Trained,
    chain: Tables,
    split: str,
    *,
    evals: int | None = None,
    se: float | None = None,
    full: bool = False,
    seed: int,
    batch: int,
    precision: str = "fp32",
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Draws, int]:
    """Ask a trained network what the bound of a split under a chain is made of; return it and the number of images.

    Args:
        network: The network.
        chain: Its full chain, or a strided one.
        split: ``test``, ``validation`` or ``train``.
        evals: Evaluations for the middle sum, unless ``se`` or ``full``.
        se: Standard error to reach, bits/dim.
        full: Every image at every step.
        seed: Key of all noise.
        batch: Images per network pass.
        precision: Of the network.
        on_progress: Told how far it is, 0 to 1.
        should_stop: Asked now and then.

    Raises:
        Diverged: when the network gives a value that is not finite.
        Interrupted: when asked to stop.
    """
    import torch

    from ddpmkit.pixels import to_pixels

    levels, labels = split_images(network.images, split), network.labels(split)
    if labels is not None and split == "train":
        labels = labels[torch.from_numpy(bounded_of_training(network.images)).to(labels.device)]
    draws = answers_about(
        network,
        chain,
        to_pixels(torch.from_numpy(levels).to(network.device), network.images.levels),
        labels,
        evals=evals,
        se=se,
        full=full,
        seed=seed,
        batch=batch,
        precision=precision,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    return draws, len(levels)


def answers_about(
    network: Trained,
    chain: Tables,
    pixels: torch.Tensor,
    labels: torch.Tensor | None = None,
    *,
    evals: int | None = None,
    se: float | None = None,
    full: bool = False,
    seed: int,
    batch: int,
    precision: str = "fp32",
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Draws:
    """Ask a trained network what the bound of images is made of, as :func:`answers` does of a split.

    Args:
        network: The network.
        chain: Its full chain, or a strided one.
        pixels: The images, float32 (N, C, H, W) in [-1, 1] on the grey levels, on the network's device.
        labels: Of them, int64 (N,), for a network that was trained with some.
        evals: As of :func:`answers`, and so is what follows.
        se: The same.
        full: The same.
        seed: The same.
        batch: The same.
        precision: The same.
        on_progress: The same.
        should_stop: The same.

    Raises:
        Diverged: when the network gives a value that is not finite.
        Interrupted: when asked to stop.
    """
    import torch

    from ddpmkit.likelihood.ask import beside_the_middle, draw
    from ddpmkit.likelihood.control_variates import LinearGaussian
    from ddpmkit.pixels import to_pixels

    images = network.images
    return draw(
        network.predict(chain, precision),
        chain,
        images=pixels,
        pilot=to_pixels(torch.from_numpy(images.validation).to(network.device), images.levels),
        labels=labels,
        pilot_labels=network.labels("validation"),
        levels=images.levels,
        # The number counts the draws of the middle sum; the pilot's and the decoder's come on top.
        evaluations=beside_the_middle(chain.T, len(pixels)) + evals if evals is not None else None,
        target_se=se,
        full=full,
        seed=seed,
        micro_batch=batch,
        linear=LinearGaussian.fit(to_pixels(torch.from_numpy(images.train), images.levels)),
        on_progress=on_progress,
        should_stop=should_stop,
    )


def split_images(images: Images, split: str) -> np.ndarray[Any, Any]:
    """Return the images of a split that are bounded: all of a held-out one, and of training as many as of test."""
    if split != "train":
        return images.test if split == "test" else images.validation
    chosen: np.ndarray[Any, Any] = images.train[bounded_of_training(images)]
    return chosen


def bounded_of_training(images: Images) -> np.ndarray[Any, Any]:
    """Return which images of the training split are bounded, their indices; the same ones in every cell."""
    import torch

    from ddpmkit.randomness import permutation

    order = permutation(0, len(images.train), 0, torch.device("cpu")).numpy()
    return np.sort(order[: len(images.test)])
