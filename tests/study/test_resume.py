"""A study that was stopped or killed, wherever, ends with the numbers of one that was not."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.claim import claimed
from ddpmkit.study.config import make_study
from ddpmkit.study.execute import execute
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.store import Store

TINY = {
    "train_steps": 6, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 50, "eval_batch": 8,
    "batch_size": 8, "micro_batch": 5, "dropout": 0.2, "backbones": "unet:channels=4:mults=1", "features": "pca:k=4",
    "train_seeds": "0",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few(few_digits):
    TINY["dataset"] = few_digits


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


def outputs(out: Path) -> dict[str, bytes]:
    """What a stage leaves: its output, and of a training the last weights and the metrics too."""
    patterns = ("*/*/*/out/*", "train/*/*/metrics.jsonl", "train/*/*/ckpt/*/*")
    found = {str(p.relative_to(out)): p.read_bytes() for pattern in patterns for p in (out / "store").glob(pattern)}
    last = max((k.split("/ckpt/")[1][:8] for k in found if "/ckpt/" in k), default="")
    return {k: v for k, v in found.items() if "/ckpt/" not in k or f"/ckpt/{last}/" in k}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, registry):
    out = tmp_path_factory.mktemp("whole")
    run(prepare(TINY, out=out, registry=registry, run_options=RunOptions(1, "cpu", "inline")))
    return outputs(out)


@pytest.mark.long
def test_every_stage_stopped_again_and_again_gives_the_same_bytes(registry, whole, tmp_path):
    plan = make_plan(make_study(TINY, registry), registry)
    store, options = Store(tmp_path), StageOptions(device="cpu")
    stops = {
        "train": [0, *[1] * (TINY["train_steps"] - 1)],  # goes on where it was: stopped before every step
        "sample": [0, 1],  # begins again each time
        "draw": [0, 1, 10],
        "nll": [],
        "ref": [],
        "score": [],
    }
    for stage in plan.stages.values():
        for patience in stops[stage.kind]:
            looks = iter(range(10**6))
            ended = execute(stage, store, registry, options, lambda _: None, lambda p=patience, i=looks: next(i) >= p)
            assert ended == "interrupted"
            assert not store.done(stage.kind, stage.id)
        assert execute(stage, store, registry, options, lambda _: None) == "done"
        assert store.status(stage.kind, stage.id)["attempt"] == len(stops[stage.kind]) + 1
    assert outputs(tmp_path) == whole


def test_the_time_of_interrupted_attempts_is_counted(registry, tmp_path):
    plan = make_plan(make_study(TINY, registry), registry)
    stage = next(s for s in plan.stages.values() if s.kind == "train")
    store, options = Store(tmp_path), StageOptions(device="cpu")
    execute(stage, store, registry, options, lambda _: None, lambda: True)
    first = store.status("train", stage.id)["seconds"]
    execute(stage, store, registry, options, lambda _: None)
    assert store.status("train", stage.id)["seconds"] > first > 0


@pytest.mark.long
@pytest.mark.parametrize("torn", [0, 1, 4])
def test_metrics_after_the_checkpoint_torn_or_whole_are_written_once(registry, whole, tmp_path, torn):
    run(prepare(TINY, out=tmp_path, registry=registry, run_options=RunOptions(1, "cpu", "inline", checkpoint_every=3)))
    (train,) = (tmp_path / "store" / "train").glob("*/*")
    # As a kill during the append of step 6, or just after it, would leave it: step 3 is what was saved.
    shutil.rmtree(train / "out")
    shutil.rmtree(train / "ckpt" / "00000006")
    os.truncate(train / "metrics.jsonl", (train / "metrics.jsonl").stat().st_size - torn)
    run(prepare(TINY, out=tmp_path, registry=registry, run_options=RunOptions(1, "cpu", "inline")))
    assert outputs(tmp_path) == whole


@pytest.mark.long
def test_a_stage_that_another_process_runs_is_waited_for(registry, tmp_path):
    plan = make_plan(make_study(TINY, registry), registry)
    stage, store = next(iter(plan.stages.values())), Store(tmp_path)
    events = []
    with claimed(store.folder(stage.kind, stage.id), "another run"):
        state = execute(stage, store, registry, StageOptions(device="cpu"), events.append, lambda: True)
    assert state == "interrupted"
    assert events[0]["note"] == f"process {os.getpid()} on {socket.gethostname()} runs it"
    assert not store.done(stage.kind, stage.id)


def test_the_claim_on_a_finished_stage_is_given_back(registry, tmp_path):
    plan = make_plan(make_study(TINY, registry), registry)
    stage, store = next(iter(plan.stages.values())), Store(tmp_path)
    execute(stage, store, registry, StageOptions(device="cpu"), lambda _: None)
    folder = store.folder(stage.kind, stage.id)
    assert store.done(stage.kind, stage.id)
    assert not store.held(stage.kind, stage.id)
    assert sorted(p.name for p in folder.iterdir()) == ["out", "spec.json", "status.json"]


# A U-Net whose training, where it is told to, creeps from its 30th step on, two seconds a step: it is caught in the
# middle however fast or slow the machine is, and costs no processor time meanwhile.
SLOW = """
import os, time
from dataclasses import dataclass
import ddpmkit
from ddpmkit import Backbone, hookimpl

