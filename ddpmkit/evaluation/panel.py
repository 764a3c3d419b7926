"""All metrics of a set of samples from one feature pass, with their floors and the record of how they were taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.evaluation.copies import copy_check
from ddpmkit.evaluation.frechet import check_moments, checked
from ddpmkit.evaluation.frechet_error import debiased_frechet
from ddpmkit.evaluation.kid import kernel_distance
from ddpmkit.evaluation.metric import Metric
from ddpmkit.evaluation.moments import Moments
from ddpmkit.evaluation.neighbours import neighbour_metrics
from ddpmkit.evaluation.sliced import sliced_wasserstein
from ddpmkit.evaluation.two_sample import two_sample_test
from ddpmkit.plugin.contract import Extractor, extractor, fingerprint, label
from ddpmkit.plugin.interfaces import Features, Images

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

NEIGHBOURS = ("precision", "recall", "density", "coverage")
METRICS = ("fd", "kid", *NEIGHBOURS, "sw", "c2st", "copy")
IMAGE_METRICS = ("c2st", "copy")  # on pixels
# The 2015 TensorFlow Inception, ported: the one file over which a distance is called FID.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
QUANTISER = "nearest level"
MOST_PIXELS = 1024  # above, the two-sample test looks at features: trees on that many pixels take minutes


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are held against, made once by :func:`prepare`, :func:`prepare_features` or :func:`statistics`.

    ``protocol`` is everything that makes two results comparable; ``floor`` what real images score, metric by metric.
    """

    mu: Array
    cov: Array
    protocol: dict[str, Any]
    features: Array | None = None  # (M, D)
    extract: Extractor | None = None
    images: Images | None = None
    levels: Levels | None = None  # the images behind ``features``
    train: Levels | None = None
    heldout: Levels | None = None
    floor: dict[str, dict[str, Any]] = field(default_factory=dict)

    def available(self) -> tuple[str, ...]:
        """The metrics that this reference allows."""
        able = {"fd"} | ({"kid", *NEIGHBOURS, "sw", "c2st"} if self.features is not None else set())
        able |= {"copy"} if self.train is not None and self.heldout is not None else set()
        return tuple(m for m in METRICS if m in able)

    def check_again(self) -> None:
        """Show the extractor some images of the reference again, as another pass or another process will.

        Raises:
            DdpmkitError: when it gives other features than the ones that are held.
        """
        if self.extract is not None and self.features is not None and self.levels is not None:
            self.extract.agrees(self.levels, self.features)


@dataclass(frozen=True, eq=False)
class Panel(Mapping[str, Metric]):
    """Named metrics, the protocol they share, the floor, and what must be said about them."""

    metrics: dict[str, Metric]
    protocol: dict[str, Any]
    floor: dict[str, dict[str, Any]]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Metric:
        """The metric of that name."""
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def record(self) -> dict[str, Any]:
        """The panel as JSON values."""
        return {
            "label": self.protocol["label"],
            "metrics": {name: metric.record() for name, metric in self.metrics.items()},
            "floor": self.floor,
            "protocol": self.protocol,
            "notes": list(self.notes),
        }


def score(
    samples: Levels | Array,
    reference: Reference | Images | Levels | Array,
    *,
    features: Features | None = None,
    metrics: Sequence[str] | None = None,
    k: int = 5,
) -> Panel:
    """Score samples against a reference; one pass through the extractor feeds all metrics.

    All standard errors are over the samples, the reference held fixed.

    Args:
        samples: Grey levels, uint8 (N, C, H, W); or features, float (N, D), where the reference holds features alone.
        reference: A prepared reference; or a data set, images or features, which are prepared on the way.
        features: The extractor, where the reference is no prepared one.
        metrics: Some of :data:`METRICS`; all that the reference allows by default.
        k: Neighbours of precision, recall, density and coverage.

    Raises:
        DdpmkitError: for an unknown metric, one that the reference does not allow, too few samples, images of another
            shape, or features that are not finite.
    """
    if not isinstance(reference, Reference):
        reference = _prepared(reference, features)
    chosen = _chosen(metrics, reference)
    x, pixels = _features_of(samples, reference)
    n, d = x.shape
    if d != len(reference.mu):
        raise DdpmkitError(f"features have {d} and {len(reference.mu)} dimensions", "use one extractor for both")
    found: dict[str, Metric] = {}
    left_out: tuple[str, ...] = ()
    if "fd" in chosen:
        n_reference = reference.protocol["n_reference"]
        debiased = debiased_frechet(
            x, reference.mu, reference.cov, n_reference=n_reference, reference=reference.features
        )
        # The number that the field computes; intervals around it do not cover, since its bias is no noise.
        found["fd"] = Metric(debiased.details["plain"], "lower", None, debiased.details)
        if debiased.details["debiased"]:
            found["fd-debiased"] = debiased
    y = reference.features
    if y is not None:
        if "kid" in chosen:
            found["kid"] = kernel_distance(x, y)
        if set(NEIGHBOURS) & set(chosen):
            found |= {name: m for name, m in neighbour_metrics(x, y, k=k).items() if name in chosen}
        if "sw" in chosen:
            found["sw"] = sliced_wasserstein(x, y)
        if "c2st" in chosen:
            found["c2st"] = _c2st(x, y, pixels, reference)
    if "copy" in chosen and pixels is not None and reference.train is not None and reference.heldout is not None:
        try:
            found["copy"] = copy_check(_flat(pixels), _flat(reference.train), _flat(reference.heldout))
        except DdpmkitError as err:
            if metrics is not None:
                raise
            left_out = (f"copy: left out, {err.message}",)  # nobody asked for it by name, and the rest stands
    told = (name for name in chosen if name in found and "note" in found[name].details)
    notes = (*(f"{name}: {found[name].details['note']}" for name in told), *left_out)
    protocol = reference.protocol | {"n": n, "k": k}
    return Panel(found, protocol, reference.floor, notes)


