"""What a reader of a report says on top of its records: which gap does not matter, and which way a metric is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.read.directions import as_direction, read


def read_margin(margin: Mapping[str, float] | str | None, metrics: Sequence[str]) -> dict[str, float]:
    """Read margins of equivalence: ``NLL=0.05,FD-digits=1``, or a number alone where there is one metric.

    Raises:
        DdpmkitError: for an unknown metric, or a margin that is not positive.
    """
    example = f"write it as {metrics[-1] if metrics else 'NLL'}=0.05"
    pairs: list[tuple[str, str | float]] = []
    pairs += _pairs(margin, metrics) if isinstance(margin, str) else (margin or {}).items()
    out = {}
    for name, value in pairs:
        metric = name.strip()
        if not metric:
            raise DdpmkitError(f"margin '{value}' names no metric, and there are {len(metrics)}", example)
        if metric not in metrics:
            raise DdpmkitError(
                f"margin for an unknown metric '{metric}'{did_you_mean(metric, metrics)}",
                f"metrics: {', '.join(metrics)}",
            )
        try:
            out[metric] = float(value)
        except ValueError:
            raise DdpmkitError(f"margin '{value}' of {metric} is no number", example) from None
        if not 0 < out[metric] < math.inf:
            raise DdpmkitError(f"margin {value} of {metric} is not positive", example)
    return out


def measured(margin: Mapping[str, float] | str | None, metrics: Iterable[str]) -> Mapping[str, float] | str | None:
    """Return the margins of the metrics that have a number yet; a text stays as it is.

    A run that was stopped early has few, and what was right to ask for is no mistake then.
    """
    if margin is None or isinstance(margin, str):
        return margin
    there = set(metrics)
    return {metric: gap for metric, gap in margin.items() if metric in there}


def read_directions(
    frame: pd.DataFrame, metrics: Sequence[str], directions: Mapping[str, str] | str, own: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return which way each metric is better (as the caller says, else the records, else its name), and the guesses."""
    from_caller = dict(_pairs(directions, metrics)) if isinstance(directions, str) else directions
    for metric in from_caller:
        if metric not in metrics:
            raise DdpmkitError(
                f"direction for an unknown metric '{metric}'{did_you_mean(metric, metrics)}",
                f"metrics: {', '.join(metrics)}",
            )
    from_records = {}
    if "better" in frame:
        rows = frame.loc[frame["better"].notna() & (frame["better"] != ""), ["metric", "better"]].drop_duplicates()
        from_records = dict(zip(rows["metric"], rows["better"], strict=True))
    known = {**from_records, **from_caller}
    ways: dict[str, str] = {
        m: as_direction(str(known[m]), m) if m in known else read(own.get(m, m)).way for m in metrics
    }
    return ways, [m for m in metrics if m not in known and not read(own.get(m, m)).sure]


def _pairs(text: str, metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Read ``NLL=0.05,FD-digits=1`` as metric and value; a value alone where there is one metric."""
    split = [part.rpartition("=") for part in text.split(",") if part.strip()]
    only = metrics[0] if len(metrics) == 1 else ""
    return [(name.strip() or only, value.strip()) for name, _, value in split]
