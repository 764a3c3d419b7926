"""Betas that follow a sigmoid (the one in beta space)."""

from dataclasses import dataclass

from ddpmkit import Array, Schedule, param, scaled_endpoints


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """Sigmoid betas, as in the annotated-diffusion text, diffusers and GeoDiff.

    beta_t = sigmoid(linspace(-6, 6, T)) * (beta_T - beta_1) + beta_1, endpoints scaled by 1000/T. Two other functions
    are called sigmoid in the wild: Chen 2023 and denoising-diffusion-pytorch put the sigmoid into alpha-bar instead.
    """

    name = "sigmoid"
    reference = "The Annotated Diffusion Model, sigmoid_beta_schedule; diffusers DDPMScheduler(beta_schedule='sigmoid')"
    used_by = "the annotated-diffusion text, diffusers (beta_schedule='sigmoid'), GeoDiff"
    beta_1: float = param(1e-4, "beta at the far left at T = 1000", gt=0, lt=1)
    beta_T: float = param(0.02, "beta at the far right at T = 1000", gt=0, lt=1)
    span: float = param(6.0, "the sigmoid is taken over linspace(-span, span)", gt=0)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,).

        Raises:
            DdpmkitError: when T is so small that a scaled endpoint reaches 1.
        """
        import numpy as np

        first, last = scaled_endpoints(self.name, self.beta_1, self.beta_T, T)
        ramp = 1 / (1 + np.exp(-np.linspace(-self.span, self.span, T)))
        return np.asarray(ramp * (last - first) + first)
