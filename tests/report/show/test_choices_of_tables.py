"""Which tables and metrics are shown, what is left out of them, and how LaTeX and pipes have them."""

from __future__ import annotations

import dataclasses
import re

import pytest

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.forms import TABLES
from ddpmkit.report.judge.by_cell import by_cell, named
from ddpmkit.report.read.conditions import cell_named, select
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables
from ddpmkit.report.show.terminal import to_tsv
from ddpmkit.report.show.trim import trimmed
from ddpmkit.report.show.views import View, shown
from ddpmkit.report.write import make, render
from ddpmkit.text.naming import in_common
from ddpmkit.text.numbers import four_digits, significant, two_digits


@pytest.fixture
def made(study):
    return make([study])


def test_a_table_is_asked_for_by_name(study):
    records, summary, tables = make([study], View(tables=("scatter", "main")))
    assert [t.name for t in tables] == ["scatter", "main"]
    assert not any(t.detail for t in tables)  # who asks for a detail wants to see it in a terminal too
    assert {t.name for t in all_tables(summary)} <= set(TABLES)
    with pytest.raises(DdpmkitError, match="did you mean 'differences'"):
        make([study], View(tables=("difference",)))
    with pytest.raises(DdpmkitError, match="no table 'classes': there is no number in it here"):
        make([study], View(tables=("classes",)))
    with pytest.raises(DdpmkitError, match="a pivot has no other tables"):
        shown(records, summary, View(rows="schedule", cols="sigma", tables=("main",)))


def test_a_metric_is_asked_for_as_one_types_it(study):
    records, summary, _ = make([study])
    assert summary.metrics == ("FD-digits", "NLL")
    for asked in ("fd", "FD-digits", "FD", "fd-digits"):
        assert shown(records, summary, View(metrics=(asked,)))[0].metrics == ("FD-digits",)
    assert shown(records, summary, View(metrics=("nll", "fd")))[0].metrics == ("NLL", "FD-digits")
    with pytest.raises(DdpmkitError, match="unknown metric 'fid'"):
        shown(records, summary, View(metrics=("fid",)))


def test_one_table_for_a_paper_has_a_label_and_no_loose_notes(study):
    records, summary, tables = make([study], View(tables=("main",)))
    text = render("latex", records, summary, tables, notes=False)
    assert text.count(r"\begin{table}") == text.count(r"\label{tab:demo-main}") == 1
    assert "itemize" not in text
    body = text[: text.index(r"\end{table}")]
    assert all(line.startswith("%") for line in text[len(body) :].splitlines()[2:])
    assert "Student-t" in text
    labels = re.findall(r"\\label\{(.*?)\}", to_latex(summary))
    assert len(labels) == len(set(labels)) == len(all_tables(summary))


def columns_of(row):
    """How many of TeX's columns a row fills."""
    return 1 + len(re.findall(r"(?<!\\)&|\\multicolumn\{2\}", row))


def test_numbers_stand_with_their_points_below_one_another():
    rows = (("a", "9.5 [8.1, 10.9]", "<.001"), ("b", "10 [-3, 23]", "1"), ("c", "-", ".050"), ("r", "1.234", ""))
    table = Table("t", ("cell", "FD", "p"), rows, 1, name="main")
    text = to_latex(summary_of_nothing(), [table])
    (kinds,) = re.findall(r"\\begin\{tabular\}\{(.*)\}\n", text)
    assert kinds == "lr@{ }lr"
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {columns_of(line) for line in lines} == {4}
    # What a number lacks behind its point is kept free, so that flush right means flush at the point.
    widths = {}
    for line in lines[1:]:
        number = line.split(" & ")[1]
        if not number.startswith(r"\multicolumn"):
            visible = re.sub(r"\\phantom\{(.*?)\}", r"\1", number)
            widths[line[0]] = len(visible.partition(".")[2])
    assert widths == {"a": 3, "b": 3, "r": 3}
    assert r"\multicolumn{2}{c}{--}" in lines[3]
    assert r"\textless{}.001" in lines[1]


def summary_of_nothing():
    from ddpmkit.report.judge.summary import Summary

    return Summary("s t_u", ("a",), (), "a", {}, {}, {"a": {"done": 1}}, {}, ())


def test_a_label_is_one_that_tex_takes():
    table = Table("t", ("cell", "FD"), (("a", "1.5"),))
    assert r"\label{tab:s-t-u-1}" in to_latex(summary_of_nothing(), [table])


