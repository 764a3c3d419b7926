"""What the picture of classes is drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from ddpmkit.errors import DdpmkitError
from ddpmkit.report.draw.charts import charts
from ddpmkit.report.draw.classes import classes_figure, told
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.classes import class_grids, the_grid
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.read.samples import samples_of


def rising(n, classes):
    return lambda settings: None if settings["guidance"] == -1 else np.arange(n) % classes


@pytest.mark.parametrize("recorded", [True, False])
def test_images_that_were_told_no_label_stand_in_no_class(labelled, recorded):
    """At w = -1 the network knows no class, whether labels are beside its samples or not."""
    told_all = (lambda _: np.arange(40) % 2) if recorded else rising(40, 2)
    records = read_study(labelled({"a": {}, "b": {"guidance": -1.0}}, labels=told_all))
    grid = the_grid(records)
    assert grid.heads == ("w = -1, no label", "w = 0")
    images = {s.label: s.images for s in samples_of(records)}
    for row in (0, 1):
        assert np.array_equal(grid.pictures[row][0], images["b"][5 * row : 5 * row + 5])
        assert np.array_equal(grid.pictures[row][1], images["a"][row::2][:5])
    frame = records.results
    assert frame[(frame["cell"] == "b") & frame["metric"].str.contains(" class ")].empty
    assert not frame[(frame["cell"] == "a") & frame["metric"].str.contains(" class ")].empty
    with pytest.raises(DdpmkitError, match="has samples with labels"):
        the_grid(select(records, ["guidance=-1.0"]))


def test_a_thousand_classes_are_twenty_rows_and_the_picture_says_so(labelled):
    grid = the_grid(read_study(labelled({"a": {}}, n=1000, classes=1000, seeds=(0,), labels=rising(1000, 1000))))
    assert grid.classes == tuple(range(20))
    assert told(grid).endswith("the first 20 of 1000 classes")
    figure = classes_figure(grid)
    assert len(figure.axes) == 20
    assert "the first 20 of 1000 classes" in figure.texts[0].get_text().replace("\n", " ")
    few = the_grid(read_study(labelled({"a": {}}, name="few", seeds=(0,))))
    assert told(few) == "guidance w"


def test_more_groups_than_are_drawn_are_counted_and_the_hint_names_the_next(labelled):
    cells = {f"{t}": {"timesteps": t} for t in range(10, 18)}
    records = read_study(labelled(cells, seeds=(0,), classes=2, n=4))
    drawn = [c for c in charts(records, summarise(records)) if c.section == "classes"]
    assert len(drawn) == 6
    assert drawn[-1].title.startswith("timesteps 15 (6 of 8 such pictures are here")
    assert "--where timesteps=16" in drawn[-1].title
    with pytest.raises(DdpmkitError, match="8 rows of guidances") as caught:
        the_grid(records)
    assert caught.value.hint == "choose: --where timesteps=10"
    assert the_grid(select(records, ["timesteps=10"])).said == ""


def test_the_hint_names_every_axis_that_must_be_chosen(labelled):
    cells = {f"{s} {t}": {"schedule": s, "timesteps": t} for s in ("cosine", "linear") for t in (10, 20)}
    records = read_study(labelled(cells, seeds=(0,), n=4))
    with pytest.raises(DdpmkitError) as caught:
        the_grid(records)
    assert caught.value.hint == "choose: --where timesteps=10 --where schedule=cosine"
    assert len(class_grids(select(records, ["schedule=cosine", "timesteps=10"]))) == 1


def test_a_column_of_other_noise_says_so(labelled):
    records = read_study(labelled({"a": {}, "b": {"guidance": 1.0}, "c": {"guidance": 2.0}}, seeds=(0, 1)))
    kept = [r for r in records.plan["results"] if (r["train_seed"] == 1) == (r["cell"] == "c")]
    records.plan["results"][:] = kept
    assert the_grid(records).heads == ("w = 0", "w = 1", "w = 2, other noise")
