"""A contender in a process of its own: it gets ready once, and runs a block whenever it is told to.

So memory is one contender's, a compiler that never ends can be stopped, and no library meets another's stand-ins.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from typing import Any


def main(asked: dict[str, Any]) -> None:
    """Get ready, say so, and answer each line of stdin with a block; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**told: Any) -> None:
        print(json.dumps(told), file=answers, flush=True)

    import torch
    from cases import CASES, small

    torch.set_num_threads(asked["threads"])
    device = torch.device(asked["device"])
    case = small(CASES[asked["case"]]) if asked["small"] else CASES[asked["case"]]
    started = time.perf_counter()
    try:
        made = getattr(importlib.import_module(asked["module"]), asked["make"])(case, device, **asked["options"])
        made.block()  # compiles, and fills caches; not counted
    except ModuleNotFoundError as err:
        say(failed=f"{err.name} is not installed")
        return
    except Exception as err:  # whatever a peer raises is what its row says
        say(failed=f"{type(err).__name__}: {' '.join(str(err).split())[:200]}")
        raise
    say(parameters=made.parameters, preparing=time.perf_counter() - started)
    for _ in sys.stdin:
        cpu, wall, loss = made.block()
        if device.type == "cuda":
            memory = torch.cuda.max_memory_reserved()
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        say(cpu=cpu, wall=wall, loss=None if loss != loss else loss, memory=memory)
