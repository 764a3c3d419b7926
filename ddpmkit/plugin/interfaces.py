"""The abstract kinds of component. A plugin subclasses one of these as a frozen dataclass and gives it a name.

Time is counted from 0, the least noisy step; the papers' step T is index T-1. Tables are float64 of shape (T,), and
indexed by int64; a network alone is told another time, float32 in [0, 1000), see :meth:`Backbone.build`.
Images are float32 (B, C, H, W) in [-1, 1]; stored images are uint8 grey levels 0 .. K-1.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.component import Component as Component
from ddpmkit.plugin.measurement import Levels as Levels
from ddpmkit.plugin.measurement import Measurement as Measurement
from ddpmkit.plugin.measurement import Sets as Sets
from ddpmkit.plugin.metric import Metric as Metric
from ddpmkit.plugin.tables import Array as Array
from ddpmkit.plugin.tables import Tables

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddpmkit.plugin.execution import Emit, Job, Pool, ShouldStop

ImageSize: TypeAlias = "int | tuple[int, int]"  # the side of square images, or (H, W)
# Texts, as Array is: an annotation loads neither numpy nor torch.
# denoise(x, t): x is (B, ...), t the step's index in the tables it was given with.
Denoise: TypeAlias = "Callable[[Tensor, int], Denoised]"
# noise(k) -> unit normal of the shape of x for the k-th step counted from the noise end; k = 0 is x_T itself.
Noise: TypeAlias = "Callable[[int], Tensor]"


class Schedule(Component):
    """The forward process: how much noise step t adds.

    Variance-preserving schedules give ``betas(T)``: x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps.
    Any other Markov Gaussian chain x_t = a_t x_{t-1} + b_t eps gives ``steps(T)`` and ``prior_variance(T)``.
    """

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 of shape (T,), each in (0, 1); the last one may be 1."""
        raise DdpmkitError(
            f"schedule '{self.name}' is not variance-preserving and has no betas", f"ddpmkit show {self.name}"
        )

    def steps(self, T: int) -> tuple[Array, Array]:
        """Return (a_t, b_t^2), each float64 of shape (T,)."""
        import numpy as np

        betas = np.asarray(self.betas(T), dtype=np.float64)
        return np.sqrt(np.maximum(1 - betas, 0.0)), betas

    def prior_variance(self, T: int) -> float:
        """Return the variance of the prior p(x_T), per dimension."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Denoised:
    """What is known of x_t at one step of a walk.

    Attributes:
        x0: the network's estimate of x0, (B, ...), not clipped.
        sigma: standard deviation of the noise that the step back adds: a float, from ``step_sigmas`` in
            diffusion/reverse_variance.py, or a tensor like x0 where the network gives it pixel by pixel.
    """

    x0: Tensor
    sigma: float | Tensor

    @property
    def quiet(self) -> bool:
        """Whether the step adds no noise; known without looking at a tensor."""
        return isinstance(self.sigma, float) and self.sigma == 0.0


class Sigma(Component):
    """The variance of the reverse step p(x_{t-1} | x_t).

    A fixed one gives ``log_bounds`` alone, low equal to high. A learned one leaves the choice between (or beyond) the
    bounds to a second output of the network. A fitted one is computed from the trained network's statistics.
    """

    learned: ClassVar[bool] = False  # True: the network has twice the channels, and from_network reads the second half
    fitted: ClassVar[bool] = False  # True: x0_variance turns the network's statistics into a variance

    @abstractmethod
    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return (low, high) log-variances, each (T,) and finite; equal arrays mean a fixed variance.

        beta-tilde_t, ``tables.posterior_variance``, is 0 at first; sigma ``beta-tilde`` takes its second entry there.
        """

    def from_network(self, low: Tensor, high: Tensor, out: Tensor) -> Tensor:
        """Return a learned log-variance, like ``out`` (B, C, H, W), the network's second output; not clamped.

        ``low`` and ``high`` are the log-bounds of each image's step, and broadcast against ``out``.
        """
        raise DdpmkitError(
            f"sigma '{self.name}' says it is learned and has no from_network",
            "give from_network(low, high, out); builtin/sigmas/learned_range.py has that of Improved DDPM",
        )

    def x0_variance(self, tables: Tables, statistics: Mapping[str, Array]) -> Array:
        """Return a fitted sigma's estimate of Var(x_0 | x_t) per dimension, (T,), for the full chain ``tables``.

        The reverse variance is then lambda_t^2 + kappa_t^2 Var(x_0 | x_t), see :meth:`Sampler.kernel`. Statistics, each
        (T,), means over training images, noise and pixels: ``eps_squared`` of the predicted noise, ``error`` of the
        squared x0-error and ``error_clipped`` of the one with x0hat in [-1, 1].
        """
        raise DdpmkitError(f"sigma '{self.name}' says it is fitted and has no x0_variance", f"ddpmkit show {self.name}")

    def largest_last_variance(self, levels: int) -> float:
        """Return the most that the last noisy step of a walk may add for K grey levels; infinite unless limited."""
        return float("inf")


