"""Checkpoints of a training: safetensors, committed whole, the last two kept, a damaged one set aside.

ckpt/00001000/{model,ema,optim}.safetensors + COMMIT.json
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from ddpmkit import files

KEEP = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training after ``step`` steps: what is needed to go on bit for bit."""

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optim: dict[str, Tensor]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Commit a checkpoint, then drop all but the last two.

    Raises:
        OSError: when the disk refuses; the checkpoints that were there stay.
    """
    groups = {"model": checkpoint.model, "ema": checkpoint.ema, "optim": checkpoint.optim}
    blobs = {f"{name}.safetensors": files.pack(tensors) for name, tensors in groups.items()}
    files.commit_folder(folder / f"{checkpoint.step:08d}", blobs, {"step": checkpoint.step})
    for old in _steps(folder)[:-KEEP]:
        with contextlib.suppress(FileNotFoundError):  # whoever lost the stage at this moment drops it too
            # Moved first: where the process ends here, one that is half gone would be a damaged checkpoint.
            shutil.rmtree(files.quarantine(old))


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None; a damaged one is set aside and said on stderr."""
    for candidate in reversed(_steps(folder)):
        meta = files.verify_folder(candidate)
        if meta is None:
            with contextlib.suppress(FileNotFoundError):  # another reader was faster
                place = files.quarantine(candidate)
                print(f"warning: checkpoint {candidate} is damaged; set aside as {place.name}", file=sys.stderr)
            continue
        parts = {name: _group(candidate / f"{name}.safetensors") for name in ("model", "ema", "optim")}
        return Checkpoint(int(meta["step"]), parts["model"], parts["ema"], parts["optim"])
    return None


def _group(path: Path) -> dict[str, Tensor]:
    """A group of tensors; none where it was let go, as the optimiser's state by ``gc --deep``."""
    try:
        return dict(load(path.read_bytes()))
    except FileNotFoundError:
        return {}


def under(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """Return the tensors named ``group/...``, without that."""
    return {k.removeprefix(f"{group}/"): v for k, v in tensors.items() if k.startswith(f"{group}/")}


def optimizer_tensors(optimizer: torch.optim.Optimizer, net: nn.Module) -> dict[str, Tensor]:
    """Flatten the optimiser's state to named tensors, ``exp_avg/conv_in.weight`` and so on."""
    out = {}
    for path, parameter in net.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            out[f"{key}/{path}"] = value
    return out


def restore_optimizer(optimizer: torch.optim.Optimizer, net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    for path, parameter in net.named_parameters():
        state = {k.split("/", 1)[0]: v for k, v in tensors.items() if k.split("/", 1)[1] == path}
        # empty_like keeps the parameter's memory format, which the fused optimiser's bits depend on.
        optimizer.state[parameter] = {
            k: torch.empty_like(parameter).copy_(v) if v.shape == parameter.shape else v.to(parameter.device).clone()
            for k, v in state.items()
        }


def _steps(folder: Path) -> list[Path]:
    # What a link leads to is no checkpoint of ours, to be dropped later.
    found = folder.glob("[0-9]*") if folder.is_dir() else ()
    return sorted(p for p in found if p.name.isdecimal() and p.is_dir() and not p.is_symlink())
