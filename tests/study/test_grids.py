"""Which points of a grid are cells: zips, conditions, designs; cells that can't be; and how such a study grows."""

from __future__ import annotations

import itertools
import random
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.show.card import command
from ddpmkit.study.condition import read_condition
from ddpmkit.study.config import Study, make_study
from ddpmkit.study.design import SHAPE
from ddpmkit.study.grid_cells import cells_of, gives_back
from ddpmkit.study.grids import There, added, lacking, union
from ddpmkit.study.plan import make_plan
from ddpmkit.study.planning import network_of
from ddpmkit.study.precision import resolved
from ddpmkit.study.prepare import RunOptions, planned, prepare
from ddpmkit.study.store import Store
from ddpmkit.study.study_name import NameTakenError, grown
from ddpmkit.study.values import read_toml

REGISTRY = Registry(installed=False)
TINY = {
    "timesteps": "50", "sampling_steps": "10", "train_seeds": "0", "metrics": "nll", "name": "s",
    "backbones": "unet:channels=4:mults=1",
}  # fmt: skip
WHOLE = ["warmup", "train_steps", "batch_size", "samples", "nll_evals", "micro_batch", "eval_batch", "fit_images"]
BOTH, NEW = "beta,beta-tilde", "schedule=constant and sigma=beta"
ZIP = "schedule+learning_rate=cosine:s=0.01:4e-3,constant:1e-3"


def study(**options: Any) -> Study:
    return make_study({**TINY, **options}, REGISTRY)


def labels(made: Study) -> list[str]:
    return [c.label for c in made.cells()]


def test_what_is_zipped_varies_together_and_crosses_the_rest() -> None:
    made = study(zip=ZIP, sigmas="beta,beta-tilde")
    assert [(c.settings.schedule, c.settings.sigma, c.settings.learning_rate) for c in made.cells()] == [
        ("cosine:s=0.01", "beta", 4e-3),
        ("cosine:s=0.01", "beta-tilde", 4e-3),
        ("constant", "beta", 1e-3),
        ("constant", "beta-tilde", 1e-3),
    ]
    assert made.base == made.cells()[0].settings
    # A value may come twice: it is the step that is one.
    same = study(zip="schedule+warmup+learning_rate=cosine:0:4e-3,constant:0:4e-3,jsd:7:1e-3")
    assert [c.settings.warmup for c in same.cells()] == [0, 0, 7]


def test_conditions_hold_by_value_by_number_and_by_all_their_parts() -> None:
    settings = {**vars(study().base), "sigma": "beta", "timesteps": 100, "dropout": None}
    for text, holds in {
        "sigma=beta": True, "sigma = beta-tilde": False, "sigma=beta-tilde,beta": True, "sigmas!=beta": False,
        "sigma!=learned,beta-tilde": True, "timesteps<100": False, "timesteps<=100 and sigma=beta": True,
        "timesteps>=100   and   sigma!=beta": False, "timesteps>99": True, "dropout<0.5": False, "dropout=none": True,
    }.items():  # fmt: skip
        read = read_condition(text)
        assert read.holds(settings) == holds, text
        assert read_condition(str(read)) == read
    # A bound is any number; of a setting's own type where it can be, so that what was stored is what is read.
    bounds = {"timesteps<100.5": True, "nll_evals>=10": True, "timesteps>-1": True, "learning_rate<1": True}
    for text, holds in bounds.items():
        read = read_condition(text, lambda *_: pytest.fail("read as a setting"))
        assert read.holds(settings) == holds, text
        assert read_condition(str(read)) == read
    assert str(read_condition("learning_rate<1 and timesteps<5 and dropout>0.50")) == (
        "learning_rate<1.0 and timesteps<5 and dropout>0.5"
    )
    cells = study(axis="warmup=0,10,20", exclude="warmup<9.5", only="nll_evals>10").cells()
    assert [c.settings.warmup for c in cells] == [10, 20]


