"""All metrics of a set of samples from one feature pass, with their floors and the record of how they were taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ddpmkit.distances.copies import copy_check
from ddpmkit.distances.feasible import NEIGHBOURS, K, why_not
from ddpmkit.distances.frechet import check_moments, checked
from ddpmkit.distances.frechet_error import debiased_frechet
from ddpmkit.distances.kernel import kernel_distance
from ddpmkit.distances.metric import Metric
from ddpmkit.distances.moments import Moments
from ddpmkit.distances.neighbours import neighbour_metrics
from ddpmkit.distances.sliced import sliced_wasserstein
from ddpmkit.distances.two_sample import two_sample_test
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin.contract import Extractor, extractor, fingerprint, label
from ddpmkit.plugin.interfaces import Features, Images

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

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
    failed: dict[str, str] = field(default_factory=dict)  # metrics that were asked for and could not be taken: why

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
            "failed": self.failed,
        }


def score(
    samples: Levels | Array,
    reference: Reference | Images | Levels | Array,
    *,
    features: Features | None = None,
    metrics: Sequence[str] | None = None,
    k: int | None = None,
    keep: bool = False,
) -> Panel:
    """Score samples against a reference; one pass through the extractor feeds all metrics.

    All standard errors are over the samples, the reference held fixed. A metric that can't be taken of so few samples,
    or so small a reference, is left out with a note, or refused where it was asked for by name (a ``k`` asks for those
    that have neighbours).

    Args:
        samples: Grey levels, uint8 (N, C, H, W); or features, float (N, D), where the reference holds features alone.
        reference: A prepared reference; or a data set, images or features, which are prepared on the way.
        features: The extractor, where the reference is no prepared one.
        metrics: Some of :data:`METRICS`; all that the reference allows by default.
        k: Neighbours of precision, recall, density and coverage; 5 by default.
        keep: Whether a metric that fails on these very samples costs its own value alone, and is in ``failed``; else
            one that was asked for by name raises. When all fail, the first one raises.

    Raises:
        DdpmkitError: for an unknown metric, one that the reference does not allow, too few samples, images of another
            shape, or features that are not finite.
    """
    if not isinstance(reference, Reference):
        reference = _prepared(reference, features)
    given = _checked_samples(samples, reference)
    chosen, left_out = _feasible(metrics, reference, len(given), k)
    k = K if k is None else k
    x, pixels = _features_of(given, reference)
    if x.shape[1] != len(reference.mu):
        raise DdpmkitError(
            f"features have {x.shape[1]} and {len(reference.mu)} dimensions", "use one extractor for both"
        )
    found: dict[str, Metric] = {}
    failed: dict[str, DdpmkitError] = {}
    for names in dict.fromkeys(NEIGHBOURS if name in NEIGHBOURS else (name,) for name in chosen):
        try:
            taken = _taken(names[0], x, pixels, reference, k)
            found |= _finite({name: m for name, m in taken.items() if name in chosen or name == "fd-debiased"})
        except DdpmkitError as err:
            if metrics is not None and not keep:
                raise
            failed |= {name: err for name in names if name in chosen}
        except (MemoryError, OSError):
            raise  # of the machine, not of the metric: another try may have more luck
        except Exception as err:  # whatever goes wrong in one metric, the others stand
            if not keep:
                raise
            failed |= {name: DdpmkitError(f"{type(err).__name__}: {err}") for name in names if name in chosen}
    if failed and not found:
        raise next(iter(failed.values()))
    if metrics is None:  # nobody asked for it by name
        left_out |= {name: err.message for name, err in failed.items()}
        failed = {}
    told = (name for name in chosen if name in found and "note" in found[name].details)
    notes = (
        *(f"{name}: {found[name].details['note']}" for name in told),
        *(f"{name}: left out, {reason}" for name, reason in left_out.items()),
        *(f"{name}: failed, {err.message}" for name, err in failed.items()),
    )
    protocol = reference.protocol | {"n": len(x), "k": k}
    return Panel(found, protocol, reference.floor, notes, {name: err.message for name, err in failed.items()})


def _taken(metric: str, x: Array, pixels: Levels | None, reference: Reference, k: int) -> dict[str, Metric]:
    """One metric, or those that come with it."""
    y = reference.features
    if metric == "fd":
        debiased = debiased_frechet(
            x, reference.mu, reference.cov, n_reference=reference.protocol["n_reference"], reference=y
        )
        # The number that the field computes; intervals around it do not cover, since its bias is no noise.
        plain = Metric(debiased.details["plain"], "lower", None, debiased.details)
        return {"fd": plain} | ({"fd-debiased": debiased} if debiased.details["debiased"] else {})
    if metric == "copy" and pixels is not None and reference.train is not None and reference.heldout is not None:
        return {"copy": copy_check(_flat(pixels), _flat(reference.train), _flat(reference.heldout))}
    if y is None:
        return {}
    if metric in NEIGHBOURS:
        return neighbour_metrics(x, y, k=k)
    if metric == "kid":
        return {"kid": kernel_distance(x, y)}
    if metric == "sw":
        return {"sw": sliced_wasserstein(x, y)}
    return {"c2st": _c2st(x, y, pixels, reference)} if metric == "c2st" else {}


def _finite(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """The metrics as they are; one that is no number is no result.

    Raises:
        DdpmkitError: when a value is not finite.
    """
    for metric in metrics.values():
        if not np.isfinite(metric.value):
            raise DdpmkitError(f"it came out as {metric.value}", "look at the samples")
    return metrics


def prepare(
    images: Images,
    features: Features,
    *,
    split: str = "test",
    floor: int | None = None,
    metrics: Sequence[str] | None = None,
    taken: Array | None = None,
    k: int | None = None,
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


def _feasible(
    metrics: Sequence[str] | None, reference: Reference, n: int, k: int | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics to take of N samples, and why others are left out that nobody asked for by name."""
    chosen = _chosen(metrics, reference)
    m, train, heldout = reference.protocol["n_reference"], reference.train, reference.heldout
    reasons = {name: why_not(name, n, m, k=K if k is None else k, train=train, heldout=heldout) for name in chosen}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    for name, reason in left_out.items():
        asked = metrics is not None or (k is not None and name in NEIGHBOURS) or len(left_out) == len(chosen)
        if asked:
            raise DdpmkitError(reason, f"take more samples, or leave out {name}")
    return tuple(name for name in chosen if name not in left_out), left_out


