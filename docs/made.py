"""The parts of the site that are made from the code, as Markdown; a page asks for one by ``<!-- made: NAME KIND -->``.

What the code says is never copied by hand: signatures, defaults, flags, checks, hooks, stages.
"""

from __future__ import annotations

import importlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MARK = re.compile(r"^<!-- made: ([a-z-]+)(?: ([a-z]+))? -->$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)]*)?\)")

# What a figure of a study shows, by the beginning of its file's name.
FIGURES = {
    "samples": "images drawn from the same noise, a row a cell",
    "metrics": "the metrics seed by seed",
    "training": "the loss over the training",
    "bits-by-step": "which steps of the chain cost how many bits",
    "split": "where over log SNR the cells spend more or fewer bits than the baseline",
    "classes": "a row a class, a column a strength of guidance",
    "forward": "an image dissolving under each schedule",
    "reverse": "a sample appearing",
    "denoise": "x0hat of a test image at several t, beside the truth",
    "evaluations-FD-digits": "a distance against network evaluations",
    "evaluations-NLL": "the bound of a walk's chain against its steps",
}


def page(name: str, text: str) -> str:
    """Return a page as Sphinx is to read it: with what it asks for, and without links that lead out of the site."""
    filled = MARK.sub(lambda m: PARTS[m[1]](*filter(None, [m[2]])), text)
    folder = posixpath.dirname(name)

    def link(m: re.Match[str]) -> str:
        outside = posixpath.normpath(posixpath.join(folder, m[2])).startswith("..")
        return m[1] if outside and "://" not in m[2] else m[0]

    return LINK.sub(link, filled)


def docstring(lines: list[str]) -> None:
    """Make a docstring fit for reStructuredText: a bar or a star in a formula is no markup."""
    for i, line in enumerate(lines):
        pieces = re.split(r"(``.*?``)", line)
        lines[i] = "".join(p if p.startswith("``") else re.sub(r"(?<!\\)([|*])", r"\\\1", p) for p in pieces)


def signature(kind: str) -> str:
    """Return the interface of a kind, from its docstrings."""
    return _rst(f".. autoclass:: ddpmkit.{_interface(kind).__name__}\n   :members:")


def example(kind: str) -> str:
    """Return what ``new-plugin`` writes for a kind, the module and its test; both are run by ddpmkit's own tests."""
    from ddpmkit.plugin.new import package

    files = package("mine", kind)
    module, test = (next(f for f in files if f.startswith(start)) for start in ("ddpmkit_", "tests/"))
    return (
        f"`ddpmkit new-plugin mine --kind {kind}` writes this, `{module}`:\n\n```python\n{files[module]}```\n\n"
        f"and its test, `{test}`:\n\n```python\n{files[test]}```"
    )


def checked(kind: str) -> str:
    """Return what ``ddpmkit check`` asks of a kind."""
    from ddpmkit.testing import checks

    return _table(("check", "what it asks"), ((f"`{check}`", check.asks) for check in checks(kind)))


def built_in(kind: str) -> str:
    """Return the built-in components of a kind with their parameters and defaults."""
    from ddpmkit.plugin.parameters import parameters
    from ddpmkit.plugin.registry import Registry
    from ddpmkit.plugin.spec import encode

    def row(cls: Any) -> tuple[str, str, str]:
        given = " ".join(f"`{p.name}={_shown(p.default, encode)}`" for p in parameters(cls))
        return f"`{cls.name}`", _escaped(cls.summary()), given

    rows = [row(entry.cls) for entry in Registry(installed=False).builtin(kind)]
    return _table(("name", "what it is", "parameters and defaults"), rows)


def kinds() -> str:
    """Return all kinds with their hooks."""
    from ddpmkit.plugin.interfaces import KINDS

    rows = (
        (f"[{k.name}](kinds/{k.name}.md)", f"`ddpmkit.{k.interface.__name__}`", f"`{k.hook}()`") for k in KINDS.values()
    )
    return _table(("kind", "subclass of", "registered by"), rows)


def stages() -> str:
    """Return the kinds of stage: what each is, what it reads, how often there is one."""
    from stage_graph import graph

    from ddpmkit.study.stages import STAGE_KINDS

    reads = graph()
    rows = (
        (f"`{k.kind}`", _escaped(importlib.import_module(k.__module__).__doc__.split(": ", 1)[1].strip()),
         " ".join(f"`{r}`" for r in reads[k.kind]) or "the data", f"once a {k.per}", str(k.version))
        for k in STAGE_KINDS.values()
    )  # fmt: skip
    return _table(("stage", "what it leaves", "reads", "how often", "version"), rows)


def settings() -> str:
    """Return the settings of a study with their defaults."""
    from ddpmkit.plugin.spec import encode
    from ddpmkit.study.settings import AXIS_ONLY, FIELDS, PLURALS

    plural = {field: name for name, field in PLURALS.items()}
    rows = []
    for name, field in FIELDS.items():
        flag = f"--axis {name}=" if name in AXIS_ONLY else f"--{plural.get(name, name).replace('_', '-')}"
        rows.append((f"`{name}`", f"`{flag}`", f"`{_shown(field.default, encode)}`", _escaped(field.help)))
    return _table(("setting", "flag", "default", "what it is"), rows)


