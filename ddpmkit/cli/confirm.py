"""``ablate --confirm``: the cell that looked best and the baseline again, on fresh seeds."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from ddpmkit.cli.streams import on_stdout

if TYPE_CHECKING:
    from ddpmkit.report.judge.summary import Summary
    from ddpmkit.study.prepare import Prepared


def run_confirmation(
    prepared: Prepared, summary: Summary, seeds: int, metric: str | None, margins: dict[str, float] | None
) -> int:
    """Run the cell that looked best and the baseline on fresh seeds, and print what these alone say."""
    from ddpmkit import files
    from ddpmkit.cli.live import watch
    from ddpmkit.report.judge.confirm import confirmation, confirmed
    from ddpmkit.report.read.frames import read_study
    from ddpmkit.report.show.tables import confirm_table
    from ddpmkit.report.show.terminal import to_terminal
    from ddpmkit.report.write import write_report
    from ddpmkit.study.enter import working
    from ddpmkit.study.prepare import prepare_study
    from ddpmkit.study.runner import run

    plan = confirmation(summary, seeds, metric)
    # Another selection, or more seeds, is another confirmation.
    asked = files.sha256(files.canonical([plan.cells, plan.train_seeds, plan.metric]).encode())[:6]
    name = f"{prepared.study.name[:64]}-confirm-{asked}"
    again = replace(prepared.study, name=name, train_seeds=plan.train_seeds, only=plan.cells, stopped={}, orderings=())
    fresh = prepare_study(again, out=prepared.store.out, registry=prepared.registry, run_options=prepared.run_options)
    with working(fresh):
        with watch(fresh) as tell:
            outcome = run(fresh, tell)
        write_report(outcome.folder, margin=margins)
    if outcome.code:
        print(f"the confirmation is not whole; the same command goes on from here: {outcome.folder}", file=sys.stderr)
        return int(outcome.code)
    found = confirmed(plan, read_study(outcome.folder), margin=margins)
    with on_stdout():
        to_terminal(found.summary, shown=[confirm_table(found)])
    for note in found.notes:
        print(note, file=sys.stderr)
    print(f"wrote {outcome.folder}", file=sys.stderr)
    return 0
