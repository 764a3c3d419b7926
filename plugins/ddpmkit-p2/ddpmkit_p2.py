"""P2 weighting, as a package of one module."""

from dataclasses import dataclass

from ddpmkit import Array, Tables, Weighting, hookimpl, param

ddpmkit_api = (1, 1)  # the plugin API that this was made for, lowest and highest


@dataclass(frozen=True)
class Perception(Weighting):
    """P2: w_t = SNR_t / (1 + SNR_t)^gamma on the squared x0-error, less weight where little noise is left."""

    name = "perception"  # p2 is built in, and has the paper's k as a parameter
    reference = "Choi et al. 2022 (arXiv 2204.00227), eq. 8 with k = 1"
    gamma: float = param(1.0, "strength; 0 is uniform in eps", ge=0)

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return w_t, float64 (T,)."""
        return tables.snr / (1 + tables.snr) ** self.gamma


@hookimpl
def ddpmkit_register_weightings() -> list[type]:
    """Return the weightings of this plugin."""
    return [Perception]
