"""A name that another grid has: the flags that differ are said with both values, and the hint is a whole command."""

from __future__ import annotations

import inspect
import json
import random
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpmkit
from ddpmkit import DdpmkitError
from ddpmkit.cli import main
from ddpmkit.cli.ablate import ablate
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.settings import AXIS_ONLY, FIELDS, PLURALS
from ddpmkit.study.study_name import ADDS
from ddpmkit.study.values import read_toml

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

REGISTRY = Registry(installed=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The plan and file of a study, as ``ablate`` leaves them; nothing was trained."""
    options = {
        "schedules": "linear,cosine", "train_steps": 4, "train_seeds": "0-2", "metrics": "fd,nll", "name": "demo",
        "timesteps": 50, "sampling_steps": 20, "backbones": "unet:channels=4:mults=1",
    }  # fmt: skip
    found = make_study(options, REGISTRY)
    folder = tmp_path / "r" / "studies" / "demo"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"study": "demo", "grid": found.grid()}))
    (folder / "study.toml").write_text(found.toml())
    return folder


@pytest.fixture
def said(study: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*flags: str) -> tuple[str, str]:
        """The differences named, and the command of the hint."""
        out = str(study.parent.parent)
        assert main(["ablate", str(study / "study.toml"), "--out", out, "-n", "--json", *flags]) == 2
        printed, told = capsys.readouterr()
        assert printed == ""
        first, hint = told.splitlines()
        opening = f"error: the name 'demo' is already used by another grid, in {study}: "
        assert first.startswith(opening)
        return first.removeprefix(opening).removesuffix(ADDS), hint.removeprefix("hint: ")

    return ask


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--train-seeds", "1-4"], "--train-seeds 0-2 there, 1-4 now"),
        (["--train-seeds", "0,3,5-7"], "--train-seeds 0-2 there, 0,3,5-7 now"),
        (["--sample-seeds", "1-2"], "--sample-seeds 0 there, 1-2 now"),
        (["--schedules", "linear"], "--schedules linear,cosine there, linear now"),
        (["--schedules", "linear,cosine:s=0.01"], "--schedules linear,cosine there, linear,cosine:s=0.01 now"),
        (["--metrics", "fd,kid"], "--metrics fd,nll there, fd,kid now"),
        (["--features", "pca:k=4"], "--features digits,pca there, pca:k=4 now"),
        (["--train-steps", "8"], "--train-steps 4 there, 8 now"),
        (["--axis", "warmup=0,50"], "--axis warmup=100 there, 0,50 now"),
        (["--nll-full"], "--nll-full false there, true now"),
        (["--nll-se", "0.01"], "--nll-se none there, 0.01 now"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_the_flag_that_differs_is_said_with_both_values(flags: list[str], told: str, said: Any) -> None:
    assert said(*flags)[0] == told


def test_of_many_differences_three_are_named_and_the_rest_is_counted(said: Any) -> None:
    told, _ = said("--train-seeds", "0", "--samples", "9", "--train-steps", "8", "--batch-size", "2", "--metrics", "fd")
    assert re.fullmatch(r"--train-seeds 0-2 there, 0 now; (--[^;]+ there, [^;]+ now; ){2}and 2 more", told)


@pytest.mark.long
def test_a_long_list_is_shortened_and_counted(said: Any) -> None:
    told, _ = said("--timesteps", ",".join(str(t) for t in range(51, 91)))
    assert told.startswith("--timesteps 50 there, 51,52,53,")
    assert told.endswith(".. (40 values) now")
    assert len(told) < 120


@pytest.mark.long
def test_the_hint_is_a_command_that_works_and_again_the_next_time(
    study: Path, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = study.parent.parent
    _, command = said("--name=demo", "--train-seeds", "1")
    words = shlex.split(command)
    assert words[:2] == ["ddpmkit", "ablate"]
    assert words[-2:] == ["--name", "demo-2"]
    assert sum(w.startswith("--name") for w in words) == 1
    assert main(words[1:]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == "demo-2"
    # Somebody else's demo-2 is passed over; our own, once it ran, is what goes on.
    (out / "studies" / "demo-2").mkdir()
    (out / "studies" / "demo-2" / "plan.json").write_text(json.dumps({"grid": {"settings": {}}}))
    _, command = said("--train-seeds", "1")
    assert command.endswith("--name demo-3")
    stored = make_study({**read_toml(study / "study.toml"), "train_seeds": "1"}, REGISTRY)
    (out / "studies" / "demo-2" / "plan.json").write_text(json.dumps({"grid": stored.grid()}))
    assert said("--train-seeds", "1")[1].endswith("--name demo-2")


@pytest.mark.parametrize(
    ("flags", "grows"),
    [
        (["--schedules", "sigmoid"], "--schedules linear,cosine,sigmoid"),
        (["--schedules", "cosine:s=0.01,linear"], "--schedules linear,cosine,cosine:s=0.01"),
        (["--samplers", "ddim"], "--samplers ancestral,ddim"),
        (["--sigmas", "beta"], "--sigmas beta-tilde,beta"),
        (["--backbones", "unet:channels=8:mults=1"], "--backbones unet:channels=4:mults=1,unet:channels=8:mults=1"),
        (["--guidances", "1", "--conditional"], "--guidances 0.0,1.0 --axis conditional=false,true"),
        (["--train-steps", "8"], "--train-steps 4,8"),
        (["--sampling-steps", "5"], "--sampling-steps 20,5"),
        (["--axis", "warmup=0,50", "--dropout", "0.1"], "--dropout none,0.1 --axis warmup=100,0,50"),
        (["--train-seeds", "1-4"], "--train-seeds 0-4"),
        (["--train-seeds", "7,9"], "--train-seeds 0-2,7,9"),
        (["--sample-seeds", "1"], "--sample-seeds 0-1"),
        (["--metrics", "precision"], "--metrics fd,nll,precision"),
        (["--features", "pca:k=4"], "--features digits,pca,pca:k=4"),
        (["--schedules", "sigmoid", "--metrics", "nll", "--jobs", "3"], "--schedules linear,cosine,sigmoid --jobs 3"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_adds_gets_the_command_that_grows_the_study(
    flags: list[str], grows: str, study: Path, said: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command = said(*flags)
    out = f"--out {study.parent.parent}"
    words, wanted = shlex.split(command), ["ddpmkit", "ablate", "demo", *grows.split()]
    assert sorted(words) == sorted([*wanted, *out.split(), "--dry-run", "--json"])
    if "--guidances" not in flags:  # which these cells can't have
        assert main([*words[1:], "--no-probe"]) == 0
        assert json.loads(capsys.readouterr().out)["adds"]


def test_the_command_that_grows_keeps_what_stands_before_it(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(study.parent.parent)
    assert main(["--no-plugins", "ablate", "demo", "--schedules", "sigmoid", "--out", out, "--retries", "2"]) == 2
    hint = capsys.readouterr().err.splitlines()[-1]
    assert hint.startswith("hint: ddpmkit --no-plugins ablate demo --schedules linear,cosine,sigmoid ")
    assert "--retries 2" in hint


@pytest.mark.parametrize(
    "flags",
    [
        ["--axis", "ema=0.5"],
        ["--schedules", "linear"],
        ["--schedules", "cosine,sigmoid", "--exclude", "schedule=sigmoid"],
        ["--train-steps", "8", "--zip", "warmup+grad_clip=1:1.0,2:2.0"],
    ],
    ids=" ".join,
)
def test_what_the_study_can_not_have_too_gets_another_name(flags: list[str], said: Any) -> None:
    assert said(*flags)[1].endswith("--name demo-2")


def test_words_that_a_shell_would_split_are_quoted(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "a folder"
    (study.parent.parent).rename(strange)
    assert main(["ablate", str(strange / "studies/demo/study.toml"), "--out", str(strange), "--train-seeds", "0"]) == 2
    hint = capsys.readouterr().err.splitlines()[1].removeprefix("hint: ")
    assert str(strange) in shlex.split(hint)


def test_a_plan_of_another_version_has_other_settings(study: Path, said: Any) -> None:
    plan = json.loads((study / "plan.json").read_text())
    del plan["grid"]["settings"]["fit_images"]
    plan["grid"]["settings"]["old_knob"] = 5
    (study / "plan.json").write_text(json.dumps(plan))
    told, _ = said()
    assert "--axis fit_images=64 now, no such setting there" in told
    assert "old_knob 5 there, no such setting now" in told
    told, _ = said("--train-seeds", "1-4")
    assert told.startswith("--train-seeds 0-2 there, 1-4 now; ")
    told, _ = said("--train-seeds", "0-4")  # which adds, and is no reason
    assert "--train-seeds" not in told


@pytest.mark.parametrize(
    "grid",
    [
        {},
        {"axes": [1]},
        {"settings": {"ema": {"a": 1}}, "train_seeds": "x"},
        {"settings": {}, "metrics": 7, "x": None},
    ],
    ids=str,
)
def test_a_plan_that_is_no_plan_is_refused_in_two_lines_all_the_same(grid: Any, study: Path, said: Any) -> None:
    (study / "plan.json").write_text(json.dumps({"study": "demo", "grid": grid}))
    told, command = said()
    assert told
    assert command.endswith("--name demo-2")


def test_from_python_the_hint_is_a_name(study: Path) -> None:
    with pytest.raises(DdpmkitError, match=r"--train-seeds 0-2 there, 0 now") as caught:
        ddpmkit.ablate(
            schedules=["linear", "cosine"], train_steps=4, train_seeds=0, metrics="fd,nll", timesteps=50, name="demo",
            sampling_steps=20, backbones="unet:channels=4:mults=1", out=study.parent.parent,
        )  # fmt: skip
    assert "demo-2" in (caught.value.hint or "")


def test_a_cell_list_of_a_confirmation_is_said(study: Path, said: Any) -> None:
    text = (study / "study.toml").read_text() + 'only = ["linear"]\n'
    (study / "study.toml").write_text(text)
    assert said()[0] == "only all cells there, linear now"


def test_every_setting_is_said_by_a_flag_that_exists() -> None:
    taken = set(inspect.signature(ablate).parameters)
    plural = {field: name for name, field in PLURALS.items()}
    without = [f for f in FIELDS if plural.get(f, f) not in taken]
    assert list(AXIS_ONLY) == without


@pytest.mark.long
def test_of_any_two_grids_every_difference_is_told() -> None:
    from ddpmkit.study.study_name import differences

    rng = random.Random(16)
    choices: dict[str, list[Any]] = {
        "schedules": ["linear", "cosine", "linear,cosine"], "train_steps": [4, 8, "4,8"], "ema": [0.9, "0.9,0.99"],
        "train_seeds": ["0", "0-2", "1,5"], "metrics": ["fd", "fd,nll", "nll"], "warmup": [0, 3],
        "sample_seeds": ["0", "0-3"], "dropout": [0.0, 0.1], "features": ["pca:k=2", "pca:k=3,pixels"],
    }  # fmt: skip
    for _ in range(60):
        a, b = ({k: rng.choice(v) for k, v in choices.items()} for _ in "ab")
        grids = [make_study(dict(options), REGISTRY).grid() for options in (a, b)]
        found = differences(*grids)
        assert len(found) == sum(a[k] != b[k] for k in choices)
        for key in choices:
            if a[key] != b[key]:
                flag = key.replace("_", "-")
                (text,) = (t for t in found if t.startswith((f"--{flag} ", f"--axis {key}=")))
                assert text.endswith(f"{a[key]} there, {b[key]} now")


def test_a_study_whose_data_set_has_changed_says_that_its_report_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    command = [
        "ablate", "--dataset", f"npz:path={tmp_path / 'data.npz'}:validation=5", "--features", "pca:k=2",
        "--schedules", "linear,cosine", "--train-seeds", "0", "--train-steps", "2", "--samples", "4", "--timesteps",
        "50", "--sampling-steps", "2", "--metrics", "fd", "--backbones", "unet:channels=4:mults=1", "--out",
        str(tmp_path / "r"), "--executor", "inline", "--name", "mine",
    ]  # fmt: skip

    def told(*flags: str) -> list[str]:
        assert main([*command, *flags]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "was run before" in line]

    np.savez(tmp_path / "data.npz", train_images=images[:40], test_images=images[40:])
    assert told() == told() == []
    np.savez(tmp_path / "data.npz", train_images=255 - images[:40], test_images=images[40:])
    for flags in (("-n",), ()):
        assert told(*flags) == [
            "note: study 'mine' was run before with another data set: 2 of its 2 results now rest on other stages "
            "and its report is made again; the old stages stay in the store"
        ]
    assert told() == []