class Weighting(Component):
    """The weight of each step in the training loss, stated as the factor on the squared x0-error."""

    uses_sigma: ClassVar[bool] = False  # True: the reverse variance enters the loss, and so the training stage
    is_bound: ClassVar[bool] = False  # True: weights are the bound's own; a learned sigma then takes part in the loss
    decoder_first: ClassVar[bool] = False  # True: at t=1 the loss is the decoder's NLL instead of a weighted error
    space: ClassVar[str] = "x0"  # "prediction": the weights are factors on the error of the prediction itself

    @abstractmethod
    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return the factor on the mean squared x0-error, (T,); divide by the SNR for the factor on the eps-error."""

    def vlb_share(self, T: int) -> float:
        """Return the factor on L_{t-1}, nats per dimension, that is added to teach a learned sigma; 0 for none.

        The network's mean is held still in that term, so that it moves the variance alone.
        """
        return 0.0


class Backbone(Component):
    """The network that looks at x_t."""

    non_square: ClassVar[bool] = False  # True: build takes image_size=(H, W) for images that are not square

    @abstractmethod
    def build(
        self, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
    ) -> nn.Module:
        """Return a module with ``forward(x, t, y=None)``: x (B, C, H, W), out (B, out_channels, H, W), both floating.

        ``t`` is float32 (B,) in [0, 1000): not the step's index but its share of the chain, 1000 index / T, so that a
        network need not know T. ``out_channels`` is twice ``in_channels`` for a learned sigma. ``image_size`` is the
        side of square images; of others, for which only a backbone with ``non_square = True`` is asked, it is (H, W).
        With ``num_classes=K``, y is int64 (B,) in 0 .. K, where K means no label, and None no label for any image. One
        that takes no labels raises ``DdpmkitError("NAME takes no labels", "leave out --conditional")`` for a K.
        """


class Factors(Protocol):
    """The factors of each image's own step, float tensors (B, 1, ...) that multiply images (B, ...)."""

    @property
    def signal(self) -> Tensor:
        """m_t of x_t = m_t x0 + S_t eps; sqrt(alpha-bar_t) when variance-preserving."""

    @property
    def noise(self) -> Tensor:
        """S_t; sqrt(1 - alpha-bar_t) when variance-preserving."""

    @property
    def posterior_x0(self) -> Tensor:
        """c_t of the posterior mean c_t x0 + k_t x_t of a whole step; between two steps there is none."""

    @property
    def posterior_xt(self) -> Tensor:
        """k_t of the same."""


class Prediction(Component):
    """What the network is asked for, and what its answer says of x0.

    The answer's error must be a multiple of the x0-error, the factor depending on the step alone: then a weight on one
    is a weight on the other.
    """

    between_steps: ClassVar[bool] = True  # False: it needs the factors of the posterior mean, which whole steps have
    instead: ClassVar[str] = "x0"  # what hints name where this one is impossible

    @abstractmethod
    def target(self, at: Factors, x0: Tensor, eps: Tensor, xt: Tensor) -> Tensor:
        """Return what the network is asked for at x_t = m_t x0 + S_t eps; all of shape (B, ...)."""

    @abstractmethod
    def x0hat(self, at: Factors, xt: Tensor, out: Tensor) -> Tensor:
        """Return the estimate of x0 that the answer ``out`` at ``xt`` means, not clipped; all of shape (B, ...)."""

    @abstractmethod
    def divisor(self, tables: Tables) -> Array:
        """Return (answer's error / x0-error)^2 of each step, (T,): a weight on the x0-error is divided by it."""

    def impossible(self, tables: Tables) -> str | None:
        """Return why this can't be learned on a chain, in words that begin with its name; None where it can."""
        return None


