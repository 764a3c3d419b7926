"""Numbers that must not move on a GPU: recorded steps against single ones, compiled against not, resumed against whole.

Each proof runs in a process of its own and gives one line of JSON: what was found, and whether it is as it should be.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ours
import torch
from cases import CIFAR_DRY, DIGITS, Case

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.training.loop import Hooks, train

Found = dict[str, Any]


class Killed(Exception):  # noqa: N818 - no error: the end that the proof wants
    """A training ends here, without saying goodbye."""


def _train(case: Case, device: torch.device, hooks: Hooks, **more: Any) -> dict[str, torch.Tensor]:
    """Train and return the averages' weights."""
    precision = more.pop("precision", "fp32")
    settings = ours.config(case, precision, **more)
    net = ours.network(case, device)
    goal: Any = ours.objective(case, settings, device)
    with devices.reproducible(device):
        averages = train(net, ours.images(case, device), goal, settings, device, hooks)
    weights = {f"{rate}/{k}": v.clone() for rate, n in averages.items() for k, v in n.state_dict().items()}
    return {**weights, **{k: v.clone() for k, v in net.state_dict().items()}}


def _differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> int:
    return sum(not torch.equal(a[k], b[k]) for k in a)


def recorded(device: torch.device, small: bool) -> Found:
    """Steps as CUDA graphs against steps kernel by kernel, without a compiler: equal to the bit over 200 steps."""
    steps = 4 if small else 200
    if "recorder" not in {f.name for f in dataclasses.fields(Hooks)}:
        return {"found": "this version records no steps", "ok": None}
    from ddpmkit.recording import OneByOne, recorder
    from ddpmkit.tape import Tape

    held, how = [], []
    for one in (recorder(device) or Tape(), OneByOne()):  # one code, whose rates are tensors; without a GPU a tape
        hooks = Hooks(recorder=lambda _, one=one: one, on_steps=how.append)  # type: ignore[misc]
        held.append(_train(DIGITS, device, hooks, steps=steps))
    differ = _differ(*held)
    if not how[0].startswith("recorded"):
        return {"found": f"nothing was recorded: {how[0]}", "ok": False}
    return {"found": f"{differ} tensors differ after {steps} steps", "ok": differ == 0}


def resumed(device: torch.device, small: bool) -> Found:
    """Killed and resumed against whole, to the bit: importance sampling, dropout 0.1, bf16, attention at 16x16."""
    case = replace(CIFAR_DRY, ours="unet:channels=8:mults=1/2:attention=16") if small else CIFAR_DRY
    steps, saved, killed = (6, 3, 5) if small else (60, 20, 50)
    more = {"steps": steps, "precision": "bf16", "dropout": 0.1, "timestep_sampling": "importance"}

    def kill(progress: Any) -> None:
        if progress.step >= killed:
            raise Killed

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        whole = _train(case, device, Hooks(Path(one), checkpoint_every=saved), **more)
        broken = Hooks(Path(two), checkpoint_every=saved, log_every=1, on_progress=kill)
        try:
            _train(case, device, broken, **more)
        except Killed:
            pass
        else:
            return {"found": "the training was not killed", "ok": False}
        differ = _differ(whole, _train(case, device, Hooks(Path(two), checkpoint_every=saved), **more))
    return {"found": f"{differ} tensors differ, killed at step {killed} of {steps}", "ok": differ == 0}


def compiled(device: torch.device, small: bool) -> Found:
    """A step's gradients compiled against not, from the weights after 0, 100 and 1000 steps; relative, all weights."""
    after = (0, 2) if small else (0, 100, 1000)
    case = replace(DIGITS, ours="unet:channels=4:mults=1", batch=4) if small else DIGITS
    wanted = {"fp32": 1e-4, "bf16": 2e-2}
    worst: dict[str, float] = {}
    x = torch.randn(case.batch, *case.shape, device=device)
    t = torch.rand(case.batch, device=device) * 1000
    for precision in wanted if device.type == "cuda" else ("fp32",):
        called = net = ours.network(case, device)
        called = torch.compile(net)  # type: ignore[assignment]
        for steps in after:
            if steps:
                held = _train(case, device, Hooks(), steps=steps)
                net.load_state_dict({k: held[k] for k in net.state_dict()})
            grads = []
            for f in (net, called):
                with devices.reproducible(device):
                    with devices.autocast(device, precision):
                        out = f(x, t)
                    (out.float() - x).square().mean().backward()
                grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
                net.zero_grad(set_to_none=True)
            apart = float((grads[0] - grads[1]).norm() / grads[0].norm())
            worst[precision] = max(worst.get(precision, 0.0), apart)
    told = ", ".join(f"{name} {apart:.1e}" for name, apart in worst.items())
    return {"found": told, "ok": all(apart <= wanted[name] for name, apart in worst.items())}


def study(device: torch.device, small: bool) -> Found:
    """The default study of nine trainings with all samples and likelihoods, from the command line, in seconds."""
    import subprocess
    import sys
    import time

    command = [
        sys.executable,
        "-m",
        "ddpmkit",
        "ablate",
        "--schedules",
        "linear,cosine,sigmoid",
        "--device",
        str(device),
    ]
    if small:
        command += ["--train-steps", "4", "--axis", "warmup=1", "--samples", "20", "--sampling-steps", "2",
                    "--timesteps", "50", "--nll-evals", "16", "--backbone", "unet:channels=4:mults=1",
                    "--metrics", "nll", "--train-seeds", "0"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run([*command, "--out", folder], capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if done.returncode:
        return {"found": f"exit {done.returncode}: {done.stderr.splitlines()[-1:]}", "ok": False}
    return {"found": f"{seconds:.0f} s", "ok": seconds <= 60}


PROOFS: dict[str, tuple[str, str, Callable[[torch.device, bool], Found]]] = {
    "study": ("the default study of nine trainings, whole", "at most 60 s", study),
    "recorded": ("graphs on against off, not compiled", "equal to the bit over 200 steps", recorded),
    "resumed": ("killed and resumed against whole", "equal to the bit", resumed),
    "compiled": ("gradients compiled against not, relative", "fp32 1e-4, bf16 2e-2", compiled),
}


def main(name: str, device: str, small: bool) -> Found:
    """Run one proof."""
    torch.set_num_threads(1)
    assert ddpmkit.__version__
    return PROOFS[name][2](torch.device(device), small)
