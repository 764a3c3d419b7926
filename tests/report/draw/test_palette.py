"""The one palette: series that differ, and a page that knows every colour that it is drawn in."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from ddpmkit.report.draw import palette


@pytest.mark.parametrize("count", [1, 2, 8, 9, 30])
def test_so_many_series_have_so_many_colours(count):
    colours = palette.series(count)
    assert len(colours) == len(set(colours)) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", c) for c in colours)
    assert colours[:8] == palette.SERIES[:count] or count > 8


def test_dashes_differ():
    assert len(set(palette.DASHES)) == len(palette.DASHES) >= 8


def test_the_page_has_a_shade_of_every_colour_for_light_and_for_dark():
    style = (resources.files("ddpmkit.report.show") / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root\{(.*?)\}", style, flags=re.DOTALL)[:2]
    assert {*palette.SERIES, palette.INK, palette.MUTED, palette.RULE} == set(palette.VARIABLES)
    for variable in palette.VARIABLES.values():
        name = variable.removeprefix("var(").removesuffix(")")
        assert f"{name}:" in light
        assert f"{name}:" in dark
