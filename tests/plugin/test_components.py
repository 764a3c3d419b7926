"""One battery over every registered component, and the promises of the built-in data sets and features."""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import random
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from ddpmkit import DdpmkitError, Images, Schedule
from ddpmkit.builtin.features import digits as digits_features
from ddpmkit.diffusion.tables_for import Tables, fixed_log_variance, tables_for
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Denoised
from ddpmkit.plugin.loader import Entry
from ddpmkit.plugin.parameters import parameters
from ddpmkit.plugin.registry import Registry

REGISTRY = Registry(installed=False)
ENTRIES = REGISTRY.entries()


def of(kind: str) -> list[str]:
    return [e.name for e in ENTRIES if e.kind == kind]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Images:
    images: Images = REGISTRY.build("dataset", "digits").load()
    return images


# --- all kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.kind}-{e.name}")
def test_every_component_explains_itself(entry: Entry) -> None:
    cls = entry.cls
    assert len(cls.summary()) > 10
    assert "\n" not in cls.summary()
    assert cls.__doc__ is not None
    assert not cls.__doc__.startswith(f"{cls.__name__}(")
    assert len(cls.reference) > 10
    for p in parameters(cls):
        assert len(p.help) > 2, p.name
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    # One method, one file.
    others = [e.cls for e in ENTRIES if inspect.getsourcefile(e.cls) == inspect.getsourcefile(cls)]
    assert others == [cls]


def test_names_are_unique_within_a_kind() -> None:
    pairs = [(e.kind, e.name) for e in ENTRIES]
    assert len(pairs) == len(set(pairs))


# --- schedules ---------------------------------------------------------------------------------------------------

# Endpoints scaled by 1000/T reach 1 at T = 20; a schedule that is not named here works from T = 2.
SMALLEST = dict.fromkeys(["linear", "quadratic", "sigmoid", "constant", "warmup", "zero-snr", "rescaled"], 21)
ENDS_IN_NOISE_ALONE = {"jsd", "zero-snr"}  # the last beta is 1 by design; everywhere else each is below 1

# spec: (beta_1, beta_T, alpha-bar at index 499, alpha-bar at the end) at T = 1000, to the printed digits
GOLDEN = {
    "linear": ("0.0001", "0.02", "0.0785872429", "4.03582977e-05"),
    "cosine": ("4.128e-05", "0.999", "0.49384359", "2.42876691e-09"),
    "quadratic": ("0.0001", "0.02", "0.3332", "0.0007334"),
    "sigmoid": ("0.0001492", "0.01995", "0.3019", "3.968e-05"),
    "sigmoid-gamma": ("0.0002389", None, "0.5", "1e-09"),
    "sigmoid-gamma:tau=1:floor=0:max_beta=0.999": ("0.0003003", "0.999", "0.5", "3.003e-07"),
    "one-minus-t": ("0.001", None, "0.5", "1e-09"),
    "constant": ("0.02", "0.02", None, "1.683e-09"),
    "warmup": ("0.0001", "0.02", None, "4.614e-09"),
    "jsd": ("0.001", "1", "0.5", "0"),
    "zero-snr": ("0.0001", "1", None, "0"),
    "rescaled:base=cosine:sum_like=linear": ("3.335e-05", "0.80697", "0.56563", "8.046e-06"),
}


def significant(text: str) -> int:
    return max(1, len(text.split("e")[0].replace(".", "").lstrip("0")))


def preserving(name: str) -> bool:
    return REGISTRY.find("schedule", name).cls.betas is not Schedule.betas  # type: ignore[attr-defined] # a schedule


@pytest.mark.parametrize("T", [2, 50, 1000, 4000])
@pytest.mark.parametrize("name", [n for n in of("schedule") if preserving(n)])
def test_schedule_gives_betas_between_0_and_1(name: str, T: int) -> None:
    T = max(T, SMALLEST.get(name, 2))
    schedule = REGISTRY.build("schedule", name)
    betas = schedule.betas(T)
    assert betas.shape == (T,)
    assert betas.dtype == np.float64
    assert betas.min() > 0
    assert betas[:-1].max() < 1
    assert betas[-1] == 1 if name in ENDS_IN_NOISE_ALONE else betas[-1] < 1
    alpha_bars = np.cumprod(1 - betas)
    assert np.all(np.diff(alpha_bars) < 0)
    assert alpha_bars[-1] == 0 if name in ENDS_IN_NOISE_ALONE else alpha_bars[-1] > 0
    # Index 0 is the least noisy step.
    assert betas[0] <= betas[-1]
    assert np.array_equal(betas, schedule.betas(T))


