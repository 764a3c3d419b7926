"""Plugins at their oddest: they interrupt, exit, give two classes one name, or say nothing of themselves."""

from __future__ import annotations

import itertools
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpmkit.cli import components, main
from ddpmkit.plugin.loader import Loaded, load_installed

HEAD = """
from dataclasses import dataclass
import numpy as np
from ddpmkit import Schedule, Sigma, hookimpl, param

class Flat:
    def betas(self, T):
        return np.full(T, 0.1)
"""
CLASS = """
@dataclass(frozen=True)
class {cls}(Flat, Schedule):
    name = "{name}"
"""
HOOK = """
@hookimpl
def ddpmkit_register_schedules():
    return [{classes}]
"""
NUMBER = itertools.count()


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Make an installed distribution of several modules, each an entry point; return its name."""
    made = []

    def install(*sources: str) -> str:
        dist = f"edge{next(NUMBER)}"
        folder = tmp_path / dist
        info = folder / f"{dist}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        points = []
        for index, source in enumerate(sources):
            module = f"plug_{dist}_{index}"
            made.append(module)
            points.append(f"p{index} = {module}")
            (folder / f"{module}.py").write_text(HEAD + source)
        (info / "entry_points.txt").write_text("\n".join(["[ddpmkit]", *points, ""]))
        monkeypatch.syspath_prepend(str(folder))
        return dist

    yield install
    for module in made:
        sys.modules.pop(module, None)


def parts(dist: str) -> list[Loaded]:
    return [p for p in load_installed() if p.name == dist]


RAISES = {
    "KeyboardInterrupt": "KeyboardInterrupt", "KeyboardInterrupt('enough')": "KeyboardInterrupt: enough",
    "SystemExit(0)": "SystemExit: 0", "BaseException('odd')": "BaseException: odd", "GeneratorExit": "GeneratorExit",
}  # fmt: skip


@pytest.mark.parametrize("where", ["import", "hook", "component"])
@pytest.mark.parametrize("error", RAISES)
def test_whatever_a_plugin_raises_costs_one_line(put, capsys, where: str, error: str) -> None:
    thing = CLASS.format(cls="A", name="edge-a")
    source = {
        "import": f"raise {error}",
        "hook": f"@hookimpl\ndef ddpmkit_register_schedules():\n    raise {error}",
        "component": thing + f"    def __post_init__(self):\n        raise {error}\n" + HOOK.format(classes="A"),
    }[where]
    dist = put(source)
    assert main(["ls", "schedule"]) == 0
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if dist in line]
    assert line.startswith(f"warning: plugin {dist} 1.0 ({where}): ")
    assert RAISES[error] in line
    assert "linear" in out


@pytest.mark.parametrize("error", RAISES)
def test_a_file_that_raises_is_two_lines_and_exit_2(tmp_path: Path, capsys, error: str) -> None:
    path = tmp_path / "edge.py"
    path.write_text(HEAD + f"raise {error}")
    assert main(["--no-plugins", "-p", str(path), "ls"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[0] == f"error: -p {path}: {RAISES[error]}"


def test_ctrl_c_during_an_import_is_still_the_user_s(keyboard: None, tmp_path: Path) -> None:
    path = tmp_path / "edge.py"
    path.write_text(HEAD + "import signal\nsignal.raise_signal(signal.SIGINT)")
    assert main(["--no-plugins", "-p", str(path), "ls"]) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_classes_of_one_name_are_named_and_the_rest_of_the_plugin_works(put, capsys) -> None:
    two = CLASS.format(cls="A", name="edge-x") + CLASS.format(cls="B", name="edge-x")
    dist = put(two + CLASS.format(cls="C", name="edge-y") + HOOK.format(classes="A, B, C"))
    (plugin,) = parts(dist)
    assert [e.name for e in plugin.entries] == ["edge-y"]
    (issue,) = plugin.issues
    assert issue.message == "the classes A and B are both called schedule 'edge-x', so neither is usable; rename one"
    assert main(["plugins"]) == 0
    out, err = capsys.readouterr()
    (row,) = [line for line in out.splitlines() if line.startswith(f"{dist}\t")]
    assert row.endswith("1 issues")
    assert "both called schedule 'edge-x'" in err
    assert main(["ablate", "-n", "--schedules", "edge-x"]) == 2
    said = f"unknown schedule 'edge-x'; did you mean 'edge-y'? (plugin {dist} did not load whole"
    assert said in capsys.readouterr().err


def test_so_are_those_of_two_entry_points_of_one_distribution(put) -> None:
    dist = put(*(CLASS.format(cls=c, name="edge-x") + HOOK.format(classes=c) for c in ("A", "B")))
    assert [p.entries for p in parts(dist)] == [[], []]
    assert [i.message for p in parts(dist) for i in p.issues] == [
        "the classes A and B are both called schedule 'edge-x', so neither is usable; rename one"
    ]


def test_one_class_listed_twice_is_one(put) -> None:
    (plugin,) = parts(put(CLASS.format(cls="A", name="edge-x") + HOOK.format(classes="A, A")))
    assert [e.name for e in plugin.entries] == ["edge-x"]
    assert plugin.issues == []


def test_two_kinds_may_share_a_name(put) -> None:
    sigma = """
@dataclass(frozen=True)
class S(Sigma):
    name = "edge-x"
    def log_bounds(self, tables):
        return tables.b2, tables.b2

@hookimpl
def ddpmkit_register_sigmas():
    return [S]
"""
    (plugin,) = parts(put(CLASS.format(cls="A", name="edge-x") + HOOK.format(classes="A") + sigma))
    assert sorted(e.kind for e in plugin.entries) == ["schedule", "sigma"]
    assert plugin.issues == []


@pytest.mark.parametrize("field", ["", "    w: float = param(0.5, 'a width')\n"])
def test_a_class_without_a_docstring_is_shown_to_have_none(put, capsys, field: str) -> None:
    put(CLASS.format(cls="A", name="edge-x") + field + HOOK.format(classes="A"))
    assert main(["show", "edge-x"]) == 0
    out = capsys.readouterr().out
    assert "no description: its class has no docstring" in out
    assert "A(" not in out
    assert main(["show", "edge-x", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["doc"], record["summary"]) == ("", "")


def test_ls_names_what_took_long_to_import(put, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "SLOW", 50.0)
    dist = put("import time\ntime.sleep(0.1)\n" + CLASS.format(cls="A", name="edge-slow") + HOOK.format(classes="A"))
    assert main(["ls", "schedule"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if dist in line]
    assert re.fullmatch(rf"note: plugin {dist} 1\.0 took \d+\.\d s to import; -p no:{dist} leaves it out", line)
    monkeypatch.setattr(components, "SLOW", 1e9)
    assert main(["ls", "schedule"]) == 0
    assert dist not in capsys.readouterr().err