@dataclass(frozen=True)
class Creeping(Backbone):
    name = "creeping"

    def build(self, **shape):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = ddpmkit.build("backbone", "unet:channels=4:mults=1").build(**shape)
                self.passes = 0

            def forward(self, x, t, y=None):
                if self.training and x.device.type == "cpu":
                    self.passes += 1
                    if self.passes >= 30 and os.environ["CREEP"] == "yes":
                        time.sleep(2)
                return self.net(x, t, y)

        return Net()

@hookimpl
def ddpmkit_register_backbones():
    return [Creeping]
"""
LONG = [
    "--schedules", "linear", "--train-seeds", "0,1", "--train-steps", "60", "--batch-size", "8", "--samples", "4",
    "--sampling-steps", "2", "--timesteps", "50", "--backbones", "creeping", "--features", "pca:k=4",
    "--axis", "nll_evals=16", "--axis", "eval_batch=32", "--name", "study", "--checkpoint-every", "20",
    "--device", "cpu",
]  # fmt: skip
# The command as it is installed, without the pictures of its report, which nobody looks at here.
COMMAND = """
from ddpmkit.cli import entry
from ddpmkit.report.draw import charts, figures
from ddpmkit.report.show import html
charts.charts = html.charts = lambda records, summary: iter(())
figures.write_figures = lambda folder, summary, samples, charts: []
entry()
"""
INLINE = ("--executor", "inline")  # the same numbers, without the workers' start
HANGS = 900  # seconds; far beyond what a busy machine needs


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "creeping.py"
    path.write_text(SLOW)
    return str(path)


@pytest.fixture(scope="module")
def command(plugin, few_digits):
    """Start the study, or go on with it; ``creep`` keeps it in the middle of its trainings."""

    def start(out: Path, *more: str, creep: bool = False) -> subprocess.Popen[bytes]:
        # A group of its own, as a shell gives it: Ctrl-C reaches the workers too.
        argv = [sys.executable, "-c", COMMAND, "-p", plugin, "ablate", *LONG, "--dataset", few_digits, *more]
        return subprocess.Popen(
            [*argv, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "CREEP": "yes" if creep else "no"},
        )  # fmt: skip

    return start


def wait_for_checkpoints(process: subprocess.Popen[bytes], out: Path) -> None:
    until = time.monotonic() + HANGS
    while not list((out / "store").glob("train/*/*/ckpt/0*/COMMIT.json")):
        assert process.poll() is None, "it ended before it could be caught"
        assert time.monotonic() < until
        time.sleep(0.05)


def states(out: Path) -> set[str]:
    return {files.read_json(p)["state"] for p in (out / "store" / "train").glob("*/*/status.json")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, command):
    out = tmp_path_factory.mktemp("undisturbed")
    process = command(out, *INLINE)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 0, said
    return outputs(out)


@pytest.mark.slow
def test_kill_9_in_mid_training_and_the_same_command_again(undisturbed, command, tmp_path):
    process = command(tmp_path, creep=True)
    try:
        wait_for_checkpoints(process, tmp_path)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=HANGS)
    assert states(tmp_path) == {"running"}
    assert not list((tmp_path / "store").glob("train/*/*/out"))
    again = command(tmp_path)
    _, said = again.communicate(timeout=HANGS)
    assert again.returncode == 0, said
    assert outputs(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_code_and_a_store_that_goes_on(undisturbed, command, tmp_path, number, code):
    process = command(tmp_path, creep=True)
    try:
        wait_for_checkpoints(process, tmp_path)
    finally:
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=HANGS)
    assert process.returncode == code, said
    assert b"the same command goes on from here" in said
    assert b"Traceback" not in said
    assert states(tmp_path) == {"interrupted"}
    again = command(tmp_path, *INLINE)
    _, said = again.communicate(timeout=HANGS)
    assert again.returncode == 0, said
    assert outputs(tmp_path) == undisturbed
