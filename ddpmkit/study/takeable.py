"""Which metrics of a study can be taken in every cell of it: of so many samples, against so many references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ddpmkit.distances.copies import shown_mirrored
from ddpmkit.distances.feasible import why_not
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Metric
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import Cell, Study
from ddpmkit.study.kept import Data
from ddpmkit.study.metrics import of_images


def takeable(
    study: Study, cells: Sequence[Cell], data: Data, registry: Registry, *, pixels: bool
) -> tuple[Study, list[str]]:
    """Return the study with the metrics that can be taken in every cell, and notes on those left out.

    Raises:
        DdpmkitError: when one can't that was asked for by name, or none is left.
    """
    images = data.images
    sizes = {(c.settings.samples, c.settings.reference_split, c.settings.flip) for c in cells}
    reasons: dict[str, str] = {}
    for text in of_images(study.metrics):
        metric = registry.build("metric", text)
        for count, split, flip in sorted(sizes):
            n_reference = len(images.test if split == "test" else images.train)

            def ask(metric: Metric = metric, count: int = count, n: int = n_reference, flip: bool = flip) -> str | None:
                if not pixels:
                    return why_not(metric, count, n)
                train = shown_mirrored(images.train) if flip else images.train
                return why_not(metric, count, n, train=train, heldout=images.test)

            # A plugin's answer may change with what it reads; a built-in one's is that of its version.
            question = ["why not", registry.identity(metric), count, n_reference, *(["flip"] if flip else [])]
            find = data.remembered if pixels else data.recalled
            reason = find(question, ask) if registry.is_builtin(metric) else ask()
            if reason:
                reasons.setdefault(text, reason)
    kept = tuple(m for m in study.metrics if m not in reasons)
    if reasons and (not study.by_default or not kept):
        metric, reason = next(iter(reasons.items()))
        raise DdpmkitError(
            f"{metric} can't be taken: {reason}", f"leave it out, as in --metrics {','.join(kept) or 'nll'}"
        )
    return replace(study, metrics=kept), [f"{metric}: left out, {reason}" for metric, reason in reasons.items()]
