"""A job on its node, with a process of a line or two in place of the stage."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission, UncompletedJobError

from ddpmkit_slurm import attempt
from ddpmkit_slurm.attempt import Attempt

STOPS = """
import signal, sys, time
def stop(*_):
    print("interrupted"); sys.stdout.flush(); sys.exit(1)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + ".news", "w").write('{"begun": true, "event": {}}')
while True: time.sleep(0.01)
"""
DEAF = STOPS.replace("signal.SIGTERM, stop", "signal.SIGTERM, signal.SIG_IGN")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make an attempt at a stage that is a script."""
    monkeypatch.setattr(attempt, "TICK", 0.01)
    before = signal.getsignal(signal.SIGTERM)

    def make(script, *, timeout=None):
        monkeypatch.setattr(attempt, "RUNS", ("-S", "-E", "-c", script))
        file = tmp_path / "1-stage.json"
        file.write_text(json.dumps({"job": {"timeout": timeout}, "task": {}, "grace": 0.1}))
        return Attempt(str(file))

    yield make
    signal.signal(signal.SIGTERM, before)


def ended(one):
    with open(f"{one.file}.end") as file:
        return tuple(file.read().split("\n", 1))


def soon(action):
    """Do something in another thread, once the stage is under way."""

    def when(file):
        until = time.monotonic() + 30
        while not Path(f"{file}.news").exists() and time.monotonic() < until:
            time.sleep(0.01)
        action()

    return lambda one: threading.Thread(target=when, args=(one.file,), daemon=True).start()


@pytest.mark.parametrize("state", ["done", "failed", "diverged", "timed out"])
def test_what_the_stage_says_comes_back(made, state):
    one = made(f"import sys; print('noise'); print('{state}'); sys.exit({int(state != 'done')})")
    assert one() == state
    assert ended(one) == (state, "")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import os; os._exit(0)", "exit code 0 and did not say how"),
        ("print('done'); raise SystemExit(1)", "exit code 1 and did not say how"),
        ("import sys; sys.stdout.close(); sys.exit(7)", "exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL; the system does that when memory"),
    ],
)
def test_a_stage_that_says_nothing_has_failed(made, script, told):
    one = made(script)
    assert one() == "failed"
    assert told in ended(one)[1]


def test_a_child_that_lives_on_holds_nobody_up(made, monkeypatch):
    monkeypatch.setattr(attempt, "DRAIN", 0.1)
    one = made("import subprocess; subprocess.Popen(['sleep', '20']); print('done')")
    begun = time.monotonic()
    assert one() == "done"
    assert time.monotonic() - begun < 15


def test_of_what_is_printed_the_first_and_the_last_part_are_passed_on(made, monkeypatch, capfdbinary):
    monkeypatch.setattr(attempt, "HEAD", 1000)
    monkeypatch.setattr(attempt, "TAIL", 1000)
    one = made("import sys; sys.stderr.write('first ' + 'x' * 3_000_000 + ' last'); print('done')")
    with open(2, "w", closefd=False) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        assert one() == "done"
    printed = capfdbinary.readouterr().err
    assert printed.startswith(b"first xx")
    assert printed.endswith(b"xx last")
    assert b"\n... 2,998,011 bytes left out here ...\n" in printed
    assert len(printed) < 2100


def test_a_signal_before_the_limit_asks_for_a_checkpoint_and_the_same_text_is_submitted_again(made):
    one, caught = made(STOPS), []

    def handler(*_):  # as submitit's
        caught.append(one.checkpoint())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, handler)
    soon(lambda: os.kill(os.getpid(), signal.SIGUSR2))(one)
    with pytest.raises(KeyboardInterrupt):
        one()
    signal.signal(signal.SIGUSR2, before)
    (again,) = caught
    assert isinstance(again, DelayedSubmission)
    assert (again.function, again.args) == (Attempt(one.file), ())
    assert not Path(f"{one.file}.end").exists()


def test_a_stage_that_has_ended_meanwhile_is_not_begun_again(made):
    one = made(STOPS.replace('print("interrupted")', 'print("done")').replace("sys.exit(1)", "sys.exit(0)"))
    before = signal.signal(signal.SIGUSR2, lambda *_: one.checkpoint())
    soon(lambda: os.kill(os.getpid(), signal.SIGUSR2))(one)
    with pytest.raises(SystemExit) as caught:
        one()
    signal.signal(signal.SIGUSR2, before)
    assert caught.value.code == 0
    assert ended(one) == ("done", "")


def test_the_stage_itself_does_not_die_of_the_signal(made):
    # Slurm sends it to every process of a job.
    one = made("import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('done')")
    assert one() == "done"


def test_sigterm_is_passed_on(made):
    one = made(STOPS)
    soon(lambda: os.kill(os.getpid(), signal.SIGTERM))(one)
    assert one() == "interrupted"
    assert ended(one) == ("interrupted", "")


def test_what_does_not_stop_at_its_timeout_is_killed(made):
    one = made(DEAF, timeout=0.1)
    assert one() == "timed out"
    assert ended(one) == ("timed out", "it took longer than 0.1 s, did not stop, and was killed")


@pytest.mark.parametrize(
    ("raised", "state", "told"),
    [
        (UncompletedJobError("timed-out too many times"), "timed out", "requeues"),
        (FileNotFoundError("scontrol"), "interrupted", "could not go on: scontrol"),
    ],
)
def test_a_job_that_is_not_requeued_says_so(made, raised, state, told):
    one = made(STOPS)

    def handler(*_):
        one.checkpoint()
        raise raised

    before = signal.signal(signal.SIGUSR2, handler)
    soon(lambda: os.kill(os.getpid(), signal.SIGUSR2))(one)
    assert one() == state
    signal.signal(signal.SIGUSR2, before)
    assert ended(one)[0] == state
    assert told in ended(one)[1]


def test_what_begins_after_the_stop_ends_at_once(made, tmp_path):
    one = made("raise SystemExit(9)")
    (tmp_path / attempt.STOP).touch()
    assert one() == "interrupted"


def test_where_there_is_no_shell_the_stage_has_failed(made, monkeypatch):
    def popen(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "/bin/sh")

    one = made("print('done')")
    monkeypatch.setattr(attempt.subprocess, "Popen", popen)
    assert one() == "failed"
    assert "could not be started: [Errno 2]" in ended(one)[1]
