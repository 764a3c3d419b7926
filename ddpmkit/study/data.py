"""The data of a stage: opened once a process, and the very data it was planned with."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.kept import find_data, find_kept, keep, set_aside
from ddpmkit.study.store import Store


def load_images(store: Store, registry: Registry, recipe: Mapping[str, Any], *expected: str) -> Images:
    """Return the data that a stage's ``recipe`` names.

    Args:
        store: Where they may be kept, decoded.
        registry: Where the data set comes from.
        recipe: The record of the data set, and the hash of what it gave when the stage was planned.
        expected: Hashes in the specs that the stage rests on.

    Where the data set can't be loaded any more, as of a deleted file, the kept data of that hash are taken.

    Raises:
        DdpmkitError: when the data are not those any more, or are nowhere.
    """
    record = recipe["dataset"]
    images, hash_now = _loaded(store, registry, json.dumps(record, sort_keys=True), recipe["data"])
    if {hash_now, recipe["data"], *expected} != {hash_now}:
        raise DdpmkitError(f"data set '{record['name']}' has changed since the stage was planned", "run it again")
    return images


@functools.lru_cache(maxsize=2)
def _loaded(store: Store, registry: Registry, record: str, planned: str) -> tuple[Images, str]:
    """The data now, and their hash; ``planned`` tells apart what one process planned before and after a change."""
    dataset = registry.rebuild(json.loads(record))
    try:
        data = keep(find_data(store, registry, dataset), aloud=False)
    except DdpmkitError:
        # The store has moved, or the source is gone: what is kept is as good where it has the hash that was planned.
        kept = find_kept(store, planned)
        if kept is None or kept.images.fingerprint() != planned:
            raise
        return kept.images, planned
    found = data.images.fingerprint()  # of every byte, since kept files may have rotted
    if found != data.fingerprint:
        set_aside(data)
        data = keep(find_data(store, registry, dataset), aloud=False)
        found = data.images.fingerprint()
    return data.images, found
