"""nll: the bound from what was drawn, under one sigma and one decoder: arithmetic, no network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.diffusion.tables_for import Tables, decoder_log_variance, log_bounds
from ddpmkit.errors import Diverged
from ddpmkit.study.identity import Identity, hold
from ddpmkit.study.kind import StageKind
from ddpmkit.study.records import BoundRecord, NllRecord
from ddpmkit.study.stage import Output, Stage, added, upstream
from ddpmkit.study.stages.draw import Draw, split_images
from ddpmkit.study.stages.fit import fit_of, statistics_of
from ddpmkit.study.stages.train import Train

if TYPE_CHECKING:
    from ddpmkit.diffusion.bound_terms import Decoder
    from ddpmkit.likelihood.draws import Draws
    from ddpmkit.plugin.interfaces import Array
    from ddpmkit.study.planning import Place
    from ddpmkit.study.work import Work


@dataclass(frozen=True, kw_only=True)
class Nll(StageKind):
    """A draw, and the reverse variance and the decoder that make a bound of it."""

    kind = "nll"
    version = 4
    priority = 5
    cost = "moment"
    per = "train seed"
    draw: str = upstream("draw")
    sigma: Identity
    decoder: Decoder
    decoder_variance: str
    fit: str | None = added(None, upstream="fit")

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Nll]]:
        """Give one for each draw."""
        fit = fit_of(at, told=True)
        for drawn in at.all(Draw):
            spec = cls(
                changed_by=at.context.changed_by,
                draw=drawn.id,
                sigma=at.parts.identities["sigma" if drawn.spec.times is None else "sigma of the walk"],
                decoder="cdf",
                decoder_variance=at.settings.decoder_variance,
                fit=fit,
            )
            label = f"nll {at.cell.label} {drawn.spec.split} seed {drawn.spec.seed}"
            yield at.stage(spec, label, drawn.work, like=drawn)

    def run(self, w: Work) -> Output:
        """Bound the split, with x0hat clipped and as it is."""
        import torch

        from ddpmkit.diffusion.reverse_variance import log_variance
        from ddpmkit.likelihood.draws import Draws
        from ddpmkit.pixels import to_pixels

        asked = w.spec(Draw, self.draw)
        images, sigma = w.images(asked.data), w.component("sigma")
        full = w.spec(Train, asked.train).tables(w.component("schedule"))
        tables = asked.chain(full)
        hold("sigma", self.sigma, *log_bounds(sigma, tables))
        pixels = to_pixels(torch.from_numpy(split_images(images, asked.split)), images.levels)
        draws = Draws.from_arrays(w.arrays("draw", self.draw, "draws"), pixels.numpy())
        statistics, choice = statistics_of(self.fit, w), self.decoder_variance
        log_sigma2, decoder = None, None
        if not sigma.learned:
            log_sigma2 = log_variance(sigma, tables, statistics, full)
            if choice == "fitted" and statistics is not None:
                decoder = float(statistics["decoder_log_variance"])
            else:
                decoder = decoder_log_variance(tables, choice)
        clipped, unclipped = bounds(draws, tables, log_sigma2, decoder, self.decoder, images.levels)
        if not (math.isfinite(clipped.total) and math.isfinite(unclipped.total)):
            raise Diverged("the bound is not finite")
        record = NllRecord(
            clipped=clipped,
            unclipped=unclipped,
            reported=reported(tables),
            evaluations=draws.evaluations,
            images=len(pixels),
            levels=images.levels,
            data=asked.data,
            split=asked.split,
            decoder=self.decoder,
            decoder_variance="learned" if sigma.learned else choice,
            T=tables.T,
        )
        return Output(record)


def bounds(
    draws: Draws,
    tables: Tables,
    log_sigma2: Array | None,
    decoder_log_variance: float | None,
    decoder: Decoder,
    levels: int,
) -> tuple[BoundRecord, BoundRecord]:
    """Return the bound with x0hat clipped to [-1, 1] and the one with x0hat as it is, bits/dim."""
    from ddpmkit.likelihood.vlb import bound

    clipped, unclipped = (
        bound(draws, tables, log_sigma2, decoder_log_variance, decoder, levels=levels, clip=clip)
        for clip in (True, False)
    )
    return BoundRecord.of(clipped), BoundRecord.of(unclipped)


def reported(tables: Tables) -> str:
    """Which of the two bounds stands in the table."""
    # A valid model mean lies in the range of the data; the walk that explodes is told as it is.
    return "clipped" if tables.variance_preserving else "unclipped"
