"""A study on the stand-in: its numbers, a preemption in the middle of it, and what is left behind."""

from __future__ import annotations

import json
import pickletools
import stat
import threading
import time

import ddpmkit
import pytest

from ddpmkit_slurm.submission import PREFIX

SETTINGS = {
    "schedules": "cosine", "train_steps": 100, "warmup": 2, "timesteps": 40, "sampling_steps": 4, "batch_size": 4,
    "eval_batch": 8, "samples": 8, "backbones": "unet:channels=4:mults=1", "metrics": "fd", "features": "pca:k=2",
    "train_seeds": "0",
}  # fmt: skip
SPEC = "slurm:places=2:every=2:partition=short"


def status(out, kind):
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"store/{kind}/*/*/status.json"))]


@pytest.fixture(scope="module")
def ran(lasting_cluster, tmp_path_factory):
    """A study of which one training is preempted once, and what was seen of its files meanwhile."""
    cluster, events, seen, jobs = lasting_cluster, [], {"modes": set(), "pickles": set(), "preempted": ""}, {}
    out = tmp_path_factory.mktemp("there")

    def look(event):
        events.append(event)
        for folder in out.glob(f"{PREFIX}*"):
            seen["modes"].add(stat.S_IMODE(folder.stat().st_mode))
            seen["pickles"] |= {p.read_bytes() for p in folder.glob("*_submitted.pkl")}
        if event.get("note", "").endswith(": submitted"):
            jobs[event["stage"]] = event["note"].split()[1].rstrip(":")

    def preempt():
        """Send the signal of a preemption as soon as a training has a checkpoint."""
        until = time.monotonic() + 600
        while not seen["preempted"] and time.monotonic() < until:
            time.sleep(0.02)
            for checkpoint in out.glob("store/train/*/*/ckpt/*/COMMIT.json"):
                seen["preempted"] = jobs[checkpoint.parts[-4]]
                cluster.say("scancel", "--signal=USR2", seen["preempted"])
                break

    threading.Thread(target=preempt, daemon=True).start()
    outcome = ddpmkit.ablate(
        out=out, executor=SPEC, device="cpu", checkpoint_every=10, on_event=look, name="toy", **SETTINGS
    )
    return cluster, out, outcome, events, seen


def test_the_numbers_are_those_of_inline_though_a_training_was_preempted(ran, tmp_path):
    cluster, out, outcome, _, seen = ran
    assert outcome.code == 0
    quiet = {"device": "cpu", "checkpoint_every": 10, "on_event": lambda _: None, "name": "toy"}
    here = ddpmkit.ablate(out=tmp_path, executor="inline", **quiet, **SETTINGS)
    timed = ["seconds", "train_seconds"]
    there, here = (o.results().drop(columns=timed).to_csv(index=False) for o in (outcome, here))
    assert there == here
    assert here.count("\n") >= 2  # a head and a number

    # It was requeued by submitit, and went on from its checkpoint.
    assert [cluster.read(job)["restarts"] for job in cluster.jobs()].count(1) == 1
    assert cluster.read(seen["preempted"])["restarts"] == 1
    assert sum(call.startswith("scontrol requeue") for call in cluster.calls("scontrol")) == 1
    twice = [record for record in status(out, "train") if record["attempt"] == 2]
    assert len(twice) == 1
    assert twice[0]["earlier"]  # what an attempt before it ran on, whose checkpoint it took


def test_stages_that_are_ready_together_are_an_array(ran):
    cluster, _, outcome, events, _ = ran
    submitted = [e["note"] for e in events if e.get("note", "").endswith(": submitted")]
    assert len(submitted) == sum(outcome.states.values()) == outcome.states["done"]
    assert submitted[:2] == ["job 12_0: submitted", "job 12_1: submitted"]
    assert len(cluster.calls("sbatch")) < len(submitted)


def test_how_far_a_stage_is_comes_back(ran):
    _, _, _, events, _ = ran
    begun = {e["stage"] for e in events if e["event"] == "attempt"}
    assert begun == {e["stage"] for e in events if e["event"] == "end"}
    assert not [e for e in events if e["event"] == "log"]


def test_pickles_hold_text_and_lie_where_nobody_else_looks_and_nothing_is_left(ran):
    _, out, _, _, seen = ran
    assert seen["modes"] == {0o700}
    assert seen["pickles"]
    for pickled in seen["pickles"]:
        names, strings = set(), []
        for op, arg, _ in pickletools.genops(pickled):
            strings += [arg] if op.name.endswith("UNICODE") else []
            if op.name == "STACK_GLOBAL":
                names.add(tuple(strings[-2:]))
            assert not op.name.endswith(("BYTES", "BYTES8", "BYTEARRAY8"))  # no code
        assert names <= {("submitit.core.utils", "DelayedSubmission"), ("ddpmkit_slurm.attempt", "Attempt")}
    assert {p.name for p in out.iterdir()} == {"store", "studies"}
    assert not [p for p in out.rglob("*") if p.suffix in (".pkl", ".sh", ".half")]


def test_what_a_stage_printed_is_in_its_folder(ran):
    _, out, _, _, _ = ran
    logs = [path.read_text() for path in out.glob("store/train/*/*/log.txt")]
    assert logs
    assert all("Starting with JobEnvironment" in log for log in logs)
