"""Stages that go wrong: limits of time, retries, a canary, failures alike; and what no stage does to others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpmkit import files
from ddpmkit.device import fingerprint
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.study.alike import collapsed, signature
from ddpmkit.study.execute import execute
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.store import Store
from ddpmkit.study.verify import choose

TINY = {
    "train_steps": 3, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 24, "eval_batch": 16,
    "batch_size": 8, "train_seeds": "0", "metrics": "nll", "warmup": 0, "name": "s",
}  # fmt: skip

PLUGIN = """
import os, resource, time
from dataclasses import dataclass
from pathlib import Path
from ddpmkit import Backbone, hookimpl, param

def act(how, mark):
    here = Path(mark)
    if how == "slow":
        time.sleep(0.4)
    if how == "fails":
        tries = len(list(here.glob("*"))) + 1
        (here / str(tries)).touch()
        if tries < 3:
            raise RuntimeError(f"attempt {tries} at {id(object()):#x}")
    if how == "always":
        raise RuntimeError(f"seed {time.time()}")
    if how == "hangs":
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
    if how == "closes":
        os.close(1)
        os.close(2)
        raise RuntimeError("nobody hears this on a terminal")
    if how == "daemon":  # in a session of its own, with all that its parent has open
        if os.fork() == 0:
            os.setsid()
            (here / "pid").write_text(str(os.getpid()))
            time.sleep(60)
            os._exit(0)
    if how == "full":  # from now on no file of this process grows, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

@dataclass(frozen=True)
class Acts(Backbone):
    name = "acts"
    how: str = param("quiet", "what it does")
    mark: str = param(".", "a folder")

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        import torch
        from torch import nn
        how, mark = self.how, self.mark

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.acted = nn.Conv2d(in_channels, out_channels, 1), False

            def forward(self, x, t, y=None):
                if how == "large" and self.training and len(x) > 4 and x.device.type != "meta":
                    raise torch.OutOfMemoryError(f"no room for {len(x)}")
                if x.device.type != "meta" and (not self.acted or (how == "slow" and self.training)):
                    self.acted = True
                    act(how, mark)
                return self.layer(x)

        return Net()

@hookimpl
def ddpmkit_register_backbones():
    return [Acts]
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    path = tmp_path_factory.mktemp("plugin") / "faulty_plugin.py"
    path.write_text(PLUGIN)
    return Registry([str(path)], installed=False)


@pytest.fixture
def study(registry: Registry, few_digits: str, tmp_path: Path) -> Any:
    """Run a study of these networks; its outcome, and what it said."""

    def call(*how: str, executor: str = "inline", jobs: int = 1, out: Path = tmp_path, **options: Any) -> Any:
        kept = {k: options.pop(k) for k in ("timeout", "retries", "canary", "stop_after") if k in options}
        given = {**TINY, "dataset": few_digits, "backbones": ",".join(f"acts:how={h}" for h in how), **options}
        events: list[dict[str, Any]] = []
        ready = prepare(given, out=out, registry=registry, run_options=RunOptions(jobs, "cpu", executor, **kept))
        outcome = run(ready, events.append)
        return outcome, [e["text"] for e in events if e["event"] == "log"], events

    return call


def trainings(out: Path) -> list[dict[str, Any]]:
    return [files.read_sealed(p) or {} for p in sorted(out.glob("store/train/*/*/status.json"))]


@pytest.mark.long
def test_a_stage_over_its_time_ends_with_a_checkpoint_from_which_it_goes_on(study: Any, tmp_path: Path) -> None:
    late, _, _ = study("slow", train_steps=8, timeout=1.0)
    (record,) = trainings(tmp_path)
    assert (late.code, late.states["timed out"], record["state"]) == (Exit.FAILED, 1, "timed out")
    assert record["error"].startswith("it took longer than 1 s")
    saved = sorted(int(p.name) for p in tmp_path.glob("store/train/*/*/ckpt/*"))
    assert saved
    assert saved[-1] < 8
    whole, _, _ = study("slow", train_steps=8)
    (record,) = trainings(tmp_path)
    assert (whole.code, record["state"], record["attempt"]) == (Exit.DONE, "done", 2)


