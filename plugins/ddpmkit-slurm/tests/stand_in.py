"""A Slurm that is one file: sbatch, srun, sacct, scontrol and scancel that run scripts on this machine.

``install(folder)`` writes the commands; with ``folder/bin`` on PATH and ``STAND_IN_SLURM=folder`` they work. A job is a
JSON file. What becomes of the jobs to come is told by ``folder/plan``, a word for each one: ``run``, ``refuse``,
``lost`` (no such job, as far as anybody says), ``wait`` (it stays in the queue), or the state that it has without being
run.
``folder/mute`` holds the commands that do not answer.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")
HEAD = "JobID|State|ExitCode|NodeList"


def install(folder: Path) -> Path:
    (folder / "jobs").mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{Path(__file__).resolve()}" {name} "$@"\n')
        command.chmod(0o755)
    return folder / "bin"


class Cluster:
    """The folder of the stand-in, as its commands and the tests see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, job: str) -> Path:
        return self.folder / "jobs" / f"{job}.json"

    def read(self, job: str) -> dict:
        return json.loads(self.path(job).read_text())

    def write(self, job: str, **changes: object) -> None:
        record = {**(self.read(job) if self.path(job).exists() else {}), **changes}
        half = self.path(job).with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(record))
        half.replace(self.path(job))

    def jobs(self) -> list[str]:
        """All jobs, in the order in which they came."""
        return sorted((p.stem for p in (self.folder / "jobs").glob("*.json")), key=lambda j: [*map(int, j.split("_"))])

    def plan(self, *words: str) -> None:
        (self.folder / "plan").write_text(" ".join(words))

    def planned(self) -> str:
        plan = self.folder / "plan"
        word, *rest = (plan.read_text().split() if plan.exists() else []) or ["run"]
        self.plan(*rest)
        return word

    def say(self, command: str, *args: str) -> int:
        """Do in this process what a command does."""
        return globals()[command](self, *args)

    def log(self, *words: str) -> None:
        with (self.folder / "calls").open("a") as file:
            file.write(" ".join(words) + "\n")

    def calls(self, command: str) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.split()[0] == command]


def sbatch(cluster: Cluster, *args: str) -> int:
    (script,) = args
    said = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in Path(script).read_text().splitlines()
        if line.startswith("#SBATCH --")
    )
    number = 1 + max([int(job.split("_")[0]) for job in cluster.jobs()], default=11)
    array = said.get("array", "").partition("%")[0]
    first, _, last = array.partition("-")
    names = [f"{number}_{i}" for i in range(int(first), int(last) + 1)] if array else [str(number)]
    for name in names:
        word = cluster.planned()
        if word == "refuse":
            print("sbatch: error: Batch job submission failed: Invalid partition name specified", file=sys.stderr)
            return 1
        kept = cluster.folder / "jobs" / f"{name}.sh"  # sbatch keeps a copy of the script
        kept.write_text(Path(script).read_text())
        state = {"run": "PENDING", "wait": "PENDING"}.get(word, word)
        cluster.write(name, state=state, exit="0:0", output=said["output"], lost=word == "lost", restarts=0)
        if word == "run":
            subprocess.Popen(
                [sys.executable, "-S", "-E", __file__, "runs", name], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
    print(f"Submitted batch job {number}")
    return 0


def filled(pattern: str, job: str) -> str:
    main, _, task = job.partition("_")
    return pattern.strip("'").replace("%A", main).replace("%a", task).replace("%j", job).replace("%t", "0")


def runs(cluster: Cluster, job: str) -> int:
    """What slurmctld and slurmd do with a job."""
    main, _, task = job.partition("_")
    env = {**os.environ, "SLURM_JOB_ID": main, "SLURM_JOB_NODELIST": "node1", "SLURM_JOB_NUM_NODES": "1"}
    if task:
        env |= {"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": task}
    while True:
        time.sleep(0.3)
        if cluster.read(job)["state"] != "PENDING":
            return 0
        with open(filled(cluster.read(job)["output"], job), "ab") as out:
            shell = subprocess.Popen(
                ["bash", cluster.folder / "jobs" / f"{job}.sh"], env=env, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            cluster.write(job, state="RUNNING", shell=shell.pid)
            code = shell.wait()
        now = cluster.read(job)
        if now.get("requeue"):
            cluster.write(job, state="PENDING", requeue=False, restarts=now["restarts"] + 1)
            continue
        ended = "CANCELLED by 0" if now.get("cancelled") else "COMPLETED" if code == 0 else "FAILED"
        cluster.write(job, state=ended, exit=f"{max(code, 0)}:0")
        return 0


def srun(cluster: Cluster, *args: str) -> int:
    rest = list(args)
    output = ""
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option == "--output":
            output = rest.pop(0)
    job = os.environ["SLURM_JOB_ID"] + ("_" + os.environ.get("SLURM_ARRAY_TASK_ID", "")).rstrip("_")
    env = {**os.environ, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_NODEID": "0"}
    with open(filled(output, job), "ab") as out:
        step = subprocess.Popen(rest, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        cluster.write(job, step=step.pid)
        code = step.wait()
    return code if code >= 0 else 128 - code


def sacct(cluster: Cluster, *args: str) -> int:
    mains = args[args.index("-j") + 1].split(",")
    print(HEAD)
    for job in cluster.jobs():
        record = cluster.read(job)
        if job.split("_")[0] in mains and not record["lost"]:
            print(f"{job}|{record['state']}|{record['exit']}|node1")
    return 0


def scontrol(cluster: Cluster, *args: str) -> int:
    job = args[-1]
    if not cluster.path(job).exists() or cluster.read(job)["lost"]:
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    if args[0] == "requeue":
        cluster.write(job, requeue=True)
    else:
        record = cluster.read(job)
        print(f"JobId={job} JobState={record['state'].split()[0]} ExitCode={record['exit']} NodeList=node1")
    return 0


def scancel(cluster: Cluster, *args: str) -> int:
    options = [a for a in args if a.startswith("--")]
    sent = next((o.partition("=")[2] for o in options if o.startswith("--signal=")), None)
    for job in [a for a in args if not a.startswith("--")]:
        record = cluster.read(job)
        if record["state"] == "PENDING" and sent is None:
            cluster.write(job, state="CANCELLED by 0")
        elif record["state"] == "RUNNING" and sent is not None and "step" in record:
            os.killpg(record["step"], getattr(signal, f"SIG{sent}"))  # to every process of the step; not to the shell
        elif record["state"] == "RUNNING" and not options:
            cluster.write(job, cancelled=True)
            for group in (record.get("step"), record["shell"]):
                with contextlib.suppress(OSError, TypeError):
                    os.killpg(group, signal.SIGKILL)
    return 0


def main(command: str, *args: str) -> int:
    cluster = Cluster(Path(os.environ["STAND_IN_SLURM"]))
    cluster.log(command, *args)
    mute = cluster.folder / "mute"
    if mute.exists() and command in mute.read_text().split():
        print(f"{command}: error: Unable to contact slurm controller (connect failure)", file=sys.stderr)
        return 1
    return {f.__name__: f for f in (sbatch, srun, sacct, scontrol, scancel, runs)}[command](cluster, *args)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
