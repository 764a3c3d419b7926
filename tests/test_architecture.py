"""The rules of the house: who imports whom, what start-up leaves out, and what the package never calls."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import ddpmkit
from ddpmkit.plugin.interfaces import KINDS

ROOT = Path(ddpmkit.__file__).parent
HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib", "sklearn", "safetensors", "PIL")

# Rows from the bottom to the top: a module imports from its own row or from below, never up.
ROWS: list[set[str]] = [
    {"errors", "arrays", "damage", "text", "files", "places"},
    {"plugin"},
    {
        "diffusion",
        "randomness",
        "pixels",
        "device",
        "recording",
        "tape",
        "compiling",
        "kernels",
        "statistics",
    },
    {"training", "sampling", "likelihood", "distances"},
    {"study", "report", "testing"},
    {"cli"},
    {"ddpmkit", "__main__"},  # what a user imports
]
ASIDE = {"builtin"}  # reached by name alone; its own rules are below
SIBLINGS = {"training", "sampling", "likelihood", "distances"}
# What users call with names: these alone may look them up.
DOORS = {"ddpmkit.likelihood.any_network", "ddpmkit.distances.named"}


READERS = {
    "ddpmkit.distances.images",
    "ddpmkit.distances.folder",
    "ddpmkit.distances.listing",
}  # of images that others made


class Import(NamedTuple):
    """One imported module, and where: at the top, inside a function, or for the type checker alone."""

    target: str
    names: tuple[str, ...]
    where: str
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(p): p for p in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports(module: str) -> list[Import]:
    """Every import of a module; ``from package import module`` counts as an import of that module."""
    return list(_imports(TREES[module].body, "top"))


def _imports(nodes: list[ast.stmt], where: str) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), where, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"relative import at line {node.lineno}"
            plain = tuple(a.name for a in node.names if f"{base}.{a.name}" not in SOURCES)
            yield from (Import(f"{base}.{a.name}", (), where, node.lineno) for a in node.names if a.name not in plain)
            if plain:
                yield Import(base, plain, where, node.lineno)
        else:
            typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            below = "types" if typing_only else "function" if inside and where == "top" else where
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                children = getattr(node, field, [])
                yield from _imports(children, where if field == "orelse" and typing_only else below)


def room(module: str) -> str:
    """``ddpmkit.study.plan`` -> ``study``; the facade is ``ddpmkit``."""
    return module.split(".")[1] if "." in module else module


def row(name: str) -> int:
    return next(i for i, names in enumerate(ROWS) if name in names)


def own(module: str, *, types: bool = False) -> list[Import]:
    """What a module imports of ddpmkit itself; annotations do not make a layer depend on another."""
    return [i for i in imports(module) if room(i.target) and i.target.split(".")[0] == "ddpmkit"
            and (types or i.where != "types")]  # fmt: skip


def told(module: str, found: Import) -> str:
    return f"{SOURCES[module].relative_to(ROOT.parent)}:{found.line} imports {found.target}"


def test_the_reader_of_imports_sees_them_all() -> None:
    source = """
import a
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import b
else:
    import c
def f():
    try:
        import d
    except ImportError:
        import e
    with x:
        from ddpmkit import errors, __version__
class C:
    def g(self):
        if y:
            import h
