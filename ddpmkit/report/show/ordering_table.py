"""The orderings as a table: what was published, what was found, and whether the two agree."""

from __future__ import annotations

from ddpmkit.report.judge.orderings import OPEN, Outcome
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.numbers import column, p_text
from ddpmkit.report.show.table import Table
from ddpmkit.statistics import Interval
from ddpmkit.text.numbers import significant

HEADS = (
    "ordering", "source", "metric", "published, cell / baseline", "here, cell / baseline", "difference", "Holm p",
    "seeds", "expected", "verdict",
)  # fmt: skip


def ordering_table(s: Summary) -> Table | None:
    """Each ordering of the study with the published values, ours, and agrees, disagrees or open; None without any."""
    shown = [o for o in s.orderings if not o.column or o.column in s.metrics or o.ours == (None, None)]
    if not shown:
        return None
    taken = [o.contrast for o in shown if o.contrast is not None]
    texts = iter(column([Interval(c.difference, c.low, c.high, c.n) for c in taken], "+"))
    rows = []
    for o in shown:
        difference = "" if o.contrast is None else next(texts)
        p = "" if o.contrast is None or o.contrast.p_holm is None else p_text(o.contrast.p_holm)
        seeds = ",".join(map(str, o.ordering.seeds))
        rows.append(
            (
                o.ordering.claim, o.ordering.source, o.column or o.ordering.metric, _both(o.ordering.paper or ()),
                _both(o.ours), difference, p, seeds, o.ordering.expected, o.verdict,
            )
        )  # fmt: skip
    title = f"orderings that were stated, paired by seed, Holm over the {len(s.orderings)} of the file"
    return Table(title, HEADS, tuple(rows), keys=(0, 2), lead=(4, 3, 9), name="orderings", note=_note(shown))


def _both(values: tuple[float | None, ...]) -> str:
    known = [v for v in values if v is not None]
    return " / ".join(significant(v, 4) for v in known) if len(known) == 2 else ""


def _note(shown: list[Outcome]) -> str:
    """Why what is open is open, and what was known when an ordering was written down."""
    why: dict[str, list[str]] = {}
    for o in shown:
        if o.verdict == OPEN:
            why.setdefault(o.why, []).append(o.ordering.claim)
    said = [f"Open, {reason}: {'; '.join(claims)}." for reason, claims in why.items()]
    late = [
        f"{o.ordering.claim} ({o.ordering.known} of {2 * len(o.ordering.seeds)})" for o in shown if o.ordering.known
    ]
    if late:
        said.append(f"Written down when some of their results were there already: {'; '.join(late)}.")
    return " ".join(said)