def test_only_and_exclude_choose_cells_by_conditions_and_labels() -> None:
    axes = {"schedules": "cosine,constant,jsd", "sigmas": "beta,beta-tilde"}
    assert labels(study(**axes, exclude="sigma=beta and schedule=constant,jsd")) == [
        "cosine beta", "cosine beta-tilde", "constant beta-tilde", "jsd beta-tilde",
    ]  # fmt: skip
    assert labels(study(**axes, only=["schedule=jsd", "cosine beta"])) == ["cosine beta", "jsd beta", "jsd beta-tilde"]
    assert labels(study(**axes, only="schedule=jsd", exclude=["jsd beta"])) == ["jsd beta-tilde"]


def test_one_at_a_time_is_the_baseline_and_each_other_level_with_the_rest_of_it() -> None:
    made = study(
        design="one-at-a-time", schedules="cosine,jsd", sigmas="beta,beta-tilde", axis="warmup=0,1,2",
        baseline="sigma=beta-tilde,warmup=1",
    )  # fmt: skip
    assert labels(made) == [
        "cosine beta-tilde warmup=1", "jsd beta-tilde warmup=1", "cosine beta warmup=1", "cosine beta-tilde warmup=0",
        "cosine beta-tilde warmup=2",
    ]  # fmt: skip
    zipped = study(design="one-at-a-time", zip=ZIP, sigmas="beta,beta-tilde", baseline="schedule=constant")
    assert [(c.settings.learning_rate, c.settings.sigma) for c in zipped.cells()] == [
        (1e-3, "beta"), (4e-3, "beta"), (1e-3, "beta-tilde"),
    ]  # fmt: skip


@pytest.mark.parametrize("axes", [6, 8])
def test_one_at_a_time_counts_its_cells_and_not_the_product(axes: int) -> None:
    levels = ",".join(str(n) for n in range(16, 26))
    options = {"axis": [f"{name}={levels}" for name in WHOLE[:axes]]}
    assert len(study(**options, design="one-at-a-time").cells()) == 9 * axes + 1
    for narrowed in ({}, {"only": "warmup=16"}):
        with pytest.raises(DdpmkitError, match=rf"has 1{axes * '0'} points, more than 100000$") as caught:
            make_study({**TINY, **options, **narrowed}, REGISTRY, most=None)
        assert "--yes" not in str(caught.value.hint)


def test_a_baseline_chooses_among_the_levels_and_changes_none() -> None:
    for text, said in {
        "schedule=constant": "schedule=constant: no level of the grid, which has schedule cosine,jsd",
        "schedule=cosine:s=0.01": "has schedule cosine,jsd; did you mean 'cosine'?",
        "sigma=beta": "sigma=beta: no level of the grid, which has sigma beta-tilde",
        "warmup=7": "warmup=7: no level of the grid, which has warmup 100",
    }.items():
        with pytest.raises(DdpmkitError) as caught:
            study(schedules="cosine,jsd", baseline=[text])
        assert said in caught.value.message
    same = study(schedules="cosine,jsd", baseline="sigma=beta-tilde,warmup=100")
    assert same == study(schedules="cosine,jsd")
    assert study(schedules="cosine,jsd", baseline="schedule=jsd").axes["schedule"] == ("jsd", "cosine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zip": "schedule=cosine"}, "expected a+b=value:value"),
        ({"zip": "schedule+lr=cosine:1"}, "unknown setting 'lr'"),
        ({"zip": "schedule+sigma=cosine"}, "'cosine' has 1 values for 2 settings"),
        ({"zip": "schedule+sigma=cosine:beta,cosine:beta"}, "a step is given twice"),
        ({"zip": "schedule+schedule=cosine:jsd"}, "named twice"),
        ({"zip": ZIP, "schedules": "jsd"}, "'schedule' is given twice"),
        ({"zip": [ZIP, "schedule+sigma=jsd:beta"]}, "'schedule' is given twice"),
        ({"zip": ZIP, "baseline": "schedule=jsd"}, "no step of --zip"),
        ({"zip": "schedule+sigma=cosin:beta"}, "unknown schedule 'cosin'"),
        ({"zip": 5}, "'zip' must be text"),
        ({"exclude": "sigma=betta"}, "unknown sigma 'betta'"),
        ({"exclude": "sigma=beta"}, "the grid has no such cell"),
        ({"exclude": "timesteps<many"}, "must be an int"),
        ({"exclude": "sigma<3"}, "unknown sigma '3'"),
        ({"exclude": "timesteps<3,4"}, "takes one number"),
        ({"exclude": "sigma=beta or timesteps=5"}, "knows only 'and'"),
        ({"exclude": "sigma=beta-tilde"}, "leave no cell"),
        ({"only": "sgima=beta"}, "the grid has no cell 'sgima=beta'"),
        ({"only": "sigma=beta-tilde and sgima=beta"}, "unknown setting 'sgima'"),
        ({"design": "one at a time"}, "unknown design 'one at a time'; did you mean 'one-at-a-time'"),
        ({"baseline": "sigma"}, "expected name=value"),
        ({"baseline": "sgima=beta"}, "unknown setting 'sgima'"),
    ],
    ids=str,
)
def test_what_chooses_nothing_or_can_not_be_read_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        study(**options)
    assert message in caught.value.message
    assert "\n" not in caught.value.message + str(caught.value.hint)


