"""What is said of a study before it runs though it can run: too few seeds, an extractor that others would not choose.

Whether a training gets out of its warm-up is in warmup.py.
"""

from __future__ import annotations

from ddpmkit.plugin import spec
from ddpmkit.plugin.interfaces import Features, Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import Study
from ddpmkit.study.grids import in_ranges
from ddpmkit.study.values import canonical


def seeds_warning(study: Study) -> str | None:
    """Return what to say of two train seeds: t(.975, n - 1) / sqrt(n) is 9.0 of two values and 2.5 of three."""
    seeds = study.train_seeds
    if len(seeds) != 2:
        return None
    third = next(s for s in range(3) if s not in seeds)
    more = ",".join(in_ranges([str(s) for s in sorted((*seeds, third))]))
    return (
        "two train seeds: a 95 % interval over them is 9 standard deviations to each side, over three 2.5; "
        f"--train-seeds {more}"
    )


def features_warning(study: Study, images: Images, registry: Registry) -> str | None:
    """Return what to say where the data set's own extractors were taken and another was made for such images."""
    shape, default = tuple(images.train.shape[1:]), registry.build("dataset", study.base.dataset).default_features
    if study.features != tuple(canonical("features", text, registry) for text in default):
        return None  # somebody chose
    asked = {spec.parse(text)[0] for text in study.features}
    kind = (shape, images.levels)
    fits = [e.name for e in registry.builtin("features") if issubclass(e.cls, Features) and e.cls.made_for == kind]
    better = next((name for name in fits if name not in asked), None)
    if better is None:
        return None
    _, height, width = shape
    return (
        f"features '{better}' were made for such images, {height}x{width} with {images.levels} levels, and the default "
        f"ones are {', '.join(study.features)}: where these show the same, --features "
        f"{','.join((better, *study.features))}"
    )
