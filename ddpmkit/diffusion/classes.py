"""How many classes labels speak of; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def classes_of(labels: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Return K, one more than the largest label of any split; 0 where there are no labels."""
    return max((int(of_split.max()) + 1 for of_split in labels.values() if len(of_split)), default=0)
