"""Which cells of a study are looked at: conditions on its axes, applied before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.report.read.axes import setting_text, settings_of, values_of, varying_axes
from ddpmkit.report.read.frames import Records

FORMS = "--where schedule=cosine, schedule=cosine,linear for either, schedule!=cosine, schedule=cos*"


def select(records: Records, where: Sequence[str], baseline: str | None = None) -> Records:
    """Keep the cells for which every condition holds, and the one that they are compared with.

    Args:
        records: The study's.
        where: The conditions.
        baseline: The label of a cell that stays, whatever they say of it.

    Raises:
        DdpmkitError: for a condition that can't be read, an unknown axis, or when no cell is left.
    """
    if not where:
        return records
    tests = [_condition(text) for text in where]
    known = sorted({"cell"} | {k for c in records.plan["cells"] for k in c.get("settings", {})})
    for axis, _, _ in tests:
        if axis not in known:
            raise DdpmkitError(f"unknown axis '{axis}'{did_you_mean(axis, known)}", f"axes: {', '.join(known)}")
    kept = [c for c in records.plan["cells"] if all(_holds(c, *t) for t in tests)]
    if not kept:
        varying = varying_axes(records) or ["cell"]
        said = "; ".join(f"{a}: {', '.join(values_of(records, a))}" for a in varying)
        raise DdpmkitError(f"no cell has {' and '.join(where)}", said)
    labels = {*(c["label"] for c in kept), baseline}
    plan = {
        **records.plan,
        "cells": [c for c in records.plan["cells"] if c["label"] in labels],
        "results": [r for r in records.plan["results"] if r["cell"] in labels],
        "orderings": [],  # their family is that of the whole study
    }
    frame = records.results[records.results["cell"].isin(labels)].reset_index(drop=True)
    return replace(records, plan=plan, results=frame)


def _condition(condition: str) -> tuple[str, str, bool]:
    """Read ``axis=value,..`` or ``axis!=value,..`` into axis, values as text, and whether one is to be equal."""
    axis, eq, value = condition.partition("=")
    if not eq or not axis.strip("!"):
        raise DdpmkitError(f"--where '{condition}': expected axis=value", f"as in {FORMS}")
    return axis.removesuffix("!").strip().replace("-", "_"), value.strip(), not axis.endswith("!")


def cell_named(labels: Sequence[str], asked: str) -> str:
    """Return the label that a cell is asked for by; a number in it may be written otherwise, as ``guidance=0`` for 0.0.

    Raises:
        DdpmkitError: when there is no such cell.
    """
    same = [label for label in labels if _same_label(label, asked)]
    if asked in labels or len(same) == 1:
        return asked if asked in labels else same[0]
    raise DdpmkitError(f"the study has no cell '{asked}'{did_you_mean(asked, labels)}", f"cells: {', '.join(labels)}")


def _same_label(a: str, b: str) -> bool:
    """Whether two labels are one, word by word; of ``axis=value`` the values may be one number."""
    pairs = list(zip(a.split(), b.split(), strict=False))
    return len(a.split()) == len(b.split()) and all(
        x == y
        or (x.partition("=")[0] == y.partition("=")[0] and _same_number(x.partition("=")[2], y.partition("=")[2]))
        for x, y in pairs
    )


def _holds(cell: Mapping[str, Any], axis: str, value: str, equal: bool) -> bool:
    mine = setting_text(settings_of(cell).get(axis))
    # A value from elsewhere may hold a comma itself.
    return any(_same(axis, mine, one) for one in (value, *spec.split(value))) == equal


def _same(axis: str, mine: str, value: str) -> bool:
    """Whether a cell's value is one that was asked for."""
    same = mine == value or fnmatchcase(mine, value) or _same_number(mine, value)
    return same or (axis == "cell" and _same_label(mine, value))


def _same_number(a: str, b: str) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-12)
    except ValueError:
        return False
