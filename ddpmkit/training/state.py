"""Everything that changes while a training runs: what a checkpoint holds, and what a trial step must put back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpmkit.errors import Diverged
from ddpmkit.training import checkpoint
from ddpmkit.training.gradient_clip import GradientClip
from ddpmkit.training.timesteps import Timesteps


@dataclass(frozen=True, eq=False)
class State:
    """The state of a training.

    Attributes:
        net: the network.
        averages: of its weights, by the rate as text.
        optimizer: AdamW.
        timesteps: the choice of steps, which may learn.
        clip: the gradient's, which may remember.
        sums: what is reported.
    """

    net: nn.Module
    averages: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    timesteps: Timesteps
    clip: GradientClip
    sums: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name, where it is: also buffers that no checkpoint holds, of the optimiser what is."""
        groups = {"model": _held(self.net), "optim": self._optim()}
        groups |= {f"ema/{rate}": _held(net) for rate, net in self.averages.items()}
        return {f"{group}/{name}": v for group, tensors in groups.items() for name, v in tensors.items()}

    def save(self, folder: Path | None, step: int) -> None:
        """Write a checkpoint after ``step`` steps, where there is a folder.

        Raises:
            Diverged: when a weight is not finite.
        """
        if folder is None:
            return
        model, averaged = self._model(), self._averaged()
        if not all(bool(torch.isfinite(v).all()) for v in (*model.values(), *averaged.values(), self.sums)):
            raise Diverged(f"a weight is not finite at step {step}")
        checkpoint.write(folder, checkpoint.Checkpoint(step, model, averaged, self._optim()))

    def restore(self, folder: Path | None) -> int:
        """Put back the newest checkpoint, if there is one; return how many steps were made."""
        found = checkpoint.newest(folder) if folder is not None else None
        if found is None or not found.optim:  # without the optimiser's state nothing goes on bit for bit
            return 0
        self.net.load_state_dict(found.model)
        for rate, net in self.averages.items():
            net.load_state_dict(checkpoint.under(found.ema, rate))
        self.sums.copy_(found.optim.pop("sums/"))
        self.timesteps.restore(checkpoint.under(found.optim, "timesteps"))
        self.clip.restore(checkpoint.under(found.optim, "clip"))
        optim = {k: v for k, v in found.optim.items() if not k.startswith(("timesteps/", "clip/"))}
        checkpoint.restore_optimizer(self.optimizer, self.net, optim)
        return found.step

    def _model(self) -> dict[str, Tensor]:
        return dict(self.net.state_dict())

    def _averaged(self) -> dict[str, Tensor]:
        return {f"{rate}/{k}": v for rate, net in self.averages.items() for k, v in net.state_dict().items()}

    def _optim(self) -> dict[str, Tensor]:
        optim = {**checkpoint.optimizer_tensors(self.optimizer, self.net), "sums/": self.sums}
        optim |= {f"clip/{k}": v for k, v in self.clip.state().items()}
        return optim | {f"timesteps/{k}": v for k, v in self.timesteps.state().items()}


def _held(net: nn.Module) -> dict[str, Tensor]:
    """Weights and all buffers, persistent or not."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}
