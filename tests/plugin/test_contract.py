"""What a component hands in is checked where it enters: random wrong answers are refused by name, right ones pass."""

from __future__ import annotations

import dataclasses
import math
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit import DdpmkitError, Images, Metric, Prediction, Sampler, Schedule, Sigma, Weighting
from ddpmkit.diffusion.reverse_variance import step_sigmas
from ddpmkit.diffusion.tables_for import Tables, checked_weights, log_bounds, tables_for
from ddpmkit.plugin import contract
from ddpmkit.plugin.blame import blame
from ddpmkit.sampling import sample

CHAIN = tables_for(ddpmkit.build("schedule", "cosine"), 20)
CPU = torch.device("cpu")
Give = Callable[[], Any]


# --- components whose every answer is given to them ---------------------------------------------------------------


class Odd:
    """Mixed into a component: its answer is what ``give`` says, call by call."""

    name = "odd"
    learned = fitted = uses_sigma = is_bound = decoder_first = False
    space = "x0"
    give: Give

    @classmethod
    def of(cls, give: Give, **attributes: Any) -> Any:
        made = cls.__new__(cls)
        for key, value in {"give": give, **attributes}.items():
            object.__setattr__(made, key, value)
        return made


class OddSchedule(Odd, Schedule):
    def betas(self, T: int) -> Any:
        return self.give()


class OddChain(Odd, Schedule):
    prior: Any = 1.0

    def steps(self, T: int) -> Any:
        return self.give()

    def prior_variance(self, T: int) -> Any:
        return self.prior


class OddSigma(Odd, Sigma):
    def log_bounds(self, tables: Tables) -> Any:
        return self.give()


class OddFit(OddSigma):
    fitted = True
    most: Any = 1.0

    def x0_variance(self, tables: Tables, statistics: Any) -> Any:
        return self.give()

    def largest_last_variance(self, levels: int) -> Any:
        return self.most


class OddWeighting(Odd, Weighting):
    def weights(self, tables: Tables, log_sigma2: Any) -> Any:
        return self.give()

    def vlb_share(self, T: int) -> Any:
        return self.give()


class OddPrediction(Odd, Prediction):
    def target(self, at: Any, x0: Any, eps: Any, xt: Any) -> Any:
        return self.give()

    def x0hat(self, at: Any, xt: Any, out: Any) -> Any:
        return self.give()

    def divisor(self, tables: Tables) -> Any:
        return self.give()

    def impossible(self, tables: Tables) -> Any:
        return self.give()


class OddSampler(Odd, Sampler):
    def timesteps(self, T: int, count: int) -> Any:
        return self.give()

    def kernel(self, tables: Tables) -> Any:
        return self.give()

    def sample(self, denoise: Any, tables: Tables, noise: Any) -> Any:
        return self.give()


class OddDataset(Odd, ddpmkit.Dataset):
    def load(self) -> Any:
        return self.give()


class OddFeatures(Odd):
    name_of: Any = "odd"
    print_of: Any = "0" * 64

    def label(self) -> Any:
        return self.name_of

    def fingerprint(self) -> Any:
        return self.print_of

    def load(self, data: Images) -> Any:
        return lambda levels: self.give()


class OddBackbone(Odd):
    def build(self, **shape: Any) -> Any:
        return self.give()


# --- wrong answers, of arrays -------------------------------------------------------------------------------------


def always(value: Any) -> Give:
    return lambda: value


def spoil(good: Any, dice: random.Random, rng: np.random.Generator, limits: list[Callable[[Any], Any]]) -> Give:
    """One random fault in a good array (T,): of shape, type, finiteness, range, or between two calls."""
    good = np.asarray(good, dtype=np.float64)
    t = dice.randrange(len(good))

    def put(value: float) -> Any:
        out = good.copy()
        out[t] = value
        return out

    faults = [
        always(good[1:]), always(np.append(good, good[-1])), always(good[:, None]), always(good[None]),
        always(float(good[0])), always(None), always("many"), always([None] * len(good)),
        always(good.astype(complex)), always(good > 0), always([list(good), [1.0]]),
        always(put(np.nan)), always(put(np.inf)), always(put(-np.inf)),
        lambda: good * (1 + 1e-3 * rng.random(len(good))),
        *(always(put(limit(t))) for limit in limits),
    ]  # fmt: skip
    return dice.choice(faults)


