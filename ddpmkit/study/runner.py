"""Run a study: plan it, find what the store lacks, hand that to an executor, say how it ended."""

from __future__ import annotations

import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import files
from ddpmkit.errors import Exit
from ddpmkit.places import inside
from ddpmkit.plugin.execution import Event, Job
from ddpmkit.study.alike import Alike
from ddpmkit.study.canary import canary, sick
from ddpmkit.study.claim import FIRST, claimed, free, holder
from ddpmkit.study.dispatch import dispatch
from ddpmkit.study.ending import blamed, not_run, settle, stop_flag, told
from ddpmkit.study.enter import working
from ddpmkit.study.plan import Plan
from ddpmkit.study.prepare import Prepared
from ddpmkit.study.presence import collected_lately
from ddpmkit.study.records import ScoreRecord
from ddpmkit.study.stage import Stage
from ddpmkit.study.store import Store
from ddpmkit.study.takeover import to_steal
from ddpmkit.study.trunks import spare_trunks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the study's folder.
        states: number of stages in each state, those done before included.
        ran: number of stages that ran now.
        code: the exit code of the command.
    """

    folder: Path
    states: dict[str, int]
    ran: int
    code: Exit

    def results(self) -> pd.DataFrame:
        """The study's tidy results."""
        import pandas as pd

        return pd.read_csv(self.folder / "results.csv")


def run(prepared: Prepared, on_event: Callable[[Event], None] = lambda _: None) -> Outcome:
    """Run what is left of a prepared study. SIGINT and SIGTERM stop it at the next step, with a checkpoint.

    Args:
        prepared: From :func:`prepare`.
        on_event: Told everything that happens, as it happens.

    Raises:
        DdpmkitError: when the store can't be written, or the study's name is another grid's by now.
    """
    name = secrets.token_hex(8)
    with working(prepared, name) as entered:
        if entered.plan is not prepared.plan:
            on_event({"event": "log", "text": "the same command again runs what both asked for"})
        return _run(prepared, name, on_event)


def _run(prepared: Prepared, name: str, on_event: Callable[[Event], None]) -> Outcome:
    plan, store, waiting = prepared.plan, prepared.store, prepared.todo
    if collected_lately(store):
        missing = {s.id for s in waiting}
        waiting = tuple(s for s in plan.stages.values() if s.id in missing or not store.done(s.kind, s.id))
    for mended in _mend_records(plan, store, waiting, name):
        on_event({"event": "log", "text": mended})
    before = {s.id: store.status(s.kind, s.id) for s in waiting}
    blocked = _downstream(plan, {i for i, record in before.items() if record.get("state") == "diverged"})
    todo = [s for s in waiting if s.id not in blocked]
    ended: Counter[str] = Counter()

    executor = prepared.registry.build("executor", prepared.run_options.executor)

    def count(event: Event) -> None:
        if event["event"] == "end":
            ended[event["state"]] += 1
            settle(store, plan.stages[event["stage"]], event, name)
        elif event["event"] == "requeued":
            stage = plan.stages[event["stage"]]
            if "state" in event:
                settle(store, stage, event, name)
            elif inside(store.root, folder := store.folder(stage.kind, stage.id)):
                free(folder, name)
        on_event(event)
        if event["event"] == "end" and event["state"] == "failed" and (said := alike.take(event["stage"])):
            on_event({"event": "log", "text": said})

    alike = Alike(plan, store, prepared.run_options.stop_after)
    with stop_flag() as stop:

        def stops() -> bool:
            return stop.is_set() or alike.full

        if todo:
            run_options, devices = prepared.run_options, prepared.run_options.devices()
            registry = prepared.registry
            places = min(run_options.workers(), len(todo))
            steal, said = to_steal(todo, store) if run_options.steal else ((), [])
            for line in said:
                count({"event": "log", "text": line})
            job = Job(
                str(store.out),
                registry.options,
                registry.installed,
                devices,
                places,
                run_options.checkpoint_every,
                run=name,
                steal=steal,
                compile=run_options.compile,
                timeout=run_options.timeout,
                asked_jobs=run_options.asked_jobs(),
                asked_device=run_options.device,
                registry=registry,
            )
            first = canary(plan, todo) if run_options.canary else ()
            rest = [s for s in todo if s not in first]
            with blamed(run_options.executor, registry, stop.is_set):
                dead = ""
                for stages in filter(None, (first, rest)):
                    dispatch(executor, job, stages, count, stops, retries=run_options.retries)
                    if stages is first and not stops() and (dead := sick(first, store)):
                        count({"event": "log", "text": dead})
                        break
            if not dead and not stops() and (missed := not_run(plan, todo, before, store)):
                left = f"{told(run_options.executor, prepared.registry)} returned and left {len(missed)} stages"
                count({"event": "log", "text": f"warning: {left} that could run, such as {missed[0].label}"})
    states = Counter(
        "done" if store.done(s.kind, s.id) else store.status(s.kind, s.id).get("state", "blocked")
        for s in plan.stages.values()
    )
    short = any(
        scored.failed
        for s in plan.stages.values()
        if s.kind == ScoreRecord.kind and (scored := store.record(ScoreRecord, s.id))
    )
    missing = {i for i, s in plan.stages.items() if not store.done(s.kind, i)}
    missing -= spare_trunks(plan.stages, {r.train for r in plan.results}, missing)
    code = Exit.FAILED if missing or short else Exit.DONE
    if stop.signal is not None:
        code = Exit.SIGINT if stop.signal == signal.SIGINT else Exit.SIGTERM
    return Outcome(prepared.folder, dict(states), sum(ended.values()), code)


def _mend_records(plan: Plan, store: Store, todo: Iterable[Stage[Any]], run: str) -> Iterator[str]:
    """Write the spec and the status of finished stages again where they are lost or damaged: the plan knows them.

    Says so, a line each. What a process has left of its claim that ended behind what it found is taken back.
    """
    told = "was damaged or lost, and is written again from the plan"
    waiting = {s.id for s in todo}
    for stage in plan.stages.values():
        folder = store.folder(stage.kind, stage.id)
        if stage.id in waiting or not folder.is_dir() or not inside(store.root, folder):
            continue
        if (folder / FIRST).exists() and holder(folder) is None:
            with claimed(folder, run):
                pass
        if files.read_json(folder / "spec.json") != stage.named:
            store.write_spec(stage)
            yield f"warning: spec.json of {stage.label} {told}"
        found = store.status(stage.kind, stage.id)
        if not found:
            record = {"state": "done", "attempt": 1, "work": stage.work, "label": stage.label, "how": stage.recipe}
            files.write_sealed(folder / "status.json", {**record, "note": "written again from the plan"})
            yield f"warning: status.json of {stage.label} {told}"
        elif found.get("state") != "done" and not store.held(stage.kind, stage.id):
            # Its process ended, or its disk failed, between what it found and the word that it is done.
            whole = {key: value for key, value in found.items() if key not in ("error", "traceback")}
            files.write_sealed(folder / "status.json", {**whole, "state": "done"})


def _downstream(plan: Plan, ids: set[str]) -> set[str]:
    """Return the given stages and all that need them; a diverged stage would diverge again."""
    out = set(ids)
    for stage in plan.stages.values():  # in an order in which needs come first
        if any(need in out for _, need in stage.needs):
            out.add(stage.id)
    return out
