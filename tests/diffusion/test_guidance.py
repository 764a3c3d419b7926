"""Classifier-free guidance: the conditional and the unconditional model at its ends, diffusers' formula in between."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit.diffusion.denoise import predictor
from ddpmkit.diffusion.gaussian import Coefficients
from ddpmkit.diffusion.guidance import guided, passes
from ddpmkit.diffusion.labels import labels_of_samples
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.plugin.contract import walk
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import normal, stream_key
from ddpmkit.sampling import sample, with_sigma

CPU, CLASSES, COUNT = torch.device("cpu"), 3, 6
EPS = ddpmkit.build("prediction", "eps")
CHAIN = tables_for(ddpmkit.build("schedule", "cosine"), 12)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
SHAPE = (1, 4, 4)


class Labelled(nn.Module):
    """Answers by image, time and label, loudly enough for x0hat to leave [-1, 1]; writes down what it is told."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.conv = nn.Conv2d(1, outputs, 3, padding=1)
            self.label = nn.Embedding(CLASSES + 1, outputs)
        self.told: list[torch.Tensor] = []

    def forward(self, x, t, y=None):
        self.told.append(y)
        offset = self.label(y)[:, :, None, None] * (1 + t[:, None, None, None] / 1000)
        return 0.8 * x + 0.2 * self.conv(x) + 0.15 * offset


def predict_with(net: nn.Module, sigma=None):
    return predictor(net, CHAIN, EPS, CPU, sigma, none=CLASSES)


@pytest.mark.parametrize("name", [e.name for e in Registry(installed=False).entries("prediction")])
def test_x0hat_is_affine_in_every_prediction_so_that_guiding_one_guides_the_other(name):
    prediction, gen = ddpmkit.build("prediction", name), torch.Generator().manual_seed(0)
    t = torch.arange(CHAIN.T)
    xt, a, b = (torch.randn(CHAIN.T, *SHAPE, generator=gen) for _ in range(3))
    at, w = Coefficients.of(CHAIN, CPU).at(t, xt), 2.5
    mixed = prediction.x0hat(at, xt, (1 + w) * a - w * b)
    apart = (1 + w) * prediction.x0hat(at, xt, a) - w * prediction.x0hat(at, xt, b)
    size = mixed.abs().flatten(1).amax(1).reshape(-1, 1, 1, 1) + 1
    torch.testing.assert_close(mixed / size, apart / size, rtol=0, atol=2e-5)


@torch.inference_mode()
def drawn(net: nn.Module, strength: float, sampler: str, sigma: str = "beta-tilde"):
    """A walk of the toolkit: unquantised."""
    built, reverse = ddpmkit.build("sampler", sampler), ddpmkit.build("sigma", sigma)
    deviations = None
    if not reverse.learned:
        from ddpmkit.diffusion.reverse_variance import step_sigmas

        deviations = step_sigmas(built, reverse, CHAIN, CHAIN, 17, None)
    denoise = with_sigma(guided(predict_with(net, reverse), strength), deviations)
    key, index = stream_key(0, "sampling"), torch.arange(COUNT)
    return walk(built, lambda x, t: denoise(x, t, LABELS), CHAIN, lambda k: normal(key, index, SHAPE, k))


