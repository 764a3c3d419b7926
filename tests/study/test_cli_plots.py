"""``plot``: pictures of schedules, of an image dissolving, of samples appearing; on paper and in the terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.pixels import quantise, to_pixels
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import normal, stream_key
from ddpmkit.report.draw.blocks import terminal_strips
from ddpmkit.report.draw.charts import charts
from ddpmkit.report.judge.by_evaluations import lines_by_evaluations
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.read.samples import samples_of
from ddpmkit.study.denoise_strips import FRACTIONS, denoise_strips
from ddpmkit.study.forward_strips import forward_strips
from ddpmkit.study.reverse_strips import reverse_strips
from ddpmkit.study.strips import Strips
from ddpmkit.study.trained import open_training


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    ddpmkit.ablate(
        schedules="cosine,linear", train_steps=4, samples=4, sampling_steps="3,7", timesteps=50, eval_batch=64,
        batch_size=8, backbones="unet:channels=4:mults=1", features="pca:k=4", train_seeds="0", metrics="fd",
        name="tiny", out=out, executor="inline", on_event=lambda _: None,
    )  # fmt: skip
    return out


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize(
    "command",
    [
        ["schedules", "linear,cosine", "--timesteps", "50", "--sigmas", "beta,learned-range,analytic"],
        ["forward", "linear,random-walk", "--timesteps", "50"],
        ["reverse", "tiny"],
        ["denoise", "tiny"],
        ["evaluations", "tiny", "--metric", "FD-pca4"],
    ],
    ids=lambda c: c[0],
)
def test_a_plot_is_written_and_said(command, suffix, study, tmp_path, capsys):
    path = tmp_path / f"picture{suffix}"
    more = ["--out", str(study)] if "tiny" in command else []
    assert main(["plot", *command, *more, "--to", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().err
    if suffix == ".svg":
        assert "<svg" in path.read_text()
    elif suffix == ".pdf":
        assert path.read_bytes().startswith(b"%PDF-")
    else:
        image = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("L"))
        assert min(image.shape) > 200
        assert image.std() > 10  # something is drawn


@pytest.mark.long
def test_every_row_ends_in_its_cells_own_sample_however_many_steps_it_took(study):
    registry = Registry(installed=False)
    strips = reverse_strips(study / "studies" / "tiny", registry)
    cells = {cell.label: cell for cell in samples_of(read_study(study / "studies" / "tiny"))}
    assert len(strips.rows) == len(cells) == 4
    assert strips.heads[0] == "x_T"
    assert strips.heads[-1] == "x0"
    for label, row in strips.rows.items():
        assert len(row) == len(strips.heads) == 4  # the shortest chain has three steps
        assert np.array_equal(row[-1], cells[label].images[0])


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        (["denoise", "tiny", "--images", "99999"], "there is no test image 99999; there are 797", "use --images 0"),
        (["denoise", "tiny", "--images", "one"], "--images: 'one' is no list of numbers", "--images 5,7"),
        (["evaluations", "tiny", "--metric", "FD-pca"], "no line of 'FD-pca'; did you mean 'FD-pca4'?", "FD-pca4"),
        (["evaluations", "tiny", "--where", "sampling_steps=3"], "two numbers of steps", "sampling_steps=3,7,10,20,50"),
    ],
)
def test_what_a_study_has_no_picture_of_is_two_lines(command, message, hint, study, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *command, "--out", str(study)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert message in err[0]
    assert hint in err[1]
    if "ddpmkit ablate" in err[1]:  # which grows the study, and may lose no level of it
        typed = err[1].removeprefix("hint: ddpmkit ").split()
        assert main([*typed, "--dry-run", "--no-probe", "--out", str(study)]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_network_is_shown_real_images_with_the_same_noise_beside_the_truth(study):
    out, images = study, ddpmkit.build("dataset", "digits").load()
    strips = denoise_strips(out / "studies" / "tiny", Registry(installed=False), (5, 7))
    assert list(strips.rows) == [
        f"{name}, image {i}: {what}" for name in ("cosine", "linear") for i in (5, 7) for what in ("x_t", "x0hat")
    ]
    (train,) = {r["train"] for r in read_study(out / "studies" / "tiny").plan["results"] if "linear" in r["cell"]}
    network = open_training(out, train, registry=Registry(installed=False), device="cpu")
    chain, truth = network.tables, to_pixels(torch.from_numpy(images.test[7:8]), 17)
    eps = normal(stream_key(0, "noise"), torch.tensor([7]), (1, 8, 8))
    assert len(strips.heads) == len(FRACTIONS) + 1
    for label, rows in strips.rows.items():
        assert np.array_equal(rows[0], images.test[5 if "image 5" in label else 7]), label
    for column, t in ((strips.heads.index("0.2 T"), 9), (strips.heads.index("1 T"), 49)):
        xt = float(chain.signal[t]) * truth + float(chain.noise2[t]) ** 0.5 * eps
        assert np.array_equal(strips.rows["linear, image 7: x_t"][column], quantise(xt, 17)[0].numpy())
        with torch.no_grad():
            guessed, _ = network.predict(chain)(xt, torch.tensor([t]))
        off = np.abs(strips.rows["linear, image 7: x0hat"][column].astype(int) - quantise(guessed, 17)[0].numpy())
        assert off.max() <= 1, "but for the last digits of another batch"
        assert (off == 0).mean() > 0.9


@pytest.mark.long
def test_a_line_by_evaluations_has_the_means_of_the_table_at_what_one_image_costs(study):
    records = read_study(study / "studies" / "tiny")
    summary = summarise(records)
    (lines,) = lines_by_evaluations(records, summary)
    assert (lines.metric, lines.axes) == ("FD-pca4", ("schedule",))
    assert list(lines.points) == [("cosine",), ("linear",)]
    for (schedule,), line in lines.points.items():
        assert [cost for cost, _ in line] == [3.0, 7.0]
        for cost, interval in line:
            own = summary.intervals["FD-pca4"][f"{schedule} sampling_steps={cost:g}"]
            assert interval == own
    # Grids keep the number of steps for the columns, or for a grid of its own.
    (grid,) = [chart for chart in charts(records, summary) if chart.section == "grid"]
    assert grid.alt == "Mean FD-pca4 by schedule and sampling_steps."
    assert [c.stem for c in charts(records, summary) if c.section == "evaluations"] == ["evaluations-FD-pca4"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["forward", "--image", "99999"], "there is no test image 99999"),
        (["forward", "linear", "--to", "x.gif"], "can't write a figure as '.gif'"),
        (["schedules", "linaer"], "unknown schedule 'linaer'; did you mean 'linear'?"),
        (["reverse", "nothing"], "nothing"),
        (["denoise", "nothing"], "nothing"),
        (["evaluations", "nothing"], "nothing"),
    ],
)
def test_a_bad_request_is_two_lines(command, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *command]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def test_every_schedule_dissolves_the_same_image_with_the_same_noise():
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) % 17
    chains = {n: tables_for(ddpmkit.build("schedule", n), 1000) for n in ("linear", "cosine")}
    strips = forward_strips(image, 17, chains)
    linear, cosine = strips.rows.values()
    assert len(strips.heads) == len(linear)
    assert np.array_equal(linear[0], image)
    assert np.array_equal(cosine[0], image)
    last = linear[-1].astype(int) - cosine[-1]
    assert np.abs(last).max() <= 1  # nothing but the noise is left, to a rounding
    # "much quicker for linear than for cosine": half way the image is worse off
    error = [np.abs(row[6].astype(float) - image).mean() for row in (linear, cosine)]
    assert error[0] > 1.1 * error[1]


@pytest.mark.parametrize("width", [80, 140])
def test_in_the_terminal_as_many_pictures_as_fit_with_both_ends(width):
    images = np.stack([np.full((1, 8, 8), k, dtype=np.uint8) for k in range(12)])
    text = terminal_strips(Strips({"a": images}, tuple(map(str, range(12))), 12), width)
    lines = text.plain.splitlines()
    assert len(lines) == 1 + 4
    assert max(map(len, lines)) <= width
    heads = lines[0].split()
    assert heads[0] == "0"
    assert heads[-1] == "11"
    assert len(heads) == (8 if width == 80 else 12)
    colours = [s.style.color.name for s in text.spans if getattr(s.style, "color", None)]
    assert colours[0] == "#000000"
    assert colours[-1] == "#ffffff"


def test_without_colour_shades_stand_for_brightness():
    images = np.stack([np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 16, np.uint8)])
    lines = terminal_strips(Strips({"a": images}, ("x", "y"), 17), 80, colour=False).plain.splitlines()
    assert lines[1].rstrip() == "a  " + "   ██"


def test_coloured_images_keep_their_colours_in_the_terminal():
    red = np.zeros((1, 3, 2, 2), np.uint8)
    red[:, 0] = 255
    text = terminal_strips(Strips({"a": np.concatenate([red, red])}, ("x", "y"), 256), 80)
    assert {s.style.color.name for s in text.spans if getattr(s.style, "color", None)} == {"#ff0000"}
