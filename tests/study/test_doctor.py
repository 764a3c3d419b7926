"""``doctor`` names every damaged file, and the next run does what it said: exactly that, aloud, and no number moves."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, files
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.read.frames import read_study
from ddpmkit.study.claim import claimed
from ddpmkit.study.doctor import NOTHING, Damage, check_up
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.store import Store

TINY: dict[str, Any] = {
    "train_steps": 4, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 24, "eval_batch": 32,
    "batch_size": 4, "features": "pca:k=2", "metrics": "fd,nll", "name": "one", "warmup": 1, "schedules": "linear",
    "backbones": "unet:channels=4:mults=1:middle_attention=false",
}  # fmt: skip
INLINE = RunOptions(1, "cpu", "inline", checkpoint_every=2)
NUMBERS = ["cell", "train_seed", "sample_seed", "metric", "value", "standard_error", "evaluations", "parameters"]
REGISTRY = Registry(installed=False)
Row = tuple[Any, ...]


def flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def zero(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes(len(data) - at)


def delete(data: bytes, chance: random.Random) -> None:
    return None


Damaging = Callable[[bytes, random.Random], bytes | None]
DAMAGES: tuple[Damaging, ...] = (flip, cut, zero, delete)


def ran(out: Path, seeds: str = "0-1") -> tuple[set[str], list[Row], list[str]]:
    """Run the study; return which stages ran, every number, and what was said."""
    ended, said = set(), []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "end":
            ended.add(event["stage"])
        if event["event"] == "log":
            said.append(event["text"])

    outcome = run(prepare({**TINY, "train_seeds": seeds}, out=out, registry=REGISTRY, run_options=INLINE), hear)
    assert outcome.code == 0
    frame = read_study(outcome.folder).results
    return ended, [tuple(map(repr, row)) for row in frame[NUMBERS].itertuples(index=False)], said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, few_digits: str) -> tuple[Path, list[Row]]:
    """A study that has grown, so that it has every kind of file; and its numbers."""
    TINY["dataset"] = few_digits
    out = tmp_path_factory.mktemp("doctor") / "results"
    ran(out, "0")
    return out, ran(out)[1]


@pytest.fixture
def copy(whole: tuple[Path, list[Row]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "results"))


def every_kind(out: Path) -> list[Path]:
    """A file of each kind, one of each kind of stage; of a training those of both its checkpoints."""
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file() and p.stat().st_size):
        found.setdefault(tuple(part for part in path.parts if len(part) not in (2, 64, 69)), path)
    return list(found.values())


def hurt(out: Path, file: Path, damage: Damaging, chance: random.Random) -> bool:
    """Damage a file; False where the content is the same by chance."""
    before = (out / file).read_bytes()
    after = damage(before, chance)
    if after is None:
        (out / file).unlink()
    else:
        (out / file).write_bytes(after)
    return after != before


def unseen(file: Path, damage: Damaging) -> bool:
    """What nobody can know: that a file was there which need not be."""
    return damage is delete and ({"stamps", "answers"} & {*file.parts} != set() or file.name == "network.json")


@pytest.mark.long
def test_a_whole_folder_is_whole_and_nothing_runs(whole: tuple[Path, list[Row]]) -> None:
    found = check_up(Store(whole[0]))
    assert not found.damaged
    assert found.files == sum(1 for p in whole[0].rglob("*") if p.is_file())  # each of them was looked at
    assert ran(whole[0]) == (set(), whole[1], [])


@pytest.mark.long
def test_what_was_staged_and_never_got_its_name_is_no_damage(copy: Path) -> None:
    for folder in sorted({p.parent for p in copy.rglob("*.json")}):
        (folder / ".tmp-1-00000000-half.json").write_text('{"half": ')
    assert not check_up(Store(copy)).damaged


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_the_damaged_file_is_named_and_no_other(copy: Path, damage: Damaging) -> None:
    chance = random.Random(2)
    for file in every_kind(copy):
        before = (copy / file).read_bytes()
        for _ in range(2 if damage is flip else 1):
            if not hurt(copy, file, damage, chance):
                continue
            named = [d.path for d in check_up(Store(copy)).damaged]
            harmless = file.name in ("FORMAT", "study.toml") and damage is not delete  # as a space for another
            if not (unseen(file, damage) or (harmless and not named)):
                assert named == [copy / file]
            (copy / file).write_bytes(before)
    assert not check_up(Store(copy)).damaged


def as_it_said(out: Path, right: list[Row]) -> list[Damage]:
    """Run the study, and hold the run against what doctor said; return what is damaged still."""
    damaged = check_up(Store(out)).damaged
    computed = {d.stage[1] for d in damaged if d.stage and d.then.startswith(("computes", "goes on", "trains"))}
    ended, numbers, said = ran(out)
    assert ended == computed
    assert numbers == right
    written = [d for d in damaged if d.then.startswith("writes it again") and d.stage]
    for d in written:
        assert any(d.path.name in line and d.label in line for line in said)
    return list(check_up(Store(out)).damaged)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_the_next_run_does_what_doctor_said(
    whole: tuple[Path, list[Row]], tmp_path: Path, damage: Damaging, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(3)
    for number, file in enumerate(every_kind(whole[0])):
        out = Path(shutil.copytree(whole[0], tmp_path / str(number)))
        if not hurt(out, file, damage, chance):
            continue
        damaged = check_up(Store(out)).damaged
        if file.name == "FORMAT" and damaged and damage is not delete:
            with pytest.raises(DdpmkitError, match="has format") as refused:
                ran(out)
            assert "FORMAT" in str(refused.value.hint)
            (out / file).write_text("1\n")
        capfd.readouterr()
        left = as_it_said(out, whole[1])
        if any(d.then.startswith(("computes", "goes on", "trains")) for d in damaged) and damage is not delete:
            assert "damaged" in capfd.readouterr().err, file
        # What nothing is computed from stays as it is: doctor said so of it.
        assert [d.path for d in left] in ([], [out / file]), file
        assert all(d.then.startswith(NOTHING) or "data" in file.parts for d in left), file
        shutil.rmtree(out)


@pytest.mark.long
def test_arrays_that_nothing_was_to_read_are_made_again(
    whole: tuple[Path, list[Row]], copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A finished study was left with damaged samples and weights until something read them."""
    for pattern in ("store/sample/*/*/out/samples.safetensors", "store/train/*/*/ckpt/00000004/ema.safetensors"):
        path = next(iter(sorted(copy.glob(pattern))))
        right = path.read_bytes()
        path.write_bytes(zero(right, random.Random(0)))
        assert [d.path for d in check_up(Store(copy), quick=True).damaged] == []  # of the right size
        (found,) = check_up(Store(copy)).damaged
        assert found.studies == ("one",)
        assert found.read_by
        assert as_it_said(copy, whole[1]) == []
        assert path.read_bytes() == right
        assert "is damaged; set aside" in capfd.readouterr().err