@pytest.mark.parametrize("T", [2, 50, 1000, 4000])
@pytest.mark.parametrize("name", of("schedule"))
def test_schedule_makes_a_chain_that_only_gets_noisier(name: str, T: int) -> None:
    T = max(T, SMALLEST.get(name, 2))
    schedule = REGISTRY.build("schedule", name)
    a, b2 = schedule.steps(T)
    assert a.shape == b2.shape == (T,)
    assert a.dtype == b2.dtype == np.float64
    assert np.all(a[:-1] > 0)
    assert np.all(b2 > 0)
    signal2, noise2, snr = 1.0, 0.0, []
    for factor, variance in zip(a, b2, strict=True):
        signal2, noise2 = signal2 * factor**2, noise2 * factor**2 + variance
        snr.append(signal2 / noise2)
    assert np.all(np.diff(snr) < 0)
    # What x_T is, for unit data, is what the prior says it is.
    assert signal2 + noise2 == pytest.approx(schedule.prior_variance(T), rel=0.01)


@pytest.mark.parametrize("name", of("schedule"))
def test_schedule_refuses_a_chain_that_is_too_short_and_names_the_shortest(name: str) -> None:
    schedule = REGISTRY.build("schedule", name)
    smallest = SMALLEST.get(name, 2)
    assert tables_for(schedule, smallest).T == smallest
    for T in range(1, smallest):
        with pytest.raises(DdpmkitError) as caught:
            tables_for(schedule, T)
        if smallest > 2 <= T:
            assert f"use T >= {smallest}" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["linear", "quadratic", "sigmoid", "warmup"])
def test_the_length_that_the_hint_names_works(name: str) -> None:
    for beta_T in np.round(np.linspace(0.003, 0.6, 40), 3).tolist():
        schedule = REGISTRY.build("schedule", f"{name}:beta_T={beta_T}")
        with pytest.raises(DdpmkitError, match="every beta must be below 1") as caught:
            schedule.betas(2)
        named = int((caught.value.hint or "").split("use T >= ")[1].split(",")[0])
        assert schedule.betas(named).max() < 1


@pytest.mark.parametrize("text", GOLDEN)
def test_schedule_against_golden_values(text: str) -> None:
    betas = REGISTRY.build("schedule", text).betas(1000)
    alpha_bars = np.cumprod(1 - betas)
    for value, golden in zip((betas[0], betas[-1], alpha_bars[499], alpha_bars[-1]), GOLDEN[text], strict=True):
        if golden is not None:
            assert float(f"{value:.{significant(golden)}g}") == float(golden)


def test_cosine_clips_one_beta_alone() -> None:
    assert np.sum(REGISTRY.build("schedule", "cosine").betas(1000) == 0.999) == 1


# --- sigmas ------------------------------------------------------------------------------------------------------


def reverse_bounds(tables: Tables) -> tuple[Any, Any]:
    """(beta-tilde_t, beta_t) of a chain from its steps alone, in extended precision."""
    a, b2 = tables.a.astype(np.longdouble), tables.b2.astype(np.longdouble)
    before, tilde = np.longdouble(0), []
    for factor, variance in zip(a, b2, strict=True):
        after = factor**2 * before + variance
        tilde.append(variance * before / after)
        before = after
    return np.array(tilde, dtype=np.float64), b2.astype(np.float64)


@functools.cache
def chains(schedule: str) -> list[Tables]:
    """Short, usual and long chains of a schedule, and a walk over ten steps of a thousand."""
    built = REGISTRY.build("schedule", schedule)
    smallest = SMALLEST.get(schedule, 2)
    out = [tables_for(built, max(T, smallest)) for T in (2, 50, 1000, 4000)]
    return [*out, out[2].strided(REGISTRY.build("sampler", "ancestral").timesteps(1000, 10))]


@pytest.mark.parametrize("schedule", of("schedule"))
@pytest.mark.parametrize("name", of("sigma"))
def test_sigma_lies_between_the_two_bounds(name: str, schedule: str) -> None:
    for tables in chains(schedule):
        low, high = REGISTRY.build("sigma", name).log_bounds(tables)
        tilde, beta = reverse_bounds(tables)
        for bound in (low, high):
            assert bound.shape == (tables.T,)
            assert bound.dtype == np.float64
            assert np.isfinite(bound).all()
            assert np.all(np.exp(bound) >= tilde * (1 - 1e-9))
            if not REGISTRY.build("sigma", name).fitted:  # data wider than a unit Gaussian may need more
                assert np.all(np.exp(bound) <= beta * (1 + 1e-9))
        assert np.all(low <= high)
        varies = REGISTRY.build("sigma", name).learned or REGISTRY.build("sigma", name).fitted
        assert np.array_equal(low, high) is not varies


@pytest.mark.parametrize("T", [50, 1000])
def test_the_two_sigmas_are_the_two_bounds(T: int) -> None:
    tables = tables_for(REGISTRY.build("schedule", "linear"), T)
    tilde, beta = reverse_bounds(tables)
    large = np.exp(REGISTRY.build("sigma", "beta").log_bounds(tables)[0])
    small = np.exp(REGISTRY.build("sigma", "beta-tilde").log_bounds(tables)[0])
    np.testing.assert_allclose(large, beta, rtol=1e-12)
    np.testing.assert_allclose(small[1:], tilde[1:], rtol=1e-9)