def shaped(good: Any, dice: random.Random) -> Give:
    """The same numbers in one of the forms that are as good."""
    array = np.asarray(good, dtype=np.float64)
    doubled = np.repeat(array, 2)[::2]  # a view with a stride
    return always(dice.choice([array, array.tolist(), tuple(array), doubled, torch.from_numpy(array.copy())]))


def named(kind: str, call: Callable[[], Any], about: Any = None) -> str:
    try:
        call()
    except DdpmkitError as err:
        caught = err
    else:
        pytest.fail(f"nobody refused {about!r}")
    assert f"{kind} 'odd'" in caught.message
    assert caught.hint
    assert "\n" not in caught.message + caught.hint
    return caught.message


@pytest.mark.parametrize("seed", range(60))
def test_random_wrong_arrays_are_refused_by_the_name_of_their_component_and_right_ones_pass(seed: int) -> None:
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    T = 20
    betas = np.sort(rng.uniform(1e-4, 0.3, T))
    below, beyond = [lambda t: -dice.random(), lambda t: 0.0], [lambda t: 1 + dice.choice([1e-9, 0.01, 3])]
    wrong = spoil(betas, dice, rng, below + beyond)
    named("schedule", lambda: tables_for(OddSchedule.of(wrong), T), wrong())
    right = shaped(betas, dice)
    np.testing.assert_array_equal(tables_for(OddSchedule.of(right), T).b2, betas)

    a = np.sqrt(1 - betas) * 1.01
    spoilt = spoil(betas, dice, rng, below)
    pairs: list[Give] = [
        lambda: (a, spoilt()), lambda: a, lambda: (a, betas, a), lambda: None,
        lambda: (spoil(a, random.Random(seed), rng, [lambda t: -0.5])(), betas),
    ]  # fmt: skip
    pair = dice.choice(pairs)
    named("schedule", lambda: tables_for(OddChain.of(pair), T), pair())
    prior = dice.choice([0.0, -1.0, np.nan, np.inf, None, "1", [1.0], np.ones(T), 1j])
    named("schedule", lambda: tables_for(OddChain.of(always((a, betas)), prior=prior), T), prior)
    assert tables_for(OddChain.of(always((a, betas)), prior=dice.choice([2, 2.0, np.float32(2)])), T).T == T

    low = np.log(betas)
    huge = [lambda t: 1e4, lambda t: -1e4]
    spoilt_low = spoil(low, dice, rng, huge)
    for give in (lambda: (spoilt_low(), low + 1), lambda: (low, spoilt_low()), lambda: (low + 1, low), always(low)):
        named("sigma", lambda give=give: log_bounds(OddSigma.of(give, learned=True), CHAIN), give())  # type: ignore[misc]
    got = log_bounds(OddSigma.of(lambda: (shaped(low, dice)(), low)), CHAIN)
    assert all(v.dtype == np.float64 and v.flags.c_contiguous for v in got)

    x0 = rng.random(T)
    spoilt_x0 = spoil(x0, dice, rng, below[:1])
    sampler = ddpmkit.build("sampler", "ancestral")
    statistics = {"error": x0}
    named("sigma", lambda: step_sigmas(sampler, OddFit.of(spoilt_x0), CHAIN, CHAIN, 17, statistics), spoilt_x0())
    most = dice.choice([0.0, -1.0, np.nan, None, "much"])
    odd = OddFit.of(always(x0), most=most)
    named("sigma", lambda: step_sigmas(sampler, odd, CHAIN, CHAIN, 17, statistics), most)
    good = OddFit.of(shaped(x0, dice), most=dice.choice([1, 0.5, np.inf]))
    assert step_sigmas(sampler, good, CHAIN, CHAIN, 17, statistics) is not None

    weights = rng.random(T)
    spoilt_weights = spoil(weights, dice, rng, below[:1])
    named("weighting", lambda: checked_weights(OddWeighting.of(spoilt_weights), CHAIN, low), spoilt_weights())
    named("weighting", lambda: checked_weights(OddWeighting.of(always(np.zeros(T))), CHAIN, low))
    np.testing.assert_array_equal(checked_weights(OddWeighting.of(shaped(weights, dice)), CHAIN, low), weights)
    share = dice.choice([-0.1, np.nan, np.inf, None, "half", [0.1]])
    named("weighting", lambda: contract.vlb_share(OddWeighting.of(always(share)), T), share)
    assert contract.vlb_share(OddWeighting.of(always(0)), T) == 0

    spoilt_divisor = spoil(weights + 0.1, dice, rng, below)
    named("prediction", lambda: contract.divisor(OddPrediction.of(spoilt_divisor), CHAIN), spoilt_divisor())
    right = shaped(weights + 0.1, dice)
    np.testing.assert_array_equal(contract.divisor(OddPrediction.of(right), CHAIN), weights + 0.1)
    words = iter(["no", "no, for another reason"])
    reason = dice.choice([always(""), always(7), always(False), always("two\nlines"), lambda: next(words)])
    named("prediction", lambda: contract.impossible(OddPrediction.of(reason), CHAIN))
    assert contract.impossible(OddPrediction.of(always(None)), CHAIN) is None
    assert contract.impossible(OddPrediction.of(always("it needs more")), CHAIN) == "it needs more"

    spoilt_kernel = spoil(betas, dice, rng, below[:1])
    kernel = OddSampler.of(lambda: (spoilt_kernel(), betas))
    beta = ddpmkit.build("sigma", "beta")
    named("sampler", lambda: step_sigmas(kernel, beta, CHAIN, CHAIN, 17, None), spoilt_kernel())
    factors = OddSampler.of(lambda: (betas, -betas))  # a factor may have any sign
    assert step_sigmas(factors, beta, CHAIN, CHAIN, 17, None) is not None


