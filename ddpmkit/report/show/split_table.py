"""The differences in bits/dim split by log SNR, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.draw.palette import SERIES
from ddpmkit.report.judge.split import EDGES, Split
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.numbers import decimals, interval_text
from ddpmkit.report.show.table import Table
from ddpmkit.statistics import Interval
from ddpmkit.text.numbers import fixed

HEADS = ("cell", "part of the bound", "its bits/dim", "baseline's", "difference", "Monte-Carlo error")
FEWEST, MOST = 3, 5  # decimals
NAMED = 3  # cells with wide steps, beyond which they are counted
MANY = len(SERIES)  # cells, beyond which each has one row: as many as a figure's lines are told apart by colour


def split_table(s: Summary) -> Table | None:
    """Each cell's difference from the baseline in parts: L_T, ranges of log SNR, L_0, and their sum; None without."""
    found = [(cell, split) for m in s.metrics for cell, split in s.splits.get(m, {}).items()]
    if not found:
        return None
    # Every number has the same decimals, so that a reader can add the parts up.
    digits = min(MOST, max(FEWEST, decimals([split.parts[-1].difference for _, split in found])))
    if len(found) > MANY:
        return _wide(s, found, digits)
    rows = []
    for cell, split in found:
        for part in split.parts:
            error, gap = part.standard_error, interval_text(part.difference, digits, "+")
            if part.difference.high is not None and not round(max(map(abs, _ends(part.difference))), digits):
                gap = fixed(0.0, digits, "+")  # nothing, and known to be
            rows.append(
                (
                    cell, part.name, fixed(part.cell, digits), fixed(part.baseline, digits), gap,
                    "" if error is None else fixed(error, digits + 1),
                )
            )  # fmt: skip
    seeds = {len(split.seeds) for _, split in found}
    note = _note(max(seeds)) + _wide_steps(s, found)
    return Table(_title(s), HEADS, tuple(rows), detail=True, keys=(0, 1), lead=(4,), name="split", note=note)


def _wide(s: Summary, found: Sequence[tuple[str, Split]], digits: int) -> Table:
    """A row a cell and a column a part, the differences alone."""
    heads = ("cell", *(part.name for part in found[0][1].parts))
    rows = [(cell, *(fixed(part.difference.mean, digits, "+") for part in split.parts)) for cell, split in found]
    note = _note(max(len(split.seeds) for _, split in found)).partition(";")[0]
    note += (
        f"; the differences alone of {len(found)} cells; ddpmkit plot split {s.study} --where AXIS=VALUE has intervals."
    ) + _wide_steps(s, found)
    return Table(_title(s), heads, tuple(rows), detail=True, keys=(0,), lead=(len(heads) - 1,), name="split", note=note)


def the_splits(s: Summary) -> dict[str, Split]:
    """Return cell -> its split.

    Raises:
        DdpmkitError: when there is none.
    """
    found = next((by_cell for by_cell in s.splits.values() if by_cell), None)
    if found is None:
        raise DdpmkitError(
            f"study '{s.study}' has no NLL by step of {s.baseline} and another cell",
            "ddpmkit ablate --schedules linear,cosine --metrics nll, or another --baseline",
        )
    return found


def _title(s: Summary) -> str:
    return f"differences in bits/dim from {s.baseline}, split by log SNR"


def _wide_steps(s: Summary, found: Sequence[tuple[str, Split]]) -> str:
    """Whose steps are wider than a bin, so that the table tells little of where their bits are; empty without one."""
    by_name = {s.baseline: found[0][1].baseline_widest, **{cell: split.widest for cell, split in found}}
    wide = {name: width for name, width in by_name.items() if width > EDGES[1] - EDGES[0]}
    if not wide:
        return ""
    if len(wide) <= NAMED:
        steps = ", ".join(f"{name} {width:.1f}" for name, width in wide.items())
    else:
        steps = f"{len(wide)} of {len(by_name)} cells, up to {max(wide.values()):.1f}"
    return f" Steps wider than a bin, in log SNR: {steps}; the bits of a step are spread evenly over it."


def _ends(gap: Interval) -> tuple[float, float]:
    return gap.low or 0.0, gap.high or 0.0


def _note(seeds: int) -> str:
    """What the parts are, and what their intervals hold."""
    over = (
        "95 % Student-t intervals over train seeds, of the parts not adjusted, of the total that of the differences"
        if seeds > 1
        else "no intervals, since there is one train seed"
    )
    return (
        "Split by log SNR (natural logarithm): L_1 to L_T-1 by the noise level of their steps, L_T and L_0 apart; "
        f"{over}; Monte-Carlo error: of steps and noise, as if the cells were drawn apart; all of it is of these test "
        "images."
    )
