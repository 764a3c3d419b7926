"""Components as text: ``cosine:s=0.01`` <-> ``Cosine(s=0.01)``, exactly and in both directions.

A comma always separates two specs and a colon two parameters; tuples are written ``1/2/2``. Inside a value the
characters ``% , : /`` are written ``%25 %2C %3A %2F`` (the last one only inside a tuple). A parameter may be a
component, a part of the whole: its value is then its spec, ``zero-snr:base=cosine%3As=0.01``.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal
from urllib.parse import quote, unquote

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.parameters import (
    SCALARS,
    Parameter,
    Spelled,
    filling,
    fits,
    is_part,
    optional,
    parameters,
    plain,
    within,
)  # fmt: skip

Build = Callable[[type[Spelled], str], Spelled]  # the type of a part, and its spec, to the part
Called = Callable[[Spelled], str]  # a part to the name that finds it
GIVEN = "_given"  # where a new component keeps the names of what it was given, until it is checked


def split(text: str) -> list[str]:
    """Split a comma list of specs, ``a,b:x=1`` -> ``['a', 'b:x=1']``.

    Raises:
        DdpmkitError: when an entry is empty.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise DdpmkitError(
            f"'{text}' has an empty entry; write names separated by single commas", "as in linear,cosine:s=0.01"
        )
    return parts


def parse(text: str) -> tuple[str, dict[str, str]]:
    """Split one spec into its name and its raw parameter texts.

    Raises:
        DdpmkitError: when a part is not ``key=value`` or a key is given twice.
    """
    name, *parts = text.strip().split(":")
    raw: dict[str, str] = {}
    for part in parts:
        key, eq, value = part.partition("=")
        if not eq or not key:
            raise DdpmkitError(
                f"'{text}': expected key=value after ':', got '{part}'",
                "write name:key=value:key=value, as in cosine:s=0.01",
            )
        if key in raw:
            raise DdpmkitError(f"'{text}': parameter '{key}' is given twice", "keep one of the two")
        raw[key] = value
    return name, raw


def construct(cls: type[Any], raw: dict[str, str], *, kind: str, build: Build | None = None) -> Any:
    """Build a component of class ``cls`` from raw parameter texts; ``build`` makes its parts from theirs.

    Raises:
        DdpmkitError: for an unknown parameter, or a value of the wrong type or out of bounds.
    """
    known = {p.name: p for p in parameters(cls)}
    values = {}
    for key, text in raw.items():
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise DdpmkitError(
                f"{kind} '{cls.name}' has no parameter '{key}'; {takes}{did_you_mean(key, known)}",
                _meant_for_a_part(cls, raw, key) or f"ddpmkit show {cls.name}",
            )
        try:
            values[key] = decode(known[key].type, text, build)
        except ValueError:
            raise DdpmkitError(must_be(cls.name, known[key], text), f"ddpmkit show {cls.name}") from None
    with blame(kind, cls.name):
        try:
            obj = cls(**values)
            validate(obj)  # an author's own __post_init__ may have forgotten to
        except ValueError as err:
            text = str(err)
            named = text if text.startswith(f"{cls.name}:") else f"{cls.name}: {text}"
            raise DdpmkitError(named, f"ddpmkit show {cls.name}") from None
    return obj


def _meant_for_a_part(cls: type[Any], raw: dict[str, str], key: str) -> str:
    """How a parameter is written that follows a part, as in ``zero-snr:base=cosine:s=0.01``; empty if none does."""
    parts = {p.name for p in parameters(cls) if p.part}
    before = list(raw)[: list(raw).index(key)]
    if not before or before[-1] not in parts:
        return ""
    part = before[-1]
    return f"a parameter of {part} is written {cls.name}:{part}={raw[part]}%3A{key}={quote(raw[key])}"


def format(obj: Any, *, full: bool = False, called: Called | None = None) -> str:
    """Write a component as spec text; only what differs from the defaults, or everything when ``full``.

    ``called`` gives the names of its parts, where their own would not find them.
    """
    parts = [obj.name]
    names = {p.name: getattr(obj, p.name) for p in parameters(type(obj)) if p.fills}
    # What the text means without the parameter.
    unwritten = {**{p.name: p.default for p in parameters(type(obj))}, **filling(type(obj), names)}
    for p in sorted(parameters(type(obj)), key=lambda p: p.name not in names):
        value = getattr(obj, p.name)
        if full or value != (p.default if p.name in names else unwritten[p.name]):
            if isinstance(value, Spelled):
                value = _format_part(value, full=full, called=called)
            parts.append(f"{p.name}={encode(value, optional=optional(p.type) is not None)}")
    return ":".join(parts)


def _format_part(part: Spelled, *, full: bool, called: Called | None) -> str:
    _, colon, rest = format(part, full=full, called=called).partition(":")
    return (called(part) if called else part.name) + colon + rest


def parts(obj: Any) -> dict[str, Spelled]:
    """The parameters of a component that are components."""
    found = {p.name: getattr(obj, p.name) for p in parameters(type(obj))}
    return {name: value for name, value in found.items() if isinstance(value, Spelled)}


