"""What every stage says that runs a trained network: whose weights, how many images at once, how exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.study.kind import StageKind
from ddpmkit.study.stage import Stage, upstream

if TYPE_CHECKING:
    from ddpmkit.study.planning import Place
    from ddpmkit.study.stages.train import Train


@dataclass(frozen=True, kw_only=True)
class OfNetwork(StageKind):
    """A stage that runs one average of a trained network."""

    train: str = upstream("train")
    weights: str
    batch: int
    eval_precision: str

    @property
    def ema(self) -> float:
        """The rate of the average."""
        return float(self.weights.removeprefix("ema "))


def asked(at: Place, train: Stage[Train]) -> dict[str, Any]:
    """Return the fields of :class:`OfNetwork` that a place gives."""
    return {
        "changed_by": at.context.changed_by,
        "train": train.id,
        "weights": f"ema {at.settings.ema!r}",
        "batch": at.settings.eval_batch,
        "eval_precision": at.settings.eval_precision,
    }
