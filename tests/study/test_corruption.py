"""Every file of a store, flipped, cut, zeroed or deleted: right numbers, or a refusal that names the file.

Never a wrong number, and never a failure that stays.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.read.frames import read_study
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run

TINY = {
    "train_steps": 4, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 24, "eval_batch": 32,
    "batch_size": 4, "features": "pca:k=2", "train_seeds": "0", "name": "whole",
    "backbones": "unet:channels=4:mults=1:middle_attention=false",
}  # fmt: skip
# A second cell that reads the training, the draws and the reference of the first, and draws and scores by itself.
WIDER = {
    **TINY, "samplers": "ancestral,ddim", "sigmas": "beta-tilde,beta", "name": "wider",
    "only": ["beta-tilde ancestral", "beta ddim"],
}  # fmt: skip
INLINE = RunOptions(1, "cpu", "inline", checkpoint_every=2)
NUMBERS = ["cell", "train_seed", "sample_seed", "metric", "value", "standard_error", "evaluations", "parameters"]
REGISTRY = Registry(installed=False)


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


DAMAGES: tuple[Callable[[bytes, random.Random], bytes | None], ...] = (flip, cut, zero, delete)


def numbers(options: dict[str, Any], out: Path) -> tuple[int, list[tuple[Any, ...]]]:
    """Run a study and return its exit code and every number of it."""
    outcome = run(prepare(options, out=out, registry=REGISTRY, run_options=INLINE))
    frame = read_study(outcome.folder).results
    return int(outcome.code), [tuple(map(repr, row)) for row in frame[NUMBERS].itertuples(index=False)]


@pytest.fixture(scope="module", autouse=True)
def few(few_digits: str) -> None:
    TINY["dataset"] = WIDER["dataset"] = few_digits


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("store")
    assert numbers(TINY, out)[0] == 0
    return out


@pytest.fixture(scope="module")
def right(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    out = tmp_path_factory.mktemp("right") / "results"
    shutil.copytree(store, out)
    return {name: numbers(options, out)[1] for name, options in (("whole", TINY), ("wider", WIDER))}


def files_of(store: Path) -> list[str]:
    return sorted(str(p.relative_to(store)) for p in store.rglob("*") if p.is_file() and p.stat().st_size)


def trial(store: Path, out: Path, file: str, damaged: bytes | None, right: dict[str, list[tuple[Any, ...]]]) -> None:
    """Damage one file of a copy, run the study again and a wider one, each twice at most."""
    shutil.copytree(store, out)
    if damaged is None:
        (out / file).unlink()
    else:
        (out / file).write_bytes(damaged)
    for name, options in (("whole", TINY), ("wider", WIDER)):
        for attempt in range(2):
            refusal, code, found = "", 0, []
            try:
                code, found = numbers(options, out)
            except DdpmkitError as err:
                refusal = f"{err.message} {err.hint}"
            if refusal:
                assert Path(file).name in refusal
                return  # before anything ran
            wrong = set(found) - set(right[name])
            # A number that is missing is none that is wrong; the second run has it.
            assert all(row[4] == "nan" for row in wrong), (file, wrong)
            if code == Exit.DONE:
                assert found == right[name]
                break
            assert attempt == 0, f"{file}: a failure that stays"


@pytest.mark.long
def test_one_damage_to_each_file(
    store: Path, right: dict[str, list[tuple[Any, ...]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    for number, file in enumerate(files_of(store)):
        damage = DAMAGES[number % len(DAMAGES)]
        out = tmp_path / str(number)
        trial(store, out, file, damage((store / file).read_bytes(), chance), right)
        shutil.rmtree(out)


@pytest.mark.thorough
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_every_damage_to_every_file(
    store: Path,
    right: dict[str, list[tuple[Any, ...]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes, random.Random], bytes | None],
) -> None:
    chance = random.Random(1)
    for number, file in enumerate(files_of(store)):
        data = (store / file).read_bytes()
        for again in range(1 if damage is delete else 2):
            out = tmp_path / f"{number}-{again}"
            trial(store, out, file, damage(data, chance), right)
            shutil.rmtree(out)


@pytest.mark.long
def test_what_was_damaged_is_named_and_mended(store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The records of a finished stage are written again from the plan, whatever became of them."""
    out = tmp_path / "results"
    shutil.copytree(store, out)
    for name in ("spec.json", "status.json"):
        for path in out.glob(f"store/*/*/*/{name}"):
            whole = path.read_bytes()
            other = whole.replace(b'"kind"', b'"kint"').replace(b'"state"', b'"stote"')
            assert other != whole
            for damaged in (b"", b"[]", whole[:-5], other):
                path.write_bytes(damaged)
                assert numbers(TINY, out)[0] == 0
                if name == "spec.json":
                    assert path.read_bytes() == whole
                path.write_bytes(whole)
