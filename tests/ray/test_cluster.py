"""Studies on a Ray cluster of several nodes: the numbers of one process, whatever becomes of nodes and stages.

The cluster is on this machine: a head and nodes, each a session of processes that is ended by their numbers. Never by
``ray stop``, which ends every Ray on a machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ddpmkit
from ddpmkit import files

pytestmark = pytest.mark.ray

HINT = "this runs studies on Ray: run it by 'make test-ray', which installs Ray"
SLOW = 20.0  # how much slower than usual this machine may be, which others may use
LIGHT = (
    "--object-store-memory=80000000", "--disable-usage-stats", "--node-ip-address=127.0.0.1", "--block",
    "--include-log-monitor=false",
)  # fmt: skip
# Of these a node waits for an agent to tell it, for 15 seconds and no longer, unless it is told before.
PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port")


def environment() -> dict[str, str]:
    """What a node and a run are given: this very ddpmkit, one thread, and time."""
    waits = ("raylet_start_wait_time_s", "worker_register_timeout_seconds", "gcs_rpc_server_connect_timeout_s")
    milliseconds = ("health_check_timeout_ms", "agent_register_timeout_ms")
    patience = {**{f"RAY_{w}": "600" for w in waits}, **{f"RAY_{m}": "100000" for m in milliseconds}}
    found = {**os.environ, **patience, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    found.pop("RAY_ADDRESS", None)
    return {**found, "PYTHONPATH": str(Path(ddpmkit.__file__).parents[1])}


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def session_of(pid: int) -> tuple[int, int]:
    """The parent and the session of a process; 0 where it is gone. Linux, proc_pid_stat(5)."""
    with contextlib.suppress(OSError):
        behind = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(behind[1]), int(behind[3])
    return 0, 0


class Node:
    """A node of the cluster, or its head: ``ray start`` in a session of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = Path(tempfile.mkstemp(dir=folder)[1])
        ports = [f"--{name}={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, *LIGHT, *ports]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        until = time.monotonic() + 60 * SLOW
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)

    def processes(self) -> list[int]:
        numbers = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]
        return [n for n in numbers if session_of(n)[1] == self.process.pid]

    def kill(self) -> None:
        """End it as a power cut does."""
        while numbers := [n for n in self.processes() if n != self.process.pid]:
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()


class Nodes:
    """The cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        light = ("--include-dashboard=false", "--num-cpus=0", f"--temp-dir={folder}")
        self.head = Node(folder, "--head", f"--port={self.port}", *light)
        self.nodes: list[Node] = []

    def add(self) -> None:
        """Start a node and wait for it: two that start at once may take one name for their sockets."""
        self.nodes.append(Node(self.folder, f"--address=127.0.0.1:{self.port}", "--num-cpus=1", "--num-gpus=1"))
        self.nodes[-1].wait()

    def of(self, pid: int) -> Node | None:
        """The node that a worker is on: Ray's process there is its parent."""
        session = session_of(session_of(pid)[0])[1]
        return next((node for node in self.nodes if node.process.pid == session), None)

    def close(self) -> None:
        for node in (*self.nodes, self.head):
            node.kill()


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """A head that runs nothing, and two nodes with one CPU and one GPU that is not there."""
    if importlib.util.find_spec("ray") is None:
        pytest.fail(f"Ray is not installed; {HINT}")
    folder = Path(tempfile.mkdtemp(prefix="ddk-ray-"))  # short: the names of sockets have 107 characters
    found = Nodes(folder)
    try:
        found.head.wait()
        found.add()
        found.add()
        yield found
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A spec of a few digits."""
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.uint8)
    path = tmp_path_factory.mktemp("digits") / "few.npz"
    np.savez(path, train_images=images[:40], test_images=images[40:60])
    return f"npz:path={path}:levels=17:validation=8"


TINY = (
    "--train-seeds", "0", "--batch-size", "4", "--samples", "4", "--sampling-steps", "2", "--timesteps", "24",
    "--nll-evals", "16", "--features", "pca:k=2", "--metrics", "fd,nll", "--device", "cpu", "--name", "on-ray",
)  # fmt: skip
NET = "unet:channels=4:mults=1"


def begin(out: Path, digits: str, *options: str, nodes: Nodes | None, spec: str = "") -> subprocess.Popen[str]:
    """Start a study under Ray, or in one process where there are no nodes."""
    executor = "inline" if nodes is None else f"ray:address=127.0.0.1%3A{nodes.port}{spec}"
    command = [sys.executable, "-m", "ddpmkit", "--no-plugins", "ablate", "--dataset", digits, *TINY, *options]
    return subprocess.Popen(
        [*command, "--executor", executor, "--out", str(out)],
        env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=out.parent,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    """Wait for the end of a run; return what it printed."""
    out, err = process.communicate(timeout=240 * SLOW)
    assert process.returncode == code, err
    assert "(raylet)" not in out + err
    return out, err


def results(out: Path) -> pd.DataFrame:
    """A study's results, but for what the clock says."""
    frame = pd.read_csv(out / "studies/on-ray/results.csv")
    return frame.drop(columns=[c for c in frame if "second" in c])


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait until something is so while a run lasts, and return it."""
    until = time.monotonic() + 120 * SLOW
    while not (found := what()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def at_work(out: Path, nodes: Nodes) -> dict[int, Node]:
    """The workers that are at a training which has a checkpoint, with their nodes."""
    claims = [files.read_json(p) or {} for p in out.glob("store/train/*/*/claim*.json") if saved(p.parent)]
    return {pid: node for claim in claims if (pid := claim.get("pid")) and (node := nodes.of(pid)) is not None}


def saved(folder: Path) -> bool:
    return any(folder.glob("ckpt/[0-9]*/COMMIT.json"))


LONG = ("--schedules", "linear,cosine", "--backbones", NET, "--train-steps", "300", "--checkpoint-every", "10")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, digits: str) -> pd.DataFrame:
    """The results of the long study in one process."""
    out = tmp_path_factory.mktemp("alone") / "results"
    finish(begin(out, digits, *LONG, nodes=None), 0)
    return results(out)


def test_shares_of_gpus_two_at_a_time_and_the_results_of_one_process(
    nodes: Nodes, tmp_path: Path, digits: str, alone: pd.DataFrame
) -> None:
    run = begin(tmp_path / "results", digits, *LONG, nodes=nodes, spec=":cpus=0.5:gpus=0.5")
    wait_for(lambda: len(at_work(tmp_path / "results", nodes)) == 2, run)
    out, err = finish(run, 0)
    pd.testing.assert_frame_equal(results(tmp_path / "results"), alone)
    assert "on-ray" in out
    assert "warning" not in err
    assert not list((tmp_path / "results").glob(".ray*"))


def test_stop_writes_checkpoints_and_the_same_command_goes_on(
    nodes: Nodes, tmp_path: Path, digits: str, alone: pd.DataFrame
) -> None:
    out = tmp_path / "results"
    run = begin(out, digits, *LONG, nodes=nodes)
    wait_for(lambda: len(at_work(out, nodes)) == 2, run)
    run.send_signal(signal.SIGINT)
    _, err = finish(run, 130)
    assert "stopping: waiting for" in err
    states = [files.read_sealed(p) for p in out.glob("store/train/*/*/status.json")]
    assert [(s or {}).get("state") for s in states] == ["interrupted", "interrupted"]
    assert not list(out.glob("store/*/*/*/claim*.json"))
    finish(begin(out, digits, *LONG, nodes=None), 0)
    pd.testing.assert_frame_equal(results(out), alone)


PLUGIN = """
import ctypes, sys
from dataclasses import dataclass
from ddpmkit import Backbone, hookimpl, param

