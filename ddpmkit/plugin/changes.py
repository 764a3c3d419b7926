"""What a plugin's import changes in libraries that every cell uses: a torch function that is replaced reaches them all.

Such a change can't be kept to the plugin's own cells, so it enters the id of every stage that is planned in a process
where it was made. What the libraries of a process are is a property of the process, and so is the record here.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.filters import of_others_kept

LIBRARIES = ("torch", "numpy", "scipy", "ddpmkit")


@dataclass(frozen=True, eq=False)
class Look:
    """What stood in a module, and in the classes that were made in it, by name."""

    attributes: dict[str, Any]
    classes: dict[str, dict[str, Any]]

    def still_so(self, module: ModuleType) -> bool:
        """Whether every object that was there is there, at the same place among the others."""
        return _alike(self.attributes, vars(module)) and all(
            _alike(attributes, vars(self.attributes[key])) for key, attributes in self.classes.items()
        )

    def at(self, place: tuple[str, ...]) -> dict[str, Any]:
        """Return what stood in the module, which is (), or in a class of it, which is its name."""
        return self.classes.get(place[0], {}) if place else self.attributes


Looks = dict[str, Look]  # module -> what stood in it

_last: Looks = {}  # hardly anything differs from one look to the next, and comparing is cheaper than copying
_made: dict[str, tuple[str, ...]] = {}  # plugin -> the attributes that it replaced in this process


def made() -> dict[str, tuple[str, ...]]:
    """Return what plugins have replaced in this process: plugin -> dotted names."""
    return dict(_made)


@contextmanager
def watched(plugin: str) -> Iterator[None]:
    """Note what is replaced in the libraries while the context is open, as changes of ``plugin``.

    The default dtype is put back: it is a setting that a plugin may want for itself and nobody else expects. So are
    filters of all warnings.
    """
    before = snapshot()
    finder = _Arrival(before)
    sys.meta_path.insert(0, finder)
    dtype = _default_dtype()
    try:
        with of_others_kept():
            yield
    finally:
        sys.meta_path.remove(finder)
        torch, now = sys.modules.get("torch"), _default_dtype()
        if torch is not None and now is not None and now is not (dtype or torch.float32):  # with which torch begins
            torch.set_default_dtype(dtype or torch.float32)
        names = replaced(before)
        if names:
            _made[plugin] = tuple(sorted({*_made.get(plugin, ()), *names}))


def snapshot(libraries: Sequence[str] = LIBRARIES) -> Looks:
    """Return what the modules of the libraries that are imported, and the classes made in them, consist of.

    A module that nothing changed since it was last looked at has the very same Look.
    """
    return {
        name: _look(name, module)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in libraries and isinstance(module, ModuleType)
    }


def replaced(before: Looks) -> tuple[str, ...]:
    """Return the dotted names of functions, classes and methods that are no longer what they were in a snapshot.

    A module that came later is not in the snapshot, and is not looked at.
    """
    return tuple(sorted(".".join((module, *place, key)) for module, place, key, _ in _replaced(before)))


@contextmanager
def left_alone() -> Iterator[None]:
    """Put back what is replaced in the libraries while the context is open, and refuse it.

    What runs later in the same process would compute with it, and which stages these are is chance.

    Raises:
        DdpmkitError: with the names, unless something else was raised.
    """
    before = snapshot()
    names: list[str] = []
    try:
        yield
    finally:
        for module, place, key, value in list(_replaced(before, by_others=True)):
            owner = before[module].attributes[place[0]] if place else sys.modules[module]
            setattr(owner, key, value)
            names.append(".".join((module, *place, key)))
    if names:
        raise DdpmkitError(
            f"{', '.join(sorted(names)[:3])} was replaced by a component while it worked, and has been put back",
            "make the change where the plugin is imported, so that ids hold it",
        )


def _replaced(before: Looks, *, by_others: bool = False) -> Iterator[tuple[str, tuple[str, ...], str, Any]]:
    """Give module, class or nothing, name and former value of everything that is not what it was.

    With ``by_others`` only what is now somebody else's code, or a function of another name: libraries wrap their own
    functions while they work (torch its optimisers' steps).
    """
    now = snapshot()
    yield from (
        (module, place, key, value)
        for module, look in before.items()
        if (later := now.get(module, _NOTHING)) is not look
        for place in ((), *((key,) for key in look.classes))
        if not _alike(old := look.at(place), new := later.at(place))
        for key, value in old.items()
        if new.get(key) is not value and _is_code(place, key, value) and (not by_others or _others(key, new.get(key)))
    )


_NOTHING = Look({}, {})


def _alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    # There are a hundred thousand of them, and hardly ever one that changed: C does the looking.
    return len(old) == len(new) and all(map(operator.is_, old.values(), new.values()))


def _is_code(place: tuple[str, ...], key: str, value: Any) -> bool:
    if not place:
        return callable(value) and not key.startswith("__")
    return callable(value) or isinstance(value, (staticmethod, classmethod, property))


def _others(key: str, value: Any) -> bool:
    function = getattr(value, "__func__", value)  # of a static or class method
    if getattr(function, "__module__", None) == "torch._dynamo.mutation_guard":
        return False  # torch.compile marks modules that are made while a network answers, when it is first used
    if getattr(function, "__name__", key) != key:
        return True
    return str(getattr(function, "__module__", None) or LIBRARIES[0]).partition(".")[0] not in LIBRARIES


def _look(name: str, module: ModuleType) -> Look:
    last = _last.get(name)
    if last is not None and last.still_so(module):
        return last
    attributes = dict(vars(module))
    classes = {
        key: dict(vars(value))
        for key, value in attributes.items()
        if issubclass(type(value), type) and value.__module__ == name and not key.startswith("__")
    }
    _last[name] = Look(attributes, classes)
    return _last[name]


def _default_dtype() -> Any:
    torch = sys.modules.get("torch")
    get = getattr(torch, "get_default_dtype", None)  # absent while torch itself is being imported
    return get() if get is not None else None


class _Arrival(importlib.abc.MetaPathFinder):
    """Look at a library at the moment when it has been imported, before whoever imports it can change it."""

    def __init__(self, into: Looks) -> None:
        self.into = into

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a library as the import system would, with a loader that tells."""
        if name.partition(".")[0] not in LIBRARIES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Telling(spec.loader, lambda: self._arrived(name))
        return spec

    def _arrived(self, name: str) -> None:
        # A library may change itself while it is imported: when its root is there, all of it is looked at again.
        if "." in name:
            self.into[name] = _look(name, sys.modules[name])
        else:
            self.into.update(snapshot((name,)))


class _Telling(importlib.abc.Loader):
    """A loader that says when it is done, and is otherwise the one that it stands for."""

    def __init__(self, loader: Any, tell: Callable[[], None]) -> None:
        self.loader, self.tell = loader, tell

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module."""
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, put its own loader in its place, and tell."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.tell()
