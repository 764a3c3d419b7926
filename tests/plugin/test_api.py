"""The version of what a plugin builds on: who was made for another one is told so in one line, and is not loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ddpmkit
from ddpmkit import PLUGIN_API
from ddpmkit.cli import main
from ddpmkit.plugin.api import api_problem

SCHEDULE = '''
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl

{says}

@dataclass(frozen=True)
class Thing(Schedule):
    """A schedule of a test."""
    name = "thing"
    def betas(self, T):
        return [0.1] * T

@hookimpl
def ddpmkit_register_schedules():
    return [Thing]
'''
LATER = "it was made for version 2 of the plugin API, and this ddpmkit has version 1; it needs a newer ddpmkit"


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("made_for_", "ddpmkit_p_")):
            del sys.modules[name]


def module(made_for: object) -> ModuleType:
    made = ModuleType("made_for")
    made.ddpmkit_api = made_for  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("made_for", [(1, 1), (1, 3), [0, 1], (0, 9)])
def test_the_version_may_lie_anywhere_within(made_for: object) -> None:
    assert api_problem(module(made_for)) == ""


def test_who_says_nothing_is_taken() -> None:
    assert api_problem(ModuleType("silent")) == ""
    assert PLUGIN_API == ddpmkit.PLUGIN_API == 1


@pytest.mark.parametrize(
    ("made_for", "told"),
    [
        ((2, 2), LATER),
        ((2, 3), "versions 2 to 3 of the plugin API"),
        ((0, 0), "it needs a newer release of the plugin"),
        ((2, 1), "its ddpmkit_api is (2, 1); write two whole numbers"),
        (1, "its ddpmkit_api is 1; write two whole numbers"),
        ((1,), "write two whole numbers"),
        (("1", "1"), "write two whole numbers"),
        ((True, True), "write two whole numbers"),
        (None, "write two whole numbers"),
    ],
    ids=str,
)
def test_another_version_and_what_is_none_are_told(made_for: object, told: str) -> None:
    assert told in api_problem(module(made_for))


@pytest.mark.parametrize(("says", "loads"), [("ddpmkit_api = (2, 2)", False), ("ddpmkit_api = (1, 2)", True)])
def test_an_installed_plugin_for_another_version_costs_one_line(
    says: str,
    loads: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forget: None,
) -> None:
    name = f"made_for_{loads}".lower()
    info = tmp_path / f"{name}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(f"[ddpmkit]\nmain = {name}\n")
    (tmp_path / f"{name}.py").write_text(SCHEDULE.format(says=says))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["ls", "schedule"]) == 0
    out, err = capsys.readouterr()
    assert ("\tthing\t" in out) == loads
    assert "cosine" in out
    told = [line for line in err.splitlines() if name in line]
    assert told == ([] if loads else [f"warning: plugin {name} 0.3 (api): {LATER}"])


def test_one_that_was_asked_for_by_name_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], forget: None
) -> None:
    path = tmp_path / "later.py"
    path.write_text(SCHEDULE.format(says="ddpmkit_api = (2, 2)"))
    assert main(["-p", str(path), "ls", "schedule"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"error: -p {path}: {LATER}"
    assert len(err.splitlines()) == 2
