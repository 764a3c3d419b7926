"""Pictures of any number of channels; one that can't be drawn costs neither the results nor another picture."""

import hashlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import save

from ddpmkit.plugin.registry import Registry
from ddpmkit.report import write
from ddpmkit.report.draw import figures
from ddpmkit.report.draw.blocks import terminal_strips
from ddpmkit.report.draw.chart import Chart
from ddpmkit.report.draw.strips import strips_figure
from ddpmkit.report.draw.tiles import as_rgb, tile
from ddpmkit.report.read.samples import samples_of
from ddpmkit.study import prepare as preparing
from ddpmkit.study import runner
from ddpmkit.study.prepare import RunOptions
from ddpmkit.study.strips import Strips
from ddpmkit.study.walks import walks


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_grey_and_colour_are_drawn_as_they_are(rng):
    grey = rng.integers(0, 17, (3, 1, 4, 5)).astype(np.uint8)
    colour = rng.integers(0, 256, (3, 3, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(as_rgb(colour, 256), colour.transpose(0, 2, 3, 1))
    scaled = np.rint(grey[:, 0] * (255 / 16)).astype(np.uint8)
    np.testing.assert_array_equal(as_rgb(grey, 17), np.repeat(scaled[..., None], 3, axis=3))


@pytest.mark.parametrize(("channels", "shape"), [(2, (4, 11)), (4, (9, 11)), (5, (9, 17)), (7, (14, 17))])
def test_channels_without_colours_are_grey_tiles(rng, channels, shape):
    images = rng.integers(0, 256, (3, channels, 4, 5)).astype(np.uint8)
    drawn = as_rgb(images, 256)
    assert drawn.shape == (3, *shape, 3)
    across = (shape[1] + 1) // 6
    for i in range(channels):
        y, x = (i // across) * 5, (i % across) * 6
        for colour in range(3):
            np.testing.assert_array_equal(drawn[:, y : y + 4, x : x + 5, colour], images[:, i])


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_picture_takes_any_number_of_channels(rng, channels):
    images = rng.integers(0, 17, (5, channels, 4, 4)).astype(np.uint8)
    assert tile(images, 17, 3).shape[2] == 3
    strips = Strips({"a": images, "b": images}, tuple("vwxyz"), 17)
    strips_figure(strips).savefig(io.BytesIO(), format="png")
    for colour in (True, False):
        assert terminal_strips(strips, 80, colour=colour).plain


TINY = {
    "backbones": "unet:channels=8:mults=1", "train_steps": "2", "batch_size": "4", "samples": "6", "nll_evals": "32",
    "sampling_steps": "2", "timesteps": "40", "train_seeds": "0", "eval_batch": "6", "features": "pca:k=2",
}  # fmt: skip


def study(path, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (40, channels, 8, 8)).astype(np.uint8)
    np.savez(path / "a.npz", train_images=images[:30], test_images=images[30:])
    options = {**TINY, "dataset": f"npz:path={path / 'a.npz'}:validation=10"}
    how = RunOptions(device="cpu", executor="inline")
    prepared = preparing.prepare(options, out=path / "out", registry=Registry(installed=False), run_options=how)
    assert runner.run(prepared).code == 0
    return prepared


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return study(tmp_path_factory.mktemp("pictures"), 4)


@pytest.mark.long
def test_a_study_of_latents_has_its_results_and_its_pictures(done, capsys):
    prepared = done
    write.write_report(prepared.folder, walks(prepared))
    assert "could not be drawn" not in capsys.readouterr().err
    names = {p.name for p in prepared.folder.rglob("*") if p.is_file()}
    assert names >= {"results.csv", "report.html", "forward.png", "reverse.png", "samples.png", "metrics.png"}
    with Image.open(next((prepared.folder / "figures").glob("samples-*.png"))) as picture:
        assert picture.width > picture.height  # one row of six
    assert "data:image/png" in (prepared.folder / "report.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "name", "lost"),
    [
        (figures, "write_samples", "the samples of linear"),
        (figures, "samples_figure", "the cells side by side"),
        (figures, "metrics_figure", "the metrics"),
        ("ddpmkit.report.read.samples", "samples_of", "the samples"),
        ("ddpmkit.report.read.samples", "load", "the samples of linear"),
        ("ddpmkit.report.draw.chart.Chart", "write", "the chart only"),
        ("ddpmkit.report.draw.charts", "charts", "a chart"),
        ("ddpmkit.report.show.html", "to_html", "report.html"),
        ("ddpmkit.report.show.html", "first_samples", "the samples of linear"),
        ("ddpmkit.report.draw.strips", "strips_figure", "the strips forward"),
    ],
)
def test_a_picture_that_fails_costs_itself_alone(done, monkeypatch, capsys, place, name, lost):
    for path in (done.folder / "results.csv", done.folder / "report.json"):
        path.unlink(missing_ok=True)
    # Matplotlib is slow and another test's: here it is about who pays for whom.
    monkeypatch.setattr(figures, "save", lambda figure, stem, forms: [])
    only = [Chart("only", "", "", "", Figure())] if lost == "the chart only" else []
    monkeypatch.setattr("ddpmkit.report.draw.charts.charts", lambda records, summary: iter(only))
    where = f"{place}.{name}" if isinstance(place, str) else f"{place.__name__}.{name}"

    def broken(*_args, **_kwargs):
        raise IndexError("no picture")

    monkeypatch.setattr(where, broken)
    strips = Strips({"linear": np.zeros((2, 1, 4, 4), np.uint8)}, ("x0", "1 T"), 17)
    write.write_report(done.folder, {"forward": strips} if lost == "the strips forward" else {})
    err = capsys.readouterr().err
    assert f"warning: {lost} could not be drawn: IndexError: no picture" in err
    assert err.count("could not be drawn") == 1
    for form in ("results.csv", "report.json", "report.md", "report.tex", "card.json"):
        assert (done.folder / form).is_file(), form


def test_what_is_lost_is_one_picture(tmp_path, capsys):
    """Of three cells the second has damaged samples: the other two are drawn."""
    cells = [{"label": c, "slug": c} for c in "abc"]
    results = [{"cell": c, "train_seed": 0, "sample_seed": 0, "sample": c * 64} for c in "abc"]
    records = SimpleNamespace(folder=tmp_path / "studies" / "demo", plan={"cells": cells, "results": results})
    for r in results:
        done = tmp_path / "store" / "sample" / r["sample"][:2] / r["sample"] / "out"
        done.mkdir(parents=True)
        (done / "samples.safetensors").write_bytes(save({"levels": np.zeros((4, 1, 4, 4), np.uint8)}))
        (done / "result.json").write_text(json.dumps({"levels": 17}))
        digest = hashlib.sha256((done / "result.json").read_bytes()).hexdigest()
        (done / "COMMIT.json").write_text(json.dumps({"files": {"result.json": {"sha256": digest}}}))
    (tmp_path / "store" / "sample" / "bb" / ("b" * 64) / "out" / "samples.safetensors").write_bytes(b"cut")
    written = figures.write_figures(tmp_path, SimpleNamespace(intervals={}), samples_of(records))
    assert [p.name for p in written] == ["samples-a.png", "samples-c.png", "samples.png", "samples.svg"]
    assert capsys.readouterr().err.startswith("warning: the samples of b could not be drawn: SafetensorError: ")
