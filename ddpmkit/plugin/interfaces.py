"""The abstract kinds of component. A plugin subclasses one of these as a frozen dataclass and gives it a name.

Time is counted from 0, the least noisy step; the papers' step T is index T-1. Tables are float64 of shape (T,).
Images are float32 (B, C, H, W) in [-1, 1]; stored images are uint8 grey levels 0 .. K-1.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ddpmkit.diffusion.tables import Tables

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Levels = np.ndarray[Any, np.dtype[np.uint8]]
    # predict_x0(x, t) -> estimate of x0; x is (B, ...), t the step's index in the tables it was given with.
    PredictX0 = Callable[[Tensor, int], Tensor]
    # noise(k) -> unit normal of the shape of x for the k-th step counted from the noise end; k = 0 is x_T itself.
    Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class Component(ABC):
    """What all kinds share: a name, a reference, an integer version, and parameters that check themselves."""

    name: ClassVar[str]
    reference: ClassVar[str] = ""
    version: ClassVar[int] = 1  # raise it when the same parameters come to mean other numbers

    def __post_init__(self) -> None:
        """Check every field against its declaration."""
        spec.validate(self)

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's own docstring, or an empty string."""
        doc = cls.__dict__.get("__doc__") or ""
        # dataclass() writes "Name(field: type = ...)" where the author wrote nothing.
        return "" if doc.startswith(f"{cls.__name__}(") else inspect.cleandoc(doc).split("\n")[0]


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


class Sigma(Component):
    """The variance of the reverse step p(x_{t-1} | x_t)."""

    @abstractmethod
    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return (low, high) log-variances, each (T,); equal arrays mean a fixed variance."""


class Weighting(Component):
    """The weight of each step in the training loss, stated as the factor on the squared x0-error."""

    uses_sigma: ClassVar[bool] = False  # True: the reverse variance enters the loss, and so the training stage
    decoder_first: ClassVar[bool] = False  # True: at t=1 the loss is the decoder's NLL instead of a weighted error
    space: ClassVar[str] = "x0"  # "prediction": the weights are factors on the error of the prediction itself

    @abstractmethod
    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return the factor on the mean squared x0-error, (T,); divide by the SNR for the factor on the eps-error."""


class Backbone(Component):
    """The network that looks at x_t."""

    @abstractmethod
    def build(
        self, *, in_channels: int, out_channels: int, image_size: int, num_classes: int | None = None
    ) -> nn.Module:
        """Return a module with ``forward(x, t, y=None)``: x (B, C, H, W), t (B,) in [0, 1000), out (B, out, H, W)."""


class Sampler(Component):
    """The walk from noise to an image, given a denoiser."""

    uses_sigma: ClassVar[bool] = True  # False: the sigma axis does not change what is drawn

    @abstractmethod
    def timesteps(self, T: int, count: int) -> Sequence[int]:
        """Return the ``count`` step indices that the walk visits, rising, the last one T-1."""

    @abstractmethod
    def sample(self, predict_x0: PredictX0, tables: Tables, log_sigma2: Array, noise: Noise) -> Tensor:
        """Walk ``tables`` from its last step to its first and return x0, the shape of ``noise(0)``.

        ``tables`` is already the strided chain over the sampler's own timesteps, ``log_sigma2`` its reverse variances.
        """


@dataclass(frozen=True)
class Images:
    """A data set in memory: uint8 grey levels (N, C, H, W), split once and for all."""

    train: Levels
    validation: Levels
    test: Levels
    levels: int  # the number K of grey levels; level k stands for the pixel value -1 + 2 k / (K - 1)
    labels: dict[str, Any]  # split -> int64 (N,), empty when the data has none

    def fingerprint(self) -> str:
        """Return the SHA-256 of the images of all splits and of K; paths and labels do not enter."""
        digest = hashlib.sha256(f"levels={self.levels}".encode())
        for split in ("train", "validation", "test"):
            array = getattr(self, split)
            digest.update(f"{split}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()


class Dataset(Component):
    """Images to learn from."""

    default_features: ClassVar[tuple[str, ...]] = ("pca:k=16",)

    @abstractmethod
    def load(self) -> Images:
        """Return the images; the same ones every time."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of what :meth:`load` gives; paths do not enter."""
        return self.load().fingerprint()


class Features(Component):
    """A map from images to the vectors between which distances are taken."""

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

    @abstractmethod
    def run(self, stages: Sequence[Any], settings: Any) -> None:
        """Run every stage after the ones it needs; report through ``settings.on_event``."""


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
        Kind("sampler", Sampler, ("sample",)),
        Kind("dataset", Dataset, ("load",)),
        Kind("features", Features, ("load",)),
        Kind("executor", Executor, ("run",)),
    )
}
