"""``plot``: pictures of schedules, of an image dissolving, of samples appearing; on paper and in the terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.draw.blocks import terminal_strips
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.read.samples import samples_of
from ddpmkit.study.forward_strips import forward_strips
from ddpmkit.study.reverse_strips import reverse_strips
from ddpmkit.study.strips import Strips


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
    ],
    ids=lambda c: c[0],
)
def test_a_plot_is_written_and_said(command, suffix, study, tmp_path, capsys):
    path = tmp_path / f"picture{suffix}"
    more = ["--out", str(study)] if command[0] == "reverse" else []
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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["forward", "--image", "99999"], "there is no test image 99999"),
        (["forward", "linear", "--to", "x.gif"], "can't write a figure as '.gif'"),
        (["schedules", "linaer"], "unknown schedule 'linaer'; did you mean 'linear'?"),
        (["reverse", "nothing"], "nothing"),
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
