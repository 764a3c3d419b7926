"""What every kind of stage says: what enters its id, how often and how it is planned, how it runs, what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ddpmkit.study.stage import Output, Spec, Stage

if TYPE_CHECKING:
    from ddpmkit.study.planning import Place
    from ddpmkit.study.work import Work

# What a unit of its work costs: a training step's share of one image, a network's pass over one, or next to nothing.
Cost = Literal["training", "pass", "moment"]
# How often a kind is planned: once a cell, once a train seed of it, once a sample seed of that.
Per = Literal["cell", "train seed", "sample seed"]


@dataclass(frozen=True, kw_only=True)
class StageKind(Spec, ABC):
    """A kind of stage; its fields are what can change the output, one instance is one stage's spec."""

    priority: ClassVar[int]  # of two stages that can run, the one with the lower number is begun first
    cost: ClassVar[Cost]
    per: ClassVar[Per]

    @classmethod
    @abstractmethod
    def planned(cls, at: Place) -> Iterable[Stage[Any]]:
        """Give the stages of this kind that a place in the grid needs; those before it in the table are planned."""

    @abstractmethod
    def run(self, w: Work) -> Output:
        """Do the work, and return what is to be committed.

        Raises:
            DdpmkitError: when it can't be done.
            Diverged: when a number is not finite.
            Interrupted: when asked to stop.
        """


def kinds_of(stages: Iterable[Stage[Any]]) -> list[str]:
    """Return the kinds of some stages, in the order in which they are begun."""
    ranks = {s.kind: s.spec.priority for s in stages}
    return sorted(ranks, key=lambda kind: ranks[kind])
