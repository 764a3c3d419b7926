"""Ancestral sampling: Algorithm 2 of DDPM, over any subset of the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ddpmkit.builtin.samplers._spacing import even
from ddpmkit.plugin.interfaces import Sampler
from ddpmkit.plugin.spec import param

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.diffusion.tables import Tables
    from ddpmkit.plugin.interfaces import Array, Noise, PredictX0


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Ancestral sampling (Algorithm 2) with any number of evenly spread steps.

    x_{t-1} = c_t x0hat + k_t x_t + sigma_t z, the posterior's mean at the estimate x0hat; the last step of the walk
    adds no noise.
    """

    name = "ancestral"
    reference = "Ho et al. 2020 (arXiv 2006.11239), Algorithm 2; fewer steps: Nichol & Dhariwal 2021, section 4"
    clip: Literal["static", "none"] = param("static", "clip x0hat to [-1, 1], or leave it")

    def timesteps(self, T: int, count: int) -> Sequence[int]:
        """Return evenly spread indices that reach T-1."""
        return even(T, count)

    def sample(self, predict_x0: PredictX0, tables: Tables, log_sigma2: Array, noise: Noise) -> Tensor:
        """Walk the chain from its last step to its first; see :class:`ddpmkit.Sampler`."""
        import numpy as np

        # Plain floats: a numpy scalar times a tensor would be numpy's product, and a copy to the host.
        on_x0, on_xt = tables.posterior_x0.tolist(), tables.posterior_xt.tolist()
        sigma = np.exp(log_sigma2 / 2).tolist()
        x: Tensor = noise(0) * math.sqrt(tables.prior_variance)
        for k, t in enumerate(range(tables.T - 1, -1, -1)):
            x0 = predict_x0(x, t)
            if self.clip == "static":
                x0 = x0.clamp(-1, 1)
            x = on_x0[t] * x0 + on_xt[t] * x
            if t > 0:
                x = x + sigma[t] * noise(k + 1)
        return x
