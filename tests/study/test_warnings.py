"""What is said of a study before it runs though it can: two seeds, a default extractor, a sliver of the scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmkit.plugin.registry import Registry
from ddpmkit.statistics import t_interval
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan

REGISTRY = Registry(installed=False)


def said(**options: Any) -> list[str]:
    tiny = {"metrics": "nll", "timesteps": 50, "sampling_steps": 5, "backbones": "unet:channels=4:mults=1"}
    return make_plan(make_study({**tiny, **options}, REGISTRY), REGISTRY).warnings


def images(path: Path, shape: tuple[int, ...], top: int = 256) -> str:
    """A data set of noise with grey levels below ``top``, on 256."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, top, (n, *shape)).astype(np.uint8) for name, n in (("train", 40), ("test", 20))}
    np.savez(path, **{f"{name}_images": array for name, array in arrays.items()})
    return f"npz:path={path}:validation=5"


# --- seeds


@pytest.mark.parametrize(("seeds", "more"), [("0-1", "0-2"), ("0,5", "0-1,5"), ("1,2", "0-2"), ("7,9", "0,7,9")])
def test_two_train_seeds_are_warned_about_with_a_third(seeds: str, more: str) -> None:
    (text,) = said(train_seeds=seeds, schedules="linear,cosine")
    assert text.startswith("two train seeds: a 95 % interval over them is 9 standard deviations to each side")
    assert text.endswith(f"--train-seeds {more}")


@pytest.mark.parametrize("seeds", ["0", "0-2", "0-4"])
def test_one_seed_and_three_are_not(seeds: str) -> None:
    assert said(train_seeds=seeds) == []  # of one there is no interval at all, which the report says


def test_the_widths_that_are_said_are_those_of_the_interval() -> None:
    for count, told in ((2, 9.0), (3, 2.5)):
        values = np.arange(count, dtype=float)
        interval = t_interval(list(values / values.std(ddof=1)))
        assert interval.high is not None
        assert round(interval.high - interval.mean, 1) == told


# --- extractors


def test_images_like_mnists_without_the_extractor_made_for_them_are_warned_about(tmp_path: Path) -> None:
    data = images(tmp_path / "a.npz", (28, 28))
    (text,) = said(dataset=data, metrics="fd", samples=40)
    assert text == (
        "features 'mnist' were made for such images, 28x28 with 256 levels, and the default ones are pca: "
        "where these show the same, --features mnist,pca"
    )


def test_so_are_images_like_the_digits(few_digits: str) -> None:
    (text,) = said(dataset=few_digits, metrics="fd", samples=40)
    assert text.startswith("features 'digits' were made for such images, 8x8 with 17 levels")


def test_who_chose_is_not_warned_and_neither_are_others(tmp_path: Path, few_digits: str) -> None:
    data = images(tmp_path / "a.npz", (28, 28))
    assert said(dataset=data, metrics="fd", samples=40, features="mnist") == []
    assert said(dataset=data, metrics="fd", samples=40, features="pixels") == []
    assert said(dataset=data, metrics="fd", samples=40, features="pca:k=2") == []  # of the default's name alone
    assert said(dataset=data, metrics="nll") == []  # nothing is taken of features
    assert said(dataset=few_digits, metrics="fd", samples=40, features="digits") == []
    assert said(metrics="fd", samples=40) == []  # the digits' own default
    for other in ((27, 28), (28, 28, 3)):
        assert said(dataset=images(tmp_path / f"{len(other)}.npz", other), metrics="sw", samples=40) == []


# --- pixels


def test_pixels_of_a_sliver_of_the_scale_are_warned_about(tmp_path: Path) -> None:
    data = images(tmp_path / "a.npz", (8, 8), top=17)
    assert said(dataset=data) == [
        f"data set '{data}': all pixels lie in 0 .. 16, on a scale of 0 .. 255; has it fewer levels, or another range?"
    ]
    assert said(dataset=f"{data}:levels=17") == []
