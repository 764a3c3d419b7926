"""Running a study: nothing is done twice, neither order nor executor changes a number, a bad cell stops nothing."""

import gc
import json
import shutil
import warnings
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.queue import ReadyQueue
from ddpmkit.study.runner import Outcome, run

TINY = {
    "train_steps": 6, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 50, "eval_batch": 64,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=4", "train_seeds": "0",
}  # fmt: skip

# Cells that go wrong only once they run; planning, which builds every part on no device, finds nothing.
BAD = """
import os
from dataclasses import dataclass
from ddpmkit import Backbone, Executor, Pool, Schedule, Weighting, hookimpl, param, run_one

@dataclass(frozen=True)
class Raises(Backbone):
    name = "raises"

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(in_channels, out_channels, 1)

            def forward(self, x, t, y=None):
                raise RuntimeError("no luck")

        return Net()

@dataclass(frozen=True)
class Dies(Backbone):
    name = "dies"

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(in_channels, out_channels, 1)

            def forward(self, x, t, y=None):
                os._exit(9)

        return Net()

@dataclass(frozen=True)
class Explodes(Weighting):
    name = "explodes"

    def weights(self, tables, log_sigma2):
        return tables.snr * 1e300

@dataclass(frozen=True)
class Flat(Schedule):
    name = "flat"

    def betas(self, T):
        import numpy as np
        return np.full(T, 0.1)

class Places(Pool):
    places = 100  # all that can run is here, and any of it may be next

    def __init__(self, job, emit, dice):
        import random
        self.job, self.emit, self.dice, self.left = job, emit, random.Random(dice), []

    def submit(self, place, task):
        self.left.append(task)

    def poll(self, seconds):
        task = self.left.pop(self.dice.randrange(len(self.left)))
        state = run_one(self.job, task, self.emit)
        self.emit({"event": "end", "stage": task.id, "state": state, "kind": task.kind})

@dataclass(frozen=True)
class Shuffled(Executor):
    name = "shuffled"
    dice: int = param(0, "which order")

    def open(self, job, emit, should_stop):
        return Places(job, emit, self.dice)

@hookimpl
def ddpmkit_register_executors():
    return [Shuffled]

@hookimpl
def ddpmkit_register_backbones():
    return [Raises, Dies]

@hookimpl
def ddpmkit_register_weightings():
    return [Explodes]

@hookimpl
def ddpmkit_register_schedules():
    return [Flat]
"""


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    plugin = tmp_path_factory.mktemp("plugin") / "bad_plugin.py"
    plugin.write_text(BAD)
    return Registry([str(plugin)], installed=False)


@pytest.fixture(scope="module")
def study(few_digits):
    """Run a tiny study."""

    def call(out: Path, registry: Registry, executor: str = "inline", on_event=lambda _: None, **options) -> Outcome:
        options = {**TINY, "dataset": few_digits, **options}
        return run(prepare(options, out=out, registry=registry, run_options=RunOptions(2, "cpu", executor)), on_event)

    return call


def results(out: Path) -> dict[str, str]:
    """Every number in the store, by stage."""
    found = sorted((out / "store").glob("*/*/*/out/result.json"))
    return {str(p.relative_to(out)): p.read_text() for p in found}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Contents and times of change of all files."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


GRID = {"schedules": "linear,cosine", "sigmas": "beta,beta-tilde"}


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory, registry):
    out = tmp_path_factory.mktemp("finished")
    return out, study(out, registry, **GRID)


@pytest.mark.long
def test_a_study_ends_with_every_stage_done(finished):
    out, outcome = finished
    assert outcome.code == Exit.DONE
    assert outcome.states == {"done": 1 + 2 + 4 + 4 + 8 + 4}
    assert outcome.ran == 23
    assert len(results(out)) == 23


@pytest.mark.long
def test_a_second_run_runs_nothing_and_changes_no_number(study, finished, registry):
    out, first = finished
    before = snapshot(out / "store")
    events = []
    again = study(out, registry, on_event=events.append, **GRID)
    assert (again.ran, again.code, again.states) == (0, Exit.DONE, first.states)
    assert events == []
    assert snapshot(out / "store") == before


