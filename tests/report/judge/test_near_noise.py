"""How bad is bad: the rows of unlearnt images, and the first line of a report whose samples score like noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ddpmkit.distances import unlearned
from ddpmkit.report.judge.near_noise import UNLEARNED, halfway
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.read.reference import Reference
from ddpmkit.report.show.html import to_html
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.tables import all_tables, main_table
from ddpmkit.report.show.terminal import to_terminal, to_tsv
from ddpmkit.study.records import RefRecord
from ddpmkit.text.layout import screen

BEGINS = "Nothing can be concluded about image quality yet: the samples score nearer to pure noise than to real images"


def judged(folder: Path, noise: float | None, real: float = 1.9) -> Summary:
    """The study of conftest, whose cells score about 5 and 6, with what noise and the others would score."""
    records = read_study(folder)
    rows = {"pure noise": noise, "mean image": 50.0, "Gaussian": 3.0}
    unlearned = {} if noise is None else {name: {"FD-digits": value} for name, value in rows.items()}
    references = [
        replace(ref, record=replace(ref.record, floors={"FD-digits": real}, unlearned=unlearned, n_unlearned=64))
        for ref in records.references
    ]
    return summarise(replace(records, references=references))


def test_the_rows_stand_below_the_real_ones_and_a_note_says_what_they_are(study: Path) -> None:
    summary = judged(study, 200.0)
    table = main_table(summary)
    assert [row[0] for row in table.rows[2:]] == [
        "real, train n=900", "pure noise n=64", "mean image n=64", "Gaussian n=64", "uniform",
    ]  # fmt: skip
    assert [row[2] for row in table.rows[2:]] == ["1.90", "200.00", "50.00", "3.00", ""]
    assert sum(note.startswith("How bad is bad: 'pure noise' is N(0, 1), clipped") for note in summary.notes) == 1
    assert summary.caution == ""
    assert "caution" not in summary.json()


def test_the_rows_are_those_that_are_measured() -> None:
    assert unlearned.UNLEARNED == UNLEARNED


def test_an_older_record_has_neither_rows_nor_a_caution(study: Path) -> None:
    summary = judged(study, None)
    assert [row[0] for row in main_table(summary).rows[2:]] == ["real, train n=900", "uniform"]
    assert not any("How bad is bad" in note for note in summary.notes)
    assert summary.caution == ""
    assert RefRecord.read({"floors": {}}).unlearned == {}


def test_the_line_is_drawn_between_distances_and_not_between_their_squares() -> None:
    assert halfway(0.0, 400.0) == 100.0  # a quarter: half of the distance
    assert halfway(4.0, 100.0) == 36.0
    assert halfway(-0.1, 4.0) == 1.0  # an unbiased estimate may be negative
    assert 3.0 < halfway(3.0, 400.0) < 189.4  # what was published as the winner of three schedules


def test_every_form_says_it_first(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = judged(study, 8.0)
    assert summary.caution.startswith(f"{BEGINS} (FD-digits 5.")
    assert summary.caution.endswith(", where real images score 1.9 and pure noise 8).")
    tables = all_tables(summary)
    assert to_markdown(summary).startswith(f"**{BEGINS} (")
    assert to_tsv(summary).startswith(f"# {BEGINS} (")
    assert to_latex(summary).splitlines()[1].startswith(rf"\noindent\textbf{{{BEGINS} (")
    assert to_latex(summary, notes=False).splitlines()[1].startswith(f"% {BEGINS} (")
    page = to_html(read_study(study), summary, tables, drawn=[], samples=[])
    assert f'<p class="lead">{BEGINS} (' in page
    assert json.loads(to_json(summary))["caution"] == summary.caution
    to_terminal(summary, screen())
    assert capsys.readouterr().out.lstrip().startswith("Nothing can be concluded about image quality yet")


def test_of_two_cells_the_one_beyond_the_line_is_named(study: Path) -> None:
    summary = judged(study, 14.9)  # the line is at 6.86 / cells at about 5 and 6: none
    assert summary.caution == ""
    between = next(
        z for z in (14.0, 13.5, 13.0, 12.5) if halfway(1.9, z) < summary.intervals["FD-digits"]["cosine"].mean
    )
    caution = judged(study, between).caution
    assert caution.startswith("Nothing can be concluded about the image quality of cosine yet: ")
    assert "linear" not in caution


def test_noise_that_scores_no_worse_than_real_images_says_nothing(study: Path) -> None:
    assert judged(study, 1.0).caution == ""


def test_of_several_studies_the_rows_go_with_their_own_columns() -> None:
    record = RefRecord.read(
        {"floors": {"FD-x": 1.9, "KID": 0.1}, "n_floor": 9, "unlearned": {"pure noise": {"FD-x": 99.0, "KID": 3.0}}}
    )
    here = Reference(record).under({"FD-x": "FD-x (B)"}, "B").record
    assert here.unlearned == {"pure noise": {"FD-x (B)": 99.0}}
    assert here.floors == {"FD-x (B)": 1.9}


def test_a_metric_that_is_no_squared_distance_draws_no_line(study: Path) -> None:
    records = read_study(study)
    frame = records.results.copy()
    frame.loc[frame["metric"] == "FD-digits", "unit"] = "AUC"
    record = replace(records.references[0].record, unlearned={"pure noise": {"FD-digits": 7.0}})
    assert summarise(replace(records, results=frame, references=[Reference(record)])).caution == ""
    assert summarise(replace(records, references=[Reference(record)])).caution != ""