@pytest.mark.parametrize("seed", range(40))
def test_random_wrong_timesteps_are_refused_and_right_ones_pass(seed: int) -> None:
    dice = random.Random(seed)
    T = dice.randrange(2, 60)
    count = dice.randrange(1, T + 1)
    good = [*sorted(dice.sample(range(T - 1), count - 1)), T - 1]
    forms = [good, tuple(good), np.array(good), np.array(good, dtype=np.uint8), torch.tensor(good)]
    assert contract.timesteps(OddSampler.of(always(dice.choice(forms))), T, count) == good
    wrong = [
        good[1:], [*good, T], [*good[:-1], T], [], None, 7, "steps", [float(t) + 0.5 for t in good],
        [[t] for t in good], np.array(good, dtype=float), [t - 1 for t in good], [True] * count,
        [-1] * count, good[::-1] if count > 1 else [T], [good[-1]] * (count + 1),
    ]  # fmt: skip
    for given in wrong:
        named("sampler", lambda given=given: contract.timesteps(OddSampler.of(always(given)), T, count), given)  # type: ignore[misc]
    if count < T:
        left = sorted(dice.sample(range(T - 1), count))
        said = named("sampler", lambda: contract.timesteps(OddSampler.of(always(left)), T, count))
        assert f"ends its timesteps at {left[-1]}" in said
        assert f"step {T - 1}" in said
        calls = iter([good, [*left[:-1], T - 1] if left[:-1] != good[:-1] else left])
        named("sampler", lambda: contract.timesteps(OddSampler.of(lambda: next(calls)), T, count))


SHAPE = (4, 1, 6, 6)


@pytest.mark.parametrize("seed", range(30))
def test_random_wrong_draws_are_refused_and_right_ones_pass(seed: int) -> None:
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    good = torch.randn(SHAPE, generator=generator).clamp(-1, 1)
    swapped = good.to(memory_format=torch.channels_last)
    wrong = [
        good[:1], good[0], good[:, :, 1:], good.expand(4, 2, 6, 6), good.long(), good.to(torch.bool), good.numpy(),
        None, (good,), torch.empty(SHAPE, device="meta"), good.to(torch.complex64),
    ]  # fmt: skip

    def drawn(out: Any) -> torch.Tensor:
        return sample(
            lambda x, t: None, CHAIN, OddSampler.of(always(out)),  # type: ignore[arg-type, return-value]
            count=4, shape=SHAPE[1:], levels=17, seed=0, micro_batch=4, device=CPU,
        )  # fmt: skip

    for out in wrong:
        named("sampler", lambda out=out: drawn(out), out)  # type: ignore[misc]
    expected = drawn(good)
    assert torch.equal(drawn(dice.choice([swapped, good.double(), good.clone()])), expected)


