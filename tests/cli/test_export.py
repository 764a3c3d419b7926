"""``export``: what is said without the package that writes a format, and that a folder appears whole or not at all."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import exporters
from ddpmkit.study import exporting, loaded

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """installed(format=target, ..): the exporters that are installed, and no others."""

    def these(**points: str) -> None:
        found = EntryPoints(EntryPoint(name, value, exporters.GROUP) for name, value in points.items())
        monkeypatch.setattr(exporters, "entry_points", lambda group: found.select(group=group))

    these()
    return these


def say_what_is_loaded(cell: Any, folder: Path) -> list[str]:
    (folder / "model.txt").write_text(f"of {cell}")
    return ["it is in {to}"]


def fail_halfway(cell: Any, folder: Path) -> list[str]:
    (folder / "model.txt").write_text("half")
    raise DdpmkitError("there is no counterpart", "another cell")


def no_space(cell: Any, folder: Path) -> list[str]:
    raise OSError(28, "No space left on device")


def error_of(capsys: Capsys, *argv: str) -> tuple[str, str]:
    assert main(["export", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    return first, second


def test_without_its_package_two_lines_say_what_to_install(
    installed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(loaded, "load", pytest.fail)  # nothing is loaded to say so
    first, second = error_of(capsys, "mine/cosine", "--to", str(tmp_path / "folder"))
    assert first == "error: exporting to diffusers needs the package ddpmkit-diffusers, which is not installed"
    assert second == "hint: in a clone of ddpmkit's repository: pip install . ./plugins/ddpmkit-diffusers"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_names_the_known_ones(installed: Any, tmp_path: Path, capsys: Capsys) -> None:
    installed(onnx="nowhere:write")
    first, second = error_of(capsys, "mine", "--to", str(tmp_path / "folder"), "--format", "diffuser")
    assert first == "error: unknown format 'diffuser'; did you mean 'diffusers'?"
    assert second == "hint: formats: diffusers, onnx"


@pytest.mark.parametrize(
    ("words", "target", "said"),
    [
        (["--no-plugins"], f"{__name__}:say_what_is_loaded", "which this command line leaves out"),
        ([], "no_such_module_at_all:write", "is installed and can't be imported: No module named 'no_such_module_at"),
        ([], "json:no_such_function", "is installed and can't be imported: module 'json' has no attribute"),
    ],
)
def test_one_that_is_left_out_or_broken_is_named(
    words: list[str], target: str, said: str, installed: Any, tmp_path: Path, capsys: Capsys
) -> None:
    installed(diffusers=target)
    assert main([*words, "export", "mine", "--to", str(tmp_path / "folder")]) == 2
    assert said in capsys.readouterr().err.splitlines()[0]


@pytest.fixture
def exporting_to(installed: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """exporting_to(function): an exporter, and a cell that needs no study."""

    def by(function: Any) -> None:
        monkeypatch.setattr(EntryPoint, "load", lambda _: function)
        installed(diffusers="this:one")

    monkeypatch.setattr(loaded, "load", lambda cell, *_, **__: cell)
    return by


def test_what_the_exporter_writes_is_there_and_its_notes_name_the_place(
    exporting_to: Any, tmp_path: Path, capsys: Capsys
) -> None:
    exporting_to(say_what_is_loaded)
    to = tmp_path / "new" / "folder"
    assert main(["export", "mine/cosine", "--to", str(to)]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{to}\n", f"note: it is in {to}\n")
    assert (to / "model.txt").read_text() == "of mine/cosine"
    assert [p.name for p in to.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("exporter", "said"),
    [(fail_halfway, "error: there is no counterpart"), (no_space, "folder': No space left on device")],
)
def test_a_failure_leaves_nothing_behind(
    exporter: Any, said: str, exporting_to: Any, tmp_path: Path, capsys: Capsys
) -> None:
    exporting_to(exporter)
    first, _ = error_of(capsys, "mine", "--to", str(tmp_path / "folder"))
    assert said in first
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept(exporting_to: Any, tmp_path: Path, capsys: Capsys) -> None:
    exporting_to(say_what_is_loaded)
    full, empty, file = tmp_path / "full", tmp_path / "empty", tmp_path / "file"
    full.mkdir()
    empty.mkdir()
    (full / "mine").write_text("kept")
    file.write_text("kept")
    (tmp_path / "link").symlink_to(empty)
    for place in (full, file, tmp_path / "link"):
        first, second = error_of(capsys, "mine", "--to", str(place))
        assert (first, second) == (f"error: '{place}' is there already", "hint: --to another-name")
    assert (full / "mine").read_text() == file.read_text() == "kept"
    assert exporting.write_folder(say_what_is_loaded, "x", empty) == [f"it is in {empty}"]  # type: ignore[arg-type]
    assert (empty / "model.txt").read_text() == "of x"
