"""All metrics of a set of samples from one feature pass, with their floors and the record of how they were taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddpmkit.distances.feasible import why_not
from ddpmkit.distances.measurement import Measurement
from ddpmkit.distances.named import Asked, K, built_in, metrics_of, of_neighbours, with_neighbours
from ddpmkit.distances.reference import Reference, as_reference
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Features, Images, Metric, Sets

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class Panel(Mapping[str, Measurement]):
    """Named measurements, the protocol they share, the floor, and what must be said about them.

    Attributes:
        measurements: name -> what was measured; what stands beside a metric's value follows it, as ``fd-debiased``.
        kinds: the same names -> the metric.
        failed: metrics that were asked for and could not be taken -> why.
    """

    measurements: dict[str, Measurement]
    kinds: dict[str, Metric]
    protocol: dict[str, Any]
    floor: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of that name."""
        return self.measurements[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.measurements)

    def __len__(self) -> int:
        return len(self.measurements)

    def title(self, name: str) -> str:
        """What a table of this panel calls a measurement: the panel's label for the distance that it is named after."""
        metric, label = self.kinds[name], str(self.protocol["label"])
        return name.replace(metric.name, label, 1) if contract.column(metric, self.protocol) == label else name

    def remark(self, name: str) -> str:
        """What its metric says of a measurement, nothing of what only stands beside another."""
        aside = {key for other in self for key in self.beside(other)}
        return "" if name in aside else contract.remark(self.kinds[name], self[name].details)

    def beside(self, name: str) -> list[str]:
        """The names of what stands beside a metric's value."""
        measurement = self.measurements.get(name)
        beside = {f"{name}-{suffix}": other for suffix, other in measurement.beside.items()} if measurement else {}
        return [key for key, other in beside.items() if self.measurements.get(key) is other]

    def records(self) -> dict[str, dict[str, Any]]:
        """Name -> value, error, direction and details as JSON values, without the influences."""
        return {
            name: {"value": m.value, "se": m.se, "better": self.kinds[name].better, **m.details}
            for name, m in self.measurements.items()
        }

    def record(self) -> dict[str, Any]:
        """The panel as JSON values."""
        return {
            "label": self.protocol["label"],
            "metrics": self.records(),
            "floor": self.floor,
            "protocol": self.protocol,
            "notes": list(self.notes),
            "failed": self.failed,
        }


def score(
    samples: Levels | Array,
    reference: Reference | Images | Levels | Array,
    *,
    features: Features | None = None,
    metrics: Asked | None = None,
    k: int | None = None,
    keep: bool = False,
    sets: Sets | None = None,
) -> Panel:
    """Score samples against a reference; one pass through the extractor feeds all metrics.

    All standard errors are over the samples, the reference held fixed. A metric that can't be taken of so few samples,
    or so small a reference, is left out with a note, or refused where it was asked for by name (a ``k`` asks for those
    that have neighbours).

    Args:
        samples: Grey levels, uint8 (N, C, H, W); or features, float (N, D), where the reference holds features alone.
        reference: A prepared reference; or a data set, images or features, which are prepared on the way.
        features: The extractor, where the reference is no prepared one.
        metrics: Names of built-in ones, as ``precision:k=3``, or metrics, a plugin's too; by default all built-in ones
            that the reference allows.
        k: Neighbours of precision, recall, density and coverage, where their own parameter does not say; 5 by default.
        keep: Whether a metric that fails on these very samples costs its own value alone, and is in ``failed``; else
            one that was asked for by name raises. When all fail, the first one raises.
        sets: What the prepared reference's :meth:`~Reference.beside` gave for these samples, where it was asked before.

    Raises:
        DdpmkitError: for an unknown metric, one that the reference does not allow, too few samples, images of another
            shape, or features that are not finite.
    """
    reference = as_reference(reference, features)
    checked_samples = reference.checked(samples)
    n = len(checked_samples)
    chosen, left_out = _feasible(metrics, reference, n, k)
    sets = reference.beside(checked_samples) if sets is None else sets
    measurements, kinds, errors = take(chosen, sets, keep=keep, by_name=metrics is not None)
    if errors and not measurements:
        raise next(iter(errors.values()))
    failed = {name: err.message for name, err in errors.items()}
    if metrics is None:  # nobody asked for it by name
        left_out, failed = left_out | failed, {}
    own_notes = {
        name: measurements[name].details["note"]
        for name in chosen
        if name in measurements and "note" in measurements[name].details
    }
    notes = (
        *(f"{name}: {note}" for name, note in own_notes.items()),
        *(f"{name}: left out, {reason}" for name, reason in left_out.items()),
        *(f"{name}: failed, {why}" for name, why in failed.items()),
    )
    protocol = reference.protocol | {"n": n, "k": _neighbours(chosen, k)}
    return Panel(measurements, kinds, protocol, reference.floor, notes, failed)


