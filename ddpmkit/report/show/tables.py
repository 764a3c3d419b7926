"""Tables of text from the summary: what is said is decided here, how it looks in the renderers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ddpmkit.report.forms import MAIN
from ddpmkit.report.judge.confirm import Confirmed
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.by_class import HELD_OUT, NEAR, PERFECT, class_name
from ddpmkit.report.read.directions import arrow
from ddpmkit.report.show.numbers import (
    column,
    decimals,
    fitted,
    fitted_value,
    interval_text,
    p_text,
)
from ddpmkit.report.show.ordering_table import ordering_table
from ddpmkit.report.show.split_table import split_table
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.trim import trimmed
from ddpmkit.statistics import ONE_RESULT, Contrast, Interval
from ddpmkit.text.numbers import fixed, significant, two_digits

CONTRAST_HEADS = ("difference", "Holm p", "seed corr.", "verdict")
# Of a study that has grown: the p is one for a number of seeds that was fixed beforehand, which it was not.
GROWN_HEADS = ("difference", "e (needed)", "Holm p, n fixed", "seed corr.", "verdict")


def main_table(s: Summary) -> Table:
    """Cells against metrics: mean [95 % interval over train seeds]; then what to hold them against."""
    rows = []
    digits = {m: decimals(list(s.intervals[m].values())) for m in s.metrics}
    for cell in s.cells:
        seeds = max((i[cell].n for i in s.intervals.values() if cell in i), default=0)
        missing = ", ".join(f"{n} {state}" for state, n in s.counts[cell].items() if state != "done")
        row = [cell, f"{seeds}" + (f" ({missing})" if missing else "")]
        for m in s.metrics:
            interval = s.intervals[m].get(cell)
            row.append("-" if interval is None else interval_text(interval, fitted(interval, digits[m])))
        rows.append(tuple(row))
    references = {name: values for name, values in s.references.items() if values.keys() & set(s.metrics)}
    for name, values in references.items():
        texts = (fixed(values[m], fitted_value(values[m], digits[m])) if m in values else "" for m in s.metrics)
        rows.append((name, "", *texts))
    heads = ("cell", "seeds", *(s.head(m) for m in s.metrics))
    return Table(f"study {s.study}", heads, tuple(rows), len(references), name=MAIN)


def contrast_table(s: Summary) -> Table | None:
    """Paired differences against the baseline, with Holm and a verdict; None when there is nothing to compare."""
    rows = []
    for metric in s.metrics:
        contrasts = s.differences.get(metric, {})
        for cell, text in zip(contrasts, contrast_texts(list(contrasts.values()), s.grown), strict=True):
            rows.append((cell, metric, *text))
    heads = ("cell", "metric", *_heads(s))
    title = f"differences from {s.baseline}, paired by seed"
    return Table(title, heads, tuple(rows), keys=(0, 1), lead=(2, len(heads) - 1), name="differences") if rows else None


def effect_table(s: Summary) -> Table | None:
    """Effects of whole axes over matched cells; None where they would repeat the differences."""
    rows = []
    for metric in s.metrics:
        effects = s.effects.get(metric, ())
        for e, text in zip(effects, contrast_texts([e.contrast for e in effects], s.grown), strict=True):
            over = f"{e.matched}" + (f" ({e.left_out} left out)" if e.left_out else "")
            rows.append((e.axis, f"{e.level} - {e.reference}", over, metric, *text))
    heads = ("axis", "levels", "matched pairs", "metric", *_heads(s))
    title = "effects of each axis, over matched cells and paired by seed"
    return Table(title, heads, tuple(rows), keys=(0, 1, 3), lead=(4, len(heads) - 1), name="effects") if rows else None


def interaction_table(s: Summary) -> Table | None:
    """Interactions of two axes, as differences of differences; None where the design can't show any."""
    rows = []
    for metric in s.metrics:
        crossed = s.interactions.get(metric, ())
        for i, text in zip(crossed, contrast_texts([i.contrast for i in crossed], s.grown), strict=True):
            names = tuple(f"{a}: {x} - {y}" for a, x, y in zip(i.axes, i.levels, i.references, strict=True))
            rows.append((*names, metric, *text))
    heads = ("effect", "depends on", "metric", *_heads(s))
    title = "interactions: differences of differences, paired by seed"
    return (
        Table(title, heads, tuple(rows), keys=(0, 1, 2), lead=(3, len(heads) - 1), name="interactions")
        if rows
        else None
    )


def sign_flip_table(s: Summary) -> Table | None:
    """The exact sign-flip test beside the t test, neither adjusted, with the least p that so few seeds can give."""
    rows = []
    for metric in s.metrics:
        contrasts = list(s.differences.get(metric, {}).items())
        contrasts += [(f"{e.axis} {e.level} - {e.reference}", e.contrast) for e in s.effects.get(metric, ())]
        for name, c in contrasts:
            if c.p is not None and c.p_sign_flip is not None and c.sign_flip_floor is not None:
                texts = (p_text(c.p), p_text(c.p_sign_flip), p_text(c.sign_flip_floor))
                rows.append((name, metric, f"{c.n}", *texts))
    heads = ("contrast", "metric", "seeds", "t test p", "sign-flip p", "its least")
    title = "t test and exact sign-flip test, not adjusted"
    return Table(title, heads, tuple(rows), detail=True, keys=(0, 1), name="tests") if rows else None


