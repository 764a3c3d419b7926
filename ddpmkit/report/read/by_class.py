"""Numbers of one class: rows of the tidy results whose metric says which, ``FD-pca16-debiased class 7``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ddpmkit.study.records import RefRecord, ScoreRecord

UNTOLD = -1.0
NEAR = "near-copies"
OF_ONE = re.compile(rf"(.+-debiased|{NEAR}) class (\d+)")
PERFECT = "perfect model"  # the row of what is left of a distance by the few images of its reference
HELD_OUT = "real, held out"  # the row of what real images are by chance
SHARES = " labels=balanced"  # what the definition of a number over all of such samples says


def balanced(settings: Mapping[str, Any]) -> bool:
    """Whether a cell's samples are as many of each class, so that their distances measure the shares of classes too."""
    return bool(settings.get("conditional")) and settings.get("sample_labels") == "balanced" and not untold(settings)


def untold(settings: Mapping[str, Any]) -> bool:
    """Whether the network was told no label of what it drew: at w = -1 eps(x_t, y) has no part."""
    return settings.get("guidance") == UNTOLD


def class_name(classes: Sequence[str], label: int) -> str:
    """Return a class as it is shown: its number, and its name where it has one that says more."""
    name = classes[label] if 0 <= label < len(classes) else ""
    return f"{label} {name}" if name and name != str(label) else f"{label}"


def classes_in(frame: pd.DataFrame, originals: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the metrics of a frame that are of one class, each with the metric's own name and the class.

    A name alone does not say so, for a table made elsewhere may have any; these rows' definitions begin with the name.

    Args:
        frame: Tidy results.
        originals: Of several studies, a metric's name here -> its own name.
    """
    out: dict[str, tuple[str, int]] = {}
    others = set()
    rows = frame[["metric", "definition"]].drop_duplicates()
    for metric, definition in zip(rows["metric"].tolist(), rows["definition"].tolist(), strict=True):
        own = originals.get(metric, metric)
        found = OF_ONE.fullmatch(own)
        if found and str(definition).startswith(f"{own} "):
            out[metric] = found[1], int(found[2])
        else:
            others.add(metric)
    return {metric: told for metric, told in out.items() if metric not in others}


def too_few(scored: ScoreRecord, reference: RefRecord) -> tuple[str, int, int] | None:
    """Return a distance that some classes have too few images for, the images that it needs, and the most they have."""
    short = [min(row["n"], row["n_reference"]) for row in scored.by_class if row.get("fd") is None]
    if not short or "fd" not in scored.metrics or not reference.dims:
        return None
    return reference.names["fd"], 2 * (reference.dims + 1), max(short)  # as distances/by_class.py has it


def class_rows(scored: ScoreRecord, metric: str, shared: dict[str, Any], column: str) -> list[dict[str, Any]]:
    """Return a row a class of what belongs to a metric: of ``fd`` the distance, of ``copy`` the share of near copies.

    Args:
        scored: What the score's stage left.
        metric: The metric's name in records.
        shared: What all rows of the metric share.
        column: The metric's name in tables.
    """
    key, name = {"fd": ("fd", f"{column}-debiased"), "copy": ("near", NEAR)}.get(metric, ("", ""))
    out = []
    for row in scored.by_class:
        if row.get(key) is None:
            continue
        named = f"{name} class {row['class']}"
        said = {"unit": "squared distance", "standard_error": row.get("fd_se")} if key == "fd" else {"unit": "share"}
        rest = shared["definition"].partition(" ref=")[2].removesuffix(SHARES)  # one class knows no shares of classes
        # Without n, which no two networks have in common where labels are drawn, and which is a column anyway.
        definition = f"{named} ref={rest}"
        out.append({**shared, "metric": named, "value": row[key], "n": row["n"], **said, "definition": definition})
    return out
