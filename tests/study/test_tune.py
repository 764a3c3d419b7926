"""``--tune``: every cell has the same trials, runs with its own best value, and the report says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, files
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.study.config import make_study
from ddpmkit.study.enter import enter
from ddpmkit.study.grids import There, union
from ddpmkit.study.naming import check_name
from ddpmkit.study.prepare import Prepared, RunOptions, prepare
from ddpmkit.study.records import NllRecord
from ddpmkit.study.runner import run
from ddpmkit.study.tune import Tune, trials_name
from ddpmkit.study.tuning import choices, prepare_trials, trials_of, tuned
from ddpmkit.study.values import read_toml

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

# AdamW divides a gradient by its size and 1e-8 more. Far below that a loss of an eighth needs eight times the rate, for
# the very same course of training: two cells that are one, and that one rate for both tells apart.
SCALED = '''
from dataclasses import dataclass
from ddpmkit import Weighting, hookimpl, param

@dataclass(frozen=True)
class Scaled(Weighting):
    """L_simple times a power of two."""
    name = "scaled"
    reference = "no paper"
    power: int = param(0, "the power")

    def weights(self, tables, log_sigma2):
        """Return 2^power SNR_t."""
        return 2.0**self.power * tables.snr

@hookimpl
def ddpmkit_register_weightings():
    return [Scaled]
'''
LARGE, SMALL = "scaled:power=-30", "scaled:power=-33"
RATES = "learning_rate=1,8,64,512"
WORLD = {
    "dataset": "gaussian:train=200:validation=50:test=50", "backbones": "mlp:width=16:depth=1", "timesteps": 50,
    "sampling_steps": 2, "train_steps": 30, "batch_size": 32, "nll_evals": 128, "metrics": "nll", "train_seeds": "0-2",
    "weightings": f"{LARGE},{SMALL}", "learning_rate": "8",
    "predictions": "eps",
    "axis": ["warmup=5", "timestep_sampling=stratified", "ema=0.5", "lr_decay=cosine"],
}  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Registry:
    path = tmp_path_factory.mktemp("plugin") / "scaled.py"
    path.write_text(SCALED)
    return Registry([str(path)], installed=False)


def planned(out: Path, registry: Registry, **options: Any) -> Prepared:
    run_options = RunOptions(executor="inline", device="cpu")
    return prepare({**WORLD, **options}, out=out, registry=registry, run_options=run_options)


@pytest.fixture(scope="module")
def world(tmp_path_factory, registry) -> tuple[Path, Prepared, list[Prepared]]:
    """Both studies, run; the tuned one, and what was run for it before."""
    out, before = tmp_path_factory.mktemp("world"), list[Prepared]()
    run(planned(out, registry, name="one-rate"))
    mine = tuned(planned(out, registry, name="tuned", tune=RATES), lambda trials: (before.append(trials), run(trials)))
    run(mine)
    return out, mine, before


def verdict(out: Path, name: str):
    summary = summarise(read_study(out / "studies" / name), margin={"NLL": 0.05})
    return summary.differences["NLL"][SMALL]


@pytest.mark.slow
def test_cells_that_differ_by_the_scale_of_the_loss_are_no_gap_where_each_is_tuned(world):
    out, mine, _ = world
    without, with_ = verdict(out, "one-rate"), verdict(out, "tuned")
    assert without.verdict == "worse"
    assert without.difference > 0.3
    assert with_.verdict.startswith("no gap larger than")
    assert abs(with_.difference) < 0.01
    assert {c.label: c.settings.learning_rate for c in mine.plan.cells} == {LARGE: 8.0, SMALL: 64.0}


@pytest.mark.slow
def test_the_trials_are_the_same_for_every_cell_at_seeds_of_their_own_and_of_validation_images(world):
    _, mine, (trials,) = world
    assert trials.study.name == "tuned-tune"
    assert [(r.cell, r.train_seed) for r in trials.plan.results] == [
        (f"{cell} learning_rate={rate}", 1000) for cell in (LARGE, SMALL) for rate in ("1.0", "8.0", "64.0", "512.0")
    ]
    drawn = [s.spec for s in trials.plan.stages.values() if s.kind == "draw"]
    assert {d.split for d in drawn} == {"validation"}
    assert {s.spec.split for s in mine.plan.stages.values() if s.kind == "draw"} == {"test", "train"}
    bounds = {r.cell: trials.store.record(NllRecord, r.nll) for r in trials.plan.results}
    assert {b.images for b in bounds.values()} == {50}
    assert {b.split for b in bounds.values()} == {"validation"}
    best = {cell: min((b.clipped.total, label) for label, b in bounds.items() if label.startswith(cell)) for cell in
            (LARGE, SMALL)}  # fmt: skip
    assert {c: label for c, (_, label) in best.items()} == {
        LARGE: f"{LARGE} learning_rate=8.0", SMALL: f"{SMALL} learning_rate=64.0",
    }  # fmt: skip


@pytest.mark.slow
def test_the_plan_and_the_report_say_which_value_each_cell_got_and_from_how_many_trials(world):
    out, mine, _ = world
    plan = files.read_sealed(out / "studies/tuned/plan.json")
    assert plan["tuned"]["chosen"] == {LARGE: {"learning_rate": 8.0}, SMALL: {"learning_rate": 64.0}}
    (said,) = (n for n in summarise(read_study(out / "studies/tuned")).notes if "tuned, each cell" in n)
    assert "(study tuned-tune)" in said
    assert "by 4 trials (learning_rate=1.0,8.0,64.0,512.0) at train seed 1000" in said
    assert f"learning_rate 8.0: {LARGE}; learning_rate 64.0: {SMALL}" in said
    assert not [w for w in (*plan["warnings"], *plan["notes"]) if "was tried" in w]
    edge = replace(mine.study.tune, chosen={LARGE: {"learning_rate": 1.0}, SMALL: {"learning_rate": 64.0}})
    notes = replace(mine.plan, study=replace(mine.study, tune=edge)).json()["notes"]
    (warned,) = (n for n in notes if "was tried" in n)
    assert warned.startswith("learning_rate 1.0 is the smallest that was tried")


@pytest.mark.slow
def test_the_same_command_and_its_study_file_run_nothing_again(world, registry, capsys):
    out, mine, _ = world
    stated = read_toml(out / "studies/tuned/study.toml")
    assert (stated["tune"], stated["tune_seeds"]) == (["learning_rate=1.0,8.0,64.0,512.0"], [1000])
    for options in ({"name": "tuned", "tune": RATES}, {"study": "tuned"}):
        given = {**WORLD, **options} if "name" in options else options
        again = prepare(given, out=out, registry=registry, run_options=RunOptions(executor="inline", device="cpu"))
        again = tuned(again, lambda trials: pytest.fail("the trials are done"))
        assert again.todo == ()
        assert again.plan.results == mine.plan.results
        assert "was run before with another" not in capsys.readouterr().err


@pytest.mark.slow
def test_another_cell_gets_its_trials_and_those_that_are_there_none(world, registry):
    out, mine, _ = world
    more = planned(out, registry, name="tuned", tune=RATES, weightings=f"{LARGE},{SMALL},simple")
    trials = prepare_trials(more, more.study.tune)
    assert choices(more.study, more.study.tune, trials) is None
    left = {s.label for s in trials.todo if s.kind == "train"}
    assert left == {f"train simple learning_rate={rate} seed 1000" for rate in ("1.0", "8.0", "64.0", "512.0")}
    half = replace(more.study, tune=mine.study.tune)
    with pytest.raises(DdpmkitError, match="cell 'simple' has no trials yet"):
        half.cells()


@pytest.mark.slow
def test_a_study_is_another_one_with_other_trials(world, registry):
    out, _, _ = world
    for options in ({}, {"tune": "learning_rate=8,64"}, {"tune": RATES, "tune_seeds": "1001"}):
        with pytest.raises(DdpmkitError, match=r"already used by another grid.*tune"):
            planned(out, registry, name="tuned", **options)


def study(**options: Any):
    return make_study({"schedules": "linear,cosine", "metrics": "nll", **options}, Registry(installed=False))


def test_a_study_whose_trials_were_not_run_is_not_entered(tmp_path):
    options = {"metrics": "nll", "tune": "learning_rate=1e-3,2e-3", "timesteps": 100}
    prepared = prepare(options, out=tmp_path, registry=Registry(installed=False), probe=False)
    with pytest.raises(DdpmkitError, match=r"the trials of study .* come first"):
        enter(prepared)


def test_trials_of_some_cells_are_of_these_and_several_lists_are_crossed():
    some = replace(study(tune=["weight_decay=0,0.1", "learning_rate=1e-3,2e-3"]), only=("cosine",))
    trials = trials_of(some, some.tune)
    assert [c.label for c in trials.cells()] == [
        f"cosine learning_rate={rate} weight_decay={decay}" for rate in (0.001, 0.002) for decay in (0.0, 0.1)
    ]
    assert {c.settings.nll_split for c in trials.cells()} == {"validation"}
    assert trials.tune is None


def test_trials_of_a_grid_that_is_no_product_are_of_its_cells():
    grids = (
        {"design": "one-at-a-time", "sigmas": "beta,beta-tilde"},
        {"sigmas": "beta,beta-tilde", "exclude": "schedule=cosine and sigma=beta-tilde"},
        {"schedules": None, "zip": "schedule+sigma=linear:beta,cosine:beta,linear:beta-tilde"},
    )
    for grid in grids:
        one = study(**grid, tune="learning_rate=1e-3,2e-3")
        cells = [c.label for c in one.cells()]
        assert sorted(cells) == ["cosine beta", "linear beta", "linear beta-tilde"]
        assert sorted(c.label for c in trials_of(one, one.tune).cells()) == sorted(
            f"{label} learning_rate={rate}" for label in cells for rate in (0.001, 0.002)
        )


def test_where_the_best_is_at_an_end_of_its_list_a_warning_says_so():
    tune = Tune({"learning_rate": (2e-3, 1e-3, 4e-3), "lr_decay": ("cosine", "constant")}, (1000,))
    at = {"linear": 4e-3, "cosine": 1e-3, "sigmoid": 2e-3}
    chosen = {cell: {"learning_rate": rate, "lr_decay": "cosine"} for cell, rate in at.items()}
    assert replace(tune, chosen=chosen).warnings() == [
        "learning_rate 0.001 is the smallest that was tried, and the best for cosine: a smaller one may be better",
        "learning_rate 0.004 is the largest that was tried, and the best for linear: a larger one may be better",
    ]
    assert tune.warnings() == tune.notes() == []


def test_a_trial_that_diverged_is_the_worst_and_a_cell_without_others_is_refused(tmp_path, monkeypatch):
    prepared = prepare(
        {"schedules": "linear,cosine", "metrics": "nll", "tune": "learning_rate=1e-3,2e-3", "name": "x"},
        out=tmp_path, registry=Registry(installed=False), probe=False,
    )  # fmt: skip
    trials, tune = prepare_trials(prepared, prepared.study.tune), prepared.study.tune
    state: dict[str, str] = {}
    monkeypatch.setattr(type(trials.store), "status", lambda self, kind, i: {"state": state.get(i, "")})
    found = {r.nll: 3.0 + n for n, r in enumerate(trials.plan.results)}

    class Bound:
        def __init__(self, total):
            self.reported, self.clipped = "clipped", self
            self.total = total

    monkeypatch.setattr(type(trials.store), "record", lambda self, kind, i: Bound(found[i]) if i in found else None)
    assert choices(prepared.study, tune, trials) == {c: {"learning_rate": 1e-3} for c in ("linear", "cosine")}
    first, second, *_ = trials.plan.results
    del found[first.nll]
    assert choices(prepared.study, tune, trials) is None  # it may be done yet
    state[first.train] = "diverged"
    assert choices(prepared.study, tune, trials)["linear"] == {"learning_rate": 2e-3}
    del found[second.nll]
    state[trials.plan.stages[second.nll].spec.draw] = "diverged"
    with pytest.raises(DdpmkitError, match="every trial of 'linear' diverged"):
        choices(prepared.study, tune, trials)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tune": "learning_rate"}, "expected name=value,value"),
        ({"tune": "schedule=linear,cosine"}, "'schedule' can't be tuned"),
        ({"tune": "ema=0.9,0.99"}, "'ema' can't be tuned"),
        ({"tune": "learning_rate=1e-3"}, "one value leaves no choice"),
        ({"tune": "learning_rate=1e-3,fast"}, "learning_rate"),
        ({"tune": ["learning_rate=1,2", "learning-rate=3,4"]}, "given twice"),
        ({"tune": "learning_rate=1,2", "learning_rate": "1e-3,2e-3"}, "is an axis of the study"),
        ({"tune": "learning_rate=1,2", "tune_seeds": "5,2"}, "train seed 2 is one of the study and one of the trials"),
        ({"tune_seeds": "1000"}, "--tune-seeds belongs to --tune"),
        ({"tune": 3}, "must be text"),
    ],
)
def test_what_can_not_be_tuned_is_refused(options, why):
    with pytest.raises(DdpmkitError, match=why):
        study(**options)


def test_a_study_that_is_not_tuned_has_no_word_of_it():
    assert "tune" not in study().grid()
    assert "tune" not in study().toml()


def test_a_dry_run_shows_the_trials_first(tmp_path, capsys):
    args = ["ablate", "--metrics", "nll", "--tune", "learning_rate=1e-3,2e-3", "--name", "x", "--out", str(tmp_path)]
    assert main([*args, "-n", "--no-probe"]) == 0
    out, err = capsys.readouterr()
    assert "study x-tune: 2 cells x 1 train seeds" in out.replace("\t", " ") + err
    assert "these are the trials of study 'x'" in err
    assert not (tmp_path / "studies").exists()


def test_a_tuned_study_that_grows_by_an_axis_knows_which_of_its_cells_have_stopped():
    rates = {"tune": "learning_rate=1e-3,2e-3", "train_seeds": "0-2"}
    before, now = study(**rates, predictions="eps"), study(**rates, predictions="eps,v")
    chosen = {c.label: {"learning_rate": 2e-3 if "eps" in c.label else 1e-3} for c in now.cells()}
    there = There(before.grid(), stopped={"cosine": (0, 1)})
    both = union(there, replace(now, tune=replace(now.tune, chosen=chosen), stopped={"cosine eps": (0,)}))
    assert both.stopped == {"cosine eps": (0, 1)}
    assert {c.label: c.settings.learning_rate for c in both.cells()} == {
        "linear eps": 2e-3, "linear v": 1e-3, "cosine eps": 2e-3, "cosine v": 1e-3,
    }  # fmt: skip


def test_the_trials_of_studies_with_long_names_are_never_shared() -> None:
    names = ["x" * n for n in (1, 74, 75, 76, 79, 80)] + ["x" * 75 + "a", "x" * 75 + "b", "x" * 79 + "y"]
    trials = [trials_name(name) for name in names]
    assert len(set(trials)) == len(names)
    assert trials[2] == "x" * 75 + "-tune"  # what is short enough keeps the name it always had
    for name in trials:
        assert check_name(name).endswith("-tune")
