"""Which points of a grid are cells: zips, conditions, designs; cells that can't be; and how such a study grows."""

from __future__ import annotations

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
from ddpmkit.study.grids import There, added, lacking, union
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import prepare
from ddpmkit.study.study_name import grown
from ddpmkit.study.values import read_toml

REGISTRY = Registry(installed=False)
TINY = {
    "timesteps": "50", "sampling_steps": "10", "train_seeds": "0", "metrics": "nll", "name": "s",
    "backbones": "unet:channels=4:mults=1",
}  # fmt: skip
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
    names = ["warmup", "train_steps", "batch_size", "samples", "nll_evals", "micro_batch", "eval_batch", "fit_images"]
    levels = ",".join(str(n) for n in range(16, 26))
    options = {"axis": [f"{name}={levels}" for name in names[:axes]]}
    assert len(study(**options, design="one-at-a-time").cells()) == 9 * axes + 1
    for narrowed in ({}, {"only": "warmup=16"}):
        with pytest.raises(DdpmkitError, match=r"0 results, more than 10000|1000000 results"):
            study(**options, **narrowed)


def test_a_baseline_is_first_whether_it_was_a_level_or_not() -> None:
    made = study(schedules="cosine,jsd", baseline=["schedule=constant"])
    assert made.axes["schedule"] == ("constant", "cosine", "jsd")
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
    from ddpmkit.study.store import Store

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


# --- Cells that can't be ---


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
