"""Find plugins and take in their components one by one, so that a broken plugin costs one line and nothing else.

pluggy's own entry-point loader stops at the first plugin that fails to import; here every plugin is imported,
registered, checked and called by itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import changes
from ddpmkit.plugin.api import api_problem
from ddpmkit.plugin.blame import telling_ctrl_c_apart
from ddpmkit.plugin.contract import class_problem
from ddpmkit.plugin.hookspecs import HOOKS, PROJECT, HookSpecs
from ddpmkit.plugin.interfaces import KINDS, Component, Kind
from ddpmkit.plugin.sources import Sources, reading, sources_of
from ddpmkit.text import one_line

BUILTIN = "ddpmkit"
NAMED = "-p takes a module name or the path of a .py file"


@dataclass(frozen=True)
class Entry:
    """One component class as it was registered."""

    kind: str
    cls: type[Component]
    plugin: str
    plugin_version: str
    identity: int | str  # what enters stage ids: the class's integer version, or the file's SHA-256 for -p
    sources: Sources | None = None  # what else its import brought; None for built-ins

    @property
    def name(self) -> str:
        """The bare name."""
        return self.cls.name

    @property
    def qualified(self) -> str:
        """The name that always works, ``plugin/name``."""
        return f"{self.plugin}/{self.name}"


@dataclass(frozen=True)
class Issue:
    """What was wrong with a plugin, or with a part of one."""

    plugin: str
    version: str
    stage: str  # import, api, register, hook, component
    message: str
    trace: str = ""
    error: BaseException | None = None

    def __str__(self) -> str:
        """One line for stderr."""
        return f"plugin {self.plugin} {self.version}".rstrip() + f" ({self.stage}): {self.message}"


@dataclass
class Loaded:
    """One plugin: what it brought, what was wrong with it, and how long its import took."""

    name: str
    version: str
    origin: str
    entries: list[Entry] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    milliseconds: float = 0.0
    sources: Sources | None = None


@functools.cache  # they are the same for every registry of a process
def load_builtin() -> Loaded:
    """Take in the built-in components through the same hooks as anyone's."""
    from ddpmkit import __version__

    loaded = Loaded(BUILTIN, __version__, "built-in")
    _take_in(loaded, importlib.import_module("ddpmkit.builtin"), identity=None)
    _refuse_namesakes([loaded])
    if loaded.issues:
        raise AssertionError("; ".join(map(str, loaded.issues)))
    return loaded


def load_installed(blocked: Iterable[str] = ()) -> list[Loaded]:
    """Take in every plugin that an installed distribution declares in the entry-point group ``ddpmkit``."""
    blocked = set(blocked)
    points = sorted(entry_points(group=PROJECT), key=lambda ep: (_dist(ep)[0], ep.name))
    out = []
    for ep in points:
        name, version = _dist(ep)
        if name in blocked or ep.name in blocked:
            continue
        loaded = Loaded(name, version, ep.value)
        module = _imported(loaded, ep.load, itself=True)
        if not loaded.issues:
            _take_in(loaded, module, identity=None)
        out.append(loaded)
    for name in dict.fromkeys(p.name for p in out):
        _refuse_namesakes([p for p in out if p.name == name])  # a distribution may have several entry points
    return out


def _is_no_module(target: str, error: BaseException | None) -> bool:
    """Whether there is nothing by that name to import, as against something that can't be."""
    if target.endswith(".py"):
        return False
    if not all(part.isidentifier() for part in target.split(".")):
        return True
    return isinstance(error, ModuleNotFoundError) and f"{target}.".startswith(f"{error.name}.")