def variance_table(s: Summary) -> Table | None:
    """Where the scatter of one number comes from, as standard deviations; None with one train seed."""
    rows = []
    for metric in s.metrics:
        parts, gap = s.variance.get(metric), s.smallest.get(metric)
        if parts is not None:
            deviations = [parts.train, parts.sample, parts.evaluation]
            text = ["" if v is None else two_digits(math.sqrt(v)) for v in deviations]
            rows.append((metric, *text, "" if gap is None else two_digits(gap)))
    heads = ("metric", "train sd", "sample sd", "measuring sd", "smallest gap seen, 80 % power")
    return (
        Table(
            "where the scatter of one result comes from (an empty part is none, or inside the first)",
            heads,
            tuple(rows),
            detail=True,
            name="scatter",
        )
        if rows
        else None
    )


def class_table(s: Summary) -> Table | None:
    """Class by class: distances to the real images of the same class, and near copies; None without labels."""
    metrics = list(s.by_class)
    beside = dict.fromkeys(c for m in metrics for c in s.by_class[m] if c.startswith((PERFECT, HELD_OUT)))
    keys = [
        (cell, label)
        for cell in (*s.cells, *beside)
        for label in sorted({c for m in metrics for c in s.by_class[m].get(cell, {})})
    ]
    rows = []
    for cell, label in keys:
        found = [s.by_class[m].get(cell, {}).get(label) for m in metrics]
        n = next((f"{f[1]:.1f}".removesuffix(".0") for f in found if f is not None), "")
        told = ("" if f is None else _of_class(m, f[0]) for m, f in zip(metrics, found, strict=True))
        rows.append((cell, class_name(s.classes, label), n, *told))
    rule = (
        " (FD where both sides have 2 (D + 1) images of the class)"
        if not all(m.startswith(NEAR) for m in metrics)
        else ""
    )
    title = f"class by class, means over seeds{rule}"
    heads = ("cell", "class", "images", *(m if m.startswith(NEAR) else f"{m}{arrow('lower')}" for m in metrics))
    real = sum(row[0] not in s.cells for row in rows)
    return Table(title, heads, tuple(rows), real, detail=True, keys=(0, 1), name="classes") if rows else None


def _of_class(metric: str, value: float) -> str:
    return f"{value:.1%}" if metric.startswith(NEAR) else significant(value, 3)


def all_tables(s: Summary) -> list[Table]:
    """Every table of a report that has a number, in order."""
    more = (
        ordering_table(s),
        contrast_table(s),
        split_table(s),
        effect_table(s),
        interaction_table(s),
        class_table(s),
        sign_flip_table(s),
        variance_table(s),
    )
    return trimmed([main_table(s), *(t for t in more if t is not None)])


def confirm_table(c: Confirmed) -> Table:
    """The selecting study and the fresh seeds, one below the other, never averaged."""
    rows = []
    for name, contrast in (("study", c.plan.selected), ("fresh seeds", c.contrasts.get(c.plan.metric))):
        if contrast is not None:
            (text,) = contrast_texts([contrast])
            rows.append((name, f"{contrast.n}", *text))
    title = f"{c.plan.cell} against {c.plan.baseline} on {c.plan.metric}, confirmed on fresh seeds"
    return Table(title, ("from", "seeds", *CONTRAST_HEADS), tuple(rows))


def remarks(summary: Summary, shown: Sequence[Table] = ()) -> list[str]:
    """What stands below the tables: what one must know to read them, what they lack, then what to run next."""
    return [*summary.notes, *(t.note for t in shown if t.note), *(f"Next: {text}" for text in summary.advice)]


def _heads(s: Summary) -> tuple[str, ...]:
    return GROWN_HEADS if s.grown else CONTRAST_HEADS


def contrast_texts(contrasts: Sequence[Contrast], grown: bool = False) -> list[tuple[str, ...]]:
    """Difference with interval, of a study that has grown the e-value, Holm p, seed correlation, verdict."""
    numbers = column((Interval(c.difference, *c.interval, c.n) for c in contrasts), "+")
    out: list[tuple[str, ...]] = []
    for c, number in zip(contrasts, numbers, strict=True):
        # Two names of one result have no difference at all, rather than one that is known well.
        difference = "" if math.isnan(c.difference) else "0" if c.verdict == ONE_RESULT else number
        holm = "" if c.p_holm is None else p_text(c.p_holm)
        e = (_e_text(c),) if grown else ()
        out.append((difference, *e, holm, "" if c.correlation is None else f"{c.correlation:+.2f}", c.verdict))
    return out


def _e_text(c: Contrast) -> str:
    """An e-value, and the one that settles."""
    if c.anytime is None or c.anytime.e is None:
        return ""
    e = c.anytime.e
    return f"{'>1000' if e > 1000 else two_digits(e)} ({c.anytime.needed:g})"
