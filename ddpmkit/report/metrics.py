"""What a metric's name says: which way is better, and whether it ranks anything."""

from __future__ import annotations

from typing import Literal

from ddpmkit.errors import DdpmkitError

Direction = Literal["lower", "higher", "none"]

# By the first word of the metric's name; everything else is better when lower. A record may say it itself, in a column
# named better, and so may the caller.
BY_NAME: dict[str, Direction] = {
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "accuracy": "higher",
    "two-sample": "none",  # a p-value says whether there is a difference, not how large it is
    "c2st": "none",
    "copy": "none",  # a check, with a wrong side on either end
}


def direction(metric: str) -> Direction:
    """Return which way a metric is better by its name: ``precision-digits`` is better when higher."""
    name = metric.lower().replace("_", "-").replace(" ", "-")
    return next((d for word, d in BY_NAME.items() if name == word or name.startswith(f"{word}-")), "lower")


def as_direction(text: str, metric: str) -> Direction:
    """Read a direction.

    Raises:
        DdpmkitError: for any other word.
    """
    known: dict[str, Direction] = {"lower": "lower", "higher": "higher", "none": "none"}
    if text not in known:
        raise DdpmkitError(f"metric '{metric}' can't be better '{text}'", f"use one of {', '.join(known)}")
    return known[text]


def arrow(given: str) -> str:
    """Return the arrow behind a metric's name in a head."""
    return {"lower": " ↓", "higher": " ↑"}.get(given, "")