@pytest.mark.parametrize("seed", range(10))
def test_random_wrong_answers_of_a_prediction_are_refused_and_right_ones_pass(seed: int) -> None:
    good = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    at: Any = None
    wrong = [
        good[:1], good[0], good.expand(4, 2, 6, 6), good.long(), good.to(torch.bool), good.numpy(), None, (good,), 1.0,
        torch.empty(SHAPE, device="meta"), good.to(torch.complex64),
    ]  # fmt: skip
    for out in wrong:
        odd = OddPrediction.of(always(out))
        named("prediction", lambda odd=odd: contract.target(odd, at, good, good, good), out)  # type: ignore[misc]
        named("prediction", lambda odd=odd: contract.x0hat(odd, at, good, good), out)  # type: ignore[misc]
    other = good.clone()  # and not one of what it was shown
    assert contract.target(OddPrediction.of(always(other)), at, good, good, good) is other
    assert contract.target(OddPrediction.of(always(good)), at, other, good, other) is good
    assert contract.x0hat(OddPrediction.of(always(good)), at, good, good) is good


class Asks(Sampler):
    """A sampler that asks its denoiser for what it was told to ask."""

    name = "odd"

    def __init__(self, x: Callable[[torch.Tensor], Any], t: Any) -> None:
        object.__setattr__(self, "asked", (x, t))

    def timesteps(self, T: int, count: int) -> Any:
        return range(T)

    def sample(self, denoise: Any, tables: Tables, noise: Any) -> torch.Tensor:
        x, t = self.asked  # type: ignore[attr-defined]
        found: torch.Tensor = denoise(x(noise(0)), t)
        return found


@pytest.mark.parametrize(
    ("x", "t", "told"),
    [
        (lambda x: x, -1, "asks for step -1"),  # would be the last row of every table
        (lambda x: x, 20, "asks for step 20"),
        (lambda x: x, 3.0, "asks for step 3.0"),
        (lambda x: x, None, "asks for step None"),
        (lambda x: x[:1], 3, "gives shape (1, 1, 6, 6), not (4, 1, 6, 6)"),
        (lambda x: x.double(), 3, "gives float64, not float32"),
        (lambda x: x.numpy(), 3, "gives a ndarray and no tensor"),
    ],
)
def test_a_sampler_that_asks_for_what_is_not_there_is_refused(x: Any, t: Any, told: str) -> None:
    def noise(k: int) -> torch.Tensor:
        return torch.zeros(SHAPE)

    said = named("sampler", lambda: contract.walk(Asks(x, t), lambda x, t: x, CHAIN, noise))  # type: ignore[arg-type, return-value]
    assert told in said
    for step in (0, 19, np.int64(7), torch.tensor(5)):
        seen: list[Any] = []

        def denoise(x: torch.Tensor, t: int, seen: list[Any] = seen) -> Any:
            seen.append(t)
            return x

        contract.walk(Asks(lambda x: x, step), denoise, CHAIN, noise)
        assert seen == [int(step)]
        assert type(seen[0]) is int


# --- data sets and features ---------------------------------------------------------------------------------------


def some_images(rng: np.random.Generator, labelled: bool) -> Images:
    shape = (int(rng.integers(1, 4)), *[int(rng.integers(2, 7))] * 2)
    counts = {"train": 9, "validation": 1, "test": 2}
    splits = {s: rng.integers(0, 17, (n, *shape), dtype=np.uint8) for s, n in counts.items()}
    labels = {s: rng.integers(0, 10, n) for s, n in counts.items()} if labelled else {}
    return Images(**splits, levels=17, labels=labels)