def commands() -> str:
    """Return every command with its arguments and flags, read off the application."""
    import typer

    from ddpmkit.cli.app import COMMANDS, application

    top: Any = typer.main.get_command(application(tuple(COMMANDS)))
    out = ["## ddpmkit", *_flags(top.params)]
    for name in COMMANDS:
        command = top.commands[name]
        out += _command(f"## {name}", f"ddpmkit {name}", command)
        for part, sub in getattr(command, "commands", {}).items():
            out += _command(f"### {name} {part}", f"ddpmkit {name} {part}", sub)
    return "\n\n".join(out)


def variables() -> str:
    """Return the environment variables of the command line."""
    import typer

    from ddpmkit.cli.app import application

    top: Any = typer.main.get_command(application(()))
    rows = ((f"`{p.envvar}`", f"`{p.opts[-1]}`", _escaped(p.help)) for p in top.params if getattr(p, "envvar", None))
    return _table(("variable", "flag", "what it does"), rows)


def public() -> str:
    """Return what is public of ddpmkit and is no kind of component."""
    import ddpmkit
    from ddpmkit.plugin.interfaces import KINDS

    shown_elsewhere = {kind.interface.__name__ for kind in KINDS.values()}
    names = [name for name in ddpmkit.__all__ if name not in shown_elsewhere]
    return _objects("ddpmkit", sorted(names, key=str.lower))


def module(name: str) -> str:
    """Return what is public of one of ddpmkit's modules."""
    found = importlib.import_module(f"ddpmkit.{name}")
    return _objects(f"ddpmkit.{name}", found.__all__)


def gallery() -> str:
    """Return the figures of the committed studies."""
    out = []
    for folder in sorted((ROOT / "results/reference").rglob("figures")):
        figures = [(folder / f"{name}.png", told) for name, told in FIGURES.items()]
        figures = [(f, told) for f, told in figures if f.is_file()]
        if figures:
            out.append(f"## {folder.parent.name}")
            out += [f"![{told}](../{f.relative_to(ROOT).as_posix()})\n\n*{f.stem}: {told}.*" for f, told in figures]
    return "\n\n".join(out)


PARTS: dict[str, Callable[..., str]] = {
    "signature": signature, "example": example, "checked": checked, "built-in": built_in, "kinds": kinds,
    "stages": stages, "settings": settings, "commands": commands, "variables": variables, "public": public,
    "module": module, "gallery": gallery,
}  # fmt: skip


def _interface(kind: str) -> type:
    from ddpmkit.plugin.interfaces import KINDS

    return KINDS[kind].interface


def _objects(where: str, names: Iterable[str]) -> str:
    """Classes and functions with their docstrings; of what is neither, the names."""
    import ddpmkit

    found = importlib.import_module(where)
    told, plain = [], []
    for name in names:
        value = getattr(found, name)
        if where != "ddpmkit" and value is getattr(ddpmkit, name, None):
            continue  # it stands there
        if isinstance(value, type):
            told.append(f".. autoclass:: {where}.{name}\n   :members:")
        elif callable(value) and getattr(value, "__doc__", None) and hasattr(value, "__code__"):
            told.append(f".. autofunction:: {where}.{name}")
        else:
            plain.append(f"`{name}`")
    also = f"Types and constants, explained under [Plugins](plugins.md#what-a-plugin-imports): {', '.join(plain)}.\n\n"
    return (also if plain else "") + _rst("\n\n".join(told))


def _command(title: str, typed: str, command: Any) -> Iterator[str]:
    yield title
    text = (command.help or "").strip()
    yield "\n\n".join(_escaped(" ".join(part.split())) for part in text.split("\n\n"))
    if not hasattr(command, "commands"):
        yield f"    {typed} {' '.join(_place(p) for p in command.params if p.param_type_name == 'argument')}".rstrip()
        yield from _flags(command.params)
    if command.epilog:
        yield _escaped(command.epilog)


def _place(p: Any) -> str:
    name = p.metavar or p.name.upper()
    return f"{name if p.required else f'[{name}]'}{'...' if p.nargs == -1 else ''}"


def _flags(params: Any) -> Iterator[str]:
    """A table of flags for each panel of the help."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for p in params:
        argument = p.param_type_name == "argument"
        names = [_place(p)] if argument else [*p.opts, *p.secondary_opts]
        takes = "" if argument or getattr(p, "is_flag", False) else f" `{p.metavar or _kind(p.default)}`"
        told = _escaped(" ".join((getattr(p, "help", None) or "").split()))
        panel = getattr(p, "rich_help_panel", None) or ""
        panels.setdefault(panel, []).append((", ".join(f"`{n}`" for n in names) + takes, told + _default(p)))
    for panel, rows in panels.items():
        if panel:
            yield f"*{panel}*"
        yield _table(("flag", "what it does"), rows)


def _kind(default: Any) -> str:
    return {int: "INT", float: "FLOAT"}.get(type(default), "VALUE")


def _default(p: Any) -> str:
    plain = isinstance(p.default, (str, int, float)) and not isinstance(p.default, bool)
    return f"; default `{p.default}`" if plain and p.show_default and p.default != "" else ""


def _shown(value: Any, encode: Callable[[Any], str]) -> str:
    return str(value) if hasattr(value, "name") else encode(value)


def _rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Prose in which nothing is markup but code in backticks."""
    pieces = re.split(r"(``.*?``|`.*?`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[\]~])", r"\\\1", p) for p in pieces)
