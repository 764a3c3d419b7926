"""The recipes that are shipped: each a study at each scale, with a paper's orderings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.asked import asked_for
from ddpmkit.study.config import Study, make_study
from ddpmkit.study.orderings_planned import with_columns
from ddpmkit.study.recipe import RECIPES, recipe_file, recipe_options, recipes, scales
from ddpmkit.study.store import Store

REGISTRY = Registry(installed=False)
STUDIES = [name for name in recipes() if scales(name)]
AT_SCALES = [(name, scale) for name in STUDIES for scale in scales(name)]


def study(name: str, scale: str) -> Study:
    """The study of a recipe; images that are not shipped, and an extractor without its weights, are stood in for."""
    options = recipe_options(name, scale, dataset="digits") | {"dataset": "digits"}
    if scale == "cifar10":
        options["features"] = ["pca"]
    return with_columns(make_study(options, REGISTRY), REGISTRY)


def test_the_papers_tables_are_there() -> None:
    assert {"ho2020-table2", "nichol2021-table2", "nichol2021-steps", "bao2022-sigma"} <= {*STUDIES}
    for name in STUDIES:
        text = recipe_file(name).read_text(encoding="utf-8")
        assert text.isascii()
        assert "arXiv" in text
        assert "CPU cores" in text  # how long it takes


@pytest.mark.parametrize(("name", "scale"), AT_SCALES)
def test_a_recipe_is_a_study_at_each_scale(name: str, scale: str) -> None:
    found = study(name, scale)
    assert found.name == f"{name}-{scale}"
    assert found.base.dataset == "digits"
    assert len(found.train_seeds) >= 3
    assert found.orderings
    for o in found.orderings:
        assert o.seeds == found.train_seeds
        assert o.n == (None if o.metric == "nll" else found.base.samples)
        if o.paper is not None and o.expected != "equal":
            assert o.expected == ("lower" if o.paper[0] < o.paper[1] else "higher")


@pytest.mark.parametrize("name", STUDIES)
def test_published_numbers_of_an_ordering_stand_in_its_table_too(name: str) -> None:
    text = recipe_file(name).read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for o in study(name, "digits").orderings:
        for value in o.paper or ():
            assert f"{value:.2f}" in table


def test_cifar10_has_the_papers_settings() -> None:
    ho, nichol = study("ho2020-table2", "cifar10"), study("nichol2021-table2", "cifar10")
    assert (ho.base.train_steps, ho.base.batch_size, ho.base.samples, ho.base.flip) == (800_000, 128, 50_000, True)
    assert (ho.base.learning_rate, ho.base.dropout, ho.base.sampling_steps) == (2e-4, 0.1, 1000)
    dropouts = {(c.settings.schedule, c.settings.dropout) for c in nichol.cells()}
    assert dropouts == {("linear", 0.1), ("cosine", 0.3)}  # the paper's confound
    assert {c.settings.dropout for c in study("nichol2021-table2", "digits").cells()} == {None}
    assert all(c.settings.sampling_steps == c.settings.timesteps for c in nichol.cells())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "ho2020-table3"}, "there is no recipe 'ho2020-table3'; did you mean 'ho2020-table2'?"),
        ({"recipe": "ho2020-table2", "scale": "digit"}, "has no scale 'digit'; did you mean 'digits'?"),
        ({"recipe": "ho2020-table2", "scale": "mnist"}, "the images of scale 'mnist' are not shipped"),
        ({"recipe": "ho2020-table2", "study": "mine.toml"}, "'mine.toml' and recipe 'ho2020-table2' are two studies"),
        ({"recipe": "digits", "scale": "digits"}, "recipe 'digits' is of one scale"),
        ({"scale": "digits"}, "--scale is of a recipe"),
    ],
)
def test_a_wrong_recipe_is_refused_in_two_lines(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError) as caught:
        asked_for(options, Store(tmp_path))
    assert message in caught.value.message
    assert caught.value.hint


def test_what_is_given_goes_before_the_recipe(tmp_path: Path) -> None:
    given = {"recipe": "ho2020-table2", "name": "mine", "axis": ["train_steps=3"], "train_seeds": "0"}
    options, there, place = asked_for(given, Store(tmp_path))
    found = make_study(options, REGISTRY)
    assert (found.name, found.base.train_steps, found.train_seeds, there, place) == ("mine", 3, (0,), None, None)
    assert {o.seeds for o in found.orderings} == {(0, 1, 2)}  # what the recipe states stays stated


def test_a_scale_goes_before_the_recipe_and_an_ordering_before_the_scale(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ddpmkit.study.recipe.RECIPES", tmp_path)
    stated = "# A toy\nschedules = ['linear', 'cosine']\nsamples = 9\ntrain_seeds = [0]\n[scale.digits]\nsamples = 5\n"
    (tmp_path / "toy.toml").write_text(f"{stated}dataset = 'digits'\n[[ordering]]\nseeds = [4]\nmetric = 'fd'\n")
    options = recipe_options("toy")
    assert (options["samples"], options["train_seeds"]) == (5, [0])
    assert options["ordering"] == [{"seeds": [4], "n": 5, "metric": "fd"}]


@pytest.mark.parametrize(("name", "steps"), [("digits", 1200), ("digits-likelihood", 3000)])
def test_a_recipe_without_scales_is_a_study_of_one_cell(name: str, steps: int, tmp_path: Path) -> None:
    options, _, _ = asked_for({"recipe": name}, Store(tmp_path))
    (cell,) = make_study(options, REGISTRY).cells()
    assert cell.settings.train_steps == steps


def test_recipes_are_listed_and_shown(capsys) -> None:
    assert main(["ls", "recipe"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in STUDIES)
    kinds = {line.split("\t")[0]: line.split("\t")[1] for line in out.splitlines()}
    assert (kinds["digits"], kinds["digits-likelihood"]) == ("of ddpmkit bench", "one")
    assert main(["show", "digits-likelihood"]) == 0
    assert "type: ddpmkit ablate --recipe digits-likelihood\n" in capsys.readouterr().out
    assert main(["ls", "recipes", "--json"]) == 0
    assert {r["name"]: r["scales"] for r in json.loads(capsys.readouterr().out)}["bao2022-sigma"][0] == "digits"
    assert main(["show", "bao2022-sigma"]) == 0
    assert (RECIPES / "bao2022-sigma.toml").read_text() in capsys.readouterr().out
    assert main(["show", "nichol2021-steps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["text"].startswith("# Variance x number of steps")


def test_a_recipe_is_planned_from_the_command_line(capsys, tmp_path: Path) -> None:
    asked = ["ablate", "--recipe", "nichol2021-steps", "--scale", "digits", "-n", "--no-probe", "--out", str(tmp_path)]
    assert main(asked) == 0
    assert "study nichol2021-steps-digits: 9 cells" in capsys.readouterr().out
