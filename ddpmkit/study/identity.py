"""What of a component enters ids: its name, parameters and version; of a plugin's also its values and its sources.

A built-in means what its version says. A stranger's may read a file, import a helper, or change without a new version,
so its numbers themselves are hashed where they are at hand. They are rounded to ten significant digits first, since
processors differ in the last ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ddpmkit import files as disk
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.plugin.interfaces import Component
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.sources import Sources, hashed

DIGITS = 10
NOTHING = 1e-14  # of the largest entry: what is left of a difference that should be zero
Identity = dict[str, Any]  # what of a component is hashed
Identified = tuple[Identity, dict[str, Any]]  # what is hashed; how to build the component again


def identified(component: Component, registry: Registry, *values: Any, files: Iterable[str] = ()) -> Identified:
    """Return what of a component enters ids, and its record.

    Args:
        component: The component.
        registry: Where it comes from.
        values: Tables that it gave, arrays or numbers. In the record alone if the component is built in.
        files: Paths that were read on the way to them.
    """
    identity, record = registry.identity(component), registry.record(component)
    if values:
        record = {**record, "values": value_hash(*values)}
    if registry.is_builtin(component):
        return identity, record
    if values:
        identity = {**identity, "values": record["values"]}
    # A file that a parameter names is its content in that parameter, wherever it lies and whatever it is called.
    named = hashed(path for part in spec.whole(component) for path in _paths(part).values())
    sources = Sources(**record["sources"]).with_files(files)
    told = Sources(sources.modules, {p: content for p, content in sources.files.items() if p not in named})
    params = _with_contents(identity["params"], component)
    record = {**record, "sources": asdict(sources.with_files(named))}
    return {**identity, "params": params, "sources": told.digest()}, record


def _paths(component: Any) -> dict[str, str]:
    """The parameters of a component, its parts aside, that name a file."""
    parts = spec.parts(component)
    stated = {k: v for k, v in spec.values(component).items() if k not in parts}
    return {k: v for k, v in stated.items() if isinstance(v, str) and _is_path(v)}


def _with_contents(params: dict[str, Any], component: Any) -> dict[str, Any]:
    """The parameters with the hash of a file for its path, in the identities of parts as well."""
    named = {k: {"file": content} for k, path in _paths(component).items() for content in hashed([path]).values()}
    out = {**params, **{k: v for k, v in named.items() if k in params}}
    for name, part in spec.parts(component).items():
        if isinstance(out.get(name), dict):
            out[name] = {**out[name], "params": _with_contents(out[name]["params"], part)}
    return out


def _is_path(text: str) -> bool:
    """Whether a text is a path, and a file is there; a plain word is none, whatever the working folder holds."""
    path = Path(text)
    return (path.suffix != "" or path.name != text) and path.is_file()


def hold(kind: str, identity: Identity, *values: Any) -> None:
    """Refuse values of a plugin's component that are not those of the plan.

    Raises:
        DdpmkitError: with the component's name.
    """
    if identity.get("values") not in (None, value_hash(*values)):
        raise DdpmkitError(
            f"{kind} '{identity['name']}' gives other numbers than when the stage was planned",
            "run the study again: its stages get new ids",
        )


def value_hash(*values: Any) -> str:
    """Return the SHA-256 of arrays and numbers, their shapes and each entry at ten significant digits."""
    words = []
    for value in values:
        array = np.asarray(value, dtype=np.float64)
        size = np.abs(array[np.isfinite(array)]).max(initial=0.0)
        array = np.where(np.abs(array) < NOTHING * size, 0.0, array) + 0.0  # and no negative zero
        words.append(f"{array.shape} " + " ".join(f"{v:.{DIGITS - 1}e}" for v in array.ravel().tolist()))
    return disk.sha256("\n".join(words).encode())