@dataclass(frozen=True)
class Acts(Backbone):
    name = "acts"
    how: str = param("quiet", "what it does")

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn
        # A plan times a step of each network in the command's own process, which is to live.
        how = self.how if "ddpmkit.builtin.executors._worker" in sys.orig_argv else "quiet"

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(in_channels, out_channels, 1)

            def forward(self, x, t, y=None):
                if how == "crash":
                    ctypes.string_at(0)
                if how == "raise":
                    raise RuntimeError("as it was told to, in " + __file__)
                return self.layer(x)

        return Net()

@hookimpl
def ddpmkit_register_backbones():
    return [Acts]
"""


def test_a_file_is_brought_to_nodes_and_what_its_cells_do_is_typed(nodes: Nodes, tmp_path: Path, digits: str) -> None:
    plugin, out = tmp_path / "acts_plugin.py", tmp_path / "results"
    plugin.write_text(PLUGIN)
    cells = "acts:how=quiet,acts:how=crash,acts:how=raise"
    run = begin(out, digits, "-p", plugin.name, "--backbones", cells, "--train-steps", "3", nodes=nodes)
    wait_for(lambda: list(out.glob(".ray-*")), run)
    plugin.unlink()  # the run has read it; what nodes read is a copy
    _, err = finish(run, 1)
    states = [files.read_sealed(p) or {} for p in out.glob("store/train/*/*/status.json")]
    assert {s["state"] for s in states if "how=" not in s["label"]} == {"done"}  # quiet, which is the default
    errors = {s["label"].partition("how=")[2][:5]: s["error"] for s in states if s["state"] == "failed"}
    assert errors["crash"] == "its worker was killed by SIGSEGV"
    assert errors["raise"].startswith("RuntimeError: as it was told to, in ")
    assert errors["raise"].endswith("/acts_plugin.py")
    assert not errors["raise"].endswith(str(plugin))
    assert "the last lines it printed, of " in err
    assert f'{plugin.name}", line 23 in forward' in err  # where it crashed, and no first line of a long traceback
    assert len(results(out)) > 0


def test_a_study_that_loses_three_nodes_ends_with_the_results_of_one_process(
    nodes: Nodes, tmp_path: Path, digits: str, alone: pd.DataFrame
) -> None:
    out = tmp_path / "results"
    nodes.add()
    nodes.add()
    run = begin(out, digits, *LONG, nodes=nodes)
    for _ in range(3):
        node = wait_for(lambda: list(at_work(out, nodes).values()), run)[0]
        node.kill()
        nodes.nodes.remove(node)
    _, err = finish(run, 0)
    assert err.count("it was lost, and begins again elsewhere") == 3
    attempts = [(files.read_sealed(p) or {})["attempt"] for p in out.glob("store/train/*/*/status.json")]
    assert sum(attempts) == 2 + 3
    pd.testing.assert_frame_equal(results(out), alone)
