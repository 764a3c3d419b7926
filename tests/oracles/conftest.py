"""Other people's code, imported so that what they need for images and data loading is not needed here."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.plugin.interfaces import Denoised

HINT = "this compares ddpmkit with other people's code: run it by 'make test-oracles', which installs that code"


def pytest_collection_modifyitems(items):
    for item in items:
        if "oracles" in item.path.parts:
            item.add_marker(pytest.mark.oracles)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lucidrains():
    """denoising-diffusion-pytorch: the files of the chain and of the learned variance, as one namespace.

    The package imports all its parts, and this file imports torchvision for its data loader. Neither is wanted: an
    empty package takes the place of the first, empty modules that of the second; nothing that is called touches them.
    """
    import accelerate  # noqa: F401 - imported while torchvision is still absent: it looks for the real one
    import ema_pytorch  # noqa: F401 - the same

    name = "denoising_diffusion_pytorch"
    found = importlib.util.find_spec(name)
    if found is None or found.submodule_search_locations is None:
        pytest.fail(f"denoising-diffusion-pytorch is not installed; {HINT}")
    package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations)
    parts = {n: types.ModuleType(n) for n in ("torchvision", "torchvision.transforms", "torchvision.utils")}
    parts["torchvision"].transforms = parts["torchvision.transforms"]
    parts["torchvision"].utils = parts["torchvision.utils"]
    with pytest.MonkeyPatch.context() as patch:
        for part, module in {**parts, name: package}.items():
            patch.setitem(sys.modules, part, module)
        chain = importlib.import_module(f"{name}.{name}")
        learned = importlib.import_module(f"{name}.learned_gaussian_diffusion")
    return types.SimpleNamespace(
        linear=chain.linear_beta_schedule,
        cosine=chain.cosine_beta_schedule,
        sigmoid=chain.sigmoid_beta_schedule,
        GaussianDiffusion=chain.GaussianDiffusion,
        LearnedGaussianDiffusion=learned.LearnedGaussianDiffusion,
    )


@pytest.fixture(scope="session")
def tables():
    """tables(spec, T): ddpmkit's chain."""
    return lambda spec, T=1000: tables_for(ddpmkit.build("schedule", spec), T)


class Model(torch.nn.Module):
    """What denoising-diffusion-pytorch asks of a network, around any function of (x, t)."""

    self_condition = False

    def __init__(self, function, outputs):
        super().__init__()
        self.function, self.channels, self.out_dim = function, 1, outputs

    def forward(self, x, t, x_self_cond=None):
        return self.function(x, t)


@pytest.fixture(scope="session")
def model():
    return lambda function=lambda x, t: x, outputs=1: Model(function, outputs)


MU, SPREAD = 0.4, 0.6


class World:
    """Data N(0.4, 0.6^2) with the exact denoiser of a chain, the noise of each step, and ddpmkit's walk."""

    shape = (8, 1, 4, 4)

    def __init__(self, full):
        self.full = full
        variance = full.alpha_bars * SPREAD**2 + full.noise2
        self.gain = (full.signal * SPREAD**2 / variance).tolist()
        self.signal, self.deviation = full.signal.tolist(), np.sqrt(full.noise2).tolist()

    def x0(self, x, t):
        """E[x0 | x_t] at index t of the full chain."""
        return MU + self.gain[t] * (x - self.signal[t] * MU)

    def eps(self, x, t):
        """The noise that it implies."""
        return (x - self.signal[t] * self.x0(x, t)) / self.deviation[t]

    def noise(self, k):
        """Step k's noise, counted from the noise end; k = 0 is x_T."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(100 + k))

    def walk(self, sampler, count, log_sigma2=None, scale=1.0):
        """ddpmkit's walk of ``count`` steps in float32: every x after the first, the last one x0.

        ``scale`` multiplies x0hat, so that clipping has something to do. The one place that calls a sampler.
        """
        sampler = ddpmkit.build("sampler", sampler)
        chain = self.full.strided(sampler.timesteps(self.full.T, count))
        variance = sampler.kernel(chain)[0] if log_sigma2 is None else np.exp(log_sigma2(chain))
        seen = []

        def denoise(x, t):
            seen.append(x)
            return Denoised(scale * self.x0(x, int(chain.times[t])), float(np.sqrt(variance[t])))

        last = sampler.sample(denoise, chain, self.noise)
        return torch.stack([*seen[1:], last])


@pytest.fixture(scope="session")
def world(tables):
    """world(spec, T): see :class:`World`."""
    return lambda spec, T=1000: World(tables(spec, T))
