"""ls, show and plugins as a user types them: what is on stdout, what is on stderr, and the exit code."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.plugin import spec
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.registry import Registry

Capsys = pytest.CaptureFixture[str]
BUILTIN = Registry(installed=False).entries()

PLUGIN = '''
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl, param

@dataclass(frozen=True)
class Thing(Schedule):
    """A schedule of a test.

    beta_t = 0.1.
    """
    name = "{name}"
    reference = "this test"
    w: float = param(1.0, "how much", ge=0, lt=2)

    def betas(self, T):
        import numpy as np
        return np.full(T, 0.1)

@hookimpl
def ddpmkit_register_schedules():
    return [Thing]
'''


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("cli_", "ddpmkit_p_")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path, forget: None) -> Callable[[str], str]:
    def make(name: str, source: str = PLUGIN) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(source.replace("{name}", name))
        return str(path)

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> Callable[..., str]:
    """Make an installed distribution that is only a folder on sys.path."""

    def make(dist: str, source: str = PLUGIN) -> str:
        module = f"cli_{dist}"
        info = tmp_path / dist / f"{dist}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[ddpmkit]\nmain = {module}\n")
        (tmp_path / dist / f"{module}.py").write_text(source.replace("{name}", dist))
        monkeypatch.syspath_prepend(str(tmp_path / dist))
        return module

    return make


def rows(capsys: Capsys) -> list[list[str]]:
    """The cells of a piped table, its heads taken off."""
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()][1:]


def assert_two_lines(capsys: Capsys, error: str, hint: str | None = None) -> None:
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 2, err
    assert lines[0] == f"error: {error}"
    assert lines[1].startswith("hint: ")
    if hint is not None:
        assert lines[1] == f"hint: {hint}"


# --- ls ----------------------------------------------------------------------------------------------------------


def test_ls_lists_everything_as_tab_separated_rows(capsys: Capsys) -> None:
    assert main(["--no-plugins", "ls"]) == 0
    out, err = capsys.readouterr()
    heads, *table = [line.split("\t") for line in out.splitlines()]
    assert heads == ["kind", "name", "parameters", "summary", "from"]
    assert {len(row) for row in table} == {5}
    assert [(r[0], r[1]) for r in table] == [(e.kind, e.name) for e in BUILTIN]
    assert ["schedule", "cosine", "s=0.008 max_beta=0.999"] in [r[:3] for r in table]
    assert err == ""


@pytest.mark.parametrize("kind", list(KINDS))
def test_ls_of_one_kind_in_the_singular_and_the_plural(kind: str, capsys: Capsys) -> None:
    expected = [e.name for e in BUILTIN if e.kind == kind]
    assert expected
    for word in (kind, KINDS[kind].plural):
        assert main(["--no-plugins", "ls", word]) == 0
        assert [r[1] for r in rows(capsys)] == expected


def test_ls_json_holds_every_parameter(capsys: Capsys) -> None:
    assert main(["--no-plugins", "ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == len(BUILTIN)
    cosine = next(d for d in listed if d["name"] == "cosine")
    assert cosine["parameters"] == [
        {
            "name": "s",
            "type": "float",
            "default": "0.008",
            "allowed": ">= 0",
            "help": "offset that keeps beta_1 from vanishing",
        },
        {
            "name": "max_beta",
            "type": "float",
            "default": "0.999",
            "allowed": "> 0 and < 1",
            "help": "betas are clipped to this",
        },
    ]
    assert (cosine["qualified"], cosine["plugin_version"]) == ("ddpmkit/cosine", ddpmkit.__version__)


def test_what_ls_prints_can_be_typed(capsys: Capsys) -> None:
    registry = Registry(installed=False)
    assert main(["--no-plugins", "ls"]) == 0
    for kind, name, parameters, _, plugin in rows(capsys):
        for text in (name, f"{plugin}/{name}", ":".join([name, *parameters.split()])):
            assert spec.format(registry.build(kind, text)) == name


def test_ls_in_a_terminal_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--no-plugins", "ls", "schedule"]) == 0
    out = capsys.readouterr().out
    assert "\t" not in out
    assert "components" in out
    assert "cosine" in out


# --- show --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cosine", "ddpmkit/cosine", "cosine:s=0.02"])
def test_show_gives_formula_reference_code_and_parameters(name: str, capsys: Capsys) -> None:
    assert main(["--no-plugins", "show", name]) == 0
    out, err = capsys.readouterr()
    cls = next(e.cls for e in BUILTIN if e.name == "cosine")
    assert f"schedule cosine   (ddpmkit {ddpmkit.__version__})" in out
    assert inspect.cleandoc(cls.__doc__ or "") in out
    assert "arXiv 2102.09672" in out
    assert f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}" in out
    assert "s=0.008   offset that keeps beta_1 from vanishing (float >= 0)" in out
    assert err == ""


def test_show_gives_every_kind_of_thing_of_that_name(capsys: Capsys) -> None:
    def shown(name: str) -> list[str]:
        assert main(["--no-plugins", "show", name, "--json"]) == 0
        return [record["kind"] for record in json.loads(capsys.readouterr().out)]

    assert shown("digits") == ["dataset", "features", "recipe"]
    assert shown("warmup") == ["schedule", "setting"]
    for name in ("dataset/digits", "features/digits", "recipe/digits", "recipes/digits", "setting/warmup"):
        assert shown(name) == [name.partition("/")[0].removesuffix("s") if name[0] != "f" else "features"]
    assert main(["--no-plugins", "show", "digits"]) == 0
    out = capsys.readouterr().out
    for heading in ("dataset digits ", "\n\nfeatures digits ", "\n\nrecipe digits   type: ddpmkit "):
        assert heading in out
    assert main(["--no-plugins", "show", "warmup"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("schedule warmup ")
    assert "\n\nsetting warmup=100   (int" in out


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("recipe/digit", "there is no recipe 'digit'; did you mean 'digits'?", "ddpmkit ls recipe"),
        ("schedule/digits", "there is no schedule 'digits'", "ddpmkit ls schedule"),
        ("setting/warmu", "there is no setting 'warmu'; did you mean 'warmup'?", "ddpmkit ablate --help"),
    ],
)
def test_show_of_a_kind_that_has_no_such_name(name: str, message: str, hint: str, capsys: Capsys) -> None:
    assert main(["--no-plugins", "show", name]) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {message}", f"hint: {hint}"]


@pytest.mark.parametrize("name", sorted({e.name for e in BUILTIN}))
def test_show_works_for_every_builtin(name: str, capsys: Capsys) -> None:
    assert main(["--no-plugins", "show", name]) == 0
    assert f" {name}   (ddpmkit" in capsys.readouterr().out


def test_show_of_a_builtin_imports_no_plugin(install: Callable[..., str], capsys: Capsys) -> None:
    module = install("watched")
    assert main(["show", "cosine"]) == 0
    assert "schedule cosine" in capsys.readouterr().out
    assert module not in sys.modules


@pytest.mark.long
def test_a_class_without_source_can_be_listed_and_shown(write: Callable[..., str], capsys: Capsys) -> None:
    # Made by a factory, typed into a notebook, or shipped as .pyc alone.
    made = PLUGIN.replace("return [Thing]", "return [dataclass(frozen=True)(type('Made', (Thing,), {'name': 'made'}))]")
    path = write("factory", made)
    for command in (["ls", "--json"], ["show", "made"]):
        assert main(["--no-plugins", "-p", path, *command]) == 0
        assert "made" in capsys.readouterr().out


# --- plugins -----------------------------------------------------------------------------------------------------


def test_plugins_lists_the_builtins_first(capsys: Capsys) -> None:
    assert main(["--no-plugins", "plugins"]) == 0
    (row,) = rows(capsys)
    assert row[:2] == ["ddpmkit", ddpmkit.__version__]
    assert "schedule cosine" in row[2].split(", ")
    assert row[4] == "ok"


@pytest.mark.long
def test_plugins_json(install: Callable[..., str], capsys: Capsys) -> None:
    module = install("sound")
    install("broken", "raise RuntimeError('boom')")
    assert main(["plugins", "--json"]) == 0
    found = {p["name"]: p for p in json.loads(capsys.readouterr().out)}
    assert found["sound"]["components"] == ["schedule sound"]
    assert (found["sound"]["version"], found["sound"]["origin"]) == ("0.1", module)
    assert found["sound"]["issues"] == []
    assert found["sound"]["milliseconds"] >= 0
    assert found["broken"]["components"] == []
    assert found["broken"]["issues"] == ["plugin broken 0.1 (import): RuntimeError: boom"]


def test_plugins_as_requirements(install: Callable[..., str], write: Callable[..., str], capsys: Capsys) -> None:
    install("sound")
    install("broken", "raise RuntimeError('boom')")  # it is installed all the same
    path = write("mine")
    assert main(["-p", path, "plugins", "--requirements"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ddpmkit=={ddpmkit.__version__}"
    assert {"sound==0.1", "broken==0.1"} <= {*lines}
    assert lines[-1].startswith(f"# -p {path} (")  # a file is no distribution


def test_environment_variables_stand_for_the_flags(
    install: Callable[..., str], write: Callable[..., str], capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("broken", "raise RuntimeError('boom')")
    path = write("mine")
    monkeypatch.setenv("DDPMKIT_PLUGINS", path)
    assert main(["plugins", "--json"]) == 0
    assert {"broken", "mine"} <= {p["name"] for p in json.loads(capsys.readouterr().out)}
    monkeypatch.setenv("DDPMKIT_STRICT_PLUGINS", "1")
    assert main(["ls"]) == 2
    assert "broken" in capsys.readouterr().err
    monkeypatch.setenv("DDPMKIT_NO_PLUGINS", "1")
    assert main(["ls", "schedule", "--json"]) == 0
    assert {c["plugin"] for c in json.loads(capsys.readouterr().out)} == {"ddpmkit", "mine"}


def test_plugins_says_which_are_broken(install: Callable[..., str], capsys: Capsys) -> None:
    install("broken", "raise RuntimeError('boom')")
    assert main(["plugins"]) == 0
    out, err = capsys.readouterr()
    (row,) = [line.split("\t") for line in out.splitlines() if line.startswith("broken\t")]
    assert "1 issue" in row[4]
    # The cause is told once, not as a warning and then again.
    assert err.count("RuntimeError: boom") == 1


def test_plugins_tells_of_a_name_that_is_taken(write: Callable[..., str], capsys: Capsys) -> None:
    # The command whose business it is must not call a plugin ok that ls and ablate warn about.
    path = write("mine", PLUGIN.replace('"{name}"', '"linear"'))
    assert main(["--no-plugins", "-p", path, "plugins"]) == 0
    out, err = capsys.readouterr()
    assert err.count("schedule 'linear' is a built-in name; yours is reachable as mine/linear only") == 1
    assert out.splitlines()[-1].split("\t")[4] != "ok"


@pytest.mark.parametrize("argv", [["-v", "plugins"], ["plugins", "-v"]], ids=" ".join)
def test_plugins_with_v_shows_the_traceback_as_the_hint_says(
    argv: list[str], install: Callable[..., str], capsys: Capsys
) -> None:
    install("broken", "def deep():\n    raise RuntimeError('boom')\ndeep()")
    assert main(argv) == 0
    assert "in deep" in capsys.readouterr().err


def test_strict_plugins_fail(install: Callable[..., str], capsys: Capsys) -> None:
    install("broken", "raise RuntimeError('boom')")
    assert main(["--strict-plugins", "plugins"]) == 2
    assert_two_lines(capsys, "plugin broken 0.1 (import): RuntimeError: boom")


# --- -p ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_p_before_and_after_the_command_and_both(write: Callable[..., str], capsys: Capsys) -> None:
    first, second = write("first"), write("second")
    for argv, expected in (
        (["-p", first, "ls", "schedule"], {"first"}),
        (["ls", "schedule", "-p", first], {"first"}),
        (["ls", "-p", first, "schedule", "--plugin", second], {"first", "second"}),
        (["-p", first, "ls", "schedule", "-p", second], {"first", "second"}),
        (["-p", first, "-p", second, "ls", "schedule", "-p", second], {"first", "second"}),
    ):
        assert main(["--no-plugins", *argv]) == 0
        found = [r[1] for r in rows(capsys)]
        assert {n for n in found if n in ("first", "second")} == expected
        assert len(found) == len(set(found))


@pytest.mark.parametrize("command", [["ls"], ["show", "mine"], ["plugins"]], ids=" ".join)
def test_every_component_command_takes_p(command: list[str], write: Callable[..., str], capsys: Capsys) -> None:
    path = write("mine")
    assert main(["--no-plugins", *command, "-p", path]) == 0
    assert "mine" in capsys.readouterr().out


def test_p_no_name_after_the_command(install: Callable[..., str], capsys: Capsys) -> None:
    module = install("watched")
    assert main(["ls", "schedule", "-p", "no:watched"]) == 0
    assert "watched" not in [r[1] for r in rows(capsys)]
    assert module not in sys.modules


def test_no_plugins(install: Callable[..., str], capsys: Capsys) -> None:
    module = install("watched")
    assert main(["ls", "schedule"]) == 0
    assert "watched" in [r[1] for r in rows(capsys)]
    del sys.modules[module]
    assert main(["--no-plugins", "ls", "schedule"]) == 0
    assert "watched" not in [r[1] for r in rows(capsys)]
    assert module not in sys.modules


def test_show_of_a_plugins_component(write: Callable[..., str], capsys: Capsys) -> None:
    path = write("mine")
    assert main(["--no-plugins", "-p", path, "show", "mine", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["summary"], found["reference"]) == ("A schedule of a test.", "this test")
    assert found["file"] == path
    assert found["parameters"] == [
        {"name": "w", "type": "float", "default": "1.0", "allowed": ">= 0 and < 2", "help": "how much"}
    ]


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        (["show", "cosin"], "there is no component 'cosin'; did you mean 'cosine'?", "ddpmkit ls"),
        (["show", "zzzzz"], "there is no component 'zzzzz'", "ddpmkit ls"),
        (["show", "nobody/cosin"], "there is no component 'nobody/cosin'", "ddpmkit ls"),
        (
            ["show", "cosine:s"],
            "'cosine:s': expected key=value after ':', got 's'",
            "write name:key=value:key=value, as in cosine:s=0.01",
        ),
        (
            ["ls", "shedule"],
            "unknown kind 'shedule'; did you mean 'schedule'?",
            f"kinds: {', '.join((*KINDS, 'recipe'))}",
        ),
        (["-p", "nowhere.py", "ls"], "-p nowhere.py: there is no such file", None),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_wrong_request_is_two_lines_and_exit_2(argv: list[str], error: str, hint: str | None, capsys: Capsys) -> None:
    assert main(["--no-plugins", *argv]) == 2
    assert_two_lines(capsys, error, hint)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["lss"], "'lss'"),
        (["show"], "Missing argument"),
        (["ls", "--nope"], "--nope"),
        (["--nope"], "--nope"),
        (["ls", "a", "b"], "b"),
        (["ls", "-p"], "-p"),
        (["-p", "x.py"], "Missing command"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_typers_own_usage_errors_are_two_lines_and_exit_2_too(argv: list[str], part: str, capsys: Capsys) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert out == ""
    assert error.startswith("error: ")
    assert part in error
    assert hint.startswith("hint: ddpmkit")


def test_a_defect_is_exit_3_with_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(Registry, "entries", fail)
    assert main(["ls"]) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-2] == "error: internal error: ZeroDivisionError: inside"


def test_an_interrupt_is_exit_130(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, "entries", interrupt)
    assert main(["ls"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_version_and_help(capsys: Capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ddpmkit {ddpmkit.__version__}\n"
    for argv in ([], ["--help"]):
        assert main(argv) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for command in ("ablate", "status", "report", "ls", "show", "plugins"):
            assert command in out


@pytest.mark.parametrize("word", ["sampler", "samplers"])
def test_show_of_a_kind_says_how_its_components_are_listed(capsys: Capsys, word: str) -> None:
    assert main(["--no-plugins", "show", word]) == 2
    first, hint = capsys.readouterr().err.splitlines()
    assert first == f"error: '{word}' is a kind, not a component"
    assert hint.startswith("hint: ddpmkit ls sampler, then ddpmkit show NAME; ddpmkit new-plugin NAME --kind sampler ")