def test_a_pipe_has_the_title_of_each_table(made):
    _, summary, tables = made
    titles = [line[2:] for line in to_tsv(summary).splitlines() if line.startswith("# ")]
    assert titles == [t.title for t in tables]


def test_empty_columns_go_and_are_counted():
    main = Table("study s", ("cell", "seeds", "FD", "NLL"), (("a", "3", "-", "1.5"), ("b", "3", "-", "-"),
                 ("real", "", "2.0", ""), ("uniform", "", "", "4.1")), 2, name="main")  # fmt: skip
    gaps = Table("differences", ("cell", "metric", "difference", "Holm p", "verdict"),
                 (("b", "NLL", "", "", "no common seed"),), keys=(0, 1), lead=(2, 4), name="differences")  # fmt: skip
    (kept,) = trimmed([main, gaps])
    assert kept.columns == ("cell", "seeds", "NLL")
    assert [r[0] for r in kept.rows] == ["a", "b", "uniform"]
    assert kept.references == 1
    assert kept.note == ("Left out for want of a number: 1 column, FD; 1 table, differences (1 row: 1 no common seed).")
    assert trimmed([kept]) == [kept]


def test_the_columns_that_are_read_first_keep_their_place():
    heads = ("cell", "metric", "difference", "Holm p", "seed corr.", "verdict")
    row = ("b", "NLL", "+1", "", "", "single seed")
    table = Table("d", heads, (row,), keys=(0, 1), lead=(2, 5), name="differences")
    (kept,) = trimmed([table])
    assert [kept.columns[i] for i in kept.lead] == ["difference", "verdict"]
    assert kept.note == "D: left out for want of a number: 2 columns, Holm p, seed corr."
    effects = dataclasses.replace(table, title="e", name="effects")
    assert [t.note for t in trimmed([table, effects])] == [
        "Differences, effects: left out for want of a number: 2 columns, Holm p, seed corr.",
        "",
    ]


def test_a_baseline_may_be_typed_with_another_zero():
    labels = ["linear guidance=0.0", "linear guidance=1.0", "cosine guidance=0.0"]
    assert cell_named(labels, "linear guidance=0") == "linear guidance=0.0"
    assert cell_named(labels, "cosine guidance=0.0") == "cosine guidance=0.0"
    for wrong in ("linear guidance=2", "guidance=0", "linear weight=0", "linear guidance=x"):
        with pytest.raises(DdpmkitError, match="no cell"):
            cell_named(labels, wrong)


def test_guidance_0_is_a_baseline_and_a_condition(labelled):
    folder = labelled({"guidance=0.0": {}, "guidance=2.0": {"guidance": 2.0}})
    records, summary, _ = make([folder], baseline="guidance=2")
    assert summary.baseline == "guidance=2.0"
    assert [c["label"] for c in select(records, ["cell=guidance=0"]).plan["cells"]] == ["guidance=0.0"]


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 1e5, 1e12])
def test_single_numbers_have_their_digits_at_any_size(scale):
    for value, two, four in ((1.23456, "12", "1235"), (9.9996, "1", "1"), (4.5, "45", "45")):
        for text, digits in ((two_digits(value * scale), two), (four_digits(value * scale), four)):
            assert "e" not in text
            assert text.replace(".", "").strip("0") == digits
            assert float(text) == pytest.approx(value * scale, rel=0.06)
    assert (four_digits(10.0), four_digits(0.0), four_digits(float("nan"))) == ("10.00", "0.000", "nan")
    assert (significant(0.0, 3), two_digits(130.0)) == ("0", "130")


def test_many_cells_are_named_together():
    cells = [f"{a} x={i}" for a in ("u v", "w v") for i in range(4)]
    assert by_cell({c: f"1.{i}" for i, c in enumerate(cells[:6])}).count("1.") == 6  # a few are listed
    assert by_cell(dict.fromkeys(cells[:6], "1.5")) == "all 6 cells 1.5"
    assert by_cell(dict.fromkeys(cells[:2], "1.5")).count("1.5") == 2
    assert by_cell(dict.fromkeys(cells, "1.5")) == "all 8 cells 1.5"
    assert by_cell({c: "1" if c[0] == "u" else "2" for c in cells}) == "u v (4 cells) 1, w v (4 cells) 2"
    ends = by_cell({c: f"{i}.5 s" for i, c in enumerate(cells)})
    assert ends == "of 8 cells 0.5 s (u v x=0) to 7.5 s (w v x=3)"
    assert named(["a", "b", "c"], 4) == "a and 2 more"
    assert in_common(["a b c", "a d c"]) == "a c"
    assert in_common(["a", "b"]) == "a, b"