@pytest.mark.long
def test_a_grid_of_any_shape_survives_its_file(tmp_path: Path) -> None:
    rng = random.Random(16)
    for _ in range(12):
        options: dict[str, Any] = {"sigmas": "beta,beta-tilde", "axis": "warmup=0,1,2"}
        options |= rng.choice([{"zip": ZIP}, {"schedules": "cosine,jsd"}])
        options |= rng.choice([{}, {"exclude": ["sigma=beta and warmup>0"]}, {"only": ["warmup=1"]}])
        options |= rng.choice([{}, {"design": "one-at-a-time"}, {"baseline": "warmup=1,sigma=beta-tilde"}])
        made = study(**options)
        file = tmp_path / "study.toml"
        file.write_text(made.toml(), encoding="utf-8")
        again = make_study(read_toml(file), REGISTRY)
        assert (again.grid(), again.cells()) == (made.grid(), made.cells())


def test_the_command_on_the_card_is_that_grid_again() -> None:
    options = {"zip": ZIP, "sigmas": BOTH, "exclude": ["sigma=beta and learning_rate<2e-3"], "design": "one-at-a-time"}
    made = study(**options)
    words = shlex.split(command(made.grid(), made.name))
    given: dict[str, Any] = {}
    for flag, value in zip(words[2::2], words[3::2], strict=True):
        given.setdefault(flag[2:].replace("-", "_"), []).append(value)
    once = ("name", "design", "train_seeds", "sample_seeds", "metrics", "features")
    again = make_study({k: v[0] if k in once else v for k, v in given.items()}, REGISTRY)
    assert again.grid() == made.grid()
    cell = made.cells()[1]
    assert "--zip" not in command(made.grid(), made.name, cell.point)


def test_a_plain_grid_says_nothing_of_its_shape() -> None:
    plain = study(schedules="cosine,jsd", design="full", baseline="schedule=cosine")
    assert plain.grid() == study(schedules="cosine,jsd").grid()
    assert {"zip", "exclude", "design"}.isdisjoint(plain.grid())


# --- Growing ---


