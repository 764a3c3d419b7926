"""Commands that are started together on one results folder share its work: nothing is done twice or mixed up."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.report.read.frames import read_study

OPTIONS = (
    "--schedules", "linear,cosine,sigmoid", "--sigmas", "beta,beta-tilde", "--samplers", "ancestral,ddim",
    "--train-seeds", "0", "--train-steps", "24", "--batch-size", "8", "--samples", "8", "--sampling-steps", "4",
    "--timesteps", "24", "--nll-evals", "16", "--features", "pca:k=2", "--metrics", "fd,nll",
    "--backbones", "unet:channels=4:mults=1", "--jobs", "1",
)  # fmt: skip
NUMBERS = ["cell", "train_seed", "sample_seed", "metric", "value", "standard_error", "evaluations"]


@pytest.mark.thorough
@pytest.mark.parametrize("names", [("same",) * 4, ("a", "b", "c", "d")], ids=["one study", "four studies"])
def test_four_commands_and_twelve_cells(tmp_path: Path, few_digits: str, names: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "ddpmkit", "--no-plugins", "ablate", "--dataset", few_digits, *OPTIONS]
    logs = [tmp_path / str(i) for i in range(4)]
    runs = []
    for name, log in zip(names, logs, strict=True):
        with log.open("w") as to:
            where = ["--name", name, "--out", str(tmp_path / "results")]
            runs.append(subprocess.Popen([*command, *where], stdin=subprocess.DEVNULL, stdout=to, stderr=to))
    said = {run.wait(): log.read_text() for run, log in zip(runs, logs, strict=True)}
    assert set(said) == {0}, said
    frames = [read_study(tmp_path / "results" / "studies" / name).results for name in {*names}]
    rows = [sorted(tuple(map(repr, row)) for row in frame[NUMBERS].itertuples(index=False)) for frame in frames]
    assert len({row[0] for row in rows[0]}) == 12
    assert all(one == rows[0] for one in rows)
    # Each stage was begun once, by whoever had it, and nothing of a claim or of a half-written file is left.
    statuses = [*(tmp_path / "results" / "store").glob("*/*/*/status.json")]
    assert {(files.read_sealed(p) or {}).get("attempt") for p in statuses} == {1}
    assert not [*(tmp_path / "results").rglob("claim*")]
    assert not [*(tmp_path / "results").rglob("*.tmp*")]
    # Every line of a progress log is whole: a clock in front, and none within.
    for log in logs:
        clocks = Counter(len(re.findall(r"\[\d+:\d\d\]", line)) for line in log.read_text().splitlines())
        assert set(clocks) <= {0, 1}, log.read_text()
