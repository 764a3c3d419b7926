"""What is odd about the classes of a data set, for people: the one place where it is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NAMED = 12  # classes that are named in a note


def class_notes(labels: Mapping[str, np.ndarray[Any, Any]], names: Sequence[str] | None = None) -> list[str]:
    """Say which classes have one image or none to train on, and how many labels no image has.

    Args:
        labels: Split -> labels, int64 (N,); nothing is said where there are none.
        names: What each class is called; by default its number.
    """
    if not labels:
        return []
    found, counts = np.unique(np.concatenate(list(labels.values())), return_counts=True)
    trained = np.isin(found, labels["train"])
    notes = []
    for told, held in (
        ("classes of one image", found[counts == 1]),
        ("classes without a training image", found[~trained]),
    ):
        if len(held):
            called = [names[k] if names else str(k) for k in held[:NAMED].tolist()]
            notes.append(f"{told}: {', '.join(called)}{' ..' if len(held) > NAMED else ''}")
    if len(found) <= int(found[-1]):
        notes.append(f"labels go up to {found[-1]}, and {len(found)} classes occur")
    return notes
