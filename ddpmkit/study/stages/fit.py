"""fit: second moments of a trained network at every step, for sigmas and decoder variances that are fitted to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.study.records import FitRecord
from ddpmkit.study.stage import Output, Stage, added
from ddpmkit.study.stages.of_network import OfNetwork, asked
from ddpmkit.study.stages.train import Train

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array
    from ddpmkit.study.planning import Place
    from ddpmkit.study.settings import Settings
    from ddpmkit.study.work import Work


@dataclass(frozen=True, kw_only=True)
class Fit(OfNetwork):
    """An average of a network, over so many training images at each step."""

    kind = "fit"
    version = 2
    priority = 2
    cost = "pass"
    per = "train seed"
    data: str
    split: str
    draws: int
    seed: int
    told: bool = added(True)  # whether a network that was trained with labels is told them

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Fit]]:
        """Give one where the walk's sigma, the bound's sigma or its decoder variance is fitted, and is asked for.

        Each as the network is asked there: a walk without labels wants the statistics of a network without them.
        """
        parts, context, train, s = at.parts, at.context, at.one(Train), at.settings
        bounded = "nll" in context.study.metrics and (parts.sigma.fitted or parts.decoder_fitted)
        walked = parts.sigma.fitted and parts.noisy and bool(context.extractors)
        for told in (True, False):
            if (told and bounded) or (walked and told == tells(s)):
                spec = cls(
                    **asked(at, train),
                    data=context.data,
                    split="train",
                    draws=s.fit_images,
                    seed=at.train_seed,
                    told=told,
                )
                work = s.timesteps * s.fit_images + min(len(context.images.train), 1024)
                yield at.stage(spec, f"fit {at.cell.label} seed {at.train_seed}", work, "sigma", like=train)

    def run(self, w: Work) -> Output:
        """Take the moments on training images."""
        import torch

        from ddpmkit.likelihood.fit import fit_statistics
        from ddpmkit.pixels import to_pixels
        from ddpmkit.randomness import permutation
        from ddpmkit.study.trained import trained_for

        network = trained_for(self, w, data=self.data)
        images, tables = network.images, network.tables
        order = permutation(self.seed, len(images.train), 0, torch.device("cpu"))
        labels = network.labels("train") if self.told else None
        statistics = fit_statistics(
            network.predict(tables, self.eval_precision),
            tables,
            images=to_pixels(torch.from_numpy(images.train)[order].to(w.device), images.levels),
            labels=None if labels is None else labels[order.to(w.device)],
            draws=self.draws,
            levels=images.levels,
            seed=self.seed,
            micro_batch=self.batch,
            on_progress=w.progress,
            should_stop=w.should_stop,
        )
        return Output(FitRecord(draws=self.draws, split=self.split, T=tables.T), {"statistics": statistics})


def tells(s: Settings) -> bool:
    """Whether the walk of a cell tells the network labels, if that was trained with some: w = -1 asks without."""
    return s.guidance != -1


def fit_of(at: Place, *, told: bool) -> str | None:
    """Return the id of the fit of a place; None where none is planned."""
    return next((fit.id for fit in at.all(Fit) if fit.spec.told == told), None)


def statistics_of(fit: str | None, w: Work) -> dict[str, Array] | None:
    """Return what a fit stage found; None where there is none."""
    return None if fit is None else w.arrays("fit", fit, "statistics")
