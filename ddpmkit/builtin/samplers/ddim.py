"""DDIM: the same marginals with less noise in each step, or none."""

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
class Ddim(Sampler):
    """DDIM; eta=0 is deterministic, eta=1 adds as much noise as ancestral sampling with beta-tilde.

    x_{t-1} = m_{t-1} x0hat + sqrt(S_{t-1}^2 - s_t^2) eps + s_t z with s_t^2 = eta^2 beta-tilde_t. After x0hat is
    clipped, eps is derived from it again, as OpenAI's code does. The sigma axis does not enter.
    """

    name = "ddim"
    reference = "Song, Meng & Ermon 2021 (arXiv 2010.02502), eq. 12 and eq. 16"
    uses_sigma = False
    eta: float = param(0.0, "0 deterministic, 1 as noisy as ancestral", ge=0, le=1)
    clip: Literal["static", "none"] = param("static", "clip x0hat to [-1, 1], or leave it")

    def timesteps(self, T: int, count: int) -> Sequence[int]:
        """Return evenly spread indices that reach T-1."""
        return even(T, count)

    def sample(self, predict_x0: PredictX0, tables: Tables, log_sigma2: Array, noise: Noise) -> Tensor:
        """Walk the chain from its last step to its first; see :class:`ddpmkit.Sampler`."""
        import numpy as np

        step_variance = self.eta**2 * tables.posterior_variance
        noise_before = np.sqrt(np.maximum(tables.noise2_before - step_variance, 0)).tolist()
        signal, before = tables.signal.tolist(), tables.signal_before.tolist()
        deviation, step_noise = np.sqrt(tables.noise2).tolist(), np.sqrt(step_variance).tolist()
        x: Tensor = noise(0) * math.sqrt(tables.prior_variance)
        for k, t in enumerate(range(tables.T - 1, -1, -1)):
            x0 = predict_x0(x, t)
            if self.clip == "static":
                x0 = x0.clamp(-1, 1)
            eps = (x - signal[t] * x0) / deviation[t]
            x = before[t] * x0 + noise_before[t] * eps
            if t > 0 and self.eta > 0:
                x = x + step_noise[t] * noise(k + 1)
        return x
