"""The likelihood of the probability-flow ODE: another number than the variational bound, never in one column with it.

In the coordinate z = x_t / m_t with sigma = S_t / m_t the flow is dz / d ln sigma = z - x0hat (Song et al. 2021, arXiv
2011.13456, eq. 13 and 39; Karras et al. 2022, arXiv 2206.00364, eq. 3), so that

    ln p(x0) = ln p_T(z_T) + integral of (d - tr dx0hat/dz) d ln sigma.

RK4 on a grid that is uniform in ln sigma, that is in log-SNR: on a grid uniform in t, 50 steps are 0.7 bits/dim off on
data of standard deviation 0.01, here 1e-4. The flow starts at t=1: the density is that of the data smoothed by sigma_1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ddpmkit.diffusion.denoise import parts
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError, Diverged, check_choice
from ddpmkit.likelihood import checks
from ddpmkit.plugin.contract import x0hat
from ddpmkit.plugin.interfaces import Prediction
from ddpmkit.randomness import normal, stream_key, uniform

Divergence = Literal["exact", "hutchinson"]
# predict(xt, t) -> x0hat, t float64 (B,): a step's index, and between two steps a fraction.
PredictAt = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Continuum:
    """A chain between its steps: ln sigma_t and ln m_t by monotone cubics over the index t (Fritsch & Carlson 1980)."""

    log_sigma: PchipInterpolator
    log_signal: PchipInterpolator
    last: int

    @classmethod
    def of(cls, tables: Tables) -> Continuum:
        """Interpolate a chain; steps at which no signal is left, or less than float32 holds, are beyond its end.

        Raises:
            DdpmkitError: when fewer than two steps are left.
        """
        steps = np.flatnonzero(tables.signal >= np.finfo(np.float32).tiny)
        if len(steps) < 2:
            raise DdpmkitError("the chain has fewer than two steps with signal", "use more timesteps")
        log_sigma = np.log(tables.noise2[steps]) / 2 - np.log(tables.signal[steps])
        signal = PchipInterpolator(steps, np.log(tables.signal[steps]))
        return cls(PchipInterpolator(steps, log_sigma), signal, int(steps[-1]))

    def ends(self) -> tuple[float, float]:
        """Return ln sigma at the first and at the last step."""
        return float(self.log_sigma(0)), float(self.log_sigma(self.last))

    def index(self, log_sigma: Array) -> Array:
        """The fractional t at which sigma is reached, by bisection."""
        low, high = np.zeros(len(log_sigma)), np.full(len(log_sigma), float(self.last))
        for _ in range(60):
            middle = (low + high) / 2
            below = self.log_sigma(middle) < log_sigma
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray((low + high) / 2)


@dataclass(frozen=True, eq=False)
class OdeLikelihood:
    """The NLL of images under the probability-flow ODE, bits/dim.

    Attributes:
        total: mean over the images.
        test_set_error: its standard error over the images, dequantisation included.
        step_error: mean of |NLL on the grid - NLL on a grid twice as fine|, whose number ``total`` is.
        images: NLL of each image, (N,).
        evaluations: network evaluations, in images; each gradient of the exact divergence counts as one more.
        divergence: how the trace was taken.
    """

    total: float
    test_set_error: float
    step_error: float
    images: Array
    evaluations: int
    divergence: str


@dataclass(frozen=True, eq=False)
class Between:
    """The factors of x_t = m_t x0 + S_t eps between two steps, a :class:`ddpmkit.Factors` without a posterior mean."""

    signal: Tensor
    noise: Tensor

    @property
    def posterior_x0(self) -> Tensor:
        """Refuse: there is no step here.

        Raises:
            DdpmkitError: always.
        """
        raise DdpmkitError("between two steps there is no posterior mean", "a prediction of it: between_steps = False")

    posterior_xt = posterior_x0


def from_network(
    net: Callable[[Tensor, Tensor], Tensor], tables: Tables, prediction: Prediction, *, learned: bool = False
) -> PredictAt:
    """Return predict(xt, t) at fractional t of a network that takes (input, time 1000 t / T), as ddpmkit's do.

    Args:
        net: The network.
        tables: The full chain.
        prediction: What its answer is.
        learned: Whether its answer has a second half, for a learned sigma.

    Raises:
        DdpmkitError: for a prediction whose factors belong to whole steps, such as mu.
    """
    if not prediction.between_steps:
        raise DdpmkitError(
            f"the ODE runs between the steps, where {prediction.name} is not defined",
            f"use --prediction {prediction.instead}",
        )
    between, steps = Continuum.of(tables), np.arange(tables.T)

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        at, around = t.cpu().numpy(), (-1, *([1] * (xt.dim() - 1)))

        def shaped(values: Array) -> Tensor:
            return torch.from_numpy(np.asarray(values)).to(xt).reshape(around)

        signal = np.exp(between.log_signal(at))
        noise = signal * np.exp(between.log_sigma(at))
        scale = 1.0 if tables.variance_preserving else 1 / np.sqrt(signal**2 + noise**2)
        time = torch.from_numpy(np.interp(at, steps, tables.network_time)).to(xt)
        predicted, _ = parts(net(shaped(scale * np.ones(len(at))) * xt, time), learned=learned)
        return x0hat(prediction, Between(shaped(signal), shaped(noise)), xt, predicted)

    return predict


def ode_likelihood(
    predict: PredictAt,
    tables: Tables,
    x0: Tensor,
    *,
    levels: int | None,
    steps: int = 64,
    divergence: Divergence = "exact",
    seed: int | str = 0,
    micro_batch: int = 64,
) -> OdeLikelihood:
    """Return the NLL of ``x0`` under the probability-flow ODE in bits/dim.

    Data on K levels are uniformly dequantised, x0 + u with u in a bin of width 2/(K-1); -log2 p / d of that density
    plus log2((K-1)/2) bounds the NLL of the levels in the mean (Theis et al. 2016, arXiv 1511.01844, section 3.1).

    Args:
        predict: x0hat at fractional t, differentiable in xt, each image on its own (no batch norm).
        tables: The full chain.
        x0: Pixels (N, ...).
        levels: K; None for data that are continuous already: no noise, and a density.
        steps: RK4 steps of the coarser grid; the reported one has twice as many.
        divergence: ``exact`` takes d gradients an evaluation; ``hutchinson`` one, with a Rademacher probe an image.
        seed: Of dequantisation and probes.
        micro_batch: Images at once.

    Raises:
        Diverged: when the flow leaves the finite numbers; the image is named.
        DdpmkitError: when a count, the images or the divergence's name make no sense.
    """
    check_choice("divergence", divergence, get_args(Divergence))
    checks.images("x0", x0)
    checks.whole("micro_batch", micro_batch, 1, "as in micro_batch=64")
    if steps < 1 or (levels is not None and levels < 2):
        raise DdpmkitError(f"steps={steps} and levels={levels} make no sense", "steps=64, levels=256 or None")
    data, dims, offset = x0.double(), x0[0].numel(), 0.0
    index = torch.arange(len(x0), device=x0.device)
    shape = tuple(x0.shape[1:])
    if levels is not None:
        key = stream_key(seed, "ode-dequantise")
        u = torch.stack([uniform(key, index, k) for k in range(dims)], 1).double().reshape(x0.shape)
        data, offset = data + (2 * u - 1) / (levels - 1), math.log2((levels - 1) / 2)
    probe = None
    if divergence == "hutchinson":
        probe = torch.where(normal(stream_key(seed, "ode-probe"), index, shape) < 0, -1.0, 1.0)
    between, nlls, count = Continuum.of(tables), [], 0
    for grid in (steps, 2 * steps):
        rows = []
        for first in range(0, len(x0), micro_batch):
            part = slice(first, first + micro_batch)
            log_p = _flow(predict, between, tables, data[part], None if probe is None else probe[part], grid)
            bad = ~torch.isfinite(log_p)
            if bool(bad.any()):
                raise Diverged(f"the flow of image {first + int(bad.nonzero()[0])} is not finite")
            rows.append(log_p)
        nlls.append(-torch.cat(rows).cpu().numpy() / (dims * math.log(2)) + offset)
        count += grid * 4 * len(x0) * (1 + (dims if probe is None else 1))
    coarse, fine = nlls
    error = float(np.std(fine, ddof=1) / math.sqrt(len(fine))) if len(fine) > 1 else math.nan
    return OdeLikelihood(float(fine.mean()), error, float(np.abs(fine - coarse).mean()), fine, count, divergence)


def _flow(
    predict: PredictAt, between: Continuum, tables: Tables, z: Tensor, probe: Tensor | None, steps: int
) -> Tensor:
    """Carry z from sigma_1 to sigma_T by RK4; return ln p of each row, float64 (B,)."""
    low, high = between.ends()
    nodes = np.linspace(low, high, 2 * steps + 1)  # with the midpoints
    t = between.index(nodes)
    signal = np.exp(between.log_signal(t))
    h = (high - low) / steps
    integral = torch.zeros(len(z), dtype=torch.float64, device=z.device)

    def slope(z: Tensor, node: int) -> tuple[Tensor, Tensor]:
        return _slope(predict, z, float(signal[node]), float(t[node]), probe)

    for k in range(steps):
        f1, g1 = slope(z, 2 * k)
        f2, g2 = slope(z + h / 2 * f1, 2 * k + 1)
        f3, g3 = slope(z + h / 2 * f2, 2 * k + 1)
        f4, g4 = slope(z + h * f3, 2 * k + 2)
        z = z + h / 6 * (f1 + 2 * f2 + 2 * f3 + f4)
        integral = integral + h / 6 * (g1 + 2 * g2 + 2 * g3 + g4)
    # What x_T = m_T z is held against; a chain cut where its signal ends stops at what it has there for unit data.
    m, dims = float(signal[-1]), z[0].numel()
    whole = between.last == tables.T - 1
    variance = tables.prior_variance if whole else float(tables.signal[between.last] ** 2 + tables.noise2[between.last])
    square = (m * z).square().flatten(1).sum(1) / variance
    return integral - 0.5 * (square + dims * math.log(2 * math.pi * variance)) + dims * math.log(m)


def _slope(predict: PredictAt, z: Tensor, signal: float, t: float, probe: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return dz / d ln sigma = z - x0hat, and its divergence, d - m tr dx0hat/dx."""
    with torch.enable_grad():
        x = (signal * z).float().requires_grad_(True)
        hat = predict(x, torch.full((len(x),), t, dtype=torch.float64, device=x.device))
        if hat.shape != x.shape:
            raise DdpmkitError(f"predict gives shape {tuple(hat.shape)} for xt of shape {tuple(x.shape)}")
        flat = hat.flatten(1)
        dims = flat.shape[1]
        trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if not hat.requires_grad:  # a network that does not look at its input
            pass
        elif probe is not None:
            (g,) = torch.autograd.grad((flat * probe.flatten(1).to(flat)).sum(), x)
            trace = (g * probe.to(g)).flatten(1).sum(1).double()
        else:
            for i in range(dims):
                (g,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i < dims - 1)
                trace = trace + g.flatten(1)[:, i].double()
    return z - hat.detach().double(), dims - signal * trace
