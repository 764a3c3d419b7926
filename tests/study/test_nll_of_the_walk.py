"""The bound of a study at few steps: that of the reverse walk's chain."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import ddpmkit
from ddpmkit.diffusion.reverse_variance import log_variance
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.bound_training import BoundRequest, bound_training
from ddpmkit.study.store import Store


@pytest.fixture(scope="module")
def walked(tmp_path_factory, run_small) -> Path:
    out = tmp_path_factory.mktemp("walk") / "results"
    options = {"metrics": "nll", "axis": ["nll_chain=full,walk"], "sampling_steps": "5,40", "sigmas": "beta,analytic"}
    run_small(out, name="walk", fit_images=8, **options)
    return out


def bounds(out: Path) -> dict[tuple[str, str, int], dict]:
    plan, store = json.loads((out / "studies/walk/plan.json").read_text()), Store(out)
    at = {c["label"]: c["settings"] for c in plan["cells"]}
    return {
        (at[r["cell"]]["sigma"], at[r["cell"]]["nll_chain"], at[r["cell"]]["sampling_steps"]): json.loads(
            (store.folder("nll", r["nll"]) / "out/result.json").read_text()
        )
        for r in plan["results"]
    }


def test_the_bound_of_a_walk_is_that_of_its_strided_chain(walked: Path) -> None:
    training = Store(walked).stages("train")
    asked = BoundRequest(sigma="beta", steps=5, evals=16, batch=8)
    alone = bound_training(Store(walked), Registry(installed=False), training[0], asked, device="cpu")
    found = bounds(walked)["beta", "walk", 5]
    assert len(training) == 1
    assert found["clipped"]["total"] == alone["clipped"]["total"]
    assert found["T"] == 5


def test_the_bound_of_a_walk_of_all_steps_is_the_full_one_and_the_full_one_sees_no_steps(walked: Path) -> None:
    found = bounds(walked)
    for sigma in ("beta", "analytic"):
        full = found[sigma, "full", 5]
        assert full == found[sigma, "full", 40] == found[sigma, "walk", 40]
        assert math.isfinite(full["clipped"]["total"])
        assert full["clipped"]["total"] != found[sigma, "walk", 5]["clipped"]["total"]


def test_the_full_chain_is_drawn_once_whatever_it_is_called(walked: Path) -> None:
    results = json.loads((walked / "studies/walk/plan.json").read_text())["results"]
    labels = {r["cell"]: r["nll"] for r in results}
    for sigma in ("beta", "analytic"):
        at = {steps: labels[f"{sigma} sampling_steps={steps} walk"] for steps in (5, 40)}
        full = {labels[f"{sigma} sampling_steps={steps} full"] for steps in (5, 40)}
        assert full == {at[40]}
        assert at[5] not in full
    # For either split: the full chain, and the walk of 5 steps; each one for both sigmas, whose fits look elsewhere.
    assert len(Store(walked).stages("draw")) == 4


def test_a_loaded_cell_gives_the_bound_of_its_walk_again(walked: Path) -> None:
    loaded = ddpmkit.load("walk", "analytic sampling_steps=5 walk", 0, out=walked, device="cpu")
    again = loaded.bits_per_dim(loaded.images.test)
    assert again.total == bounds(walked)["analytic", "walk", 5]["clipped"]["total"]


def test_a_fitted_variance_of_few_steps_is_that_of_gaussian_data() -> None:
    registry = Registry(installed=False)
    full = tables_for(registry.build("schedule", "linear"), 40)
    chain, c2 = full.strided([0, 9, 20, 39]), 0.25
    # For data N(0, c^2) the network's eps-error is c^2 a / (c^2 a + 1 - a), so that Var(x0 | x_t) is known.
    signal2, noise2 = full.signal**2, full.noise2
    known = c2 * noise2 / (c2 * signal2 + noise2)
    sigma = registry.build("sigma", "analytic")
    statistics = {"eps_squared": noise2 / (c2 * signal2 + noise2)}
    found = np.exp(log_variance(sigma, chain, statistics, full))
    exact = chain.posterior_variance + chain.posterior_x0**2 * known[chain.times]
    np.testing.assert_allclose(found[1:], exact[1:], rtol=1e-9)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [({"sampling_steps": "1"}, "needs two steps"), ({"decoder_variance": "fitted"}, "a walk may begin elsewhere")],
)
def test_what_has_no_bound_is_said(tmp_path: Path, prepare_small, setting: dict[str, str], reason: str) -> None:
    with pytest.raises(DdpmkitError, match=reason):
        prepare_small(tmp_path, nll_chain="walk", **setting)
