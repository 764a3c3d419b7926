"""A command line loads the file of the command that it names, and the list of commands loads none."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import typer

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.cli.app import COMMANDS, application


def files(argv: list[str]) -> set[str]:
    """The command files that a command line imports."""
    code = f"import sys\nfrom ddpmkit.cli import main\nmain({argv!r})\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=600, check=True)
    every = {file for file, _ in COMMANDS.values()}
    return every & {m.removeprefix("ddpmkit.cli.") for m in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--help"], set()),
        (["ls", "schedule"], {"components"}),
        (["--no-plugins", "status", "--help"], {"status"}),
        (["abltae"], set()),
    ],
    ids=str,
)
def test_what_is_not_asked_for_is_not_loaded(argv: list[str], expected: set[str]) -> None:
    assert files(argv) == expected


def test_the_list_says_what_the_commands_say_of_themselves() -> None:
    whole = application(list(COMMANDS))
    found = {c.name or c.callback.__name__: inspect.getdoc(c.callback) for c in whole.registered_commands if c.callback}
    found |= {g.name: g.typer_instance.info.help for g in whole.registered_groups}
    assert set(found) == set(COMMANDS)
    for name, (_, summary) in COMMANDS.items():
        assert found[name].split("\n")[0] == summary, name


def test_every_command_is_in_the_file_that_the_list_names() -> None:
    for file in {file for file, _ in COMMANDS.values()}:
        app = typer.Typer()
        importlib.import_module(f"ddpmkit.cli.{file}").register(app)
        made = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
        made |= {g.name for g in app.registered_groups}
        assert made == {name for name, (of, _) in COMMANDS.items() if of == file}


def test_a_word_that_is_a_value_and_a_command_takes_no_command_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "status"]) == 2  # and status is a command too
    assert "there is no component 'status'" in capsys.readouterr().err
    assert main(["abltae"]) == 2
    assert "ablate" in capsys.readouterr().err


def test_public_names_are_found_when_they_are_asked_for() -> None:
    code = "import sys, ddpmkit\nassert 'ddpmkit.plugin.interfaces' not in sys.modules\nfrom ddpmkit import *\nSchedule"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=600)
    assert {name for name in ddpmkit.__all__ if getattr(ddpmkit, name) is None} == set()
