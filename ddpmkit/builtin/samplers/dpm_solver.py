"""DPM-Solver++ (2M): a second-order step of the probability-flow ODE in the estimate of x0."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit import SPACING_HELP, Array, Clip, Denoise, Noise, Sampler, Spacing, Tables, clipped, param, spaced

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DpmSolver(Sampler):
    """DPM-Solver++ (2M): deterministic, second order, one network evaluation a step.

    With lambda = ln(m/S), h = lambda_s - lambda_t and r = h_before / h: D = x0hat + (x0hat - x0hat_before) / (2 r),
    x_s = (S_s / S_t) x_t - m_s (e^-h - 1) D. The first step and the last, to the clean image, are of first order.
    """

    name = "dpm-solver++"
    reference = "Lu et al. 2022 (arXiv 2211.01095), Algorithm 2"
    used_by = "diffusers (DPMSolverMultistepScheduler), k-diffusion (sample_dpmpp_2m)"
    uses_sigma = False
    spacing: Spacing = param("even", SPACING_HELP)
    clip: Clip = param("static", "what is done to x0hat beyond [-1, 1]")

    def timesteps(self, T: int, count: int) -> list[int]:
        """Return indices that rise to T-1."""
        return spaced(self.spacing, T, count)

    def kernel(self, tables: Tables) -> tuple[Array, Array]:
        """Return zeros: no noise is added, whatever the sigma."""
        import numpy as np

        return np.zeros(tables.T), np.zeros(tables.T)

    def sample(self, denoise: Denoise, tables: Tables, noise: Noise) -> "Tensor":
        """Walk the chain from its last step to its first; see :class:`ddpmkit.Sampler`."""
        import math

        signal, deviation = tables.signal.tolist(), (tables.noise2**0.5).tolist()
        x: Tensor = noise(0) * math.sqrt(tables.prior_variance)
        before: Tensor | None = None  # the estimate of the step before, and the log-SNR step that followed it
        h_before = 0.0
        for t in range(tables.T - 1, 0, -1):
            x0 = clipped(denoise(x, t).x0, self.clip)
            if signal[t] == 0:
                # No signal at all: lambda is minus infinity, and the step's limit is m_s x0hat + S_s eps.
                x = signal[t - 1] * x0 + deviation[t - 1] / deviation[t] * x
                continue
            h = math.log(signal[t - 1] / deviation[t - 1]) - math.log(signal[t] / deviation[t])
            direction = x0 if before is None else x0 + (x0 - before) * (h / (2 * h_before))
            x = (deviation[t - 1] / deviation[t]) * x - signal[t - 1] * math.expm1(-h) * direction
            before, h_before = x0, h
        return clipped(denoise(x, 0).x0, self.clip)