@pytest.mark.parametrize(
    ("before", "more", "what"),
    [
        ({"zip": ZIP}, {"zip": f"{ZIP},jsd:2e-3"}, ["schedules jsd", "learning rate 0.002"]),
        ({"sigmas": BOTH, "exclude": "sigma=beta"}, {"sigmas": BOTH}, ["cells that were left out"]),
        (
            {"schedules": "cosine,jsd", "sigmas": "beta,beta-tilde", "design": "one-at-a-time"},
            {"schedules": "cosine,jsd", "sigmas": "beta,beta-tilde"},
            ["cells that were left out"],
        ),
        (
            {"schedules": "cosine,jsd"},
            {"schedules": "cosine,jsd,constant", "sigmas": "beta-tilde,beta", "exclude": NEW},
            ["schedules constant", "sigmas beta beside beta-tilde, so that cells are named by it too"],
        ),
    ],
    ids=["zip", "exclude", "design", "new levels"],
)  # fmt: skip
def test_more_cells_are_added_and_all_that_are_there_stay(
    before: dict[str, Any], more: dict[str, Any], what: list[str]
) -> None:
    there, asked = study(**before), study(**more)
    assert lacking(there.grid(), asked.grid()) == []
    both = union(There(there.grid()), asked)
    assert {c.settings for c in both.cells()} == {c.settings for c in (*there.cells(), *asked.cells())}
    assert added(there.grid(), both.grid()) == what


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {"exclude": "sigma=beta"}, "--exclude none there, sigma=beta now"),
        ({}, {"design": "one-at-a-time"}, "--design none there, one-at-a-time from jsd beta now"),
        (
            {"design": "one-at-a-time"},
            {"design": "one-at-a-time", "baseline": "sigma=beta-tilde"},
            "one-at-a-time from jsd beta there, one-at-a-time from jsd beta-tilde now",
        ),
    ],
)
def test_a_shape_that_drops_a_cell_is_refused_by_its_flag(
    before: dict[str, Any], now: dict[str, Any], told: str, tmp_path: Path
) -> None:
    axes = {"schedules": "jsd,cosine", "sigmas": "beta,beta-tilde"}
    with pytest.raises(DdpmkitError) as caught:
        grown(study(**axes, **now), There(study(**axes, **before).grid()), Store(tmp_path))
    assert told in caught.value.message


def test_two_processes_that_grow_one_study_in_two_ways_keep_the_cells_of_both() -> None:
    axes = {"schedules": "cosine,jsd", "sigmas": "beta,beta-tilde"}
    there, asked = study(**axes, exclude="cosine beta"), study(**axes, exclude="jsd beta")
    both = union(There(there.grid()), asked)
    assert {c.settings for c in both.cells()} >= {c.settings for c in (*there.cells(), *asked.cells())}
    stars = [study(**axes, design="one-at-a-time", baseline=f"sigma={s}") for s in ("beta", "beta-tilde")]
    both = union(There(stars[0].grid()), stars[1])
    assert {c.settings for c in both.cells()} >= {c.settings for star in stars for c in star.cells()}


def test_seeds_of_cells_that_stopped_follow_the_shape() -> None:
    axes = {"schedules": "cosine,jsd", "sigmas": "beta,beta-tilde", "design": "one-at-a-time", "train_seeds": "0,1"}
    there = replace(study(**axes), stopped={"jsd beta": (0,)})
    seen = There(there.grid(), stopped=there.stopped)
    assert union(seen, replace(study(**axes), unsaid=("train_seeds",))).stopped == {"jsd beta": (0,)}


STAR = {"design": "one-at-a-time", "sigmas": "beta-tilde,beta", "axis": ["warmup=100,1", "fit_images=64,32"]}


def test_one_at_a_time_from_another_baseline_does_not_become_the_product(tmp_path: Path) -> None:
    there = There(study(schedules="linear,cosine").grid())
    asked = study(schedules="cosine,linear", **STAR)
    with pytest.raises(NameTakenError) as caught:
        grown(asked, there, Store(tmp_path))
    advice = "--baseline schedule=linear keeps it"
    assert caught.value.message.endswith(
        f"its baseline has schedule=linear, one at a time would start from another; {advice}"
    )
    kept = grown(study(schedules="cosine,linear", baseline="schedule=linear", **STAR), there, Store(tmp_path))
    assert (len(kept.cells()), kept.design) == (5, "one-at-a-time")
    # Where there is one axis it is all of them, wherever it starts.
    alone = study(schedules="cosine,linear", design="one-at-a-time")
    assert len(grown(alone, there, Store(tmp_path)).cells()) == 2


