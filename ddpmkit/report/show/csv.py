"""Results as CSV: tidy, one row a number of the store; wide, one row a cell with the digits of the table."""

from __future__ import annotations

import csv
import io
import math

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.columns import TEXT
from ddpmkit.report.read.frames import Records
from ddpmkit.report.show.numbers import decimals, fitted
from ddpmkit.statistics import Contrast, Interval
from ddpmkit.text import inert
from ddpmkit.text.numbers import fixed


def to_tidy(records: Records) -> str:
    """One row a (cell, train seed, sample seed, metric), before rounding."""
    frame = records.results.copy()
    for column in frame.columns:
        if column in TEXT:
            frame[column] = [disarm(v) if isinstance(v, str) else v for v in frame[column]]
    return str(frame.to_csv(index=False, lineterminator="\n"))


def to_wide(records: Records, summary: Summary) -> str:
    """One row a cell: its settings, and for each metric the mean, the interval, the difference and the verdict."""
    axes = list(dict.fromkeys(k for c in records.plan["cells"] for k in c.get("point", {})))
    points = {c["label"]: c.get("point", {}) for c in records.plan["cells"]}
    heads = ["cell", *(a for a in axes if a != "cell"), "seeds"]
    for m in summary.metrics:
        heads += [m, f"{m} low", f"{m} high", f"{m} difference", f"{m} difference low", f"{m} difference high"]
        heads += [f"{m} Holm p", f"{m} verdict"]
        heads += [f"{m} e", f"{m} e needed", f"{m} sequence low", f"{m} sequence high", f"{m} anytime verdict"]
    digits = {m: decimals(list(summary.intervals[m].values())) for m in summary.metrics}
    gaps = {
        m: {c: Interval(d.difference, d.low, d.high, d.n) for c, d in summary.differences[m].items()}
        for m in summary.metrics
    }
    fine = {m: decimals(list(by_cell.values())) for m, by_cell in gaps.items()}
    rows = []
    for cell in summary.cells:
        seeds = max((i[cell].n for i in summary.intervals.values() if cell in i), default=0)
        row = [cell, *(str(points.get(cell, {}).get(a, "")) for a in axes if a != "cell"), str(seeds)]
        for m in summary.metrics:
            row += _three(summary.intervals[m].get(cell), digits[m], "")
            row += _three(gaps[m].get(cell), fine[m], "+")
            contrast = summary.differences[m].get(cell)
            row += ["", ""] if contrast is None else [_p(contrast.p_holm), contrast.verdict]
            row += _anytime(contrast, fine[m])
        rows.append(row)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([disarm(h) for h in heads])
    # A number may begin with a sign; what is no number may not.
    writer.writerows([c if _number(c) else disarm(c) for c in row] for row in rows)
    return out.getvalue()


def disarm(text: str) -> str:
    """Text that no spreadsheet runs as a formula."""
    text = inert(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _three(interval: Interval | None, column: int, sign: str) -> list[str]:
    if interval is None or math.isnan(interval.mean):
        return ["", "", ""]
    digits = fitted(interval, column)
    return ["" if e is None else fixed(e, digits, sign) for e in (interval.mean, interval.low, interval.high)]


def _anytime(contrast: Contrast | None, column: int) -> list[str]:
    """The e-value, the one that settles, the ends of the confidence sequence and its verdict."""
    found = contrast.anytime if contrast else None
    if contrast is None or found is None:
        return [""] * 5
    ends = _three(Interval(contrast.difference, found.low, found.high, contrast.n), column, "+")[1:]
    return [_p(found.e), f"{found.needed:g}", *ends, found.verdict]


def _p(p: float | None) -> str:
    return "" if p is None else f"{p:.3g}"


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
