"""A named check, what came of it, and the three things that a check may do: return, refuse, or not be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from ddpmkit.errors import DdpmkitError

State = Literal["passed", "failed", "skipped"]
R = TypeVar("R")


class NotAsked(Exception):  # noqa: N818 - it is no error
    """Why a check does not concern a component, or can't be made here."""


@dataclass(frozen=True)
class Check:
    """One thing that a component must satisfy.

    Attributes:
        name: by which failures are told, ``uses-time``.
        asks: what it asks, in a sentence.
        ask: called with the component; returns where it does well.
    """

    name: str
    asks: str
    ask: Callable[[Any], None]

    def __call__(self, component: Any) -> None:
        """Ask a component.

        Raises:
            DdpmkitError: where it fails, with what was seen and what to do.
            NotAsked: where the check does not concern it.
        """
        from ddpmkit.testing.process import put_back

        with put_back():
            self.ask(component)

    def __str__(self) -> str:
        """Its name."""
        return self.name


@dataclass(frozen=True)
class Outcome:
    """What came of one check of one component.

    Attributes:
        kind: the component's.
        component: its spec text, ``cosine:s=0.01``.
        check: the name of the check.
        state: passed, failed or skipped.
        seen: what was seen, where it failed; why it was skipped.
        hint: what to do about it, where it failed.
    """

    kind: str
    component: str
    check: str
    state: State
    seen: str = ""
    hint: str = ""


def named(*functions: Callable[[Any], None]) -> tuple[Check, ...]:
    """Make checks of functions: ``uses_time`` is ``uses-time``, and asks what its docstring's first line says."""
    return tuple(Check(f.__name__.replace("_", "-"), (f.__doc__ or "").split("\n")[0], f) for f in functions)


def fail(seen: str, hint: str) -> NoReturn:
    """Say what was seen and what to do about it.

    Raises:
        DdpmkitError: always.
    """
    raise DdpmkitError(seen, hint)


def unless_refused(ask: Callable[[], R]) -> R:
    """Return an answer; a component that refuses by itself, as for want of a file, is not asked.

    Raises:
        NotAsked: with its own words.
    """
    try:
        return ask()
    except DdpmkitError as err:
        raise NotAsked(err.message) from err
