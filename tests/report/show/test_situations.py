"""Four studies as people have them, at every width: no number cut, no row without a name, nothing said twice."""

from __future__ import annotations

import io
import itertools
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.compare import compare
from ddpmkit.report.read.frames import COLUMNS, Records
from ddpmkit.report.read.reference import Reference
from ddpmkit.report.show.tables import all_tables, remarks
from ddpmkit.report.show.terminal import to_terminal
from ddpmkit.report.show.views import View, shown
from ddpmkit.study.records import RefRecord

WIDTHS = (50, 60, 72, 80, 100, 140)
AXES = {"schedule": ("linear", "cosine", "sigmoid"), "weighting": ("simple", "min-snr"), "sampling_steps": (2, 3, 4, 5)}
DISTANCES = ("FD-digits", "KID-digits", "precision-digits", "FD-pca16")


def study(name="demo", axes=AXES, *, seeds=(0, 1, 2), done=True, data="d1", steps=20, distances=DISTANCES):
    """A study of every point of some axes, whose likelihood does not see the last of three."""
    rng = np.random.default_rng(sum(map(ord, name)))
    cells, results, rows = [], [], []
    for point in (dict(zip(axes, levels, strict=True)) for levels in itertools.product(*axes.values())):
        trained = " ".join(str(v) for a, v in point.items() if a != "sampling_steps")
        label = trained + (f" sampling_steps={point['sampling_steps']}" if "sampling_steps" in point else "")
        settings = {**point, "train_steps": steps, "dataset": data}
        cells.append({"label": label, "slug": label, "point": point, "settings": settings})
        for s in seeds:
            nll = f"{name} nll {trained} {s}"
            results.append(
                {"cell": label, "train_seed": s, "sample_seed": 0, "train": f"{name} {trained} {s}", "nll": nll}
                | {"sample": f"{name} {label} {s}", "scores": []}
            )
            own = np.random.default_rng(zlib.crc32(nll.encode()))
            base = float(own.normal(2 if "sigmoid" in trained else 3, 0.02)) if done else None
            for metric in (*distances, "copy", "NLL", "NLL-unclipped", "NLL-train"):
                of_nll = metric.startswith("NLL")
                more = {"NLL-unclipped": 1.0, "NLL-train": 0.1}.get(metric, 0.0)
                value = (
                    (base + more if done else None)
                    if of_nll
                    else float(rng.normal(100 if metric.startswith("FD") else 0.5, 0.3))
                )
                said = (
                    f"{metric} x0hat clipped data={data}"
                    if of_nll
                    else f"{metric} n={'64' if done else ''}/797 ref=test extractor="
                )
                said += "" if of_nll else f"{metric.rpartition('-')[2]} data={data} quantiser=nearest-level"
                rows.append(
                    dict.fromkeys(COLUMNS)
                    | {"study": name, "cell": label, "train_seed": s, "sample_seed": 0, "metric": metric, "n": 64.0}
                    | {"value": value if done else None, "status": "done" if done else "pending", "definition": said}
                    | {"sampler": "ancestral", "sampling_steps": point.get("sampling_steps", 4), "parameters": 45041}
                    | {"flops": 1.9e6, "train_seconds": 3.0 + s, "stage": nll if of_nll else f"{name} {label} {s}"}
                    | {"standard_error": 0.004, "test_set_error": 0.0, "fingerprint": "torch 2, CPU, 1 thread"}
                )
    plan = {
        "study": name, "cells": cells, "results": results, "stages": [],
        "grid": {"train_seeds": list(seeds), "sample_seeds": [0], "axes": {a: list(v) for a, v in axes.items()}},
    }  # fmt: skip
    reference = {
        "split": "test", "n_floor": 64, "floors": dict.fromkeys(distances, 20.123), "reference": data * 8,
        "baselines": {"per-pixel categorical": 2.4353, "uniform": 4.0875}, "levels": 17,
    }  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return Records(Path(f"/r{name}/studies/{name}"), plan, frame, [Reference(RefRecord.read(reference))], [])


ONE = {"schedule": ("linear", "cosine")}


@pytest.fixture(scope="module")
def situations():
    """Situation -> its records."""
    return {
        "24 cells": study(),
        "cut": study(done=False),
        "two data sets": compare([study("digits", ONE), study("shapes", ONE, data="d2", distances=("FD-pca8",))]),
        "two lengths": compare([study("short", ONE), study("long", ONE, steps=60, seeds=(0, 1, 2, 3))]),
    }


SITUATIONS = ("24 cells", "cut", "two data sets", "two lengths")


def terminal(summary, width, tables=None):
    out = io.StringIO()
    to_terminal(summary, Console(file=out, width=width), shown=tables)
    return out.getvalue()


