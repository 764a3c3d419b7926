"""A power-of-cosine alpha-bar (Chen 2023)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, betas_from_alpha_bars, param


@dataclass(frozen=True)
class CosineGamma(Schedule):
    """Power-of-cosine alpha-bar from Chen 2023, not the cosine of Improved DDPM.

    With c(u) = cos(pi/2 (u (end - start) + start))^(2 tau), alpha-bar(u) = (c(1) - c(u)) / (c(1) - c(0)), lifted so
    that it ends at ``floor``.
    """

    name = "cosine-gamma"
    reference = "Chen 2023 (arXiv 2301.10972), section 2.1 and algorithm 1; code: google-research/pix2seq"
    used_by = "pix2seq"
    start: float = param(0.0, "left end, in quarter turns", ge=0, lt=1)
    end: float = param(1.0, "right end, in quarter turns", gt=0, le=1)
    tau: float = param(1.0, "power of the squared cosine", gt=0)
    floor: float = param(1e-9, "alpha-bar at the end", gt=0, lt=1)

    def __post_init__(self) -> None:
        """Check the fields, and that the ends are in order."""
        super().__post_init__()
        if self.start >= self.end:
            raise ValueError(f"cosine-gamma: start must be below end, got {self.start} and {self.end}")

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,)."""
        import numpy as np

        u = np.arange(T + 1) / T
        # At a quarter turn the cosine rounds to 6e-17, and a fractional power of a negative rounding would be NaN.
        c = np.maximum(np.cos(np.pi / 2 * (u * (self.end - self.start) + self.start)), 0) ** (2 * self.tau)
        gamma = (c[-1] - c) / (c[-1] - c[0])
        return betas_from_alpha_bars(self.floor + (1 - self.floor) * gamma)
