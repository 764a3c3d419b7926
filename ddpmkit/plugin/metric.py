"""The kind of component that measures samples: what stands in tables, what it needs, and its value."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ddpmkit.plugin import spec
from ddpmkit.plugin.component import Component
from ddpmkit.plugin.measurement import Levels, Measurement, Sets

Need = Literal["statistics", "features", "pixels", "training"]


class Metric(Component):
    """A number about drawn images, held against reference images."""

    title: ClassVar[str] = ""  # what tables call it; its name where this is empty
    unit: ClassVar[str] = ""
    better: ClassVar[Literal["lower", "higher", "none"]] = "lower"  # none: a test or a check, which ranks nothing
    # What must be at hand: the mean and covariance of the reference's features, those features, the images behind them,
    # or training images and held-out ones. Features of the samples always are.
    needs: ClassVar[tuple[Need, ...]] = ("features",)
    pixels_first: ClassVar[bool] = False  # True: it looks at pixels where there are any, at features elsewhere
    has_floor: ClassVar[bool] = True  # False: what real images score says nothing
    symmetric: ClassVar[bool] = False  # True: samples and reference can change places; checked, and used for nothing

    @abstractmethod
    def value(self, sets: Sets) -> Measurement | float:
        """Return the value for the samples of ``sets``; what is computed for several metrics, by ``sets.once``."""

    def why_not(
        self, n: int, n_reference: int, train: Levels | None = None, heldout: Levels | None = None
    ) -> str | None:
        """Say why it can't be taken of N samples and M reference images, each at least 2; None when it can.

        Asked before anything runs; M is 0 for stored statistics, whatever is behind them.
        """
        return None

    @property
    def of_features(self) -> bool:
        """Whether features decide its value; else it is taken once a study, however many extractors there are."""
        return not self.pixels_first and ("features" in self.needs or "statistics" in self.needs)

    def label(self) -> str:
        """Return the title, and behind it what parameters differ from their defaults, ``precision-k3``."""
        _, *changed = spec.format(self).split(":")
        return "-".join([self.title or self.name, *(p.replace("=", "") for p in changed)])

    def column(self, protocol: Mapping[str, Any]) -> str:
        """Return its column in tables: the label, and the name of the extractor where features decide its value."""
        return f"{self.label()}-{protocol['features']}" if self.of_features else self.label()

    def remark(self, details: Mapping[str, Any]) -> str:
        """Return what is said beside its value in a table of one set of samples."""
        return ""
