"""What a component declares: its parameters, with type, default, help and bounds, and the check of what it is given."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union

from ddpmkit.files import home

SCALARS = (int, float, bool, str)

_NUMBER_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class Spelled:
    """What has a spec: a name and declared parameters. Every component is one, and may be a part of another."""

    name: ClassVar[str]


def param(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    before: Any = dataclasses.MISSING,
    locates: bool = False,
    spares: bool = False,
    fills: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """Declare one parameter of a component: its default, what it means, and the range it must lie in.

    A parameter that is added to a component which has been used already says in ``before`` which value stands for how
    things were before it existed. It enters ids only where it differs from that, so that old results stay found; and
    ``before`` never changes again, whatever becomes of the default. One that only ``locates`` something whose content
    is hashed by itself, a path, never enters ids, nor does one that ``spares`` memory or time and moves no bit.

    A parameter whose values are names for others together, as of a published network, says in ``fills`` what each name
    stands for: ``size: Literal["small"] | None = param(None, .., fills={"small": {"channels": 64}})``. It gives the
    parameters that are not written; what is written stands. It never enters ids itself, since the parameters do: a
    name, and its numbers written out, are one identity. So ``build`` reads them, and never the name.

    A parameter may be a component: ``base: Schedule = param(build("schedule", "linear"), "the schedule that is bent")``
    is set by ``name:base=cosine``, and what identifies the part enters ids with the whole.
    """
    if isinstance(default, (list, dict, set)):
        raise TypeError(f"the default {default!r} can be changed; parameters are numbers, texts, tuples and components")
    bounds = {k: v for k, v in {"ge": ge, "gt": gt, "le": le, "lt": lt}.items() if v is not None}
    said = {"help": help, "bounds": bounds, "before": before, "locates": locates, "spares": spares}
    return dataclasses.field(default=default, metadata={**said, "fills": fills or {}})


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a component class, as :func:`parameters` reads it."""

    name: str
    type: Any
    default: Any
    help: str
    bounds: dict[str, float]
    before: Any = dataclasses.MISSING  # the value that stands for how it was before the parameter existed
    locates: bool = False  # it says where something is, and what it finds is hashed by itself
    spares: bool = False  # it spares memory or time, and moves no bit
    fills: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # by its value: other parameters

    @property
    def hashed(self) -> bool:
        """Whether it enters ids at all."""
        return not (self.locates or self.spares or self.fills)

    @property
    def part(self) -> type[Spelled] | None:
        """The class, if the parameter is a component."""
        inner = optional(self.type) or self.type
        return inner if is_part(inner) else None

    @property
    def type_name(self) -> str:
        """The type in the words that error messages use."""
        return type_name(self.type)

    @property
    def allowed(self) -> str:
        """The allowed range in words, empty when any value of the type will do."""
        return " and ".join(f"{_NUMBER_BOUNDS[k]} {v:g}" for k, v in self.bounds.items())


def type_name(tp: Any) -> str:
    """Name a parameter type as users see it: ``float``, ``one of a, b``, ``tuple of int``, ``int or none``."""
    if is_part(tp):
        return str(tp.__name__).lower()
    if optional(tp) is not None:
        return f"{type_name(optional(tp))} or none"
    if typing.get_origin(tp) is Literal:
        return "one of " + ", ".join(str(v) for v in typing.get_args(tp))
    if typing.get_origin(tp) is tuple:
        return f"tuple of {type_name(typing.get_args(tp)[0])}"
    return str(tp.__name__)


def parameters(cls: type) -> tuple[Parameter, ...]:
    """Read the parameters of a component class.

    Raises:
        TypeError: when a field has a type that a spec cannot carry, or no default; the field is named.
    """
    return _parameters(typing.cast(typing.Hashable, cls))


@functools.lru_cache(maxsize=1024)  # a plan asks hundreds of times
def _parameters(cls: Any) -> tuple[Parameter, ...]:
    hints = typing.get_type_hints(cls)
    out = []
    for field in dataclasses.fields(cls):
        tp = hints[field.name]
        if not carriable(tp):
            raise TypeError(f"field '{field.name}' has type {raw_name(tp)}, which a spec cannot carry")
        if field.default is dataclasses.MISSING:
            raise TypeError(f"field '{field.name}' has no default")
        out.append(
            Parameter(
                field.name,
                tp,
                field.default,
                field.metadata.get("help", ""),
                dict(field.metadata.get("bounds", {})),
                field.metadata.get("before", dataclasses.MISSING),
                field.metadata.get("locates", False),
                field.metadata.get("spares", False),
                field.metadata.get("fills", {}),
            )
        )
    for p in out:
        if p.fills:
            _check_fills(p, {q.name: q for q in out if q is not p})
    return tuple(out)


