"""Matched sums of betas: one command for what was published, and undertrained a first line that concludes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ddpmkit
from ddpmkit import build, files, load_results
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.write import write_report
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan
from ddpmkit.study.recipe import recipe_options
from ddpmkit.study.records import RefRecord
from ddpmkit.study.store import Store

RECIPE = recipe_options("matched-betas")


def test_one_training_serves_every_walk_of_a_schedule_and_seed() -> None:
    registry = Registry(installed=False)
    study = make_study(RECIPE, registry)
    assert study.name == "matched-betas-digits"
    assert {k: len(v) for k, v in study.axes.items() if len(v) > 1} == {
        "schedule": 3, "sampler": 2, "sampling_steps": 3
    }  # fmt: skip
    plan = make_plan(study, registry)
    kinds = [stage.kind for stage in plan.stages.values()]
    assert (kinds.count("train"), kinds.count("sample"), len(plan.results)) == (15, 90, 90)
    sums = {s: build("schedule", s).betas(study.base.timesteps).sum() for s in study.axes["schedule"]}
    assert np.isclose(sums["rescaled"], sums["linear"])
    assert not np.isclose(sums["cosine"], sums["linear"], rtol=0.1)


@pytest.mark.long
def test_an_undertrained_study_says_first_that_nothing_can_be_concluded(
    tmp_path: Path, few_digits: str, small: dict[str, object]
) -> None:
    axes = {k: RECIPE[k] for k in ("schedules", "samplers", "predictions")}
    more = {**axes, "dataset": few_digits, "train_steps": 2, "samples": 16, "metrics": "fd", "name": "raw"}
    outcome = ddpmkit.ablate(
        out=tmp_path / "out", executor="inline", jobs=1, on_event=lambda _: None, **{**small, **more}
    )
    assert outcome.code == 0
    plan = files.read_sealed(outcome.folder / "plan.json")
    assert plan is not None
    assert len(plan["cells"]) == 6
    (ref,) = [s["id"] for s in plan["stages"] if s["kind"] == "ref"]
    record = Store(tmp_path / "out").record(RefRecord, ref)
    assert record is not None
    assert record.n_unlearned == 16
    assert set(record.unlearned) == {"pure noise", "mean image", "Gaussian"}
    real, noise = record.floors["FD-pca2"], record.unlearned["pure noise"]["FD-pca2"]
    assert 0 <= real < record.unlearned["Gaussian"]["FD-pca2"] < noise
    values = load_results(outcome.folder).query("metric == 'FD-pca2'")["value"]
    first = (outcome.folder / "report.md").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("**Nothing can be concluded about image quality yet: "), (values, real, noise)
    assert "| pure noise n=16 |" in (outcome.folder / "report.md").read_text(encoding="utf-8")
    summary = write_report(outcome.folder)
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert f'<p class="lead">{summary.caution.split("(")[0]}' in page
