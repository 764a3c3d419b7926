"""A thread that a plugin has left running does not hold up the end of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit.cli import ending

PLUGIN = """
import threading
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl

@dataclass(frozen=True)
class Flat(Schedule):
    name = "flat"
    def betas(self, T):
        return [0.1] * T

@hookimpl
def ddpmkit_register_schedules():
    return [Flat]

def wait():
    threading.Event().wait({seconds})

threading.Thread(target=wait, name="waits").start()
"""
COMMAND = "from ddpmkit.cli import ending, entry; ending.PATIENCE = {patience}; entry()"


def listed(folder: Path, seconds: float | None, patience: float) -> subprocess.CompletedProcess[str]:
    (folder / "plugin.py").write_text(PLUGIN.format(seconds=seconds))
    command = [
        sys.executable,
        "-c",
        COMMAND.format(patience=patience),
        "--no-plugins",
        "-p",
        "plugin.py",
        "ls",
        "schedule",
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(ddpmkit.__file__).parents[1])}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_a_thread_that_never_ends_is_named_and_not_waited_for(tmp_path: Path) -> None:
    done = listed(tmp_path, None, 0.2)
    assert (done.returncode, "\tflat\t" in done.stdout) == (0, True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the thread 'waits' (")
    assert line.endswith("plugin.py line 17) is still running and is not waited for")


def test_where_no_thread_is_left_nothing_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(ending, "PATIENCE", 0.0)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(ending.threading, "enumerate", lambda: [ending.threading.main_thread()])
    ending._end(3)
    assert not ended


def test_a_thread_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    done = listed(tmp_path, 0.5, 200.0)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\tflat\t" in done.stdout