@pytest.mark.parametrize("seed", range(40))
def test_random_wrong_images_are_refused_and_right_ones_pass(seed: int) -> None:
    rng, dice = np.random.default_rng(seed), random.Random(seed)
    good = some_images(rng, labelled=bool(seed % 2))
    odd = {s: np.asfortranarray(np.repeat(getattr(good, s), 2, axis=0)[::2]) for s in ("train", "validation", "test")}
    found = contract.images(OddDataset.of(always(dataclasses.replace(good, **odd))), again=True)
    assert found.fingerprint() == good.fingerprint()
    assert all(getattr(found, s).flags.c_contiguous for s in odd)
    split = dice.choice(["train", "validation", "test"])
    array = getattr(good, split)
    wrong = {
        "dtype": array.astype(dice.choice([np.int64, np.float32, np.int8])),
        "dimensions": array[:, 0],
        "empty": array[:0],
        "another size": array.repeat(2, axis=2).repeat(2, axis=3),
        "not square": array[:, :, 1:],
        "level": np.full_like(array, 17),
        "list": array.tolist(),
        "channels": np.concatenate([array, array], axis=1),
    }
    for what, given in wrong.items():
        named(
            "dataset",
            lambda g=given: contract.images(OddDataset.of(always(dataclasses.replace(good, **{split: g})))),
            what,
        )  # type: ignore[misc]
    for levels in (1, 0, 257, "17", 17.0, True, None):
        named(
            "dataset",
            lambda n=levels: contract.images(OddDataset.of(always(dataclasses.replace(good, levels=n)))),
            levels,
        )  # type: ignore[misc]
    whole = {s: np.zeros(len(getattr(good, s)), dtype=np.int64) for s in odd}
    for labels in (
        None,
        {"train": whole["train"]},
        {**whole, split: whole[split][1:]},
        {**whole, split: whole[split] - 1},
        {**whole, split: whole[split].astype(np.int32)},
        {**whole, split: whole[split].tolist()},
    ):
        named(
            "dataset",
            lambda v=labels: contract.images(OddDataset.of(always(dataclasses.replace(good, labels=v)))),
            labels,
        )  # type: ignore[misc]
    named("dataset", lambda: contract.images(OddDataset.of(always(dice.choice([None, (), good.train])))))
    named("dataset", lambda: contract.images(OddDataset.of(lambda: some_images(rng, False)), again=True))


def test_an_empty_validation_split_is_named() -> None:
    images = some_images(np.random.default_rng(0), False)
    bare = dataclasses.replace(images, validation=images.validation[:0])
    assert "its validation split is empty" in named("dataset", lambda: contract.images(OddDataset.of(always(bare))))


@pytest.mark.parametrize("seed", range(30))
def test_random_wrong_features_are_refused_and_right_ones_pass(seed: int) -> None:
    from ddpmkit.distances import prepare

    rng, dice = np.random.default_rng(seed), random.Random(seed)
    data = ddpmkit.build("dataset", "digits").load()
    n = len(data.test)
    good = rng.normal(size=(n, 5))

    form = dice.choice([good, good.astype(np.float32), np.asfortranarray(good), (good * 99).astype(np.int64)])
    made = prepare(data, OddFeatures.of(always(form)))
    assert made.features is not None
    np.testing.assert_array_equal(made.features, np.asarray(form, dtype=np.float64))
    assert made.features.flags.c_contiguous

    hole = good.copy()
    hole[dice.randrange(n), dice.randrange(5)] = dice.choice([np.nan, np.inf])
    for rows in (good[:-1], good[:, 0], good[:, :, None], good[:, :0], good.astype(complex), hole, None, "features"):
        named("features", lambda rows=rows: prepare(data, OddFeatures.of(always(rows))), rows)  # type: ignore[misc]
    noisy = OddFeatures.of(lambda: rng.normal(size=(contract.PROBE, 5)))
    assert "other features of the same images" in named("features", prepare(data, noisy, taken=good).check_again)
    for attribute in ("name_of", "print_of"):
        for text in (None, "", "  ", 3, b"odd", "two\nlines"):
            named("features", lambda a=attribute, v=text: prepare(data, OddFeatures.of(always(good), **{a: v})), text)  # type: ignore[misc]


