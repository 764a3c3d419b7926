"""Run stages in this process, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.interfaces import Executor

if TYPE_CHECKING:
    from ddpmkit.study.runner import RunSettings
    from ddpmkit.study.stage import Stage


@dataclass(frozen=True)
class Inline(Executor):
    """Run every stage in this very process, in order; for notebooks, debuggers and tests.

    What a stage raises costs the stage, an exit included; what ends the process (a crash, ``os._exit``) ends the study,
    and what a stage prints is not kept. A stage that hangs is interrupted by a second Ctrl-C, unless it hangs inside a
    library that never looks: run such a thing under ``local``.
    """

    name = "inline"
    reference = "ddpmkit/builtin/executors/inline.py"

    def run(self, stages: Sequence[Stage[Any]], settings: RunSettings) -> None:
        """Run the stages; each event goes to ``settings.on_event``."""
        from ddpmkit.study.execute import execute
        from ddpmkit.study.queue import ReadyQueue

        ready = ReadyQueue(stages)
        while not settings.should_stop() and (stage := ready.next()) is not None:
            settings.on_event({"event": "start", "stage": stage.id, "worker": 0})
            state = execute(
                stage, settings.store, settings.registry, settings.options, settings.on_event, settings.should_stop
            )
            ready.finished(stage, ok=state == "done")
            settings.on_event({"event": "end", "stage": stage.id, "worker": 0, "state": state})
