"""Every failure that ddpmkit foresees is one exception: what is wrong, and what to type next."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the ``ddpmkit`` command."""

    DONE = 0
    FAILED = 1  # finished, but a stage, a cell or a check failed
    USAGE = 2  # the request was wrong; nothing ran
    INTERNAL = 3  # a defect of ddpmkit
    SIGINT = 130
    READER_LEFT = 141  # as the shell reports SIGPIPE: who read our output has gone, as head does
    SIGTERM = 143


class DdpmkitError(Exception):
    """A problem that the user can act on: one line of what is wrong, one of what to do."""

    def __init__(self, message: str, hint: str | None = None, *, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class UnknownComponentError(DdpmkitError):
    """No component of that kind has that name."""

    def __init__(self, message: str, hint: str, *, kind: str, name: str) -> None:
        super().__init__(message, hint)
        self.kind, self.name = kind, name


class Diverged(Exception):  # noqa: N818 - a state of a stage, not a defect
    """Training or evaluation met a value that is not finite."""


class Interrupted(Exception):  # noqa: N818 - a state of a stage, not a defect
    """A stage stopped at a step boundary because it was asked to."""


def check_choice(what: str, name: object, known: Iterable[str]) -> None:
    """Refuse a choice that is none of the known ones: no branch may take an unknown name for its own.

    Raises:
        DdpmkitError: with the names that there are.
    """
    names = list(known)
    if not (isinstance(name, str) and name in names):
        close = did_you_mean(name, names) if isinstance(name, str) else ""
        raise DdpmkitError(f"unknown {what} {name!r}{close}", f"one of {', '.join(names)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known name, or an empty string."""
    import difflib  # needed by few, and start-up is short

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
