"""A component whose plugin is gone: the plans of earlier studies say which it was, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddpmkit import files
from ddpmkit.cli import main

Capsys = pytest.CaptureFixture[str]


def planned(out: Path, study: str, **record: Any) -> None:
    """Leave a plan that names a component, as the part of another if ``part`` says so."""
    made = {"kind": "weighting", "name": "gone", "plugin": "ddpmkit-gone", "plugin_version": "1.2", "version": 1}
    made |= record
    how = {"schedule": {"params": {}, "parts": {"base": made}}} if made.pop("part", False) else {made["kind"]: made}
    folder = out / "studies" / study
    folder.mkdir(parents=True)
    files.write_sealed(folder / "plan.json", {"study": study, "stages": [{"how": how}], "cells": [], "results": []})


def told(out: Path, capsys: Capsys, *words: str) -> list[str]:
    assert main(["ablate", *words, "--out", str(out), "--dry-run", "--no-probe"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    return found.err.splitlines()


def test_a_packages_component_says_what_to_install(tmp_path: Path, capsys: Capsys) -> None:
    planned(tmp_path, "one", plugin_version="1.1")
    planned(tmp_path, "two", part=True, kind="schedule", name="bent")
    installed = [
        "error: weighting 'gone' is of ddpmkit-gone 1.1, which is not here",
        "hint: install ddpmkit-gone 1.1 again, or leave no:ddpmkit-gone and --no-plugins out",
    ]
    assert told(tmp_path, capsys, "--weightings", "simple,gone") == installed
    assert told(tmp_path, capsys, "--weightings", "ddpmkit-gone/gone:k=2")[0].endswith("1.1, which is not here")
    assert told(tmp_path, capsys, "--schedules", "bent")[0] == (
        "error: schedule 'bent' is of ddpmkit-gone 1.2, which is not here"
    )


def test_one_that_was_passed_is_to_be_passed_again(tmp_path: Path, capsys: Capsys) -> None:
    planned(tmp_path, "one", plugin="gone.py", plugin_version="3f9c", version="3f9c" * 16)
    assert told(tmp_path, capsys, "--weightings", "gone") == [
        "error: weighting 'gone' is of gone.py 3f9c, which is not here",
        "hint: pass it again: -p gone.py, or where it is now",
    ]


def test_what_no_study_knows_is_unknown_as_ever(tmp_path: Path, capsys: Capsys) -> None:
    planned(tmp_path, "one")
    planned(tmp_path, "two", kind="schedule", name="elsewhere")
    for name in ("simpl", "elsewhere"):
        first, second = told(tmp_path, capsys, "--weightings", name)
        assert first.startswith(f"error: unknown weighting '{name}'")
        assert second == "hint: ddpmkit ls weighting"
    # A name that is here is not looked up, and a parameter that is wrong stays that.
    assert "has no parameter" in told(tmp_path, capsys, "--weightings", "p2:kk=1")[0]