def prepare(
    images: Images,
    features: Features,
    *,
    split: str = "test",
    floor: int | None = None,
    metrics: Sequence[str] | None = None,
    taken: Array | None = None,
    k: int = 5,
) -> Reference:
    """Prepare a split of a data set as the reference.

    Args:
        images: The data set; its training split is what the copy check looks for.
        features: The extractor.
        split: ``test`` or ``train``; papers use train, which rewards copies.
        floor: How many real images of the other split to score for the floor; none when None.
        metrics: Of the floor; all by default. The copy check has none: it is 1 on held-out data by definition.
        taken: The features of the split, where an earlier pass kept them.
        k: Neighbours, for the floor.

    Raises:
        DdpmkitError: for another split, an extractor that does not fit, or features that are not finite.
    """
    if split not in ("test", "train"):
        raise DdpmkitError(f"unknown reference split '{split}'", "use test or train")
    levels = images.test if split == "test" else images.train
    extract = extractor(features, images)
    y = checked(extract(levels, "the reference holds features") if taken is None else taken, "the reference")
    own = Moments.of(y)
    protocol = {
        "label": distance_label(features),
        "features": label(features),
        "extractor": fingerprint(features),
        "dims": y.shape[1],
        "n_reference": len(y),
        "split": split,
        "reference": _digest(levels, images.levels),
        "resize": str(getattr(features, "resize", "none")),
        "quantiser": QUANTISER,
        "levels": images.levels,
    }
    reference = Reference(own.mean, own.cov, protocol, y, extract, images, levels, images.train, images.test)
    if floor is None:
        return reference
    other = images.train if split == "test" else images.test
    # Not the first ones: files are often sorted.
    real = other[np.sort(np.random.default_rng(0).permutation(len(other))[:floor])]
    scored = [m for m in _chosen(metrics, reference) if m != "copy"]
    return replace(reference, floor=_floor(real, reference, scored, k))


def prepare_features(y: Array, label: str = "FD-features") -> Reference:
    """Prepare features (M, D) that were taken elsewhere as the reference.

    Raises:
        DdpmkitError: for fewer than two rows, or features that are not finite.
    """
    y = checked(y, "the reference")
    own = Moments.of(y)
    protocol = {"label": label, "features": "given", "extractor": None, "dims": y.shape[1], "n_reference": len(y)}
    return Reference(own.mean, own.cov, protocol | _UNKNOWN, y)


def statistics(
    mu: Array, cov: Array, images: Images, features: Features, *, n: int = 0, origin: dict[str, Any] | None = None
) -> Reference:
    """Prepare stored statistics, mu (D,) and cov (D, D), as the reference: they allow ``fd`` alone.

    Args:
        mu: Mean.
        cov: Covariance.
        images: What the extractor is loaded for: channels, size and levels.
        features: The extractor that the samples go through.
        n: Samples behind the statistics, 0 when unknown.
        origin: More of the protocol, such as the hash of the file.

    Raises:
        DdpmkitError: when the statistics are none, or the extractor is fitted on images that they do not hold.
    """
    if getattr(features, "fitted", False):
        raise DdpmkitError(
            f"features '{features.name}' are fitted on the reference's images, which statistics do not hold",
            "use --features pixels, or pass the images as the reference",
        )
    mu, cov = np.asarray(mu, np.float64), np.asarray(cov, np.float64)
    if mu.ndim != 1 or cov.shape != (len(mu), len(mu)):
        raise DdpmkitError(f"statistics of shapes {mu.shape} and {cov.shape}", "they must be mu (D,) and sigma (D, D)")
    check_moments(mu, cov)
    protocol = {
        "label": distance_label(features),
        "features": label(features),
        "extractor": fingerprint(features),
        "dims": len(mu),
        "n_reference": n,
        **_UNKNOWN,
        "resize": str(getattr(features, "resize", "none")),
        "quantiser": QUANTISER,
        "levels": images.levels,
        **(origin or {}),
    }
    return Reference(mu, cov, protocol, None, extractor(features, images), images)


