"""Charts that can be read: losses of one kind an axis, one scale of shades, legends of what is seen, true ends."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddpmkit.report.draw import charts as charts_module
from ddpmkit.report.draw.charts import charts
from ddpmkit.report.draw.classes import classes_figure
from ddpmkit.report.draw.grid import shaded
from ddpmkit.report.draw.labels import short
from ddpmkit.report.draw.lines import lines
from ddpmkit.report.draw.metrics import metrics_figure
from ddpmkit.report.judge.by_evaluations import lines_by_evaluations
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.bounds import bounds
from ddpmkit.report.read.classes import class_grids
from ddpmkit.report.read.curves import curves_of
from ddpmkit.report.read.frames import Records, read_study
from ddpmkit.statistics import Interval


def legend(figure):
    """What the legend of a figure says."""
    (axis,) = figure.axes
    return [text.get_text() for text in axis.get_legend().get_texts()]


def with_weightings(maker, weightings=("simple", "min-snr")):
    """A study whose cells have other weightings; the second one's sigma enters its training."""
    folder = maker.write(schedules=weightings)
    plan = json.loads((folder / "plan.json").read_text())
    for cell, weighting in zip(plan["cells"], weightings, strict=True):
        cell["settings"] |= {"schedule": "linear", "weighting": weighting}
    for stage in plan["stages"]:
        if stage["kind"] == "train" and "min-snr" in stage["label"]:
            stage["how"] |= {"sigma": {"kind": "sigma", "name": "beta", "plugin": "ddpmkit"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    return read_study(folder)


def test_losses_of_two_weightings_have_an_axis_each(maker):
    records = with_weightings(maker)
    kinds = curves_of(records).kinds
    assert kinds == {"simple": "weighting simple", "min-snr": "weighting min-snr, sigma beta-tilde"}
    drawn = {c.stem: c for c in charts(records, summarise(records)) if c.section == "training"}
    assert {s: c.title for s, c in drawn.items()} == {
        "training": "Loss by step, weighting simple",
        "training-2": "Loss by step, weighting min-snr, sigma beta-tilde",
    }
    assert [legend(c.figure) for c in drawn.values()] == [["simple"], ["min-snr"]]


def test_losses_of_one_kind_stay_on_one_axis(study):
    records = read_study(study)
    (chart,) = (c for c in charts(records, summarise(records)) if c.section == "training")
    assert (chart.stem, chart.title) == ("training", "Loss by step")
    assert legend(chart.figure) == ["linear, cosine"]  # the same losses, and no word that both names have


def faces(figure):
    """Number in a grid -> the colour behind it."""
    (axis,) = figure.axes
    return {t.get_text(): p.get_facecolor() for t, p in zip(axis.texts, axis.patches, strict=True)}


def test_shades_of_two_panels_are_one_scale():
    low, high = {"a": {"x": 1.0, "y": 2.0}}, {"a": {"x": 2.0, "y": 9.0}}
    both = [1.0, 2.0, 2.0, 9.0]
    one, other = (faces(shaded(g, "r", "c", "m", both)) for g in (low, high))
    assert one["2.00"] == other["2.00"]
    assert one["1.00"] != other["9.00"]
    assert faces(shaded(low, "r", "c", "m"))["2.00"] != one["2.00"]  # alone it is the darkest


def test_numbers_that_span_much_keep_their_digits_and_their_shades():
    grid = {"linear": {"beta-tilde": 251.54, "beta": 5.353, "analytic": 4.741}}
    shades = faces(shaded(grid, "r", "c", "m"))
    assert list(shades) == ["252", "5.35", "4.74"]
    assert shades["5.35"] != shades["4.74"]
    assert list(faces(shaded({"a": {"x": -1.0, "y": 90.0}}, "r", "c", "m"))) == ["-1.0", "90.0"], (
        "no logarithm below zero"
    )


@pytest.mark.parametrize("means", [(4.7, 5.4, 251.5), (0.2, 0.5, 251.5)])
def test_a_metric_that_spans_much_has_a_logarithmic_axis_and_no_interval_leaves_it(means):
    intervals = {c: Interval(m, m - 1.0, m + 1.0, 3) for c, m in zip("abc", means, strict=True)}
    figure = metrics_figure(summary_of("NLL", intervals))
    assert figure.axes[0].get_xscale() == "log"
    assert drawn_ends(figure)[0] >= means[0] / 3 - 1e-12
    said = " ".join(t.get_text() for t in figure.texts)
    assert ("arrow: the interval goes on beyond what is drawn" in said) == (means[0] < 1)
    flat = {c: Interval(m, m - 1.0, m + 1.0, 3) for c, m in zip("abc", (4.0, 5.0, 60.0), strict=True)}
    assert metrics_figure(summary_of("NLL", flat)).axes[0].get_xscale() == "linear"


def test_no_room_is_kept_for_a_reference_that_is_too_far_to_be_drawn():
    intervals = {c: Interval(m, m - 1.0, m + 1.0, 3) for c, m in {"a": 5.0, "b": 6.0}.items()}
    alone, far, near = (
        metrics_figure(summary_of("FD-x", intervals, {"noise": {"FD-x": at}} if at else {})).axes[0].get_ylim()[1]
        for at in (None, 400.0, 5.5)
    )
    assert alone == far < near


@pytest.mark.parametrize(("chain", "drawn"), [("walk", True), ("full", False)])
def test_the_bound_of_the_walks_chain_has_a_line_by_steps_and_that_of_the_full_chain_none(chain, drawn):
    cells, intervals = [], {}
    for n, (sigma, steps) in enumerate(itertools.product(("beta-tilde", "beta"), (50, 10))):
        label = f"{sigma} sampling_steps={steps}"
        settings = {"sigma": sigma, "sampling_steps": steps, "nll_chain": chain}
        cells.append({"label": label, "slug": f"c{n}", "settings": settings})
        intervals[label] = Interval(float(n + 1), n + 0.5, n + 1.5, 3)
    # The evaluations that a bound took are those of its Monte Carlo, and no cost of the chain.
    rows = [{"metric": "NLL", "cell": c["label"], "evaluations": 8192, "n": 797} for c in cells]
    plan = {"study": "s", "cells": cells, "results": [], "stages": []}
    records = Records(Path("s"), plan, pd.DataFrame(rows), [], [])
    found = lines_by_evaluations(records, summary_of("NLL", intervals))
    assert bool(found) == drawn
    for line in found:
        assert (line.along, line.axes) == ("steps of the chain", ("sigma",))
        steps = {at: [(cost, i.mean) for cost, i in points] for at, points in line.points.items()}
        assert steps == {("beta-tilde",): [(10.0, 2.0), (50.0, 1.0)], ("beta",): [(10.0, 4.0), (50.0, 3.0)]}


def test_every_grid_of_a_metric_is_drawn_on_the_scale_of_all(monkeypatch):
    cells, intervals = [], {}
    for n, (a, b, c) in enumerate(itertools.product("ab", "cd", "efg")):
        label = f"{a} {b} {c}"
        cells.append({"label": label, "slug": label, "settings": {"x": a, "y": b, "z": c}})
        intervals[label] = Interval(float(n), None, None, 1)
    records = Records(Path("s"), {"study": "s", "cells": cells, "results": [], "stages": []}, pd.DataFrame(), [], [])
    scales = []
    monkeypatch.setattr(charts_module, "shaded", lambda *a: scales.append(tuple(sorted(a[-1]))))
    list(charts(records, summary_of("FD-x", intervals)))
    assert scales == [tuple(map(float, range(12)))] * 3


def test_a_line_that_hides_another_is_named_for_both():
    x = np.arange(5)
    same, other = (x, np.array([1.0, np.nan, 3, 4, 5])), (x, x + 2.0)
    figure = lines({"linear simple": [same], "linear min-snr": [same], "cosine simple": [other]}, "t", "y")
    assert legend(figure) == ["linear", "cosine simple"]
    assert len(figure.axes[0].lines) == 2
    apart = lines({"a b": [same], "a c": [(x, x + 1.0)]}, "t", "y")
    assert legend(apart) == ["a b", "a c"]


def test_what_is_grey_is_named_once():
    curves = {f"cell {i}": [(np.arange(3), np.arange(3) + i)] for i in range(12)}
    assert legend(lines(curves, "t", "y")) == ["cell 0", "11 others"]


def test_a_long_name_keeps_both_ends():
    first, second = (short(f"linear min-snr learning_rate=0.001 sampling_steps={n}", 30) for n in (2, 3))
    assert first != second
    assert len(first) == len(second) == 30
    assert first.startswith("linear min-snr")
    assert first.endswith("steps=2")


def summary_of(metric, intervals, references=None):
    cells = tuple(intervals)
    values = {metric: {c: {0: i.mean, 1: i.mean} for c, i in intervals.items()}}
    return Summary("s", cells, (metric,), cells[0], {metric: intervals}, {metric: {}},
                   {c: {"done": 2} for c in cells}, references or {}, (), values)  # fmt: skip


def drawn_ends(figure):
    """The smallest and the largest place of anything that is drawn of an interval."""
    (axis,) = (a for a in figure.axes if a.get_visible())
    bars = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_alpha() == 0.5]
    return min(b[0] for b in bars), max(b[1] for b in bars)


@pytest.mark.parametrize(
    ("metric", "low", "high", "ends"),
    [("FD-digits", -3.0, 13.0, (0, 13)), ("recall-x", -0.5, 1.5, (0, 1)), ("KID-x", -3.0, 13.0, (-3, 13))],
)
def test_an_interval_ends_where_the_metric_does_and_says_so(metric, low, high, ends):
    figure = metrics_figure(summary_of(metric, {"a": Interval((low + high) / 2, low, high, 2)}))
    assert drawn_ends(figure) == ends
    said = " ".join(t.get_text() for t in figure.texts)
    assert ("arrow: the interval goes on beyond what the metric can be" in said) == (ends != (low, high))
    marks = [line.get_marker() for line in figure.axes[0].lines]
    assert ("<" in marks) == (ends[0] != low)


def test_bounds_are_those_of_whole_words():
    assert bounds("FD-digits") == bounds("FD-digits (shapes)") == (0, np.inf)
    assert bounds("precision-digits") == (0, 1)
    for free in ("KID-digits", "NLL", "FD-digits-debiased", "FD improvement", "precision gain", "fdx-1"):
        assert bounds(free) == (-np.inf, np.inf)


def test_many_metrics_stand_in_rows_and_no_name_of_a_reference_leaves_its_panel():
    metrics = [f"m{i}" for i in range(9)]
    interval = {"a": Interval(1.0, 0.9, 1.1, 2), "b": Interval(1.2, 1.1, 1.3, 2)}
    cells = ("a", "b")
    summary = Summary("s", cells, tuple(metrics), "a", dict.fromkeys(metrics, interval), {m: {} for m in metrics},
                      {c: {"done": 2} for c in cells}, {"real, train n=64": dict.fromkeys(metrics, 1.3)}, (),
                      {m: {c: {0: 1.0, 1: 1.1} for c in cells} for m in metrics})  # fmt: skip
    figure = metrics_figure(summary)
    assert figure.get_figwidth() < 15
    figure.draw_without_rendering()
    shown = [a for a in figure.axes if a.get_visible()]
    assert len(shown) == 9
    for axis in shown:
        (text,) = axis.texts
        assert text.get_window_extent().x1 <= axis.get_window_extent().x1 + 30


def test_large_numbers_do_not_run_into_one_another():
    from ddpmkit.report.draw.forest import forest
    from ddpmkit.statistics import contrasts

    gaps = contrasts({"a": {0: 0.0, 1: 9e4, 2: 1e4}, "b": {0: 1e5, 1: 2e4, 2: 9e4}}, "a")
    figure = forest(gaps, "FD", "lower", None)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].get_xticklabels() if t.get_text()]
    assert len(boxes) > 2
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_a_likelihood_that_cells_share_is_named_by_what_they_have_in_common(maker):
    folder = maker.write(schedules=("linear", "cosine"))
    plan = json.loads((folder / "plan.json").read_text())
    for cell in plan["cells"]:
        cell["label"] += " steps=2"
    for r in plan["results"]:
        r["cell"] += " steps=2"
    more = [{**r, "cell": r["cell"].replace("2", "3")} for r in plan["results"]]
    plan["cells"] += [{**c, "label": c["label"].replace("2", "3"), "slug": c["slug"] + "x"} for c in plan["cells"]]
    plan["results"] += more
    (folder / "plan.json").write_text(json.dumps(plan))
    assert list(curves_of(read_study(folder)).bits) == ["linear", "cosine"]


def test_classes_are_called_by_their_names_in_the_picture(labelled):
    import dataclasses

    records = read_study(labelled({"a": {}, "b": {"guidance": 2.0}}))
    named = dataclasses.replace(records, plan={**records.plan, "classes": ["swan", "a very long name of some bird"]})
    (grid,) = class_grids(named)
    assert grid.names == ("0 swan", "1 a very long name of some bird")
    plain, wide = classes_figure(class_grids(records)[0]), classes_figure(grid)
    assert [a.get_ylabel() for a in plain.axes if a.get_ylabel()] == ["0", "1"]
    said = [a.get_ylabel() for a in wide.axes if a.get_ylabel()]
    assert said[0] == "0 swan"
    assert len(said[1]) == 22
    assert wide.get_figwidth() > plain.get_figwidth() + 1
