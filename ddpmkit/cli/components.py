"""``ls``, ``show`` and ``plugins``."""

from __future__ import annotations

import inspect
import json as json_module
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpmkit import __version__
from ddpmkit.cli import recipes as shipped
from ddpmkit.cli.console import print_rows
from ddpmkit.cli.options import Global, Json, Plugins
from ddpmkit.cli.streams import data, on_stdout
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.plugin.hookspecs import PROJECT
from ddpmkit.plugin.interfaces import KINDS, Metric
from ddpmkit.plugin.loader import BUILTIN
from ddpmkit.plugin.parameters import Parameter, parameters
from ddpmkit.study.recipe import recipes
from ddpmkit.study.settings import AXIS_ONLY, FIELDS, PLURALS

if TYPE_CHECKING:
    from ddpmkit.plugin.loader import Entry, Loaded

SETTING = "setting"
SLOW = 2000.0  # milliseconds of an import that ls speaks of
# Which stages of a study a choice reaches: what it leaves alone is computed once and shared.
ENTERS = {
    "schedule": "training, and so everything after it",
    "backbone": "training, and so everything after it",
    "weighting": "training, and so everything after it",
    "prediction": "training, and so everything after it",
    "sigma": "sampling and likelihood; training too where the loss contains it (vlb) or teaches it (learned sigmas)",
    "sampler": "sampling alone",
    "features": "distances alone",
    "metric": "distances alone",
    "executor": "nothing: results do not depend on it",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("ls")(ls)
    app.command()(show)
    app.command()(plugins)


def ls(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(KINDS)}, or {shipped.KIND}; all components by default")
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """List the components, with parameters and defaults."""
    if kind in (shipped.KIND, f"{shipped.KIND}s"):
        shipped.list_recipes(json=json)
        return
    if kind is not None:
        kind = next((k.name for k in KINDS.values() if kind in (k.name, k.plural)), kind)
        if kind not in KINDS:
            raise DdpmkitError(
                f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}", f"kinds: {', '.join((*KINDS, shipped.KIND))}"
            )
    global_options: Global = context.obj
    registry = global_options.registry(plugin)
    entries = registry.entries(kind)
    if json:
        print(json_module.dumps([_describe(e) for e in entries], indent=1), file=data())
        return
    rows = [(e.kind, e.name, _parameters(e), e.cls.summary(), e.plugin) for e in entries]
    print_rows("components", ("kind", "name", "parameters", "summary", "from"), rows, keys=(0, 1), prose=(2, 3))
    for p in registry.plugins():
        if p.milliseconds > SLOW:
            told = f"plugin {p.name} {p.version}".rstrip() + f" took {p.milliseconds / 1e3:.1f} s to import"
            print(f"note: {told}; -p no:{p.name} leaves it out", file=sys.stderr)


