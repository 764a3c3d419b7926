"""``ablate --tune``: its options, and the trials before the study."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmkit.cli.panels import BUDGET, SEEDS

if TYPE_CHECKING:
    from ddpmkit.study.prepare import Prepared

Tune = Annotated[
    list[str] | None,
    typer.Option(
        "--tune",
        help="Try every cell with each value, judged by the bound on the validation images at train seeds of their "
        "own; each runs with its best. Repeatable: every combination",
        metavar="NAME=VALUE,..",
        rich_help_panel=BUDGET,
    ),
]
TuneSeeds = Annotated[
    str | None,
    typer.Option(
        help="Train seeds of the trials, none of them the study's; default 1000",
        metavar="SEEDS",
        rich_help_panel=SEEDS,
    ),
]


def tuned(prepared: Prepared, *, dry_run: bool, as_json: bool) -> Prepared:
    """Run the trials of a study that are left, and return the study with each cell's best values.

    Raises:
        typer.Exit: where a signal stopped the trials; of a dry run, after the plan of trials that are left.
    """
    from ddpmkit.cli.plan import print_plan
    from ddpmkit.errors import Exit
    from ddpmkit.study.tuning import tuned

    def trials(planned: Prepared) -> None:
        of = f"the trials of study '{prepared.study.name}'"
        if dry_run:
            print_plan(planned, as_json=as_json)
            print(f"these are {of}, which comes then: each cell with its best", file=sys.stderr)
            raise typer.Exit
        from ddpmkit.cli.live import watch
        from ddpmkit.report.write import write_report
        from ddpmkit.study.runner import run

        print(f"first {of}: {len(planned.plan.results)} in study '{planned.study.name}'", file=sys.stderr)
        with watch(planned) as tell:
            outcome = run(planned, tell)
        write_report(outcome.folder)
        if outcome.code in (Exit.SIGINT, Exit.SIGTERM):
            print("the same command goes on from here", file=sys.stderr)
            raise typer.Exit(int(outcome.code))

    return tuned(prepared, trials)