def test_what_two_processes_make_of_a_study_has_its_limits_too(tmp_path: Path, monkeypatch: Any) -> None:
    axes = [f"{name}={','.join(map(str, range(16, 21)))}" for name in WHOLE[:8]]
    stars = [study(axis=axes, design="one-at-a-time", baseline=f"warmup={n}") for n in (16, 17)]
    with pytest.raises(DdpmkitError, match="the grid has 390625 points, more than 100000"):
        union(There(stars[0].grid()), stars[1])
    monkeypatch.setattr("ddpmkit.study.prepare.LARGEST", 3)
    there, asked = There(study(sample_seeds="0-3").grid()), make_study({**TINY, "sample_seeds": "0-4"}, REGISTRY)
    given = {"store": Store(tmp_path), "registry": REGISTRY, "run_options": RunOptions(device="cpu"), "probe": False}
    with pytest.raises(DdpmkitError, match="the grid asks for 5 results, more than 3"):
        planned(asked, there, **given)


def test_what_a_grid_gives_back_is_looked_up_and_no_product_is_made() -> None:
    many = study(
        axis=[f"{name}=16,17,18,19" for name in (*WHOLE, "weight_decay", "grad_clip")], design="one-at-a-time"
    ).grid()
    assert len(cells_of(many)) == 31  # of 4**10 points
    assert added(many, many) == []
    rng = random.Random(3)
    options = {"schedules": "cosine,jsd", "axis": ["warmup=0,1,2"], "sigmas": BOTH}
    shapes = (
        {},
        {"design": "one-at-a-time"},
        {"exclude": ["sigma=beta and warmup>0"]},
        {"exclude": "jsd beta warmup=1"},
    )
    for there, now in itertools.product(shapes, repeat=2):
        more = rng.choice([{}, {"schedules": "cosine,jsd,linear"}])
        a, b = study(**options, **there).grid(), study(**{**options, **more}, **now).grid()
        every = cells_of({key: value for key, value in a.items() if key not in SHAPE})
        assert gives_back(a, b) == bool(cells_of(b) & (every - cells_of(a)))
    assert not gives_back({**many, "zip": ["x"]}, {**many, "zip": ["x"]})


@pytest.fixture
def with_bf16(monkeypatch: Any) -> None:
    monkeypatch.setattr("ddpmkit.device.native_bf16", lambda device: True)


AUTO = {"axis": ["precision=auto,fp32"], "schedules": "cosine,jsd"}


@pytest.mark.usefixtures("with_bf16")
def test_auto_is_resolved_wherever_a_study_says_it() -> None:
    zipped = resolved(study(zip="precision+learning_rate=auto:1e-3,fp32:2e-3"), "cpu")
    assert [(c.settings.precision, c.settings.learning_rate) for c in zipped.cells()] == [
        ("bf16", 1e-3), ("fp32", 2e-3),
    ]  # fmt: skip
    assert zipped.zips == ("precision+learning_rate=bf16:0.001,fp32:0.002",)
    for chosen in (
        {"exclude": "precision=auto"},
        {"only": "precision!=auto"},
        {"exclude": ["cosine auto", "jsd auto"]},
    ):
        made = resolved(study(**AUTO, **chosen), "cpu")
        assert {c.settings.precision for c in made.cells()} == {"fp32"}, chosen
        assert "auto" not in str(made.grid())
    made = resolved(study(**AUTO, train_seeds="0,1", stopped={"jsd auto": [0]}), "cpu")
    assert made.stopped == {"jsd bf16": (0,)}


def test_where_auto_is_another_level_the_two_are_one() -> None:
    zipped = resolved(study(zip="precision+learning_rate=auto:1e-3,fp32:1e-3,fp32:2e-3"), "cpu")
    assert [(c.settings.precision, c.settings.learning_rate) for c in zipped.cells()] == [
        ("fp32", 1e-3), ("fp32", 2e-3),
    ]  # fmt: skip
    assert labels(resolved(study(**AUTO, only=["cosine auto", "cosine fp32"]), "cpu")) == ["cosine"]
    with pytest.raises(DdpmkitError) as caught:
        resolved(study(**AUTO, exclude="precision=auto"), "cpu")
    assert caught.value.message == "precision auto is fp32 here, and --only or --exclude tell the two apart"


# --- Cells that can't be ---