@pytest.mark.parametrize(("schedule", "first"), [("linear", -9.81673), ("cosine", -10.73408)])
def test_beta_tilde_at_the_first_step_is_that_of_the_second(schedule: str, first: float) -> None:
    tables = tables_for(REGISTRY.build("schedule", schedule), 1000)
    low, _ = REGISTRY.build("sigma", "beta-tilde").log_bounds(tables)
    assert low[0] == low[1]
    assert low[0] == pytest.approx(first, abs=5e-6)


# --- weightings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", of("schedule"))
@pytest.mark.parametrize("name", of("weighting"))
def test_weighting_is_finite_and_not_negative(name: str, schedule: str) -> None:
    weighting = REGISTRY.build("weighting", name)
    for tables in chains(schedule):
        for sigma in of("sigma"):
            weights = weighting.weights(tables, REGISTRY.build("sigma", sigma).log_bounds(tables)[1])
            assert weights.shape == (tables.T,)
            assert weights.dtype == np.float64
            assert np.isfinite(weights).all()
            assert np.all(weights >= 0)
            assert weights.max() > 0


@pytest.mark.parametrize("sigma", ["beta", "beta-tilde"])
def test_weightings_as_factors_on_the_eps_error(sigma: str) -> None:
    betas = REGISTRY.build("schedule", "linear").betas(1000)
    alphas, alpha_bars = 1 - betas, np.cumprod(1 - betas)
    tables = tables_for(REGISTRY.build("schedule", "linear"), 1000)
    log_sigma2 = fixed_log_variance(REGISTRY.build("sigma", sigma), tables)
    on_eps = {
        name: REGISTRY.build("weighting", name).weights(tables, log_sigma2) * (1 - alpha_bars) / alpha_bars
        for name in ("simple", "vlb")
    }
    np.testing.assert_allclose(on_eps["simple"], 1, rtol=1e-9)
    vlb = betas**2 / (2 * np.exp(log_sigma2) * alphas * (1 - alpha_bars))
    np.testing.assert_allclose(on_eps["vlb"], vlb, rtol=1e-9)


def test_only_the_weighting_that_sees_sigma_depends_on_it() -> None:
    tables = tables_for(REGISTRY.build("schedule", "cosine"), 50)
    one, other = np.full(50, -3.0), np.full(50, -2.0)
    for name in of("weighting"):
        weighting = REGISTRY.build("weighting", name)
        same = np.array_equal(weighting.weights(tables, one), weighting.weights(tables, other))
        assert same is not (weighting.uses_sigma and weighting.vlb_share(50) == 0)


# --- predictions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", of("schedule"))
@pytest.mark.parametrize("name", of("prediction"))
def test_prediction_says_of_itself_what_is_true(name: str, schedule: str) -> None:
    """Its target means x0, and its divisor is what an error of its answer makes of x0; or it says why it can't be."""
    prediction = REGISTRY.build("prediction", name)
    for tables in chains(schedule):
        reason = contract.impossible(prediction, tables)
        if reason is None:
            divisor = contract.declared_divisor(prediction, tables)
            assert divisor.shape == (tables.T,)
            assert divisor.dtype == np.float64
        else:
            assert reason.startswith(f"{name}-prediction ")
            assert "\n" not in reason


def test_which_predictions_are_impossible_and_what_is_named_instead() -> None:
    refused = {
        (name, schedule)
        for name in of("prediction")
        for schedule in of("schedule")
        if REGISTRY.build("prediction", name).impossible(chains(schedule)[1])
    }
    assert refused == {("eps", "jsd"), ("eps", "zero-snr"), ("v", "random-walk")}
    for name, schedule in refused:
        for other in REGISTRY.build("prediction", name).instead.replace(" or ", ", ").split(", "):
            assert REGISTRY.build("prediction", other).impossible(chains(schedule)[1]) is None
    assert not REGISTRY.build("prediction", "mu").between_steps
    for other in REGISTRY.build("prediction", "mu").instead.replace(" or ", ", ").split(", "):
        assert REGISTRY.build("prediction", other).between_steps


# --- backbones ---------------------------------------------------------------------------------------------------

NETWORKS = [
    *of("backbone"),
    "unet:channels=8:mults=1/2/2:blocks=2",
    "unet:channels=8:attention=8:heads=2",
    "unet:channels=4:middle_attention=false:mults=1",
    "unet:channels=8:fourier=true",
]
SHAPES = [(1, 1, 8), (1, 2, 16), (3, 6, 8)]


