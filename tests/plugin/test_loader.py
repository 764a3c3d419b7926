"""Plugins, sound and broken, made in a temporary folder: a broken one costs its own line and nothing else."""

from __future__ import annotations

import hashlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddpmkit import DdpmkitError
from ddpmkit.cli import main
from ddpmkit.plugin.loader import Loaded, load_builtin, load_installed, load_named
from ddpmkit.plugin.registry import Registry

Install = Callable[..., str]

HEAD = """
from dataclasses import dataclass, field
from ddpmkit import Schedule, Sigma, hookimpl, param

def register(*classes):
    return list(classes)
"""


def schedule(name: str, body: str = "", *, decorator: str = "@dataclass(frozen=True)", cls: str = "Thing") -> str:
    """The source of one schedule class, all betas 0.1."""
    return f'''
{decorator}
class {cls}(Schedule):
    """A schedule of a test."""
    name = "{name}"
    reference = "this test"
{textwrap.indent(textwrap.dedent(body), "    ")}
    def betas(self, T):
        import numpy as np
        return np.full(T, 0.1)
'''


def hook(classes: str, name: str = "ddpmkit_register_schedules") -> str:
    return f"\n@hookimpl\ndef {name}():\n    return [{classes}]\n"


@pytest.fixture
def forget() -> Iterator[None]:
    """Take the modules of a test's plugins out of the process again."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("plug_", "ddpmkit_p_")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> Install:
    """Make an installed distribution: a module and a .dist-info with its entry points on sys.path."""

    def make(dist: str, source: str, *, version: str = "0.1", points: dict[str, str] | None = None) -> str:
        module = "plug_" + dist.replace("-", "_")
        folder = tmp_path / f"site-{dist}"
        info = folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        lines = [f"{key} = {value}" for key, value in (points or {"main": module}).items()]
        (info / "entry_points.txt").write_text("\n".join(["[ddpmkit]", *lines, ""]))
        (folder / f"{module}.py").write_text(HEAD + source)
        monkeypatch.syspath_prepend(str(folder))
        return module

    return make


def loaded(name: str) -> Loaded:
    """Load everything installed and return the one plugin of that name."""
    return next(p for p in load_installed() if p.name == name)


def names(plugin: Loaded) -> list[str]:
    return [f"{e.kind} {e.name}" for e in plugin.entries]


def warnings(text: str, plugin: str) -> list[str]:
    """All stderr lines from the first that names the plugin; a stray second line would be among them."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if f"plugin {plugin} " in line), len(lines))
    return lines[first:]


def test_the_builtins_come_through_the_same_hooks() -> None:
    plugin = load_builtin()
    assert plugin.issues == []
    # The four schedules of the source documents, both sigmas, both ends of the weighting, and what runs them.
    assert {
        "schedule linear",
        "schedule cosine",
        "schedule sigmoid",
        "schedule quadratic",
        "sigma beta",
        "sigma beta-tilde",
        "weighting simple",
        "weighting vlb",
        "backbone unet",
        "sampler ancestral",
        "sampler ddim",
        "dataset digits",
        "features digits",
        "executor local",
        "executor inline",
    } <= set(names(plugin))


def test_a_sound_plugin(install: Install) -> None:
    module = install("good", schedule("good", "w: float = param(0.5, 'w', ge=0)") + hook("Thing"), version="2.3")
    plugin = loaded("good")
    assert (plugin.version, plugin.origin, plugin.issues) == ("2.3", module, [])
    (entry,) = plugin.entries
    assert (entry.kind, entry.name, entry.qualified, entry.identity) == ("schedule", "good", "good/good", 1)
    assert plugin.milliseconds > 0


def test_a_plugin_may_register_every_kind_it_likes(install: Install) -> None:
    install(
        "two",
        schedule("two")
        + '''
@dataclass(frozen=True)
class Half(Sigma):
    """Half."""
    name = "half"
    def log_bounds(self, tables):
        return tables.b2, tables.b2
'''
        + hook("Thing")
        + hook("Half", "ddpmkit_register_sigmas"),
    )
    assert names(loaded("two")) == ["schedule two", "sigma half"]


# --- broken plugins: (source, stage, what the one line says) -----------------------------------------------------

