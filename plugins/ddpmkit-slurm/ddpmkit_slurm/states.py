"""What Slurm says of its jobs, and what that means for a stage whose job did not say how it ended itself."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PATIENCE = 60.0  # seconds for an answer; a controller with much to do takes its time
GONE = "GONE"  # Slurm has no such job; a word of ours
UNDERWAY = (
    "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RUNNING", "COMPLETING",
    "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING", "RESV_DEL_HOLD",
)  # fmt: skip
# Of a stage in these nothing is known to be wrong: another job may go on with it.
AGAIN = {
    "PREEMPTED": "was preempted",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "had a node that did not start",
    "LAUNCH_FAILED": "could not be started",
    "RECONFIG_FAIL": "could not be started",
    "REVOKED": "was revoked",
    GONE: "is unknown to Slurm by now",
}


@dataclass(frozen=True)
class Seen:
    """What Slurm says of a job.

    Attributes:
        state: ``PENDING``, ``RUNNING``, ``OUT_OF_MEMORY`` ..., without what may follow it.
        exit: code and signal, ``1:0``.
        nodes: where it is.
    """

    state: str
    exit: str = ""
    nodes: str = ""


class SilentError(Exception):
    """Slurm does not answer; in its own words."""


def ask(ids: Iterable[str]) -> dict[str, Seen]:
    """Return what Slurm says of jobs; without those that its accounting does not know, or not yet.

    Where there is no accounting, the controller is asked, job by job.

    Raises:
        SilentError: when neither answers.
    """
    wanted = sorted(ids)
    if not wanted:
        return {}
    try:
        mains = sorted({one.partition("_")[0] for one in wanted}, key=int)
        said = _said("sacct", "-X", "--parsable2", "-o", "JobID,State,ExitCode,NodeList", "-j", ",".join(mains))
        return {one: seen for one, seen in _read(said).items() if one in wanted}
    except SilentError:
        found = {one: ask_controller(one) for one in wanted}
        return {one: seen for one, seen in found.items() if seen.state != GONE}


def ask_controller(job: str) -> Seen:
    """Return what the controller says of one job; it forgets those that have ended some minutes ago.

    Raises:
        SilentError: when it does not answer.
    """
    try:
        said = _said("scontrol", "--oneliner", "show", "job", job)
    except SilentError as err:
        if "invalid job id" in str(err).lower():
            return Seen(GONE)
        raise
    values = dict(re.findall(r"(\w+)=(\S*)", said.splitlines()[0] if said else ""))
    if "JobState" not in values:
        raise SilentError(f"scontrol show job {job} says nothing of its state")
    return Seen(values["JobState"], values.get("ExitCode", ""), values.get("NodeList", "").replace("(null)", ""))


def cancel(ids: Sequence[str], *options: str) -> None:
    """Run scancel, whose answer says nothing that the next question to Slurm would not."""
    if ids:
        with contextlib.suppress(SilentError):
            _said("scancel", *options, *ids)


def _read(table: str) -> dict[str, Seen]:
    """Read sacct's table; ``12_[3-5]`` are the tasks of an array that wait."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    rows = SlurmInfoWatcher().read_info(table)
    return {
        one: Seen((row.get("State") or "?").split()[0].rstrip("+"), row.get("ExitCode", ""), row.get("NodeList", ""))
        for one, row in rows.items()
    }


def _said(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False,
            start_new_session=True,  # a terminal's Ctrl-C is ours alone
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as err:
        raise SilentError(f"{command[0]}: {err}") from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SilentError(words if words.startswith(command[0]) else f"{command[0]}: {words}")
    return done.stdout


def verdict(job: str, seen: Seen, memory: float | None, minutes: int) -> tuple[str, str]:
    """Return how a stage ended whose job ended without a word: a state and why; or no state where it begins again."""
    where = f"job {job}" + (f" on {seen.nodes}" if seen.nodes and seen.nodes != "None assigned" else "")
    if seen.state in AGAIN:
        return "", f"{where} {AGAIN[seen.state]}"
    if seen.state == "OUT_OF_MEMORY":
        had = "what the site gives" if memory is None else f"memory={memory:g}"
        return "failed", f"{where} ran out of memory with {had}; give it more with memory=GIB"
    if seen.state in ("TIMEOUT", "DEADLINE"):
        return "timed out", f"{where} was ended by its time limit, minutes={minutes}, before it had stopped by itself"
    if seen.state == "CANCELLED":
        return "interrupted", f"{where} was cancelled"
    code = f" with exit code {seen.exit}" if seen.exit else ""
    return "failed", f"{where} ended as {seen.state}{code} without saying how its stage did"
