"""A training that does not get out of its warm-up is warned about as it is planned, with the rate that it reaches."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

REGISTRY = Registry(installed=False)
Warnings = Callable[..., list[str]]


@pytest.fixture(scope="module")
def warnings() -> Warnings:
    def plan(**options: Any) -> list[str]:
        tiny = {"metrics": "nll", "train_seeds": "0", "timesteps": 50, "sampling_steps": 10, "nll_evals": 32}
        made = make_plan(make_study({**tiny, **options}, REGISTRY), REGISTRY)
        return [text for text in made.warnings if "warm-up" in text]

    return plan


def reached(steps: int, warmup: int, decay: str) -> float:
    """The largest share of the rate, from the definition: i/W of it in step i of a warm-up of W."""
    warm = [min(1.0, i / warmup) for i in range(1, steps + 1)]
    down = [(1 + math.cos(math.pi * i / steps)) / 2 if decay == "cosine" else 1.0 for i in range(steps)]
    return max(a * b for a, b in zip(warm, down, strict=True))


def test_as_many_steps_as_the_warm_up_has_are_warned_about(warnings: Warnings) -> None:
    assert warnings(train_steps=100) == [
        "100 training steps never leave the warm-up of 100: with cosine decay the rate gets to 27 % of learning_rate; "
        "a shorter one is --axis warmup=10"
    ]
    (constant,) = warnings(train_steps=50, lr_decay="constant")
    assert "with constant decay the rate gets to 50 % of learning_rate" in constant


def test_a_warm_up_of_most_of_the_steps_is_warned_about(warnings: Warnings) -> None:
    (text,) = warnings(train_steps=150)
    assert text.startswith("most of 150 training steps are the warm-up of 100: with cosine decay the rate gets to ")


@pytest.mark.parametrize(
    "settings",
    [{}, {"train_steps": 400}, {"train_steps": 198}, {"train_steps": 1, "warmup": 0}, {"train_steps": 1, "warmup": 1},
     {"train_steps": 20, "warmup": 2}],
    ids=str,
)  # fmt: skip
def test_a_training_with_time_after_its_warm_up_is_not(settings: dict[str, int], warnings: Warnings) -> None:
    assert warnings(**settings) == []


def test_an_axis_is_warned_about_once_a_value(warnings: Warnings) -> None:
    found = warnings(train_steps="50,100,1200", schedules="linear,cosine", learning_rate="1e-3,2e-3", train_seeds="0-2")
    assert [text.split()[0] for text in found] == ["50", "100"]
    found = warnings(train_steps=100, axis=["warmup=0,10,60,100"])
    assert [re.search(r"warm-up of (\d+)", text)[1] for text in found] == ["60", "100"]


def test_the_command_line_says_it_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ddpmkit.cli import main

    argv = ["ablate", "--train-steps", "100", "--metrics", "nll", "--backbones", "unet:channels=4:mults=1", "-n"]
    assert main([*argv, "--timesteps", "50", "--sampling-steps", "5", "--out", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().err
    assert said.count("warning: 100 training steps never leave the warm-up of 100") == 1


def test_the_rate_that_is_said_is_the_largest_of_the_training(warnings: Warnings) -> None:
    rng = random.Random(23)
    for _ in range(12):
        steps, decay = rng.randint(1, 300), rng.choice(("cosine", "constant"))
        warmup = rng.randint(0, 600)
        found = warnings(train_steps=steps, warmup=warmup, lr_decay=decay)
        warming = sum(i / warmup < 1 for i in range(1, steps + 1)) if warmup else 0
        assert bool(found) == (warming > steps / 2), (steps, warmup)
        if found:
            assert f"gets to {100 * reached(steps, warmup, decay):.2g} % of" in found[0]
            assert ("never leave" in found[0]) == (warmup >= steps)
