"""What a walk costs is counted, not taken from its steps: a sampler of second order asks twice at most of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ddpmkit import Denoise, Noise, Sampler, Tables, hookimpl, load, spaced
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.testing import tiny_study

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method on the probability-flow ODE: two evaluations a step, one at the last."""

    name = "heun-twice"
    reference = "Karras et al. 2022 (arXiv 2206.00364), algorithm 1"
    uses_sigma = False

    def timesteps(self, T: int, count: int) -> list[int]:
        return spaced("even", T, count)

    def kernel(self, tables: Tables) -> Any:
        return np.zeros(tables.T), np.zeros(tables.T)

    def sample(self, denoise: Denoise, tables: Tables, noise: Noise) -> Tensor:
        m, s = tables.signal.tolist(), (tables.noise2**0.5 / tables.signal).tolist()
        x = noise(0) / m[-1]
        for t in range(tables.T - 1, 0, -1):
            slope = (x - denoise(x * m[t], t).x0.clamp(-1, 1)) / s[t]
            there = x + (s[t - 1] - s[t]) * slope
            other = (there - denoise(there * m[t - 1], t - 1).x0.clamp(-1, 1)) / s[t - 1]
            x = x + (s[t - 1] - s[t]) * (slope + other) / 2
        return denoise(x * m[0], 0).x0.clamp(-1, 1)


@hookimpl
def ddpmkit_register_samplers() -> list[type]:
    return [Heun]


@pytest.mark.long
def test_a_sampler_that_asks_twice_a_step_costs_twice_as_much(tmp_path: Path) -> None:
    study = tiny_study(Heun(), tmp_path).folder
    records = read_study(study)
    steps = records.plan["cells"][0]["settings"]["sampling_steps"]
    drawn = records.results[records.results["evaluations"].notna() & records.results["metric"].str.startswith("FD")]
    assert set(drawn["evaluations"] / drawn["n"]) == {2 * steps - 1}
    notes = "\n".join(summarise(records).notes)
    assert f"heun-twice {steps} steps ({2 * steps - 1} evaluations an image)" in notes
    model = load(study, out=tmp_path, plugins=[__name__])
    assert model.draw(3).evaluations == 3 * (2 * steps - 1)