def test_features_of_another_load_than_the_reference_s_are_refused() -> None:
    """An extractor that draws its projection when it is loaded: reference and samples would lie in two spaces."""
    from ddpmkit.distances import prepare

    data, rng = ddpmkit.build("dataset", "digits").load(), np.random.default_rng(0)

    class Drawn(OddFeatures):
        def load(self, data: Images) -> Any:
            axes = rng.normal(size=(64, 3))
            return lambda levels: levels.reshape(len(levels), -1) @ axes

    first = prepare(data, Drawn.of(always(None)))
    named("features", prepare(data, Drawn.of(always(None)), taken=first.features).check_again)
    first.check_again()


# --- networks -----------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A convolution whose output goes through ``change``."""

    def __init__(self, change: Callable[[torch.Tensor], Any], channels: int = 2) -> None:
        super().__init__()
        self.layer, self.change = nn.Conv2d(channels, channels, 1), change

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: Any = None) -> Any:
        return self.change(self.layer(x))


def network(net: Any) -> nn.Module:
    return contract.network(OddBackbone.of(always(net)), in_channels=2, out_channels=2, image_size=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_random_wrong_outputs_of_a_network_are_refused_in_training_and_after_and_right_ones_pass(seed: int) -> None:
    from ddpmkit.training import ema

    dice = random.Random(seed)
    x, t = torch.randn(dice.randrange(2, 6), 2, 4, 4), torch.zeros(5)
    wrong: list[Callable[[torch.Tensor], Any]] = [
        lambda o: o[:1], lambda o: o[0], lambda o: o[:, :1], lambda o: o.repeat(1, 2, 1, 1), lambda o: o[..., :1],
        lambda o: o.flatten(1), lambda o: o.long(), lambda o: o.mean(), lambda o: (o,), lambda o: None,
        lambda o: {"sample": o}, lambda o: o.to("meta"), lambda o: torch.complex(o, o), lambda o: o.detach().numpy(),
    ]  # fmt: skip
    change = dice.choice(wrong)
    net = network(Net(change))
    for used in (net, ema.average_of(net)):
        said = named("backbone", lambda used=used: used(x, t))  # type: ignore[misc]
        assert "network gives" in said
    right = dice.choice([lambda o: o, lambda o: o.bfloat16(), lambda o: o.to(memory_format=torch.channels_last)])
    assert network(Net(right))(x, t).shape == x.shape
    cut = network(Net(lambda o: o.detach()))
    named("backbone", lambda: cut(x, t))
    cut.eval()(x, t)
    with torch.inference_mode():
        cut(x, t)


@pytest.mark.parametrize("seed", range(10))
def test_a_network_that_is_none_or_starts_out_of_range_is_refused(seed: int) -> None:
    dice = random.Random(seed)
    net = Net(lambda o: o)
    with torch.no_grad():
        net.layer.weight.view(-1)[dice.randrange(4)] = dice.choice([torch.nan, torch.inf])
    for given in (net, None, Net, lambda x, t: x, nn.Identity(), nn.LazyConv2d(2, 1), (net,)):
        named("backbone", lambda given=given: network(given), given)  # type: ignore[misc]


@pytest.mark.long
def test_the_checks_of_a_network_wait_for_no_device() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.device("meta"):
        net = network(Net(lambda o: o))
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = net(torch.empty(3, 2, 4, 4, device="meta"), torch.empty(3, device="meta"))
        assert out.shape == (3, 2, 4, 4)
    with pytest.raises(DdpmkitError, match="backbone 'odd': its network gives shape"):
        network(Net(lambda o: o[:1])).to("meta")(torch.empty(3, 2, 4, 4, device="meta"), None)


def test_a_learned_sigma_is_looked_at_where_the_network_s_output_goes_through_it() -> None:
    class Learns(OddSigma):
        learned = True

        def from_network(self, low: Any, high: Any, out: Any) -> Any:
            return self.give()

    low, out = torch.zeros(3, 1, 1, 1), torch.zeros(3, 2, 4, 4)
    for wrong in (out[:1], out[:, :1], low, None, out.long(), 0.0):
        named("sigma", lambda w=wrong: contract.network_log_variance(Learns.of(always(w)), low, low, out), wrong)  # type: ignore[misc]
    assert contract.network_log_variance(Learns.of(always(out)), low, low, out) is out


# --- what a component does to what it is shown --------------------------------------------------------------------


def test_a_component_that_writes_into_what_it_is_shown_changes_nothing_for_the_others() -> None:
    class Writes(OddSigma):
        def log_bounds(self, tables: Tables) -> Any:
            variance = tables.b2
            variance[0] = variance[1]
            return np.log(variance), np.log(variance)

    class Weighs(OddWeighting):
        def weights(self, tables: Tables, log_sigma2: Any) -> Any:
            log_sigma2 -= 1
            tables.signal[:] = 1
            return tables.signal

    tables = tables_for(ddpmkit.build("schedule", "linear"), 50)
    before, shown = tables.b2.copy(), np.zeros(50)
    log_bounds(Writes.of(always(None)), tables)
    checked_weights(Weighs.of(always(None)), tables, shown)
    np.testing.assert_array_equal(tables.b2, before)
    assert not shown.any()
    assert tables.signal[-1] < 1


def test_a_schedule_that_gives_its_own_array_and_changes_it_is_caught() -> None:
    kept = np.full(20, 0.1)

    def give() -> Any:
        kept[:] *= 0.9
        return kept

    assert "gives other betas" in named("schedule", lambda: tables_for(OddSchedule.of(give), 20))


# --- messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ({32: 1.01, 49: 1.5}, "beta at step 32 is 1.01, and none may be above 1"),
        ({49: 1.0 + 2**-52}, "beta at step 49 is 1.0000000000000002, and none may be above 1"),
        ({10: 1.0, 40: 7.0}, "beta at step 40 is 7, and none may be above 1"),
        ({10: 1.0}, "beta at step 10 is 1 and leaves no signal; only the last may"),
        ({7: -0.25, 3: 0.0}, "step 3 adds no noise, its variance is 0"),
        ({7: -0.25}, "step 7 adds no noise, its variance is -0.25"),
        ({20: np.nan}, "betas that are not finite: step 20 is nan"),
    ],
)
def test_a_beta_out_of_range_is_told_with_its_step_and_its_own_value(at: dict[int, float], told: str) -> None:
    betas = np.linspace(0.01, 0.2, 50)
    for t, value in at.items():
        betas[t] = value
    assert told in named("schedule", lambda: tables_for(OddSchedule.of(always(betas)), 50))


