"""What sbatch is given, and what the executor takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ddpmkit
import pytest
from ddpmkit import DdpmkitError, Job, Task
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing import checks

from ddpmkit_slurm.states import _read

GOLDEN = Path(__file__).with_name("golden_submission.sh")
SPEC = (
    "slurm:partition=gpu:account=lab:qos=long:minutes=90:cpus=4:gres=gpu%3Aa100%3A1:memory=12.5:constraint=avx512"
    ":nodelist=n[1-4]:exclude=n3:options=--reservation=night/nice=100/exclusive:setup=module load cuda; source env.sh"
    ":python=apptainer exec torch.sif python:job_name=toy:notice=60"
)


def test_the_script_is_the_golden_one(cluster, tmp_path):
    pool = ddpmkit.build("executor", SPEC).open(
        Job(str(tmp_path), (), False, ("cpu",), 3, 500), lambda _: None, lambda: False
    )
    cluster.plan("wait", "wait")
    for i in range(2):
        pool.submit(i, Task(f"{i}{'0' * 63}", "train", "train", {}))
    pool.poll(0.0)
    script = (cluster.folder / "jobs" / "12_0.sh").read_text()
    text = (next(pool.submissions.folder.glob("1-*.json"))).read_text()
    pool.close(now=True)
    assert script.replace(str(pool.submissions.folder), "FOLDER") == GOLDEN.read_text()
    assert '"devices": ["cuda"]' in text


def test_what_is_not_asked_for_is_left_to_the_site():
    said = ddpmkit.build("executor", "slurm").parameters()
    assert {"partition", "account", "qos", "mem", "gres", "gpus_per_node", "constraint", "setup"}.isdisjoint(said)
    assert said["wckey"] is None


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        ("slurm", "cpu"),
        ("slurm:gpus=1", "cuda"),
        ("slurm:gres=gpu%3A1", "cuda"),
        ("slurm:gres=licence", "cpu"),
        ("slurm:gpus=1:device=cpu", "cpu"),
        ("slurm:options=gpus-per-task=1:device=cuda", "cuda"),
    ],
)
def test_a_stage_is_on_a_gpu_where_one_was_asked_for(spec, device):
    assert ddpmkit.build("executor", spec).on_device() == device


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("slurm:gpus=1:gres=gpu", "gpus and gres both ask for GPUs"),
        ("slurm:options=output=x", "the option output is set by this executor"),
        ("slurm:options=--signal=x", "the option signal is set by this executor"),
        ("slurm:options=ntasks-per-node=2", "the option ntasks-per-node is set by this executor"),
        ("slurm:options=ntasks_per_node=2", "the option ntasks_per_node is set by this executor"),
        ("slurm:options=nice=1/time=5", "the option time is set by this executor"),
        ("slurm:options=nodes=2", "the option nodes is set by this executor"),
        ("slurm:options=qui", "the option qui is set by this executor"),  # as sbatch understands it
        ("slurm:minutes=2", "notice=120 s is all of minutes=2"),
        ("slurm:minutes=0", "minutes"),
        ("slurm:partitions=x", "did you mean 'partition'"),
    ],
)
def test_what_can_not_be_is_refused(spec, told):
    with pytest.raises(DdpmkitError, match=told):
        ddpmkit.build("executor", spec)


def test_it_is_found_by_its_name_and_its_spec_is_read_back():
    entry = Registry(strict=True).find("executor", "slurm")
    assert (entry.plugin, entry.plugin_version) == ("ddpmkit-slurm", "0.1.0")
    built = ddpmkit.build("executor", SPEC)
    assert ddpmkit.build("executor", str(built)) == built


@pytest.mark.parametrize("check", checks("executor"), ids=str)
def test_it_satisfies_its_kind_where_there_is_no_slurm_too(check):
    check(ddpmkit.build("executor", "slurm"))


def test_its_class_loads_neither_torch_nor_submitit():
    code = "import sys, ddpmkit_slurm; sys.exit(bool({'torch', 'numpy', 'submitit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tasks_of_an_array_that_wait_are_read_as_slurm_writes_them():
    table = "JobID|State|ExitCode|NodeList\n12_[2-3,5%2]|PENDING|0:0|None assigned\n12_0|CANCELLED by 1000|0:15|n1\n"
    assert {job: seen.state for job, seen in _read(table).items() if "_" in job} == {
        "12_2": "PENDING", "12_3": "PENDING", "12_5": "PENDING", "12_0": "CANCELLED",
    }  # fmt: skip
