"""A study that is killed at random moments, and started again each time, ends with the numbers of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import files
from ddpmkit.report.read.frames import read_study

OPTIONS = (
    "--schedules", "linear,cosine", "--train-seeds", "0", "--train-steps", "24", "--batch-size", "8", "--samples", "8",
    "--sampling-steps", "4", "--timesteps", "24", "--nll-evals", "16", "--features", "pca:k=2", "--metrics", "fd,nll",
    "--backbones", "unet:channels=4:mults=1", "--checkpoint-every", "3", "--jobs", "1", "--name", "loop",
)  # fmt: skip
NUMBERS = ["cell", "train_seed", "sample_seed", "metric", "value", "standard_error", "evaluations", "parameters"]


def begin(out: Path, dataset: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ddpmkit", "--no-plugins", "ablate", "--dataset", dataset, *OPTIONS]
    where = ["--out", str(out)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, *where], start_new_session=True, stdout=quiet, stderr=quiet)


def outcome(out: Path) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    """Every number of the report, and the hashes of every file of every last checkpoint."""
    frame = read_study(out / "studies" / "loop").results
    rows = sorted(tuple(map(repr, row)) for row in frame[NUMBERS].itertuples(index=False))
    last = [max(p for p in folder.glob("[0-9]*") if p.name.isdecimal()) for folder in out.glob("store/train/*/*/ckpt")]
    return rows, {f"{p.parent.parent.name}/{p.name}": files.read_json(p / files.COMMIT)["files"] for p in last}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, few_digits: str) -> tuple[float, Any]:
    """How long a run takes that is left alone, and what comes of it."""
    out = tmp_path_factory.mktemp("whole") / "results"
    started = time.monotonic()
    assert begin(out, few_digits).wait() == 0
    return time.monotonic() - started, outcome(out)


def killed(folder: Path, dataset: str, kills: int, number: signal.Signals, seconds: float) -> list[Path]:
    """Run a study, killed at each start, until it ends all the same, and another one, until so many were killed."""
    chance, left, folders = random.Random(0), kills, []
    while left:
        folders.append(folder / str(len(folders)))
        code = -1
        while code != 0:
            process = begin(folders[-1], dataset)
            try:
                process.wait(chance.uniform(0.2, 1.0) * seconds if left else None)
            except subprocess.TimeoutExpired:
                # SIGKILL takes the workers too, as the end of a machine does; SIGTERM is for who began them.
                (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
            code = process.wait(60)
            assert code in (0, -number, 128 + number)
            left -= code != 0
    return folders


def check(tmp_path: Path, dataset: str, whole: tuple[float, Any], number: signal.Signals, kills: int) -> None:
    seconds, right = whole
    for out in killed(tmp_path, dataset, kills, number, seconds):
        assert outcome(out) == right


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_four_kills_of_each_kind(
    tmp_path: Path, few_digits: str, whole: tuple[float, Any], number: signal.Signals
) -> None:
    check(tmp_path, few_digits, whole, number, 4)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_hundred_kills(tmp_path: Path, few_digits: str, whole: tuple[float, Any], number: signal.Signals) -> None:
    check(tmp_path, few_digits, whole, number, 100)
