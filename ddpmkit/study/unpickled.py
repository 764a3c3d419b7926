"""Read a checkpoint that some torch wrote, and write its tensors as safetensors: a script, in a process of its own.

    python -I unpickled.py FILE TARGET KEY BYTES

A pickle is a program. torch's reader of weights alone builds tensors, plain containers and nothing else of it; this
process has no plugin, nothing of ddpmkit, bounded memory and time, and once torch is loaded a tripwire ends what starts
a process, opens a socket, loads a library or writes a file but the target. It prints a line of JSON: what was taken, or
why not. BYTES is the most that the tensors may take.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from typing import Any

SECONDS = 600
MEMORY = 8 * 2**30  # bytes beside four times the file's
MOST = 8 * 2**30  # bytes of all tensors, whatever is asked for
SINCE = (2, 6)  # the first torch whose reader of weights alone can't be made to run more: CVE-2025-32434
MOST_KEYS = 100_000
ROOT = "."  # the key of what the file holds itself
SAVE = "where it was made, save the numbers alone: torch.save(net.state_dict(), file)"
DEPTH = 3  # of containers in which weights are looked for
FORBIDDEN = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "signal.", "urllib.", "http.", "ftplib.")
# What torch makes of a file from anywhere; of anything else this process ends without a word, and nothing is taken.
RAISED = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError)
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")


class NotTakenError(Exception):
    """What is wrong, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def guard(target: str) -> None:
    """Refuse from now on whatever reading a file of weights does not need.

    A tripwire and no second line of defence: code that runs in this process could take it out of its way.
    """
    sys.addaudithook(forbid(target))


def forbid(target: str) -> Any:
    """Return what refuses an event of this interpreter but for those that reading needs."""
    # Its own, since a name of the module is whatever the code that it watches sets it to.
    forbidden, harmless, refused = FORBIDDEN, HARMLESS, PermissionError
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if flags & writing and path != target:
                raise refused(f"reading weights opens '{path}' to write")
        elif event.startswith(forbidden) and event not in harmless:
            raise refused(f"reading weights asks for {event}")

    return heard


def weights_in(found: Any, at: str = ROOT, depth: int = DEPTH) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping of names to tensors, with the keys that lead to it; what else is in one is left out."""
    import torch

    if not isinstance(found, Mapping):
        return
    tensors = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield at, tensors
    for name, value in found.items() if depth else ():
        yield from weights_in(value, str(name) if at == ROOT else f"{at}.{name}", depth - 1)


def chosen(found: Any, key: str) -> tuple[str, dict[str, Any]]:
    """Return the weights under a key, or the only ones.

    Raises:
        NotTakenError: when there are none, or several.
    """
    every = dict(weights_in(found))
    some = [f"--key {at} ({len(tensors)} tensors)" for at, tensors in list(every.items())[:6]]
    hint = f"name one: {', '.join(some)}" if some else SAVE
    if key and key not in every:
        raise NotTakenError(f"it has no weights under '{key}'", hint)
    if not key and len(every) != 1:
        raise NotTakenError(f"it holds {len(every) or 'no'} sets of weights", hint)
    return (key, every[key]) if key else next(iter(every.items()))


def refuse_old(version: str) -> None:
    """Refuse a torch whose reader of weights alone can be made to run more.

    Raises:
        NotTakenError: for one before 2.6.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < SINCE:
        wanted = ".".join(map(str, SINCE))
        raise NotTakenError(
            f"torch {version} can be made to run what stands in a file, also where it reads weights alone",
            f"pip install 'torch>={wanted}'; CVE-2025-32434",
        )


def plain(tensors: Mapping[str, Any], most: int = MOST) -> dict[str, Any]:
    """Return tensors as they can be stored.

    Raises:
        NotTakenError: for one that has no plain numbers, or when they are larger than what is read.
    """
    import torch

    if len(tensors) > MOST_KEYS:
        raise NotTakenError(f"it holds {len(tensors)} tensors, and no more than {MOST_KEYS} are read", "--key another")
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
            raise NotTakenError(f"'{name}' is no plain tensor", "save its numbers: tensor.dequantize() or .to_dense()")
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if size > most:  # a view may be larger than what it looks at
        raise NotTakenError(
            f"its tensors take {size:,} bytes, more than the file and more than the network's, {most:,}",
            "name the --backbone that they are of, with its parameters",
        )
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}


def read(source: str, key: str, most: int = MOST) -> tuple[str, dict[str, Any]]:
    """Return the weights in a file, and the keys that lead to them.

    Raises:
        NotTakenError: when there are none, or reading them would run more than builds tensors.
    """
    import pickle  # noqa: TID251 - for the name of what it raises

    import torch

    try:
        found = torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251 - what this process is for
    except pickle.UnpicklingError as err:
        what = " ".join(str(err).split())
        told = what.partition("GLOBAL ")[2].split(" was not")[0] or "it is no file of weights"
        raise NotTakenError(f"reading it would run more than builds tensors: {told[:120]}", SAVE) from None
    at, tensors = chosen(found, key)
    return at, plain(tensors, most)


def main(source: str, target: str, key: str, most: str) -> dict[str, Any]:
    """Read, write, and return what there is to say."""
    import safetensors.torch
    import torch

    try:
        refuse_old(torch.__version__)
    except NotTakenError as err:
        return {"error": err.message, "hint": err.hint}
    torch.load(_nothing(torch), weights_only=True)  # noqa: TID251 - so that all that it imports is there before the guard
    guard(target)
    try:
        at, tensors = read(source, key, min(int(most), MOST))
        safetensors.torch.save_file(tensors, target)
    except NotTakenError as err:
        return {"error": err.message, "hint": err.hint}
    except RAISED as err:
        said = " ".join(f"{type(err).__name__}: {err}".split())[:300]
        return {"error": f"it can't be read: {said}", "hint": SAVE}
    return {"key": at}


def _nothing(torch: Any) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1, dtype=torch.bfloat16)}, buffer)
    buffer.seek(0)
    return buffer


if __name__ == "__main__":
    size = os.stat(sys.argv[1]).st_size  # noqa: PTH116 - before anything is loaded
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (4 * size + MEMORY, 4 * size + MEMORY))
    print(json.dumps(main(*sys.argv[1:5])))
