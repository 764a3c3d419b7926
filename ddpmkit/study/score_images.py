"""Score any images against any reference: read both, prepare the reference for each extractor, take the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddpmkit import device as devices
from ddpmkit.distances import Panel, Reference, floor_of_halves, prepare, score, statistics
from ddpmkit.distances.images import check_statistics_path, read_images, read_statistics, write_statistics
from ddpmkit.distances.named import metrics_of
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.files import home
from ddpmkit.plugin import spec
from ddpmkit.plugin.contract import fingerprint
from ddpmkit.plugin.contract import images as load_images
from ddpmkit.plugin.interfaces import Features, Images, Metric
from ddpmkit.plugin.registry import Registry


@dataclass(frozen=True)
class ScoreRequest:
    """What is held against what.

    Attributes:
        samples: folder of images, or a .npz or .safetensors file.
        reference: data set by its spec, folder or file of images, or file of statistics (mu, sigma).
        features: comma text of extractors; None for the data set's own, or pca:k=16.
        metrics: comma text of metrics; None for all built-in ones that the reference allows.
        reference_split: ``test`` or ``train`` of a data set.
        train: training images, for the copy check of a folder.
        levels: grey levels of the samples; None for 256 of image files, else those of the reference.
        span: black and white in arrays of floats.
        k: neighbours of precision, recall, density and coverage.
        inception_weights: weights file of the inception features.
        save_statistics: where mean and covariance of the reference are kept.
    """

    samples: Path
    reference: str
    features: str | None = None
    metrics: str | None = None
    reference_split: str = "test"
    train: Path | None = None
    levels: int | None = None
    span: tuple[float, float] | None = None
    k: int | None = None
    inception_weights: Path | None = None
    save_statistics: Path | None = None


def score_images(registry: Registry, asked: ScoreRequest) -> tuple[list[Panel], list[str]]:
    """Return a panel of metrics an extractor, and what was decided while the images were read, for people.

    Raises:
        DdpmkitError: when a name, a file or a shape does not fit.
    """
    notes: list[str] = []
    if asked.save_statistics:
        check_statistics_path(asked.save_statistics)
    stored = read_statistics(home(asked.reference))
    held, named = (None, False) if stored else _reference_images(registry, asked.reference, asked.span, notes.append)
    names = spec.split(asked.features) if asked.features else _default(registry, asked.reference, held, named)
    if asked.save_statistics and (len(names) > 1 or stored):
        raise DdpmkitError("--save-statistics is for one extractor over images", f"use --features {names[0]}")
    extractors = [_extractor(registry, name, asked.inception_weights) for name in names]
    # What a metric's own text says wins over --k, which is for those that do not say.
    chosen = metrics_of(spec.split(asked.metrics), asked.k, registry) if asked.metrics else None
    k = asked.k if chosen is None else None
    if held is not None:
        shape = {"channels": held.train.shape[1], "declared": asked.levels, "levels": held.levels}
    else:
        shape = {"declared": asked.levels, "levels": asked.levels or 256}
    drawn = read_images(asked.samples, span=asked.span, say=notes.append, **shape)
    train = asked.train
    copied = read_images(train, channels=drawn.shape[1], span=asked.span, say=notes.append) if train else None
    panels = []
    for extractor in extractors:
        if stored is not None:
            prepared = _from_statistics(stored, extractor, drawn, asked.levels or 256, notes.append)
        elif held is not None and named:
            prepared = _from_dataset(held, extractor, asked.reference_split, len(drawn), chosen, k)
        elif held is not None:
            prepared = _from_folder(held, extractor, copied, chosen, k)
        if asked.save_statistics:  # first: a disk that is full is told before the metrics are taken
            write_statistics(asked.save_statistics, prepared.mu, prepared.cov, prepared.protocol)
        panels.append(_score(drawn, prepared, chosen, k))
    return panels, notes


def _reference_images(
    registry: Registry, text: str, span: tuple[float, float] | None, say: Callable[[str], None]
) -> tuple[Images, bool]:
    """Return a data set by its name; or the images at a path, as a data set whose splits are the same; and which."""
    known = {name for entry in registry.entries("dataset") for name in (entry.name, entry.qualified)}
    name = text.partition(":")[0]
    if name in known:
        found = load_images(registry.build("dataset", text))
        for note in found.notes:
            say(note)
        return found, True
    path = home(text)
    if not path.exists():
        raise DdpmkitError(
            f"'{text}' is neither a data set, a folder nor a file{did_you_mean(name, known)}", "ddpmkit ls dataset"
        )
    array = read_images(path, span=span, say=say)
    return Images(array, array[:0], array, 256, {}), False


def _default(registry: Registry, text: str, held: Images | None, named: bool) -> list[str]:
    if held is None:
        return ["inception"]  # what statistics in the wild were made with
    return list(registry.build("dataset", text).default_features) if named else ["pca:k=16"]


def _extractor(registry: Registry, name: str, weights: Path | None) -> Features:
    if weights is not None and spec.parse(name)[0] == "inception":
        name += f":weights={spec.encode(str(weights))}"
    built: Features = registry.build("features", name)
    return built


def _from_dataset(
    held: Images, extractor: Features, split: str, count: int, metrics: dict[str, Metric] | None, k: int | None
) -> Reference:
    with devices.one_thread():
        prepared = prepare(held, extractor, split=split, floor=count, metrics=metrics, k=k)
        prepared.check_again()
        return prepared


def _from_folder(
    held: Images, extractor: Features, train: Any, metrics: dict[str, Metric] | None, k: int | None
) -> Reference:
    with devices.one_thread():
        whole = prepare(held, extractor)
        whole.check_again()
        floor = floor_of_halves(whole, k, metrics)
    heldout = None if train is None else held.test
    return replace(whole, train=train, heldout=heldout, floor=floor, protocol=whole.protocol | {"split": None})


def _from_statistics(
    stored: Any, extractor: Features, drawn: Any, levels: int, say: Callable[[str], None]
) -> Reference:
    made = stored.meta.get("extractor")
    if made is not None and made != (here := fingerprint(extractor)):
        raise DdpmkitError(
            f"the statistics were made with the extractor {made[:8]}, and '{extractor.name}' is {here[:8]}",
            f"use --features {stored.meta.get('features', '..')}",
        )
    if made is None:
        say("the statistics do not say what extractor made them; nothing can check it")
    origin = {key: stored.meta[key] for key in ("split", "reference") if key in stored.meta}
    origin["statistics"] = stored.sha256
    images = Images(drawn, drawn[:0], drawn, levels, {})
    n = int(stored.meta.get("n_reference", 0))
    return statistics(stored.mu, stored.cov, images, extractor, n=n, origin=origin)


def _score(drawn: Any, prepared: Reference, metrics: dict[str, Metric] | None, k: int | None) -> Panel:
    with devices.one_thread():
        return score(drawn, prepared, metrics=metrics, k=k, keep=True)
