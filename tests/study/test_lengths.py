"""Lengths at a constant rate are one training, and cooldowns branch off it: each bit for bit what it is alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.judge.learning import learned
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.study import begin
from ddpmkit.study.config import make_study
from ddpmkit.study.execute import execute
from ddpmkit.study.garbage import EARLIER, OPTIMISERS, _spare, collect, find_garbage
from ddpmkit.study.goes_on import apart
from ddpmkit.study.plan import make_plan
from ddpmkit.study.queue import ReadyQueue
from ddpmkit.study.runner import run
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store
from ddpmkit.study.trunks import needed_by_longer, spare_trunks
from ddpmkit.study.verify import verify
from ddpmkit.training import checkpoint

# Importance has a state of its own, dropout draws in every step, no length is one at which losses are reported.
COURSE = {
    "timestep_sampling": "importance", "dropout": "0.2", "micro_batch": 5, "timesteps": 40, "batch_size": 8,
    "backbones": "mlp:width=8:depth=1", "metrics": "nll", "nll_evals": 16, "eval_batch": 8, "warmup": 4,
    "train_seeds": "0", "learning_rate": "0.01", "sampling_steps": 2,
}  # fmt: skip
CPU = StageOptions(device="cpu", checkpoint_every=8, log_every=10)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(installed=False)


@pytest.fixture(scope="module")
def planned(registry, few_digits):
    """What plans trainings: (length, decay) -> the stage, trunks included."""

    def plan(lengths: str, decays: str = "constant", **options: object) -> dict[tuple[int, str], Stage]:
        axis = [f"lr_decay={decays}"]
        asked = {**COURSE, "dataset": few_digits, "train_steps": lengths, "axis": axis, **options}
        stages = make_plan(make_study(asked, registry), registry).stages
        return {(s.spec.steps, s.spec.lr_decay): s for s in stages.values() if s.kind == "train"}

    return plan


def made(stage: Stage, store: Store, registry: Registry, options: StageOptions = CPU) -> dict[str, bytes]:
    """Run a training, and return what is left of it: the last checkpoint, its output, its log."""
    assert execute(stage, store, registry, options, lambda _: None) == "done"
    folder = store.folder("train", stage.id)
    paths = (folder / "ckpt" / f"{stage.spec.steps:08d}", folder / "out", folder / "metrics.jsonl")
    whole = [path for place in paths for path in ([place] if place.is_file() else sorted(place.iterdir()))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in whole}


@pytest.fixture(scope="module")
def alone(planned, registry, tmp_path_factory) -> dict[tuple[int, str], dict[str, bytes]]:
    """Each training made at once, in a store of its own."""
    found = {}
    for key, stage in planned("12,24,36", "constant,cooldown", cooldown_share="0.5").items():
        if key in {(12, "constant"), (24, "constant"), (36, "constant"), (24, "cooldown")}:
            found[key] = made(stage, Store(tmp_path_factory.mktemp("alone")), registry)
    return found


@pytest.fixture(scope="module")
def steps_made() -> Iterator[list[int]]:
    """The steps of each training that ran, in order."""
    from ddpmkit.study.stages import train as stage

    made: list[int] = []
    whole = stage.Train.run

    def counted(self, w):
        output = whole(self, w)
        made.append(round(output.work / self.batch_size))
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.Train, "run", counted)
        yield made


def test_three_lengths_from_one_training_are_three_trainings_bit_for_bit(
    planned, registry, alone, steps_made, tmp_path
) -> None:
    store = Store(tmp_path)
    stages = planned("12,24,36")
    steps_made.clear()
    for length in (12, 24, 36):
        found = made(stages[length, "constant"], store, registry)
        assert {"out/result.json", "metrics.jsonl", f"ckpt/{length:08d}/optim.safetensors"} <= found.keys()
        assert found == alone[length, "constant"]
    assert steps_made == [12, 12, 12]  # the cost of the longest
    assert b"timesteps/square" in found["ckpt/00000036/optim.safetensors"]
    status = store.status("train", stages[36, "constant"].id)
    assert status["work"] == 12 * 8
    assert "began" not in status["fingerprint"]
    began = begin.began(store.folder("train", stages[36, "constant"].id))
    assert began is not None
    assert (began.training, began.step) == (stages[24, "constant"].id, 24)
    steps_made.clear()
    assert verify(stages[36, "constant"], store, registry, CPU, here=True).same
    assert steps_made == [36]  # computed again is computed from the first step
    second = store.status("train", stages[24, "constant"].id)["seconds"]
    assert began.seconds > second > 0  # with what the first twelve took


def test_a_longer_training_goes_on_after_a_collection_and_from_what_was_killed(
    planned, registry, alone, steps_made, tmp_path
) -> None:
    store, stages = Store(tmp_path), planned("24,36")
    made(stages[24, "constant"], store, registry)
    short, long = (store.folder("train", stages[n, "constant"].id) for n in (24, 36))
    assert needed_by_longer(store, short.name) == (short / "ckpt" / "00000024",)
    files.write_sealed(
        tmp_path / "studies" / "short" / "plan.json",
        {"study": "short", "cells": [], "results": [], "stages": [stages[24, "constant"].json()]},
    )
    assert collect(store, find_garbage(store)).items  # the checkpoint of step 16
    assert sorted(p.name for p in (short / "ckpt").iterdir()) == ["00000024"]
    steps_made.clear()
    looks = iter(range(10**6))
    stopped = execute(stages[36, "constant"], store, registry, CPU, lambda _: None, lambda: next(looks) >= 3)
    assert stopped == "interrupted"
    assert checkpoint.newest(long / "ckpt").step == 27
    shutil.rmtree(short)  # from here on it needs nobody
    assert made(stages[36, "constant"], store, registry) == alone[36, "constant"]
    assert steps_made == [12]


def test_a_training_goes_on_from_one_that_was_stopped_before_its_end(planned, registry, alone, tmp_path) -> None:
    store, stages = Store(tmp_path), planned("24,36")
    looks = iter(range(10**6))
    execute(stages[36, "constant"], store, registry, CPU, lambda _: None, lambda: next(looks) >= 18)
    assert made(stages[24, "constant"], store, registry) == alone[24, "constant"]
    assert begin.began(store.folder("train", stages[24, "constant"].id)).step == 18
    assert made(stages[36, "constant"], store, registry) == alone[36, "constant"]


def test_a_branch_off_its_trunk_is_one_run_with_a_cooldown(planned, registry, alone, steps_made, tmp_path) -> None:
    store, stages = Store(tmp_path), planned("24", "cooldown", cooldown_share="0.5")
    assert [*stages] == [(12, "constant"), (24, "cooldown")]  # the trunk is a stage of the plan, and first
    branch, trunk = stages[24, "cooldown"], stages[12, "constant"]
    assert branch.needs == (("train", trunk.id),)
    assert made(trunk, store, registry) == alone[12, "constant"]
    steps_made.clear()
    assert made(branch, store, registry, replace(CPU, checkpoint_every=1000)) == alone[24, "cooldown"]
    assert steps_made == [12]
    assert alone[24, "cooldown"]["out/result.json"] != alone[24, "constant"]["out/result.json"]
    # Of its two checkpoints the first is the trunk's, which has it; were that gone, a longer training would need it.
    assert needed_by_longer(store, branch.id) == ()
    both = {("train", trunk.id), ("train", branch.id)}
    assert [p.name for _, p in _spare(store, "train", branch.id, both, deep=False)] == ["00000012"]
    # A trunk that no study needs goes at the same time, and one without its optimiser's state is no trunk.
    assert list(_spare(store, "train", branch.id, {("train", branch.id)}, deep=False)) == []
    last = store.folder("train", trunk.id) / "ckpt" / "00000012"
    files.let_go(last, "optim.safetensors")
    (last / "optim.safetensors").unlink()
    assert [p.name for p in needed_by_longer(store, branch.id)] == ["00000012"]
    shutil.rmtree(store.folder("train", trunk.id))
    assert [p.name for p in needed_by_longer(store, branch.id)] == ["00000012"]
    assert list(_spare(store, "train", branch.id, both, deep=False)) == []
    assert [what for what, _ in _spare(store, "train", branch.id, both, deep=True)] == [EARLIER, OPTIMISERS]


@pytest.mark.parametrize("harm", ["damaged", "no optimiser", "no sums", "another version"])
def test_what_can_not_be_gone_on_from_is_passed_over(harm, planned, registry, alone, tmp_path, monkeypatch) -> None:
    store, stages = Store(tmp_path), planned("12,24")
    made(stages[12, "constant"], store, registry)
    folder = store.folder("train", stages[12, "constant"].id)
    last = folder / "ckpt" / "00000012"
    if harm == "damaged":
        weights = (last / "ema.safetensors").read_bytes()
        (last / "ema.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    elif harm == "no optimiser":  # as gc --deep leaves it
        files.let_go(last, "optim.safetensors")
        (last / "optim.safetensors").unlink()
    elif harm == "no sums":  # as a ddpmkit left it that began to count anew at the end
        from safetensors.torch import load

        optim = load((last / "optim.safetensors").read_bytes())
        blobs = {p.name: p.read_bytes() for p in last.glob("*.safetensors")}
        shutil.rmtree(last)
        blobs["optim.safetensors"] = files.pack({**optim, "sums/": optim["sums/"] * 0})
        files.commit_folder(last, blobs, {"step": 12})
    else:
        named = files.read_json(folder / "spec.json")
        named["version"] += 1
        other = files.sha256(files.canonical(named).encode())
        files.write_json(folder / "spec.json", named)
        place = store.folder("train", other)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
    assert made(stages[24, "constant"], store, registry) == alone[24, "constant"]
    found = begin.began(store.folder("train", stages[24, "constant"].id))
    assert found is None or found.step == 8  # the checkpoint before
    assert (found is None) == (harm == "another version")


def test_only_a_training_that_was_cut_too_goes_on_from_one_whose_memory_ran_out(
    planned, registry, alone, tmp_path
) -> None:
    store, stages = Store(tmp_path), planned("12,24")
    made(stages[12, "constant"], store, registry)
    short, long = (store.folder("train", stages[n, "constant"].id) for n in (12, 24))
    cut = {"network": "eager", "micro_batch": 3}
    files.write_sealed(short / begin.NETWORK, cut)
    assert made(stages[24, "constant"], store, registry) == alone[24, "constant"]
    assert begin.began(long) is None
    shutil.rmtree(long)
    files.write_sealed(long / begin.NETWORK, {**cut, "micro_batch": 4})
    made(stages[24, "constant"], store, registry)
    assert begin.began(long) is None  # 3 at once are fewer than 4
    shutil.rmtree(long)
    files.write_sealed(long / begin.NETWORK, cut)
    made(stages[24, "constant"], store, registry)
    assert begin.began(long).step == 12
    assert store.result("train", long.name)["micro_batch"] == 3


def test_no_training_ends_at_a_step_of_another_one_at_which_that_one_reports_nothing(
    planned, registry, alone, tmp_path
) -> None:
    store, stages = Store(tmp_path), planned("12,24")
    looks = iter(range(10**6))
    execute(stages[24, "constant"], store, registry, CPU, lambda _: None, lambda: next(looks) >= 12)
    assert checkpoint.newest(store.folder("train", stages[24, "constant"].id) / "ckpt").step == 12
    assert made(stages[12, "constant"], store, registry) == alone[12, "constant"]
    assert begin.began(store.folder("train", stages[12, "constant"].id)).step == 8


def test_a_training_that_is_killed_has_said_on_what_it_ran_and_what_it_took(planned, registry, tmp_path) -> None:
    store, stage = Store(tmp_path), planned("12")[12, "constant"]
    path = store.folder("train", stage.id) / "status.json"
    seen = {}

    def look(event) -> None:
        if event["event"] == "progress" and "step" in event:
            seen[event["step"]] = files.read_sealed(path)

    assert execute(stage, store, registry, CPU, look) == "done"
    assert [record["state"] for record in seen.values()] == ["running"] * len(seen)
    assert [record["fingerprint"]["device"] for record in seen.values()] == ["cpu"] * len(seen)
    last = store.status("train", stage.id)
    assert seen[10]["fingerprint"] == last["fingerprint"]  # after the checkpoint of step 8
    assert 0 < seen[0]["seconds"] < seen[10]["seconds"] < last["seconds"]


def test_a_limit_shorter_than_what_comes_before_the_first_step_still_gets_on(planned, registry, tmp_path) -> None:
    store, stage = Store(tmp_path), planned("12")[12, "constant"]
    hasty = replace(CPU, timeout=1e-9)
    for step in (1, 2):
        assert execute(stage, store, registry, hasty, lambda _: None) == "timed out"
        assert checkpoint.newest(store.folder("train", stage.id) / "ckpt").step == step
    assert store.status("train", stage.id)["error"].endswith("goes on from its checkpoint")
    assert execute(stage, store, registry, hasty, lambda _: None, lambda: True) == "interrupted"


def test_a_copy_that_was_cut_off_is_not_where_a_training_began(planned, registry, alone, tmp_path, monkeypatch) -> None:
    store, stages = Store(tmp_path), planned("12,24")
    short, long = (store.folder("train", stages[n, "constant"].id) for n in (12, 24))
    looks = iter(range(10**6))
    execute(stages[24, "constant"], store, registry, CPU, lambda _: None, lambda: next(looks) >= 5)
    made(stages[12, "constant"], store, registry)
    with monkeypatch.context() as patch:
        patch.setattr(files, "commit_folder", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert execute(stages[24, "constant"], store, registry, CPU, lambda _: None) == "failed"
    assert begin.began(long).step == 12
    shutil.rmtree(short)
    assert made(stages[24, "constant"], store, registry) == alone[24, "constant"]
    assert begin.began(long) is None
    assert store.status("train", long.name)["work"] == 24 * 8


def test_no_other_training_is_gone_on_from(planned) -> None:
    constant = planned("30,60", "constant,cooldown,cosine", cooldown_share="0.5")
    short, long = constant[30, "constant"].spec, constant[60, "constant"].spec
    assert (short.shared(long), long.shared(short), long.shared(long)) == (30, 30, 60)
    assert constant[60, "cooldown"].spec.shared(long) == 30
    assert constant[30, "cooldown"].spec.shared(constant[60, "cooldown"].spec) == 15
    assert constant[60, "cosine"].spec.shared(long) == long.shared(constant[30, "cosine"].spec) == 0
    others = (
        {"train_seeds": "1"}, {"learning_rate": "0.02"}, {"warmup": 5}, {"batch_size": 4}, {"schedules": "cosine"},
        {"axis": ["lr_decay=constant", "ema=0.9"]}, {"weightings": "vlb"}, {"dropout": "0.1"},
    )  # fmt: skip
    for options in others:
        assert planned("60", **options)[60, "constant"].spec.shared(short) == 0, options


def test_the_plan_chains_lengths_and_counts_each_step_once(planned) -> None:
    stages = planned("40,10,20,36", "cooldown,constant", cooldown_share="0.25")
    follows = {key: next((k for k, s in stages.items() if s.id == v.follows), None) for key, v in stages.items()}
    assert follows == {
        (8, "constant"): None,
        (10, "constant"): (8, "constant"),
        (15, "constant"): (10, "constant"),
        (20, "constant"): (15, "constant"),
        (27, "constant"): (20, "constant"),
        (30, "constant"): (27, "constant"),
        (36, "constant"): (30, "constant"),
        (40, "constant"): (36, "constant"),
        (40, "cooldown"): (30, "constant"),  # 36 steps at a constant rate are more than it makes
        (36, "cooldown"): (27, "constant"),
        (20, "cooldown"): (15, "constant"),
        (10, "cooldown"): (8, "constant"),
    }
    order = [*stages]
    assert all(before is None or order.index(before) < order.index(key) for key, before in follows.items())
    assert sum(s.work for s in stages.values()) == pytest.approx((40 + 10 + 5 + 2 + 9) * 8)
    # A training is the same one whatever stands beside it.
    assert planned("40")[40, "constant"].id == stages[40, "constant"].id
    assert planned("40", "cooldown", cooldown_share="0.25")[40, "cooldown"].id == stages[40, "cooldown"].id
    assert planned("40")[40, "constant"].follows is None
    one = planned("40", "cooldown", cooldown_share="1")
    assert [*one] == [(40, "cooldown")]  # all of it falls: there is no trunk
    assert Stage.json(stages[20, "constant"])["follows"] == stages[15, "constant"].id


def test_a_grid_of_lengths_runs_each_step_once_and_every_length_is_seen_decayed(
    registry, few_digits, steps_made, tmp_path, capsys
) -> None:
    from ddpmkit.study.prepare import RunOptions, prepare

    asked = {
        **COURSE, "dataset": few_digits, "train_steps": "6,12", "axis": ["lr_decay=constant,cooldown"], "warmup": 1,
        "cooldown_share": "0.5", "name": "lengths",
    }  # fmt: skip
    steps_made.clear()
    options = {"out": tmp_path, "registry": registry, "run_options": RunOptions(1, "cpu", "inline")}
    outcome = run(prepare(asked, **options))
    assert outcome.code == 0
    assert sorted(steps_made) == [3, 3, 3, 6, 6]  # 3, 6 and 12 steps of the trunk, 3 and 6 of the branches
    steps_made.clear()
    grown = prepare({"study": "lengths", "train_steps": "6,12,18"}, **options)
    assert run(grown).code == 0
    assert sorted(steps_made) == [3, 6, 9]  # from 12 to 18; a trunk of 9 from 6, since 9 was passed by; its branch
    # Its learning curves are one figure, and its seconds are those of all steps of a length.
    curves = learned(records := read_study(outcome.folder), summarise(records))
    assert {metric: [*by_name] for metric, by_name in curves.items()} == {"NLL": ["constant", "cooldown"]}
    for by_name in curves.values():
        ((constant,), (cooldown,)) = by_name.values()
        assert constant.steps == cooldown.steps == (6, 12, 18)
        assert list(constant.seconds) == sorted(constant.seconds)
        assert len(set(constant.values + cooldown.values)) == 6
    store, stages = Store(tmp_path), grown.plan.stages
    long = next(s for s in stages.values() if s.kind == "train" and (s.spec.steps, s.spec.cooldown) == (18, 0))
    whole = sum(store.status("train", i)["seconds"] for i in _chain(store, long.id))
    assert constant.seconds[-1] == pytest.approx(whole, rel=1e-6)
    assert main(["plot", "learning", "lengths", "--out", str(tmp_path), "--to", str(tmp_path / "l.png")]) == 0
    assert (tmp_path / "l.png").stat().st_size > 10_000
    capsys.readouterr()
    (store.folder("train", long.id) / begin.BEGAN).write_text('{"seal": "of something else"}')
    assert begin.began(store.folder("train", long.id)) is None
    assert main(["doctor", "--quick", "--out", str(tmp_path)]) == 1
    assert "began.json" in capsys.readouterr().out


def test_a_branch_is_blocked_by_no_trunk_but_one_that_diverged(planned) -> None:
    trunk, branch = planned("24", "cooldown", cooldown_share="0.5").values()
    for diverged in (False, True):
        queue = ReadyQueue([trunk, branch])
        assert queue.next() is trunk
        queue.finished(trunk, ok=False, diverged=diverged)
        assert queue.next() is (None if diverged else branch)
    stages = {s.id: s for s in (trunk, branch)}
    assert spare_trunks(stages, {branch.id}, {trunk.id}) == {trunk.id}
    assert spare_trunks(stages, {branch.id}, {trunk.id, branch.id}) == set()
    assert spare_trunks(stages, {branch.id, trunk.id}, {trunk.id}) == set()  # it has results of its own


def test_a_trunk_that_fails_costs_no_result_and_is_not_tried_for_nobody(
    registry, few_digits, tmp_path, monkeypatch
) -> None:
    from ddpmkit.study.prepare import RunOptions, prepare
    from ddpmkit.study.stages.train import Train

    whole = Train.run

    def fails(self, w):
        if not self.cooldown:
            raise OSError("no trunk")
        return whole(self, w)

    monkeypatch.setattr(Train, "run", fails)
    asked = {**COURSE, "dataset": few_digits, "train_steps": "6", "axis": ["lr_decay=cooldown"], "warmup": 1}
    options = {"out": tmp_path, "registry": registry, "run_options": RunOptions(1, "cpu", "inline")}
    outcome = run(prepare({**asked, "cooldown_share": "0.5"}, **options))
    assert (outcome.code, outcome.states["failed"], outcome.states.get("blocked", 0)) == (0, 1, 0)
    again = prepare({**asked, "cooldown_share": "0.5"}, **options, probe=False)
    assert again.todo == ()
    assert run(again).code == 0


def _chain(store: Store, training: str) -> list[str]:
    before = begin.began(store.folder("train", training))
    return [training] if before is None else [training, *_chain(store, before.training)]


@pytest.mark.long
def test_plan_and_report_say_from_which_step_trainings_go_on(few_digits, no_pictures, capsys, tmp_path) -> None:
    asked = {**COURSE, "dataset": few_digits, "name": "l", "train_seeds": "0-1"}
    axis = ("warmup", "micro_batch", "learning_rate", "eval_batch")
    words = [w for k, v in asked.items() if k not in axis for w in (f"--{k.replace('_', '-')}", str(v))]
    words += [w for k in axis[:2] + axis[3:] for w in ("--axis", f"{k}={asked[k]}")]
    command = ["ablate", *words, "--out", str(tmp_path), "--executor", "inline", "-j", "1"]

    def said(*more: str) -> str:
        assert main([*command, *more]) == 0
        return capsys.readouterr().err

    assert "goes on" not in said("--train-steps", "12", "--axis", "lr_decay=constant")
    longer = ("--train-steps", "12,18,24", "--axis", "lr_decay=constant")
    line = "goes on: trainings, 2 of 18 steps from step 12, 2 of 24 steps from step 18 of what another one has left\n"
    assert line in said(*longer, "-n", "--no-probe")
    assert main([*command, *longer, "-n", "--json", "--no-probe"]) == 0
    found = json.loads(capsys.readouterr().out)["goes_on"]
    assert found == [{"trainings": 2, "steps": 18, "from": 12}, {"trainings": 2, "steps": 24, "from": 18}]
    told = said(*longer)
    assert line in told
    assert "lengths:" not in told
    notes = summarise(read_study(tmp_path / "studies" / "l")).notes
    assert (
        "Trainings that went on from what another one had left: 2 of 18 steps from step 12, 2 of 24 steps from step 18."
        in notes
    )
    # Another study goes on from what this one left, though none of its own is shorter.
    other = said("--train-steps", "30", "--axis", "lr_decay=constant", "--name", "other", "-n", "--no-probe")
    assert "goes on: trainings, 2 of 30 steps from step 24" in other


def test_lengths_that_share_no_step_are_named_with_what_would_share_them(planned) -> None:
    stages = [*planned("12,24", "cosine").values()]
    assert apart(stages, stages) == (12, 24)
    assert apart(stages, []) == ()
    assert apart(stages[:1], stages[:1]) == ()
    constant = [*planned("12,24").values()]
    assert apart(constant, constant) == ()
