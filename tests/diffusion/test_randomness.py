"""Counter-based random numbers: Random123's vectors, a plain-integer re-implementation, and their distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ddpmkit.randomness import normal, permutation, philox, stream_key, stream_seed, uniform

torch.set_num_threads(1)


def words(text):
    return tuple(int(w, 16) for w in text.split())


@pytest.mark.parametrize(
    ("counter", "key", "out"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers_of_random123(counter, key, out):
    got = philox(words(key), *(torch.tensor([w]) for w in words(counter)))
    assert tuple(int(w) for w in got) == words(out)


def naive_philox(key, counter):
    """Philox4x32-10 from the paper, in Python's own integers."""
    (k0, k1), (c0, c1, c2, c3), mask = key, counter, 2**32 - 1
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def test_philox_agrees_with_plain_integers_on_random_counters_and_keys():
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (500, 4))
    counters[:3] = [[2**32 - 1, 0, 2**31, 1], [2**31, 2**31 - 1, 2**32 - 1, 0], [1, 0, 0, 2**32 - 1]]
    for key in ((0, 2**32 - 1), (2**31, 12345)):
        got = torch.stack(philox(key, *torch.from_numpy(counters).unbind(1)), 1)
        assert got.tolist() == [list(naive_philox(key, tuple(map(int, c)))) for c in counters]


def test_normals_are_box_muller_on_the_words_of_their_own_counter():
    """Counter (block, index, position, 0); every third number of a study would change if this ever did."""
    key = stream_key(7, "noise")
    got = normal(key, torch.tensor([5, 2**32 - 1]), (2, 3), position=9)
    for row, index in enumerate((5, 2**32 - 1)):
        expected = []
        for block in (0, 1):
            w0, w1, w2, w3 = naive_philox(key, (block, index, 9, 0))
            for radius_word, angle_word in ((w0, w1), (w2, w3)):
                radius = math.sqrt(-2 * math.log((radius_word + 1) / 2**32))
                angle = 2 * math.pi * angle_word / 2**32
                expected += [radius * math.cos(angle), radius * math.sin(angle)]
        np.testing.assert_allclose(got[row].flatten().numpy(), expected[:6], atol=3e-6)


def test_uniforms_are_53_bits_of_the_words_of_their_own_counter():
    key = stream_key(7, "time")
    got = uniform(key, torch.tensor([0, 5, 2**32 - 1]), position=3)
    for value, index in zip(got.tolist(), (0, 5, 2**32 - 1), strict=True):
        w0, w1, _, _ = naive_philox(key, (0, index, 3, 0))
        assert value == ((w0 >> 5) * 2**26 + (w1 >> 6)) / 2**53


def test_streams_are_keyed_by_seed_and_name_and_the_keys_never_change():
    # `printf ddpmkit/0/noise | sha256sum` starts with a6ff4c15d1f02111
    assert stream_key(0, "noise") == (0x154CFFA6, 0x1121F0D1)
    names = ("init", "order", "time", "noise", "dropout", "sampling", "nll")
    keys = {stream_key(seed, name) for seed in range(100) for name in names}
    assert len(keys) == 700
    assert all(0 <= word < 2**32 for key in keys for word in key)


