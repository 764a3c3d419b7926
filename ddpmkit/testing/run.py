"""Run the checks of a component's kind; whatever one raises is an outcome, and never the end."""

from __future__ import annotations

import importlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.interfaces import KINDS, kind_of
from ddpmkit.testing.check import Check, NotAsked, Outcome
from ddpmkit.testing.every_kind import CHECKS
from ddpmkit.testing.hint import hint


def checks(kind: str) -> tuple[Check, ...]:
    """Return the checks of a kind: those of every kind, then its contract, then what that is needed for.

    Raises:
        DdpmkitError: for an unknown kind.
    """
    return (*CHECKS, *_own(kind))


def run_checks(component: Any) -> list[Outcome]:
    """Check a component, such as ``run_checks(MySchedule(k=3))``; nothing that it raises comes out.

    Where the contract of its kind, the first of the checks of that kind, does not pass, those behind it are skipped;
    and what one check has seen already, numbers apart, another does not say again.

    Raises:
        DdpmkitError: when it is no component, or what is wrong is not its own, as Ctrl-C.
    """
    kind = kind_of(type(component))
    if kind is None:
        raise DdpmkitError(
            f"{type(component).__name__} is no component", "give an object of one of the kinds, as MySchedule()"
        )
    out = [_outcome(kind.name, component, check) for check in CHECKS]
    first, *others = _own(kind.name)
    out.append(_outcome(kind.name, component, first))
    if out[-1].state == "passed":
        for check in others:
            out.append(_once(_outcome(kind.name, component, check), out))
    else:
        why = f"'{first}' {'failed' if out[-1].state == 'failed' else 'was skipped'}"
        out += [Outcome(kind.name, str(component), str(check), "skipped", why) for check in others]
    return out


def _once(outcome: Outcome, before: list[Outcome]) -> Outcome:
    """An outcome, skipped where an earlier check failed of the same: one mistake is told once."""

    def what(seen: str) -> str:
        return re.sub(r"\d[\d.e+-]*", "#", seen)

    for other in before:
        if outcome.state == other.state == "failed" and what(outcome.seen) == what(other.seen):
            return replace(outcome, state="skipped", seen=f"'{other.check}' failed of the same", hint="")
    return outcome


def summary(outcomes: Iterable[Outcome]) -> str:
    """Return how many ran and what came of them: ``14 checks: 13 passed, 1 failed, 0 skipped``."""
    count = Counter(outcome.state for outcome in outcomes)
    states = ", ".join(f"{count[state]} {state}" for state in ("passed", "failed", "skipped"))
    total = count.total()
    return f"{total} check{'s' * (total != 1)}: {states}"


def _own(kind: str) -> tuple[Check, ...]:
    if kind not in KINDS:
        raise DdpmkitError(f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}", f"kinds: {', '.join(KINDS)}")
    found: tuple[Check, ...] = importlib.import_module(f"ddpmkit.testing.{kind}").CHECKS
    return found


def _outcome(kind: str, component: Any, check: Check) -> Outcome:
    text = spec.format(component)
    try:
        with blame(kind, component.name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's of a value that a check then refuses by name
            try:
                check(component)
            except NotAsked as err:
                return Outcome(kind, text, check.name, "skipped", str(err))
    except DdpmkitError as err:
        return Outcome(kind, text, check.name, "failed", err.message, hint(kind, component, err))
    return Outcome(kind, text, check.name, "passed")
