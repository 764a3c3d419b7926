"""What a plugin's numbers may rest on besides its own text: the modules that it imports and the files that it reads.

Site-packages and the standard library do not count, since the version of a distribution stands for them. Names and
contents are kept and no paths, so that the same plugin in another folder, or on another machine, is the same.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
CODE = {".py", ".pyc", ".so", ".pyd", ".dylib"}
CACHES = (".cache", ".config/matplotlib", ".matplotlib", ".nv", ".triton")  # of tools, in the home
CACHE_VARIABLES = ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR")  # which name other folders for it
MACHINE = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/System", "/Library")  # the machine's, not the plugin's


@dataclass(frozen=True)
class Sources:
    """The SHA-256 of each module, by its name, and of each file that is read, by its path."""

    modules: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Return one hash of all of it; the folders of the files do not enter."""
        names = _apart(list(self.files))
        files = sorted([names[path], content] for path, content in self.files.items())
        text = repr((sorted(self.modules.items()), files))
        return hashlib.sha256(text.encode()).hexdigest()

    def __or__(self, other: Sources) -> Sources:
        """Return what both hold."""
        return Sources({**self.modules, **other.modules}, {**self.files, **other.files})

    def with_files(self, paths: Iterable[str]) -> Sources:
        """Return the same with more files."""
        return Sources(self.modules, {**self.files, **hashed(paths)})

    def changed(self) -> str | None:
        """Return the name of a module or file that is no longer what it was, None when all are."""
        for name, content in self.modules.items():
            path = _file_of(name)
            if path is None or _sha256(path) != content:
                return name
        for name, content in self.files.items():
            if not Path(name).is_file() or _sha256(Path(name)) != content:
                return name
        return None


def sources_of(module: ModuleType, new: Iterable[str] = (), *, itself: bool = False) -> Sources:
    """Return the modules outside site-packages that a module's import reaches, ``new`` among them.

    The module is one of them if ``itself`` says so: where no hash of its own text stands for it already.

    Import statements are followed wherever they stand in the text, in functions too; ``new`` are the names that the
    import brought by other ways.
    """
    modules: dict[str, Path] = {}
    todo = [module.__name__, *new]
    while todo:
        name = todo.pop()
        if name in modules:
            continue
        path = None if _inside_installed(name) else _file_of(name)
        if path is None or not foreign(path):
            continue
        modules[name] = path
        todo += _imported(name, path)
    if not itself:
        modules.pop(module.__name__, None)
    return Sources({name: _sha256(path) for name, path in sorted(modules.items())})


def _apart(paths: list[str]) -> dict[str, str]:
    """Name each path by its last parts, as few of them as tell all apart: folders above are the machine's."""
    parts = {path: Path(path).parts for path in paths}
    depth, different = 1, len(set(parts.values()))
    while len({p[-depth:] for p in parts.values()}) < different:
        depth += 1
    return {path: "/".join(p[-depth:]) for path, p in parts.items()}


def foreign(path: Path) -> bool:
    """Whether a file is neither the interpreter's, nor an installed distribution's, nor ddpmkit's own."""
    return not any(path.is_relative_to(root) for root in _installed())


def hashed(paths: Iterable[str]) -> dict[str, str]:
    """Return path -> SHA-256 of those that are files, each under one spelling, the absolute one."""
    whole = sorted({os.path.abspath(p) for p in paths})  # noqa: PTH100 - resolve() would follow links to other names
    return {p: _sha256(Path(p)) for p in whole if Path(p).is_file()}


@contextmanager
def reading() -> Iterator[set[str]]:
    """Collect the paths of the files that are opened for reading in this thread while the context is open.

    Code, files of the machine, and what tools keep in caches in the home do not count.
    """
    _listen()
    paths: set[str] = set()
    before = getattr(_local, "paths", None)
    _local.paths = paths
    try:
        with _hearing_safetensors():
            yield paths
    finally:
        _local.paths = before
        if before is not None:
            before |= paths


_local = threading.local()


@cache
def _listen() -> None:
    """Hear of every file that is opened. An audit hook can't be removed: there is one, and it is silent by default."""
    sys.addaudithook(_hear)


@contextmanager
def _hearing_safetensors() -> Iterator[None]:
    """Hear of the files that safetensors opens: it does so outside Python, where no audit hook is."""
    replaced = []
    for name in ("safetensors", "safetensors.torch", "safetensors.numpy"):
        module = sys.modules.get(name)
        if module is not None and "safe_open" in vars(module):
            replaced.append((module, module.safe_open))
            module.safe_open = partial(_safe_open, module.safe_open)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, own in replaced:
            module.safe_open = own  # type: ignore[attr-defined]


def _safe_open(own: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
    _hear("open", (filename, "r", 0))
    return own(filename, *args, **kwargs)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    paths = getattr(_local, "paths", None)
    if paths is None:
        return
    path, mode, flags = arguments
    if not isinstance(path, (str, bytes, os.PathLike)):
        return  # a descriptor
    writes = isinstance(mode, str) and set(mode) & set("wax+")
    if writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
        return
    try:
        whole = Path.cwd() / os.fsdecode(path)
    except OSError:  # the working folder is gone, and whoever opens the file will see that
        return
    if _counts(whole):
        paths.add(str(whole))


def _counts(path: Path) -> bool:
    if path.suffix in CODE or any(part.endswith((".dist-info", ".egg-info")) for part in path.parts):
        return False
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    caches = [Path(os.environ[name]) for name in CACHE_VARIABLES if os.environ.get(name)]
    tools = [*map(Path, MACHINE), *(home / name for name in CACHES), *caches]
    return foreign(path.resolve()) and not any(path.is_relative_to(place) for place in tools)


@cache
def _installed() -> tuple[Path, ...]:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {*site.getsitepackages(), site.getusersitepackages()}
    # A folder of distributions that is not Python's own, as pip install --target and clusters' modules make them.
    places |= {p for p in sys.path if p and next(Path(p).glob("*.dist-info"), None) is not None}
    return (PACKAGE, *(Path(p).resolve() for p in places))


def _inside_installed(name: str) -> bool:
    """Whether a name leads into an imported package that is not foreign; to look for each such name takes long."""
    root, dot, _ = name.partition(".")
    places = getattr(sys.modules.get(root), "__path__", ())
    return bool(dot and places) and not any(foreign(Path(place).resolve()) for place in places)


def _file_of(name: str) -> Path | None:
    """The source of a module, imported or not."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):  # no such module, or a parent that is no package
            return None
        origin = spec.origin if spec is not None and spec.has_location else None
    if not origin or not origin.endswith(tuple(importlib.machinery.SOURCE_SUFFIXES)):
        return None
    path = Path(origin).resolve()
    return path if path.is_file() else None


def _imported(name: str, path: Path) -> Iterator[str]:
    """Every module that a source's import statements may name."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parents = parts[: len(parts) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            if base:
                yield from _prefixes(base)
                yield from (f"{base}.{alias.name}" for alias in node.names if _may_be_module(base, alias.name))


def _prefixes(dotted: str) -> Iterator[str]:
    parts = dotted.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] in ("ddpmkit", "torch", "numpy"):
        return  # never foreign, and looking each of them up takes time
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _may_be_module(base: str, name: str) -> bool:
    return base.partition(".")[0] not in sys.stdlib_module_names and name != "*"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