"""
    found = [(i.target, i.names, i.where) for i in _imports(ast.parse(source).body, "top")]
    assert found == [
        ("a", (), "top"),
        ("typing", ("TYPE_CHECKING",), "top"),
        ("b", (), "types"),
        ("c", (), "top"),
        ("d", (), "function"),
        ("e", (), "function"),
        ("ddpmkit.errors", (), "function"),
        ("ddpmkit", ("__version__",), "function"),
        ("h", (), "function"),
    ]


def test_every_module_has_its_place() -> None:
    placed = set().union(*ROWS) | ASIDE
    assert {room(m) for m in SOURCES} <= placed
    assert len(SOURCES) > 50


def test_nobody_imports_up() -> None:
    wrong = [
        told(m, i)
        for m in SOURCES
        if room(m) not in ASIDE
        for i in own(m)
        # The version is a fact about the package, not something that is built on top of it.
        if i.names != ("__version__",) and room(i.target) not in ASIDE and row(room(i.target)) > row(room(m))
    ]
    assert wrong == []


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules each of which reaches all others: Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(here: str) -> None:
        index[here] = low[here] = len(index)
        stack.append(here)
        for there in graph[here]:
            if there not in index:
                visit(there)
                low[here] = min(low[here], low[there])
            elif there in stack:
                low[here] = min(low[here], index[there])
        if low[here] == index[here]:
            cut = stack.index(here)
            if len(stack) - cut > 1:
                found.append(set(stack[cut:]))
            del stack[cut:]

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_nobody_imports_in_a_circle() -> None:
    graph = {
        m: {i.target for i in own(m, types=True) if i.target in SOURCES and i.names != ("__version__",)}
        for m in SOURCES
    }
    assert circles(graph) == []


def test_the_search_for_circles_finds_them() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f", "a"}, "f": {"e"}}
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["e", "f"]]


def test_siblings_do_not_know_each_other() -> None:
    wrong = [
        told(m, i)
        for m in SOURCES
        if room(m) in SIBLINGS
        for i in own(m, types=True)
        if room(i.target) in SIBLINGS - {room(m)}
    ]
    assert wrong == []


def test_the_maths_sees_objects_and_never_the_registry_a_path_or_a_config() -> None:
    rooms = {"diffusion", "statistics"} | SIBLINGS
    for module in SOURCES:
        if room(module) in rooms:
            for i in own(module, types=True):
                if room(i.target) == "plugin" and not (module in DOORS and i.target == "ddpmkit.plugin.registry"):
                    objects = ("interfaces", "contract", "tables", "measurement")
                    assert i.target in [f"ddpmkit.plugin.{name}" for name in objects], told(module, i)
            if room(module) != "training" and module not in READERS:
                assert not [told(module, i) for i in imports(module) if i.target in ("pathlib", "os", "tomllib")]


def test_builtin_is_reached_by_name_alone() -> None:
    wrong = [
        told(m, i) for m in SOURCES if room(m) != "builtin" for i in own(m, types=True) if room(i.target) == "builtin"
    ]
    assert wrong == []
    by_name = [
        m
        for m, tree in TREES.items()
        for node in (ast.walk(tree) if room(m) != "builtin" else ())
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("ddpmkit.builtin")
    ]
    assert by_name == ["ddpmkit.plugin.loader"]


def test_a_builtin_imports_what_a_plugin_may_import() -> None:
    wrong = [
        f"{told(module, i)}: {', '.join(private(module, i))}"
        for module in SOURCES
        if room(module) == "builtin"
        # Scripts write weights as the store does.
        and not module.endswith("_train")
        for i in own(module, types=True)
        if private(module, i)
    ]
    assert wrong == []


def private(module: str, found: Import) -> list[str]:
    """What a built-in imports that a plugin could not: neither public, nor of the folder of its own kind."""
    parts, target = module.split("."), found.target.split(".")
    if target[:2] == ["ddpmkit", "builtin"] and (len(parts) == 2 or target[2:3] == parts[2:3]):
        return []  # the list of all built-ins; a neighbour
    if not found.names:
        return [found.target]
    public = {name: getattr(ddpmkit, name) for name in ddpmkit.__all__}
    values = {name: getattr(importlib.import_module(found.target), name) for name in found.names}
    return [name for name, value in values.items() if name not in public or public[name] is not value]


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("ddpmkit.builtin.schedules.cosine", "from ddpmkit import Schedule, param", []),
        ("ddpmkit.builtin.schedules.cosine", "from ddpmkit.plugin.interfaces import Schedule", []),
        ("ddpmkit.builtin.schedules.zero_snr", "from ddpmkit.builtin.schedules.linear import Linear", []),
        ("ddpmkit.builtin.schedules.cosine", "from ddpmkit.plugin.interfaces import Kind, Schedule", ["Kind"]),
        ("ddpmkit.builtin.schedules.cosine", "from ddpmkit.plugin import spec", ["ddpmkit.plugin.spec"]),
        ("ddpmkit.builtin.schedules.cosine", "import ddpmkit.pixels", ["ddpmkit.pixels"]),
        ("ddpmkit.builtin.schedules.cosine", "from ddpmkit import __version__", ["__version__"]),
        ("ddpmkit.builtin.schedules.cosine", "from ddpmkit.builtin.sigmas.beta import Beta", ["Beta"]),
        (
            "ddpmkit.builtin.schedules.cosine",
            "from ddpmkit.distances.images import read_folder as spaced",
            ["read_folder"],
        ),
    ],
)
def test_what_is_private_is_seen(module: str, line: str, expected: list[str]) -> None:
    (found,) = _imports(ast.parse(line).body, "top")
    assert private(module, found) == expected


MOST_LINES = 6  # of a method file before its class: its docstring and its imports; blank ones do not count


def head(module: str) -> list[str]:
    """The lines of a module before its first class, without blank ones."""
    first = next(node for node in TREES[module].body if isinstance(node, ast.ClassDef))
    line = min(node.lineno for node in (first, *first.decorator_list))
    return [text for text in SOURCES[module].read_text(encoding="utf-8").splitlines()[: line - 1] if text.strip()]


PLAIN_KINDS = ("schedules", "sigmas", "weightings", "predictions", "samplers", "metrics")
METHODS = [
    m for m in SOURCES
    if m.split(".")[1:3] in (["builtin", kind] for kind in PLAIN_KINDS)
    and m.count(".") == 3
]  # fmt: skip


@pytest.mark.parametrize("module", METHODS)
def test_a_method_comes_to_the_point(module: str) -> None:
    assert len(head(module)) <= MOST_LINES


def test_there_are_methods_and_their_heads_are_read() -> None:
    assert len(METHODS) > 25
    assert head("ddpmkit.builtin.schedules.jsd")[0] == '"""beta_t = 1 / (T - t + 1)."""'
    assert all(lines and lines[0].startswith('"""') for lines in map(head, METHODS))


