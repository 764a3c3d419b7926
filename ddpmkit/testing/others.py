"""Components that differ from one in the value of a single parameter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from ddpmkit.errors import DdpmkitError

C = TypeVar("C")


def others(component: C) -> Iterator[tuple[str, C]]:
    """Yield the name of each parameter with a number or a switch, and the component with another value of it."""
    for f in dataclasses.fields(component):  # type: ignore[arg-type] # components are dataclasses
        for value in _near(getattr(component, f.name)):
            try:
                other = dataclasses.replace(component, **{f.name: value})  # type: ignore[type-var] # the same
            except (DdpmkitError, TypeError, ValueError):  # outside of its bounds
                continue
            yield f.name, other
            break


def _near(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return value + 1, value - 1
    return (value / 2, value * 2, value + 1) if isinstance(value, float) else ()
