"""What to ask for so that a study grows by what was asked for under its name: the levels that it has, and the new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.asked import asked_for
from ddpmkit.study.config import Study
from ddpmkit.study.design import SHAPE
from ddpmkit.study.grids import SEEDS, There, flat, in_ranges
from ddpmkit.study.missing import known_study
from ddpmkit.study.settings import AXIS_ONLY, FIELDS, PLURALS
from ddpmkit.study.store import Store
from ddpmkit.study.study_name import grown


def growing(asked: Study, there: There, store: Store, registry: Registry) -> dict[str, Any] | None:
    """Return the options that, beside the name of a study, make it grow by what was asked for; None where none do.

    Only what somebody said is added: of a setting that was left to its default the study keeps what it has.

    Args:
        asked: What was asked for under the name.
        there: What is there.
        store: Where it is.
        registry: The components to choose from.
    """
    shape = ("only", *SHAPE)
    if [there.grid.get(key) for key in shape] != [asked.grid().get(key) for key in shape]:
        return None  # which cells there are is more than levels say
    if asked.tune is not None or not {*asked.orderings} <= {*there.orderings}:
        return None
    options = _options(asked, there.grid)
    if not options:
        return None
    try:
        given, _, _ = asked_for({"study": asked.name, **options}, store)
        grown(known_study(given, registry, store), there, store)
    except DdpmkitError:
        return None
    return options


def _options(asked: Study, grid: Mapping[str, Any]) -> dict[str, Any]:
    """What has more values than are there, with these in front: option -> text, and a list of texts of axes."""
    old, new = flat(grid), flat(asked.grid())
    lists = [key for key in (*SEEDS, "metrics", "features") if key not in asked.unsaid]
    plural = {field: name for name, field in PLURALS.items()}
    options: dict[str, Any] = {}
    axes = []
    for key in (*(field for field in FIELDS if field in asked.axes), *lists):
        both = [*dict.fromkeys((*old.get(key, ()), *new.get(key, ())))]
        if len(both) == len(old.get(key, ())):
            continue
        if key in SEEDS and all(seed.isdecimal() for seed in both):
            both = in_ranges(sorted(both, key=int))
        text = ",".join(both)
        if key in AXIS_ONLY or {*both} <= {"true", "false"}:  # a flag that takes no value
            axes.append(f"{key}={text}")
        else:
            options[plural.get(key, key)] = text
    return {**options, **({"axis": axes} if axes else {})}