def built(text: str, cin: int = 1, cout: int = 1, size: int = 8, classes: int | None = None) -> torch.nn.Module:
    """A network whose zero-initialised ends are perturbed, so that everything behind them can be seen."""
    torch.manual_seed(0)
    net: torch.nn.Module = REGISTRY.build("backbone", text).build(
        in_channels=cin, out_channels=cout, image_size=size, num_classes=classes
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def batch(cin: int, size: int, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, cin, size, size, generator=generator), torch.linspace(0, 999, count)


@pytest.mark.parametrize(("cin", "cout", "size"), SHAPES)
@pytest.mark.parametrize("text", NETWORKS)
def test_backbone_output_shape(text: str, cin: int, cout: int, size: int) -> None:
    x, t = batch(cin, size)
    out = built(text, cin, cout, size)(x, t)
    assert out.shape == (3, cout, size, size)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("classes", [None, 10])
@pytest.mark.parametrize("text", NETWORKS)
def test_backbone_gradients_reach_every_parameter(text: str, classes: int | None) -> None:
    net = built(text, classes=classes)
    x, t = batch(1, 8)
    out = net(x, t, None if classes is None else torch.tensor([0, 3, 9]))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


@pytest.mark.parametrize("text", NETWORKS)
def test_backbone_sees_time_and_labels(text: str) -> None:
    net = built(text, classes=10)
    x, _ = batch(1, 8)
    early, late = torch.full((3,), 10.0), torch.full((3,), 900.0)
    zeros, threes = torch.zeros(3, dtype=torch.int64), torch.full((3,), 3)
    with torch.inference_mode():
        base = net(x, early, zeros)
        assert torch.equal(base, net(x, early, zeros))
        for other in (net(x, late, zeros), net(x, early, threes), net(x, early, None)):
            assert (base - other).abs().max() > 1e-4


@pytest.mark.long
@pytest.mark.parametrize("text", NETWORKS)
def test_backbone_samples_do_not_see_each_other(text: str) -> None:
    net = built(text)
    x, t = batch(1, 8)
    others, times = x.clone(), t.clone()
    others[1:] = 100 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    times[1:] = 3.0
    with torch.inference_mode():
        torch.testing.assert_close(net(x, t)[0], net(others, times)[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(net(x, t).flip(0), net(x.flip(0), t.flip(0)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", NETWORKS)
def test_backbone_state_round_trip(text: str) -> None:
    net = built(text, classes=10)
    other = REGISTRY.build("backbone", text).build(in_channels=1, out_channels=1, image_size=8, num_classes=10).eval()
    x, t = batch(1, 8)
    y = torch.tensor([0, 3, 9])
    with torch.inference_mode():
        assert not torch.equal(net(x, t, y), other(x, t, y))
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(x, t, y), other(x, t, y))


@pytest.mark.parametrize("text", NETWORKS)
def test_backbone_starts_at_zero(text: str) -> None:
    net = REGISTRY.build("backbone", text).build(in_channels=1, out_channels=1, image_size=8)
    x, t = batch(1, 8)
    assert torch.equal(net(x, t), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("text", "size", "part"),
    [
        ("unet", 7, "size 7 can't be halved 1 times"),
        ("unet:mults=1/1/1/1/1", 8, "size 8 can't be halved 4 times"),
        ("unet:mults=", 8, "mults"),
        ("unet:channels=6", 8, "multiple of 4"),
        ("unet:heads=3", 8, "heads=3 must divide it"),
    ],
)
def test_unet_refuses_what_it_cannot_build(text: str, size: int, part: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        REGISTRY.build("backbone", text).build(in_channels=1, out_channels=1, image_size=size)
    assert part in caught.value.message
    assert "-1 times" not in caught.value.message


def test_unet_refuses_attention_at_a_resolution_that_it_never_has() -> None:
    # An option that silently does nothing would be an ablation of nothing.
    with pytest.raises(DdpmkitError, match="attention"):
        REGISTRY.build("backbone", "unet:attention=16").build(in_channels=1, out_channels=1, image_size=8)


def test_unet_parameters_of_the_default_are_counted_by_hand() -> None:
    def block(cin: int, cout: int) -> int:
        conv = lambda i, o, k: i * o * k * k + o  # noqa: E731 - a formula
        skip = conv(cin, cout, 1) if cin != cout else 0
        return 2 * cin + conv(cin, cout, 3) + (64 * 2 * cout + 2 * cout) + 2 * cout + conv(cout, cout, 3) + skip

    embed = (16 * 64 + 64) + (64 * 64 + 64)
    ends = (9 * 16 + 16) + 2 * 16 + (9 * 16 + 1)
    down = block(16, 16) + (9 * 16 * 16 + 16) + block(16, 32)
    middle = 2 * block(32, 32) + 2 * 32 + (32 * 96 + 96) + (32 * 32 + 32)
    up = block(64, 32) + block(48, 32) + (9 * 32 * 32 + 32) + block(48, 16) + block(32, 16)
    net = REGISTRY.build("backbone", "unet").build(in_channels=1, out_channels=1, image_size=8)
    assert sum(p.numel() for p in net.parameters()) == embed + ends + down + middle + up


# --- samplers ----------------------------------------------------------------------------------------------------

WALKS = [*of("sampler"), "ddim:eta=1", "ddim:eta=0.5", "ddim:rederive=false"]
SPACINGS = [f"{name}:spacing={spacing}" for name in of("sampler") for spacing in ("quadratic", "trailing")]


@pytest.mark.parametrize("T", [2, 50, 97, 1000])
@pytest.mark.parametrize("text", [*of("sampler"), *SPACINGS])
def test_sampler_timesteps_rise_and_end_where_the_noise_is(text: str, T: int) -> None:
    sampler = REGISTRY.build("sampler", text)
    counts = range(1, T + 1) if T < 1000 else [1, 2, 3, 10, 50, 250, 333, 667, 999, 1000]
    for count in counts:
        times = list(sampler.timesteps(T, count))
        assert len(times) == count
        assert times == sorted(set(times))
        assert times[0] >= 0
        assert times[-1] == T - 1
        if text in of("sampler") and count > 1:
            # The default: both ends, evenly spread, so that no two gaps differ by more than the rounding.
            assert times[0] == 0
            assert np.ptp(np.diff(times)) <= 1
    assert list(sampler.timesteps(T, T)) == list(range(T))


@pytest.mark.parametrize("count", [0, -1, 51])
@pytest.mark.parametrize("name", of("sampler"))
def test_sampler_refuses_steps_that_are_not_there(name: str, count: int) -> None:
    with pytest.raises(DdpmkitError, match=f"^{count} sampling steps of a chain with T=50$"):
        REGISTRY.build("sampler", name).timesteps(50, count)


def test_fifty_of_a_thousand_as_documented() -> None:
    times = list(REGISTRY.build("sampler", "ancestral").timesteps(1000, 50))
    assert (times[:3], times[-2:]) == ([0, 20, 41], [979, 999])


def walk(sampler: Any, predict: Any, tables: Tables, log_sigma2: Any, noise: Any) -> torch.Tensor:
    """Walk with a denoiser and log-variances; a sampler that does not use the sigma axis takes its own."""
    deviations = np.exp(log_sigma2 / 2) if sampler.uses_sigma else np.sqrt(sampler.kernel(tables)[0])
    out: torch.Tensor = sampler.sample(lambda x, t: Denoised(predict(x, t), float(deviations[t])), tables, noise)
    return out


class Noise:
    """Unit normals by position, and a note of the positions that were asked for."""

    def __init__(self, count: int = 4) -> None:
        self.count = count
        self.asked: list[int] = []

    def __call__(self, k: int) -> torch.Tensor:
        self.asked.append(k)
        return torch.randn(self.count, 1, 8, 8, generator=torch.Generator().manual_seed(k))


@pytest.mark.parametrize("count", [None, 1, 2, 10])
@pytest.mark.parametrize("text", WALKS)
def test_sampler_arrives_where_the_denoiser_points(text: str, count: int | None) -> None:
    sampler = REGISTRY.build("sampler", text)
    tables = tables_for(REGISTRY.build("schedule", "cosine"), 50)
    if count is not None:
        tables = tables.strided(sampler.timesteps(50, count))
    goal = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8)
    visited: list[int] = []

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        visited.append(t)
        return goal

    noise = Noise()
    log_sigma2 = fixed_log_variance(REGISTRY.build("sigma", "beta"), tables)
    out = walk(sampler, predict, tables, log_sigma2, noise)
    # The posterior of the last step given a sure x0 is that x0, and no noise is added to it.
    torch.testing.assert_close(out, goal, rtol=0, atol=1e-5)
    assert out.dtype == torch.float32
    assert visited == list(range(tables.T))[::-1]
    assert noise.asked == sorted(set(noise.asked))
    assert noise.asked[0] == 0
    assert noise.asked[-1] < tables.T


@pytest.mark.parametrize("name", of("sampler"))
def test_sampler_clips_the_estimate_or_leaves_it(name: str) -> None:
    tables = tables_for(REGISTRY.build("schedule", "cosine"), 10)
    log_sigma2 = fixed_log_variance(REGISTRY.build("sigma", "beta"), tables)
    cls = REGISTRY.find("sampler", name).cls
    for clip, end in (("static", 1.0), ("dynamic", 1.0), ("none", 3.0)):
        sampler = cls(clip=clip)  # type: ignore[call-arg] # every built-in sampler has it
        out = walk(sampler, lambda x, t: torch.full_like(x, 3.0), tables, log_sigma2, Noise())
        torch.testing.assert_close(out, torch.full((4, 1, 8, 8), end))


@pytest.mark.parametrize("text", WALKS)
def test_only_the_sampler_that_says_so_uses_sigma(text: str) -> None:
    sampler = REGISTRY.build("sampler", text)
    tables = tables_for(REGISTRY.build("schedule", "cosine"), 10)
    ends = [
        walk(sampler, lambda x, t: (0.5 * x).tanh(), tables, np.full(10, log_sigma2), Noise())
        for log_sigma2 in (-3.0, -1.0)
    ]
    assert torch.equal(*ends) is not sampler.uses_sigma


@pytest.mark.parametrize(("eta", "draws"), [(0, 1), (0.5, 10), (1, 10)])
def test_ddim_draws_no_more_noise_than_eta_asks_for(eta: float, draws: int) -> None:
    tables = tables_for(REGISTRY.build("schedule", "cosine"), 10)
    noise = Noise()
    walk(REGISTRY.build("sampler", f"ddim:eta={eta}"), lambda x, t: x.tanh(), tables, np.zeros(10), noise)
    assert noise.asked == list(range(draws))


def test_ddim_with_eta_one_is_ancestral_with_beta_tilde() -> None:
    tables = tables_for(REGISTRY.build("schedule", "linear"), 50)
    tilde = fixed_log_variance(REGISTRY.build("sigma", "beta-tilde"), tables)
    ends = [
        walk(REGISTRY.build("sampler", text), lambda x, t: (0.5 * x).tanh(), tables, tilde, Noise())
        for text in ("ddim:eta=1", "ancestral")
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-4)


# --- data sets ---------------------------------------------------------------------------------------------------


def test_digits_are_split_as_documented(digits: Images) -> None:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(1797)
    # A permutation has no index twice, so the splits are disjoint.
    for split, index in (("train", order[:900]), ("validation", order[900:1000]), ("test", order[1000:])):
        images = getattr(digits, split)
        assert images.shape == (len(index), 1, 8, 8)
        assert images.dtype == np.uint8
        assert np.array_equal(images.reshape(-1, 64), pixels[index])
        assert np.array_equal(digits.labels[split], labels[index])
        assert digits.labels[split].dtype == np.int64
    assert [len(digits.train), len(digits.validation), len(digits.test)] == [900, 100, 797]
    assert (digits.levels, digits.train.max(), digits.train.min()) == (17, 16, 0)


def test_digits_are_the_same_every_time(digits: Images) -> None:
    dataset = REGISTRY.build("dataset", "digits")
    again = dataset.load()
    assert np.array_equal(again.train, digits.train)
    assert dataset.fingerprint() == dataset.fingerprint()
    assert len(dataset.fingerprint()) == 64
    images, labels = again.train.copy(), again.labels["train"].copy()
    again.train[:], again.labels["train"][:] = 0, 0  # whoever writes into what is his
    assert np.array_equal(dataset.load().train, images)
    assert np.array_equal(dataset.load().labels["train"], labels)
    # Each of the features that it names by default can be taken from it.
    for text in dataset.default_features:
        assert REGISTRY.build("features", text).load(digits)(digits.test[:5]).shape[0] == 5


def savez(path: Path, *, compressed: bool = False, **changes: Any) -> str:
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        "test_images": rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8),
        "train_labels": np.arange(30) % 10,
        "test_labels": np.arange(10),
    }
    arrays.update(changes)
    (np.savez_compressed if compressed else np.savez)(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


def npz(path: str, **params: Any) -> Any:
    return REGISTRY.find("dataset", "npz").cls(**{"path": path, "validation": 5, **params})  # type: ignore[call-arg] # it has these


def test_npz_sets_the_last_training_images_aside(tmp_path: Path) -> None:
    path = savez(tmp_path / "a.npz")
    with np.load(path) as held:
        train, test = held["train_images"].transpose(0, 3, 1, 2), held["test_images"].transpose(0, 3, 1, 2)
    images = npz(path).load()
    assert np.array_equal(images.train, train[:25])
    assert np.array_equal(images.validation, train[25:])
    assert np.array_equal(images.test, test)
    assert (images.levels, images.train.dtype) == (256, np.uint8)
    assert images.labels["validation"].tolist() == [5, 6, 7, 8, 9]


def test_npz_grey_images_get_a_channel(tmp_path: Path) -> None:
    grey = np.zeros((30, 8, 8), dtype=np.uint8)
    images = npz(savez(tmp_path / "a.npz", train_images=grey, test_images=grey, train_labels=None)).load()
    assert images.train.shape == (25, 1, 8, 8)
    assert images.labels == {}


def test_npz_fingerprint_is_of_the_content_and_not_of_the_path(tmp_path: Path) -> None:
    here = npz(savez(tmp_path / "a.npz"))
    assert npz(savez(tmp_path / "b.npz", compressed=True)).fingerprint() == here.fingerprint()
    other = np.zeros((30, 8, 8, 3), dtype=np.uint8)
    assert npz(savez(tmp_path / "c.npz", train_images=other)).fingerprint() != here.fingerprint()
    assert npz(str(tmp_path / "a.npz"), validation=6).fingerprint() != here.fingerprint()


def test_the_fingerprint_of_a_view_is_that_of_its_values() -> None:
    whole = np.random.default_rng(0).integers(0, 17, (6, 2, 4, 4)).astype(np.uint8)
    views = (whole[..., :1], whole[:, :1, ::2], whole[::2], whole.transpose(0, 1, 3, 2))
    for view in views:
        plain, strided = (Images(v, v[:1], v[:2], 17) for v in (np.ascontiguousarray(view), view))
        assert strided.fingerprint() == plain.fingerprint()


def test_npz_fingerprint_is_of_the_images_and_of_their_labels(tmp_path: Path) -> None:
    first, second = savez(tmp_path / "a.npz"), savez(tmp_path / "b.npz", train_labels=np.zeros(30, dtype=np.int64))
    assert npz(first).fingerprint() != npz(second).fingerprint()
    assert npz(savez(tmp_path / "c.npz")).fingerprint() == npz(first).fingerprint()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"train_images": None}, "has no array 'train_images'"),
        ({"test_images": None}, "has no array 'test_images'"),
        ({"train_images": np.zeros((30, 8, 8, 3))}, "train_images has dtype float64, not uint8"),
        ({"train_images": np.zeros((30, 8, 9, 3), dtype=np.uint8)}, "train_images has shape (30, 8, 9, 3)"),
        ({"train_images": np.zeros((30, 8, 8, 2), dtype=np.uint8)}, "train_images has shape (30, 8, 8, 2)"),
        ({"train_images": np.zeros((30, 64), dtype=np.uint8)}, "train_images has shape (30, 64)"),
        ({"train_images": np.zeros((0, 8, 8), dtype=np.uint8)}, "train_images has shape (0, 8, 8)"),
        ({"train_images": np.zeros((5, 8, 8, 3), dtype=np.uint8)}, "5 training images, 5 for validation"),
        ({"test_images": np.zeros((10, 16, 16, 3), dtype=np.uint8)}, "(3, 8, 8) and test_images (3, 16, 16)"),
        ({"train_images": np.array([{}], dtype=object)}, "is no readable .npz file"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_npz_names_the_array_that_is_wrong(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        npz(savez(tmp_path / "a.npz", **changes)).load()
    assert part in caught.value.message


def test_npz_refuses_a_grey_level_that_was_not_declared(tmp_path: Path) -> None:
    images = np.full((30, 8, 8, 3), 17, dtype=np.uint8)
    with pytest.raises(DdpmkitError, match="train_images holds the value 17, and levels=17 allows up to 16"):
        npz(savez(tmp_path / "a.npz", train_images=images), levels=17).load()


def test_npz_without_a_file(tmp_path: Path) -> None:
    for path, part in (("", "npz needs a file"), (str(tmp_path / "no.npz"), "there is no file")):
        with pytest.raises(DdpmkitError, match=part):
            npz(path).load()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_npz_is_never_a_crash(tmp_path: Path, compressed: bool) -> None:
    whole = Path(savez(tmp_path / "a.npz", compressed=compressed)).read_bytes()
    expected = npz(str(tmp_path / "a.npz")).load().train
    damaged, rng, refused = tmp_path / "d.npz", random.Random(0), 0
    for _ in range(150):
        blob = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(blob[: rng.choice([len(blob), rng.randrange(len(blob))])])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a damaged header may be called old-fashioned
                images = npz(str(damaged)).load()
        except DdpmkitError as err:
            refused += 1
            assert str(damaged) in err.message  # noqa: PT017 - damage that hits no data is no error
        else:
            assert np.array_equal(images.train, expected)
    assert refused > 100


def test_npz_whose_header_declares_more_than_memory_holds(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (10**13, 8, 8)}
    np.lib.format.write_array_header_1_0(header, shape)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", header.getvalue())
    with pytest.raises(DdpmkitError):
        npz(str(path)).load()


# --- features ----------------------------------------------------------------------------------------------------


# Those two bring weights of their own, that are not shipped.
FEATURES = [text for text in of("features") if text not in ("inception", "dinov2")]


@pytest.mark.parametrize("text", [*FEATURES, "pca:k=60"])
def test_features_are_one_float64_vector_an_image_however_they_are_split(text: str, digits: Images) -> None:
    features = REGISTRY.build("features", text)
    if text == "mnist":
        large = digits.test[:300].repeat(4, axis=2).repeat(4, axis=3)[:, :, 2:30, 2:30] * np.uint8(15)
        digits = Images(large, large, large, 256, {})
    extract = features.load(digits)
    images = digits.test[:300]
    whole = extract(images)
    assert whole.shape[0] == 300
    assert whole.ndim == 2
    assert whole.dtype == np.float64
    assert np.isfinite(whole).all()
    assert whole.std(0).min() > 0 or text == "pixels"
    parts = np.concatenate([extract(part) for part in np.split(images, [1, 8, 100, 257])])
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(extract(images[::-1])[::-1], whole, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(features.load(digits)(images), whole)
    assert len(features.fingerprint()) == 64
    assert features.label().isalnum()


def test_features_that_differ_have_another_fingerprint_and_label() -> None:
    several = [REGISTRY.build("features", text) for text in ("digits", "pca", "pca:k=8")]
    assert len({f.fingerprint() for f in several}) == 3
    assert [f.label() for f in several] == ["digits", "pca16", "pca8"]


@pytest.mark.long
def test_digit_features_are_the_network_of_the_shipped_file(digits: Images) -> None:
    from safetensors.numpy import load_file

    w = {k: v.astype(np.float64) for k, v in load_file(digits_features.WEIGHTS).items()}

    def conv(x: Any, name: str, stride: int = 1) -> Any:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
        out = np.einsum("nchwij,ocij->nohw", windows, w[f"{name}.weight"])
        return np.maximum(out + w[f"{name}.bias"][:, None, None], 0)

    x = digits.test[:300].astype(np.float64) / 8 - 1  # level k of 17 stands for -1 + 2k/16
    h = conv(conv(conv(x, "conv1"), "conv2", stride=2), "conv3").reshape(len(x), -1)
    expected = h @ w["hidden.weight"].T + w["hidden.bias"]
    got = REGISTRY.build("features", "digits").load(digits)(digits.test)
    assert got.shape == (797, 64)
    np.testing.assert_allclose(got[:300], expected, rtol=1e-4, atol=1e-4)
    # They tell digits apart that the classifier never saw.
    logits = np.maximum(got, 0) @ w["logits.weight"].T + w["logits.bias"]
    assert np.mean(logits.argmax(1) == digits.labels["test"]) > 0.95


def test_the_shipped_weights_have_the_hash_that_is_recorded() -> None:
    digest = hashlib.sha256(digits_features.WEIGHTS.read_bytes()).hexdigest()
    assert REGISTRY.build("features", "digits").fingerprint() == digest


def test_tampered_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Images) -> None:
    blob = bytearray(digits_features.WEIGHTS.read_bytes())
    blob[-1] ^= 1
    tampered = tmp_path / "digits.safetensors"
    tampered.write_bytes(blob)
    monkeypatch.setattr(digits_features, "WEIGHTS", tampered)
    with pytest.raises(DdpmkitError, match=r"digits\.safetensors is not the file that was shipped"):
        REGISTRY.build("features", "digits").load(digits)


def test_missing_weights_are_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Images
) -> None:
    monkeypatch.setattr(digits_features, "WEIGHTS", tmp_path / "digits.safetensors")
    with pytest.raises(DdpmkitError) as caught:
        REGISTRY.build("features", "digits").load(digits)
    assert caught.value.hint


@pytest.mark.parametrize(("shape", "levels"), [((5, 1, 16, 16), 17), ((5, 3, 8, 8), 17), ((5, 1, 8, 8), 256)])
def test_digit_features_refuse_other_images(shape: tuple[int, ...], levels: int) -> None:
    images = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(DdpmkitError, match="features 'digits' are for 8x8 images with 17 levels"):
        REGISTRY.build("features", "digits").load(Images(images, images, images, levels, {}))


def test_pca_is_that_of_the_training_images(digits: Images) -> None:
    ours = REGISTRY.build("features", "pca:k=8").load(digits)(digits.test)
    flat = {s: getattr(digits, s).reshape(-1, 64).astype(np.float64) for s in ("train", "test")}
    theirs = PCA(8, svd_solver="full").fit(flat["train"]).transform(flat["test"])
    # An axis has no sign.
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-6, atol=1e-6)


def test_pca_refuses_more_components_than_pixels_with_the_plan_and_than_vary_with_the_fit(digits: Images) -> None:
    with pytest.raises(DdpmkitError, match=r"k=65 .* which span 64 dimensions") as caught:
        REGISTRY.build("features", "pca:k=65").load(digits)
    assert caught.value.hint == "use --features pca:k=64"
    extract = REGISTRY.build("features", "pca:k=61").load(digits)
    with pytest.raises(DdpmkitError, match=r"k=61 .* which span 60 dimensions") as caught:
        extract(digits.train[:2])
    assert caught.value.hint == "use --features pca:k=60"


def test_pca_refuses_axes_of_rounding_noise(digits: Images) -> None:
    of_rank_4 = np.random.default_rng(0).integers(0, 2, (100, 4)) @ np.repeat(np.eye(4, dtype=np.int64), 16, 1)
    train = of_rank_4.reshape(100, 1, 8, 8).astype(np.uint8)
    images = Images(train, train, train, 17, {})
    assert np.isfinite(REGISTRY.build("features", "pca:k=4").load(images)(train)).all()
    extract = REGISTRY.build("features", "pca:k=5").load(images)
    with pytest.raises(DdpmkitError, match="which span 4 dimensions") as caught:
        extract(train)
    assert caught.value.hint == "use --features pca:k=4"
    with pytest.raises(DdpmkitError, match="k=4 ") as caught:
        REGISTRY.build("features", "pca:k=4").load(Images(train[:4], train, train, 17, {}))
    assert caught.value.hint == "use --features pca:k=3"


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (5, 4)])
def test_pca_takes_as_many_components_as_the_images_span(digits: Images, count: int, most: int) -> None:
    """N images less their mean span N - 1 dimensions: a further axis would be whichever one LAPACK hands out."""
    few = replace(digits, train=digits.train[:count])
    with pytest.raises(DdpmkitError, match=f"k={most + 1} components can't be had from {count} training") as caught:
        REGISTRY.build("features", f"pca:k={most + 1}").load(few)
    assert caught.value.hint == f"use --features {f'pca:k={most}' if most else 'pixels'}"
    if most:
        assert np.ptp(REGISTRY.build("features", f"pca:k={most}").load(few)(few.train), axis=0).min() > 1e-3
    with pytest.raises(DdpmkitError) as caught:
        REGISTRY.build("features", "mnist").load(few)
    assert caught.value.hint == f"use --features {f'pca:k={most}' if most else 'pixels'}"
