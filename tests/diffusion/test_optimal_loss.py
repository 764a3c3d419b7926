"""The optimal loss against brute force, against a channel whose loss is known, and with labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpmkit import build
from ddpmkit.diffusion import optimal_loss as module
from ddpmkit.diffusion.optimal_loss import optimal_loss
from ddpmkit.errors import DdpmkitError
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.contract import images as load_images
from ddpmkit.randomness import normal, permutation, stream_key


def brute_force(log_snr, train, images, draws, seed, own=None, others=None):
    """The posterior mean as it is written, on the variance-preserving x_t, one draw after another."""
    index = permutation(seed, len(images), 0).numpy()[np.arange(draws) % len(images)]
    eps = normal(stream_key(seed, "optimal"), torch.arange(draws), (train[0].numel(),)).double().numpy()
    known, asked = (v.double().flatten(1).numpy() for v in (train, images))
    out = np.empty((len(log_snr), draws))
    for k, snr in enumerate(np.exp(log_snr)):
        alpha_bar = snr / (1 + snr)
        m, s = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        for j in range(draws):
            xt = m * asked[index[j]] + s * eps[j]
            logits = -np.square(xt - m * known).sum(1) / (2 * s**2)
            if own is not None:
                logits[own != others[index[j]]] = -np.inf
            w = np.exp(logits - logits.max())
            out[k, j] = np.square(asked[index[j]] - (w / w.sum()) @ known).mean()
    return out.mean(1), out.std(1, ddof=1) / np.sqrt(draws)


@pytest.mark.parametrize("entries", [2**22, 500])
@pytest.mark.parametrize("split", ["train", "test"])
def test_of_digits_it_equals_brute_force(split, entries, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES", entries * 20)
    data = load_images(build("dataset", "digits"))
    train, asked = (to_pixels(torch.from_numpy(v), data.levels) for v in (data.train, getattr(data, split)))
    log_snr = np.linspace(-6, 8, 5)
    found = optimal_loss(log_snr, train, asked, draws=12, seed=3)
    mean, error = brute_force(log_snr, train, asked, 12, 3)
    assert np.allclose(found.x0_loss, mean, rtol=1e-9, atol=1e-15)
    assert np.allclose(found.standard_error, error, rtol=1e-9, atol=1e-15)
    assert np.allclose(found.eps_loss, np.exp(log_snr) * mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("entries", [2**22, 1])
def test_told_the_class_it_knows_the_images_of_the_class_alone(entries, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES", entries)
    train = torch.tensor([-1.0, -0.5, 0.25, 1.0, 0.8])[:, None]
    own, others = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([1, 0, 1])
    asked = torch.tensor([0.9, -0.8, -0.4])[:, None]
    log_snr = np.array([-2.0, 0.0, 3.0])
    found = optimal_loss(log_snr, train, asked, labels=(own, others), draws=40)
    mean, _ = brute_force(log_snr, train, asked, 40, 0, own.numpy(), others.numpy())
    assert np.allclose(found.x0_loss, mean, rtol=1e-9)
    assert np.abs(optimal_loss(log_snr, train, asked, draws=40).x0_loss / mean - 1).max() > 0.01


def test_of_two_points_it_is_the_known_loss_of_that_channel_to_its_error():
    """Of x0 = -1 or 1 the loss is 1 - E tanh(SNR + sqrt(SNR) z), z a unit normal."""
    points = torch.tensor([[-1.0], [1.0]])
    log_snr = np.linspace(-4, 2, 7)
    found = optimal_loss(log_snr, points, points, draws=20_000)
    z, w = np.polynomial.hermite_e.hermegauss(80)
    snr = np.exp(log_snr)[:, None]
    known = 1 - (np.tanh(snr + np.sqrt(snr) * z) * w).sum(1) / w.sum()
    assert (np.abs(found.x0_loss - known) < 4 * found.standard_error).all()
    assert (found.standard_error < 0.01).all()


def test_a_copier_loses_nothing_of_what_it_knows_and_much_of_what_it_does_not():
    train, held_out = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, 0.5]])
    at = np.array([12.0])
    assert optimal_loss(at, train, train).x0_loss[0] < 1e-20
    assert optimal_loss(at, train, held_out).x0_loss[0] == pytest.approx(
        1.125
    )  # it gives the nearer one, off by 1.5 in one pixel of two


def test_what_can_not_be_asked_is_refused():
    one = torch.zeros(2, 1)
    with pytest.raises(DdpmkitError, match="two draws"):
        optimal_loss(np.zeros(1), one, one, draws=1)
    with pytest.raises(DdpmkitError, match="no training image"):
        optimal_loss(np.zeros(1), one, one, labels=(torch.tensor([0, 0]), torch.tensor([0, 1])))
