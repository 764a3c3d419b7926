"""Orderings in a study file: read, refused, written back, kept as a study grows, and part of no id."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.asked import _beside
from ddpmkit.study.config import make_study
from ddpmkit.study.enter import enter
from ddpmkit.study.prepare import prepare
from ddpmkit.study.recipe import recipe_options
from ddpmkit.study.values import read_toml

ORDERING: dict[str, Any] = {
    "claim": "cosine is lower", "cell": {"schedules": "cosine"}, "baseline": {"schedule": "linear"}, "metric": "nll",
    "expected": "lower", "margin": 0.05, "seeds": "0-2", "source": "Table 2", "paper": [3.26, 3.37],
}  # fmt: skip
GRID = {"schedules": ["linear", "cosine"], "sampling_steps": [2, 4]}
AT = {"where": {"sampling_steps": 2}}
REGISTRY = Registry(installed=False)


def one(**differs: Any) -> dict[str, Any]:
    return {k: v for k, v in {**ORDERING, **AT, **differs}.items() if v is not ...}


def read(*orderings: Any, **options: Any):
    return make_study({**GRID, **options, "ordering": list(orderings)}, REGISTRY)


def test_an_ordering_is_read_and_written_back() -> None:
    study = read(one(), one(claim="few steps", cell={"sampling_steps": 2}, baseline={"sampling_steps": 4},
                            where={"schedule": "cosine"}, metric="fd", n=1000, paper=...))  # fmt: skip
    first, second = study.orderings
    assert first.sides == ({"sampling_steps": 2, "schedule": "cosine"}, {"sampling_steps": 2, "schedule": "linear"})
    assert (first.seeds, first.paper, second.paper, second.n) == ((0, 1, 2), (3.26, 3.37), None, 1000)
    again = make_study(tomllib.loads(study.toml()), REGISTRY)
    assert again.orderings == study.orderings
    assert again.grid() == study.grid()


def test_orderings_are_part_of_no_grid_name_or_stage(tmp_path: Path, prepare_small) -> None:
    assert read(one()).name == make_study(GRID, REGISTRY).name
    plans = [prepare_small(tmp_path, **{**GRID, **more}, name="demo").plan for more in ({}, {"ordering": [one()]})]
    assert plans[0].stages.keys() == plans[1].stages.keys()


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"margn": 1}, "ordering 1: unknown key 'margn'; did you mean 'margin'?"),
        ({"margin": ...}, "ordering 1 has no 'margin'"),
        ({"seeds": ...}, "ordering 1 has no 'seeds'"),
        ({"claim": 3}, "ordering 1: 'claim' must be text, got 3"),
        ({"margin": 0}, "ordering 'cosine is lower': margin 0 is no positive gap"),
        ({"expected": "better"}, "ordering 'cosine is lower': nothing is expected to be 'better'"),
        ({"seeds": "two"}, "ordering 'cosine is lower': seeds = 'two' are no train seeds"),
        ({"metric": "fd"}, "ordering 'cosine is lower' has no 'n', the images that its fd rests on"),
        ({"n": 0}, "ordering 'cosine is lower': n = 0 is no number of images"),
        ({"paper": [3.26]}, "ordering 'cosine is lower': paper = [3.26] is not two numbers"),
        ({"cell": "cosine"}, "ordering 'cosine is lower': cell must be axis values, got 'cosine'"),
        ({"cell": {"shedule": "cosine"}}, "cell: unknown setting 'shedule'; did you mean 'schedule'?"),
        ({"cell": {"schedule": "linear,cosine"}}, "cell: schedule has 2 values"),
        ({"cell": {"schedule": "sigmoid"}}, "its cell is no cell of the grid: sampling_steps=2, schedule=sigmoid"),
        ({"where": {}}, "ordering 'cosine is lower': its cell is 2 cells: schedule=cosine"),
        ({"cell": {"schedule": "linear"}}, "cell and baseline are the same cell"),
    ],
)
def test_a_wrong_ordering_is_refused_in_two_lines(differs: dict[str, Any], message: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        read(one(**differs))
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("given", ["a", [3], {"claim": "x"}])
def test_orderings_are_a_list_of_tables(given: Any) -> None:
    with pytest.raises(DdpmkitError, match="must be a list of tables"):
        make_study({**GRID, "ordering": given}, REGISTRY)


def test_one_claim_is_made_once() -> None:
    with pytest.raises(DdpmkitError, match="two orderings claim 'cosine is lower'"):
        read(one(), one(margin=1.0))


def test_a_metric_is_named_as_tables_call_it(tmp_path: Path, prepare_small) -> None:
    fd = one(metric="fd", n=4)
    study = prepare_small(tmp_path, **GRID, ordering=[fd]).study
    assert study.orderings[0].metric == "FD-pca2"
    with pytest.raises(DdpmkitError, match=r"ordering 'cosine is lower': metric 'kid' is not in the study"):
        prepare_small(tmp_path, **GRID, ordering=[one(metric="kid", n=4)])
    with pytest.raises(DdpmkitError, match=r"metric 'fd' is 2 columns"):
        prepare_small(tmp_path, **GRID, ordering=[fd], features="pca:k=2,pixels")


@pytest.fixture(scope="module")
def done(tmp_path_factory, run_small) -> Path:
    out = tmp_path_factory.mktemp("orderings") / "results"
    run_small(out, schedules="linear,cosine", train_seeds="0-1", name="demo", metrics="nll",
              ordering=[one(where=..., seeds="0-1")])  # fmt: skip
    return out


def plan_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "studies/demo/plan.json").read_text()))


def test_an_ordering_stands_in_the_plan_and_says_how_much_was_known(done: Path) -> None:
    assert plan_of(done)["orderings"][0]["known"] == 0
    late = one(claim="late", where=..., seeds="0-2", expected="higher")
    prepared = prepare({"study": "demo", "ordering": [late]}, out=done, registry=REGISTRY, probe=False)
    assert [(o.claim, o.known) for o in prepared.study.orderings] == [("cosine is lower", 0), ("late", 4)]


def test_an_ordering_stays_as_it_was_stated_when_its_study_grows(tmp_path: Path, prepare_small) -> None:
    asked = {"schedules": "linear,cosine", "name": "demo", "metrics": "nll"}
    enter(prepare_small(tmp_path, **asked, ordering=[one(where=...)]))
    grown = prepare_small(
        tmp_path, **asked, sampling_steps="2,4", ordering=[one(claim="later", where={"sampling_steps": 4})]
    )
    first, later = grown.study.orderings
    assert first.where == {"sampling_steps": 2}  # the value that it had when there was one
    assert (first.claim, later.where) == ("cosine is lower", {"sampling_steps": 4})
    enter(grown)
    assert [o["claim"] for o in plan_of(tmp_path)["orderings"]] == ["cosine is lower", "later"]
    with pytest.raises(DdpmkitError, match="is there already, with margin 0\\.05, and now with 0\\.5"):
        prepare_small(tmp_path, **asked, sampling_steps="2,4", ordering=[one(margin=0.5)])


STATED = sorted((Path(__file__).parents[2] / "results/reference/orderings").glob("*.toml"))


@pytest.mark.parametrize("path", STATED, ids=lambda p: p.stem)
def test_the_stated_questions_are_read_and_expect_what_was_published(path: Path) -> None:
    study = make_study(read_toml(path), REGISTRY)
    assert study.name == path.stem
    assert study.orderings
    for o in study.orderings:
        assert o.paper is not None
        assert o.expected == ("lower" if o.paper[0] < o.paper[1] else "higher")
        assert o.seeds == study.train_seeds
        assert o.n == (797 if o.metric == "nll" else study.base.samples)


def test_a_study_with_orderings_grows_by_an_axis_by_its_name(tmp_path: Path, prepare_small) -> None:
    asked = {"schedules": "linear,cosine", "name": "demo", "metrics": "nll"}
    enter(prepare_small(tmp_path, **asked, ordering=[one(where=...)]))
    for more in ({"sampling_steps": "2,4"}, {"axis": ["sampling_steps=2,4"]}):
        again = prepare({"study": "demo", **more}, out=tmp_path, registry=REGISTRY, probe=False).study
        assert [(o.claim, o.where) for o in again.orderings] == [("cosine is lower", {"sampling_steps": 2})]
    moved = {"study": "demo", "sampling_steps": "4"}
    with pytest.raises(DdpmkitError, match="--sampling-steps 2 there, 4 now"):
        prepare(moved, out=tmp_path, registry=REGISTRY, probe=False)
    other = prepare({**moved, "name": "other"}, out=tmp_path, registry=REGISTRY, probe=False).study
    assert [o.where for o in other.orderings] == [{}]  # a study of its own states it of its own cells


def test_an_ordering_that_names_the_new_axis_is_left_as_it_is() -> None:
    stored = {"sampling_steps": [2], "ordering": [one(where={"sampling_steps": 4}), one(where=...), 3]}
    found = _beside(stored, {"sampling_steps": "2,4"}, None)["ordering"]
    assert [o["where"] for o in found[:2]] == [{"sampling_steps": 4}, {"sampling_steps": "2"}]
    assert found[2] == 3


def test_an_ordering_about_a_cell_that_is_left_out_stays_open_and_is_named(
    tmp_path: Path, prepare_small, capsys: pytest.CaptureFixture[str]
) -> None:
    narrowed = {**GRID, "name": "demo", "metrics": "nll", "only": ["schedule=linear"]}
    prepared = prepare_small(tmp_path, **narrowed, ordering=[one()])
    assert [o.claim for o in prepared.study.orderings] == ["cosine is lower"]
    assert (
        "1 orderings stay open, since the study leaves out a cell of them: cosine is lower" in capsys.readouterr().err
    )
    enter(prepared)  # and its file is read again
    assert prepare({"study": "demo"}, out=tmp_path, registry=REGISTRY, probe=False).study.orderings
    with pytest.raises(DdpmkitError, match="is no cell of the grid"):
        read(one(cell={"schedule": "sigmoid"}), only=["schedule=linear"])
    with pytest.raises(DdpmkitError, match="its cell is 2 cells"):
        read(one(where={}), only=["schedule=linear"])


def test_a_recipe_is_narrowed_by_a_condition() -> None:
    options = recipe_options("bao2022-sigma") | {"only": ["sigma=analytic"]}
    study = make_study(options, REGISTRY)
    assert {c.settings.sigma for c in study.cells()} == {"analytic"}
    assert study.orderings
