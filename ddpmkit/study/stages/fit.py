"""fit: second moments of a trained network at every step, for sigmas and decoder variances that are fitted to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.study.records import FitRecord
from ddpmkit.study.stage import Output, Stage
from ddpmkit.study.stages.of_network import OfNetwork, asked
from ddpmkit.study.stages.train import Train

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array
    from ddpmkit.study.planning import Place
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

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Fit]]:
        """Give one where the walk's sigma, the bound's sigma or its decoder variance is fitted, and is asked for."""
        parts, context = at.parts, at.context
        bounded = "nll" in context.study.metrics
        walked = parts.noisy and context.extractors
        if not ((parts.sigma.fitted and (walked or bounded)) or (parts.decoder_fitted and bounded)):
            return
        train, s = at.one(Train), at.settings
        spec = cls(**asked(at, train), data=context.data, split="train", draws=s.fit_images, seed=at.train_seed)
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
        labels = network.labels("train")
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


def statistics_of(fit: str | None, w: Work) -> dict[str, Array] | None:
    """Return what a fit stage found; None where there is none."""
    return None if fit is None else w.arrays("fit", fit, "statistics")
