"""The built-in components, registered through the hooks that anyone's plugin uses. One method, one file."""

from __future__ import annotations

from ddpmkit import hookimpl
from ddpmkit.builtin.backbones.mlp import Mlp
from ddpmkit.builtin.backbones.unet import UNet
from ddpmkit.builtin.datasets.cifar10 import Cifar10
from ddpmkit.builtin.datasets.digits import Digits
from ddpmkit.builtin.datasets.folder import Folder
from ddpmkit.builtin.datasets.gaussian import Gaussian
from ddpmkit.builtin.datasets.idx import Idx
from ddpmkit.builtin.datasets.mixture import Mixture
from ddpmkit.builtin.datasets.npz import Npz
from ddpmkit.builtin.datasets.two_point import TwoPoint
from ddpmkit.builtin.executors.inline import Inline
from ddpmkit.builtin.executors.local import Local
from ddpmkit.builtin.executors.ray import Ray
from ddpmkit.builtin.features.digits import DigitsNet
from ddpmkit.builtin.features.dinov2 import DinoV2
from ddpmkit.builtin.features.inception import Inception
from ddpmkit.builtin.features.mnist import MnistNet
from ddpmkit.builtin.features.pca import Pca
from ddpmkit.builtin.features.pixels import Pixels
from ddpmkit.builtin.metrics.c2st import C2st
from ddpmkit.builtin.metrics.copy import Copy
from ddpmkit.builtin.metrics.coverage import Coverage
from ddpmkit.builtin.metrics.density import Density
from ddpmkit.builtin.metrics.fd import Fd
from ddpmkit.builtin.metrics.kid import Kid
from ddpmkit.builtin.metrics.precision import Precision
from ddpmkit.builtin.metrics.recall import Recall
from ddpmkit.builtin.metrics.sw import Sw
from ddpmkit.builtin.predictions.eps import Eps
from ddpmkit.builtin.predictions.mu import Mu
from ddpmkit.builtin.predictions.v import V
from ddpmkit.builtin.predictions.x0 import X0
from ddpmkit.builtin.samplers.ancestral import Ancestral
from ddpmkit.builtin.samplers.ddim import Ddim
from ddpmkit.builtin.samplers.dpm_solver import DpmSolver
from ddpmkit.builtin.schedules.constant import Constant
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.cosine_gamma import CosineGamma
from ddpmkit.builtin.schedules.jsd import Jsd
from ddpmkit.builtin.schedules.laplace import Laplace
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.one_minus_t import OneMinusT
from ddpmkit.builtin.schedules.quadratic import Quadratic
from ddpmkit.builtin.schedules.random_walk import RandomWalk
from ddpmkit.builtin.schedules.rescaled import Rescaled
from ddpmkit.builtin.schedules.sigmoid import Sigmoid
from ddpmkit.builtin.schedules.sigmoid_gamma import SigmoidGamma
from ddpmkit.builtin.schedules.warmup import Warmup
from ddpmkit.builtin.schedules.zero_snr import ZeroSnr
from ddpmkit.builtin.sigmas.analytic import Analytic
from ddpmkit.builtin.sigmas.beta import Beta
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.sigmas.interpolate import Interpolate
from ddpmkit.builtin.sigmas.learned import Learned
from ddpmkit.builtin.sigmas.learned_range import LearnedRange
from ddpmkit.builtin.sigmas.optimal import Optimal
from ddpmkit.builtin.weightings.hybrid import Hybrid
from ddpmkit.builtin.weightings.max_snr import MaxSnr
from ddpmkit.builtin.weightings.min_snr import MinSnr
from ddpmkit.builtin.weightings.native import Native
from ddpmkit.builtin.weightings.p2 import P2
from ddpmkit.builtin.weightings.simple import Simple
from ddpmkit.builtin.weightings.snr import Snr
from ddpmkit.builtin.weightings.truncated_snr import TruncatedSnr
from ddpmkit.builtin.weightings.vlb import Vlb


@hookimpl
def ddpmkit_register_schedules() -> list[type]:
    """Variance schedules."""
    return [
        Linear,
        Cosine,
        Sigmoid,
        Quadratic,
        SigmoidGamma,
        CosineGamma,
        OneMinusT,
        Constant,
        Warmup,
        Jsd,
        Laplace,
        ZeroSnr,
        Rescaled,
        RandomWalk,
    ]


@hookimpl
def ddpmkit_register_sigmas() -> list[type]:
    """Reverse variances."""
    return [Beta, BetaTilde, Interpolate, LearnedRange, Learned, Analytic, Optimal]


@hookimpl
def ddpmkit_register_weightings() -> list[type]:
    """Loss weightings."""
    return [Simple, Vlb, Hybrid, Snr, TruncatedSnr, MaxSnr, MinSnr, P2, Native]


@hookimpl
def ddpmkit_register_backbones() -> list[type]:
    """Networks."""
    return [UNet, Mlp]


@hookimpl
def ddpmkit_register_predictions() -> list[type]:
    """What a network is asked for."""
    return [Eps, X0, V, Mu]


@hookimpl
def ddpmkit_register_samplers() -> list[type]:
    """Walks from noise to image."""
    return [Ancestral, Ddim, DpmSolver]


@hookimpl
def ddpmkit_register_datasets() -> list[type]:
    """Data sets."""
    return [Digits, Npz, Folder, Idx, Cifar10, Gaussian, Mixture, TwoPoint]


@hookimpl
def ddpmkit_register_features() -> list[type]:
    """Feature extractors."""
    return [DigitsNet, DinoV2, Inception, MnistNet, Pca, Pixels]


@hookimpl
def ddpmkit_register_metrics() -> list[type]:
    """Numbers about samples, in the order of tables."""
    return [Fd, Kid, Precision, Recall, Density, Coverage, Sw, C2st, Copy]


@hookimpl
def ddpmkit_register_executors() -> list[type]:
    """Where stages run."""
    return [Local, Inline, Ray]