def test_the_last_beta_may_be_one() -> None:
    betas = np.append(np.full(9, 0.1), 1.0)
    assert tables_for(OddSchedule.of(always(betas)), 10).signal[-1] == 0


def test_a_chain_that_overflows_is_told() -> None:
    said = named("schedule", lambda: tables_for(OddChain.of(always((np.full(20, 1e30), np.ones(20)))), 20))
    assert "leaves the range of float64 at step" in said


def test_what_a_component_raises_is_told_with_its_name_and_our_errors_pass() -> None:
    def give() -> Any:
        raise SystemExit(3)

    assert named("schedule", lambda: tables_for(OddSchedule.of(give), 20)) == "schedule 'odd' failed: SystemExit: 3"
    for error in (KeyboardInterrupt(), MemoryError("no"), RuntimeError("two\nlines"), BaseException()):
        with pytest.raises(DdpmkitError, match=f"^sampler 'x' failed: {type(error).__name__}"), blame("sampler", "x"):
            raise error
    for error in (DdpmkitError("ours", "hint"), ddpmkit.errors.Diverged("nan"), ddpmkit.errors.Interrupted("stop")):
        with pytest.raises(type(error), match=str(error)), blame("sampler", "x"):
            raise error


def test_a_real_ctrl_c_is_nobody_s_fault(keyboard: None) -> None:
    """However deep inside of a component's code it comes."""
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt), blame("sampler", "x"), blame("schedule", "y"):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(DdpmkitError, match="schedule 'y' failed: KeyboardInterrupt"), blame("schedule", "y"):
        raise KeyboardInterrupt


