"""The same beta at every step."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, param, scaled_endpoints


@dataclass(frozen=True)
class Constant(Schedule):
    """The same beta at every step, one of the three that DDPM tried.

    beta_t = beta * 1000/T.
    """

    name = "constant"
    reference = "Ho et al. 2020 (arXiv 2006.11239), section 4, 'constant'; code: get_beta_schedule('const')"
    used_by = "Ho's code ('const')"
    beta: float = param(0.02, "beta at T = 1000", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,).

        Raises:
            DdpmkitError: when T is so small that the scaled beta reaches 1.
        """
        import numpy as np

        return np.full(T, scaled_endpoints(self.name, self.beta, self.beta, T)[1])
