"""Which points of a grid are cells: the product of its axes, some of them walked together, or one axis at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.study.condition import Condition, Read, as_stored, is_condition, read_condition
from ddpmkit.study.settings import FIELDS, field_named

FULL, ONE = "full", "one-at-a-time"
DESIGNS = (FULL, ONE)
SHAPE = ("zip", "exclude", "design")  # the keys of a grid that choose among its points, but for "only"


@dataclass(frozen=True)
class Zip:
    """Settings that vary together: their names, and a tuple of values for each step.

    Written ``schedule+learning_rate=linear:0.004,cosine:s=0.01:0.002``: a colon parts the values, for behind a colon
    that belongs to a component's spec there is always ``key=``.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    def columns(self) -> dict[str, tuple[Any, ...]]:
        """The values of each setting, a step each."""
        return dict(zip(self.fields, zip(*self.values, strict=True), strict=True))

    def __str__(self) -> str:
        """Write it as one types it; what was read from the text is equal."""
        steps = (":".join(v if isinstance(v, str) else spec.encode(v) for v in step) for step in self.values)
        return f"{'+'.join(self.fields)}={','.join(steps)}"


def read_zip(text: str, read: Read = as_stored) -> Zip:
    """Read settings that vary together; their values by ``read``.

    Raises:
        DdpmkitError: for a text that is none, an unknown setting, a bad value, or a step that is given twice.
    """
    hint = "as in --zip schedule+learning_rate=linear:4e-3,cosine:2e-3"
    names, eq, steps = text.partition("=")
    fields = tuple(field_named(name.strip()) for name in names.split("+"))
    if not eq or len(fields) < 2:
        raise DdpmkitError(f"--zip '{text}': expected a+b=value:value,..", hint)
    for field in fields:
        if field not in FIELDS:
            raise DdpmkitError(f"--zip: unknown setting '{field}'{did_you_mean(field, FIELDS)}", hint)
    if len({*fields}) < len(fields):
        raise DdpmkitError(f"--zip '{text}': a setting is named twice", hint)
    values = []
    for step in spec.split(steps):
        parts: list[str] = []
        for part in step.split(":"):
            if parts and "=" in part:
                parts[-1] += f":{part}"
            else:
                parts.append(part)
        if len(parts) != len(fields):
            raise DdpmkitError(f"--zip '{text}': '{step}' has {len(parts)} values for {len(fields)} settings", hint)
        values.append(tuple(read(field, part) for field, part in zip(fields, parts, strict=True)))
    if len({*values}) < len(values):
        raise DdpmkitError(f"--zip '{text}': a step is given twice", hint)
    return Zip(fields, tuple(values))


def zipped(given: Mapping[str, Any]) -> set[str]:
    """Return the settings that the zips among options name."""
    texts = given.get("zip", ())
    listed = texts if isinstance(texts, (list, tuple)) else [texts]
    names = (str(text).partition("=")[0].split("+") for text in listed)
    return {field_named(name.strip()) for some in names for name in some}


def with_baseline(
    texts: Sequence[str], axes: Mapping[str, Sequence[Any]], zips: Sequence[Zip], read: Read
) -> tuple[dict[str, tuple[Any, ...]], tuple[Zip, ...]]:
    """Return the axes with the levels of a baseline first, and what varies together with its step first.

    Args:
        texts: ``schedule=linear,sigma=beta``, or one such text a setting.
        axes: Setting -> levels, those of zips too; any other has its default alone.
        zips: What varies together.
        read: Reads a value.

    Raises:
        DdpmkitError: for a text that names no setting and value, or values that are no level or no step of a zip.
    """
    wanted: dict[str, Any] = {}
    for text in texts:
        for part in spec.split(text):
            name, eq, value = part.partition("=")
            field = field_named(name.strip())
            if not eq or not value:
                raise DdpmkitError(f"--baseline '{part}': expected name=value", "as in --baseline schedule=linear")
            if field not in FIELDS:
                raise DdpmkitError(f"--baseline: unknown setting '{name}'{did_you_mean(field, FIELDS)}", None)
            wanted[field] = read(field, value.strip())
    together = {field for z in zips for field in z.fields}
    for field, value in wanted.items():
        levels = axes.get(field, (FIELDS[field].default,))
        if value not in levels and field not in together:
            said, there = (_shown(v) for v in ((value,), levels))
            near = did_you_mean(said, there.split(","))
            raise DdpmkitError(
                f"--baseline {field}={said}: no level of the grid, which has {field} {there}{near}",
                "it chooses among the levels that are asked for",
            )
    moved = []
    for z in zips:
        first = [s for s in z.values if all(v == wanted.get(f, v) for f, v in zip(z.fields, s, strict=True))]
        if not first:
            said = ", ".join(f"{f}={spec.encode(wanted[f])}" for f in z.fields if f in wanted)
            raise DdpmkitError(f"--baseline: no step of --zip {z} has {said}", "name one of its steps")
        moved.append(Zip(z.fields, (*first, *(s for s in z.values if s not in first))))
    ordered = {
        f: (wanted[f], *(v for v in values if v != wanted[f])) if f in wanted else tuple(values)
        for f, values in axes.items()
    }
    ordered |= {f: tuple(dict.fromkeys(column)) for z in moved for f, column in z.columns().items()}
    return {f: ordered[f] for f in FIELDS if f in ordered}, tuple(moved)


