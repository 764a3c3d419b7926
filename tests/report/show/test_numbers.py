"""How numbers are written, whatever their size."""

from __future__ import annotations

import random
import re
from decimal import Decimal

import pytest

from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.foreign import records_of
from ddpmkit.report.read.reference import Reference
from ddpmkit.report.show.csv import to_wide
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.numbers import decimals
from ddpmkit.report.show.tables import contrast_table, main_table
from ddpmkit.report.show.terminal import to_tsv
from ddpmkit.statistics import t_interval
from ddpmkit.study.records import RefRecord


def study(cells, metric="FD"):
    """cell -> values by train seed, as records."""
    return study_of_metrics({c: {metric: values} for c, values in cells.items()})


def study_of_metrics(cells):
    """cell -> metric -> values by train seed, as records."""
    import pandas as pd

    rows = [(c, s, m, v) for c, metrics in cells.items() for m, values in metrics.items() for s, v in enumerate(values)]
    return records_of(pd.DataFrame(rows, columns=["cell", "train_seed", "metric", "value"]))


def around(mean, half, n=3):
    """Three values whose 95 % interval is mean -+ half."""
    unit = t_interval([-1.0, 0.0, 1.0]).high
    return [mean - half / unit, mean, mean + half / unit][:n]


def parts(text):
    """The mean and the two ends as they are written."""
    return [Decimal(x) for x in re.findall(r"[+-]?\d+(?:\.\d+)?", text)]


def places(text):
    return {len(x.partition(".")[2]) for x in re.findall(r"[+-]?\d+(?:\.\d+)?", text)}


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (959847.2, 1126534.9, "1000000 [-200000, 2100000]"),
        (303.7, 47.3, "304 [256, 351]"),
        (48.31, 9.96, "48 [38, 58]"),
        (4.8321, 0.8234, "4.83 [4.01, 5.66]"),
        (3.4e-7, 1.2e-8, "0.000000340 [0.000000328, 0.000000352]"),
        (0.0, 3.3e-9, "0.0000000000 [-0.0000000033, 0.0000000033]"),
        (2_000_000.04, 0.012, "2000000.040 [2000000.028, 2000000.052]"),
    ],
)
def test_value_and_interval_have_two_digits_of_the_half_width(mean, half, text):
    records = study({"a": around(mean, half)})
    summary = summarise(records)
    assert main_table(summary).rows[0][2] == text
    for written in (to_tsv(summary), to_markdown(summary).replace("\\", "")):
        assert text in written
    assert text.split(" [")[0] in to_latex(summary)
    row = to_wide(records, summary).splitlines()[1].split(",")
    assert row[2:5] == re.findall(r"-?[\d.]+", text)


@pytest.mark.parametrize(
    ("value", "text"), [(959847.2, "959847"), (12.3456, "12.35"), (0.000012345, "0.00001234"), (0.0, "0.000")]
)
def test_one_seed_has_four_digits_and_no_more_than_it_means(value, text):
    assert main_table(summarise(study({"a": [value]}))).rows[0][2] == text


@pytest.mark.long
def test_random_numbers_of_any_size_are_written_with_two_digits_of_their_half_width_and_never_cut():
    rng = random.Random(24)
    for _ in range(20):  # studies of 20 metrics: a column each
        values = {}
        for i in range(20):
            half = 10 ** rng.uniform(-12, 12)
            # a number that a float can tell from its neighbours to a thousandth of the half-width
            values[f"M{i}"] = around(rng.choice([-1, 1]) * half * 10 ** rng.uniform(-3, 9), half)
        table = main_table(summarise(study_of_metrics({"a": values})))
        for metric, three in values.items():
            exact = t_interval(three)
            (text,) = (t for t, column in zip(table.rows[0], table.columns, strict=True) if column.split()[0] == metric)
            told, low, high = parts(text)
            # The place of the second digit: 9.96 is 10 with two digits.
            unit = Decimal(10) ** (int(f"{(exact.high - exact.low) / 2:.1e}".partition("e")[2]) - 1)
            beside_zero = exact.low * exact.high > 0 and min(abs(exact.low), abs(exact.high)) < unit
            for written, number in ((told, exact.mean), (low, exact.low), (high, exact.high)):
                assert abs(written - Decimal(number)) <= unit * Decimal("0.5001")
                assert written % unit == 0 or beside_zero  # no third digit
            assert places(text) == {max(0, -unit.adjusted())} or beside_zero
            if exact.low > 0 or exact.high < 0:
                assert low * high > 0


def test_a_wide_neighbour_cuts_no_number_and_a_narrow_one_draws_none_out():
    summary = summarise(study({"a": around(50, 80), "b": around(51, 70), "c": around(5.0012, 0.0034)}))
    assert [r[2] for r in main_table(summary).rows] == ["50 [-30, 130]", "51 [-19, 121]", "5.001 [4.998, 5.005]"]
    summary = summarise(study({"a": around(5.1, 0.3), "b": around(5.2, 0.31), "c": around(900000, 1100000)}))
    rows = [r[2] for r in main_table(summary).rows]
    assert rows[:2] == ["5.10 [4.80, 5.40]", "5.20 [4.89, 5.51]"]
    assert rows[2] == "900000 [-200000, 2000000]" or places(rows[2]) == {0}
    assert Decimal(rows[2].split(" ")[0]) % 10000 == 0


def test_what_it_is_held_against_keeps_two_digits_beside_any_interval():
    records = study({"a": around(959847.2, 1126534.9)}, "NLL")
    records.references.append(
        Reference(
            RefRecord.read({"split": "test", "n_floor": 9, "floors": {"NLL": 1.93}, "baselines": {"uniform": 0.00413}})
        )
    )
    rows = {r[0]: r[2] for r in main_table(summarise(records)).rows}
    assert (rows["real, train n=9"], rows["uniform"]) == ("1.9", "0.0041")


def test_a_difference_is_written_as_its_interval_is():
    base = [100.0, 200.0, 300.0]
    cells = {"a": base, "b": [x + d for x, d in zip(base, around(41235.0, 3600.0), strict=True)]}
    assert contrast_table(summarise(study(cells))).rows[0][2] == "+41200 [+37600, +44800]"


def test_decimals_are_below_zero_for_tens():
    assert decimals([t_interval(around(5e5, 4.7e4))]) == -3
