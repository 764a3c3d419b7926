"""What the stages of a study recorded along the way: the loss of each training, the bound by step, the schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpmkit import files
from ddpmkit.report.read.axes import out_of
from ddpmkit.report.read.frames import Records
from ddpmkit.study.records import NllRecord, TrainRecord
from ddpmkit.study.store import Store
from ddpmkit.text.naming import in_common

Curve = tuple[Any, Any]  # along x and along y, of one length


@dataclass(frozen=True)
class Curves:
    """Name -> its curves; nothing where nothing is recorded.

    Attributes:
        loss: training -> loss by step, a curve a seed; a training that cells share stands once.
        kinds: training -> what its loss is of: losses of two kinds are not on one scale.
        bits: cell, or what cells with one bound have in common -> bits/dim of each step's term of the bound, by t.
        alpha_bars: training -> alpha-bar by t.
        log_snr: training -> log SNR by t; NaN where the chain has no signal.
    """

    loss: dict[str, list[Curve]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    bits: dict[str, list[Curve]] = field(default_factory=dict)
    alpha_bars: dict[str, list[Curve]] = field(default_factory=dict)
    log_snr: dict[str, list[Curve]] = field(default_factory=dict)


def curves_of(records: Records) -> Curves:
    """Read the curves of every stage that is done."""
    curves = Curves()
    stages = {s["id"]: s for s in records.plan["stages"]}
    settings = {c["label"]: c.get("settings", {}) for c in records.plan["cells"]}
    bounds = _shared(records)
    seen: set[str] = set()
    for r in records.plan["results"]:
        store = Store(out_of(records, r))
        if r["train"] not in seen:
            seen.add(r["train"])
            stage, own = stages.get(r["train"], {}), settings.get(r["cell"], {})
            name = re.sub(r"^train (.*) seed \S+$", r"\1", str(stage.get("label", r["cell"])))
            if "study" in own:  # of several studies, two may have trainings of one name
                name = f"{own['study']}: {name}"
            curves.kinds.setdefault(name, _kind_of_loss(stage, own))
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
            found = store.record(NllRecord, r["nll"])
            reported = found and (found.unclipped if found.reported == "unclipped" else found.clipped)
            if reported and (terms := reported.curve):
                # The mean of a block of steps is drawn at the block's middle, on a scale of logarithms.
                middle = [(a * b) ** 0.5 for a, b in zip(terms["first"], terms["last"], strict=False)]
                curves.bits.setdefault(bounds[r["nll"]], []).append(_curve(middle, terms["bits"]))
    return curves


def _kind_of_loss(stage: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What a loss is of: its weighting, the sigma that enters the training, the prediction whose own error it is."""
    weighting = str(settings.get("weighting", ""))
    said = [f"weighting {weighting}"] if weighting else []
    said += [f"sigma {settings['sigma']}"] if "sigma" in stage.get("how", {}) and "sigma" in settings else []
    said += [f"prediction {settings['prediction']}"] if weighting == "native" and "prediction" in settings else []
    return ", ".join(said)


def _shared(records: Records) -> dict[str, str]:
    """Return the likelihoods' stages, each with a name for the cells that share it."""
    cells: dict[str, list[str]] = {}
    for r in records.plan["results"]:
        if r["nll"] and r["cell"] not in cells.setdefault(r["nll"], []):
            cells[r["nll"]].append(r["cell"])
    groups = {tuple(group) for group in cells.values()}
    names = [in_common(group) for group in groups]
    # What two groups have in common tells neither.
    return {
        stage: in_common(group) if names.count(in_common(group)) == 1 else group[0] for stage, group in cells.items()
    }


def _curve(t: Any, values: Any) -> Curve:
    values = np.array([np.nan if v is None else v for v in values or ()], np.float64)
    return (np.arange(1, len(values) + 1) if t is None else np.asarray(t)), values


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))
