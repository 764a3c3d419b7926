"""What samples are held against: a split of a data set, features, or stored statistics, and how they were taken."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ddpmkit.distances.copies import shown_mirrored
from ddpmkit.distances.frechet import check_moments, checked
from ddpmkit.distances.moments import Moments
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.contract import Extractor, extractor, fingerprint, label
from ddpmkit.plugin.interfaces import Features, Images, Metric, Sets

Array = np.ndarray[Any, np.dtype[np.float64]]
Levels = np.ndarray[Any, np.dtype[np.uint8]]

# The 2015 TensorFlow Inception, ported: the one file over which a distance is called FID.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
QUANTISER = "nearest level"
_UNKNOWN = {"split": None, "reference": None, "resize": None, "quantiser": None, "levels": None}


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are held against, made once by :func:`hold`, :func:`prepare_features` or :func:`statistics`.

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

    def allows(self, metric: Metric) -> bool:
        """Whether what a metric needs is at hand."""
        at_hand = {"statistics"}
        at_hand |= {"features"} if self.features is not None else set()
        at_hand |= {"pixels"} if self.levels is not None and self.extract is not None else set()
        at_hand |= {"training"} if self.train is not None and self.heldout is not None else set()
        return at_hand >= set(metric.needs)

    def checked(self, samples: Any) -> Any:
        """Return samples as an array, if they are what this is a reference for: features, or images like its own.

        Raises:
            DdpmkitError: with what does not fit.
        """
        array: Any = np.asarray(samples)
        if self.extract is None:
            return checked(array, "the samples")
        check_images(array, "the samples")
        images = self.images
        if images is not None:
            if array.shape[1:] != images.train.shape[1:]:
                raise DdpmkitError(
                    f"the samples are {array.shape[1:]} and the reference is {images.train.shape[1:]} (C, H, W)",
                    "make the samples the size of the reference",
                )
            if int(array.max()) >= images.levels:
                raise DdpmkitError(
                    f"the samples hold the level {array.max()}, and the reference has levels 0 .. {images.levels - 1}",
                    "quantise the samples to the reference's levels first",
                )
        return array

    def beside(self, samples: Any) -> Sets:
        """Put samples that were :meth:`checked` beside this reference, for metrics to look at.

        Raises:
            DdpmkitError: when their features are not finite, or of another extractor.
        """
        x, levels = samples, None
        if self.extract is not None:
            rows = self.extract(samples, "the samples' features hold values")
            x, levels = checked(rows, "the samples' features"), samples
        if x.shape[1] != len(self.mu):
            raise DdpmkitError(
                f"features have {x.shape[1]} and {len(self.mu)} dimensions", "use one extractor for both"
            )
        return Sets(
            x=_still(x),
            mu=_still(self.mu),
            cov=_still(self.cov),
            n_reference=self.protocol["n_reference"],
            y=_still(self.features),
            x_levels=_still(levels),
            y_levels=_still(self.levels),
            train=_still(self.train),
            heldout=_still(self.heldout),
            levels=self.images.levels if self.images is not None else None,
        )

    def check_again(self) -> None:
        """Show the extractor some images of the reference again, as another pass or another process will.

        Raises:
            DdpmkitError: when it gives other features than the ones that are held.
        """
        if self.extract is not None and self.features is not None and self.levels is not None:
            self.extract.agrees(self.levels, self.features)


def hold(
    images: Images, features: Features, *, split: str = "test", taken: Array | None = None, flip: bool = False
) -> Reference:
    """Hold a split of a data set as the reference, without a floor.

    Args:
        images: The data set; its training split is what the copy check looks for.
        features: The extractor.
        split: ``test`` or ``train``; papers use train, which rewards copies.
        taken: The features of the split, where an earlier pass kept them.
        flip: Whether the training images were shown mirrored too: samples may then be copies of mirror images.

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
    train = shown_mirrored(images.train) if flip else images.train
    return Reference(own.mean, own.cov, protocol, y, extract, images, levels, train, images.test)


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


def as_reference(reference: Reference | Images | Levels | Array, features: Features | None) -> Reference:
    """Return a reference, made of images or features where it is none yet.

    Raises:
        DdpmkitError: when it can't be made of what is there.
    """
    if isinstance(reference, Reference):
        return reference
    if isinstance(reference, Images):
        if features is None:
            raise DdpmkitError("a data set as the reference needs an extractor", "pass features=build('features', ..)")
        return hold(reference, features)
    array: Any = np.asarray(reference)
    if features is None:
        if array.ndim != 2:
            raise DdpmkitError(
                f"the reference has shape {array.shape} and there is no extractor",
                "pass features (M, D), or images and features=build('features', ..)",
            )
        return prepare_features(array)
    check_images(array, "the reference")
    images = Images(array, array[:0], array, 256, {})
    return replace(hold(images, features), train=None, heldout=None)


def check_images(array: Any, name: str) -> None:
    """Refuse what are no images: uint8 levels (N, C, H, W), at least one.

    Raises:
        DdpmkitError: with what they are.
    """
    if array.dtype != np.uint8 or array.ndim != 4 or len(array) == 0:
        raise DdpmkitError(
            f"{name}: {array.dtype} of shape {array.shape} are no images", "images are uint8 levels (N, C, H, W)"
        )


def _still(array: Any) -> Any:
    """The same array, but nobody can write into it: other metrics look at it too."""
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


def _digest(levels: Levels, count: int) -> str:
    return hashlib.sha256(f"levels={count}{levels.shape}".encode() + levels.tobytes()).hexdigest()
