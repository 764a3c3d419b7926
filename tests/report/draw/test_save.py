"""The one saver: three forms of a figure, whole, silent about time and machine, and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.draw.panel import legend, panel
from ddpmkit.report.draw.save import FORMATS, PAGE, encode, save, save_as

DRAW = """
import hashlib, sys
from ddpmkit.report.draw.lines import lines
from ddpmkit.report.draw.save import FORMATS, encode
curves = {"a": [([1, 10, 100], [3.0, 2.0, 1.0])], "b \\u00e4": [([1, 10], [1.0, 2.0])]}
figure = lines(curves, "t", "bits", "log", "log")
print(*(hashlib.sha256(encode(figure, form, "x")).hexdigest() for form in FORMATS))
"""


@pytest.fixture(scope="module")
def figure() -> Figure:
    drawn, axis = panel(2)
    axis.plot([0, 1], [0, 1], label="one")
    axis.set_title("a title")
    legend(axis)
    return drawn


@pytest.mark.parametrize("form", FORMATS)
def test_each_form_is_what_it_says(figure, form):
    data = encode(figure, form, "x")
    if form == "png":
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)  # a ground of its own
    elif form == "svg":
        root = ElementTree.fromstring(data)
        assert "a title" in "".join(root.itertext())  # text stays text
    else:
        assert data.startswith(b"%PDF-")
        assert b"/Type3" not in data  # which some publishers refuse
        assert b"/CIDFontType2" in data


@pytest.mark.parametrize("form", FORMATS)
def test_a_figure_names_no_time_and_no_library(figure, form):
    data = encode(figure, form, "x")
    for word in (b"Date", b"Creator", b"Producer", b"Software"):
        assert word not in re.sub(rb"<!--.*?-->", b"", data, flags=re.DOTALL), word
    assert not re.search(rb"\b20[2-9]\d-\d\d-\d\d", data)


@pytest.mark.long
def test_the_bytes_are_the_same_in_any_process():
    def digests(seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed}
        return subprocess.run([sys.executable, "-c", DRAW], env=env, capture_output=True, text=True, check=True).stdout

    first = digests("1")
    assert len(first.split()) == 3
    assert first == digests("77777")


def test_two_figures_of_one_page_share_no_name(figure):
    def names(stem: str) -> set[str]:
        return set(re.findall(r'id="([a-z0-9]{11,})"', encode(figure, "svg", stem).decode()))

    assert names("a")
    assert not names("a") & names("b")
    assert names("a") == names("a")


@pytest.mark.parametrize("forms", [PAGE, FORMATS, ("pdf",)])
def test_a_file_a_form_and_none_besides(figure, tmp_path, forms):
    paths = save(figure, tmp_path / "sub" / "v0.5", forms)
    assert [p.name for p in paths] == [f"v0.5.{form}" for form in forms]  # a dot in a name is no ending
    assert {p.name for p in (tmp_path / "sub").iterdir()} == {p.name for p in paths}
    for path, form in zip(paths, forms, strict=True):
        assert path.read_bytes() == encode(figure, form, "v0.5")


def test_what_has_been_drawn_is_not_drawn_again(figure, tmp_path):
    (path,) = save(figure, tmp_path / "x", ("svg",), encoded={"svg": b"<svg/>"})
    assert path.read_bytes() == b"<svg/>"


@pytest.mark.parametrize("name", ["x.png", "x.svg", "x.pdf"])
def test_the_ending_says_the_form(figure, tmp_path, name):
    save_as(figure, tmp_path / name)
    assert (
        hashlib.sha256((tmp_path / name).read_bytes()).digest()
        == hashlib.sha256(encode(figure, name[2:], "x")).digest()
    )


@pytest.mark.parametrize("name", ["x.gif", "x", "png", ".png.jpg"])
def test_another_ending_is_refused_and_nothing_written(figure, tmp_path, name):
    with pytest.raises(DdpmkitError, match="can't write a figure as") as err:
        save_as(figure, tmp_path / name)
    assert err.value.hint == "end the file in .png, .svg or .pdf"
    assert not list(tmp_path.iterdir())


def test_a_letter_that_the_font_lacks_is_no_warning(tmp_path):
    drawn, axis = panel(1)
    axis.set_title("\U0001f9ff")
    assert np.asarray(Image.open(io.BytesIO(encode(drawn, "png", "x")))).size > 0
