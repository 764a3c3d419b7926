"""Compiling a network with torch.compile: when it pays, what it needs, and what becomes of one that can't be compiled.

A compiled network gives other last bits than an eager one, so which of the two ran is in the fingerprint. Its dropout
draws what the eager one's draws.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpmkit.randomness import seeded_libraries
from ddpmkit.text import one_line

EAGER, COMPILED = "eager", "compiled"

# Both are rough, and alike on every machine: a stage then runs in the same way wherever it runs, and when it goes on.
RATES = {"cpu": 4e10, "cuda": 2e13}  # floating-point operations a second of one CPU thread, of one GPU
SECONDS_A_LAYER = 1.5  # to compile a layer forwards and backwards; forwards alone takes half
WORTH = 20.0  # how many times as long as compiling the work must be


def wanted(asked: str, net: nn.Module, operations: Callable[[], float], device: torch.device, *, learns: bool) -> bool:
    """Whether to compile: ``auto`` where the work exceeds ``WORTH`` times what compiling takes, and a compiler is here.

    Both times are reckoned and not measured, so that every process comes to the same answer.

    Args:
        asked: ``auto``, ``on`` or ``off``.
        net: The network.
        operations: Gives the floating-point operations of all the work; asked only where it matters.
        device: Where the network is.
        learns: Whether the work is training.
    """
    if asked != "auto":
        return asked == "on"
    layers = sum(1 for m in net.modules() if next(m.parameters(recurse=False), None) is not None)
    takes = SECONDS_A_LAYER * layers * (1.0 if learns else 0.5)
    return device.type in RATES and has_compiler(device) and operations() / RATES[device.type] > WORTH * takes


def has_compiler(device: torch.device) -> bool:
    """Whether what torch.compile calls on a device is here: a C++ compiler, and Triton for a GPU."""
    found = shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None
    return found and (device.type == "cpu" or importlib.util.find_spec("triton") is not None)


def compile_network(
    net: nn.Module,
    shown: Sequence[tuple[Tensor, ...]],
    *,
    learns: bool,
    within: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> str | None:
    """Compile a network in place; return None, or in a line why it can't be, and then it is as it was.

    It is tried at once, forwards and backwards, on what it will be shown: what can't be compiled says so here, and not
    in the middle of a training. Its weights and buffers, and what is drawn after it, are as before.

    Args:
        net: The network, on its device and in its mode.
        shown: Arguments of each shape that it will be called with; their values do not matter.
        learns: Whether gradients will be asked for.
        within: Gives the context that it will run in, as autocast.
    """
    first = os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))
    kept = [(buffer, buffer.clone()) for buffer in net.buffers()]
    failure = _tried(net, shown, learns=learns, within=within)
    if failure is not None:
        # A process that was killed while it linked may have left half a library, which is found again each time.
        with contextlib.suppress(OSError):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="ddpmkit-compiled-")
            torch._dynamo.reset()
            failure = _tried(net, shown, learns=learns, within=within)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = first
    if failure is not None:
        net._compiled_call_impl = None
    net.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in kept:
            buffer.copy_(before)
    return failure


def _tried(
    net: nn.Module,
    shown: Sequence[tuple[Tensor, ...]],
    *,
    learns: bool,
    within: Callable[[], contextlib.AbstractContextManager[Any]],
) -> str | None:
    """Compile a network and let it answer once for each shape; return what went wrong."""
    options: dict[str, Any] = {"fallback_random": True}  # dropout's masks stay the eager ones
    if next(net.parameters(), torch.empty(0)).device.type == "cpu":
        options["compile_threads"] = 1  # a worker is one thread, and leaves no process behind
    try:
        with warnings.catch_warnings(), seeded_libraries(0, "compile", 0), torch.inference_mode(not learns):
            warnings.simplefilter("ignore")  # of the compiler's own parts
            net.compile(dynamic=False, options=options)
            compiled: Any = net._compiled_call_impl  # what Module.compile set
            net._compiled_call_impl = partial(_laid_out, compiled)
            for given in shown:
                with within():
                    # What is made here is an inference tensor or not, as it will be: the two are compiled apart.
                    out = net(*(torch.zeros_like(each) for each in given))
                if learns:
                    out.float().square().mean().backward()
    except (RuntimeError, OSError, ImportError) as err:  # torch's own errors, the compiler's and the linker's
        return one_line(f"{type(err).__name__}: {err}")
    return None


def _laid_out(answer: Callable[..., Tensor], x: Tensor, *rest: Tensor) -> Tensor:
    """Show a compiled network x in C order, also of one channel: for every other order it is compiled anew."""
    return answer(x.contiguous().view(x.shape), *rest)


def cache_folder() -> Path:
    """Return where compiled code is kept: the user's cache, never the store, for it is pickled and of this machine."""
    root = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(root) / "ddpmkit" / "compiled"