def test_a_builtin_of_one_kind_does_not_lean_on_another_kind() -> None:
    for module in SOURCES:
        kind = module.split(".")[2:3]
        if room(module) == "builtin" and kind and not module.endswith("_train"):
            for i in own(module):
                if room(i.target) == "builtin":
                    assert i.target.split(".")[2:3] == kind, told(module, i)


def test_a_builtin_class_is_imported_without_torch_and_numpy() -> None:
    for module in SOURCES:
        # A leading underscore: torch modules, imported only when something is built. _train: a script.
        last = module.split(".")[-1]
        if room(module) == "builtin" and not last.startswith("_") and not last.endswith("_train"):
            for i in imports(module):
                assert i.where != "top" or i.target.split(".")[0] not in HEAVY, told(module, i)


def asked_by_name(tree: ast.AST) -> Iterator[str]:
    """Comparisons with the name of a prediction: the question is the prediction's own to answer."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq, ast.In, ast.NotIn)):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and part.value in ("eps", "x0", "v", "mu"):
                    yield ast.unparse(node)


def test_a_prediction_is_asked_and_never_looked_up_by_its_name() -> None:
    # A weighting says "x0" of the space of its own numbers.
    allowed = {"weighting.space not in ('x0', 'prediction')"}
    assert {
        f"{m}: {found}" for m, tree in TREES.items() for found in asked_by_name(tree) if found not in allowed
    } == set()
    assert list(asked_by_name(ast.parse("if o.prediction == 'eps' or p in ('v', 'mu'): pass"))) != []


def test_one_place_takes_a_network_s_answer_apart() -> None:
    halved = [
        m
        for m, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "chunk" and room(m) not in ASIDE
    ]
    assert halved == ["ddpmkit.diffusion.denoise"]


def reached(module: str) -> set[str]:
    """What importing a module imports in turn, functions of ``report`` itself included; names outside are kept."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        if here not in SOURCES:
            continue
        parts = here.split(".")
        todo += [".".join(parts[:n]) for n in range(1, len(parts))]
        every = room(here) == "report"
        todo += [i.target for i in imports(here) if i.where == "top" or (every and i.where == "function")]
    return seen


@pytest.mark.parametrize("module", [m for m in SOURCES if room(m) == "report"])
def test_a_report_outlives_an_uninstalled_plugin(module: str) -> None:
    # It reads records: no network, no component, nothing that could look one up.
    found = reached(module)
    assert not [m for m in found if m.split(".")[0] == "torch"]
    assert "ddpmkit.plugin.registry" not in found
    assert "ddpmkit.plugin.loader" not in found
    assert not [m for m in found if room(m) == "builtin"]


REPORT = ("read", "judge", "draw", "show")  # each room knows itself and those before it


def upwards(module: str, imported: list[Import]) -> list[str]:
    """What a module of the report imports from a room after its own; what stands in no room is above them all."""
    parts, wrong = module.split("."), []
    for i in imported:
        there = i.target.split(".")
        if room(i.target) == "report" and parts[2] in REPORT and len(there) > 2:
            light = there[2] in ("isolated", "forms")  # they import nothing of the report
            if not light and (there[2] not in REPORT or REPORT.index(there[2]) > REPORT.index(parts[2])):
                wrong.append(told(module, i))
    return wrong


