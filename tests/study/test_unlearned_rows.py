"""A study that ran: its reference knows what noise scores, and undertrained on purpose its report says so first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import files
from ddpmkit.report.write import write_report
from ddpmkit.study.records import RefRecord
from ddpmkit.study.store import Store


@pytest.mark.long
def test_an_undertrained_study_says_first_that_nothing_can_be_concluded(
    tmp_path: Path, run_small: Callable[..., Any]
) -> None:
    options = {"train_steps": 2, "samples": 16, "metrics": "fd", "schedules": "cosine,rescaled", "samplers": "ddim"}
    outcome = run_small(tmp_path / "out", name="raw", **options)
    assert outcome.code == 0
    plan = files.read_sealed(outcome.folder / "plan.json")
    (ref,) = [s["id"] for s in plan["stages"] if s["kind"] == "ref"]
    record = Store(tmp_path / "out").record(RefRecord, ref)
    assert record is not None
    assert record.n_unlearned == 16
    assert set(record.unlearned) == {"pure noise", "mean image", "Gaussian"}
    real, noise = record.floors["FD-pca2"], record.unlearned["pure noise"]["FD-pca2"]
    assert 0 <= real < record.unlearned["Gaussian"]["FD-pca2"] < noise
    summary = write_report(outcome.folder)
    first = (outcome.folder / "report.md").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("**Nothing can be concluded about image quality yet: "), summary.intervals
    assert f'<p class="lead">{summary.caution.split("(")[0]}' in (outcome.folder / "report.html").read_text(
        encoding="utf-8"
    )
    assert "| pure noise n=16 |" in (outcome.folder / "report.md").read_text(encoding="utf-8")
