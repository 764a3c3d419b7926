"""What an executor may report."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.contract.answers import refuse, shown

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Executor

STATES = ("done", "failed", "diverged", "interrupted", "timed out")
CONTRACT = "docs/executors.md has each with its keys"
ABOUT_A_STAGE = ("start", "attempt", "progress", "requeued", "end")


def event(executor: Executor, report: Any, stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event that an executor reports, if it is one: a dict that names a stage of the run.

    Raises:
        DdpmkitError: when it is something else, or an end in no known state.
    """
    subject = f"executor '{executor.name}'"
    if problem := event_problem(report, stages):
        refuse(executor, f"{subject} {problem}", CONTRACT)
    # A stage that ends by another word would never end; a word about no stage is passed on, as a worker's 'ready' is.
    if "stage" in report and report["event"] not in ("log", *ABOUT_A_STAGE):
        words = ", ".join(("log", *ABOUT_A_STAGE))
        refuse(executor, f"{subject} reports {shown(report['event'])}, and the words for events are {words}", CONTRACT)
    if not isinstance(report.get("worker", 0), int):
        refuse(executor, f"{subject} reports {shown(report['worker'])} as a worker, and that is a number")
    out: dict[str, Any] = report
    return out


def event_problem(report: Any, stages: Container[str]) -> str:
    """Say what is wrong with an event of an executor or a worker about one of the stages; nothing if nothing is."""
    if not isinstance(report, dict) or not isinstance(report.get("event"), str):
        return f"reports {shown(report)}, and an event is a dict with the key 'event'"
    kind, stage = report["event"], report.get("stage")
    if kind == "log":
        return "" if isinstance(report.get("text"), str) else "reports a line of the log without its 'text'"
    if kind in ABOUT_A_STAGE and not (isinstance(stage, str) and stage in stages):
        return f"reports the {kind} of {shown(stage)}, which is no stage of this run"
    if kind == "end" and report.get("state") not in STATES:
        return f"reports an end as {shown(report.get('state'))}, not as {', '.join(STATES)}"
    if kind == "progress" and not _is_share(report.get("done")):
        return f"reports progress as {shown(report.get('done'))}; 'done' is a number from 0 to 1"
    return ""


def _is_share(done: Any) -> bool:
    return isinstance(done, (int, float)) and not isinstance(done, bool) and 0 <= done <= 1
