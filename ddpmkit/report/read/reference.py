"""What a study's numbers are held against: what real images score, and the bits/dim of plain models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from ddpmkit.report.read.by_class import HELD_OUT, NEAR, PERFECT
from ddpmkit.study.records import RefRecord

BASELINE_METRIC = "NLL"  # the column that plain models stand under
GIVEN_CLASS = "NLL-given-class"  # -log p(x | y): another number, and never in one column with the other
BITS = (BASELINE_METRIC, GIVEN_CLASS)


@dataclass(frozen=True)
class Reference:
    """What a reference's stage recorded, and the columns that it belongs under here.

    Attributes:
        record: what the stage left; its ``floors`` and ``unlearned`` are by column.
        study: of several studies, the one that it is of.
        baselines_under: the column of the plain models; None where there is none.
        given_class_under: the column of those that are told the class.
        mirrored: whether the training images that it was held against were shown mirrored too.
        near_under: the columns of the held-out images' near copies, a class its own; None where they keep their name.
        perfect_under: the same of a perfect model's distances.
    """

    record: RefRecord
    study: str = ""
    baselines_under: str | None = BASELINE_METRIC
    given_class_under: str | None = GIVEN_CLASS
    near_under: dict[int, str] | None = None
    perfect_under: dict[int, str] | None = None
    mirrored: bool = False

    @property
    def perfect(self) -> str:
        """The column that a perfect model's distance by class belongs to."""
        return f"{self.record.names.get('fd', '')}-debiased"

    def by_class(self) -> Iterator[tuple[str, str | None, int, tuple[float, float]]]:
        """Give what stands beside the classes: the row's name, its column or None, the class, (number, images)."""
        for row in self.record.perfect_by_class:
            column = self.perfect if self.perfect_under is None else self.perfect_under.get(row["class"])
            yield PERFECT, column, row["class"], (row["fd"], row["n"])
        for row in self.record.heldout_by_class:
            column = NEAR if self.near_under is None else self.near_under.get(row["class"])
            yield HELD_OUT, column, row["class"], (row["near"], row["n"])

    def under(self, columns: dict[str, str], study: str) -> Self:
        """Return the reference as one of several studies has it.

        Args:
            columns: A metric that the study measured -> its column here; what it did not measure has no column of its
                own, and none of another study's.
            study: The study's name.
        """
        floors, *unlearned = (
            {columns[m]: value for m, value in values.items() if m in columns}
            for values in (self.record.floors, *self.record.unlearned.values())
        )
        return replace(
            self,
            record=replace(
                self.record, floors=floors, unlearned=dict(zip(self.record.unlearned, unlearned, strict=True))
            ),
            study=study,
            baselines_under=columns.get(BASELINE_METRIC),
            given_class_under=columns.get(GIVEN_CLASS),
            perfect_under={
                row["class"]: self.perfect + columns[metric].removeprefix(metric)
                for row in self.record.perfect_by_class
                if (metric := f"{self.perfect} class {row['class']}") in columns
            },
            near_under={
                row["class"]: NEAR + columns[metric].removeprefix(metric)
                for row in self.record.heldout_by_class
                if (metric := f"{NEAR} class {row['class']}") in columns
            },
        )
