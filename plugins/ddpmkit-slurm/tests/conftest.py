"""A cluster on PATH for the length of a test."""

import os
import runpy
from pathlib import Path

import pytest

STAND_IN = runpy.run_path(str(Path(__file__).with_name("stand_in.py")), run_name="stand_in")


def made(folder: Path, patch: pytest.MonkeyPatch):
    commands = STAND_IN["install"](folder)
    patch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("STAND_IN_SLURM", str(folder))
    patch.setattr("ddpmkit_slurm.pool.LOOK", 0.05)
    return STAND_IN["Cluster"](folder)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    return made(tmp_path / "cluster", monkeypatch)


@pytest.fixture(scope="module")
def lasting_cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield made(tmp_path_factory.mktemp("slurm") / "cluster", patch)
