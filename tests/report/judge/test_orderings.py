"""Orderings judged: agrees, disagrees or open, over the seeds that were named, Holm over all of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddpmkit.report.judge.orderings import Outcome
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import COLUMNS, Records
from ddpmkit.report.show.html import kind
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.ordering_table import ordering_table
from ddpmkit.report.show.terminal import to_tsv
from ddpmkit.statistics import holm

BITS = {"linear": (3.0, 3.1, 3.3, 3.2), "cosine": (2.5, 2.59, 2.81, 2.7), "sigmoid": (3.0, 3.101, 3.3, 3.199)}
FD = {"linear": (5.0, 5.2, 5.1, 4.9), "cosine": (5.3, 4.9, 5.6, 4.8), "sigmoid": (9.0, 9.2, 9.1, 9.0)}


def ordering(name: str, base: str, expected: str, metric: str = "nll", **differs: Any) -> dict[str, Any]:
    return {
        "claim": f"{name} {expected} {base} {metric}", "cell": {"schedule": name}, "baseline": {"schedule": base},
        "where": {}, "metric": metric, "expected": expected, "margin": 0.05, "seeds": [0, 1, 2], "n": None,
        "source": "Table 1", "paper": [1.5, 2.5], "known": 0, **differs,
    }  # fmt: skip


def study(*orderings: dict[str, Any], seeds: int = 3) -> Records:
    rows = [
        dict.fromkeys(COLUMNS)
        | {"cell": cell, "train_seed": seed, "sample_seed": 0, "metric": metric, "value": value, "status": "done"}
        | {"n": 64, "standard_error": 0.01, "stage": f"{metric}{cell}{seed}", "definition": metric}
        for metric, table in (("NLL", BITS), ("FD-digits", FD))
        for cell, values in table.items()
        for seed, value in enumerate(values[:seeds])
    ]
    cells = [{"label": c, "point": {"schedule": c}, "settings": {"schedule": c, "conditional": False}} for c in BITS]
    grid = {"train_seeds": list(range(seeds)), "sample_seeds": [0]}
    plan = {"study": "demo", "cells": cells, "results": [], "stages": [], "grid": grid, "orderings": list(orderings)}
    return Records(Path("demo"), plan, pd.DataFrame(rows, columns=list(COLUMNS)), [], [])


def of(*orderings: dict[str, Any], seeds: int = 3) -> tuple[Outcome, ...]:
    return summarise(study(*orderings, seeds=seeds)).orderings


@pytest.mark.parametrize(
    ("cell", "base", "expected", "metric", "verdict", "why"),
    [
        ("cosine", "linear", "lower", "nll", "agrees", "lower"),
        ("cosine", "linear", "higher", "nll", "disagrees", "lower"),
        ("linear", "cosine", "higher", "nll", "agrees", "higher"),
        ("cosine", "linear", "equal", "nll", "disagrees", "lower"),
        ("cosine", "linear", "lower", "FD-digits", "open", "inconclusive"),
        ("sigmoid", "linear", "equal", "nll", "agrees", "no gap larger than 0.05"),
        ("sigmoid", "linear", "lower", "nll", "disagrees", "no gap larger than 0.05"),
    ],
)
def test_a_verdict_is_what_the_contrast_allows(
    cell: str, base: str, expected: str, metric: str, verdict: str, why: str
) -> None:
    (found,) = of(ordering(cell, base, expected, metric))
    assert (found.verdict, found.why) == (verdict, why)
    assert found.contrast is not None


@pytest.mark.parametrize(
    ("seeds", "shared", "expected", "verdict", "why"),
    [
        ([0], False, "equal", "open", "single seed"),  # a tie of one seed is none of the networks
        ([0], False, "lower", "open", "single seed"),
        ([0, 1], False, "equal", "open", "inconclusive"),
        ([0, 1], False, "higher", "open", "inconclusive"),
        ([0], True, "equal", "agrees", "one result"),
        ([0, 1], True, "lower", "disagrees", "one result"),
    ],
)
def test_only_one_result_is_equal_by_its_numbers(
    seeds: list[int], shared: bool, expected: str, verdict: str, why: str
) -> None:
    found = study(ordering("sigmoid", "linear", expected, seeds=seeds))
    results = found.results.assign(value=3.0)
    if shared:
        results["stage"] = results["metric"] + results["train_seed"].astype(str)
    (outcome,) = summarise(replace(found, results=results)).orderings
    assert (outcome.verdict, outcome.why) == (verdict, why)


def test_holm_is_over_all_orderings_whatever_their_metric() -> None:
    alone = [
        of(o)[0].contrast
        for o in (ordering("cosine", "linear", "lower"), ordering("sigmoid", "linear", "higher", "FD-digits"))
    ]
    both = of(ordering("cosine", "linear", "lower"), ordering("sigmoid", "linear", "higher", "FD-digits"))
    ps = [c.p for c in alone if c and c.p is not None]
    assert [o.contrast.p_holm for o in both if o.contrast] == pytest.approx(holm(ps))
    assert ps != [o.contrast.p_holm for o in both if o.contrast]


def test_an_ordering_without_numbers_counts_in_the_family_as_one_of_p_1() -> None:
    asked = ordering("cosine", "linear", "lower"), ordering("sigmoid", "linear", "equal", margin=1.0)
    later = [ordering("cosine", "linear", "lower", claim=f"later {i}", seeds=[0, 1, 2, 3]) for i in range(6)]
    alone, first = of(*asked), of(*later, *asked)
    for one, other in zip(alone, first[6:], strict=True):
        assert one.contrast is not None
        assert other.contrast is not None
        assert other.contrast.p == one.contrast.p
    ps = [o.contrast.p for o in alone if o.contrast and o.contrast.p is not None]
    assert [o.contrast.p_holm for o in first[6:] if o.contrast] == pytest.approx(holm([*ps, *[1.0] * 6])[:2])
    smallest = min((o.contrast for o in first[6:] if o.contrast), key=lambda c: c.p or 1.0)
    assert smallest.p_holm == pytest.approx(8 * (smallest.p or 1.0))
    assert smallest.level == pytest.approx(0.05 / 8)  # and its interval is at the level of that family
    equal = first[7].contrast
    assert equal is not None
    assert equal.p_equivalence is not None
    assert equal.p_equivalence_holm == pytest.approx(min(1.0, 8 * equal.p_equivalence))


def test_each_ordering_has_its_own_margin() -> None:
    narrow, wide = of(
        ordering("sigmoid", "linear", "equal", claim="narrow", margin=0.0005), ordering("sigmoid", "linear", "equal")
    )
    assert (narrow.verdict, wide.verdict) == ("open", "agrees")


def test_only_the_seeds_that_were_named_decide() -> None:
    asked = ordering("cosine", "linear", "lower")
    (before,), (after,) = of(asked), of(asked, seeds=4)
    assert after.contrast is not None
    assert after.contrast.seeds == (0, 1, 2)
    assert after.contrast == before.contrast
    (more,) = of(ordering("cosine", "linear", "lower", seeds=[0, 1, 2, 3]), seeds=4)
    assert more.contrast is not None
    assert more.contrast.n == 4


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({"seeds": [0, 1, 2, 3]}, "3 of 4 seeds"),
        ({"seeds": [1]}, "single seed"),
        ({"n": 1000}, "over 64 images, stated for 1000"),
        ({"cell": {"schedule": "jsd"}}, "its cell is no cell of the study"),
        ({"cell": {}}, "its cell is 3 cells of the study"),
    ],
)
def test_what_was_not_measured_as_stated_is_open(differs: dict[str, Any], why: str) -> None:
    (found,) = of(ordering("cosine", "linear", "lower", **differs))
    assert (found.verdict, found.why) == ("open", why)


def test_numbers_that_mean_something_else_are_not_compared() -> None:
    records = study(ordering("cosine", "linear", "lower"))
    records.results.loc[records.results["cell"] == "cosine", "definition"] = "NLL of another split"
    (found,) = summarise(records).orderings
    assert (found.verdict, found.why) == ("open", "the numbers do not mean the same")


def test_every_form_shows_the_published_values_ours_and_the_verdict() -> None:
    late = ordering("cosine", "linear", "lower", "FD-digits", known=2)
    summary = summarise(study(ordering("cosine", "linear", "lower"), late))
    table = ordering_table(summary)
    assert table is not None
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["published, cell / baseline"] == "1.5 / 2.5"
    assert row["here, cell / baseline"] == "2.633 / 3.133"
    assert (row["expected"], row["verdict"], row["seeds"]) == ("lower", "agrees", "0,1,2")
    assert "cosine lower linear FD-digits (2 of 6)" in table.note
    assert "Open, inconclusive: cosine lower linear FD-digits." in table.note
    for text in (to_markdown(summary), to_tsv(summary), to_json(summary)):
        assert "agrees" in text
        assert "1.5 / 2.5" in text
    assert [kind(v) for v in ("agrees", "disagrees", "open")] == ["better", "worse", "open"]


def test_what_shows_a_part_of_a_study_judges_none_of_its_orderings() -> None:
    records = study(ordering("cosine", "linear", "lower"))
    assert summarise(records).orderings
    assert not summarise(select(records, ["schedule=cosine"])).orderings
    assert not compare([records, replace(records, plan={**records.plan, "study": "other"})]).plan["orderings"]


def test_a_study_without_orderings_says_nothing_of_them() -> None:
    summary: Summary = summarise(study())
    assert ordering_table(summary) is None
    assert "orderings" not in summary.json()