BROKEN = {
    "import error": ("import not_a_module_anywhere", "import", "No module named 'not_a_module_anywhere'"),
    "syntax error": ("def f(:\n", "import", "SyntaxError"),
    "exception": ("raise ValueError('no licence')", "import", "ValueError: no licence"),
    "exit": ("import sys\nsys.exit(7)", "import", "SystemExit: 7"),
    "exception of several lines": ("raise ImportError('first\\nsecond\\n\\nthird')", "import", "first second third"),
    "exception with an escape": ("raise ImportError('\\x1b[31mred')", "import", "red"),
    "misspelt hook": (
        "@hookimpl\ndef ddpmkit_register_schedule():\n    return []",
        "hook",
        "there is no hook 'ddpmkit_register_schedule'; did you mean 'ddpmkit_register_schedules'?",
    ),
    "unmarked hook": ("def ddpmkit_register_schedules():\n    return []", "hook", "is not marked with @hookimpl"),
    "raising hook": (
        "@hookimpl\ndef ddpmkit_register_schedules():\n    raise RuntimeError('later')",
        "hook",
        "RuntimeError: later",
    ),
    "exiting hook": ("@hookimpl\ndef ddpmkit_register_schedules():\n    raise SystemExit", "hook", "SystemExit"),
    "hook with an argument": (
        "@hookimpl\ndef ddpmkit_register_schedules(config):\n    return []",
        "register",
        "config",
    ),
    "hook that returns a class": (
        schedule("x") + "@hookimpl\ndef ddpmkit_register_schedules():\n    return Thing",
        "component",
        "ddpmkit_register_schedules() must return a list of classes, not ",
    ),
    "hook that returns a dict": (
        "@hookimpl\ndef ddpmkit_register_sigmas():\n    return {}",
        "component",
        "ddpmkit_register_sigmas() must return a list of classes, not dict",
    ),
    "hook that forgets to return": (
        schedule("x") + "@hookimpl\ndef ddpmkit_register_schedules():\n    [Thing]",
        "component",
        "ddpmkit_register_schedules() must return a list of classes, not NoneType",
    ),
    "an object": (schedule("x") + hook("Thing()"), "component", "is no subclass of Schedule"),
    "another kind": (
        schedule("x") + hook("Thing", "ddpmkit_register_sigmas"),
        "component",
        "is no subclass of Sigma",
    ),
    "not a component": ("class Loose:\n    name = 'loose'" + hook("Loose"), "component", "is no subclass of Schedule"),
    "not frozen": (
        schedule("x", decorator="@dataclass"),
        "import",
        "cannot inherit non-frozen dataclass from a frozen one",
    ),
    "not decorated": (
        schedule("x", "w: float = param(1.0, 'w')", decorator="") + hook("Thing"),
        "component",
        "class Thing is not usable: decorate it with @dataclass(frozen=True)",
    ),
    "bad field type": (
        schedule("x", "w: dict = param(None, 'w')") + hook("Thing"),
        "component",
        "class Thing is not usable: field 'w' has type dict, which a spec cannot carry",
    ),
    "no default": (
        schedule("x", "w: float") + hook("Thing"),
        "component",
        "class Thing is not usable: field 'w' has no default",
    ),
    "default factory": (
        schedule("x", "w: tuple[int, ...] = field(default_factory=tuple)") + hook("Thing"),
        "component",
        "class Thing is not usable: field 'w' has no default",
    ),
    "default out of bounds": (
        schedule("x", "w: float = param(-1.0, 'w', ge=0)") + hook("Thing"),
        "component",
        "w must be a float >= 0, got '-1.0'",
    ),
    "bad name": (schedule("Big Name") + hook("Thing"), "component", "its name is 'Big Name'"),
    "name with a slash": (schedule("a/b") + hook("Thing"), "component", "its name is 'a/b'"),
    "no name": (
        "@dataclass(frozen=True)\nclass Thing(Schedule):\n    def betas(self, T):\n        return T\n" + hook("Thing"),
        "component",
        "its name is None",
    ),
    "version in words": (
        schedule("x", "version = '1.0'") + hook("Thing"),
        "component",
        "its version must be an integer",
    ),
    "abstract": (
        "@dataclass(frozen=True)\nclass Thing(Sigma):\n    name = 'x'\n" + hook("Thing", "ddpmkit_register_sigmas"),
        "component",
        "class Thing is not usable: it lacks log_bounds",
    ),
    "learned without a network's answer": (
        "@dataclass(frozen=True)\nclass Thing(Sigma):\n    name = 'x'\n    learned = True\n"
        "    def log_bounds(self, tables):\n        return tables.b2, tables.b2\n"
        + hook("Thing", "ddpmkit_register_sigmas"),
        "component",
        "class Thing is not usable: it says learned = True and lacks from_network",
    ),
    "fitted without a variance": (
        "@dataclass(frozen=True)\nclass Thing(Sigma):\n    name = 'x'\n    fitted = True\n"
        "    def log_bounds(self, tables):\n        return tables.b2, tables.b2\n"
        + hook("Thing", "ddpmkit_register_sigmas"),
        "component",
        "class Thing is not usable: it says fitted = True and lacks x0_variance",
    ),
    "neither betas nor steps": (
        "@dataclass(frozen=True)\nclass Thing(Schedule):\n    name = 'x'\n" + hook("Thing"),
        "component",
        "class Thing is not usable: it lacks betas or steps",
    ),
    # An annotation makes a parameter of it, and then format() writes a name that nobody registered.
    "name that is a field": (schedule("x", "name: str = 'x'") + hook("Thing"), "component", "name"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_one_issue(install: Install, case: str) -> None:
    source, stage, cause = BROKEN[case]
    install("broken", source, version="0.3")
    plugin = loaded("broken")
    (issue,) = plugin.issues
    assert (issue.plugin, issue.version, issue.stage) == ("broken", "0.3", stage)
    assert cause in str(issue)
    assert plugin.entries == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_costs_one_line_and_nothing_else(
    install: Install, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, stage, cause = BROKEN[case]
    install("broken", source, version="0.3")
    install("sound", schedule("sound") + hook("Thing"))
    assert main(["ls", "schedule"]) == 0
    out, err = capsys.readouterr()
    (line,) = warnings(err, "broken")
    assert line.startswith(f"warning: plugin broken 0.3 ({stage}): ")
    assert cause in line
    assert line.isprintable()
    found = [row.split("\t")[1] for row in out.splitlines()[1:]]
    assert {"linear", "cosine", "sound"} <= set(found)
    assert "x" not in found


@pytest.mark.parametrize("value", ["nothing", "items", "number", "missing"])
def test_an_entry_point_that_names_no_module_is_one_issue(
    install: Install, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = schedule("x") + hook("Thing") + "nothing = None\nitems = [Thing]\nnumber = 3\n"
    install("pointless", source, points={"main": f"plug_pointless:{value}"})
    assert main(["ls", "schedule"]) == 0
    (line,) = warnings(capsys.readouterr().err, "pointless")
    assert line.startswith("warning: plugin pointless 0.1 (")


def test_one_bad_class_beside_a_good_one(install: Install) -> None:
    good, bad = schedule("good", cls="Good"), schedule("bad", "w: dict = param(None, 'w')", cls="Bad")
    install("mixed", good + bad + hook("Bad, Good"))
    plugin = loaded("mixed")
    assert names(plugin) == ["schedule good"]
    assert [i.message for i in plugin.issues] == [
        "class Bad is not usable: field 'w' has type dict, which a spec cannot carry"
    ]


@pytest.mark.long
def test_one_bad_hook_beside_a_good_one(install: Install) -> None:
    bad = "@hookimpl\ndef ddpmkit_register_sigmas():\n    raise RuntimeError('no')\n"
    install("mixed", schedule("good") + bad + hook("Thing"))
    plugin = loaded("mixed")
    assert names(plugin) == ["schedule good"]
    assert [i.stage for i in plugin.issues] == ["hook"]


def test_a_misspelt_hook_does_not_cost_the_other_ones(install: Install) -> None:
    install("typo", schedule("good") + hook("Thing") + hook("", "ddpmkit_register_sigmass"))
    plugin = loaded("typo")
    assert names(plugin) == ["schedule good"]
    assert "did you mean 'ddpmkit_register_sigmas'?" in plugin.issues[0].message


def test_the_traceback_is_kept(install: Install) -> None:
    install("broken", "def deep():\n    raise RuntimeError('boom')\ndeep()")
    (issue,) = loaded("broken").issues
    assert "in deep" in issue.trace


def test_several_entry_points_of_one_distribution(install: Install, tmp_path: Path) -> None:
    install("many", schedule("first") + hook("Thing"), points={"b": "plug_other", "a": "plug_many"})
    (tmp_path / "site-many" / "plug_other.py").write_text(HEAD + schedule("second") + hook("Thing"))
    found = [p for p in load_installed() if p.name == "many"]
    assert [names(p) for p in found] == [["schedule first"], ["schedule second"]]


@pytest.mark.parametrize("blocked", ["broken", "main"])
def test_a_blocked_plugin_is_never_imported(install: Install, blocked: str) -> None:
    module = install("broken", "raise RuntimeError('imported')")
    assert "broken" not in [p.name for p in load_installed([blocked])]
    assert module not in sys.modules


def test_plugins_are_loaded_in_the_order_of_their_names(install: Install) -> None:
    for dist in ("zeta", "alpha", "mid"):
        install(dist, schedule(dist) + hook("Thing"))
    assert [p.name for p in load_installed() if p.name in ("zeta", "alpha", "mid")] == ["alpha", "mid", "zeta"]


# --- -p ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, forget: None) -> Callable[..., Path]:
    def make(source: str, name: str = "mine.py", head: str = HEAD) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(head + source)
        return path

    return make


def test_a_file_is_known_by_its_hash(file: Callable[..., Path]) -> None:
    path = file(schedule("mine") + hook("Thing"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    plugin = load_named(str(path))
    assert (plugin.name, plugin.version, plugin.entries[0].identity) == ("mine", digest[:12], digest)


def test_a_file_with_postponed_annotations(file: Callable[..., Path]) -> None:
    # dataclasses look the module up in sys.modules while it runs.
    head = "from __future__ import annotations\nfrom typing import ClassVar, Literal\n" + HEAD
    body = "mode: Literal['a', 'b'] = param('a', 'mode')\nw: float | None = param(None, 'w')\nk: ClassVar[int] = 3"
    path = file(schedule("mine", body) + hook("Thing"), head=head)
    obj = Registry([str(path)], installed=False).build("schedule", "mine:mode=b:w=1")
    assert (obj.mode, obj.w) == ("b", 1.0)


def test_a_changed_file_is_run_again(file: Callable[..., Path]) -> None:
    path = file(schedule("mine") + hook("Thing"))
    first = load_named(str(path))
    file(schedule("mine", "w: float = param(1.0, 'w')") + hook("Thing"))
    second = load_named(str(path))
    assert first.entries[0].identity != second.entries[0].identity
    assert second.entries[0].cls().w == 1.0


def test_a_module(install: Install) -> None:
    module = install("asmodule", schedule("asmodule") + hook("Thing"), points={"unrelated": "plug_asmodule"})
    plugin = load_named(module)
    assert (plugin.name, names(plugin)) == (module, ["schedule asmodule"])


def test_a_package_is_known_by_the_hash_of_all_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    package = tmp_path / "plug_package"
    package.mkdir()
    (package / "__init__.py").write_text("from plug_package.inside import *\n")
    (package / "inside.py").write_text(HEAD + schedule("inside") + hook("Thing"))
    monkeypatch.syspath_prepend(str(tmp_path))
    first = load_named("plug_package").entries[0].identity
    assert load_named("plug_package").entries[0].identity == first
    # An edit of what the package imports can change a result, and so it must change the identity.
    (package / "inside.py").write_text(HEAD + schedule("inside").replace("0.1)", "0.2)") + hook("Thing"))
    with pytest.raises(DdpmkitError, match=r"'plug_package\.inside' has changed since it was imported"):
        load_named("plug_package")  # what is imported is the old text
    for name in ("plug_package", "plug_package.inside"):
        del sys.modules[name]
    assert load_named("plug_package").entries[0].identity != first


# A file that is asked for by name is refused for the very things that cost an installed plugin one line.
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_two_lines_and_exit_2(
    file: Callable[..., Path], case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _, cause = BROKEN[case]
    path = file(source)
    assert main(["--no-plugins", "-p", str(path), "ls"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith(f"error: -p {path}: ")
    assert cause in error
    assert error.isprintable()
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("target", ["nowhere.py", "no_such_module_anywhere", "json"])
def test_what_cannot_be_a_plugin(target: str) -> None:
    with pytest.raises(DdpmkitError, match=f"^-p {target}: "):
        load_named(target)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("no_such_module_anywhere", True), ("json.no_such", True), ("", True), ("/dev/null", True), ("..x", True),
        ("imports_nothing_there", False), ("a file.py", False),
    ],
)  # fmt: skip
def test_what_is_no_module_is_told_what_to_name(
    tmp_path: Path, target: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("imports_nothing_there.py", "a file.py"):
        (tmp_path / name).write_text("import no_such_module_anywhere\n", encoding="utf-8")
    with pytest.raises(DdpmkitError) as caught:
        load_named(target)
    assert caught.value.hint.startswith("-p takes a module name" if named else "ddpmkit -v COMMAND")


def test_a_failed_file_leaves_nothing_behind(file: Callable[..., Path]) -> None:
    before = set(sys.modules)
    path = file("raise RuntimeError('boom')")
    for _ in range(2):
        with pytest.raises(DdpmkitError, match="RuntimeError: boom"):
            load_named(str(path))
    assert not [m for m in set(sys.modules) - before if m.startswith("ddpmkit_p_")]


def test_verbose_shows_where_the_file_failed(file: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = file("def deep():\n    raise RuntimeError('boom')\ndeep()")
    assert main(["-v", "-p", str(path), "ls"]) == 2
    err = capsys.readouterr().err
    assert "in deep" in err
    assert err.splitlines()[-2].startswith("error: ")
