"""What is asked of Ray: a cluster, its room, actors on its nodes, their answers, and whether they are lost."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit import DdpmkitError, inert
from ddpmkit.builtin.executors._ray_seat import Seat

STORE = 80_000_000  # bytes of Ray's object store, close to the least it takes: text alone goes through it
PORT = 6379  # where a cluster is, unless said
GIB = 1 << 30


class Lost(Exception):  # noqa: N818 - what happened to an actor, not a defect
    """An actor is gone, and its stage with it: the node, or Ray's process on it; or it can't begin a stage there."""


@dataclass(frozen=True)
class Share:
    """What Ray sets aside for one stage.

    Attributes:
        cpus: of a node's.
        gpus: of a node's; a share of one, or whole ones.
        memory: GiB; 0 where none is set aside.
    """

    cpus: float
    gpus: float
    memory: float

    def fits(self, node: dict[str, float]) -> int:
        """Return how often it fits into the resources of a node."""
        found = [times(self.cpus, node.get("CPU", 0.0))]
        if self.gpus:  # a share is of one GPU, and never of two
            whole = max(self.gpus, 1.0)
            found.append(times(whole, node.get("GPU", 0.0)) * times(self.gpus, whole))
        if self.memory:
            found.append(times(self.memory * GIB, node.get("memory", 0.0)))
        return min(found)

    def __str__(self) -> str:
        """The share, for people."""
        memory = f", {self.memory:g} GiB" if self.memory else ""
        return f"{self.cpus:g} CPU" + (f", {self.gpus:g} GPU" if self.gpus else "") + memory


def times(share: float, whole: float) -> int:
    """Return how often a share goes into a whole; 0.28 goes 25 times into 7, whatever floats make of it."""
    return math.floor(whole / share + 1e-9)


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any, *, ours: bool) -> None:
        self._ray, self._ours = ray, ours
        self._speak = _silence() if ours else lambda: None

    @property
    def has_gpus(self) -> bool:
        """Whether any node has a GPU."""
        return any(node.get("GPU", 0.0) for node in self._nodes())

    def room(self, share: Share) -> int:
        """Return how many stages the nodes that are there can run at once, if nobody else uses them."""
        return sum(share.fits(node) for node in self._nodes())

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def seat(self, share: Share, told: str) -> Any:
        """Ask for an actor that holds a share; Ray finds a node for it, at once or later."""
        wanted: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_restarts": 0}
        if share.memory:
            wanted["memory"] = int(share.memory * GIB)
        return self._ray.remote(Seat).options(**wanted).remote(told)

    def ask(self, actor: Any, what: str, *told: str) -> Any:
        """Call a method of an actor, and return what stands for its answer."""
        return getattr(actor, what).remote(*told)

    def heard(self, answers: Sequence[Any], seconds: float) -> Any:
        """Wait for one of the answers; None when the time is over."""
        ready, _ = self._ray.wait(list(answers), num_returns=1, timeout=seconds)
        return ready[0] if ready else None

    def read(self, answer: Any) -> dict[str, Any]:
        """Return an answer that is there.

        Raises:
            Lost: when the actor is gone, or has failed at what it was asked for.
            DdpmkitError: when no actor can be made.
        """
        from ray import exceptions

        try:
            said: dict[str, Any] = json.loads(self._ray.get(answer))
        except (exceptions.RuntimeEnvSetupError, exceptions.ActorUnschedulableError) as err:
            raise DdpmkitError(f"Ray can't start a worker: {_first_line(err)}", "docs/executors.md, on Ray") from err
        except exceptions.RayActorError as err:
            if getattr(err, "actor_init_failed", False):
                raise DdpmkitError(
                    f"a node of the Ray cluster can't start a worker: {_last_line(err)}",
                    "every node needs the same Python, torch, ddpmkit and plugins",
                ) from err
            raise Lost(_last_line(err)) from err
        except exceptions.OutOfMemoryError as err:
            raise Lost(_first_line(err)) from err  # behind it is Ray's advice
        except exceptions.RayError as err:  # a lost object or node, or what the actor itself has raised: a full disk
            raise Lost(_last_line(err)) from err
        return said

    def end(self, actor: Any) -> None:
        """End an actor at once, and its worker with it."""
        self._ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """Leave the cluster, if this executor joined it."""
        if self._ours:
            with _handlers_stay():
                self._ray.shutdown()
            self._speak()


def connect(address: str | None, working_dir: str | None, say: Callable[[str], None]) -> Cluster:
    """Join the cluster at an address, or the one of this machine; where there is none, start one on it.

    Raises:
        DdpmkitError: without Ray, or where no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported
    # Ray takes SIGTERM for itself, when it is imported and when it starts; it is a run's, which writes checkpoints.
    with _handlers_stay(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of changes to come in Ray; a user of ddpmkit can do nothing about them
        try:
            import ray
        except ModuleNotFoundError as err:
            if err.name != "ray":
                raise
            raise DdpmkitError("executor 'ray' needs Ray, which is not installed", "pip install ray") from None
        if working_dir is not None and not Path(working_dir).is_dir():
            raise DdpmkitError(f"ray:working_dir={working_dir} is no folder", "as in --executor ray:working_dir=.")
        if ray.is_initialized():
            if address is not None or working_dir is not None:
                raise DdpmkitError(
                    "this process has joined a Ray cluster already", "leave address and working_dir to your ray.init"
                )
            return Cluster(ray, ours=False)
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if working_dir is not None:
            how["runtime_env"] = {"working_dir": working_dir}
        try:
            ray.init(address="auto" if address is None else with_port(address), **how)
        except ConnectionError as err:
            if address is not None or "RAY_ADDRESS" in os.environ:
                raise _unreachable(address, err) from err
            say("no Ray cluster runs here: one is started on this machine, for this run")
            ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **how)
        except (RuntimeError, ValueError) as err:
            raise _unreachable(address, err) from err
    return Cluster(ray, ours=True)


def _silence() -> Callable[[], None]:
    """Keep Ray from printing what happens on its nodes to our stdout, and return what undoes that.

    No setting does: ``log_to_driver=False`` stops what workers print, and not this thread. A loss is told by us.
    """
    module: Any = sys.modules.get("ray._private.worker")
    printing = getattr(module, "print_to_stdstream", None)
    if printing is None:  # another Ray
        return lambda: None
    module.print_to_stdstream = lambda *_, **__: None
    return lambda: setattr(module, "print_to_stdstream", printing)


def with_port(address: str) -> str:
    """Return an address as Ray takes it: a host alone gets the usual port."""
    whole = ":" in address or address in ("auto", "local")
    return address if whole else f"{address}:{PORT}"


def _unreachable(address: str | None, err: Exception) -> DdpmkitError:
    where = address or os.environ.get("RAY_ADDRESS") or "of this machine"
    return DdpmkitError(
        f"the Ray cluster {where} can't be joined: {_first_line(err)}",
        "run this on one of its nodes, with the Ray and Python that it has; ray status says whether it is up",
    )


@contextlib.contextmanager
def _handlers_stay() -> Iterator[None]:
    """Put back what handles signals; only the main thread can set that, and Ray leaves other threads alone too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: nobody of Python's
                with contextlib.suppress(ValueError):  # not the main thread
                    signal.signal(number, handler)


def _lines(err: Exception) -> list[str]:
    return [line for line in map(inert, map(str.strip, str(err).splitlines())) if line] or [type(err).__name__]


def _first_line(err: Exception) -> str:
    return _lines(err)[0][:300]


def _last_line(err: Exception) -> str:
    return _lines(err)[-1][:300]