def load_named(target: str) -> Loaded:
    """Take in what ``-p target`` names: a module, or a file that ends in ``.py``.

    Raises:
        DdpmkitError: whatever is wrong with it, since it was asked for by name.
    """
    path = Path(target)
    if target.endswith(".py"):
        if not path.is_file():
            raise DdpmkitError(f"-p {target}: there is no such file", NAMED)
        # A file may be called ddpmkit.py, but it is not us.
        name = path.name if path.stem == BUILTIN else path.stem
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        loaded = Loaded(name, digest[:12], str(path))
        module = _imported(loaded, lambda: _run_file(path, f"ddpmkit_p_{name}_{digest[:12]}"))
    else:
        loaded = Loaded(target, "", target)
        module = _imported(loaded, lambda: importlib.import_module(target))
        origin = getattr(module, "__file__", None)
        digest = _source_hash(Path(origin)) if origin else ""
        loaded.version = str(getattr(module, "__version__", digest[:12]))
    if module is not None:
        _take_in(loaded, module, identity=digest)
        _refuse_namesakes([loaded])
    if loaded.issues:
        raise DdpmkitError(
            f"-p {target}: {loaded.issues[0].message}",
            NAMED if _is_no_module(target, loaded.issues[0].error) else "ddpmkit -v COMMAND shows the traceback",
        ) from loaded.issues[0].error
    if not loaded.entries:
        raise DdpmkitError(
            f"-p {target}: it registers no component",
            "write a function such as ddpmkit_register_schedules(), mark it @hookimpl, and return a list of classes",
        )
    return loaded


def _source_hash(origin: Path) -> str:
    """SHA-256 of a module's source; of a package, of all its modules."""
    sources = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(str(path.relative_to(origin.parent)).encode() + path.read_bytes())
    return digest.hexdigest()


def _dist(ep: EntryPoint) -> tuple[str, str]:
    return (ep.dist.name, ep.dist.version) if ep.dist is not None else (ep.name, "")


def _run_file(path: Path, module_name: str) -> ModuleType:
    if module_name in sys.modules:
        return sys.modules[module_name]
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None or module_spec.loader is None:  # a .py suffix always has a loader
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    # Before it runs: dataclasses with postponed annotations look their module up here.
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


# Of each module, by its name: what it rests on, its own text included, since its import ran; what its hooks have read.
_imports: dict[str, tuple[ModuleType, Sources]] = {}
_hook_files: dict[str, tuple[ModuleType, Sources]] = {}


def _imported(loaded: Loaded, action: Callable[[], Any], *, itself: bool = False) -> Any:
    """Import a plugin, and note how long it took, what it brought and what it changed.

    An import runs once a process. Who loads the plugin again gets what it brought then, if that is still what is there.
    """
    before, started = set(sys.modules), time.perf_counter()
    with changes.watched(loaded.name), reading() as paths:
        module = _guarded(loaded, "import", action)
    loaded.milliseconds = 1e3 * (time.perf_counter() - started)
    if not isinstance(module, ModuleType):
        return module
    same, sources = _imports.get(module.__name__, (None, None))
    if same is not module or sources is None:
        sources = sources_of(module, set(sys.modules) - before, itself=True).with_files(paths)
        _imports[module.__name__] = module, sources
    elif _stale(loaded, sources):
        return None
    own = set() if itself else {module.__name__}
    loaded.sources = Sources({k: v for k, v in sources.modules.items() if k not in own}, sources.files)
    return module


def _stale(loaded: Loaded, sources: Sources) -> bool:
    """Whether something has changed since this process read it; if so, the plugin has an issue."""
    changed = sources.changed()
    if changed is not None:
        text = f"'{changed}' has changed since it was imported, and an import runs once a process: start Python again"
        loaded.issues.append(Issue(loaded.name, loaded.version, "import", text))
    return changed is not None


def _guarded(loaded: Loaded, stage: str, action: Any) -> Any:
    """Run a plugin's code; whatever it raises becomes an issue of that plugin."""
    with telling_ctrl_c_apart() as pressed:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
                return action()
        except BaseException as err:  # a plugin may raise anything, even an exit
            if pressed.is_set() and isinstance(err, KeyboardInterrupt):
                raise
            message = one_line(f"{type(err).__name__}: {err}").rstrip(": ")
            loaded.issues.append(Issue(loaded.name, loaded.version, stage, message, traceback.format_exc(), err))
            return None


