"""What changes from one step of a training to the next: which images it sees, its learning rate, its averages' decays.

Where steps are recorded these are tensors that stay where they are and are written anew before each step: a recording
reads them there, and would repeat a Python number for ever. Elsewhere they are plain values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpmkit.randomness import permutation
from ddpmkit.training.config import TrainConfig, learning_rate
from ddpmkit.training.ema import decay_at


class Order:
    """Which images each step sees: one keyed permutation an epoch, batches running across their ends."""

    def __init__(self, config: TrainConfig, count: int, device: torch.device) -> None:
        self.seed, self.size, self.count, self.device = config.seed, config.batch_size, count, device
        self.offsets = torch.arange(self.size, device=device)
        self.epochs: dict[int, Tensor] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return (image indices, running numbers), int64 (B,) each."""
        first = step * self.size
        needed = range(first // self.count, (first + self.size - 1) // self.count + 1)
        self.epochs = {e: self.epochs.get(e, self._permutation(e)) for e in needed}
        flat = torch.cat([self.epochs[e] for e in needed])
        begin = first - needed.start * self.count
        return flat[begin : begin + self.size], self.offsets + first

    def _permutation(self, epoch: int) -> Tensor:
        if epoch in self.epochs:
            return self.epochs[epoch]
        return permutation(self.seed, self.count, epoch, self.device)


class Inputs:
    """The inputs of a step.

    Attributes:
        index: which images, int64 (B,).
        number: of each image since the start of the training, int64 (B,); it keys the noise.
        rate: the learning rate, a float or float32 ().
        decays: of each average, a float or float64 (), for 1 - decay must keep its digits.
    """

    def __init__(self, config: TrainConfig, count: int, device: torch.device, *, held: bool) -> None:
        self.config, self.held, self.order = config, held, Order(config, count, device)
        self.index, self.number = self.order.batch(0)
        self.rate: float | Tensor = learning_rate(config, 0)
        self.decays: list[float | Tensor] = [decay_at(rate, 0) for rate in config.emas]
        if held:
            self.index, self.number = self.index.clone(), self.number.clone()
            self.rate = torch.zeros((), device=device)
            self.decays = [torch.zeros((), dtype=torch.float64, device=device) for _ in config.emas]

    def at(self, step: int) -> None:
        """Set all of them to those of a step."""
        index, number = self.order.batch(step)
        rate, decays = learning_rate(self.config, step), [decay_at(r, step) for r in self.config.emas]
        if not self.held:
            self.index, self.number, self.rate, self.decays = index, number, rate, [*decays]
            return
        self.index.copy_(index)
        self.number.copy_(number)
        for held, value in zip([self.rate, *self.decays], [rate, *decays], strict=True):
            if isinstance(held, Tensor):
                held.fill_(value)  # the number travels with the launch: no copy that the host would wait for