@pytest.mark.long
def test_what_fails_is_tried_again_so_often_and_no_more(study: Any, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    how = f"fails:mark={tmp_path / 'marks'}"
    outcome, said, events = study(how, retries=2)
    assert outcome.code == Exit.DONE
    assert [text.rpartition("(")[2] for text in said if "is tried again" in text] == ["attempt 2)", "attempt 3)"]
    assert Counter(e["event"] for e in events)["requeued"] == 2
    again, said, _ = study("always", retries=2, name="t")
    assert (again.code, sum("is tried again" in text for text in said)) == (Exit.FAILED, 2)
    (record,) = (r for r in trainings(tmp_path) if r["state"] == "failed")
    assert record["attempt"] == 3


@pytest.mark.long
def test_a_diverged_stage_is_not_tried_again(study: Any, tmp_path: Path) -> None:
    outcome, said, _ = study("quiet", retries=2, learning_rate="1e30", train_steps=20)
    assert outcome.states.get("diverged") == 1
    assert not any("tried again" in text for text in said)
    assert [r["attempt"] for r in trainings(tmp_path)] == [1]


@pytest.mark.long
def test_nothing_is_run_behind_a_canary_that_does_not_end_well(study: Any, tmp_path: Path) -> None:
    outcome, said, events = study("always", "quiet", canary=True)
    assert outcome.code == Exit.FAILED
    assert sum(e["event"] == "start" for e in events) == 1
    assert any(text.endswith("is failed: nothing else is run") and text.startswith("the canary, ") for text in said)
    assert not any("returned and left" in text for text in said)
    outcome, said, events = study("quiet", "always", canary=True, name="t")
    order = [e["stage"] for e in events if e["event"] == "end"]
    assert outcome.states == {"done": 5, "failed": 1, "blocked": 4}
    assert len(order) == len({*order}) == 6
    assert not any("canary" in text for text in said)


@pytest.mark.long
def test_a_run_stops_once_so_many_stages_have_failed_alike(study: Any, tmp_path: Path) -> None:
    outcome, said, events = study("always", train_seeds="0-5", stop_after=3)
    assert outcome.code == Exit.FAILED
    assert sum(e["event"] == "end" for e in events) == 3
    assert any(text.startswith("3 stages failed alike, and the run stops: RuntimeError: seed ") for text in said)
    assert not any("returned and left" in text for text in said)
    a, b = trainings(tmp_path)[:2]
    assert a["error"] != b["error"]
    assert signature(a) == signature(b)
    assert signature({"error": "no"}) != signature({"error": "nope"})


@pytest.mark.long
def test_a_training_that_runs_out_of_memory_goes_on_with_fewer_images_at_once_and_is_kept_apart(
    study: Any, tmp_path: Path, capsys: Any
) -> None:
    outcome, _, _ = study("quiet", "large")
    assert outcome.code == Exit.DONE
    assert capsys.readouterr().err.count("memory ran out; it goes on with 4 images at once, not 8") == 1
    found = {p.parts[-3]: files.read_json(p) for p in tmp_path.glob("store/train/*/*/out/result.json")}
    assert sorted(r.get("micro_batch", 0) for r in found.values()) == [0, 4]
    # As many images at once from the beginning: the same numbers to the last bit, and not kept apart.
    study("large", axis="micro_batch=4", name="four")
    rows = read_study(outcome.folder).results.set_index(["cell", "metric", "train_seed"])
    four = read_study(outcome.folder.parent / "four").results.set_index(["metric", "train_seed"])
    large = next(cell for cell in rows.index.levels[0] if "large" in cell)
    assert rows.loc[large]["value"].to_dict() == four["value"].to_dict()
    assert rows.loc[large]["definition"].str.endswith(" micro-batch=4").all()
    assert not four["definition"].str.contains("micro-batch").any()
    drawn = choose("s", Store(tmp_path), 99, seed=0, fingerprint=fingerprint(torch.device("cpu"))).stages
    assert [s.label for s, _ in drawn if s.kind == "train"] == ["train acts seed 0"]
    summary = summarise(read_study(outcome.folder))
    assert [c.n for contrasts in summary.differences.values() for c in contrasts.values()] == [0]  # nothing compared
    assert any("Memory ran out while these trained" in note and f"{large} (1 seed)" in note for note in summary.notes)


def test_ids_and_numbers_make_no_two_failures_of_one() -> None:
    said = ("training 3fa9c2de of 12.5 s at 0x7f", "training 00e1bb42aa17 of 12345678.5 s at 0x8e")
    assert {signature({"error": text}) for text in said} == {"training # of # s at #"}
    assert signature({"error": "no bedded decade"}) == "no bedded decade"


def test_failures_that_are_alike_are_said_once() -> None:
    problems = [(f"train a seed {n}", "failed", f"RuntimeError: no room at {n}") for n in range(4)]
    problems += [("sample b", "failed", "RuntimeError: other"), ("train c", "diverged", "the loss is nan at step 3")]
    assert collapsed([*problems, ("nll b", "pending", "")]) == [
        "train a seed 0 and 3 more: failed: RuntimeError: no room at 0",
        "sample b: failed: RuntimeError: other",
        "train c: diverged: the loss is nan at step 3",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "--retries can't be below 0"),
        ({"timeout": 0.0}, "nor --timeout 0"),
        ({"stop_after": 0}, "--stop-after must be at least 1"),
        ({"per_device": 0}, "--per-device must be at least 1"),
        ({"jobs": 2, "per_device": 2}, "both say how many workers"),
        ({"device": "cpu,tpu"}, "unknown device 'tpu'"),
    ],
    ids=str,
)
def test_what_can_not_be_asked_of_a_run_is_refused(options: dict[str, Any], message: str, registry: Registry) -> None:
    with pytest.raises(DdpmkitError) as caught:
        RunOptions(**options).check(registry)
    assert message in caught.value.message


