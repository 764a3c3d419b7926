"""Which steps a batch is trained on: uniform, stratified over the batch, or by the size of the loss.

Each turns the same stream u in [0, 1) into steps by an inverse CDF, so that cells that differ in this choice still
share their randomness. A choice that is not uniform says with which factor its losses count.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ddpmkit.errors import check_choice
from ddpmkit.training.sums import add_at, inverse_cdf, sums_of_blocks

TimestepSampling = Literal["uniform", "stratified", "importance"]


class Timesteps(Protocol):
    """What the training loop asks of a choice."""

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return steps, int64 (B,), and the factors 1 / (T p_t), (B,) or None for 1, from u in [0, 1), (B,)."""
        ...

    def learn(self, t: Tensor, loss: Tensor) -> None:
        """Take notice of the losses (B,), not yet multiplied by their factors, at steps t."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, by name."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        ...


class Uniform:
    """t = floor(u T). Ho et al. 2020, Algorithm 1."""

    def __init__(self, T: int) -> None:
        self.T = T

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return floor(u T); every loss counts once."""
        return (u * self.T).long(), None

    def learn(self, t: Tensor, loss: Tensor) -> None:
        """Nothing is learned."""

    def state(self) -> dict[str, Tensor]:
        """Nothing is kept."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing is put back."""


class Stratified(Uniform):
    """One draw in each of B equal parts of the steps, B the batch size: t_i = floor(T (i + u_i) / B)."""

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one step from each part; the images of a batch are in random order, so which gets which is random."""
        spread = (torch.arange(len(u), device=u.device) + u) / len(u)
        return (spread * self.T).long().clamp(max=self.T - 1), None


class Importance:
    """p_t in proportion to sqrt(E L_t^2), learned while training; Nichol & Dhariwal 2021, section 3.3 and eq. 18.

    The paper's resampler stays uniform until every step has ten losses, hundreds of steps at T=1000. Here the estimate
    of a step that was seen n times leans on its neighbourhood as on ``LEAN`` losses more, that neighbourhood on a wider
    one, up to all steps: of use after tens of steps, and in the end mostly the step's own. A ``FLOOR`` of p is uniform,
    so that no factor exceeds 1 / FLOOR.
    """

    LEAN = 4.0
    FLOOR = 0.05
    MEMORY = 10.0  # visits of each step that are remembered, as in the paper
    WIDEN = 4  # each neighbourhood is so many times as wide as the one inside it

    def __init__(self, T: int, device: torch.device) -> None:
        self.T = T
        self.square, self.count = torch.zeros(T, device=device), torch.zeros(T, device=device)
        widths = [1]
        while widths[-1] < T:
            widths.append(widths[-1] * self.WIDEN)
        self.widths = widths[::-1]  # widest first

    def probabilities(self) -> Tensor:
        """Return p_t, float32 (T,)."""
        mean = torch.ones_like(self.square)
        lean = 1e-6  # the outermost block is all steps: its mean is the data's own as soon as there are any
        for width in self.widths:
            square, count = (sums_of_blocks(v, width) for v in (self.square, self.count))
            mean = (square + lean * mean) / (count + lean)
            lean = self.LEAN
        root = mean.sqrt()
        return (1 - self.FLOOR) * root / root.sum() + self.FLOOR / self.T

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the inverse CDF of p at u, and 1 / (T p_t)."""
        p = self.probabilities()
        t = inverse_cdf(p, u)
        return t, 1 / (self.T * p[t])

    def learn(self, t: Tensor, loss: Tensor) -> None:
        """Add the squared losses to their steps; older ones fade as new ones come."""
        keep = 1 - len(t) / (self.MEMORY * self.T) if len(t) < self.MEMORY * self.T else 0.0
        add_at(self.square.mul_(keep), t, loss.square())
        add_at(self.count.mul_(keep), t, torch.ones_like(loss))

    def state(self) -> dict[str, Tensor]:
        """Return the sums."""
        return {"square": self.square, "count": self.count}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put the sums back."""
        self.square.copy_(state["square"])
        self.count.copy_(state["count"])


def timesteps(kind: TimestepSampling, T: int, device: torch.device) -> Timesteps:
    """Return the choice by name.

    Raises:
        DdpmkitError: for another name.
    """
    check_choice("timestep_sampling", kind, get_args(TimestepSampling))
    if kind == "importance":
        return Importance(T, device)
    return Stratified(T) if kind == "stratified" else Uniform(T)