def _take_in(loaded: Loaded, module: Any, *, identity: str | None) -> None:
    if not isinstance(module, ModuleType):
        text = f"the entry point '{loaded.origin}' names {type(module).__name__} and no module"
        loaded.issues.append(Issue(loaded.name, loaded.version, "import", text))
        return
    if problem := api_problem(module):
        loaded.issues.append(Issue(loaded.name, loaded.version, "api", problem))
        return
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    if _guarded(loaded, "register", lambda: manager.register(module, loaded.name)) is None:
        return
    loaded.issues += _unknown_hooks(loaded, module, manager)
    # Called one by one: the combined call drops a None in silence.
    calls = [(kind, hook) for kind in KINDS.values() for hook in getattr(manager.hook, kind.hook).get_hookimpls()]
    if loaded.sources is None:
        answers = [(kind, _answer(loaded, hook)) for kind, hook in calls]
    else:  # a plugin's, and what they change and read counts as what its import does
        with changes.watched(loaded.name), reading() as paths:
            answers = [(kind, _answer(loaded, hook)) for kind, hook in calls]
        # What a hook read before and did not read again, it kept.
        same, before = _hook_files.get(module.__name__, (None, Sources()))
        cache = Sources({}, {p: c for p, c in before.files.items() if p not in paths}) if same is module else Sources()
        if _stale(loaded, cache):
            return
        sources = cache.with_files(paths)
        _hook_files[module.__name__] = module, sources
        loaded.sources = loaded.sources | sources
    for kind, answer in answers:
        for value in answer:
            for cls, problem in _classes(kind, value):
                if problem:
                    loaded.issues.append(Issue(loaded.name, loaded.version, "component", problem))
                else:
                    key = cls.version if identity is None else identity
                    loaded.entries.append(Entry(kind.name, cls, loaded.name, loaded.version, key, loaded.sources))


def _answer(loaded: Loaded, hook: Any) -> tuple[Any, ...]:
    """What a hook returns; nothing where it raises."""
    before = len(loaded.issues)
    value = _guarded(loaded, "hook", hook.function)
    return (value,) if len(loaded.issues) == before else ()


def _refuse_namesakes(parts: list[Loaded]) -> None:
    """Take out the components of one plugin that share kind and name: neither is what the name means."""
    classes: dict[tuple[str, str], list[type[Component]]] = {}
    for part in parts:
        entries = []
        for entry in part.entries:
            namesakes = classes.setdefault((entry.kind, entry.name), [])
            if entry.cls not in namesakes:  # the same class, listed twice, is one
                namesakes.append(entry.cls)
                entries.append(entry)
        part.entries = entries
    for (kind, name), namesakes in classes.items():
        if len(namesakes) < 2:
            continue
        names = " and ".join(cls.__name__ for cls in namesakes)
        text = f"the classes {names} are both called {kind} '{name}', so neither is usable; rename one"
        parts[0].issues.append(Issue(parts[0].name, parts[0].version, "component", text))
        for part in parts:
            part.entries = [e for e in part.entries if (e.kind, e.name) != (kind, name)]


def _unknown_hooks(loaded: Loaded, module: ModuleType, manager: pluggy.PluginManager) -> Iterator[Issue]:
    for name in sorted(vars(module)):
        if not name.startswith("ddpmkit_") or not inspect.isfunction(getattr(module, name)):
            continue
        marked = manager.parse_hookimpl_opts(module, name) is not None
        if marked and name not in HOOKS:
            text = f"there is no hook '{name}'{did_you_mean(name, HOOKS)}"
        elif name in HOOKS and not marked:
            text = f"'{name}' is not marked with @hookimpl, so it is never called"
        else:
            continue
        yield Issue(loaded.name, loaded.version, "hook", text)


def _classes(kind: Kind, value: Any) -> Iterator[tuple[Any, str]]:
    """Yield every class of a hook's answer with what makes it unusable, or an empty string."""
    if not isinstance(value, (list, tuple)):
        yield None, f"{kind.hook}() must return a list of classes, not {type(value).__name__}"
        return
    for cls in value:
        yield cls, class_problem(kind, cls)
