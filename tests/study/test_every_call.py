"""A study on a disk that fails at one call, at each in turn.

Whatever the call, and whether the process is killed there or is told that the disk is full or broken: the store opens,
nothing says that it is saved which is not, the same command then ends as if nothing had been, and what is left of the
first try is what gc takes away. tests/study/failing_disk.py has the disk, and what is looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpmkit

DRIVER = Path(__file__).with_name("failing_disk.py")
# Of some 500 calls: in decoding the data, in the plan, in each kind of stage, between them, and in the report.
SAMPLE = [
    ["kill", 0.03], ["ENOSPC", 0.33], ["kill", 0.41], ["EIO", 0.52], ["ENOSPC", 0.63], ["kill", 0.86],
]  # fmt: skip


def tried(folder: Path, cases: Sequence[Any]) -> list[dict[str, Any]]:
    """Run the study on such disks; a record for each case, with what went wrong."""
    data = folder / "few.npz"
    images = np.random.default_rng(0).integers(0, 17, (20, 8, 8)).astype(np.uint8)
    np.savez(data, train_images=images[:12], test_images=images[12:])
    os.utime(data, (1e9, 1e9))  # what is this young is read again: it may change within its time stamp
    task = folder / "task.json"
    spec = f"npz:path={data}:levels=17:validation=4"
    task.write_text(json.dumps({"folder": str(folder), "dataset": spec, "cases": cases}))
    environment = {**os.environ, "PYTHONPATH": str(Path(ddpmkit.__file__).parents[1])}
    ended = subprocess.run([sys.executable, str(DRIVER), str(task)], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()[1:]]


def check(found: list[dict[str, Any]]) -> None:
    """Say of every case that is wrong what is."""
    wrong = [f"{f['how']} at call {f['nth']}, {f['call']}: " + "; ".join(f["problems"]) for f in found if f["problems"]]
    assert not wrong, f"{len(wrong)} of {len(found)}\n" + "\n".join(wrong[:10])


@pytest.mark.long
def test_a_disk_that_fails_at_some_call(tmp_path: Path) -> None:
    found = tried(tmp_path, SAMPLE)
    assert len(found) == len(SAMPLE)
    assert {f["code"] for f in found if f["how"] == "kill"} == {66}  # each was reached
    check(found)


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["kill", "EIO", "ENOSPC"])
def test_a_disk_that_fails_at_every_call(tmp_path: Path, how: str) -> None:
    found = tried(tmp_path, [[how]])
    assert len(found) > 200
    check(found)