def distance_label(features: Features) -> str:
    """``FID`` for the verified Inception file alone, else ``FD-`` and the extractor's name."""
    official = features.name == "inception" and fingerprint(features) == INCEPTION_SHA256
    return "FID" if official else f"FD-{label(features)}"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what differs between two protocols; results for which this is not empty never share a column."""
    return tuple(key for key in sorted({*a, *b}) if a.get(key) != b.get(key))


_UNKNOWN = {"split": None, "reference": None, "resize": None, "quantiser": None, "levels": None}


def _prepared(reference: Images | Levels | Array, features: Features | None) -> Reference:
    if isinstance(reference, Images):
        if features is None:
            raise DdpmkitError("a data set as the reference needs an extractor", "pass features=build('features', ..)")
        return prepare(reference, features)
    given: Any = np.asarray(reference)
    if features is None:
        if given.ndim != 2:
            raise DdpmkitError(
                f"the reference has shape {given.shape} and there is no extractor",
                "pass features (M, D), or images and features=build('features', ..)",
            )
        return prepare_features(given)
    _check_images(given, "the reference")
    images = Images(given, given[:0], given, 256, {})
    return replace(prepare(images, features), train=None, heldout=None)


def _chosen(metrics: Sequence[str] | None, reference: Reference) -> tuple[str, ...]:
    able = reference.available()
    if metrics is None:
        return able
    for name in metrics:
        if name not in METRICS:
            raise DdpmkitError(
                f"unknown metric '{name}'{did_you_mean(name, METRICS)}", f"metrics: {', '.join(METRICS)}"
            )
        if name not in able:
            raise DdpmkitError(f"this reference does not allow the metric '{name}'", f"it allows {', '.join(able)}")
    return tuple(m for m in METRICS if m in metrics)


def _features_of(samples: Levels | Array, reference: Reference) -> tuple[Array, Levels | None]:
    given: Any = np.asarray(samples)
    if reference.extract is None:
        return checked(given, "the samples"), None
    _check_images(given, "the samples")
    images = reference.images
    if images is not None:
        if given.shape[1:] != images.train.shape[1:]:
            raise DdpmkitError(
                f"the samples are {given.shape[1:]} and the reference is {images.train.shape[1:]} (C, H, W)",
                "make the samples the size of the reference",
            )
        if int(given.max()) >= images.levels:
            raise DdpmkitError(
                f"the samples hold the level {given.max()}, and the reference has levels 0 .. {images.levels - 1}",
                "quantise the samples to the reference's levels first",
            )
    if len(given) < 2:
        raise DdpmkitError("there is 1 sample, and a distance needs at least 2", "take more samples")
    return checked(reference.extract(given, "the samples' features hold values"), "the samples' features"), given


def _check_images(array: Any, name: str) -> None:
    if array.dtype != np.uint8 or array.ndim != 4 or len(array) == 0:
        raise DdpmkitError(
            f"{name}: {array.dtype} of shape {array.shape} are no images", "images are uint8 levels (N, C, H, W)"
        )


def _c2st(x: Array, y: Array, pixels: Levels | None, reference: Reference) -> Metric:
    if pixels is None or reference.levels is None or pixels[0].size > MOST_PIXELS:
        found, space = two_sample_test(x, y), "features"
    else:
        found, space = two_sample_test(_flat(pixels), _flat(reference.levels)), "pixels"
    return replace(found, details=found.details | {"space": space})


def _floor(real: Levels, reference: Reference, metrics: Sequence[str], k: int) -> dict[str, dict[str, Any]]:
    panel = score(real, reference, metrics=metrics, k=k)
    return {name: {"value": m.value, "se": m.se, "n": len(real)} for name, m in panel.items()}


def floor_of_halves(reference: Reference, k: int = 5) -> dict[str, dict[str, Any]]:
    """What one half of the reference's features scores against the other; for a reference without another split.

    Raises:
        DdpmkitError: when the reference holds no features.
    """
    if reference.features is None:
        raise DdpmkitError("statistics alone have no halves", "pass images as the reference")
    half = len(reference.features) // 2
    if half <= max(k, 1):
        return {}
    order = np.random.default_rng(0).permutation(len(reference.features))
    a, b = reference.features[order[:half]], reference.features[order[half:]]
    metrics = [m for m in METRICS if m not in IMAGE_METRICS]
    panel = score(a, prepare_features(b), metrics=metrics, k=k)
    return {name: {"value": m.value, "se": m.se, "n": half} for name, m in panel.items()}


def _flat(levels: Levels) -> Any:
    return levels.reshape(len(levels), -1)


def _digest(levels: Levels, count: int) -> str:
    return hashlib.sha256(f"levels={count}{levels.shape}".encode() + levels.tobytes()).hexdigest()