def numbers_by_name(text, names):
    """Name of a row -> the texts that stand with it: on its line, or in the block below its name."""
    out = dict.fromkeys(names, "")
    here = ""
    for line in text.splitlines():
        if not line.startswith("  "):
            found = [n for n in names if line == n or line.startswith(f"{n} ")]
            here = max(found, key=len, default="")
        if here:
            out[here] += line + "\n"
    return out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_number_is_whole_and_stands_with_the_name_of_its_row(situations, situation, width):
    summary = summarise(situations[situation])
    text = terminal(summary, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    first = all_tables(summary)[0]
    tables = text[: text.index("\n  ")] if "\n\n  " not in text else text[: text.rindex("\n\n  ")]
    found = numbers_by_name(tables, [row[0] for row in first.rows])
    assert len(first.rows) >= 4
    for row in first.rows:
        for number in row[1:]:
            assert number in ("", "-") or number in found[row[0]], (row[0], number, text)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_contrast_stands_with_the_names_of_its_row_in_a_table_that_was_asked_for(situations, width):
    records = situations["24 cells"]
    summary, tables = shown(records, summarise(records), View(tables=("differences",)))
    (table,) = tables
    text = terminal(summary, width, tables)
    assert len(table.rows) == 23 * 5
    blocks = " ".join(text.split())
    for row in table.rows:
        names, rest = f"{row[0]} {row[1]}", [c for c in row[2:] if c]
        assert all(c in blocks for c in rest)
        # The difference and its verdict are read together, whether in one line or in one block.
        verdict = re.escape(row[5])
        between = " ".join(c for c in row[3:5] if c)
        middle = rf"(verdict |{re.escape(between)} )?"
        assert re.search(rf"{re.escape(names)} (difference )?{re.escape(row[2])} {middle}{verdict}", blocks), row


@pytest.mark.parametrize("situation", SITUATIONS)
def test_nothing_is_said_twice(situations, situation):
    summary = summarise(situations[situation])
    notes = remarks(summary, all_tables(summary))
    assert len(notes) == len(set(notes))
    sentences = [s for note in notes for s in re.split(r"[.;:] ", note) if len(s) > 40]
    assert sorted(sentences) == sorted(set(sentences))
    # What holds of many cells names them together: no note is a list of 24.
    cells = summary.cells
    assert max(sum(note.count(cell) for cell in cells) for note in notes) <= 12


def test_cells_of_which_the_same_is_said_are_named_by_what_they_share(situations):
    notes = summarise(situations["24 cells"]).notes
    (unclipped,) = (n for n in notes if n.startswith("Unclipped"))
    assert unclipped.count("(4 cells)") == 6
    assert re.search(r"linear simple \(4 cells\) \d\.\d{3}, linear min-snr \(4 cells\)", unclipped)
    (cost,) = (n for n in notes if n.startswith("Cost"))
    assert cost.endswith("45,041 parameters, 1.9 MFLOP: all 24 cells 4 s.")
    (same,) = (n for n in notes if "one result under several names" in n)
    assert "cosine min-snr (4 cells)" in same


def test_two_extractors_share_what_is_said_of_both(situations):
    (note,) = (n for n in summarise(situations["24 cells"]).notes if "quantiser" in n)
    assert note.startswith("FD-digits, KID-digits, precision-digits extractor=digits; FD-pca16 extractor=pca16")
    assert note.count("n=64/797") == note.count("quantiser=nearest-level") == 1


def test_a_long_table_lists_what_is_settled_and_counts_the_rest(situations):
    records = situations["24 cells"]
    summary = summarise(records)
    differences = next(t for t in all_tables(summary) if t.name == "differences")
    settled = [r for r in differences.rows if r[5] in ("better", "worse")]
    text = terminal(summary, 140)
    assert 0 < len(settled) < 20
    said = " ".join(text.split())
    assert f"{len(settled)} of {len(differences.rows)} are listed; " in said
    assert "--table differences has all" in said
    block = text.split("paired by seed\n")[1].split("\n\n")[0]
    assert len(block.splitlines()) == 2 + len(settled)


def test_a_study_without_a_number_says_so_and_counts_what_is_left_out(situations):
    summary = summarise(situations["cut"])
    tables = all_tables(summary)
    assert [t.name for t in tables] == ["main"]
    assert tables[0].columns == ("cell", "seeds")
    assert tables[0].references == 0
    assert tables[0].note.startswith("Left out for want of a number: 5 columns, FD-digits ↓")
    assert "There is no number yet." in summary.notes
    assert "all 24 cells: 3 results pending each; none is called better." in summary.notes
    assert not any(n.startswith(("[a, b]", "Not FID")) for n in summary.notes)


def test_a_study_that_has_no_number_yet_does_not_split_a_column():
    both = compare([study("short", ONE), study("long", ONE, steps=60, done=False)])
    assert not [m for m in summarise(both).metrics if m.endswith("(long)")]


def test_studies_name_training_first_among_what_differs(situations):
    (note,) = (n for n in summarise(situations["two lengths"]).notes if "differ in" in n)
    assert note.endswith("differ in: train_steps 20 / 60; train_seeds 0, 1, 2 / 0, 1, 2, 3.")
    (other,) = (n for n in summarise(situations["two data sets"]).notes if "differ in" in n)
    assert other.index("dataset d1 / d2") < other.index("data d1d1d1d1 / d2d2d2d2")


def test_an_error_that_is_not_resolved_is_not_called_zero(situations):
    (note,) = (n for n in summarise(situations["two lengths"]).notes if "Monte-Carlo" in n)
    assert note.endswith("Monte-Carlo standard error at most 0.004 bits/dim, that of the choice of the test images not "
                         "resolved.")  # fmt: skip


def test_a_row_without_a_number_stands_in_the_first_table_alone(situations):
    text = terminal(summarise(situations["two data sets"]), 60)
    (other,) = (block for block in text.split("\n\n") if block.startswith("cell") and "NLL (shapes)" in block)
    assert "digits: linear" not in other
    assert text.startswith("digits against shapes\n") or "digits: linear" in text
