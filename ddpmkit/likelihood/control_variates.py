"""Control variates of the bound: what a draw's error owes to its noise and to its image, known in closed form.

The linear-Gaussian denoiser of data N(mu, C) is x0hat = mu + m C (m^2 C + S^2)^{-1} (x_t - m mu). Along the
eigenvector with eigenvalue l it multiplies by k = m l / (m^2 l + S^2), so that with y = V^T (x0 - mu) and z = V^T eps

    G = sum_i ((1 - m k_i) y_i - k_i S z_i)^2,    E_eps G = sum_i (1 - m k_i)^2 y_i^2 + k_i^2 S^2.

G follows the network's own error closely wherever the network is near to linear, and its mean is known exactly for any
mu and C whatever: they decide how much is gained, never where the estimate lands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.likelihood import checks

LARGEST = 4096  # dimensions; beyond, the eigenvectors cost more than they save
BETWEEN = 2  # the control, if there, that says how images differ; the others are noise alone
FLOOR = 1e-6  # of a control's largest size
WINDOW = 2  # neighbours on either side from which a coefficient is fitted
RIDGE = 0.02  # of each control's own variance: few pilots must not fit noise


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """Mean (d,), eigenvalues (d,) and eigenvectors (d, d) of images; float64 tensors on the CPU."""

    mean: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def fit(cls, images: Tensor) -> LinearGaussian | None:
        """Fit to pixels (N, ...), best the training images; None where there are too many dimensions for it.

        Raises:
            DdpmkitError: when there are no images.
        """
        checks.images("images", images)
        flat = images.detach().cpu().double().flatten(1)
        if flat.shape[1] > LARGEST:
            return None
        mean = flat.mean(0)
        centred = flat - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(len(flat) - 1, 1))
        return cls(mean, values.clamp(min=0), vectors)

    def scales(self, tables: Tables) -> Array:
        """Return the standard deviation of the controls at every step for data that are Gaussian indeed, (T, 3).

        At high noise the controls fall by orders between neighbouring steps, which no pilot could follow.
        """
        gain, s2 = self.gains(tables), torch.from_numpy(np.asarray(tables.noise2))[:, None]
        keep = 1 - torch.from_numpy(np.asarray(tables.signal))[:, None] * gain
        pull2 = gain.square() * s2
        within = (4 * keep.square() * self.values * pull2 + 2 * pull2.square()).sum(1).sqrt()
        between = (2 * keep**4 * self.values.square()).sum(1).sqrt()
        chi = torch.full_like(within, math.sqrt(2 * len(self.mean)))
        return np.asarray(torch.stack([chi, within, between], 1).numpy())

    def gains(self, tables: Tables) -> Tensor:
        """k_i at every step, float64 (T, d)."""
        m, s2 = (torch.from_numpy(np.asarray(v))[:, None] for v in (tables.signal, tables.noise2))
        return m * self.values / (m**2 * self.values + s2)


@dataclass(frozen=True, eq=False)
class Controls:
    """The control variates of draws of one set of images, each of mean zero over its own noise and over the images.

    There are three, or the first alone where no linear-Gaussian denoiser is at hand: ||eps||^2 - d; G - E_eps[G | x0];
    and E_eps[G | x0] less its mean over the images. The last one is zero in the mean over images drawn evenly.
    """

    dims: int
    linear: LinearGaussian | None
    projected: Tensor  # y of every image, (N, d)
    gain: Tensor  # k, (T, d)
    loss: Tensor  # (1 - m k)^2, (T, d)
    noise: Tensor  # S, (T,)
    mean_square: Tensor  # mean of y^2 over the images, (d,)

    @classmethod
    def of(cls, tables: Tables, images: Tensor, linear: LinearGaussian | None) -> Controls:
        """Prepare the controls of ``images`` (N, ...)."""
        flat = images.detach().cpu().double().flatten(1)
        noise = torch.from_numpy(np.sqrt(tables.noise2))
        if linear is None:
            empty = torch.zeros(0, dtype=torch.float64)
            return cls(flat.shape[1], None, empty, empty, empty, noise, empty)
        gain = linear.gains(tables)
        projected = (flat - linear.mean) @ linear.vectors
        loss = (1 - torch.from_numpy(np.asarray(tables.signal))[:, None] * gain).square()
        return cls(flat.shape[1], linear, projected, gain, loss, noise, projected.square().mean(0))

    def __call__(self, image: Tensor, t: Tensor, eps: Tensor) -> Array:
        """Return the controls of each draw, float64 (B, 1 or 3); ``eps`` is its noise (B, ...)."""
        e = eps.detach().cpu().double().flatten(1)
        image, t = image.cpu(), t.cpu()
        chi = e.square().sum(1) - self.dims
        if self.linear is None:
            return np.asarray(chi[:, None].numpy())
        y, k, s = self.projected[image], self.gain[t], self.noise[t][:, None]
        keep = self.loss[t]
        pull = k * s
        bias = y * keep.sqrt()  # |1 - m k| y: 1 - m k = S^2 / (m^2 l + S^2) is never negative
        g = (bias - pull * (e @ self.linear.vectors)).square().sum(1)
        mean_g = (keep * y.square()).sum(1)
        within = g - mean_g - pull.square().sum(1)
        between = mean_g - (keep * self.mean_square).sum(1)
        return np.asarray(torch.stack([chi, within, between], 1).numpy())


def coefficients(
    t: np.ndarray[Any, Any], values: Array, controls: Array, scales: Array, window: int = WINDOW, ridge: float = RIDGE
) -> Array:
    """Return the factors on the controls at every step, float64 (T, C), fitted by least squares to pilot draws.

    Both sides are divided by their size at each step, neighbouring pilot steps are fitted together, and the factors and
    the size of the values are interpolated along log t. The pilot's noise is not the estimate's, so nothing is biased.

    Args:
        t: Steps of the pilot draws, int (n,), each at least 1.
        values: What is to be predicted, (n,).
        controls: (n, C).
        scales: size of the controls at every step, (T, C).
        window: Pilot steps on either side that are fitted together.
        ridge: What is added to the controls' second moments, in their own units.
    """
    grid = np.unique(t)
    rows = [np.flatnonzero(t == g) for g in grid]
    tiny = np.finfo(np.float64).tiny
    size = np.array([max(float(np.sqrt(np.mean(values[r] ** 2))), tiny) for r in rows])
    # Where a control all but vanishes it is left small, so that its factor can not run away.
    scale = np.maximum(scales, FLOOR * scales.max(0))
    # One that vanishes at every step, as of training images that are all alike, explains nothing.
    scale[scale == 0] = 1.0
    left = [(values[r] - values[r].mean()) / s for r, s in zip(rows, size, strict=True)]
    right = [(controls[r] - controls[r].mean(0)) / scale[g] for r, g in zip(rows, grid, strict=True)]
    factors = np.empty((len(grid), controls.shape[1]))
    for g in range(len(grid)):
        near = slice(max(0, g - window), g + window + 1)
        x, y = np.concatenate(right[near]), np.concatenate(left[near])
        factors[g] = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y)
    at, log_grid = np.log(np.arange(1, len(scales))), np.log(grid)
    out = np.zeros_like(scales)
    sizes = np.exp(np.interp(at, log_grid, np.log(size)))
    for c in range(out.shape[1]):
        out[1:, c] = np.interp(at, log_grid, factors[:, c]) * sizes / scale[1:, c]
    return out


def scales_of(tables: Tables, linear: LinearGaussian | None, dims: int) -> Array:
    """Return the size of the controls at every step, (T, 3), or (T, 1) without a linear-Gaussian denoiser."""
    if linear is None:
        return np.full((tables.T, 1), math.sqrt(2 * dims))
    return linear.scales(tables)
