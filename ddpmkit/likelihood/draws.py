"""What the network was asked for the bound and what it answered: raw material for any fixed sigma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpmkit.diffusion.tables_for import Array
from ddpmkit.errors import DdpmkitError

Plain = np.ndarray[Any, Any]
SWEPT = ("clipped", "unclipped", "terms_clipped", "terms_unclipped")
MOMENTS = ("total", "square", "lagged", "image")
BINS = 64  # of the steps, for the sums that a full sweep keeps of each image


@dataclass(frozen=True, eq=False)
class Values:
    """One number a draw, float64 (n,), of the network clipped to [-1, 1] and as it is."""

    clipped: Array
    unclipped: Array

    def of(self, clip: bool) -> Array:
        """Return one of the two."""
        return self.clipped if clip else self.unclipped


@dataclass(frozen=True, eq=False)
class Sampled:
    """Draws of (step, image) pairs by importance, the replicates one after another, and the pilot's.

    Attributes:
        t: step of each draw, 1 .. T-1, int64 (n,).
        image: its image, int64 (n,).
        proposal: p_t, (T,).
        errors: ||x0 - x0hat||^2 of each draw.
        terms: L_{t-1} of each draw in nats, where the network gives its own variance; else None.
        controls: its control variates, (n, C).
        pilot_t: step of each pilot draw.
        pilot_errors: errors of the pilot draws.
        pilot_terms: terms of the pilot draws.
        pilot_controls: controls of the pilot draws.
        scales: size of the controls at every step, (T, C).
        replicates: R.
    """

    t: Plain
    image: Plain
    proposal: Array
    errors: Values
    terms: Values | None
    controls: Array
    pilot_t: Plain
    pilot_errors: Values
    pilot_terms: Values | None
    pilot_controls: Array
    scales: Array
    replicates: int


@dataclass(frozen=True, eq=False)
class SweepSums:
    """Sums of one value over the images at every step of a full sweep, and over blocks of steps for every image.

    Where a sweep is repeated each repeat of an image counts as an image.

    Attributes:
        total: sum over images, (T,); entry 0 is not used.
        square: sum of squares, (T,).
        lagged: sum of the product with the same image's value one step later, (T,); the last entry is 0.
        image: sum over the steps of each block, weighted as in ``reference``, of every image and repeat, (R N, blocks).
    """

    total: Array
    square: Array
    lagged: Array
    image: Array


@dataclass(frozen=True, eq=False)
class Swept:
    """Every image at every step, as sums: what is kept does not grow with images times steps.

    Attributes:
        clipped: moments of the squared error, clipped.
        unclipped: the same, not clipped.
        terms_clipped: moments of L_{t-1} in nats where the network gives its own variance; else None.
        terms_unclipped: the same, not clipped.
        block: the block of each step, int64 (T,).
        reference: the factor on the squared error by which the blocks of each image are summed, (T,).
        repeats: R, how often the sweep was done with fresh noise, one repeat after another; 1 unless images are few.
    """

    clipped: SweepSums
    unclipped: SweepSums
    terms_clipped: SweepSums | None
    terms_unclipped: SweepSums | None
    block: Plain
    reference: Array
    repeats: int = 1


@dataclass(frozen=True, eq=False)
class Draws:
    """All that the network was asked, once: layer one of the likelihood.

    Attributes:
        x0: the images, float32 (N, d).
        decoder_mean: x0hat at t=1, not clipped, float32 (draws an image, N, d).
        decoder_log_variance: the network's own log-variance there, the same shape; None for fixed sigmas.
        middle: the steps from t=2 on.
        T: length of the chain.
        evaluations: network evaluations, in images, the pilot's and the decoder's included.
    """

    x0: Plain
    decoder_mean: Plain
    decoder_log_variance: Plain | None
    middle: Sampled | Swept
    T: int
    evaluations: int

    @property
    def dims(self) -> int:
        """Dimensions of an image."""
        return int(self.x0.shape[1])

    def arrays(self) -> dict[str, Plain]:
        """Return everything but the images as named arrays, to be stored; of a full sweep they are its sums."""
        out: dict[str, Plain] = {"decoder_mean": self.decoder_mean}
        if self.decoder_log_variance is not None:
            out["decoder_log_variance"] = self.decoder_log_variance
        s = self.middle
        if isinstance(s, Swept):
            out |= {"block": s.block, "reference": s.reference}
            out["counts"] = np.array([s.repeats, self.T, self.evaluations], dtype=np.int64)
            for name in SWEPT:
                moments = getattr(s, name)
                if moments is not None:
                    out |= {f"{name}/{part}": getattr(moments, part) for part in MOMENTS}
            return out
        out |= {
            "t": s.t.astype(np.int32),
            "image": s.image.astype(np.int32),
            "proposal": s.proposal,
            "controls": s.controls,
            "pilot_t": s.pilot_t.astype(np.int32),
            "pilot_controls": s.pilot_controls,
            "scales": s.scales,
            "counts": np.array([s.replicates, self.T, self.evaluations], dtype=np.int64),
        }
        named = {"error": s.errors, "term": s.terms, "pilot_error": s.pilot_errors, "pilot_term": s.pilot_terms}
        for name, values in named.items():
            if values is not None:
                out[f"{name}_clipped"], out[f"{name}_unclipped"] = values.clipped, values.unclipped
        return out

    @classmethod
    def from_arrays(cls, arrays: dict[str, Plain], x0: Plain) -> Draws:
        """Put together what :meth:`arrays` gave; ``x0`` are the same images, float32 (N, ...)."""

        def values(name: str) -> Values | None:
            if f"{name}_clipped" not in arrays:
                return None
            return Values(arrays[f"{name}_clipped"], arrays[f"{name}_unclipped"])

        flat = np.ascontiguousarray(x0, dtype=np.float32).reshape(len(x0), -1)
        decoder = arrays["decoder_mean"], arrays.get("decoder_log_variance")
        if "block" in arrays:
            repeats, T, evaluations = (int(v) for v in arrays["counts"])
            found = {
                name: SweepSums(*(arrays[f"{name}/{part}"] for part in MOMENTS)) if f"{name}/total" in arrays else None
                for name in SWEPT
            }
            clipped, unclipped, terms_clipped, terms_unclipped = (found[name] for name in SWEPT)
            if clipped is None or unclipped is None:
                raise DdpmkitError("the stored sweep has no squared errors", "draw it again")
            moments = clipped, unclipped, terms_clipped, terms_unclipped
            swept = Swept(*moments, arrays["block"], arrays["reference"], max(repeats, 1))
            return cls(flat, *decoder, swept, T, evaluations)
        errors, pilot_errors = values("error"), values("pilot_error")
        if errors is None or pilot_errors is None:
            raise DdpmkitError("the stored draws have no squared errors", "draw them again")
        replicates, T, evaluations = (int(v) for v in arrays["counts"])
        sampled = Sampled(
            arrays["t"].astype(np.int64),
            arrays["image"].astype(np.int64),
            arrays["proposal"],
            errors,
            values("term"),
            arrays["controls"],
            arrays["pilot_t"].astype(np.int64),
            pilot_errors,
            values("pilot_term"),
            arrays["pilot_controls"],
            arrays["scales"],
            replicates,
        )
        return cls(flat, *decoder, sampled, T, evaluations)


def blocks(T: int, count: int = BINS) -> Plain:
    """Return the block of each step, int64 (T,): one step each at first, then evenly spread along log t; 0 is t=1."""
    edges = np.unique(np.round(np.geomspace(1, T, count)).astype(np.int64))
    return np.searchsorted(edges, np.arange(T), side="right").astype(np.int64)
