"""The Gaussians of the chain: q(x_t | x_0), the posterior, and the conversions between x0, eps and v.

Tables are float64 numpy; what a loop needs of them is copied once to the device as a float32 :class:`Coefficients`
and gathered by t. Steps are indices, 0 = least noisy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from ddpmkit.diffusion.tables import Tables

Prediction = Literal["eps", "x0", "v", "mu"]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Float32 tensors of shape (T,) on a device, rounded once from the float64 tables.

    Attributes:
        signal: m_t, sqrt(alpha-bar_t) when variance-preserving.
        noise: S_t, sqrt(1 - alpha-bar_t) when variance-preserving.
        mean_x0: c_t, the factor on x0 in the posterior mean of a full step.
        mean_xt: k_t, the factor on x_t there.
        input_scale: the factor on the network's input.
        network_time: what the network is told, 1000 t / T.
    """

    signal: Tensor
    noise: Tensor
    mean_x0: Tensor
    mean_xt: Tensor
    input_scale: Tensor
    network_time: Tensor

    @classmethod
    def of(cls, tables: Tables, device: torch.device | str = "cpu") -> Coefficients:
        """Round the tables to float32 on a device."""
        arrays = {
            "signal": tables.signal,
            "noise": tables.noise2**0.5,
            "mean_x0": tables.mean_x0,
            "mean_xt": tables.mean_xt,
            "input_scale": tables.input_scale,
            "network_time": tables.network_time,
        }
        return cls(**{f.name: torch.from_numpy(arrays[f.name]).float().to(device) for f in fields(cls)})


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return table[t] shaped to multiply ``like``: (B,) -> (B, 1, 1, 1)."""
    return table[t].reshape(-1, *([1] * (like.dim() - 1)))


def q_sample(c: Coefficients, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Sample q(x_t | x_0): x_t = m_t x0 + S_t eps. Ho et al. 2020, eq. 4. Shapes (B, ...), t int64 (B,)."""
    return gather(c.signal, t, x0) * x0 + gather(c.noise, t, x0) * eps


def target(c: Coefficients, prediction: Prediction, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Return what the network is asked for.

    eps, x0, v = m_t eps - S_t x0 (Salimans & Ho 2022, section 2.4), or mu = c_t x0 + k_t x_t (Ho et al. 2020, eq. 7).
    """
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    if prediction == "mu":
        return gather(c.mean_x0, t, x0) * x0 + gather(c.mean_xt, t, x0) * q_sample(c, x0, t, eps)
    return gather(c.signal, t, x0) * eps - gather(c.noise, t, x0) * x0


def to_x0(c: Coefficients, prediction: Prediction, xt: Tensor, t: Tensor, out: Tensor) -> Tensor:
    """Turn the network's output into the estimate of x0.

    eps: x0 = (x_t - S_t eps) / m_t (Ho et al. 2020, eq. 9's argument); mu: x0 = (mu - k_t x_t) / c_t; v: x0 = m_t x_t -
    S_t v, which holds for variance-preserving chains alone.
    """
    if prediction == "x0":
        return out
    if prediction == "mu":
        return (out - gather(c.mean_xt, t, xt) * xt) / gather(c.mean_x0, t, xt)
    signal, noise = gather(c.signal, t, xt), gather(c.noise, t, xt)
    return (xt - noise * out) / signal if prediction == "eps" else signal * xt - noise * out


def eps_from_x0(c: Coefficients, xt: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """Return the noise that x0 implies: eps = (x_t - m_t x0) / S_t."""
    return (xt - gather(c.signal, t, xt) * x0) / gather(c.noise, t, xt)
