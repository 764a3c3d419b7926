"""The pictures: every sample where it belongs, files that decode, and the same bytes from the same records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save

from ddpmkit.report.draw.figures import write_figures
from ddpmkit.report.draw.metrics import metrics_figure
from ddpmkit.report.draw.samples import samples_figure
from ddpmkit.report.draw.tiles import tile
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.frames import COLUMNS, Records
from ddpmkit.report.read.samples import samples_of
from ddpmkit.statistics import contrasts, t_interval

LEVELS = 17  # the digits have grey levels 0 to 16


def images(seed, count=120, channels=1, size=8):
    return np.random.default_rng(seed).integers(0, LEVELS, (count, channels, size, size), dtype=np.uint8)


class Study:
    """A study's folder with samples, and its summary; nothing else of the store is needed for pictures."""

    def __init__(self, out: Path, cells=("linear", "cosine", "sigmoid"), seeds=(0, 1, 2), missing=(), **how):
        self.folder, self.cells = out / "studies" / "demo", cells
        self.images = {}
        results = []
        for c, cell in enumerate(cells):
            for s in seeds:
                id = hashlib.sha256(f"{cell} {s}".encode()).hexdigest()
                results.append({"cell": cell, "train_seed": s, "sample_seed": 0, "sample": id})
                if (cell, s) in missing:
                    continue
                self.images[cell, s] = images(100 * c + s, **how)
                done = out / "store" / "sample" / id[:2] / id / "out"
                done.mkdir(parents=True)
                (done / "samples.safetensors").write_bytes(save({"levels": self.images[cell, s]}))
                (done / "result.json").write_text(json.dumps({"levels": LEVELS}))
                digest = hashlib.sha256((done / "result.json").read_bytes()).hexdigest()
                (done / "COMMIT.json").write_text(json.dumps({"files": {"result.json": {"sha256": digest}}}))
        rng = np.random.default_rng(1)
        self.values = {
            metric: {c: {s: float(10 * i + rng.normal(at, at / 20)) for s in seeds} for i, c in enumerate(cells)}
            for metric, at in (("FD-digits", 60.0), ("FD-pca16", 90.0), ("NLL", 2.0))
        }
        plan = {
            "study": "demo",
            "cells": [{"label": c, "slug": f"cell-{i}"} for i, c in enumerate(cells)],
            "results": results,
        }
        self.records = Records(self.folder, plan, pd.DataFrame(columns=list(COLUMNS)), [], [])
        self.summary = Summary(
            "demo",
            tuple(cells),
            tuple(self.values),
            cells[0],
            {m: {c: t_interval(list(v.values())) for c, v in by.items()} for m, by in self.values.items()},
            {m: contrasts(by, cells[0]) for m, by in self.values.items()},
            {c: {"done": len(seeds)} for c in cells},
            {"real": {"FD-digits": 13.8, "FD-pca16": 85.0}, "uniform": {"NLL": 4.0875}},
            (),
            self.values,
        )

    def draw(self):
        return {p.name: p for p in write_figures(self.folder / "figures", self.summary, samples_of(self.records))}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three cells with three seeds, drawn once."""
    made = Study(tmp_path_factory.mktemp("figures"))
    made.drawn = made.draw()
    return made


def bright(image):
    """Grey levels 0 to 16 as 0 to 255, written out by hand."""
    return np.floor(image.astype(int) * 255 / (LEVELS - 1) + 0.5).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "across", "gap"), [(6, 3, 1), (7, 3, 2), (1, 1, 1), (2, 5, 0), (12, 4, 3)])
def test_tile_puts_every_image_in_its_place(channels, count, across, gap):
    tiles = images(5, count, channels, 4)[:, :, :, :3]  # higher than wide: rows and columns can't be mixed up
    canvas = tile(tiles, LEVELS, across, gap)
    rows = -(-count // across)
    assert canvas.shape == (rows * 4 + (rows - 1) * gap, across * 3 + (across - 1) * gap, 3)
    rest = np.ones(canvas.shape[:2], bool)
    for i in range(count):
        y, x = i // across * (4 + gap), i % across * (3 + gap)
        for rgb in range(3):
            np.testing.assert_array_equal(canvas[y : y + 4, x : x + 3, rgb], bright(tiles[i, rgb % channels]))
        rest[y : y + 4, x : x + 3] = False
    assert (canvas[rest] == 255).all()  # white between the images and after the last


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_tile_spreads_the_grey_levels_from_black_to_white(levels):
    ramp = np.arange(levels, dtype=np.uint16).astype(np.uint8).reshape(1, 1, 1, levels)
    row = tile(ramp, levels, 1)[0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) > 0).all()


def test_samples_are_those_of_the_cells_first_finished_result(tmp_path):
    study = Study(tmp_path, missing=[("cosine", 0), *(("sigmoid", s) for s in range(3))])
    found = {cell.label: cell for cell in samples_of(study.records)}
    np.testing.assert_array_equal(found["cosine"].images, study.images["cosine", 1])
    assert found["cosine"].levels == LEVELS
    assert "sigmoid" not in found


@pytest.mark.long
def test_a_row_of_other_noise_says_so(tmp_path):
    """Two cells have seeds 0 and 1, one has 2 alone: the caption of the first row must not speak for it."""
    study = Study(tmp_path, missing=[("linear", 2), ("cosine", 0), ("cosine", 1), ("sigmoid", 2)], count=32)
    cells = samples_of(study.records)
    assert [(c.label, c.train_seed, c.usual) for c in cells] == [
        ("linear", 0, True), ("cosine", 2, False), ("sigmoid", 0, True)
    ]  # fmt: skip
    said = [axis.get_title(loc="right") for axis in samples_figure(cells).axes]
    assert said == ["first samples, the same noise in each column", "other noise: train seed 2, sample seed 0", ""]


@pytest.mark.long
def test_a_study_has_its_pictures_and_they_decode(study):
    names = {"samples.png", "samples.svg", "metrics.png", "metrics.svg", *(f"samples-cell-{i}.png" for i in range(3))}
    assert set(study.drawn) == names
    assert {p.name for p in (study.folder / "figures").iterdir()} == names  # no staging file is left behind
    for name, path in study.drawn.items():
        if name.endswith(".svg"):
            assert ElementTree.fromstring(path.read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            with Image.open(path) as picture:
                picture.load()
                assert np.asarray(picture.convert("L")).std() > 5  # not a blank sheet


@pytest.mark.long
def test_a_cells_picture_is_its_first_hundred_samples_enlarged(study):
    with Image.open(study.drawn["samples-cell-1.png"]) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    side = 10 * 8 + 9
    scale = round(480 / side)
    assert pixels.shape == (side * scale, side * scale, 3)
    small = pixels[::scale, ::scale, 0]
    for i in (0, 1, 9, 10, 57, 99):
        y, x = i // 10 * 9, i % 10 * 9
        np.testing.assert_array_equal(small[y : y + 8, x : x + 8], bright(study.images["cosine", 0][i, 0]))


@pytest.mark.long
@pytest.mark.parametrize(("channels", "size", "count"), [(3, 32, 120), (1, 28, 5), (1, 8, 1)])
def test_colour_large_and_few_samples_are_drawn_too(tmp_path, channels, size, count):
    study = Study(tmp_path, cells=("linear", "cosine"), seeds=(0,), channels=channels, size=size, count=count)
    drawn = study.draw()
    with Image.open(drawn["samples-cell-0.png"]) as picture:
        assert max(picture.size) <= 2 * 480
    assert drawn["samples.png"].stat().st_size > 0


@pytest.mark.long
def test_the_metrics_picture_grows_with_metrics_and_cells(tmp_path):
    def size(name, cells):
        with Image.open(Study(tmp_path / name, cells=cells, count=1).draw()["metrics.png"]) as picture:
            return picture.size

    few, many = size("few", ("a", "b")), size("many", tuple("abcdef"))
    assert many[1] > 1.5 * few[1]
    assert abs(many[0] - few[0]) < 0.1 * few[0]
    assert 1000 < few[0] < 3000  # three panels at 200 dots an inch


def test_a_study_without_anything_has_no_pictures(tmp_path):
    study = Study(tmp_path, cells=("a",), seeds=(0,), missing=[("a", 0)])
    summary = Summary("demo", ("a",), ("NLL",), "a", {"NLL": {}}, {"NLL": {}}, {"a": {"pending": 1}}, {}, ())
    assert write_figures(study.folder / "figures", summary, samples_of(study.records)) == []
    assert not (study.folder / "figures").exists()


@pytest.mark.long
def test_cells_without_samples_are_left_out_and_the_others_drawn(tmp_path):
    drawn = Study(tmp_path, missing=[("cosine", s) for s in range(3)]).draw()
    assert "samples-cell-1.png" not in drawn
    assert {"samples-cell-0.png", "samples-cell-2.png", "samples.png", "metrics.png"} <= set(drawn)


@pytest.fixture(scope="module")
def drawn_again(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("again")).draw()


@pytest.mark.long
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_records_give_the_same_bytes(study, drawn_again, ending):
    first = {n: p.read_bytes() for n, p in study.drawn.items() if n.endswith(ending)}
    second = {n: p.read_bytes() for n, p in drawn_again.items() if n.endswith(ending)}
    assert len(first) >= 2
    assert [n for n in first if first[n] != second[n]] == []


@pytest.mark.long
def test_pictures_name_no_time_and_no_machine(study):
    for name, path in study.drawn.items():
        text = path.read_bytes()
        assert b"Date" not in text
        assert b"Matplotlib" not in text or name.endswith(".svg")
        assert str(study.folder).encode() not in text


MARKUP = ("$x^$", "$\\frac{1}{$", "a_b^c", "<script>", "-->", "%s", "a & b")


@pytest.mark.long
@pytest.mark.parametrize("labels", [MARKUP, ("evil\x1b[31m",), ("\u202ereversed",)], ids=["markup", "escape", "bidi"])
def test_any_label_can_be_drawn(tmp_path, labels):
    drawn = Study(tmp_path, cells=("linear", *labels), seeds=(0, 1), count=4).draw()
    for name in ("samples.svg", "metrics.svg"):
        root = ElementTree.fromstring(drawn[name].read_bytes())
        assert not [e for e in root.iter() if e.tag.endswith("script")]


@pytest.mark.parametrize("metric", ["FD-$x^$", "FD-a_b", "FD-\\alpha"])
def test_any_metric_name_can_be_drawn(tmp_path, metric):
    study = Study(tmp_path, cells=("a", "b"), seeds=(0, 1), missing=[(c, s) for c in "ab" for s in (0, 1)])
    values = {metric: study.values["NLL"]}
    intervals = {metric: study.summary.intervals["NLL"]}
    summary = dataclasses.replace(study.summary, metrics=(metric,), intervals=intervals, values=values)
    drawn = write_figures(study.folder / "figures", summary, samples_of(study.records))
    assert "metrics.png" in {p.name for p in drawn}


@pytest.mark.long
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_the_names_of_the_reference_lines_do_not_lie_on_each_other(study, spread):
    references = {"per-pixel categorical": {"NLL": 2.4353}, "uniform": {"NLL": 2.4353 + spread}}
    figure = metrics_figure(dataclasses.replace(study.summary, references=references))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axis in figure.axes for text in axis.texts]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
