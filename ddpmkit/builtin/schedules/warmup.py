"""Betas that rise for a while and then stay."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, param, scaled_endpoints


@dataclass(frozen=True)
class Warmup(Schedule):
    """Betas that rise linearly for a fraction of the steps and then stay; warmup10 and warmup50 of Ho's code.

    beta_t = linspace(beta_1, beta_T, fraction T) and then beta_T, endpoints scaled by 1000/T.
    """

    name = "warmup"
    reference = "Ho et al. 2020, code: get_beta_schedule('warmup10') and ('warmup50')"
    used_by = "Ho's code ('warmup10', 'warmup50')"
    fraction: float = param(0.1, "share of the steps that rise", gt=0, le=1)
    beta_1: float = param(1e-4, "first beta at T = 1000", gt=0, lt=1)
    beta_T: float = param(0.02, "last beta at T = 1000", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,).

        Raises:
            DdpmkitError: when T is so small that a scaled endpoint reaches 1.
        """
        import numpy as np

        first, last = scaled_endpoints(self.name, self.beta_1, self.beta_T, T)
        betas, rising = np.full(T, last), max(round(T * self.fraction), 1)
        betas[:rising] = np.linspace(first, last, rising)
        return betas
