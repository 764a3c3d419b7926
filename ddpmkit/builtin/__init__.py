"""The built-in components, registered through the hooks that anyone's plugin uses. One method, one file."""

from __future__ import annotations

from ddpmkit.builtin.backbones.unet import UNet
from ddpmkit.builtin.datasets.digits import Digits
from ddpmkit.builtin.datasets.npz import Npz
from ddpmkit.builtin.executors.inline import Inline
from ddpmkit.builtin.executors.local import Local
from ddpmkit.builtin.features.digits import DigitsNet
from ddpmkit.builtin.features.pca import Pca
from ddpmkit.builtin.samplers.ancestral import Ancestral
from ddpmkit.builtin.samplers.ddim import Ddim
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.quadratic import Quadratic
from ddpmkit.builtin.schedules.sigmoid import Sigmoid
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.weightings.simple import Simple
from ddpmkit.builtin.weightings.vlb import Vlb
from ddpmkit.plugin.hookspecs import hookimpl


@hookimpl
def ddpmkit_register_schedules() -> list[type]:
    """Variance schedules."""
    return [Linear, Cosine, Sigmoid, Quadratic]


@hookimpl
def ddpmkit_register_sigmas() -> list[type]:
    """Reverse variances."""
    return [Beta, BetaTilde]


@hookimpl
def ddpmkit_register_weightings() -> list[type]:
    """Loss weightings."""
    return [Simple, Vlb]


@hookimpl
def ddpmkit_register_backbones() -> list[type]:
    """Networks."""
    return [UNet]


@hookimpl
def ddpmkit_register_samplers() -> list[type]:
    """Walks from noise to image."""
    return [Ancestral, Ddim]


@hookimpl
def ddpmkit_register_datasets() -> list[type]:
    """Data sets."""
    return [Digits, Npz]


@hookimpl
def ddpmkit_register_features() -> list[type]:
    """Feature extractors."""
    return [DigitsNet, Pca]


@hookimpl
def ddpmkit_register_executors() -> list[type]:
    """Where stages run."""
    return [Local, Inline]
