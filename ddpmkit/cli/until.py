"""``ablate --until settled``: its options, and what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpmkit.cli.panels import RUNNING, SEEDS
from ddpmkit.errors import DdpmkitError, did_you_mean

if TYPE_CHECKING:
    from ddpmkit.study.prepare import Prepared
    from ddpmkit.study.runner import Outcome
    from ddpmkit.study.until import Ended

MOST = 20

Until = Annotated[
    str | None,
    typer.Option(
        help="settled: add train seeds where a verdict is open, until all are settled or a limit is reached",
        metavar="WHAT",
        rich_help_panel=SEEDS,
    ),
]
UntilMetric = Annotated[
    str | None,
    typer.Option(
        help="The metric of --until, as tables call it; default that of --margin, else the first",
        metavar="NAME",
        rich_help_panel=SEEDS,
    ),
]
MaxSeeds = Annotated[
    int, typer.Option(help="The most train seeds that --until gives a cell", metavar="INT", rich_help_panel=SEEDS)
]
Margin = Annotated[
    str | None,
    typer.Option(
        help="Largest gap that does not matter, set before looking: NLL=0.05,FD-digits=1",
        metavar="NAME=GAP,..",
        rich_help_panel=SEEDS,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Time that --until may take: 90s, 45m, 2h; no seeds are begun that would not end in it",
        metavar="TIME",
        rich_help_panel=RUNNING,
    ),
]


def check(until: str | None, budget: str | None, metric: str | None, most: int, margin: str | None) -> None:
    """Refuse what can't be meant, before anything runs.

    Raises:
        DdpmkitError: for another word than settled, options of --until without it, or a bad budget or margin.
    """
    from ddpmkit.study.until import seconds

    if until not in (None, "settled"):
        raise DdpmkitError(f"--until: unknown goal '{until}'", "--until settled")
    if until is None:
        for flag, given in (("--budget", budget), ("--until-metric", metric), ("--max-seeds", most != MOST)):
            if given:
                raise DdpmkitError(f"{flag} belongs to --until", f"--until settled {flag} ...")
    if most < 2:
        raise DdpmkitError(f"--max-seeds must be at least 2, got {most}", f"--max-seeds {MOST}")
    if budget is not None:
        seconds(budget)
    for part in (margin or "").split(",") if margin is not None else ():
        gap = part.rpartition("=")[2].strip()
        try:
            bad = not 0 < float(gap) < float("inf")
        except ValueError:
            bad = True
        if bad:
            raise DdpmkitError(f"--margin: '{part}' names no positive gap", "as in --margin NLL=0.05,FD-digits=1")


def check_names(prepared: Prepared, metric: str | None, margin: str | None) -> dict[str, float] | None:
    """Return the margins by metric, after a look at whether the study will have a column of each name, before it runs.

    Raises:
        DdpmkitError: for a margin or a metric of --until that no column will have.
    """
    if metric is None and margin is None:
        return None
    from ddpmkit.report.judge.overrides import read_margin
    from ddpmkit.report.read.reference import GIVEN_CLASS
    from ddpmkit.study.columns import columns
    from ddpmkit.study.settings import NLL

    names = columns(prepared.study, prepared.registry)
    if NLL in prepared.study.metrics:
        likelihoods = [GIVEN_CLASS if c.settings.conditional else "NLL" for c in prepared.plan.cells]
        names = tuple(dict.fromkeys([*names, *likelihoods]))
    if metric is not None and metric not in names:
        raise DdpmkitError(
            f"metric '{metric}' is not in the study{did_you_mean(metric, names)}", f"metrics: {', '.join(names)}"
        )
    return None if margin is None else read_margin(margin, names)


def run_until(
    prepared: Prepared, metric: str | None, most: int, margin: dict[str, float] | None, budget: str | None
) -> Ended:
    """Run a study until its verdicts are settled, and say why it ended."""
    from ddpmkit.cli.live import watch
    from ddpmkit.report.judge.overrides import measured
    from ddpmkit.report.judge.settled import look
    from ddpmkit.report.judge.summarise import summarise
    from ddpmkit.report.read.frames import read_study
    from ddpmkit.study.look import Look
    from ddpmkit.study.runner import run
    from ddpmkit.study.until import Limits, seconds, until_settled

    named = [*(margin or {})]
    metric = metric or (named[0] if len(named) == 1 else None)
    if margin is None or (metric and named and metric not in named):
        print("note: without a margin a contrast without a gap is never settled: --margin NLL=0.05", file=sys.stderr)

    def round_(planned: Prepared) -> Outcome:
        with watch(planned) as tell:
            return run(planned, tell)

    def see(folder: Path) -> Look:
        records = read_study(folder)
        return look(summarise(records, margin=measured(margin, records.results["metric"])), metric)

    ended = until_settled(prepared, Limits(most, seconds(budget) if budget else None), see, round_)
    print(ended.why, file=sys.stderr)
    return ended
