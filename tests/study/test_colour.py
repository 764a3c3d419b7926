"""Colour studies: what is stored of the samples is what the sampler drew, bit for bit, in every memory layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from ddpmkit import device as devices
from ddpmkit import sampling
from ddpmkit.plugin.registry import Registry
from ddpmkit.sampling import sample
from ddpmkit.study import prepare as preparing
from ddpmkit.study import runner
from ddpmkit.study.prepare import RunOptions
from ddpmkit.study.trained import load_trained

EMOJI = Path(__file__).parents[2].parent / "shared" / "data" / "emoji32.npz"
TINY = {
    "backbones": "unet:channels=8:mults=1", "train_steps": "2", "batch_size": "4", "samples": "5",
    "sampling_steps": "3", "timesteps": "40", "train_seeds": "0", "eval_batch": "5", "metrics": "sw",
    "features": "pixels", "predictions": "eps,x0,v,mu", "samplers": "ancestral,ddim,dpm-solver++",
}  # fmt: skip


def synthetic(path):
    """Forty smooth colour images of 8x8 whose channels differ, (N, H, W, C); the emoji are (N, C, H, W)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:8, 0:8] / 7
    tones = rng.random((40, 3, 3))
    images = tones[:, :, 0, None, None] * y + tones[:, :, 1, None, None] * x + tones[:, :, 2, None, None] / 2
    images = (images * 100).astype(np.uint8).transpose(0, 2, 3, 1)
    np.savez(path, train_images=images[:30], test_images=images[30:])


def emoji(path):
    with np.load(EMOJI, allow_pickle=False) as held:
        np.savez(path, train_images=held["train_images"][:150], test_images=held["test_images"][:50])


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


@pytest.mark.long
@pytest.mark.parametrize(
    "make",
    [
        synthetic,
        pytest.param(emoji, marks=pytest.mark.skipif(not EMOJI.exists(), reason="the emoji are not here")),
    ],
)
def test_stored_samples_are_the_drawn_ones(tmp_path, registry, monkeypatch, make):
    """Each of four predictions and three samplers; then each drawn again from the stored weights."""
    make(tmp_path / "a.npz")
    drawn = []

    def channels_last(*args, **kwargs):
        """The samples as many samplers leave them, with the channels last in memory."""
        drawn.append(sample(*args, **kwargs).contiguous(memory_format=torch.channels_last))
        return drawn[-1]

    monkeypatch.setattr(sampling, "sample", channels_last)
    options = {**TINY, "dataset": f"npz:path={tmp_path / 'a.npz'}:validation=10"}
    prepared = preparing.prepare(
        options, out=tmp_path, registry=registry, run_options=RunOptions(device="cpu", executor="inline")
    )
    outcome = runner.run(prepared)
    assert outcome.code == 0
    sampled = [s for s in prepared.plan.stages.values() if s.kind == "sample"]
    assert len(sampled) == len(drawn) == 12
    as_drawn = {d.numpy().tobytes(): d for d in drawn}  # in C order, whatever the memory is like
    assert len(as_drawn) > 6
    assert not any(d.is_contiguous() for d in drawn)  # or the test would pass for a reason of its own
    for stage in sampled:
        blob = (prepared.store.folder("sample", stage.id) / "out" / "samples.safetensors").read_bytes()
        levels = load(blob)["levels"]
        assert levels.shape == (5, *prepared.plan.images.train.shape[1:])
        assert levels.tobytes() in as_drawn
        assert np.array_equal(levels, again(stage, prepared))


def again(stage, prepared):
    """The samples of a stage, drawn from the stored weights once more."""
    cpu, spec, rebuild = torch.device("cpu"), stage.spec, prepared.registry.rebuild
    sigma, sampler = rebuild(stage.recipe["sigma"]), rebuild(stage.recipe["sampler"])
    with devices.one_thread():
        network = load_trained(
            prepared.store, prepared.registry, spec.train, stage.recipe, ema=spec.ema, sigma=sigma, device=cpu
        )
        denoise, chain = spec.reverse(network, sampler, None)
        images = network.images
        return sample(
            denoise, chain, sampler, count=spec.count, shape=images.train.shape[1:], levels=images.levels,
            seed=spec.seed, micro_batch=spec.batch, device=cpu,
        ).numpy()  # fmt: skip