def test_workers_are_so_many_a_device() -> None:
    assert RunOptions(device="cpu", per_device=3).workers() == 3
    assert RunOptions(device="cpu,cpu", per_device=2).devices() == ("cpu",)


@pytest.mark.long
def test_no_stage_holds_up_or_spoils_another(study: Any, tmp_path: Path) -> None:
    cells = ("hangs", "closes", f"daemon:mark={tmp_path}", "full")
    outcome, said, _ = study(*cells, executor="local:grace=0.2", jobs=2, timeout=12.0, out=tmp_path / "out")
    assert outcome.code == Exit.FAILED
    assert outcome.states == {"done": 5, "timed out": 1, "failed": 2, "blocked": 3 * 4}
    found = {r["label"].partition("how=")[2].split(":")[0].split(" ")[0]: r for r in trainings(tmp_path / "out")}
    assert {how: r["state"] for how, r in found.items()} == {
        "hangs": "timed out", "closes": "failed", "daemon": "done", "full": "failed",
    }  # fmt: skip
    assert found["hangs"]["error"] == "it took longer than 12 s, did not stop, and was killed"
    assert found["closes"]["error"].startswith("RuntimeError: nobody hears this")
    assert any("hangs" in text and "timed out" in text for text in said)


@pytest.mark.parametrize(
    ("name", "ours"), [("out/store/x", True), ("out2/x", False), ("out", True), (None, False), (3, False)]
)
def test_an_error_of_another_disk_is_no_stage_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, ours: bool
) -> None:
    def refuse(*_: Any) -> str:
        raise OSError(5, "Input/output error", str(tmp_path / name) if isinstance(name, str) else name)

    monkeypatch.setattr("ddpmkit.study.execute._execute", refuse)
    stage: Any = SimpleNamespace(kind="train", id="ab" * 32, label="one")
    asked: Any = (stage, Store(tmp_path / "out"), None, StageOptions(device="cpu"), lambda _: None)
    if ours:
        assert execute(*asked) == "failed"
        return
    with pytest.raises(OSError, match="Input/output"):
        execute(*asked)
