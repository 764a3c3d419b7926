"""What the stages of a study recorded along the way: the loss of each training, the bound by step, the schedule."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpmkit import files
from ddpmkit.report.read.axes import out_of
from ddpmkit.report.read.frames import Records
from ddpmkit.study.records import NllRecord, TrainRecord
from ddpmkit.study.store import Store

Curve = tuple[Any, Any]  # along x and along y, of one length


@dataclass(frozen=True)
class Curves:
    """Name -> its curves; nothing where nothing is recorded.

    Attributes:
        loss: training -> loss by step, a curve a seed; a training that cells share stands once.
        bits: cell -> bits/dim of each step's term of the bound, by t.
        alpha_bars: training -> alpha-bar by t.
        log_snr: training -> log SNR by t; NaN where the chain has no signal.
    """

    loss: dict[str, list[Curve]] = field(default_factory=dict)
    bits: dict[str, list[Curve]] = field(default_factory=dict)
    alpha_bars: dict[str, list[Curve]] = field(default_factory=dict)
    log_snr: dict[str, list[Curve]] = field(default_factory=dict)


def curves_of(records: Records) -> Curves:
    """Read the curves of every stage that is done."""
    curves = Curves()
    labels = {s["id"]: str(s["label"]) for s in records.plan["stages"]}
    seen: set[str] = set()
    for r in records.plan["results"]:
        store = Store(out_of(records, r))
        if r["train"] not in seen:
            seen.add(r["train"])
            name = re.sub(r"^train (.*) seed \S+$", r"\1", labels.get(r["train"], r["cell"]))
            lines = files.read_lines(store.folder("train", r["train"]) / "metrics.jsonl")
            points = [(x["step"], x["loss"]) for x in lines if isinstance(x, dict) and _number(x.get("loss"))]
            if len(points) > 1:
                x, y = zip(*dict(points).items(), strict=True)  # a resumed training may repeat a step
                curves.loss.setdefault(name, []).append((x, y))
            trained = store.record(TrainRecord, r["train"])
            chain = (trained and trained.chain) or {}
            for key, by in (("alpha_bars", curves.alpha_bars), ("log_snr", curves.log_snr)):
                if name not in by and key in chain:
                    by[name] = [_curve(chain["t"], chain[key])]
        if r["nll"] and r["nll"] not in seen:
            seen.add(r["nll"])
            bounds = store.record(NllRecord, r["nll"])
            reported = bounds and (bounds.unclipped if bounds.reported == "unclipped" else bounds.clipped)
            if reported and (terms := reported.curve):
                # The mean of a block of steps is drawn at the block's middle, on a scale of logarithms.
                middle = [(a * b) ** 0.5 for a, b in zip(terms["first"], terms["last"], strict=False)]
                curves.bits.setdefault(r["cell"], []).append(_curve(middle, terms["bits"]))
    return curves


def _curve(t: Any, values: Any) -> Curve:
    values = np.array([np.nan if v is None else v for v in values or ()], np.float64)
    return (np.arange(1, len(values) + 1) if t is None else np.asarray(t)), values


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))