@dataclass(frozen=True)
class _Both(Sigma):
    """A sigma that says two things."""

    name = "odd"
    learned = True
    fitted = True

    def log_bounds(self, tables: Tables) -> Any:
        return np.log(tables.b2), np.log(tables.b2)


def test_a_sigma_is_learned_or_fitted() -> None:
    assert "one of the two" in named("sigma", lambda: log_bounds(_Both(), CHAIN))


# --- events of an executor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [None, "start", {}, {"event": 3}, {"event": "start"}, {"event": "end", "stage": "b", "state": "done"},
     {"event": "end", "stage": "a"}, {"event": "end", "stage": "a", "state": "finished"},
     {"event": "finished", "stage": "a"}],
    ids=str,
)  # fmt: skip
def test_a_wrong_event_is_the_executor_s(event: Any) -> None:
    named("executor", lambda: contract.event(Odd.of(always(None)), event, {"a": None}), event)
    for right in ({"event": "log", "text": "hello"}, {"event": "end", "stage": "a", "state": "failed"}):
        assert contract.event(Odd.of(always(None)), right, {"a": None}) is right


@pytest.mark.parametrize(
    "event",
    [
        {"event": "log"}, {"event": "log", "text": 3}, {"event": "progress", "stage": "a"},
        {"event": "progress", "stage": "a", "done": "half"}, {"event": "progress", "done": 0.5},
        {"event": "progress", "stage": "a", "done": math.nan}, {"event": "progress", "stage": "a", "done": 7.0},
        {"event": "progress", "stage": "a", "done": -1}, {"event": "progress", "stage": "a", "done": True},
        {"event": "attempt", "stage": ["a"]}, {"event": "start", "stage": "a", "worker": "one"}, {"event": "requeued"},
    ],
    ids=str,
)  # fmt: skip
def test_an_event_of_any_kind_is_looked_at(event: Any) -> None:
    named("executor", lambda: contract.event(Odd.of(always(None)), event, {"a": None}), event)


@pytest.mark.parametrize(("value", "fine"), [(-torch.inf, True), (torch.inf, True), (torch.nan, False)])
def test_a_buffer_may_be_infinite_and_is_never_nan(value: float, fine: bool) -> None:
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    net.register_buffer("mask", torch.triu(torch.full((4, 4), value), 1))

    def build() -> torch.nn.Module:
        return contract.network(OddBackbone.of(always(net)), in_channels=1, out_channels=1, image_size=8)

    if fine:
        assert build() is net
    else:
        assert "'mask' of its network starts with values that are not finite" in named("backbone", build)


def test_ctrl_c_inside_a_component_is_no_failure_of_its_own_under_a_study_s_handler(keyboard: None) -> None:
    import os
    import signal

    from ddpmkit.plugin.blame import blame
    from ddpmkit.study.ending import stop_flag

    with stop_flag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt), blame("features", "odd"):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(DdpmkitError, match="features 'odd' failed: KeyboardInterrupt"), blame("features", "odd"):
        raise KeyboardInterrupt  # that nobody typed


@pytest.mark.parametrize("field", ["unit", "better", "needs", "has_floor", "used_by", "name", "version"])
def test_what_a_kind_declares_is_no_parameter_by_accident(field: str) -> None:
    # A type behind the name makes a dataclass take it for a field: it would be set by text, and enter ids.
    from ddpmkit.plugin.contract import class_problem
    from ddpmkit.plugin.interfaces import KINDS

    def made(types: dict[str, Any]) -> type:
        given = {
            "unit": "bits",
            "better": "lower",
            "needs": ("pixels",),
            "has_floor": True,
            "used_by": "x",
            "version": 1,
        }
        body = {**given, "name": "mine", "__doc__": "Mine.", "__annotations__": types, "value": lambda self, sets: 0.0}
        return dataclasses.dataclass(frozen=True)(type("Mine", (Metric,), body))

    kind = KINDS["metric"]
    assert class_problem(kind, made({})) == ""
    said = class_problem(kind, made({field: "tuple[str, ...]" if field == "needs" else "str"}))
    assert said == f"class Mine is not usable: '{field}' is a field; write {field} = ... without a type"