class Sampler(Component):
    """The walk from noise to an image, given a denoiser."""

    uses_sigma: ClassVar[bool] = True  # False: of the sigma axis only fitted variances can change what is drawn

    @abstractmethod
    def timesteps(self, T: int, count: int) -> Sequence[int]:
        """Return the ``count`` step indices that the walk visits, rising, the last one T-1."""

    def kernel(self, tables: Tables) -> tuple[Array, Array]:
        """Return (lambda_t^2, kappa_t), each (T,), of the step back if x0 were known: its variance, its factor on x0.

        Here the posterior, beta-tilde_t and c_t (Ho et al. 2020, eq. 7). Not knowing x0 costs kappa_t^2 Var(x_0 | x_t)
        more. A deterministic walk gives zeros for both. A sampler that does not use sigma must say what its noise is.
        """
        if not self.uses_sigma:
            raise DdpmkitError(
                f"sampler '{self.name}' says uses_sigma = False and has no kernel",
                "give kernel(tables): the variance of its steps and their factor on x0; zeros when deterministic",
            )
        return tables.posterior_variance, tables.posterior_x0

    @abstractmethod
    def sample(self, denoise: Denoise, tables: Tables, noise: Noise) -> Tensor:
        """Walk ``tables`` from its last step to its first and return x0, the shape of ``noise(0)``.

        ``tables`` is already the strided chain over the sampler's own timesteps. The step back from t adds
        ``denoise(x, t).sigma`` times unit noise, but for the last step of the walk, which adds none. ``denoise(x, t)``
        takes one step t, an int from 0 to ``tables.T - 1``, for the whole batch. ``noise(0)`` is x_T over the prior's
        deviation, ``noise(k)`` the unit noise of the k-th step counted from there.
        """


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Images:
    """A data set in memory: uint8 grey levels (N, C, H, W), split once and for all.

    Attributes:
        train: images to learn from.
        validation: set aside, at least one: the likelihood's draws are planned on them.
        test: what distances and the likelihood are taken of.
        levels: the number K of grey levels, 2 to 256; level k stands for the pixel value -1 + 2 k / (K - 1).
        labels: split -> int64 (N,), classes counted from 0; left out where there are none.
        notes: what was decided while they were read, for people.
        classes: label k is called classes[k]; left out where labels have no names. No part of a hash.
    """

    train: Levels
    validation: Levels
    test: Levels
    levels: int
    labels: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the images of all splits, of K and of the labels if there are any; no path enters."""
        digest = hashlib.sha256(f"levels={self.levels}".encode())
        for split in SPLITS:
            array = getattr(self, split)
            digest.update(f"{split}{array.shape}".encode())
            digest.update(array.ravel())  # in C order, and no copy of an array that is
        for split, labels in sorted(self.labels.items()):
            digest.update(f"labels {split}{labels.shape}".encode() + labels.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Outline:
    """What a plan needs to know of a data set's images; with it ``ablate --dry-run --no-probe`` reads none of them."""

    fingerprint: str  # Images.fingerprint() of what load gives
    shape: tuple[int, int, int]  # (C, H, W)
    counts: tuple[int, int, int]  # images of train, validation, test
    levels: int
    classes: int  # one more than the largest label; 0 without labels
    least: int  # lowest and highest level of the training images
    most: int
    second_moment: float  # mean square of the training images' pixels in [-1, 1]


class Dataset(Component):
    """Images to learn from."""

    default_features: ClassVar[tuple[str, ...]] = ("pca:k=16",)

    @abstractmethod
    def load(self) -> Images:
        """Return the images; the same ones every time."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of what :meth:`load` gives; paths do not enter."""
        return self.load().fingerprint()

    def stamp(self) -> Any:
        """Return, without reading a pixel, JSON that is another where what :meth:`load` gives may be; or None.

        Such as :func:`ddpmkit.file_stamp` of all files. Where it is not None, a study decodes the images once and keeps
        them in its store; by default they are loaded anew by every process.
        """
        return None

    def outline(self) -> Outline | None:
        """Return, without reading a pixel, what a plan needs to know of the images; None where only reading tells.

        A dry run alone believes it: whatever runs reads the images.
        """
        return None


class Features(Component):
    """A map from images to the vectors between which distances are taken.

    ``made_for`` are the shape (C, H, W) and the number of grey levels of the only images it takes, if there are such.
    """

    made_for: ClassVar[tuple[tuple[int, int, int], int] | None] = None

    @abstractmethod
    def label(self) -> str:
        """Return the short name that stands behind ``FD-`` in tables."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of everything that can change a feature: weights, parameters, version."""

    @abstractmethod
    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return the extractor, uint8 levels (N, C, H, W) -> float64 (N, D); ``data`` is the training data set.

        Raises:
            DdpmkitError: when this extractor was not made for such images.
        """


class Executor(Component):
    """Where stages run."""

    elsewhere: ClassVar[bool] = False  # True: it finds devices on other machines; --device cuda need not be here

    @abstractmethod
    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Pool:
        """Return the places in which the stages of a study run, until the pool is closed.

        ``emit`` is told what happens there; ``should_stop`` is asked by stages that run in this process.
        """


@dataclass(frozen=True)
class Kind:
    """One row of :data:`KINDS`."""

    name: str
    interface: type[Component]
    methods: tuple[str, ...]  # a class must provide at least one of these itself

    @property
    def hook(self) -> str:
        """The hook that registers components of this kind."""
        return f"ddpmkit_register_{self.plural}"

    @property
    def plural(self) -> str:
        """The name of the axis flag, ``--schedules`` and so on."""
        return self.name if self.name.endswith("s") else f"{self.name}s"


KINDS: dict[str, Kind] = {
    k.name: k
    for k in (
        Kind("schedule", Schedule, ("betas", "steps")),
        Kind("sigma", Sigma, ("log_bounds",)),
        Kind("weighting", Weighting, ("weights",)),
        Kind("backbone", Backbone, ("build",)),
        Kind("prediction", Prediction, ("x0hat",)),
        Kind("sampler", Sampler, ("sample",)),
        Kind("dataset", Dataset, ("load",)),
        Kind("features", Features, ("load",)),
        Kind("metric", Metric, ("value",)),
        Kind("executor", Executor, ("open",)),
    )
}


def kind_of(cls: type) -> Kind | None:
    """Return the kind that a class of components belongs to."""
    return next((kind for kind in KINDS.values() if issubclass(cls, kind.interface)), None)