@pytest.mark.long
def test_the_command_names_it_changes_nothing_and_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", str(copy)]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(": whole")
    path = next(copy.glob("store/score/*/*/out/result.json"))
    path.write_bytes(path.read_bytes()[:-1])
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.rglob("*") if p.is_file()}
    for extra in ([], ["--quick"]):
        assert main(["doctor", "--out", str(copy), *extra]) == 1
        said = capsys.readouterr()
        file, why, then, label = said.out.splitlines()[1].split("\t")
        assert file == str(path.relative_to(copy))
        assert "bytes" in why
        assert then == "computes the stage again"
        assert label
        assert said.err.splitlines()[-1].endswith(": 1 damaged")
    assert main(["doctor", "--out", str(copy), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["whole"] is False
    assert record["damaged"][0]["path"] == str(path)
    assert record["damaged"][0]["stage"] == ["score", path.parts[-3]]
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.rglob("*") if p.is_file()} == before
    assert main(["doctor", "--out", str(copy / "nowhere")]) == 2
    assert "there is no store" in capsys.readouterr().err


@pytest.mark.long
def test_a_stage_that_somebody_runs_is_left_and_one_that_no_study_needs_is_said(copy: Path) -> None:
    path = next(copy.glob("store/score/*/*/out/result.json"))
    path.write_bytes(b"{}")
    with claimed(path.parent.parent, "run"):
        found = check_up(Store(copy))
        assert (found.damaged, found.busy) == ((), 1)
    shutil.rmtree(copy / "studies" / "one")
    (left,) = check_up(Store(copy)).damaged
    assert left.then.startswith("nothing: no study needs")


@pytest.mark.long
def test_an_edited_study_file_that_has_more_is_no_damage(copy: Path) -> None:
    path = copy / "studies" / "one" / "study.toml"
    text = path.read_text()
    path.write_text(text.replace("train_seeds = [0, 1]", "train_seeds = [0, 1, 2]"))
    assert not check_up(Store(copy)).damaged
    path.write_text(text.replace("train_seeds = [0, 1]", "train_seeds = [0]"))
    assert [d.path for d in check_up(Store(copy)).damaged] == [path]


def test_a_record_without_its_seal_or_with_other_spaces_is_said(tmp_path: Path) -> None:
    from ddpmkit.study.examine import NO_SEAL, SAME, record

    path = tmp_path / "status.json"
    files.write_sealed(path, {"state": "done"})
    assert record(path)[0].why == ""
    path.write_bytes(path.read_bytes().replace(b" ", b"\t", 1))
    assert record(path)[0].why == SAME
    files.write_json(path, {"state": "done"})
    assert record(path)[0].why == NO_SEAL
