"""What each kind of stage leaves in ``result.json``, as a type that the stage writes and a report reads."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ddpmkit import files
from ddpmkit.plugin import spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ddpmkit.likelihood.vlb import Bound


# Of records that are older than what they say of their metrics: units, and what stands beside a value.
UNITS_BEFORE = {"fd": "squared distance", "kid": "squared distance", "sw": "squared distance", "c2st": "AUC"}
BESIDE_BEFORE = {"fd": ["fd-debiased"]}


def metric_keys(asked: Sequence[Mapping[str, Any] | str]) -> list[str]:
    """Return the names in records of a stage's metrics, from what of them enters ids.

    It is a metric's own name, and where several have that one, the parameters behind it.
    """
    plain = [one if isinstance(one, str) else str(one["name"]).rpartition("/")[2] for one in asked]
    return [
        name if plain.count(name) == 1 or isinstance(one, str) else ":".join([name, *_params(one["params"])])
        for name, one in zip(plain, asked, strict=True)
    ]


def _params(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_short(value)}" for key, value in params.items()]


def _short(value: Any) -> str:
    """A parameter as text; a part, or a file's content, by a hash."""
    if isinstance(value, dict):
        return files.sha256(files.canonical(value).encode())[:8]
    return spec.encode(tuple(value) if isinstance(value, list) else value)


@dataclass(frozen=True)
class Record:
    """A stage's result; a subclass a kind of stage, its fields JSON values."""

    kind: ClassVar[str]
    later: ClassVar[tuple[str, ...]] = ()  # fields that records of the same id lack which are older

    def json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """Read a record back; a field that it lacks is the field's default, or None."""
        empty = {f.name: None for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        known = {f.name for f in fields(cls)}
        return cls(**{**empty, **{k: v for k, v in found.items() if k in known}})


@dataclass(frozen=True)
class RefRecord(Record):
    """What makes distances to a reference comparable, and what real images and plain models score.

    Attributes:
        names: metric -> its column.
        units: metric -> its unit, ``better`` which way it is better; the name says what they lack.
        features: the hash of the extractor; ``features_label`` is its name.
        extractor: the same hash, under the name that other protocols have for it.
        reference: the hash of the images.
        floors: column -> what real images of the other split score, ``n_floor`` of them.
        baselines: name of a plain model -> its bits/dim on the test split.
        baselines_given_class: the same of the plain models that are told each image's class.
        heldout_by_class: near copies among real images by class, where there is a copy check of labelled samples.
        perfect_by_class: what a perfect model's distance by class is on average; empty in records that are older.
        unlearned: what no network has drawn, as pure noise -> column -> what ``n_unlearned`` such images score; empty
            in records that are older.
    """

    kind = "ref"
    later = ("unlearned", "n_unlearned", "perfect_by_class")
    label: str
    names: dict[str, str]
    features_label: str
    features: str
    extractor: str
    dims: int
    n_reference: int
    split: str
    reference: str
    resize: str
    quantiser: str
    levels: int
    floors: dict[str, float]
    n_floor: int
    baselines: dict[str, float]
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS_BEFORE))
    better: dict[str, str] = field(default_factory=dict)
    baselines_given_class: dict[str, float] = field(default_factory=dict)
    heldout_by_class: list[dict[str, Any]] = field(default_factory=list)
    unlearned: dict[str, dict[str, float]] = field(default_factory=dict)
    n_unlearned: int = 0
    perfect_by_class: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainRecord(Record):
    """A training's last numbers, the size of its network, and its schedule at some steps.

    Attributes:
        micro_batch: images the network saw at once at last, where memory ran out for as many as were asked; else None.
    """

    kind = "train"
    parameters: int
    flops: int
    chain: dict[str, list[float]]
    loss: float | None
    eps_mse: float | None
    steps: int
    micro_batch: int | None = None

    def json(self) -> dict[str, Any]:
        """The record as JSON values; what is seldom is left out where it is not."""
        return {k: v for k, v in asdict(self).items() if k != "micro_batch" or v is not None}


@dataclass(frozen=True)
class FitRecord(Record):
    """How a fit was made; the moments are in its arrays."""

    kind = "fit"
    draws: int
    split: str
    T: int


@dataclass(frozen=True)
class SampleRecord(Record):
    """How many images there are; they are in the arrays, as grey levels (N, C, H, W)."""

    kind = "sample"
    count: int
    levels: int
    evaluations: int


@dataclass(frozen=True)
class DrawRecord(Record):
    """What was asked; the answers are in the arrays."""

    kind = "draw"
    evaluations: int
    images: int
    split: str
    T: int


def _finite(value: float) -> float | None:
    """A number, or None for what JSON has no word for."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class BoundRecord(Record):
    """A bound with its errors, its terms and its curve by step, bits/dim."""

    total: float
    standard_error: float | None
    test_set_error: float | None
    prior: float
    middle: float
    decoder: float
    rate: float
    distortion: float
    rmse: float
    curve: dict[str, list[Any]]  # None where a step has no number

    @classmethod
    def of(cls, bound: Bound) -> BoundRecord:
        """Write a bound down; what is not finite is left out, since JSON has no word for it."""
        return cls(
            total=bound.total,
            standard_error=_finite(bound.standard_error),
            test_set_error=_finite(bound.test_set_error),
            prior=bound.terms.prior,
            middle=bound.terms.middle,
            decoder=bound.terms.decoder,
            rate=bound.rate,
            distortion=bound.distortion,
            rmse=bound.rmse,
            curve={f.name: [_finite(v) for v in getattr(bound.curve, f.name).tolist()] for f in fields(bound.curve)},
        )


@dataclass(frozen=True)
class NllRecord(Record):
    """The bound of a split with x0hat clipped and as it is, which of the two is reported, and under what."""

    kind = "nll"
    clipped: BoundRecord
    unclipped: BoundRecord
    reported: str
    evaluations: int
    images: int
    levels: int
    data: str
    split: str
    decoder: str
    decoder_variance: str
    T: int

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """Read a record back, and the two bounds in it."""
        bounds = {name: BoundRecord.read(found.get(name) or {}) for name in ("clipped", "unclipped")}
        return super().read({**found, **bounds})


@dataclass(frozen=True)
class ScoreRecord(Record):
    """Metric -> value, error, direction and details; what was said of them; which failed, and why.

    Attributes:
        by_class: of samples that have labels, a row a class; see distances/by_class.py.
        beside: metric -> the names of further numbers of its computation, which are in ``metrics`` too.
    """

    kind = "score"
    n: int
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    beside: dict[str, list[str]] = field(default_factory=lambda: {k: list(v) for k, v in BESIDE_BEFORE.items()})
    by_class: list[dict[str, Any]] = field(default_factory=list)
