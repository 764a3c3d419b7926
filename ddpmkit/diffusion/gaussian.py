"""The Gaussians of the chain: q(x_t | x_0), and the factors that a prediction turns into x0hat.

Tables are float64 numpy; what a loop needs of them is copied once to the device as a float32 :class:`Coefficients`
and gathered by t. Steps are indices, 0 = least noisy. The posterior q(x_{t-1} | x_t, x_0) is in plugin/tables.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from ddpmkit.diffusion.tables_for import Tables


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Float32 tensors of shape (T,) on a device, rounded once from the float64 tables.

    Attributes:
        signal: m_t, sqrt(alpha-bar_t) when variance-preserving.
        noise: S_t, sqrt(1 - alpha-bar_t) when variance-preserving.
        posterior_x0: c_t, the factor on x0 in the posterior mean of a full step.
        posterior_xt: k_t, the factor on x_t there.
        input_scale: the factor on the network's input.
        network_time: what the network is told, 1000 t / T.
    """

    signal: Tensor
    noise: Tensor
    posterior_x0: Tensor
    posterior_xt: Tensor
    input_scale: Tensor
    network_time: Tensor

    @classmethod
    def of(cls, tables: Tables, device: torch.device | str = "cpu") -> Coefficients:
        """Round the tables to float32 on a device."""
        arrays = {
            "signal": tables.signal,
            "noise": tables.noise2**0.5,
            "posterior_x0": tables.full_posterior_x0,
            "posterior_xt": tables.full_posterior_xt,
            "input_scale": tables.input_scale,
            "network_time": tables.network_time,
        }
        return cls(**{f.name: torch.from_numpy(arrays[f.name]).float().to(device) for f in fields(cls)})

    def at(self, t: Tensor, like: Tensor) -> AtSteps:
        """Return the factors at steps t, int64 (B,), shaped to multiply ``like`` (B, ...)."""
        return AtSteps(self, t, like)


@dataclass(frozen=True, eq=False)
class AtSteps:
    """The factors of each image's own step, a :class:`ddpmkit.Factors`; each is gathered when it is first asked for."""

    c: Coefficients
    t: Tensor
    like: Tensor

    @cached_property
    def signal(self) -> Tensor:
        """m_t."""
        return gather(self.c.signal, self.t, self.like)

    @cached_property
    def noise(self) -> Tensor:
        """S_t."""
        return gather(self.c.noise, self.t, self.like)

    @cached_property
    def posterior_x0(self) -> Tensor:
        """c_t."""
        return gather(self.c.posterior_x0, self.t, self.like)

    @cached_property
    def posterior_xt(self) -> Tensor:
        """k_t."""
        return gather(self.c.posterior_xt, self.t, self.like)


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return table[t] shaped to multiply ``like``: (B,) -> (B, 1, 1, 1)."""
    return table[t].reshape(-1, *([1] * (like.dim() - 1)))


def q_sample(c: Coefficients, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Sample q(x_t | x_0): x_t = m_t x0 + S_t eps. Ho et al. 2020, eq. 4. Shapes (B, ...), t int64 (B,)."""
    return gather(c.signal, t, x0) * x0 + gather(c.noise, t, x0) * eps


def eps_from_x0(c: Coefficients, xt: Tensor, t: Tensor, x0: Tensor) -> Tensor:
    """Return the noise that x0 implies: eps = (x_t - m_t x0) / S_t."""
    return (xt - gather(c.signal, t, xt) * x0) / gather(c.noise, t, xt)
