"""The one table model: what is said is decided here, how it looks in :mod:`ddpmkit.report.render`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from ddpmkit.report.frames import Records
from ddpmkit.statistics import Contrast, Interval, contrasts, t_interval

BASELINE_METRIC = "NLL"
HIDDEN = ("NLL-unclipped", "NLL-train")  # in the records and the files, not in the main table


@dataclass(frozen=True)
class Table:
    """A title, column heads, rows of text, and how many of the last rows are references rather than cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    references: int = 0


@dataclass(frozen=True)
class Summary:
    """Everything a report says, in numbers; tables are made from it."""

    study: str
    cells: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str
    intervals: dict[str, dict[str, Interval]]  # metric -> cell
    differences: dict[str, dict[str, Contrast]]  # metric -> cell
    counts: dict[str, dict[str, int]]  # cell -> status -> number of results
    references: dict[str, dict[str, float]]  # row -> metric -> value
    notes: tuple[str, ...]
    values: dict[str, dict[str, dict[int, float]]] = field(repr=False, default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        out = asdict(self)
        out["values"] = {
            m: {c: {str(s): v for s, v in seeds.items()} for c, seeds in cells.items()}
            for m, cells in self.values.items()
        }
        return out


def summarise(records: Records, baseline: str | None = None) -> Summary:
    """Turn a study's records into intervals, contrasts, verdicts and notes."""
    frame = records.results
    cells = tuple(c["label"] for c in records.plan["cells"])
    metrics = tuple(m for m in dict.fromkeys(frame["metric"]) if m not in HIDDEN)
    base = cells[0] if baseline is None else baseline
    values = {m: {c: by_seed(frame, m, c) for c in cells} for m in metrics}
    states = {c: _states(frame[frame["cell"] == c]) for c in cells}
    broken = frozenset(c for c, s in states.items() if set(s) - {"done"})
    intervals = {m: {c: t_interval(list(v.values())) for c, v in values[m].items() if v} for m in metrics}
    differences = {
        m: _compare(frame, m, {c: v for c, v in values[m].items() if v}, base, broken)
        if values[m][base] and len(cells) > 1
        else {}
        for m in metrics
    }
    references: dict[str, dict[str, float]] = {}
    for ref in records.references:
        references.setdefault(f"real, train n={ref['n_floor']}", {})[ref["label"]] = ref["floor"]
        if BASELINE_METRIC in metrics:
            for name, bits in ref["baselines"].items():
                references.setdefault(name, {})[BASELINE_METRIC] = bits
    return Summary(
        records.name,
        cells,
        metrics,
        base,
        intervals,
        differences,
        states,
        references,
        tuple(_notes(records, metrics, states)),
        values,
    )


def _states(frame: pd.DataFrame) -> dict[str, int]:
    """Return status -> number of results of one cell; a result is as bad as the worst of its metrics."""
    out: dict[str, int] = {}
    for _, result in frame.groupby(["train_seed", "sample_seed"], sort=False):
        bad = [str(s) for s in result["status"] if s != "done"]
        state = bad[0] if bad else "done"
        out[state] = out.get(state, 0) + 1
    return out


def _compare(
    frame: pd.DataFrame, metric: str, values: dict[str, dict[int, float]], base: str, broken: frozenset[str]
) -> dict[str, Contrast]:
    """Contrast the cells whose numbers mean the same; a distance over another N, reference or extractor does not."""
    other: set[str] = set()
    if metric.startswith("FD"):
        rows = frame[(frame["metric"] == metric) & frame["value"].notna()]
        means = {str(c): set(map(tuple, g[["definition", "n"]].to_numpy())) for c, g in rows.groupby("cell")}
        other = {c for c in values if means.get(c) != means.get(base)}
    found = contrasts({c: v for c, v in values.items() if c not in other}, base, never_better=broken)
    blank = Contrast(math.nan, None, None, None, None, None, 0, "not comparable")
    return {c: found.get(c, blank) for c in values if c != base}


def by_seed(frame: pd.DataFrame, metric: str, cell: str) -> dict[int, float]:
    """Return train seed -> value, sample seeds averaged inside; only train seeds whose every sample is done."""
    rows = frame[(frame["metric"] == metric) & (frame["cell"] == cell)]
    out = {}
    for seed, group in rows.groupby("train_seed"):
        if group["value"].notna().all():
            out[int(str(seed))] = float(group["value"].mean())
    return out


def main_table(s: Summary) -> Table:
    """Cells against metrics: mean [95 % interval over train seeds]; then what to hold them against."""
    rows = []
    digits = {m: decimals(list(s.intervals[m].values())) for m in s.metrics}
    for cell in s.cells:
        seeds = max((i[cell].n for i in s.intervals.values() if cell in i), default=0)
        missing = ", ".join(f"{n} {state}" for state, n in s.counts[cell].items() if state != "done")
        row = [cell, f"{seeds}" + (f" ({missing})" if missing else "")]
        row += [interval_text(s.intervals[m].get(cell), digits[m]) for m in s.metrics]
        rows.append(tuple(row))
    for name, values in s.references.items():
        rows.append((name, "", *(f"{values[m]:.{digits[m]}f}" if m in values else "" for m in s.metrics)))
    heads = ("cell", "seeds", *(f"{m} ↓" + (" bits/dim" if m == "NLL" else "") for m in s.metrics))
    return Table(f"study {s.study}", heads, tuple(rows), len(s.references))


def contrast_table(s: Summary) -> Table | None:
    """Paired differences against the baseline, with Holm and a verdict; None when there is nothing to compare."""
    rows = []
    for metric in s.metrics:
        found = {cell: (c, Interval(c.difference, c.low, c.high, c.n)) for cell, c in s.differences[metric].items()}
        digits = decimals([i for _, i in found.values()])
        for cell, (c, interval) in found.items():
            difference = "" if math.isnan(c.difference) else interval_text(interval, digits, "+")
            correlation = "" if c.correlation is None else f"{c.correlation:+.2f}"
            holm = "" if c.p_holm is None else p_text(c.p_holm)
            rows.append((cell, metric, difference, holm, correlation, c.verdict))
    if not rows:
        return None
    heads = ("cell", "metric", "difference", "Holm p", "seed corr.", "verdict")
    return Table(f"differences from {s.baseline}, paired by seed", heads, tuple(rows))


def decimals(intervals: list[Interval]) -> int:
    """Return how many decimals a column means: two significant digits of the median half-width, three without one."""
    halves = sorted((i.high - i.low) / 2 for i in intervals if i.low is not None and i.high is not None)
    half = halves[len(halves) // 2] if halves else 0.0
    digits = min(6, max(1, 1 - math.floor(math.log10(half)))) if half > 0 else 3
    # An interval that excludes zero must not be written with an end at zero.
    ends = [
        e for i in intervals if i.low is not None and i.high is not None and i.low * i.high > 0 for e in (i.low, i.high)
    ]
    while digits < 8 and any(round(e, digits) == 0 for e in ends):
        digits += 1
    return digits


def interval_text(i: Interval | None, digits: int = 3, sign: str = "") -> str:
    """Write ``mean [low, high]``, the mean alone for one seed, a dash for none."""
    if i is None:
        return "-"
    mean = _fixed(i.mean, digits, sign)
    if i.low is None or i.high is None:
        return mean
    return f"{mean} [{_fixed(i.low, digits, sign)}, {_fixed(i.high, digits, sign)}]"


def _fixed(value: float, digits: int, sign: str) -> str:
    """A number with so many decimals, and no negative zero."""
    return f"{value if round(value, digits) else 0.0:{sign}.{digits}f}"


def p_text(p: float) -> str:
    """Write a p-value."""
    text = f"{p:.3f}"
    return "<.001" if p < 0.001 else "1" if text == "1.000" else text.lstrip("0")


def _notes(records: Records, metrics: tuple[str, ...], states: dict[str, dict[str, int]]) -> list[str]:
    frame, plan = records.results, records.plan
    done = frame[frame["status"] == "done"]
    notes = []
    seeds = len(plan["grid"]["train_seeds"])
    if seeds > 1:
        notes.append(f"[a, b]: 95 % Student-t interval over {seeds} train seeds; sample seeds are averaged inside.")
        if len(plan["cells"]) > 1:
            notes.append(
                "Differences: paired t test by train seed, Holm over the contrasts of one metric; their intervals are "
                "at Holm's level, so that they exclude 0 exactly when the verdict says better or worse."
            )
    else:
        notes.append("One train seed: numbers without intervals, and no verdict can be given.")
    if any(metric.startswith("FD-") for metric in metrics):
        for text in dict.fromkeys(done.loc[done["metric"].str.startswith("FD-"), "definition"]):
            notes.append(f"{text}; samples are rounded to the grey levels. Not FID: another extractor, small N.")
        steps = ", ".join(dict.fromkeys(f"{r.sampler} {r.sampling_steps} steps" for r in frame.itertuples()))
        notes.append(f"Sampling: {steps}. The row 'real, train' is what real images of the training split score.")
    nll = done[done["metric"] == "NLL"]
    if len(nll):
        text = "; ".join(dict.fromkeys(nll["definition"]))
        notes.append(f"{text}; Monte-Carlo standard error at most {nll['standard_error'].max():.3f} bits/dim.")
        plain = done.loc[done["metric"] == "NLL-unclipped"].groupby("cell", sort=False)["value"].mean()
        notes.append("Unclipped: " + ", ".join(f"{cell} {v:.3f}" for cell, v in plain.items()) + " bits/dim.")
    costs = []
    for cell, group in done.groupby("cell", sort=False):
        row = group.iloc[0]
        if pd.notna(row["parameters"]) and pd.notna(row["flops"]):
            costs.append((cell, row["parameters"], row["flops"], group["train_seconds"].mean()))
    if costs:
        text = "; ".join(f"{c} {int(p):,} parameters, {f / 1e6:.1f} MFLOP, {t:.0f} s" for c, p, f, t in costs)
        notes.append(f"Cost (parameters, one evaluation, training of one seed): {text}.")
    machines = sorted({f for f in done["fingerprint"] if f})
    if len(records.mixed) > 0:
        notes.append(f"Mixed fingerprints, the last digits may differ: {'; '.join(records.mixed)}.")
    elif len(machines) > 1:
        notes.append("Mixed fingerprints, the last digits may differ between them: " + " | ".join(machines) + ".")
    elif machines:
        notes.append(f"Computed with {machines[0]}.")
    notes += [f"Excluded: {label}: {reason}." for label, reason in plan.get("excluded", ())]
    short = {c: s for c, s in states.items() if set(s) - {"done"}}
    for cell, counts in short.items():
        verdict = "; it is not called better" if len(states) > 1 else ""
        notes.append(f"{cell}: {', '.join(f'{n} results {k}' for k, n in counts.items())}{verdict}.")
    told = [f"{label}: {state}: {error}" for label, state, error in records.problems if error]
    notes += told[:5] + ([f"... and {len(told) - 5} more; ddpmkit status"] if len(told) > 5 else [])
    return notes