def _shown(values: Sequence[Any]) -> str:
    return ",".join(v if isinstance(v, str) else spec.encode(v) for v in values)


def together(axes: Mapping[str, Sequence[Any]], zips: Sequence[Zip]) -> list[tuple[tuple[str, ...], list[Any]]]:
    """Return what varies: the settings that vary together, mostly one, and their values as tuples."""
    varying = [field for field, values in axes.items() if len(values) > 1]
    out: list[tuple[tuple[str, ...], list[Any]]] = []
    for field in varying:
        group = next((z for z in zips if field in z.fields), None)
        if group is None:
            out.append(((field,), [(value,) for value in axes[field]]))
        elif not any(field in fields for fields, _ in out):
            out.append((group.fields, list(group.values)))
    return out


def size(axes: Mapping[str, Sequence[Any]], zips: Sequence[Zip], design: str) -> int:
    """Return the number of points, those that a condition leaves out included."""
    levels = [len(values) for _, values in together(axes, zips)]
    return 1 + sum(n - 1 for n in levels) if design == ONE else math.prod(levels)


def points(axes: Mapping[str, Sequence[Any]], zips: Sequence[Zip], design: str) -> list[dict[str, Any]]:
    """Return the points of a grid, each a value for every axis that varies, the last axis running fastest.

    One at a time: the first level of every axis, and then each other level of an axis with the first of all others.
    """
    groups = together(axes, zips)
    if design == ONE:
        base = [values[0] for _, values in groups]
        chosen = [tuple(base)]
        for place, (_, values) in enumerate(groups):
            chosen += [(*base[:place], value, *base[place + 1 :]) for value in values[1:]]
    else:
        chosen = list(itertools.product(*(values for _, values in groups)))
    varying = [field for field, values in axes.items() if len(values) > 1]
    out = []
    for steps in chosen:
        at = {f: v for (fields, _), step in zip(groups, steps, strict=True) for f, v in zip(fields, step, strict=True)}
        out.append({field: at[field] for field in varying})
    return out


def label_of(point: Mapping[str, Any]) -> str:
    """Return the name of a point: its values, each that is no component with the setting's name."""
    return " ".join(v if isinstance(v, str) else f"{k}={spec.encode(v)}" for k, v in point.items())


def conditions(texts: Sequence[str]) -> list[Condition]:
    """Return the conditions among texts of which others are labels of cells; a label may look like one."""
    out = []
    for text in texts:
        if is_condition(text):
            with contextlib.suppress(DdpmkitError, ValueError):
                out.append(read_condition(text))
    return out


def among(label: str, settings: Mapping[str, Any], texts: Sequence[str], some: Sequence[Condition]) -> bool:
    """Whether a cell is meant by texts, labels and conditions; ``some`` are these as :func:`conditions` reads them."""
    return label in texts or any(condition.holds(settings) for condition in some)


def shape_of(zips: Sequence[str], exclude: Sequence[str], design: str) -> dict[str, Any]:
    """Return what a grid says of its points, as JSON values; nothing where they are the product of its axes."""
    out: dict[str, Any] = {"zip": list(zips), "exclude": list(exclude), "design": design if design != FULL else ""}
    return {key: value for key, value in out.items() if value}
