"""The data of a stage: loaded once a process, and the very data it was planned with."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.registry import Registry


def load_images(registry: Registry, recipe: Mapping[str, Any], *expected: str) -> Images:
    """Load the data that a stage's ``recipe`` names.

    Args:
        registry: Where the data set comes from.
        recipe: The record of the data set, and the hash of what it gave when the stage was planned.
        expected: Hashes in the specs that the stage rests on.

    Raises:
        DdpmkitError: when the data are not those any more.
    """
    record = recipe["dataset"]
    images, hash_now = _loaded(registry, json.dumps(record, sort_keys=True))
    if {hash_now, recipe["data"], *expected} != {hash_now}:
        raise DdpmkitError(f"data set '{record['name']}' has changed since the stage was planned", "run it again")
    return images


@functools.lru_cache(maxsize=2)
def _loaded(registry: Registry, record: str) -> tuple[Images, str]:
    images = contract.images(registry.rebuild(json.loads(record)))
    return images, images.fingerprint()
