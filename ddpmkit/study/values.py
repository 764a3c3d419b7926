"""What a user writes, as values: words, seeds, components in one canonical form, and TOML there and back."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.plugin.loader import BUILTIN
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.settings import COMPONENTS, FIELDS, Settings

LARGEST = 10_000  # results a study may ask for
MOST_TOML = 2**24  # bytes of a study's file that are read


def canonical(kind: str, text: str, registry: Registry) -> str:
    """Return the spec of a component in its one form; the plugin that was named stays named.

    Raises:
        DdpmkitError: for an unknown name or parameter, or a bad value.
    """
    stated = spec.format(registry.build(kind, text), called=registry.called)
    qualifier = spec.parse(text)[0].rpartition("/")[0]
    return f"{qualifier}/{stated}" if qualifier not in ("", BUILTIN) else stated


def read_setting(field: str, text: str, registry: Registry) -> Any:
    """Read one value of a setting; a component's spec in its one form.

    Raises:
        DdpmkitError: when it is none.
    """
    if field in COMPONENTS:
        return canonical(field, text, registry)
    try:
        read = spec.decode(FIELDS[field].type, text)
        replace(Settings(), **{field: read})
    except ValueError as err:
        said = str(err)
        message = said if said.startswith("settings:") else spec.must_be("settings", FIELDS[field], text)
        raise DdpmkitError(message, "ddpmkit ablate --help") from None
    return read


def read_toml(path: Path) -> dict[str, Any]:
    """Read a study file into options.

    Raises:
        DdpmkitError: when it is missing or no TOML.
    """
    try:
        return tomllib.loads(files.read_record(path, MOST_TOML).decode("utf-8"))
    except OSError as err:
        raise DdpmkitError(f"can't read '{path}': {err.strerror}", "give the path of a study's .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise DdpmkitError(f"'{path}' is no valid TOML: {err}", "ddpmkit ablate --help lists the settings") from None
    except RecursionError:
        raise DdpmkitError(f"'{path}' nests lists without end", "ddpmkit ablate --help lists the settings") from None


def check_text(key: str, value: Any, *, single: bool) -> None:
    """Refuse what a TOML file or a caller gave where text, or a list of texts, belongs."""
    fits = isinstance(value, str) or (
        not single and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
    )
    if not fits:
        raise DdpmkitError(
            f"'{key}' must be text{'' if single else ' or a list of texts'}, got {value!r}", "ddpmkit ablate --help"
        )


def words(value: str | Iterable[str]) -> tuple[str, ...]:
    """Read comma text or a list, without repeats.

    Raises:
        DdpmkitError: when it is empty.
    """
    found = spec.split(value) if isinstance(value, str) else [str(v) for v in value]
    if not found:
        raise DdpmkitError("a list is empty", "name at least one entry")
    return tuple(dict.fromkeys(found))


def read_seeds(key: str, value: Any) -> tuple[int, ...]:
    """Read ``0-2``, ``0,3,5``, ``0-2,7``, a list of ints, or one int."""
    flag = "--" + key.replace("_", "-")
    parts = [str(v) for v in value] if isinstance(value, (list, tuple, range)) else str(value).split(",")
    out: list[int] = []
    for part in parts:
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        if not match:
            raise DdpmkitError(f"{flag}: '{part}' is no seed", f"write {flag} 0-2 or {flag} 0,1,2")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low or high - low >= LARGEST:
            raise DdpmkitError(f"{flag}: '{part}' is no range", f"write {flag} 0-2")
        out += [s for s in range(low, high + 1) if s not in out]
    if not out:
        raise DdpmkitError(f"{flag}: no seed is given", f"write {flag} 0-2")
    return tuple(out)


def as_toml(value: Any) -> str:
    """Write a value as TOML."""
    if value is None:
        value = spec.encode(value)  # TOML has no word for it; ours is read back
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(v) for v in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    return files.canonical(str(value)).replace("\x7f", "\\u007f")