def show(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name, as ls prints it, or plugin/name, kind/name; all of that name are shown")
    ],
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Show a component (with formula), setting or recipe."""
    global_options: Global = context.obj
    registry = global_options.registry(plugin)
    bare = spec.parse(name)[0]
    entries, only = registry.named(bare), ""
    if not entries and "/" in bare and (of := _kind(bare.partition("/")[0])):
        only, bare = of, bare.partition("/")[2]
        entries = [e for e in registry.named(bare) if e.kind == only]
    setting = FIELDS.get(PLURALS.get(bare.replace("-", "_"), bare.replace("-", "_")))
    setting = setting if only in ("", SETTING) else None
    recipe = only in ("", shipped.KIND) and bare in recipes()
    kind = "" if only else _kind(bare)
    if kind in KINDS and not entries and not recipe:
        raise DdpmkitError(
            f"'{bare}' is a kind, not a component",
            f"ddpmkit ls {kind}, then ddpmkit show NAME; ddpmkit new-plugin NAME --kind {kind} writes one of your own",
        )
    if not entries and setting is None and not recipe:
        known = [e.name for e in registry.entries() if only in ("", e.kind)]
        known += {"": [], shipped.KIND: [*recipes()], SETTING: [*FIELDS]}.get(only, [])
        listed = "ddpmkit ablate --help" if only == SETTING else f"ddpmkit ls {only}".rstrip()
        raise DdpmkitError(f"there is no {only or 'component'} '{bare}'{did_you_mean(bare, known)}", listed)
    if json:
        told = [_describe(e) for e in entries] + ([] if setting is None else [_setting_record(setting)])
        print(json_module.dumps(told + ([shipped.recipe_record(bare)] if recipe else []), indent=1), file=data())
        return
    for index, entry in enumerate(entries):
        _print_one(entry, _describe(entry), first=index == 0)
    # Of the same name, as warmup is a schedule and a number of steps, or digits a data set and a study of it.
    if setting is not None:
        _print_setting(setting, first=not entries)
    if recipe:
        if entries or setting is not None:
            with on_stdout():
                print()
        shipped.print_recipe(bare)


def _kind(word: str) -> str:
    """The kind that a word names, one of the components or of what else can be shown; empty for none."""
    others = {k: k for one in (shipped.KIND, SETTING) for k in (one, f"{one}s")}
    return next((k.name for k in KINDS.values() if word in (k.name, k.plural)), others.get(word, "").removesuffix("s"))


def _setting_record(p: Parameter) -> dict[str, Any]:
    """What a setting of a study is, as JSON values."""
    told = {"kind": SETTING, "name": p.name, "type": p.type_name, "default": spec.encode(p.default)}
    return {**told, "allowed": p.allowed, "help": p.help}


@on_stdout()
def _print_setting(p: Parameter, *, first: bool) -> None:
    """Print a setting of a study: what it means, what it may be, and how it is typed."""
    default, several = spec.encode(p.default), ",.."
    flag = {field: plural for plural, field in PLURALS.items()}.get(p.name, p.name).replace("_", "-")
    typed = f"--axis {p.name}={default}{several}" if p.name in AXIS_ONLY else f"--{flag} {default}{several}"
    if isinstance(p.default, bool):
        typed = f"--axis {p.name}=false,true" if p.name in AXIS_ONLY else f"--{flag}"
    print(("" if first else "\n") + f"setting {p.name}={default}   ({f'{p.type_name} {p.allowed}'.rstrip()})\n")
    print(f"{p.help[:1].upper()}{p.help[1:]}.\n")
    print(f"type       ddpmkit ablate {typed}")


@on_stdout()
def _print_one(entry: Entry, d: dict[str, Any], *, first: bool) -> None:
    print(("" if first else "\n") + f"{entry.kind} {entry.name}   ({entry.plugin} {entry.plugin_version})")
    print("\n" + (d["doc"] or "no description: its class has no docstring") + "\n")
    if d["reference"]:
        print(f"reference  {d['reference']}")
    if d["used_by"]:
        print(f"used by    {d['used_by']}")
    if "better" in d:
        unit = f", in {d['unit']}" if d["unit"] else ""
        print(f"better     {d['better']}{unit}; needs {', '.join(d['needs'])}")
    if entry.kind in ENTERS:
        print(f"enters     {ENTERS[entry.kind]}")
    print(f"type       ddpmkit ablate --{_flag(entry.kind)} {entry.name}")
    if d["file"]:
        print(f"code       {d['file']}:{d['line']}")
    for p in d["parameters"]:
        allowed = f" {p['allowed']}" if p["allowed"] else ""
        syntax = f", with parameters as in {p['name']}={p['default']}%3Akey=value" if p.get("part") else ""
        print(f"  {p['name']}={p['default']}   {p['help']} ({p['type']}{allowed}{syntax})")
        for name, filled in p.get("fills", {}).items():
            print(f"    {entry.name}:{p['name']}={name}   {' '.join(f'{k}={v}' for k, v in filled.items())}")


def plugins(
    context: typer.Context,
    json: Json = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")] = False,
    requirements: Annotated[
        bool, typer.Option("--requirements", help="Print the installed ones as lines for pip, each with its version.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """List the plugins: what each brings, and what is wrong.

    With the time that each took to import.
    """
    global_options: Global = context.obj
    registry = global_options.registry(plugin, quiet=True)
    loaded = registry.plugins()
    if requirements:
        print("\n".join(_pinned(loaded)), file=data())
        return
    issues = {p.name: [issue for issue in registry.issues if issue.plugin == p.name] for p in loaded}
    if json:
        records = [
            {
                "name": p.name,
                "version": p.version,
                "origin": p.origin,
                "components": [f"{e.kind} {e.name}" for e in p.entries],
                "milliseconds": round(p.milliseconds, 1),
                "issues": [str(i) for i in issues[p.name]],
            }
            for p in loaded
        ]
        print(json_module.dumps(records, indent=1), file=data())
        return
    rows = [
        (
            p.name,
            p.version,
            ", ".join(f"{e.kind} {e.name}" for e in p.entries),
            f"{p.milliseconds:.0f}",
            f"{len(issues[p.name])} issues" if issues[p.name] else "ok",
        )
        for p in loaded
    ]
    print_rows("plugins", ("plugin", "version", "brings", "ms", "state"), rows, prose=(2,))
    for issue in registry.issues:
        print(f"warning: {issue}\n{issue.trace if verbose or global_options.verbose else ''}".rstrip(), file=sys.stderr)


def _pinned(loaded: Sequence[Loaded]) -> list[str]:
    """Ddpmkit and the installed plugins as pip reads them; a file or module of ``-p`` is no distribution, and said."""
    installed = {dist.name: dist.version for point in entry_points(group=PROJECT) if (dist := point.dist)}
    lines = [f"ddpmkit=={__version__}"]
    named = dict.fromkeys(p.name for p in loaded if p.name in installed)
    lines += [f"{name}=={installed[name]}" for name in named]
    return lines + [f"# -p {p.origin} ({p.version})" for p in loaded if p.name not in {*installed, BUILTIN}]


def _where(cls: type) -> dict[str, Any]:
    """File and line of a class; empty for one that was made without source."""
    try:
        return {"file": inspect.getsourcefile(cls) or "", "line": inspect.getsourcelines(cls)[1]}
    except (OSError, TypeError):
        return {"file": "", "line": 0}


def _flag(kind: str) -> str:
    return kind if kind in ("dataset", "features", "executor") else KINDS[kind].plural


def _parameters(entry: Entry) -> str:
    return " ".join(f"{p.name}={spec.encode(p.default)}" for p in parameters(entry.cls))


def _texts(fills: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    return {name: {k: spec.encode(v) for k, v in filled.items()} for name, filled in fills.items()}


def _describe(entry: Entry) -> dict[str, Any]:
    cls = entry.cls
    return {
        "kind": entry.kind,
        "name": entry.name,
        "qualified": entry.qualified,
        "plugin": entry.plugin,
        "plugin_version": entry.plugin_version,
        "version": entry.identity,
        "summary": cls.summary(),
        "doc": cls.description(),
        "reference": cls.reference,
        "used_by": cls.used_by,
        **_where(cls),
        **({"unit": cls.unit, "better": cls.better, "needs": list(cls.needs)} if issubclass(cls, Metric) else {}),
        "parameters": [
            {
                "name": p.name,
                "type": p.type_name,
                "default": spec.encode(p.default),
                "allowed": p.allowed,
                "help": p.help,
                **({"part": True} if p.part else {}),
                **({"fills": _texts(p.fills)} if p.fills else {}),
            }
            for p in parameters(cls)
        ],
    }
