"""A condition on a cell's settings, for ``--exclude`` and ``--only``: ``sigma=beta,learned and timesteps<500``."""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.plugin.parameters import optional
from ddpmkit.study.settings import COMPONENTS, FIELDS, field_named

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
TERM = re.compile(r"\s*([A-Za-z_-]+)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
SIGNS = "signs = != < <= > >=, values a,b"
HINT = f"as in 'sigma=learned-range and weighting=simple'; {SIGNS}"

# (setting, text) -> the value that the setting would have.
Read = Callable[[str, str], Any]


@dataclass(frozen=True)
class Term:
    """One comparison: a setting that has one of some values (``=``), none of them (``!=``), or lies beyond one."""

    field: str
    sign: str
    values: tuple[Any, ...]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings of a cell satisfy it; one that has no number lies beyond none."""
        value = settings[self.field]
        if self.sign in ORDERS:
            return value is not None and ORDERS[self.sign](value, self.values[0])
        return (value in self.values) == (self.sign == "=")

    def __str__(self) -> str:
        """Write it as one types it."""
        return f"{self.field}{self.sign}{','.join(v if isinstance(v, str) else spec.encode(v) for v in self.values)}"


@dataclass(frozen=True)
class Condition:
    """Comparisons that all hold."""

    terms: tuple[Term, ...]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings of a cell satisfy all."""
        return all(term.holds(settings) for term in self.terms)

    def __str__(self) -> str:
        """Write it as one types it; what was read from the text is equal."""
        return " and ".join(map(str, self.terms))


def as_stored(field: str, text: str) -> Any:
    """Read a value that was written by ddpmkit: a component stays the text that it is."""
    return text if field in COMPONENTS else spec.decode(FIELDS[field].type, text)


def is_condition(text: str) -> bool:
    """Whether a text begins like a condition: by the name of a setting and a sign."""
    found = TERM.match(text)
    return found is not None and field_named(found[1]) in FIELDS


def read_condition(text: str, read: Read = as_stored, *, flag: str = "--only") -> Condition:
    """Read a condition; its values by ``read``, but for a bound: any number is one, also one that no cell could have.

    Raises:
        DdpmkitError: for a text that is none, an unknown setting or a bad value.
    """
    terms = []
    for part in re.split(r"\s+and\s+", text.strip()):
        found = TERM.fullmatch(part)
        values = found[3].strip() if found else ""
        if not found or not values:
            raise DdpmkitError(f"{flag} '{text}': '{part}' is no comparison", HINT)
        field, sign = field_named(found[1]), found[2]
        if field not in FIELDS:
            raise DdpmkitError(f"{flag}: unknown setting '{found[1]}'{did_you_mean(field, FIELDS)}", HINT)
        if re.search(r"\s(or|and)(\s|$)", values):
            raise DdpmkitError(
                f"{flag} '{text}': a condition knows only 'and'", f"for 'or' repeat {flag}, or list values: sigma=a,b"
            )
        listed = spec.split(values)
        bound = _number(field, values) if sign in ORDERS else None
        read_values = tuple(read(field, value) for value in listed) if bound is None else (bound,)
        numbers = all(type(v) in (int, float) for v in read_values)
        if sign in ORDERS and (len(read_values) != 1 or not numbers):
            raise DdpmkitError(f"{flag} '{text}': {sign} takes one number, got '{values}'", HINT)
        terms.append(Term(field, sign, tuple(dict.fromkeys(read_values))))
    return Condition(tuple(terms))


def _number(field: str, text: str) -> float | None:
    """A bound on a setting that is a number, as the setting's type where it fits; None where the text is none."""
    kind = optional(FIELDS[field].type) or FIELDS[field].type
    for tp in (kind, float) if kind in (int, float) else ():
        with contextlib.suppress(ValueError):
            return float(found) if isinstance(found := spec.decode(tp, text), float) else int(found)
    return None
