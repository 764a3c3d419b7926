"""Files of jobs, and the way to sbatch: what is pickled lies in a folder of our own, which goes when the run ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmkit import DdpmkitError, Job, Task

from ddpmkit_slurm.states import UNDERWAY, SilentError, ask

if TYPE_CHECKING:
    from ddpmkit_slurm.executor import Slurm

NEEDED = ("sbatch", "srun", "scancel", "scontrol")
PREFIX = ".slurm-"
PICKLE = re.compile(r"([0-9]+(?:_[0-9]+)?)_submitted\.pkl")  # of a job's id; others may put any name there
SILENT = 3600.0  # seconds without a sign of life after which a run is one that did not get to remove its folder


class RefusedError(Exception):
    """What sbatch says where it takes no job."""


class Submissions:
    """The folder of one run, of mode 0700, and what is submitted from it.

    Attributes:
        folder: for scripts, logs, pickles and the text that goes there and back.
    """

    def __init__(self, executor: Slurm, job: Job) -> None:
        """Make the folder.

        Raises:
            DdpmkitError: where this is no machine of a Slurm cluster, or the folder can't be made.
        """
        for command in NEEDED:
            if shutil.which(command) is None:
                raise DdpmkitError(
                    f"{command} is not on PATH, and executor 'slurm' submits with Slurm's own commands",
                    "run it on a login node of the cluster, or with --executor local",
                )
        self._executor = executor
        self._job = replace(job, out=str(Path(job.out).resolve()), devices=(executor.on_device(),))
        self._place = Path(executor.folder or job.out).resolve()
        self.folder = self._made()
        self._count = 0

    def _made(self) -> Path:
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._place))  # of mode 0700
        except OSError as err:
            hint = "a folder that the nodes see too: slurm:folder=PATH"
            raise DdpmkitError(f"can't write to '{self._place}': {err.strerror}", hint) from None

    def submit(self, tasks: Sequence[Task]) -> list[tuple[str, Path]]:
        """Submit stages, several as one array, and return the id and the file of each one's job.

        Raises:
            RefusedError: when sbatch refuses; nothing is submitted then.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor

        from ddpmkit_slurm.attempt import Attempt

        if not self.folder.is_dir():  # we stood still, Ctrl-Z say, for so long that another run took this one for dead
            self.folder = self._made()
        slurm = SlurmExecutor(self.folder, max_num_timeout=self._executor.requeues, python=self._executor.python)
        slurm.update_parameters(**self._executor.parameters())
        files = [self._write(task) for task in tasks]
        try:
            # sbatch's words are in the exception; submitit prints them too.
            with contextlib.redirect_stderr(io.StringIO()), _outside_of_jobs():
                jobs = slurm.submit_array([Attempt(str(file)) for file in files])
        except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as err:
            raise RefusedError(" ".join(str(err).split()).removeprefix("sbatch: error: ")) from None
        return [(job.job_id, file) for job, file in zip(jobs, files, strict=True)]

    def _write(self, task: Task) -> Path:
        self._count += 1
        file = self.folder / f"{self._count}-{task.id[:16]}.json"
        record = {"job": self._job.json(), "task": asdict(task), "grace": self._executor.grace}
        file.write_text(json.dumps(record), encoding="utf-8")
        return file

    def log(self, job: str) -> Path:
        """Where Slurm writes what a job prints."""
        return self.folder / f"{job}_0_log.out"

    def touch(self) -> None:
        """Give a sign of life, and have a network's file system look again at what is there."""
        with contextlib.suppress(OSError):
            os.utime(self.folder)

    def stop(self) -> None:
        """Leave word for jobs that have not begun: a signal reaches only what runs."""
        from ddpmkit_slurm.attempt import STOP

        with contextlib.suppress(OSError):
            (self.folder / STOP).touch()

    def remove(self) -> bool:
        """Remove the folder; False where something of it stays."""
        for _ in range(5):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return True
            time.sleep(0.2)  # a job that dies writes its last words
        return False

    def sweep(self) -> list[str]:
        """Remove the folders of runs that were killed and have no job left; return the jobs that others still have."""
        left = []
        for other in self.folder.parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError, SilentError):  # it has just gone, or nothing is known of its jobs
                if other == self.folder or time.time() - other.stat().st_mtime < SILENT:
                    continue
                ids = [found[1] for path in other.iterdir() if (found := PICKLE.fullmatch(path.name))]
                at_work = sorted(one for one, seen in ask(ids).items() if seen.state in UNDERWAY)
                left += at_work
                if not at_work:
                    shutil.rmtree(other, ignore_errors=True)
        return left


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide what Slurm tells a job of itself: sbatch would take it for wishes of the next one."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        hidden = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("SLURM_") and k not in kept}
    try:
        yield
    finally:
        os.environ.update(hidden)
