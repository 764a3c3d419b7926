"""Numbers of one class: rows of the tidy results whose metric says which, ``FD-pca16-debiased class 7``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ddpmkit.study.records import ScoreRecord

OF_ONE = re.compile(r"(.+) class (\d+)")
NEAR = "near-copies"
HELD_OUT = "real, held out"  # the row of what real images are by chance


SHARES = " labels=balanced"  # what the definition of a number over all of such samples says


def balanced(settings: Mapping[str, Any]) -> bool:
    """Whether a cell's samples are as many of each class, so that their distances measure the shares of classes too."""
    return bool(
        settings.get("conditional") and settings.get("sample_labels") == "balanced" and settings.get("guidance") != -1
    )


def of_one_class(metric: str) -> tuple[str, int] | None:
    """Return a metric and the class that a name says it is of; None where it is of all samples."""
    found = OF_ONE.fullmatch(metric)
    return (found[1], int(found[2])) if found else None


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
        definition = f"{named} n={row['n']}/{row['n_reference']} {rest}"
        out.append({**shared, "metric": named, "value": row[key], "n": row["n"], **said, "definition": definition})
    return out
