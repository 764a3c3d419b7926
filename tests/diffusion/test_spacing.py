"""The spacings of a strided walk: ours and OpenAI's are two things, and each is what its name says."""

from __future__ import annotations

import functools
import itertools
import random

import numpy as np
import pytest

import ddpmkit
from ddpmkit import DdpmkitError

SAMPLERS = ("ancestral", "ddim", "dpm-solver++")
# From improved-diffusion's space_timesteps(1000, "K").
GOLDEN = {
    21: [0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 499, 549, 599, 649, 699, 749, 799, 849, 899, 949, 999],
    50: [
        0, 20, 41, 61, 82, 102, 122, 143, 163, 183, 204, 224, 245, 265, 285, 306, 326, 347, 367, 387, 408, 428, 449,
        469, 489, 510, 530, 550, 571, 591, 612, 632, 652, 673, 693, 714, 734, 754, 775, 795, 816, 836, 856, 877, 897,
        917, 938, 958, 979, 999,
    ],
}  # fmt: skip


@functools.cache
def build(text: str) -> ddpmkit.Sampler:
    sampler: ddpmkit.Sampler = ddpmkit.build("sampler", text)
    return sampler


def visited(spacing: str, T: int, count: int, sampler: str = "ancestral") -> list[int]:
    return list(build(f"{sampler}:spacing={spacing}").timesteps(T, count))


def respaced(T: int, count: int) -> list[int]:
    """One section of OpenAI's respacing, from its description: a running sum of the stride, each rounded."""
    strides = np.full(count, (T - 1) / (count - 1))
    strides[0] = 0.0
    found: list[int] = np.rint(np.cumsum(strides)).astype(int).tolist()  # added one after another; halves to even
    return found


@pytest.mark.long
@pytest.mark.parametrize("T", [1000, 4000, 100])
def test_openai_is_the_running_sum_for_every_count(T: int) -> None:
    for count in range(2, T + 1):
        assert visited("openai", T, count) == respaced(T, count), count


@pytest.mark.parametrize("count", GOLDEN)
def test_openai_has_these_indices(count: int) -> None:
    assert visited("openai", 1000, count) == GOLDEN[count]


def test_openai_at_250_of_1000_has_these_indices() -> None:
    found = visited("openai", 1000, 250)
    assert found[:12] == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44]
    assert found[60:66] == [241, 245, 249, 253, 257, 261]
    assert found[-6:] == [979, 983, 987, 991, 995, 999]
    assert (len(found), sum(found)) == (250, 124875)


def test_even_stays_as_it_was_and_is_another_thing_than_openai() -> None:
    assert visited("even", 1000, 21)[10] == 500
    assert visited("even", 1000, 1) == [999]
    differ = [k for k in range(2, 1001) if visited("even", 1000, k) != visited("openai", 1000, k)]
    assert len(differ) == 283  # and one step, which openai refuses
    for count in differ:  # by one index, where the exact place is a half
        pairs = zip(visited("even", 1000, count), visited("openai", 1000, count), strict=True)
        assert max(abs(a - b) for a, b in pairs) == 1


def test_one_step_of_openai_is_refused_with_its_reason() -> None:
    with pytest.raises(DdpmkitError, match=r"one step of spacing 'openai' is step 0.*noise end") as caught:
        visited("openai", 1000, 1)
    assert "spacing=even" in (caught.value.hint or "")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_it_and_keeps_its_default(sampler: str) -> None:
    assert visited("openai", 1000, 21, sampler) == GOLDEN[21]
    plain = ddpmkit.build("sampler", sampler)
    assert plain.spacing == "even"
    assert list(plain.timesteps(1000, 21)) == visited("even", 1000, 21)


@pytest.mark.long
def test_every_spacing_of_any_chain_rises_to_its_last_step() -> None:
    rng = random.Random(26)
    for _ in range(300):
        T = rng.randint(2, 3000)
        count = rng.randint(2, T)
        for spacing in ("even", "quadratic", "trailing", "openai"):
            found = visited(spacing, T, count)
            assert len(found) == count
            assert found[-1] == T - 1
            assert found[0] >= 0
            assert all(a < b for a, b in itertools.pairwise(found)), (spacing, T, count)
