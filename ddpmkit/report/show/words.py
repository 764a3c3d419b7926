"""The summary in words: what is settled, what is open, and what one must know before believing it."""

from __future__ import annotations

from dataclasses import dataclass

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.tables import contrast_table
from ddpmkit.statistics import ONE_RESULT

SETTLED = ("better", "worse")


@dataclass(frozen=True)
class Finding:
    """One metric: its name, and the cells by verdict, each with its difference as the table prints it."""

    metric: str
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def settled(self) -> bool:
        """Whether any contrast is better, worse or shown to be small."""
        return any(verdict in SETTLED or verdict.startswith("no gap") for verdict, _ in self.groups)


def findings(summary: Summary) -> list[Finding]:
    """Group the contrasts of each metric by their verdict; better first, then worse, then the rest as they come."""
    table = contrast_table(summary)
    if table is None:
        return []
    cell, metric, gap = (table.columns.index(c) for c in ("cell", "metric", "difference"))
    verdict = table.columns.index("verdict")
    out = []
    for name in summary.metrics:
        groups: dict[str, list[tuple[str, str]]] = {v: [] for v in SETTLED}
        for row in table.rows:
            if row[metric] == name:
                groups.setdefault(row[verdict], []).append((row[cell], row[gap]))
        nonempty = tuple((v, tuple(cells)) for v, cells in groups.items() if cells)
        if nonempty:
            out.append(Finding(name, nonempty))
    return out


def lead(summary: Summary) -> list[str]:
    """The first sentences: how much there is, how much of it is settled, what is missing."""
    cells, seeds = len(summary.cells), max((i.n for by in summary.intervals.values() for i in by.values()), default=0)
    total = sum(n for c in summary.cells for n in summary.counts.get(c, {}).values())
    done = sum(summary.counts.get(c, {}).get("done", 0) for c in summary.cells)
    sentences = [summary.caution] if summary.caution else []
    sentences += [f"{_count(cells, 'cell')}, {_count(seeds, 'train seed')}, {done} of {_count(total, 'result')} done."]
    # What rests on the same results is one difference, whatever the cells are called, and on one result there is none.
    contrasts = [
        c.verdict
        for metric, by in summary.differences.items()
        for cell, c in by.items()
        if cell not in summary.copies.get(metric, {}) and c.verdict != ONE_RESULT
    ]
    if cells > 1 and contrasts:
        settled = sum(v in SETTLED or v.startswith("no gap") for v in contrasts)
        if seeds < 2:
            sentences.append("One train seed gives numbers and no verdict: repeat the study with more seeds.")
        elif settled == 0:
            sentences.append(f"None of {_count(len(contrasts), 'difference')} from {summary.baseline} is settled.")
        else:
            sentences.append(
                f"{settled} of {_count(len(contrasts), 'difference')} from {summary.baseline} are settled."
            )
    return sentences


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