def test_the_rooms_of_the_report_know_those_before_them() -> None:
    modules = [m for m in SOURCES if room(m) == "report" and m.count(".") > 2]
    assert {m.split(".")[2] for m in modules} == set(REPORT)
    assert [w for m in modules for w in upwards(m, own(m, types=True))] == []
    for light in ("isolated", "forms"):
        assert own(f"ddpmkit.report.{light}", types=True) == []


def test_a_room_that_looks_up_is_seen() -> None:
    def line(text: str) -> list[Import]:
        return list(_imports(ast.parse(text).body, "top"))

    assert upwards("ddpmkit.report.draw.forest", line("from ddpmkit.report.show.tables import Table"))
    assert upwards("ddpmkit.report.read.compare", line("from ddpmkit.report.write import make"))
    assert not upwards("ddpmkit.report.show.html", line("from ddpmkit.report.draw.chart import Chart"))
    assert not upwards("ddpmkit.report.draw.figures", line("from ddpmkit.report.isolated import isolated"))


COLOURED = {"color", "c", "fc", "ec", "facecolor", "edgecolor", "mfc", "mec", "colors", "labelcolor", "cmap"}


def drawn(tree: ast.AST) -> Iterator[str]:
    """Where a figure is saved, and where a colour stands in so many words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "savefig":
            yield f"{node.lineno}: savefig"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})", node.value):
                yield f"{node.lineno}: {node.value}"
        elif isinstance(node, ast.keyword) and node.arg in COLOURED and isinstance(node.value, ast.Constant):
            yield from [f"{node.value.lineno}: {node.arg}={node.value.value}"] * (node.value.value != "none")


def test_all_figures_have_one_palette_and_one_saver() -> None:
    places = {m: list(drawn(tree)) for m, tree in TREES.items()}
    saving = {m for m, found in places.items() if any(w.endswith("savefig") for w in found)}
    assert saving == {"ddpmkit.report.draw.save"}
    colours = {m for m, found in places.items() if any(not w.endswith("savefig") for w in found)}
    assert colours == {"ddpmkit.report.draw.palette"}


@pytest.mark.parametrize(
    "line", ["figure.savefig(f)", "COLOURS = ('#4C72B0',)", "axis.plot(x, color='red')", "axis.imshow(x, cmap='gray')"]
)
def test_the_search_for_colours_and_savers_finds_them(line: str) -> None:
    assert list(drawn(ast.parse(line)))


def test_the_closure_of_imports_is_followed() -> None:
    # Or the test above would pass for a reason of its own.
    assert "torch" in reached("ddpmkit.sampling")
    assert "ddpmkit.plugin.registry" in reached("ddpmkit.study.runner")
    assert "pandas" in reached("ddpmkit.report.read.frames")


# --- what is never called ----------------------------------------------------------------------------------------

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
UNSAFE_CALLS = {"torch.load", "torch.save", "pd.read_pickle", "pandas.read_pickle", "np.save"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] + ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            yield from (f"{node.lineno}: {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES or n == "sqrtm")
            if isinstance(node, ast.ImportFrom):
                yield from (f"{node.lineno}: {n}" for n in names if f"{node.module}.{n}" in UNSAFE_CALLS)
        elif isinstance(node, ast.Attribute) and (
            ast.unparse(node) in UNSAFE_CALLS or node.attr in ("sqrtm", "to_pickle", "read_pickle")
        ):
            yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg == "allow_pickle" and not (isinstance(value, ast.Constant) and value.value is False):
                    yield f"{node.lineno}: allow_pickle"
                if keyword.arg == "shell" and not (isinstance(value, ast.Constant) and value.value is False):
                    yield f"{node.lineno}: shell"
        elif isinstance(node, ast.Name) and node.id in ("eval", "exec", "sqrtm"):
            yield f"{node.lineno}: {node.id}"


UNPICKLED = "ddpmkit.study.unpickled"  # a script for a process of its own, which nothing imports


@pytest.mark.parametrize("module", [m for m in SOURCES if m != UNPICKLED])
def test_no_pickle_and_no_sqrtm(module: str) -> None:
    assert list(unsafe(TREES[module])) == []


def test_the_one_reader_of_pickles_is_torchs_reader_of_weights_in_a_process_of_its_own() -> None:
    tree = TREES[UNPICKLED]
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
    assert len(loads) == 2
    assert all({k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True" for call in loads)
    found = {line.partition(": ")[2] for line in unsafe(tree)}
    assert found == {"pickle", "torch.load", "torch.save"}  # the module for the name of an error
    assert not own(UNPICKLED)
    assert not [m for m in SOURCES for i in imports(m) if i.target == UNPICKLED]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.externals",
        "torch.load(f)",
        "torch.save(x, f)",
        "from torch import load",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "frame.to_pickle(f)",
        "linalg.sqrtm(x)",
        "from scipy.linalg import sqrtm",
        "subprocess.run(x, shell=True)",
        "eval(text)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(line: str) -> None:
    assert list(unsafe(ast.parse(line)))


def test_an_archive_of_arrays_is_read_without_pickle_in_so_many_words() -> None:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert "allow_pickle" in [k.arg for k in node.keywords], f"{module}:{node.lineno}"


# --- what start-up leaves out ------------------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after some code."""
    report = "\nimport json, sys\nprint(json.dumps([sys.modules['ddpmkit'].__file__, *sys.modules]), file=sys.stderr)"
    # -P: the folder that pytest runs in does not come first, so that the child has the very package that is tested.
    command = [sys.executable, "-P", "-c", code + report]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    where, *names = json.loads(done.stderr.splitlines()[-1])
    assert Path(where).parent == ROOT
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["ablate", "--help"],
        ["--no-plugins", "ls"],
        ["--no-plugins", "show", "cosine"],
        ["--no-plugins", "plugins"],
    ],
    ids=" ".join,
)
def test_a_command_that_computes_nothing_loads_nothing_heavy(argv: list[str]) -> None:
    loaded = modules_after(f"from ddpmkit.cli import main\nassert main({argv!r}) == 0")
    assert "typer" in loaded
    assert sorted(loaded & set(HEAVY)) == []