def take(
    metrics: Mapping[str, Metric], sets: Sets, *, keep: bool, by_name: bool
) -> tuple[dict[str, Measurement], dict[str, Metric], dict[str, DdpmkitError]]:
    """Take metrics of the same sets; return the measurements, the metric of each, and what went wrong with others.

    Args:
        metrics: Name -> metric.
        sets: The samples and what they are held against.
        keep: Whether whatever goes wrong in one costs its own value alone; else what is no DdpmkitError is raised.
        by_name: Whether they were asked for by name; a DdpmkitError is then raised too, unless it is kept.

    Raises:
        DdpmkitError: as said; and for one that lacks memory or a file, kept or not.
    """
    measurements: dict[str, Measurement] = {}
    kinds: dict[str, Metric] = {}
    errors: dict[str, DdpmkitError] = {}
    for name, metric in metrics.items():
        try:
            measurement = contract.measured(metric, sets)
        except DdpmkitError as err:
            if by_name and not keep:
                raise
            errors[name] = err
        except (MemoryError, OSError) as err:
            # Perhaps of the machine and not of the metric: nothing is kept, so that another try may have more luck.
            raise DdpmkitError(
                f"metric '{name}' failed: {type(err).__name__}: {err}".rstrip(": "),
                f"what it needs, a file or memory, may be there at another try; or leave out {name}",
                code=Exit.FAILED,
            ) from err
        except Exception as err:  # whatever goes wrong in one metric, the others stand
            if not keep:
                raise
            errors[name] = DdpmkitError(f"{type(err).__name__}: {err}")
        else:
            beside = {f"{name}-{suffix}": other for suffix, other in measurement.beside.items()}
            new = {name: measurement, **{key: other for key, other in beside.items() if key not in metrics}}
            measurements |= new
            kinds |= dict.fromkeys(new, metric)
    return measurements, kinds, errors


def allowed(metrics: Asked | None, reference: Reference, k: int | None = None) -> dict[str, Metric]:
    """Return the metrics under their names, in the order of tables; all built-in ones that can be when None.

    Raises:
        DdpmkitError: for an unknown one, one that declares what can't be, or one that the reference does not allow.
    """
    able = {name: with_neighbours(metric, k) for name, metric in built_in().items() if reference.allows(metric)}
    if metrics is None:
        return able
    chosen = metrics_of(metrics, k)
    for name, metric in chosen.items():
        contract.column(metric, reference.protocol)  # what it declares is sound
        if not reference.allows(metric):
            raise DdpmkitError(f"this reference does not allow the metric '{name}'", f"it allows {', '.join(able)}")
    return chosen


def _neighbours(metrics: Mapping[str, Metric], k: int | None) -> int | list[int]:
    """How many neighbours were looked at: the number that the metrics say, where they differ all of them."""
    said = sorted({vars(metric)["k"] for metric in metrics.values() if of_neighbours(metric)})
    return said if len(said) > 1 else said[0] if said else K if k is None else k


def _feasible(
    metrics: Asked | None, reference: Reference, n: int, k: int | None
) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics to take of N samples, and why others are left out that nobody asked for by name."""
    chosen = allowed(metrics, reference, k)
    m, train, heldout = reference.protocol["n_reference"], reference.train, reference.heldout
    reasons = {name: why_not(metric, n, m, train=train, heldout=heldout) for name, metric in chosen.items()}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    for name, reason in left_out.items():
        if metrics is not None or (k is not None and of_neighbours(chosen[name])) or len(left_out) == len(chosen):
            raise DdpmkitError(reason, f"take more samples, or leave out {name}")
    return {name: metric for name, metric in chosen.items() if name not in left_out}, left_out
