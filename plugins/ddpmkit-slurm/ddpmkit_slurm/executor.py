"""The executor ``slurm``: what a user says of the jobs, and what sbatch is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddpmkit import Emit, Executor, Job, Pool, ShouldStop, param

# What this executor or submitit says itself; by another value jobs would be lost, or not stop with a checkpoint.
# Of these each stage has one task on one node, with the time that its warning is counted from; a word of sbatch other
# than the id of a job, or another cluster, and the job would be in nobody's list.
OURS = (
    "array", "clusters", "error", "nodes", "no-requeue", "ntasks", "ntasks-per-core", "ntasks-per-gpu",
    "ntasks-per-node", "ntasks-per-socket", "open-mode", "output", "parsable", "quiet", "requeue", "signal",
    "tasks-per-node", "test-only", "time", "wait", "wrap",
)  # fmt: skip


@dataclass(frozen=True)
class Slurm(Executor):
    """Hand each stage to Slurm as a job; stages that are ready together are one job array.

    The launcher waits on a login node, and the nodes see the results folder. Before its time limit, and when it is
    preempted, a job writes its checkpoint, is requeued and goes on from there.
    """

    name = "slurm"
    reference = "https://slurm.schedmd.com/sbatch.html, through https://github.com/facebookincubator/submitit"

    partition: str | None = param(None, "partition, as sbatch has it")
    account: str | None = param(None, "account that the jobs are charged to")
    qos: str | None = param(None, "quality of service")
    minutes: int = param(240, "time limit of a job; a stage that needs longer goes on in a requeued one", ge=1)
    cpus: int = param(1, "CPU cores of a job; ddpmkit computes on one thread", ge=1)
    gpus: int = param(0, "GPUs of a job; a stage uses one", ge=0)
    gres: str | None = param(None, "generic resources instead of gpus, gpu%3Aa100%3A1 for gpu:a100:1")
    memory: float | None = param(None, "GiB of memory of a job; by default what the site gives", gt=0)
    constraint: str | None = param(None, "features that a node must have")
    nodelist: str | None = param(None, "nodes to run on")
    exclude: str | None = param(None, "nodes not to run on")
    options: tuple[str, ...] = param((), "more options of sbatch, reservation=night/nice=100")
    setup: str | None = param(None, "shell commands before a stage: module load cuda; source env.sh")
    python: str | None = param(None, "Python on the nodes, as a shell would call it; by default the launcher's own")
    device: str | None = param(None, "device of a stage; by default cuda where GPUs are asked for, else cpu")
    job_name: str = param("ddpmkit", "name of the jobs in squeue")
    places: int | None = param(None, "jobs at once, in the queue or at work; by default --jobs, else 50", ge=1, le=1000)
    requeues: int = param(10, "time limits, lost nodes and the like after which a stage goes on in a job again", ge=0)
    notice: int = param(120, "seconds before the time limit at which a stage is asked for its checkpoint", ge=1)
    grace: float = param(120.0, "seconds for a checkpoint, once stopped or over --timeout; then it is cancelled", ge=0)
    every: float = param(15.0, "seconds between two questions to Slurm", gt=0, le=600)
    folder: str | None = param(None, "where files of the jobs are kept meanwhile; by default the results folder")

    def __post_init__(self) -> None:
        """Check what sbatch is told.

        Raises:
            ValueError: for an option that this executor sets, or a warning that comes before there is anything to stop.
        """
        if self.notice >= 60 * self.minutes:
            raise ValueError(
                f"notice={self.notice} s is all of minutes={self.minutes}: a stage would be asked for its checkpoint "
                "as it begins; make minutes longer or notice shorter"
            )
        if self.gpus and self.gres:
            raise ValueError("gpus and gres both ask for GPUs; keep one of the two")
        for key in self.more():
            if any(ours.startswith(key.replace("_", "-")) for ours in OURS):  # sbatch takes shortened names too
                raise ValueError(f"the option {key} is set by this executor")

    def more(self) -> dict[str, str | bool]:
        """Return the further options of sbatch, without their leading dashes; True for one without a value."""
        pairs = (text.lstrip("-").partition("=") for text in self.options)
        return {key: value if eq else True for key, eq, value in pairs}

    def on_device(self) -> str:
        """The device of a stage."""
        asked = self.gpus > 0 or (self.gres or "").startswith("gpu")
        return self.device or ("cuda" if asked else "cpu")

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of submitit's executor."""
        said = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gpus_per_node": self.gpus or None,
            "gres": self.gres,
            "mem": None if self.memory is None else f"{round(self.memory * 1024)}M",
            "constraint": self.constraint,
            "nodelist": self.nodelist,
            "exclude": self.exclude,
            "setup": None if self.setup is None else [self.setup],
        }
        return {
            "job_name": self.job_name,
            "time": self.minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "signal_delay_s": self.notice,
            "stderr_to_stdout": True,
            "array_parallelism": 1000,  # as many as there are: places bounds them already
            "wckey": None,  # submitit's own is unknown to sites that check it
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # since Slurm 22.05 srun has no cores of sbatch's
            "additional_parameters": {"requeue": True, **self.more()},
            **{key: value for key, value in said.items() if value is not None},
        }

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Pool:
        """Return the places; nothing is asked of Slurm before the first stage is submitted."""
        from ddpmkit_slurm.pool import Jobs

        return Jobs(self, job, emit)
