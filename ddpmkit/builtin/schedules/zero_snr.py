"""Any schedule, rescaled so that the last step keeps nothing of the image."""

from dataclasses import dataclass

from ddpmkit import Array, DdpmkitError, Schedule, param
from ddpmkit.builtin.schedules.linear import Linear


@dataclass(frozen=True)
class ZeroSnr(Schedule):
    """A schedule shifted and scaled to terminal SNR exactly 0, its first step unchanged; the last beta is 1.

    sqrt(alpha-bar_t)' = (sqrt(alpha-bar_t) - sqrt(alpha-bar_T)) sqrt(alpha-bar_1) / (sqrt(alpha-bar_1) -
    sqrt(alpha-bar_T)). eps-prediction is undefined at T; train it with v or x0.
    """

    name = "zero-snr"
    reference = "Lin et al. 2024 (arXiv 2305.08891), algorithm 1"
    used_by = "diffusers (rescale_betas_zero_snr)"
    base: Schedule = param(Linear(), "the schedule that is rescaled, any variance-preserving one")

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,), the last one exactly 1.

        Raises:
            DdpmkitError: when the base is not variance-preserving, or T is too small for it.
        """
        import numpy as np

        from ddpmkit import tables_for

        base = tables_for(self.base, T)
        if not base.variance_preserving:
            raise DdpmkitError(
                f"zero-snr: its base '{self.base}' is not variance-preserving, and has no alpha-bar to rescale",
                "as in zero-snr:base=cosine",
            )
        root = base.signal
        shifted = (root - root[-1]) * root[0] / (root[0] - root[-1])
        squared = np.concatenate([[1.0], shifted**2])
        return np.asarray(1 - squared[1:] / squared[:-1])
