"""The model of a report: everything that it says, in numbers; tables and pictures are made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ddpmkit.report.judge.orderings import Outcome
from ddpmkit.report.judge.split import Split
from ddpmkit.report.read.directions import arrow, direction
from ddpmkit.report.read.reference import BITS
from ddpmkit.statistics import ALPHA, Components, Contrast, Effect, Interaction, Interval

Values = dict[str, dict[int, float]]  # cell -> train seed -> value of one metric


@dataclass(frozen=True)
class Summary:
    """Everything a report says, in numbers; tables are made from it.

    Attributes:
        study: the study's name.
        cells: the cells' labels, in the plan's order.
        metrics: the metrics of the main table.
        baseline: the cell that the others are compared with.
        intervals: metric -> cell -> mean with its interval over train seeds.
        differences: metric -> cell -> contrast with the baseline.
        counts: cell -> status -> number of results.
        references: row -> metric -> value.
        notes: what must be said below the tables.
        values: metric -> cell -> train seed -> value, sample seeds averaged inside.
        directions: metric -> lower, higher or none: which way is better.
        points: cell -> axis -> level, for the axes that vary.
        units: metric -> its unit, as the records say it, where a table's head should.
        effects: metric -> effects of whole axes over matched cells, in one family with the differences; none where they
            would repeat the differences, as in a study of one axis.
        interactions: metric -> interactions of two axes, a family of their own.
        margins: metric -> the gap that was said beforehand not to matter.
        variance: metric -> where the scatter of one number comes from, pooled over cells.
        variance_of_differences: the same for the paired differences from the baseline.
        smallest: metric -> the smallest gap that a study of this size shows with 80 % power.
        advice: what to run next, in sentences.
        train_seeds: the train seeds of the study.
        sample_seeds: its sample seeds.
        alpha: family-wise error rate of a metric's verdicts.
        originals: of several studies, the name here of a metric that one of them measured otherwise -> its own name.
        copies: metric -> cell -> the cell whose difference its own is another name of: both rest on the same stages.
        classes: names of the classes, label k is called classes[k]; empty where they have none.
        by_class: metric -> cell -> class -> mean over train seeds, and samples of that class in the mean.
        grown: whether train seeds were added after a look, so that the anytime-valid verdicts stand.
        orderings: what was expected of the cells beforehand, and what came of it.
        splits: metric -> cell -> its difference in bits/dim from the baseline, split by log SNR, where records tell.
        caution: what stands above everything else, that samples are near to noise; empty where there is nothing.
    """

    study: str
    cells: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Contrast]]
    counts: dict[str, dict[str, int]]
    references: dict[str, dict[str, float]]
    notes: tuple[str, ...]
    values: dict[str, Values] = field(repr=False, default_factory=dict)
    directions: dict[str, str] = field(default_factory=dict)
    points: dict[str, dict[str, str]] = field(default_factory=dict)
    effects: dict[str, tuple[Effect, ...]] = field(default_factory=dict)
    interactions: dict[str, tuple[Interaction, ...]] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    variance: dict[str, Components] = field(default_factory=dict)
    variance_of_differences: dict[str, Components] = field(default_factory=dict)
    smallest: dict[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    train_seeds: tuple[int, ...] = ()
    sample_seeds: tuple[int, ...] = ()
    alpha: float = ALPHA
    originals: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    copies: dict[str, dict[str, str]] = field(default_factory=dict)
    by_class: dict[str, dict[str, dict[int, tuple[float, float]]]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    grown: bool = False
    orderings: tuple[Outcome, ...] = ()
    splits: dict[str, dict[str, Split]] = field(default_factory=dict)
    caution: str = ""

    def way(self, metric: str) -> str:
        """Which way a metric is better: lower, higher or none."""
        return self.directions.get(metric, direction(metric))

    def unit(self, metric: str) -> str:
        """What stands behind a metric's name for the unit of its numbers, with a blank in front; empty without one."""
        unit = "bits/dim" if self.originals.get(metric, metric) in BITS else self.units.get(metric, "")
        return f" {unit}" if unit else ""

    def head(self, metric: str) -> str:
        """A metric's name as the head of a column: which way is better, and the unit."""
        return f"{metric}{arrow(self.way(metric))}{self.unit(metric)}"

    def json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        out = asdict(self)
        if not self.by_class:  # there is no study with labels in it
            del out["by_class"]
        if not self.orderings:
            del out["orderings"]
        if not any(self.splits.values()):
            del out["splits"]
        if not self.caution:
            del out["caution"]
        if not self.copies:
            del out["copies"]
        if not self.classes:
            del out["classes"]
        out["values"] = {
            m: {c: {str(s): v for s, v in seeds.items()} for c, seeds in cells.items()}
            for m, cells in self.values.items()
        }
        return out