def _check_fills(p: Parameter, others: Mapping[str, Parameter]) -> None:
    """Refuse a parameter that names others together if ids, which hold the others alone, could miss what it says.

    Raises:
        TypeError: with the field and what is wrong.
    """
    keys = ", ".join(repr(key) for key in p.fills)
    told = typing.get_args(optional(p.type))
    if (
        p.default is not None
        or not told
        or set(told) != set(p.fills)
        or typing.get_origin(optional(p.type)) is not Literal
    ):
        # A free text, or a name that fills nothing, would be no part of ids, and a network may be built by it.
        raise TypeError(f"field '{p.name}' fills others, and must be Literal[{keys}] | None = None")
    for name, values in p.fills.items():
        if unknown := set(values) - set(others):
            raise TypeError(f"field '{p.name}' fills '{min(unknown)}', which is no other parameter")
        for key, value in values.items():
            q = others[key]
            if q.fills or not (fits(q.type, plain(q.type, value)) and within(q.bounds, value)):
                allowed = f" {q.allowed}" if q.allowed else ""
                wanted = "no name for others" if q.fills else f"{q.type_name}{allowed}"
                raise TypeError(f"field '{p.name}': {name} fills '{key}' with {value!r}, which must be {wanted}")


def filling(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the names among given values fill in: the other parameters and their values."""
    out: dict[str, Any] = {}
    for p in parameters(cls):
        name = given.get(p.name)
        out |= p.fills.get(name, {}) if isinstance(name, str) else {}
    return out


def optional(tp: Any) -> Any:
    """The T of ``T | None``, or None when ``tp`` is no optional."""
    if typing.get_origin(tp) in (Union, types.UnionType):
        inner = [a for a in typing.get_args(tp) if a is not type(None)]
        if len(inner) == 1 and len(typing.get_args(tp)) == 2:
            return inner[0]
    return None


def is_part(tp: Any) -> bool:
    """Whether a type is a component's."""
    return isinstance(tp, type) and issubclass(tp, Spelled)


def carriable(tp: Any) -> bool:
    """Whether a parameter may have a type."""
    inner = optional(tp)
    if inner is not None:
        return carriable(inner)
    args = typing.get_args(tp)
    if typing.get_origin(tp) is Literal:
        return all(isinstance(a, SCALARS) for a in args)
    if typing.get_origin(tp) is tuple:
        return len(args) == 2 and args[1] is Ellipsis and args[0] in SCALARS
    return tp in SCALARS or is_part(tp)


def plain(tp: Any, value: Any) -> Any:
    """Turn a value into the plain one it stands for: a number of another library, an int for a float, ``~/path``."""
    inner = optional(tp)
    if inner is not None:
        return None if value is None else plain(inner, value)
    if typing.get_origin(tp) is tuple and isinstance(value, tuple):
        return tuple(plain(typing.get_args(tp)[0], v) for v in value)
    if tp is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value) + 0.0
        except OverflowError:
            return value
    if tp is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if tp is str and isinstance(value, str) and value.startswith("~") and "/" in value:
        return str(home(value))
    return value


def fits(tp: Any, value: Any) -> bool:
    """Whether a value is of a type."""
    inner = optional(tp)
    if inner is not None:
        return value is None or fits(inner, value)
    args = typing.get_args(tp)
    if typing.get_origin(tp) is Literal:
        return any(value == a and type(value) is type(a) for a in args)
    if typing.get_origin(tp) is tuple:
        return isinstance(value, tuple) and all(v != "" and fits(args[0], v) for v in value)
    if tp is float:
        return isinstance(value, float) and math.isfinite(value)
    if tp is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, tp)


def within(bounds: dict[str, float], value: Any) -> bool:
    """Whether a number, or each one of a tuple, lies in a range."""
    for v in value if isinstance(value, tuple) else (value,):
        if v is None:
            continue
        checks = {
            "ge": lambda b, v=v: v >= b,
            "gt": lambda b, v=v: v > b,
            "le": lambda b, v=v: v <= b,
            "lt": lambda b, v=v: v < b,
        }
        if not all(checks[k](b) for k, b in bounds.items()):
            return False
    return True


def raw_name(tp: Any) -> str:
    """What Python calls a type."""
    return tp.__name__ if isinstance(tp, type) else str(tp).replace("typing.", "")
