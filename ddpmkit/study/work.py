"""What a stage is given when it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ddpmkit.plugin.execution import Emit
from ddpmkit.plugin.interfaces import Images, Metric
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.data import load_images
from ddpmkit.study.identity import Identity
from ddpmkit.study.records import metric_keys
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stage import Spec, Stage
from ddpmkit.study.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Work:
    """A stage, and where, on what and for whom it runs."""

    stage: Stage[Any]
    store: Store
    registry: Registry
    options: StageOptions
    device: torch.device
    emit: Emit
    should_stop: Callable[[], bool]
    ran: dict[str, str] = field(default_factory=dict)  # what the stage adds to its fingerprint, as it finds it
    kept: Callable[[], None] = lambda: None  # says that a checkpoint was written: what it took is written then too

    @property
    def folder(self) -> Path:
        """The stage's folder."""
        return self.store.folder(self.stage.kind, self.stage.id)

    def component(self, kind: str) -> Any:
        """Build the component that the stage was planned with."""
        return self.registry.rebuild(self.stage.recipe[kind])

    def metrics(self, asked: Sequence[Identity]) -> dict[str, Metric]:
        """Build the metrics that the stage was planned with, each under its name in records."""
        records = self.stage.recipe["metrics"]
        return {key: self.registry.rebuild(records[key]) for key in metric_keys(asked)}

    def images(self, *expected: str) -> Images:
        """Load the stage's data, and check that they are the data it was planned with."""
        return load_images(self.store, self.registry, self.stage.recipe, *expected)

    def spec(self, kind: type[S], stage: str) -> S:
        """Return the spec of a stage that this one reads."""
        return self.store.read_spec(kind, stage)

    def arrays(self, kind: str, stage: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
        """Return a group of arrays of a stage that this one reads."""
        return self.store.arrays(kind, stage, name)

    def progress(self, done: float, **details: Any) -> None:
        """Tell how far the stage is, 0 to 1."""
        self.emit({"event": "progress", "stage": self.stage.id, "done": done, **details})