def test_what_was_refused_once_stays_refused(tmp_path: Path, monkeypatch: Any) -> None:
    told: list[list[str]] = []

    def now_and_then(plan: Any, registry: Any) -> dict[Any, DdpmkitError]:
        told.append([c.label for c in plan.cells])
        assert len(told) < 9
        # The networks of a plan without the refused ones: the first is refused, until one is left.
        return {network_of(plan.cells[0].settings): DdpmkitError("no", None)} if len(plan.cells) > 1 else {}

    monkeypatch.setattr("ddpmkit.study.prepare.try_parts", now_and_then)
    nets = ",".join(f"unet:channels={n}:mults=1" for n in (4, 8, 12))
    ready = prepare({**TINY, "backbones": nets}, out=tmp_path, registry=REGISTRY)
    assert [len(labels) for labels in told] == [3, 2, 1]
    assert [c.label for c in ready.plan.cells] == ["unet:channels=12:mults=1"]


@pytest.mark.long
def test_an_impossible_cell_is_left_out_wherever_that_shows() -> None:
    made = make_plan(study(sampling_steps="10,100", schedules="cosine,linear", timesteps="15,50"), REGISTRY)
    excluded = dict(made.excluded)
    # A linear schedule of so few steps has betas above 1; a walk can't have more steps than the chain.
    assert "every beta must be below 1" in excluded["linear timesteps=15 sampling_steps=10"]
    assert excluded["cosine timesteps=50 sampling_steps=100"] == "100 sampling steps of a chain with T=50"
    assert [c.label for c in made.cells] == [
        "cosine timesteps=15 sampling_steps=10", "cosine timesteps=50 sampling_steps=10",
        "linear timesteps=50 sampling_steps=10",
    ]  # fmt: skip


@pytest.mark.long
def test_a_network_that_can_not_be_is_left_out_with_all_its_cells(tmp_path: Path, capsys: Any) -> None:
    options = {
        **TINY,
        "backbones": "unet:channels=4:mults=1,unet:channels=4:mults=1/1/1/1/1",
        "sigmas": "beta,beta-tilde",
    }
    ready = prepare(options, out=tmp_path, registry=REGISTRY)
    assert [c.label for c in ready.plan.cells] == ["beta unet:channels=4:mults=1", "beta-tilde unet:channels=4:mults=1"]
    assert [why.partition(" (")[0] for _, why in ready.plan.excluded] == [
        "unet: an image of size 8 can't be halved 4 times"
    ] * 2
    assert capsys.readouterr().err.count("excluded: ") == 2
    with pytest.raises(DdpmkitError, match="can't be halved 4 times"):
        prepare({**options, "backbones": "unet:channels=4:mults=1/1/1/1/1"}, out=tmp_path, registry=REGISTRY)


# --- The command ---


@pytest.mark.long
def test_the_command_takes_all_of_it_and_its_study_does_too(tmp_path: Path, capsys: Any) -> None:
    small = [
        "--timesteps",
        "50",
        "--sampling-steps",
        "10",
        "--metrics",
        "nll",
        "--train-seeds",
        "0",
        "-n",
        "--no-probe",
    ]
    args = ["--no-plugins", "ablate", *small, "--json", "--out", str(tmp_path), "--backbone", "unet:channels=4:mults=1"]
    shape = ["--zip", ZIP, "--sigmas", "beta,beta-tilde", "--exclude", "sigma=beta and learning_rate<2e-3"]
    assert main([*args, *shape, "--baseline", "schedule=constant"]) == 0
    assert '"constant beta-tilde learning_rate=0.001"' in capsys.readouterr().out
    file = tmp_path / "mine.toml"
    file.write_text(f'zip = ["{ZIP}"]\nsigmas = ["beta", "beta-tilde"]\ndesign = "one-at-a-time"\nname = "n"\n')
    assert main([*args, str(file), "--design", "full", "--only", "sigma=beta"]) == 0
    assert capsys.readouterr().out.count(" beta ") == 2
    assert main([*args, str(file), "--axis", "warmup=0-9", "--axis", "fit_images=1"]) == 2
    many = [f"--axis={name}={','.join(map(str, range(16, 40)))}" for name in ("warmup", "fit_images", "eval_batch")]
    assert main([*args, *many]) == 2
    assert "--yes" in capsys.readouterr().err
