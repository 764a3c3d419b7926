"""From a network to x0hat and sigma_t: what it is shown, which part of its answer is what, and what that means.

The training loss, the walk, the fit and the likelihood all read a network here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpmkit import device as devices
from ddpmkit.diffusion.gaussian import Coefficients, gather
from ddpmkit.diffusion.reverse_variance import LearnedVariance
from ddpmkit.diffusion.tables_for import Tables
from ddpmkit.plugin.contract import target, x0hat
from ddpmkit.plugin.interfaces import Factors, Prediction, Sigma


class Predict(Protocol):
    """predict(xt, t, y) -> (x0hat, log sigma^2): t int64 (B,), y the labels or None; the second None unless learned."""

    def __call__(self, xt: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Ask about x_t, (B, ...)."""
        ...


@dataclass(frozen=True, eq=False)
class Denoiser:
    """What gives a network's answer its meaning, on the device.

    Attributes:
        coefficients: of the chain, full or strided.
        prediction: what the network was asked for.
        variance: a learned sigma, for which the network's answer has a second half; else None.
    """

    coefficients: Coefficients
    prediction: Prediction
    variance: LearnedVariance | None = None

    @classmethod
    def of(
        cls, tables: Tables, prediction: Prediction, device: torch.device | str = "cpu", sigma: Sigma | None = None
    ) -> Denoiser:
        """Put it on a device; a ``sigma`` that is not learned changes nothing."""
        learned = LearnedVariance(sigma, tables, torch.device(device)) if sigma is not None and sigma.learned else None
        return cls(Coefficients.of(tables, device), prediction, learned)

    def ask(self, net: nn.Module, xt: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the network's answer: it is shown x_t at unit variance and told the time 1000 t / T."""
        c = self.coefficients
        scaled, time = gather(c.input_scale, t, xt) * xt, c.network_time[t]
        out: Tensor = net(scaled, time) if y is None else net(scaled, time, y)
        return out

    def parts(self, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the prediction in an answer, and what is said of the variance; None unless that is learned."""
        return parts(out, learned=self.variance is not None)

    def target(self, at: Factors, x0: Tensor, eps: Tensor, xt: Tensor) -> Tensor:
        """Return what the network is asked for."""
        return target(self.prediction, at, x0, eps, xt)

    def x0_hat(self, at: Factors, xt: Tensor, predicted: Tensor) -> Tensor:
        """Return the estimate of x0 that a prediction at x_t means, not clipped."""
        return x0hat(self.prediction, at, xt, predicted)

    def log_variance(self, t: Tensor, extra: Tensor | None) -> Tensor | None:
        """Return log sigma_t^2 from the second part of an answer; None unless it is learned."""
        return None if self.variance is None or extra is None else self.variance(t, extra)

    def read(self, xt: Tensor, t: Tensor, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (x0hat, log sigma_t^2) of an answer at x_t; x0hat is not clipped, the second None unless learned."""
        predicted, extra = self.parts(out)
        return self.x0_hat(self.coefficients.at(t, xt), xt, predicted), self.log_variance(t, extra)


def parts(out: Tensor, *, learned: bool) -> tuple[Tensor, Tensor | None]:
    """Return the prediction in a network's answer and, where its variance is learned, the second half; else None."""
    if not learned:
        return out, None
    predicted, extra = out.chunk(2, dim=1)
    return predicted, extra


def predictor(
    net: nn.Module,
    tables: Tables,
    prediction: Prediction,
    device: torch.device,
    sigma: Sigma | None = None,
    precision: str = "fp32",
    none: int | None = None,
) -> Predict:
    """Return predict(xt, t, y=None) -> (x0hat, log sigma^2), t int64 (B,) an index of ``tables``; x0hat is not clipped.

    The second is None unless ``sigma`` is a learned one, and then like x0hat. ``precision`` is the network's alone.
    ``none`` is what a network that was trained with labels is told where there is no y; see diffusion/labels.py.
    """
    denoiser = Denoiser.of(tables, prediction, device, sigma)

    def predict(xt: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if y is None and none is not None:
            y = torch.full_like(t, none)
        with devices.autocast(device, precision):
            out = denoiser.ask(net, xt, t, y)
        return denoiser.read(xt, t, out.float())

    return predict
