"""Contenders that take turns, block by block, so that a machine that gets busier does so for all of them."""

from __future__ import annotations

import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A contender: its row's name, and the function that makes it, with its options."""

    row: str
    module: str
    make: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Race:
    """A case, what is done with it, and who takes part; ``unit`` is what a block's seconds are of."""

    title: str
    case: str
    unit: str
    entries: tuple[Entry, ...]


@dataclass
class Row:
    """What a race found of a contender; seconds a step or an evaluation, one number a block."""

    row: str
    parameters: int | None = None
    preparing: float | None = None  # seconds before the first counted block: compilation, caches; not counted
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    loss: float | None = None
    memory: int = 0  # bytes: most that was reserved on the GPU, or most that the process held
    failed: str | None = None

    def record(self, by: str) -> dict[str, Any]:
        """The row as JSON values, with the median and the spread of ``cpu`` or ``wall``."""
        times = getattr(self, by)
        spread = {"median": statistics.median(times), "least": min(times), "most": max(times)} if times else {}
        return {**asdict(self), **spread}


@dataclass(frozen=True)
class Where:
    """Where a race is run, and until when."""

    device: str
    threads: int
    small: bool
    blocks: int
    by: str  # ``cpu`` or ``wall``: which seconds are compared
    deadline: float = float("inf")  # of time.monotonic()
    patience: float = 1800.0  # seconds that a contender may take to get ready, and for a block
    together: bool = False  # whether all get ready side by side: their compilers then do not wait for each other


class Worker:
    """The process of one contender."""

    def __init__(self, entry: Entry, race: Race, where: Where) -> None:
        asked = {
            "module": entry.module, "make": entry.make, "options": entry.options, "case": race.case,
            "device": where.device, "threads": where.threads, "small": where.small,
        }  # fmt: skip
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(where.threads), "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        command = [sys.executable, str(Path(__file__).parent), "--worker", json.dumps(asked)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def answer(self, until: float) -> dict[str, Any] | None:
        """Return what it says next; None where it says nothing until then, or has ended."""
        stdout = self.process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(stdout, selectors.EVENT_READ)
            if not ready.select(max(0.0, until - time.monotonic())):
                return None
        line = stdout.readline()
        told: dict[str, Any] | None = json.loads(line) if line else None
        return told

    def block(self, until: float) -> dict[str, Any] | None:
        """Let it run a block."""
        stdin = self.process.stdin
        assert stdin is not None
        try:
            stdin.write("\n")
            stdin.flush()
        except BrokenPipeError:
            return None
        return self.answer(until)

    def stop(self) -> None:
        """End it; it holds nothing that must be kept."""
        self.process.kill()
        self.process.wait()


def run(race: Race, where: Where) -> list[dict[str, Any]]:
    """Run a race and return its rows; who can't take part has a row that says why. At its end no contender runs."""
    rows = {entry.row: Row(entry.row) for entry in race.entries}
    workers: dict[str, Worker] = {}
    try:
        for entry in race.entries:
            workers[entry.row] = Worker(entry, race, where)
            if not where.together:
                _get_ready(rows[entry.row], workers[entry.row], where, time.monotonic() + where.patience)
        until = time.monotonic() + where.patience
        for entry in race.entries if where.together else ():
            _get_ready(rows[entry.row], workers[entry.row], where, until)
        for turn in range(where.blocks):
            names = [name for name, row in rows.items() if row.failed is None]
            for name in names[turn % len(names) :] + names[: turn % len(names)] if names else []:
                if rows[name].wall and time.monotonic() > where.deadline:
                    continue  # every contender has had one block at the least
                _take_turn(rows[name], workers[name], where)
    finally:
        for worker in workers.values():
            worker.stop()
    return [row.record(where.by) for row in rows.values()]


def _get_ready(row: Row, worker: Worker, where: Where, until: float) -> None:
    """Wait for a contender to be ready; nothing is timed yet."""
    told = worker.answer(until)
    if told is None:
        gone = worker.process.poll() is not None
        row.failed = "its process ended" if gone else f"not ready after {where.patience:.0f} s"
        worker.stop()
    elif "failed" in told:
        row.failed = told["failed"]
    else:
        row.parameters, row.preparing = told["parameters"], told["preparing"]
    print(f"  {row.row}: {row.failed or f'ready after {row.preparing:.0f} s'}", file=sys.stderr, flush=True)


def _take_turn(row: Row, worker: Worker, where: Where) -> None:
    told = worker.block(time.monotonic() + where.patience)
    if told is None:
        row.failed = "its process ended in a block" if worker.process.poll() is not None else "a block did not end"
        worker.stop()
        return
    row.cpu.append(told["cpu"])
    row.wall.append(told["wall"])
    row.loss, row.memory = told["loss"], max(row.memory, told["memory"])
