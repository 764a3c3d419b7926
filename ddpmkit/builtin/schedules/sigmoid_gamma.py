"""A sigmoid-shaped alpha-bar (Chen 2023)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, betas_from_alpha_bars, param


@dataclass(frozen=True)
class SigmoidGamma(Schedule):
    """Sigmoid-shaped alpha-bar from Chen 2023, not the beta-space sigmoid.

    alpha-bar(u) = (s(end/tau) - s((u (end - start) + start)/tau)) / (s(end/tau) - s(start/tau)), s the logistic
    function, clipped from below at ``floor``. pix2seq uses tau=0.9; denoising-diffusion-pytorch calls
    ``sigmoid-gamma:tau=1:floor=0:max_beta=0.999`` sigmoid.
    """

    name = "sigmoid-gamma"
    reference = "Chen 2023 (arXiv 2301.10972), section 2.1 and algorithm 1; code: google-research/pix2seq"
    used_by = "pix2seq (tau=0.9); denoising-diffusion-pytorch calls it 'sigmoid' (tau=1, its default)"
    start: float = param(-3.0, "left end of the logistic function")
    end: float = param(3.0, "right end of the logistic function")
    tau: float = param(0.9, "temperature", gt=0)
    floor: float = param(1e-9, "alpha-bar is clipped from below at this", ge=0, lt=1)
    max_beta: float = param(1.0, "betas are clipped to this", gt=0, le=1)

    def __post_init__(self) -> None:
        """Check the fields, and that the ends are in order."""
        super().__post_init__()
        if self.start >= self.end:
            raise ValueError(f"sigmoid-gamma: start must be below end, got {self.start} and {self.end}")

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,)."""
        import numpy as np

        def logistic(x: Array) -> Array:
            return np.asarray(1 / (1 + np.exp(-x / self.tau)))

        ramp = logistic(self.start + (self.end - self.start) * np.arange(T + 1) / T)
        gamma = (ramp[-1] - ramp) / (ramp[-1] - ramp[0])
        return betas_from_alpha_bars(np.maximum(gamma, self.floor), self.max_beta)