def whole(obj: Any) -> Iterator[Any]:
    """Give a component, its parts, and theirs."""
    yield obj
    for part in parts(obj).values():
        yield from whole(part)


def values(obj: Any, *, called: Called | None = None) -> dict[str, Any]:
    """Every parameter of a component as JSON values, defaults included; a part as its spec, defaults included."""
    out: dict[str, Any] = {}
    for p in parameters(type(obj)):
        value = getattr(obj, p.name)
        if isinstance(value, Spelled):
            value = _format_part(value, full=True, called=called)
        out[p.name] = list(value) if isinstance(value, tuple) else value
    return out


def hashed_values(obj: Any) -> dict[str, Any]:
    """The parameters that enter ids: of :func:`values` those that can, and are not as before they existed."""
    stated = values(obj)
    left_out = {p.name for p in parameters(type(obj)) if not p.hashed or getattr(obj, p.name) == p.before}
    return {k: v for k, v in stated.items() if k not in left_out}


def from_values(cls: type[Any], stored: dict[str, Any], build: Build | None = None) -> Any:
    """Rebuild a component from what :func:`values` or :func:`hashed_values` gave; ``build`` makes parts from specs."""
    types_of_parts = {p.name: p.part for p in parameters(cls) if p.part}
    if build is not None:
        made = {k: build(tp, stored[k]) for k, tp in types_of_parts.items() if isinstance(stored.get(k), str)}
        stored = {**stored, **made}
    known = {p.name: p.before for p in parameters(cls) if p.before is not dataclasses.MISSING}
    obj = cls(**{**known, **{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}})
    validate(obj)
    return obj


def encode(value: Any, *, optional: bool = False) -> str:
    """Write one parameter value as text; ``optional`` says that the word none would mean no value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "/".join(encode(v).replace("/", "%2F") if isinstance(v, str) else encode(v) for v in value)
    if isinstance(value, float):
        return repr(value)
    text = format(value) if isinstance(value, Spelled) else str(value)
    if optional and text == "none":
        return "%6Eone"
    # White space at the ends would be stripped from a list, and a line break would end a command.
    core = text.strip(" ")
    left, right = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" ")) if core else 0
    middle = "".join(quote(c, safe="") if c in "%,:" or (c.isspace() and c != " ") else c for c in core)
    return "%20" * left + middle + "%20" * right


def decode(tp: Any, text: str, build: Build | None = None) -> Any:
    """Read one parameter value of type ``tp``; ``build`` makes a part from its spec.

    Raises:
        ValueError: when the text is no such value.
    """
    inner = optional(tp)
    if inner is not None:
        return None if text == "none" else decode(inner, text, build)
    if is_part(tp):
        if build is None:
            raise ValueError(text)
        return build(tp, unquote(text))
    origin = typing.get_origin(tp)
    if origin is Literal:
        for choice in typing.get_args(tp):
            if text in (encode(choice), encode(choice, optional=True)):
                return choice
        raise ValueError(text)
    if origin is tuple:
        element = typing.get_args(tp)[0]
        return tuple(decode(element, part) for part in text.split("/")) if text else ()
    if tp is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if tp is int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise ValueError(text)
        return int(text)
    if tp is float:
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            raise ValueError(text)
        return float(text)
    return unquote(text)


def validate(obj: Any) -> None:
    """Check every field of a component against its declaration; called when it is constructed.

    What a given name of others fills in, and was not given, takes that value. A number becomes the plain int
    or float of its field, so that equal settings are equal records; a path in the user's home is written out.

    Raises:
        ValueError: with the one form of message ``cosine: s must be a float >= 0, got 'abc'``.
    """
    given = vars(obj).pop(GIVEN, ())  # by the first call alone; what is copied later was filled before
    names = {p.name: getattr(obj, p.name) for p in parameters(type(obj)) if p.fills and p.name in given}
    for name, value in filling(type(obj), names).items():
        if name not in given:
            object.__setattr__(obj, name, value)
    for p in parameters(type(obj)):
        value = plain(p.type, getattr(obj, p.name))
        object.__setattr__(obj, p.name, value)
        if not (fits(p.type, value) and within(p.bounds, value)):
            raise ValueError(must_be(obj.name, p, value))


def must_be(name: str, p: Parameter, value: Any) -> str:
    """Say what a parameter must be: ``cosine: s must be a float >= 0, got 'abc'``."""
    words = p.type_name
    article = "" if words.startswith("one of") else ("an " if words[0] in "aeiou" else "a ")
    spoken = (*SCALARS, tuple, Spelled)
    shown = value if isinstance(value, str) else encode(value) if isinstance(value, spoken) else value
    how = f"; build('{words}', '{value}') makes one" if p.part and isinstance(value, str) else ""
    return f"{name}: {p.name} must be {article}{words}{' ' + p.allowed if p.allowed else ''}, got '{shown}'{how}"
