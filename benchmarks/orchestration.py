"""What a stage costs beside itself: ``python benchmarks/orchestration.py > benchmarks/orchestration.md``.

Orchestration is everything in a command and in its workers but the body of a stage: planning, handing out, claims,
specs, statuses, commits, events, the reports. It is a slope, so that what a command costs once is not in it: CPU
seconds of two whole commands, of ``FEW`` and of ``MANY`` train seeds, with all their children, over the stages that the
one has more; less the same slope of the CPU seconds of the stages' own ``run``, which is timed in one process.

Where Ray is installed (``.venv-ray/bin/python``, which ``make test-ray`` makes), a head and two nodes are measured too,
with all of Ray's own processes; what those take at rest in the same time is taken off, and is printed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.cli import main
from ddpmkit.study.stages import STAGE_KINDS

FEW, MANY, TURNS = 2, 12, 3
STUDY = (
    "--schedules", "linear,cosine", "--backbones", "unet:channels=4:mults=1", "--train-steps", "5", "--batch-size", "4",
    "--samples", "4", "--sampling-steps", "2", "--timesteps", "24", "--nll-evals", "16", "--features", "pca:k=2",
    "--metrics", "fd,nll", "--device", "cpu", "--name", "toy",
)  # fmt: skip
ROOT = Path(ddpmkit.__file__).parents[1]
TICK = os.sysconf("SC_CLK_TCK")
Spent = tuple[float, int]  # CPU seconds, and stages that they were for


def arguments(out: Path, seeds: int, executor: str) -> list[str]:
    """The words of a study of so many train seeds, in an empty folder."""
    data = f"npz:path={out.parent / 'few.npz'}:levels=17:validation=8"
    seen = ["--train-seeds", f"0-{seeds - 1}", "--executor", executor, "--out", str(out)]
    return ["--no-plugins", "ablate", "--dataset", data, *STUDY, *seen]


def stages(out: Path) -> int:
    """How many stages are done in a results folder."""
    return sum(1 for _ in out.glob("store/*/*/*/out/result.json"))


def whole(out: Path, seeds: int, *, executor: str) -> Spent:
    """The command, in a process of its own, with its children."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ddpmkit", *arguments(out, seeds, executor)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, stages(out)


@contextlib.contextmanager
def timed() -> Iterator[list[float]]:
    """Time the bodies of all stages that run in this process."""
    seconds: list[float] = []

    def clocked(run: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def body(spec: Any, work: Any) -> Any:
            started = time.process_time()
            try:
                return run(spec, work)
            finally:
                seconds.append(time.process_time() - started)

        return body

    usual = {kind: kind.run for kind in STAGE_KINDS.values()}
    for kind, run in usual.items():
        kind.run = clocked(run)  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        for kind, run in usual.items():
            kind.run = run  # type: ignore[method-assign]


def bodies(out: Path, seeds: int) -> Spent:
    """The stages alone."""
    with timed() as seconds, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if code := main(arguments(out, seeds, "inline")):
            raise SystemExit(f"inline: exit {code}")
    return sum(seconds), stages(out)


def processor(numbers: list[int]) -> float:
    """CPU seconds of processes and of their children that have ended: proc_pid_stat(5), fields 14 to 17."""
    total = 0
    for number in numbers:
        with contextlib.suppress(OSError):
            behind = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in behind[11:15])
    return total / TICK


def slope(few: Spent, many: Spent) -> float:
    """Milliseconds a stage."""
    return 1e3 * (many[0] - few[0]) / (many[1] - few[1])


def measure(folder: Path, spend: Callable[[Path, int], Spent]) -> list[float]:
    """Slopes of several turns, each in folders of its own."""
    found = []
    for turn in range(TURNS):
        few, many = (spend(folder / f"{turn}-{seeds}", seeds) for seeds in (FEW, MANY))
        found.append(slope(few, many))
    return found


def on_ray(folder: Path) -> tuple[list[float], float]:
    """Slopes under Ray, less what its processes take at rest; and that, in CPU seconds a second."""
    cluster = runpy.run_path(str(ROOT / "tests/ray/test_cluster.py"))
    nodes = cluster["Nodes"](Path(tempfile.mkdtemp(prefix="ddk-ray-")))

    def spent() -> float:
        return processor([n for node in (nodes.head, *nodes.nodes) for n in (node.process.pid, *node.processes())])

    try:
        nodes.head.wait()
        nodes.add()
        nodes.add()
        time.sleep(10)
        before, started = spent(), time.monotonic()
        time.sleep(20)
        rest = (spent() - before) / (time.monotonic() - started)

        def run(out: Path, seeds: int) -> Spent:
            before, started = spent(), time.monotonic()
            own, done = whole(out, seeds, executor=f"ray:address=127.0.0.1%3A{nodes.port}")
            return own + spent() - before - rest * (time.monotonic() - started), done

        return measure(folder, run), rest
    finally:
        nodes.close()


def row(name: str, slopes: list[float], body: float) -> str:
    """A line of the table."""
    spread = f"{min(slopes) - body:.0f} to {max(slopes) - body:.0f}"
    return f"| {name} | {statistics.median(slopes):.0f} ms | {statistics.median(slopes) - body:.0f} ms | {spread} ms |"


def report() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = np.random.default_rng(0).integers(0, 17, (60, 8, 8)).astype(np.uint8)
        np.savez(folder / "few.npz", train_images=images[:40], test_images=images[40:])
        os.utime(folder / "few.npz", (1e9, 1e9))  # what is this young is read again at every look
        for part in ("bodies", "inline", "local", "ray"):
            (folder / part).mkdir()
            (folder / part / "few.npz").symlink_to(folder / "few.npz")
        body = statistics.median(measure(folder / "bodies", bodies))
        print(
            "# What running a stage costs beside the stage itself\n\n"
            "`python benchmarks/orchestration.py > benchmarks/orchestration.md`\n\n"
            f"{devices.fingerprint(torch.device('cpu'))['device_name']}, torch {torch.__version__}; CPU milliseconds a "
            f"stage, medians of {TURNS} turns; the stages themselves take {body:.0f}.\n\n"
            "| executor | a stage with everything | orchestration | over the turns |\n|---|---|---|---|"
        )
        for executor in ("inline", "local"):
            slopes = measure(folder / executor, partial(whole, executor=executor))
            print(row(executor, slopes, body), flush=True)
        if importlib.util.find_spec("ray") is not None:
            slopes, rest = on_ray(folder / "ray")
            print(row("ray, a head and two nodes", slopes, body))
            print(f"\nAt rest Ray's processes take {1e3 * rest:.0f} ms of CPU time a second, which is taken off.")


if __name__ == "__main__":
    report()
