"""``verify`` gives back what is stored, names what does not come back, and touches nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpmkit import DdpmkitError, files
from ddpmkit.cli import main
from ddpmkit.device import fingerprint
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.compared import numbers
from ddpmkit.study.execute import execute
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.records import RefRecord
from ddpmkit.study.runner import run
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.stages import read_stage
from ddpmkit.study.store import Store
from ddpmkit.study.verify import Verified, _same_optimiser, choose, verify

TINY: dict[str, Any] = {
    "train_steps": 52, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 24, "eval_batch": 32,
    "batch_size": 2, "features": "pca:k=2", "metrics": "fd,nll", "name": "one", "warmup": 1, "schedules": "linear",
    "backbones": "unet:channels=4:mults=1:middle_attention=false", "train_seeds": "0",
}  # fmt: skip
REGISTRY = Registry(installed=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, few_digits: str) -> Path:
    out = tmp_path_factory.mktemp("verify") / "results"
    options = RunOptions(1, "cpu", "inline")
    assert run(prepare({**TINY, "dataset": few_digits}, out=out, registry=REGISTRY, run_options=options)).code == 0
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "results"))


def verified(out: Path, **here: Any) -> dict[str, Verified]:
    """Every stage that can be computed again here, by kind; of several of a kind the one that is off."""
    store, now = Store(out), {**fingerprint(torch.device("cpu")), **here}
    found: dict[str, Verified] = {}
    for stage, same in choose(None, store, 99, seed=0, fingerprint=now).stages:
        one = verify(stage, store, REGISTRY, StageOptions(device="cpu"), here=same)
        if stage.kind not in found or not one.same:
            found[stage.kind] = one
    return found


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def forge(out: Path, kind: str, name: str, old: bytes, new: bytes) -> None:
    """Change a file of an output, and what was committed of it: damage that no hash gives away."""
    for folder in (out / "store" / kind).glob("*/*/out"):
        blobs = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != files.COMMIT}
        assert old in blobs[name]
        blobs[name] = blobs[name].replace(old, new)
        shutil.rmtree(folder)
        files.commit_folder(folder, blobs, {"stage": folder.parent.name})


def test_on_the_same_machine_every_byte_comes_back_and_nothing_is_touched(out: Path) -> None:
    before = tree(out)
    found = verified(out)
    assert set(found) == {"ref", "train", "sample", "draw", "nll", "score"}
    assert all(v.same and v.how == "whole" and v.difference == 0 for v in found.values())
    after = tree(out)
    assert {name: after.get(name) for name in before} == before
    assert all(name.startswith("store/data/") for name in {*after} - {*before})  # when the source was looked at


def test_elsewhere_numbers_are_held_to_a_tolerance_and_walks_are_left_alone(out: Path) -> None:
    found = verified(out, cpu_capability="another")
    assert {k: v.how for k, v in found.items()} == {
        "ref": "numbers", "nll": "numbers", "score": "numbers", "train": "first losses",
    }  # fmt: skip
    assert all(v.same for v in found.values())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_number_that_was_changed_with_its_hash_is_found(out: Path, elsewhere: bool) -> None:
    result = next((out / "store/score").glob("*/*/out/result.json"))
    value = repr(json.loads(result.read_text())["metrics"]["fd"]["plain"]).encode()
    forge(out, "score", "result.json", b'"plain": ' + value, b'"plain": 1' + value)
    found = verified(out, **({"torch": "another"} if elsewhere else {}))
    assert not found["score"].same
    assert found["score"].where.startswith("metrics.fd.plain: ")
    assert found["score"].difference > 1e-4
    assert all(v.same for k, v in found.items() if k != "score")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_record_that_is_older_than_its_fields_is_held_to_what_it_says(out: Path, elsewhere: bool) -> None:
    result = json.loads(next((out / "store/ref").glob("*/*/out/result.json")).read_text())
    here = {"torch": "another"} if elsewhere else {}

    def written(record: dict[str, Any]) -> dict[str, Verified]:
        for folder in (out / "store/ref").glob("*/*/out"):
            blobs = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != files.COMMIT}
            shutil.rmtree(folder)
            text = (json.dumps(record) + "\n").encode()
            files.commit_folder(folder, {**blobs, "result.json": text}, {"stage": folder.parent.name})
        return verified(out, **here)

    older = {k: v for k, v in result.items() if k not in RefRecord.later}
    assert {*result} - {*older} == {*RefRecord.later}
    assert written(older)["ref"].same
    assert not written({**older, "n_floor": 1})["ref"].same
    assert not written({k: v for k, v in result.items() if k != "baselines"})["ref"].same


def test_losses_that_were_changed_are_found_elsewhere(out: Path) -> None:
    log = next((out / "store/train").glob("*/*/metrics.jsonl"))
    rows = list(files.read_lines(log))
    files.write_lines(log, [files.canonical({**row, "loss": row["loss"] * 1.01}) for row in rows])
    found = verified(out, torch="another")["train"]
    assert not found.same
    assert found.where.startswith("loss 50: ")


def test_what_is_damaged_is_left_to_doctor(out: Path) -> None:
    shutil.rmtree(next((out / "store/train").glob("*/*/ckpt")))
    found = verified(out, torch="another")
    assert "train" not in found
    assert found["score"].same


def test_the_command_says_what_it_did(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-plugins", "verify", "one", "--stages", "3", "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["stages"]) == 3
    assert "3 of 8 stages, drawn with seed 0: all as stored" in said.err
    forge(out, "nll", "result.json", b'"images": ', b'"images": 1')
    assert main(["--no-plugins", "verify", "one", "--stages", "99", "--out", str(out)]) == 1
    assert "differ" in capsys.readouterr().err


def test_the_same_seed_draws_the_same_stages_and_another_one_others(out: Path) -> None:
    now = fingerprint(torch.device("cpu"))
    draws = [
        [s.id for s, _ in choose("one", Store(out), 3, seed=seed, fingerprint=now).stages] for seed in (0, 0, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert draws[0] not in draws[2:]


def test_nothing_to_compute_again_is_refused(out: Path) -> None:
    for kind in ("ref", "train", "nll", "score", "sample", "draw"):
        shutil.rmtree(out / "store" / kind)
    with pytest.raises(DdpmkitError, match="nothing of study 'one' can be computed again here"):
        choose("one", Store(out), 3, seed=0, fingerprint={})


def status_of_training(out: Path, **changed: Any) -> None:
    """Write other things into the status of the training."""
    path = next((out / "store/train").glob("*/*/status.json"))
    status = files.read_sealed(path)
    assert status is not None
    changed = {k: v(status["fingerprint"]) if callable(v) else v for k, v in changed.items()}
    files.write_sealed(path, {**status, **changed})


def how_chosen(out: Path) -> bool:
    """Whether the training counts as run here."""
    chosen = choose(None, Store(out), 99, seed=0, fingerprint=fingerprint(torch.device("cpu"))).stages
    return next(here for stage, here in chosen if stage.kind == "train")


def test_a_training_of_which_a_part_was_made_elsewhere_is_not_held_to_every_byte(out: Path) -> None:
    assert how_chosen(out)
    for odd in (
        {"fingerprint": lambda f: {**f, "began": "torch 1.0"}},
        {"fingerprint": lambda f: {**f, "began": None, "network": "compiled, then eager"}},
        {"fingerprint": lambda f: {**f, "network": "eager"}, "earlier": lambda f: [f, {**f, "torch": "1.0"}]},
        {"earlier": [{}]},
    ):
        status_of_training(out, **odd)
        assert not how_chosen(out), odd
    status_of_training(out, earlier=lambda f: [f])
    assert how_chosen(out)
    # The layout is the training's own finding; the fingerprint of a machine has the usual one.
    status_of_training(out, fingerprint=lambda f: {**f, "memory_format": "contiguous"})
    assert how_chosen(out)


def test_a_resumed_training_remembers_what_its_earlier_attempts_ran_on(out: Path) -> None:
    folder = next((out / "store/train").glob("*/*"))
    shutil.rmtree(folder / "out")
    status_of_training(out, state="interrupted", fingerprint=lambda f: {**f, "device_name": "another"})
    plan = files.read_sealed(out / "studies/one/plan.json") or {}
    training = next(read_stage(s) for s in plan["stages"] if s["kind"] == "train")
    assert execute(training, Store(out), REGISTRY, StageOptions(device="cpu"), lambda _: None) == "done"
    status = Store(out).status("train", folder.name)
    assert [one["device_name"] for one in status["earlier"]] == ["another"]
    assert status["fingerprint"]["device_name"] != "another"
    assert not how_chosen(out)


def test_a_network_runs_as_it_did_whatever_would_pay_now(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def executed(stage: Any, store: Any, registry: Any, options: StageOptions, *_: Any) -> str:
        asked.append(options.compile)
        return "failed"

    monkeypatch.setattr("ddpmkit.study.verify.execute", executed)
    for ran, compiles in (("compiled", "on"), ("eager", "off")):
        status_of_training(out, fingerprint=lambda f, ran=ran: {**f, "network": ran})
        chosen = choose(None, Store(out), 99, seed=0, fingerprint=fingerprint(torch.device("cpu"))).stages
        training = next(stage for stage, _ in chosen if stage.kind == "train")
        for here in (True, False):
            verify(training, Store(out), REGISTRY, StageOptions(device="cpu"), here=here)
        assert asked[-2:] == [compiles, "auto"]


def test_the_sums_of_the_log_are_no_part_of_what_an_optimiser_is_held_to(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, sums, moment in zip(paths, (0.0, 1.0, 1.0), (2.0, 2.0, 3.0), strict=True):
        tensors = {"sums/": torch.full((2,), sums), "exp_avg/w": torch.full((2,), moment)}
        path.write_bytes(files.pack(tensors))
    assert _same_optimiser(paths[0], paths[1])
    assert not _same_optimiser(paths[0], paths[2])


@pytest.mark.parametrize(
    ("then", "now", "floor", "same"),
    [
        ({"loss 20": 0.03}, {"loss 20": 0.03002}, 0.0, True),
        ({"loss 20": 0.03}, {"loss 20": 0.0301}, 0.0, False),
        ({"kid": {"value": 1e-4}}, {"kid": {"value": 1.005e-4}}, 1e-3, True),
        ({"kid": {"value": 1e-4}}, {"kid": {"value": 1.5e-4}}, 1e-3, False),
        ({"fd": {"value": 0.1, "se": 2.0}}, {"fd": {"value": 0.101, "se": 2.0}}, 1e-3, True),
        ({"fd": {"value": 0.1, "se": 0.1}}, {"fd": {"value": 0.101, "se": 0.1}}, 1e-3, False),
        ({"fd": {"value": 0.1}}, {"fd": {"value": float("nan")}}, 1e-3, False),
        ({"n": 3, "label": "a"}, {"n": 3, "label": "b"}, 1e-3, False),
        # What older records say of a share of 1, and do not say of repeated points.
        ({"recall": {"value": 1.0, "se": 0.0}}, {"recall": {"value": 1.0, "se": None, "note": "copies"}}, 1e-3, True),
        ({"recall": {"value": 1.0, "se": 0.1}}, {"recall": {"value": 1.0, "se": None}}, 1e-3, False),
        ({"recall": {"value": 0.0}}, {"recall": {"value": None}}, 1e-3, False),
        ({"notes": ["a"]}, {"notes": ["a", "b"]}, 1e-3, True),
        ({"notes": ["a"]}, {"notes": ["b", "c"]}, 1e-3, False),
        ({"notes": ["a"]}, {"notes": ["b"]}, 1e-3, False),
    ],
)
def test_numbers_are_held_to_their_own_size(then: Any, now: Any, floor: float, same: bool) -> None:
    assert numbers(then, now, 1e-3, floor)[0] == same


def test_what_reads_a_damaged_stage_is_left_out_and_the_damage_stays_where_it_is(out: Path) -> None:
    next((out / "store/sample").glob("*/*/out/*.safetensors")).write_bytes(b"damaged")
    next((out / "store/train").glob("*/*/ckpt/00000052/model.safetensors")).write_bytes(b"damaged")
    before = tree(out)
    found = verified(out)
    assert set(found) == {"ref", "nll"}
    after = tree(out)
    assert {name: after.get(name) for name in before} == before


def test_ctrl_c_ends_it_after_what_was_compared(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def pressed(stage: Any, *args: Any, should_stop: Callable[[], bool], **options: Any) -> Verified:
        begun.append(stage.id)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            assert should_stop()
        return Verified(stage.kind, stage.id, stage.label, "whole", len(begun) < 2, 0.0)

    monkeypatch.setattr("ddpmkit.study.verify.verify", pressed)
    assert main(["--no-plugins", "verify", "one", "--stages", "5", "--out", str(out), "--json"]) == 130
    assert len(begun) == 2
    said = capsys.readouterr()
    assert len(json.loads(said.out)["stages"]) == 1
    assert "it was stopped" in said.err