def test_seeds_for_other_libraries_fit_them_and_differ():
    # `printf ddpmkit/0/dropout/0 | sha256sum` starts with 3704cd9b130c34db; 63 bits of it
    assert stream_seed(0, "dropout", 0) == 0xDB340C139BCD0437 >> 1
    seeds = {stream_seed(seed, "dropout", index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900
    assert all(0 <= s < 2**63 for s in seeds)
    assert stream_seed(1, "init", "conv.weight") != stream_seed(1, "init", "conv.bias")
    torch.Generator().manual_seed(max(seeds))


def test_normals_are_normal():
    x = normal(stream_key(0, "noise"), torch.arange(4000), (1, 5, 5)).flatten().double().numpy()
    assert stats.kstest(x, "norm").pvalue > 1e-3
    n = len(x)
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(stats.skew(x)) < 4 * math.sqrt(6 / n)
    assert abs(stats.kurtosis(x)) < 4 * math.sqrt(24 / n)
    assert np.abs(x).max() < 6.67  # what 32 bits reach


def test_normals_are_finite_at_the_ends_of_the_words(monkeypatch):
    """A word of zeros would be log(0), and one of ones a radius of zero."""

    def extremes(key, c0, c1, c2, c3):
        ones = torch.full(torch.broadcast_shapes(c0.shape, c1.shape), 2**32 - 1)
        return torch.zeros_like(ones), torch.zeros_like(ones), ones, ones

    monkeypatch.setattr("ddpmkit.randomness.philox", extremes)
    x = normal((0, 0), torch.arange(3), (4,))
    assert bool(torch.isfinite(x).all())
    assert float(x[0, 0]) == pytest.approx(math.sqrt(64 * math.log(2)), rel=1e-6)
    assert float(x[0, 2:].abs().max()) == 0


def test_uniforms_are_uniform_and_never_reach_1():
    u = uniform(stream_key(0, "time"), torch.arange(100_000)).numpy()
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    steps = np.bincount((u * 1000).astype(int), minlength=1000)  # as training draws t
    assert stats.chisquare(steps).pvalue > 1e-3


@pytest.mark.parametrize("what", ["pixel", "index", "position", "stream", "seed"])
def test_neighbouring_numbers_are_independent(what):
    n = 40_000
    index = torch.arange(n)
    key = stream_key(0, "noise")
    x = normal(key, index, (8,), 0)
    a = x[:, 0]
    b = {
        "pixel": lambda: x[:, 1],
        "index": lambda: normal(key, index + 1, (8,), 0)[:, 0],
        "position": lambda: normal(key, index, (8,), 1)[:, 0],
        "stream": lambda: normal(stream_key(0, "sampling"), index, (8,), 0)[:, 0],
        "seed": lambda: normal(stream_key(1, "noise"), index, (8,), 0)[:, 0],
    }[what]()
    for f in (lambda v: v, lambda v: v**2, torch.cos):
        pair = np.corrcoef(f(a.double()).numpy(), f(b.double()).numpy())
        assert abs(pair[0, 1]) < 4 / math.sqrt(n)


def test_a_sample_has_its_noise_whatever_batch_it_is_in():
    key = stream_key(3, "sampling")
    together = normal(key, torch.arange(64), (1, 8, 8), 5)
    for subset in ([17], [63, 0, 17], [5, 5, 5], list(range(63, -1, -1))):
        alone = normal(key, torch.tensor(subset), (1, 8, 8), 5)
        assert torch.equal(alone, together[subset])
    assert torch.equal(uniform(key, torch.tensor([9, 2])), uniform(key, torch.arange(10))[[9, 2]])


def test_a_position_for_each_row_is_the_same_as_one_position_at_a_time():
    key, index = stream_key(3, "noise"), torch.tensor([4, 4, 9])
    mixed = normal(key, index, (2, 3), torch.tensor([0, 7, 7]))
    for row, position in enumerate((0, 7, 7)):
        assert torch.equal(mixed[row], normal(key, index[row : row + 1], (2, 3), position)[0])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5,), (2, 3, 3)], ids=str)
def test_normals_come_in_any_shape(shape):
    x = normal(stream_key(0, "noise"), torch.arange(3), shape)
    assert x.shape == (3, *shape)
    assert x.dtype == torch.float32


def test_a_permutation_visits_everything_once_and_each_epoch_in_another_order():
    orders = [permutation(0, 1000, epoch) for epoch in range(5)] + [permutation(1, 1000, 0)]
    for order in orders:
        assert order.dtype == torch.int64
        assert sorted(order.tolist()) == list(range(1000))
    assert len({tuple(order.tolist()) for order in orders}) == 6
    assert torch.equal(permutation(0, 1000, 3), orders[3])
    assert torch.equal(permutation(0, 1000, torch.arange(5)[:, None]), torch.stack(orders[:5]))  # all at once


def test_every_item_is_as_likely_in_every_place():
    orders = permutation(0, 5, torch.arange(2000)[:, None]).numpy()
    for place in range(5):
        assert stats.chisquare(np.bincount(orders[:, place], minlength=5)).pvalue > 1e-4
    whole = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(whole) == math.factorial(5)
    assert stats.chisquare(whole).pvalue > 1e-4
