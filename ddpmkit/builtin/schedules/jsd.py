"""beta_t = 1 / (T - t + 1)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule


@dataclass(frozen=True)
class Jsd(Schedule):
    """The schedule that Sohl-Dickstein et al. fixed for binomial diffusion; its last beta is 1.

    beta_t = 1 / (T - t + 1), so alpha-bar_t = 1 - t/T. x_T holds nothing of x0: eps-prediction is undefined there.
    """

    name = "jsd"
    reference = "Sohl-Dickstein et al. 2015 (arXiv 1503.03585), section 2.4.1; Ho's code: get_beta_schedule('jsd')"
    used_by = "Ho's code ('jsd')"

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,), the last one exactly 1."""
        import numpy as np

        return np.asarray(1.0 / np.arange(T, 0, -1))