def _checked_samples(samples: Levels | Array, reference: Reference) -> Any:
    """The samples as an array, if they are what the reference is held against: its features, or images like its."""
    given: Any = np.asarray(samples)
    if reference.extract is None:
        return checked(given, "the samples")
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
    return given


def _features_of(given: Any, reference: Reference) -> tuple[Array, Levels | None]:
    if reference.extract is None:
        return given, None
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


def _floor(
    real: Levels | Array, reference: Reference, metrics: Sequence[str], k: int | None
) -> dict[str, dict[str, Any]]:
    """What real images score; of a metric that can't be taken of so few, nothing."""
    n, m = len(real), reference.protocol["n_reference"]
    able = [name for name in metrics if why_not(name, n, m, k=K if k is None else k) is None]
    if not able:
        return {}
    panel = score(real, reference, metrics=able, k=k, keep=True)
    return {name: {"value": m.value, "se": m.se, "n": len(real)} for name, m in panel.items()}


def floor_of_halves(reference: Reference, k: int | None = None) -> dict[str, dict[str, Any]]:
    """What one half of the reference's features scores against the other; for a reference without another split.

    Raises:
        DdpmkitError: when the reference holds no features.
    """
    if reference.features is None:
        raise DdpmkitError("statistics alone have no halves", "pass images as the reference")
    half = len(reference.features) // 2
    if half < 2:
        return {}
    order = np.random.default_rng(0).permutation(len(reference.features))
    a, b = reference.features[order[:half]], reference.features[order[half:]]
    metrics = [m for m in METRICS if m not in IMAGE_METRICS]
    return _floor(a, prepare_features(b), metrics, k)


def _flat(levels: Levels) -> Any:
    return levels.reshape(len(levels), -1)


def _digest(levels: Levels, count: int) -> str:
    return hashlib.sha256(f"levels={count}{levels.shape}".encode() + levels.tobytes()).hexdigest()
