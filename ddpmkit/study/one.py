"""One stage, for executors: ``run_one`` in this process, ``python -m ddpmkit.study.one FILE [NEWS]`` in another one."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.execution import Emit, Event, Job, ShouldStop, Task

NEWS_EVERY = 2.0  # seconds between two writings of a stage's news


def with_components(job: Job) -> Job:
    """Return a job with its components loaded in this process, for several stages of it.

    Raises:
        DdpmkitError: when a plugin of the job is not here.
    """
    from ddpmkit.plugin.registry import Registry

    return replace(job, registry=Registry(job.plugins, installed=job.installed, quiet=True))


def run_one(
    job: Job,
    task: Task,
    emit: Emit = lambda _: None,
    should_stop: ShouldStop = lambda: False,
    *,
    device: str | None = None,
) -> str:
    """Run a stage unless its output is there; return its state: done, failed, diverged, interrupted or timed out.

    Args:
        job: What it is a part of.
        task: The stage.
        emit: Told how far it is.
        should_stop: Asked at every step.
        device: Where it runs; the job's first device by default.

    Raises:
        DdpmkitError: when the task is another ddpmkit's, or a plugin of the job is not here.
    """
    from ddpmkit.study.execute import execute
    from ddpmkit.study.settings import StageOptions
    from ddpmkit.study.stages import read_stage
    from ddpmkit.study.store import Store

    registry = job.registry or with_components(job).registry
    options = StageOptions(
        device=device or job.device(0),
        compile=job.compile,
        checkpoint_every=job.checkpoint_every,
        run=job.run,
        steal=job.steal,
        timeout=job.timeout,
    )
    return execute(read_stage(task.record), Store(Path(job.out)), registry, options, emit, should_stop)


def _kept_in(path: Path) -> Emit:
    """Return what keeps the last event in a file: ``{"begun": whether the work has begun, "event": ..}``."""
    begun, last = False, 0.0

    def emit(event: Event) -> None:
        nonlocal begun, last
        first = event["event"] == "attempt" and not begun
        begun = begun or first
        if first or time.monotonic() - last > NEWS_EVERY:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # it costs the news, and not the stage
                files.write_text(path, json.dumps({"begun": begun, "event": event}) + "\n")

    return emit


def main(file: str, news: str | None = None) -> int:
    """Run the stage of a file ``{"job": .., "task": ..}`` and print its state; 0 when it is done, else 1.

    SIGTERM and SIGINT ask for a checkpoint and the end. Where ``news`` names a file, it holds the stage's last event.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    given = json.loads(Path(file).read_text(encoding="utf-8"))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a component prints is no state
            job, task = Job.from_json(given["job"]), Task(**given["task"])
            emit: Emit = _kept_in(Path(news)) if news is not None else lambda _: None
            state = run_one(job, task, emit, stopping.is_set)
    except DdpmkitError as err:
        print(f"error: {err.message}", file=sys.stderr)
        state = "failed"
    print(state)
    return 0 if state == "done" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