@torch.inference_mode()
def lock_step(net: nn.Module, strength: float, *, ddim: bool):
    """The walk as diffusers' pipelines do it: guidance_scale = 1 + w on eps, then the scheduler, which clips x0hat."""
    scale = 1 + strength
    alpha_bars = torch.from_numpy(CHAIN.alpha_bars)
    key, index = stream_key(0, "sampling"), torch.arange(COUNT)
    x = normal(key, index, SHAPE, 0).double()
    for k, t in enumerate(range(CHAIN.T - 1, -1, -1)):
        time = torch.full((COUNT,), 1000 * t / CHAIN.T)
        noise_cond = net(x.float(), time, LABELS).double()
        noise_uncond = net(x.float(), time, torch.full((COUNT,), CLASSES)).double()
        noise = noise_uncond + scale * (noise_cond - noise_uncond)
        now, before = alpha_bars[t], alpha_bars[t - 1] if t > 0 else torch.tensor(1.0, dtype=torch.float64)
        x0 = ((x - (1 - now).sqrt() * noise) / now.sqrt()).clamp(-1, 1)
        if ddim:
            eps = (x - now.sqrt() * x0) / (1 - now).sqrt()  # from the clipped x0hat: use_clipped_model_output=True
            x = before.sqrt() * x0 + (1 - before).sqrt() * eps
            continue
        alpha = now / before
        x = before.sqrt() * (1 - alpha) / (1 - now) * x0 + alpha.sqrt() * (1 - before) / (1 - now) * x
        if t > 0:
            variance = (1 - before) / (1 - now) * (1 - alpha)
            x = x + variance.sqrt() * normal(key, index, SHAPE, k + 1).double()
    return x.float()


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_in_lock_step_with_diffusers_formula(sampler, strength):
    found, expected = drawn(Labelled(), strength, sampler), lock_step(Labelled(), strength, ddim=sampler == "ddim")
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@torch.inference_mode()
def test_the_strengths_differ_and_clipping_matters_in_this_world():
    # Or the test above could not tell a sign, nor guidance behind the clipping from guidance before it.
    net, t = Labelled(), torch.full((COUNT,), 6)
    walks = [drawn(Labelled(), w, "ddim") for w in (-1.0, 0.0, 1.0, 3.0)]
    assert min(float((a - b).abs().max()) for i, a in enumerate(walks) for b in walks[:i]) > 0.01
    x = normal(stream_key(0, "sampling"), torch.arange(COUNT), SHAPE, 0)
    with_label, without = predict_with(net)(x, t, LABELS)[0], predict_with(net)(x, t)[0]
    early = 2 * with_label.clamp(-1, 1) - without.clamp(-1, 1)
    assert float((early.clamp(-1, 1) - guided(predict_with(net), 1)(x, t, LABELS)[0].clamp(-1, 1)).abs().max()) > 0.01


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++"])
def test_its_ends_are_the_two_models_bit_for_bit_and_ask_once(sampler):
    for strength, label in ((0.0, LABELS), (-1.0, torch.full((COUNT,), CLASSES))):
        net, alone = Labelled(), Labelled()
        found = drawn(net, strength, sampler)
        built = ddpmkit.build("sampler", sampler)
        from ddpmkit.diffusion.reverse_variance import step_sigmas

        deviations = step_sigmas(built, ddpmkit.build("sigma", "beta-tilde"), CHAIN, CHAIN, 17, None)
        denoise = with_sigma(predictor(alone, CHAIN, EPS, CPU), deviations)
        key, index = stream_key(0, "sampling"), torch.arange(COUNT)
        with torch.inference_mode():
            expected = walk(
                built,
                lambda x, t, d=denoise, y=label: d(x, t, y),
                CHAIN,
                lambda k, key=key, index=index: normal(key, index, SHAPE, k),
            )
        assert torch.equal(found, expected)
        assert len(net.told) == len(alone.told) == CHAIN.T * passes(strength)
        assert all(torch.equal(y, label) for y in net.told)


def test_between_them_the_network_is_asked_twice_with_as_many_images():
    net = Labelled()
    drawn(net, 1.0, "ancestral")
    assert passes(1.0) == passes(-0.5) == 2
    assert len(net.told) == 2 * CHAIN.T
    assert [len(y) for y in net.told] == [COUNT] * (2 * CHAIN.T)
    assert all(torch.equal(y, LABELS) for y in net.told[::2])
    assert all((y == CLASSES).all() for y in net.told[1::2])


def test_a_learned_sigma_is_that_of_the_pass_with_the_label():
    net, sigma = Labelled(2), ddpmkit.build("sigma", "learned-range")
    x, t = normal(stream_key(1, "sampling"), torch.arange(COUNT), SHAPE, 0), torch.full((COUNT,), 5)
    with torch.inference_mode():
        (one, with_label), (two, without) = (predict_with(net, sigma)(x, t, *y) for y in ((LABELS,), ()))
        found, log_sigma2 = guided(predict_with(net, sigma), 2.0)(x, t, LABELS)
    torch.testing.assert_close(found, 3 * one - 2 * two)
    assert torch.equal(log_sigma2, with_label)
    assert not torch.allclose(with_label, without)


@pytest.mark.parametrize("strength", [0.0, 2.0, -1.0])
def test_an_image_depends_on_no_count_and_no_place_in_a_batch(strength):
    counts = np.array([0, 0, 1, 2, 2, 2])
    label_of = labels_of_samples("data", counts, CLASSES, "0.0")
    sampler = ddpmkit.build("sampler", "ancestral")
    from ddpmkit.diffusion.reverse_variance import step_sigmas

    deviations = step_sigmas(sampler, ddpmkit.build("sigma", "beta-tilde"), CHAIN, CHAIN, 17, None)

    def images(count: int):
        denoise = with_sigma(guided(predict_with(Labelled()), strength), deviations)
        return sample(
            denoise, CHAIN, sampler, count=count, shape=SHAPE, levels=17, seed="0.0", micro_batch=4, device=CPU,
            label_of=label_of,
        )  # fmt: skip

    many = images(11)
    for count in (1, 4, 5):
        assert torch.equal(images(count), many[:count])
    assert len(torch.unique(many.flatten(1), dim=0)) == 11


def test_samples_are_of_the_classes_that_they_were_told():
    """A network that knows its classes: every image of class c is the level c, whatever the noise."""
    label_of = labels_of_samples("data", np.array([0, 1, 1, 2, 2, 2, 2]), CLASSES, 5)

    def denoise(x, t, y):
        return ddpmkit.plugin.interfaces.Denoised((y[:, None, None, None] - 1.0).expand_as(x), 0.0)

    sampler = ddpmkit.build("sampler", "ancestral")
    found = sample(
        denoise, CHAIN, sampler, count=10, shape=SHAPE, levels=3, seed=5, micro_batch=4, device=CPU, label_of=label_of
    )
    assert torch.equal(found.flatten(1)[:, 0].long(), label_of(torch.arange(10)))
    assert math.isclose(float(found.float().flatten(1).var(1).sum()), 0.0)