def test_importing_ddpmkit_loads_neither_torch_nor_numpy() -> None:
    loaded = modules_after("import ddpmkit\nassert ddpmkit.Schedule and ddpmkit.param and ddpmkit.hookimpl")
    assert "ddpmkit" in loaded
    assert sorted(loaded & {*HEAVY, "typer", "rich"}) == []


def test_building_a_component_needs_no_torch() -> None:
    code = "import ddpmkit\nfor k, n in (('schedule', 'cosine'), ('backbone', 'unet')):\n    ddpmkit.build(k, n)"
    assert sorted(modules_after(code) & set(HEAVY)) == []


def test_a_schedule_needs_numpy_alone() -> None:
    loaded = modules_after("import ddpmkit\nassert ddpmkit.build('schedule', 'cosine').betas(10).shape == (10,)")
    assert "numpy" in loaded
    assert sorted(loaded & (set(HEAVY) - {"numpy"})) == []


def test_everything_that_is_promised_can_be_imported() -> None:
    for name in ddpmkit.__all__:
        assert getattr(ddpmkit, name) is not None
    hooks_and_kinds = {"hookimpl", "param", *(kind.interface.__name__ for kind in KINDS.values())}
    assert hooks_and_kinds <= set(ddpmkit.__all__)
    assert set(dir(ddpmkit)) == {*ddpmkit.__all__, "__version__"}


# --- what a reader can hold in the head --------------------------------------------------------------------------

LONGEST, MOST_POSITIONAL = 300, 8


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of parameters that may be given by place, without self."""
    names = [*function.args.posonlyargs, *function.args.args]
    return len(names) - (1 if names and names[0].arg in ("self", "cls") else 0)


def for_triton(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether Triton compiles it: such a function takes pointers and sizes, and can't have them by keyword alone."""
    return any(ast.unparse(d).startswith("triton.jit") for d in function.decorator_list)


@pytest.mark.parametrize("module", [m for m in SOURCES if room(m) != "cli"])
def test_no_function_takes_many_parameters_by_place(module: str) -> None:
    functions = [n for n in ast.walk(TREES[module]) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [f.name for f in functions if positional(f) > MOST_POSITIONAL and not for_triton(f)] == []


REASONS = {
    "ddpmkit.plugin.interfaces": "the abstract kinds stand on one page, which is what a plugin author reads",
    "ddpmkit.plugin.loader": "each way in which a plugin can be broken, where it is taken in",
}


def test_no_file_is_long_without_a_reason() -> None:
    lengths = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in SOURCES.items()}
    assert {m for m, length in lengths.items() if length > LONGEST} == set(REASONS)


def test_parameters_by_place_are_counted() -> None:
    tree = ast.parse("class C:\n    def f(self, a, /, b, c=1, *rest, d, e=2): ...\n")
    (function,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    assert positional(function) == 3
