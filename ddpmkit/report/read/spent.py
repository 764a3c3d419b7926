"""Where each likelihood's bits lie: its terms as its record has them, and the log SNR of its steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpmkit.diffusion.log_snr_between import log_snr_between
from ddpmkit.report.read.axes import out_of
from ddpmkit.report.read.frames import Records
from ddpmkit.study.records import NllRecord, TrainRecord
from ddpmkit.study.store import Store

Array = np.ndarray[Any, np.dtype[np.float64]]
Steps = tuple[int, ...] | int  # which of a training's are bounded: these, or all of so many


@dataclass(frozen=True, eq=False)
class Spent:
    """One bound, bits/dim.

    Attributes:
        prior: L_T.
        decoder: L_0.
        total: the bound.
        error: its Monte-Carlo standard error; None where there is none.
        last: last step of each block of steps, t counted from 1, (blocks,); the first block is t=1 alone.
        bits: mean of L_{t-1} over the block's steps; NaN where nothing was drawn.
        errors: their Monte-Carlo standard errors.
        log_snr: log SNR of every step, (T,).
    """

    prior: float
    decoder: float
    total: float
    error: float | None
    last: Array
    bits: Array
    errors: Array
    log_snr: Array


def spent(records: Records, cells: Collection[str]) -> dict[tuple[str, int], Spent]:
    """Return (cell, train seed) -> its bound, of those cells whose records hold terms by step; older ones have none."""
    stages = {s["id"]: s for s in records.plan.get("stages", ())}  # numbers from elsewhere have none
    out: dict[tuple[str, int], Spent] = {}
    known: dict[str, Spent | None] = {}
    chains: dict[str, Array | None] = {}
    for r in records.plan.get("results", ()):
        stage = r.get("nll")
        if not stage or r["cell"] not in cells:
            continue
        if stage not in known:
            known[stage] = _spent(Store(out_of(records, r)), stages, r, chains)
        if (found := known[stage]) is not None:
            out[r["cell"], int(r["train_seed"])] = found
    return out


def _spent(
    store: Store, stages: Mapping[str, Any], r: Mapping[str, Any], chains: dict[str, Array | None]
) -> Spent | None:
    record = store.record(NllRecord, r["nll"])
    bound = record and (record.unclipped if record.reported == "unclipped" else record.clipped)
    if record is None or not bound or bound.prior is None or bound.decoder is None or not bound.curve:
        return None
    draw = stages.get(r["nll"], {}).get("spec", {}).get("draw")
    times = stages.get(draw, {}).get("spec", {}).get("times")  # of a walk; none where the chain is whole
    trained = store.record(TrainRecord, r["train"])
    steps: Steps = record.T if times is None else tuple(times)
    chain = (trained and trained.chain) or {}
    key = repr((chain, steps))  # all seeds of a cell have one
    if key not in chains:
        chains[key] = _log_snr(chain, steps)
    log_snr = chains[key]
    last, bits, errors = (_numbers(bound.curve.get(key)) for key in ("last", "bits", "standard_error"))
    if log_snr is None or not len(last) == len(bits) == len(errors) or not len(last) or last[-1] != len(log_snr):
        return None
    return Spent(bound.prior, bound.decoder, bound.total, bound.standard_error, last, bits, errors, log_snr)


def _log_snr(chain: Mapping[str, Any], steps: Steps) -> Array | None:
    """The log SNR of the steps, from those that the training's record has; None of a record that has none."""
    t, log_snr = (_numbers(chain.get(key)) for key in ("t", "log_snr"))
    known = np.isfinite(log_snr) if len(t) == len(log_snr) else np.zeros(0, bool)
    if "log_snr" not in chain or len(t) != len(log_snr) or not (np.diff(t, prepend=0.0) > 0).all():
        return None
    whole = isinstance(steps, int)
    at = np.arange(1.0, steps + 1) if isinstance(steps, int) else np.asarray(steps, np.float64) + 1
    return log_snr_between(t[known], log_snr[known], at, int(at[-1]) if whole else None)


def _numbers(values: Any) -> Array:
    return np.array([np.nan if v is None else v for v in values or ()], np.float64)
