"""A plugin of every kind that was written against version 1 of the plugin API, and is never edited, keeps working."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ddpmkit import ablate, load_results, tables_for
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.registry import Registry

PLUGIN = Path(__file__).with_name("frozen_api_1.py")
FROZEN = "b1131c67dd27d75cf8f72881b73cdd4bfeebeedf8cea6adc5a3ed908c82ee5fb"


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("ddpmkit_p_"):
            del sys.modules[name]


def test_it_is_frozen() -> None:
    # Who has to edit it has broken what authors build on; what is new has a plugin of its own.
    assert hashlib.sha256(PLUGIN.read_bytes()).hexdigest() == FROZEN


def test_it_brings_one_component_of_every_kind(forget: None) -> None:
    registry = Registry([str(PLUGIN)], installed=False, strict=True)
    assert {(e.kind, e.name) for e in registry.foreign()} == {(kind, f"v1-{kind}") for kind in KINDS}


def test_its_numbers_stay(forget: None) -> None:
    registry = Registry([str(PLUGIN)], installed=False)
    tables = tables_for(registry.build("schedule", "v1-schedule:p=2"), 4)
    np.testing.assert_allclose(tables.alpha_bars[:3], [(3 / 4) ** 2, (2 / 4) ** 2, (1 / 4) ** 2])
    low, high = registry.build("sigma", "v1-sigma:factor=0.5").log_bounds(tables)
    np.testing.assert_allclose(np.exp([low, high]), [tables.betas / 2] * 2)
    weights = registry.build("weighting", "v1-weighting:gamma=2").weights(tables, low)
    np.testing.assert_allclose(1 / weights, 1 / tables.snr + 1 / 2)


@pytest.mark.long
def test_a_whole_study_runs_on_all_of_it(tmp_path: Path, forget: None, no_pictures: None) -> None:
    outcome = ablate(
        out=tmp_path, plugins=[str(PLUGIN)], jobs=1, device="cpu", executor="v1-executor", compile="off",
        schedules="linear,v1-schedule", sigmas="v1-sigma", weightings="v1-weighting",
        backbones="v1-backbone:channels=4:depth=1", predictions="v1-prediction", samplers="v1-sampler",
        dataset="v1-dataset:count=40", features="v1-features:side=2", metrics="fd,v1-metric,nll", train_seeds="0",
        train_steps=6, samples=8, sampling_steps=3, timesteps=40, batch_size=8, eval_batch=8, nll_evals=16, warmup=1,
        name="v1", on_event=lambda event: None,
    )  # fmt: skip
    found = load_results(outcome.folder)
    assert set(found["status"]) == {"done"}
    assert set(found["schedule"]) == {"linear", "v1-schedule"}
    assert np.isfinite(found["value"]).all()
    assert {"FD-v1-features2", "v1-metric", "NLL"} <= set(found["metric"])