@pytest.mark.long
def test_another_study_shares_what_it_can(study, finished, registry, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    more = study(out, registry, **{**GRID, "schedules": "linear,cosine,sigmoid"})
    # Of the third schedule: one training, two samples, draws of two splits, their bounds under two sigmas, two scores.
    assert more.ran == 1 + 2 + 2 + 4 + 2


@pytest.mark.long
def test_the_order_of_stages_changes_no_number(study, finished, bad, tmp_path):
    events = []
    study(tmp_path, bad, "shuffled:dice=1", events.append, **GRID)
    assert results(tmp_path) == results(finished[0])
    kinds = [e["kind"] for e in events if e["event"] == "end"]  # all that can run have begun; this is their order
    assert kinds != sorted(kinds, key=["ref", "train", "sample", "draw", "nll", "score"].index)  # not the usual order


def test_stages_come_after_what_they_need_and_longest_kinds_first(registry, tmp_path):
    plan = prepare({**TINY, **GRID}, out=tmp_path, registry=registry).plan
    queue, order = ReadyQueue(reversed(list(plan.stages.values()))), []
    while (stage := queue.next()) is not None:
        order.append(stage)
        queue.finished(stage, ok=True)
    kinds = {"ref": 1, "train": 2, "sample": 4, "draw": 4, "nll": 8, "score": 4}
    assert [s.kind for s in order] == [kind for kind, n in kinds.items() for _ in range(n)]


def test_what_needs_a_failed_stage_is_never_handed_out(registry, tmp_path):
    plan = prepare({**TINY, "schedules": "linear,cosine"}, out=tmp_path, registry=registry).plan
    queue = ReadyQueue(plan.stages.values())
    failed, handed = None, set()
    while (stage := queue.next()) is not None:
        handed.add(stage.id)
        ok = failed is not None or stage.kind != "train"
        failed = failed or (None if ok else stage)
        queue.finished(stage, ok=ok)
    assert failed is not None
    assert sorted(s.kind for i, s in plan.stages.items() if i not in handed) == ["draw"] * 2 + ["nll"] * 2 + [
        "sample",
        "score",
    ]


@pytest.fixture(scope="module")
def by_workers(study, tmp_path_factory, bad):
    """The one run by worker processes in this file: a good backbone, and one that kills its worker."""
    out, events = tmp_path_factory.mktemp("local"), []
    options = {"backbones": "unet:channels=4:mults=1,dies", "schedules": "flat"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        outcome = study(out, bad, "local", events.append, **options)
        gc.collect()
    return out, outcome, events, [str(w.message) for w in caught]


@pytest.mark.long
def test_worker_processes_give_the_numbers_of_this_process(study, by_workers, bad, tmp_path):
    study(tmp_path, bad, "inline", schedules="flat")
    expected = results(tmp_path)
    assert len(expected) == 8
    assert results(by_workers[0]) == expected


@pytest.mark.long
def test_a_worker_that_dies_costs_its_stage_and_not_the_study(by_workers):
    _, outcome, events, _ = by_workers
    assert outcome.code == Exit.FAILED
    assert any("its worker died with exit code 9" in e.get("text", "") for e in events)
    assert outcome.states["done"] == 8


@pytest.mark.long
def test_a_stage_whose_worker_died_counts_as_failed(by_workers):
    # Every stage ends as done, failed, diverged or interrupted; what waits for it is blocked.
    assert by_workers[1].states == {"done": 8, "failed": 1, "blocked": 6}


@pytest.mark.long
def test_a_worker_that_died_leaves_no_open_pipe(by_workers):
    assert by_workers[3] == []


@pytest.mark.long
def test_a_cell_that_raises_or_diverges_does_not_stop_the_grid(study, bad, tmp_path, capsys):
    outcome = study(
        tmp_path, bad, backbones="raises,unet:channels=4:mults=1", weightings="simple,explodes", schedules="flat"
    )
    # Good cell: ref and seven stages. Two trainings raise; one diverges; six stages of each wait in vain.
    assert outcome.states == {"done": 8, "failed": 2, "diverged": 1, "blocked": 18}
    assert outcome.code == Exit.FAILED
    said = capsys.readouterr().err
    assert "failed: RuntimeError: no luck" in said
    assert "diverged: the loss is" in said


@pytest.mark.long
def test_a_failed_stage_is_tried_again_and_a_diverged_one_is_not(study, bad, tmp_path):
    options = {"backbones": "raises,unet:channels=4:mults=1", "weightings": "simple,explodes", "schedules": "flat"}
    first = study(tmp_path, bad, **options)
    events = []
    again = study(tmp_path, bad, on_event=events.append, **options)
    assert again.states == first.states
    # The same seed would diverge at the same step; what raised may have been the disk.
    assert [e["state"] for e in events if e["event"] == "end"] == ["failed", "failed"]


def test_how_a_stage_failed_is_in_its_record(study, bad, tmp_path):
    study(tmp_path, bad, backbones="raises", schedules="flat")
    (path,) = (tmp_path / "store" / "train").glob("*/*/status.json")
    record = json.loads(path.read_text())
    assert record["state"] == "failed"
    assert record["error"] == "RuntimeError: no luck"
    assert "in forward" in record["traceback"]
    assert record["attempt"] == 1


@pytest.mark.long
def test_a_name_used_by_another_grid_is_refused_and_nothing_changes(study, finished, registry, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    study(out, registry, name="mine")
    before = snapshot(out)
    with pytest.raises(DdpmkitError, match="'mine' is already used by another grid") as caught:
        prepare({**TINY, "name": "mine", "samples": 5}, out=out, registry=registry)
    assert caught.value.code == Exit.USAGE
    assert snapshot(out) == before
    study(out, registry, name="mine")  # the same grid goes on under its name


@pytest.mark.long
def test_a_plugin_of_ten_lines_takes_part_in_a_grid(study, bad, no_pictures, tmp_path):
    from ddpmkit.report.write import write_report

    outcome = study(tmp_path, bad, schedules="linear,flat", train_seeds="0,1")
    assert outcome.code == Exit.DONE
    write_report(outcome.folder)
    frame = outcome.results()
    assert set(frame["cell"]) == {"linear", "flat"}
    assert frame.groupby("cell").size().nunique() == 1  # as many rows as a built-in


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def only(out: Path, kind: str) -> Path:
    (folder,) = (out / "store" / kind).glob("*/*")
    return folder


@pytest.mark.long
def test_damaged_images_are_set_aside_and_drawn_again(study, registry, tmp_path):
    study(tmp_path, registry)
    expected = results(tmp_path)
    damaged(only(tmp_path, "sample") / "out" / "samples.safetensors")
    shutil.rmtree(only(tmp_path, "score"))
    assert study(tmp_path, registry).code == Exit.DONE  # what the score would find damaged is drawn again first
    assert list(only(tmp_path, "sample").glob("quarantined-out-*"))
    assert results(tmp_path) == expected


@pytest.mark.long
def test_a_damaged_last_checkpoint_never_gives_other_numbers(registry, few_digits, tmp_path):
    """Weights of an earlier step must not pass for those of the finished training."""
    how, options = RunOptions(1, "cpu", "inline", checkpoint_every=3), {**TINY, "dataset": few_digits}
    run(prepare(options, out=tmp_path, registry=registry, run_options=how))
    expected = results(tmp_path)
    damaged(only(tmp_path, "train") / "ckpt" / "00000006" / "ema.safetensors")
    for kind in ("sample", "draw", "nll", "score"):
        shutil.rmtree(tmp_path / "store" / kind)
    for _ in range(3):  # it may fail and heal, and it may train again; it may not be wrong
        outcome = run(prepare(options, out=tmp_path, registry=registry, run_options=how))
        found = results(tmp_path)
        assert found == {k: v for k, v in expected.items() if k in found}
    assert outcome.code == Exit.DONE
    assert found == expected


@pytest.mark.long
def test_a_training_whose_metrics_were_lost_can_still_be_finished(study, registry, tmp_path):
    # A power cut may take the last appended lines, which nobody fsyncs, and leave the checkpoint, which is fsynced.
    study(tmp_path, registry)
    train = only(tmp_path, "train")
    shutil.rmtree(train / "out")
    (train / "metrics.jsonl").write_bytes(b"")
    assert study(tmp_path, registry).code == Exit.DONE


def test_data_that_change_under_a_study_are_noticed(registry, tmp_path):
    import numpy as np

    def write(seed):
        dice = np.random.default_rng(seed)
        arrays = {k: dice.integers(0, 17, (n, 8, 8), dtype=np.uint8) for k, n in (("train", 30), ("test", 9))}
        np.savez(tmp_path / "a.npz", train_images=arrays["train"], test_images=arrays["test"])

    write(0)
    options = {**TINY, "dataset": f"npz:path={tmp_path / 'a.npz'}:levels=17:validation=5"}
    prepared = prepare(
        options, out=tmp_path / "out", registry=Registry(installed=False), run_options=RunOptions(1, "cpu", "inline")
    )
    write(1)
    outcome = run(prepared)
    assert outcome.code == Exit.FAILED
    assert "done" not in outcome.states
    (path,) = (tmp_path / "out" / "store" / "train").glob("*/*/status.json")
    assert "has changed since the stage was planned" in files.read_json(path)["error"]
