"""Several studies as the records of one, cell by cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ddpmkit.report.read.axes import setting_text
from ddpmkit.report.read.columns import OF_CLASSES
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.meaning import meaning
from ddpmkit.report.read.reference import Reference
from ddpmkit.study.settings import FIELDS

# Settings that a trained network is used with; the others shape the training.
AFTER_TRAINING = (
    "sigma", "sampler", "sampling_steps", "eval_precision", "eval_batch", "samples", "guidance", "sample_labels",
    "reference_split", "nll_evals", "nll_se", "nll_full", "nll_chain", "nll_split",
    "decoder_variance", "fit_images",
)  # fmt: skip


def compare(studies: Sequence[Records]) -> Records:
    """Put several studies side by side: a cell is named ``study: cell``, the first study's first is the baseline.

    A cell that studies share, stage for stage, stands once. A metric that means something else in a later study
    (another N, reference, extractor or decoder) becomes a column of its own, and nothing is compared across; floors and
    baselines go with it. What else the studies differ in is said in one note.
    """
    if len(studies) == 1:
        return studies[0]
    names = _names(studies)
    studies = _with_settings_of_all(studies)
    cells: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    frames: list[pd.DataFrame] = []
    references: list[Reference] = []
    known: dict[str, set[str]] = {}
    seen: dict[tuple[Any, ...], str] = {}
    twice: list[str] = []
    originals: dict[str, str] = {}
    short: dict[str, tuple[int, int]] = {}
    stopped: dict[str, list[int]] = {}
    for name, records in zip(names, studies, strict=True):
        frame = records.results.copy()
        meant = _meanings(frame)
        other = {
            m: f"{m} ({name})" for m, said in meant.items() if m in known and said and known[m] and said != known[m]
        }
        for m, said in meant.items():
            known[m] = known.get(m) or said
        originals |= {new: old for old, new in other.items()}
        labels: dict[str, str] = {}
        for cell in records.plan["cells"]:
            mine = [r for r in records.plan["results"] if r["cell"] == cell["label"]]
            key = tuple(sorted((r["train"], r["sample"] or "", r["nll"] or "") for r in mine))
            label = f"{name}: {cell['label']}"
            if key and key in seen:
                twice.append(f"{label} is {seen[key]}")
                continue
            seen[key] = labels[cell["label"]] = label
            # `out` says whose store holds the stages, since each study may have its own.
            # The study is an axis of its own: two cells of one setting are not one point.
            at = {"study": name, **cell.get("settings", {})}
            cells.append({**cell, "settings": at, "label": label, "slug": f"{name}-{cell.get('slug', cell['label'])}"})
            results += [{**r, "cell": label, "out": str(r.get("out", records.folder.parent.parent))} for r in mine]
        stopped |= {labels[c]: list(seeds) for c, seeds in records.plan.get("stopped", {}).items() if c in labels}
        frame = frame[frame["cell"].isin(labels)]
        frames.append(frame.assign(cell=frame["cell"].map(labels), metric=frame["metric"].replace(other)))
        columns = {m: other.get(m, m) for m, said in meant.items() if said}
        references += [ref.under(columns, name) for ref in records.references]
        for metric, (needed, most) in records.short_classes.items():
            column = columns.get(metric, metric)
            short[column] = needed, max(most, short.get(column, (0, 0))[1])
    settings = [c["settings"] for c in cells]
    axes = {
        a: list(dict.fromkeys(s[a] for s in settings if a in s))
        for a in dict.fromkeys(a for s in settings for a in s)
        if len({setting_text(s.get(a)) for s in settings}) > 1
    }
    seeds = sorted({s for r in studies for s in r.plan["grid"]["train_seeds"]})
    first = studies[0].plan
    plan = {
        **first,
        "study": " against ".join(names),
        "cells": [{**c, "point": {a: c["settings"][a] for a in axes if a in c["settings"]}} for c in cells],
        "results": results,
        "stages": list({s["id"]: s for r in studies for s in r.plan["stages"]}.values()),
        "grid": {**first["grid"], "train_seeds": seeds, "axes": axes},
        "excluded": [e for r in studies for e in r.plan.get("excluded", ())],
        "same": twice,
        "stopped": stopped,
        "orderings": [],  # they are judged over the cells of one study
        "differ": _differing(dict(zip(names, studies, strict=True))),
    }
    remarked = tuple(dict.fromkeys(text for r in studies for text in r.said))
    called = {tuple(r.plan.get("classes", ())) for r in studies}
    plan["classes"] = list(called.pop()) if len(called) == 1 else []  # a label of two data sets has no one name
    problems = list(dict.fromkeys(p for r in studies for p in r.problems))
    mixed = tuple(dict.fromkeys(m for r in studies for m in r.mixed))
    return Records(
        studies[0].folder,
        plan,
        pd.concat(frames, ignore_index=True),
        references,
        problems,
        mixed,
        (),
        short,
        originals,
        remarked,
        tuple(g for r in studies for g in r.growths),
    )


def _with_settings_of_all(studies: Sequence[Records]) -> list[Records]:
    """Give the cells of an older study the settings that came later, at the value that stands for how things were."""
    later = {
        name: FIELDS[name].before
        for name in dict.fromkeys(k for r in studies for c in r.plan["cells"] for k in c.get("settings", {}))
        if name in FIELDS and FIELDS[name].before is not dataclasses.MISSING
    }
    out = []
    for records in studies:
        cells = []
        for cell in records.plan["cells"]:
            own = cell.get("settings", {})
            cells.append({**cell, "settings": {**own, **{k: v for k, v in later.items() if k not in own}}})
        columns = {k: v for k, v in later.items() if k in OF_CLASSES and k not in records.results}
        frame = records.results.assign(**columns)
        out.append(dataclasses.replace(records, plan={**records.plan, "cells": cells}, results=frame))
    return out


def _differing(studies: Mapping[str, Records]) -> list[str]:
    """Say each setting whose values are not the same in all studies, and the values by study."""
    values: dict[str, dict[str, list[str]]] = {}
    for name, records in studies.items():
        for cell in records.plan["cells"]:
            for setting, value in cell.get("settings", {}).items():
                seen = values.setdefault(setting, {}).setdefault(name, [])
                if setting_text(value) not in seen:
                    seen.append(setting_text(value))
        for seeds in ("train_seeds", "sample_seeds"):
            values.setdefault(seeds, {})[name] = [", ".join(map(str, records.plan["grid"].get(seeds, ())))]
        refs = [ref.record for ref in records.references]
        measured: dict[str, list[str | int]] = {
            "data": [r.reference for r in refs],
            "levels": [r.levels for r in refs],
            "split": [r.split for r in refs],
            "extractor": [r.features for r in refs],
        }
        for said, every in measured.items():
            values.setdefault(said, {})[name] = list(dict.fromkeys(str(v)[:8] for v in every if v))
    out = []
    for setting in sorted(values, key=_order):
        by = [values[setting].get(name, ["not set"]) for name in studies]
        if len({tuple(sorted(v)) for v in by}) > 1:
            out.append(f"{setting} " + " / ".join(", ".join(v) or "none" for v in by))
    return out


def _order(setting: str) -> tuple[int, int]:
    """Where a setting stands among those that differ: training first, then its use, then what was measured."""
    if setting not in FIELDS:
        return 1 if setting.endswith("_seeds") else 3, 0
    place = list(FIELDS).index(setting)
    return 2 if setting in AFTER_TRAINING else 0, -1 if setting == "train_steps" else place


def _meanings(frame: pd.DataFrame) -> dict[str, set[str]]:
    """Metric -> what its numbers mean, by the rule of :mod:`ddpmkit.report.read.meaning`."""
    out: dict[str, set[str]] = {}
    measured = frame["value"].notna()  # what is pending has no meaning yet
    for metric in dict.fromkeys(frame["metric"]):
        group = frame[(frame["metric"] == metric) & measured]
        out[str(metric)] = {meaning(d, None)[0] for d in group["definition"].dropna()} - {""}
    return out


def _names(studies: Sequence[Records]) -> list[str]:
    """Names that tell the studies apart; two of one name are told apart by their results folders."""
    names = [r.name for r in studies]
    for i, r in enumerate(studies):
        if names.count(r.name) > 1:
            names[i] = f"{r.folder.parent.parent.name}/{r.name}"
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]
