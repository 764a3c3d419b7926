"""What a component must leave as it found it: the generators and the settings that all of a process share."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpmkit.errors import DdpmkitError

KEYS = (20011, 30011)  # of two beginnings, which no author would take


def leaves_alone(component: Any, use: Callable[[], Any]) -> None:
    """Refuse a component that seeds a global generator, or changes a setting of the process, while it is used.

    Numbers that are drawn there are no fault by themselves, as a layer's first weights are. A generator that stands
    at one point after two beginnings was seeded.

    Raises:
        DdpmkitError: with what it changes.
    """
    told = f"{component.name} changes the process that it runs in"
    ends = []
    for key in KEYS:
        _seed(key)
        begun, settings = _generators(), _settings()
        use()
        for what, value in _settings().items():
            if value != settings.get(what, value):
                raise DdpmkitError(f"{told}: {what} is {value}, and was {settings[what]}", "put it back, or leave it")
        ends.append(_generators())
        if all(ends[-1][what] == state for what, state in begun.items()):  # nothing was drawn, so nothing was seeded
            return
    seeded = [what for what in ends[0] if ends[0][what] == ends[1].get(what)]
    if seeded:
        raise DdpmkitError(
            f"{told}: it seeds the global generator of {' and '.join(seeded)}, so what others draw no longer depends "
            "on their seed",
            "draw from a generator of your own: numpy.random.default_rng(0), torch.Generator().manual_seed(0)",
        )


@contextmanager
def put_back() -> Iterator[None]:
    """Give the process back as it was, whatever is done to its generators and settings meanwhile."""
    import numpy as np

    torch = sys.modules.get("torch")
    python, numpy, folder, errors = random.getstate(), np.random.get_state(), Path.cwd(), np.geterr()
    state = torch.random.get_rng_state() if torch else None
    settings = _settings()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        np.seterr(**errors)
        os.chdir(folder)
        if torch:
            torch.random.set_rng_state(state)
            torch.set_default_dtype(settings[DTYPE])
            torch.set_grad_enabled(settings[GRADIENTS])
            if torch.get_num_threads() != settings[THREADS]:
                torch.set_num_threads(settings[THREADS])


def _seed(key: int) -> None:
    import numpy as np

    random.seed(key)
    np.random.seed(key)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(key)


def _generators() -> dict[str, Any]:
    import numpy as np

    _, key, position, *_ = np.random.get_state(legacy=True)
    found: dict[str, Any] = {"random": random.getstate(), "numpy": (np.asarray(key).tobytes(), position)}
    if torch := sys.modules.get("torch"):
        found["torch"] = torch.random.get_rng_state().numpy().tobytes()
    return found


DTYPE, GRADIENTS, THREADS = "torch's default dtype", "torch's recording of gradients", "torch's number of threads"


def _settings() -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {"the working folder": str(Path.cwd()), "numpy's handling of errors": np.geterr()}
    if torch := sys.modules.get("torch"):
        found |= {
            DTYPE: torch.get_default_dtype(),
            GRADIENTS: torch.is_grad_enabled(),
            THREADS: torch.get_num_threads(),
        }
    return found
