"""A plugin of every kind, written against version 1 of the plugin API.

It is frozen: plugins like it are with people, and must keep working as they are. A test holds its very text. If its
other tests fail, what it uses was taken away: give that back, or raise PLUGIN_API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ddpmkit import (
    Array,
    Backbone,
    Dataset,
    DdpmkitError,
    Denoise,
    Emit,
    Executor,
    Factors,
    Features,
    Images,
    ImageSize,
    Job,
    Levels,
    Measurement,
    Metric,
    Noise,
    Pool,
    Prediction,
    Sampler,
    Schedule,
    Sets,
    ShouldStop,
    Sigma,
    Tables,
    Task,
    Weighting,
    betas_from_alpha_bars,
    clipped,
    hookimpl,
    param,
    spaced,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

ddpmkit_api = (1, 1)


@dataclass(frozen=True)
class V1Schedule(Schedule):
    """alpha-bar(u) = (1 - u)^p with u = t / T; the betas are clipped at 0.999."""

    name = "v1-schedule"
    reference = "the plugin API, version 1"
    p: float = param(2.0, "the power: larger ones destroy the image sooner", gt=0)

    def betas(self, T: int) -> Array:
        """Return beta_t = 1 - alpha-bar_t / alpha-bar_{t-1}, float64 (T,), index 0 the least noisy."""
        import numpy as np

        return betas_from_alpha_bars((1 - np.arange(T + 1) / T) ** self.p, 0.999)


@hookimpl
def ddpmkit_register_schedules() -> list[type]:
    """Return the schedules of this plugin."""
    return [V1Schedule]


@dataclass(frozen=True)
class V1Sigma(Sigma):
    """A fixed reverse variance, beta_t times a factor: sigma_t^2 = factor beta_t."""

    name = "v1-sigma"
    reference = "the plugin API, version 1"
    factor: float = param(0.9, "the share of beta_t", gt=0, le=1)

    def log_bounds(self, tables: Tables) -> tuple[Array, Array]:
        """Return log sigma_t^2 twice, each float64 (T,): equal bounds leave nothing to be learned."""
        import numpy as np

        log_sigma2 = np.log(self.factor * tables.betas)
        return log_sigma2, log_sigma2


@hookimpl
def ddpmkit_register_sigmas() -> list[type]:
    """Return the sigmas of this plugin."""
    return [V1Sigma]


@dataclass(frozen=True)
class V1Weighting(Weighting):
    """Soft min-SNR: w_t = SNR_t gamma / (SNR_t + gamma) on the squared x0-error, SNR_t at first and gamma at most."""

    name = "v1-weighting"
    reference = "the plugin API, version 1"
    gamma: float = param(5.0, "the largest weight", gt=0)

    def weights(self, tables: Tables, log_sigma2: Array) -> Array:
        """Return w_t, float64 (T,): the factor on the x0-error; divided by the SNR it is that on the eps-error."""
        return tables.snr * self.gamma / (tables.snr + self.gamma)


@hookimpl
def ddpmkit_register_weightings() -> list[type]:
    """Return the weightings of this plugin."""
    return [V1Weighting]


@dataclass(frozen=True)
class V1Backbone(Backbone):
    """A residual network of 3x3 convolutions at one resolution; time and label shift the channels of each block."""

    name = "v1-backbone"
    reference = "the plugin API, version 1"
    non_square = True  # any height and width will do
    channels: int = param(32, "channels between the convolutions", ge=4)
    depth: int = param(3, "residual blocks", ge=1)

    def build(
        self, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
    ) -> nn.Module:
        """Return the network, ``forward(x, t, y=None)``: x (B, C, H, W) -> (B, out_channels, H, W).

        t is float32 (B,) in [0, 1000), 1000 times the share of the chain. With K classes, y is int64 (B,) in 0 .. K,
        where K and None mean no label.
        """
        import torch
        from torch import nn

        width, depth = self.channels, self.depth

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                # Waves of t / 1000, from half a turn to 512 turns over the chain.
                self.register_buffer("waves", torch.pi * 2.0 ** torch.arange(10))
                self.time = nn.Sequential(nn.Linear(20, width), nn.SiLU(), nn.Linear(width, width))
                self.labels = nn.Embedding(num_classes + 1, width) if num_classes is not None else None
                self.first = nn.Conv2d(in_channels, width, 3, padding=1)
                self.shifts = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
                self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
                self.last = nn.Conv2d(width, out_channels, 3, padding=1)

            def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
                angles = (t / 1000)[:, None] * self.waves
                emb = self.time(torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype))
                if self.labels is not None:
                    none = torch.full_like(t, self.labels.num_embeddings - 1, dtype=torch.int64)
                    emb = emb + self.labels(none if y is None else y)
                h = self.first(x)
                for shift, conv in zip(self.shifts, self.middle, strict=True):
                    h = h + conv(nn.functional.silu(h + shift(nn.functional.silu(emb))[:, :, None, None]))
                return self.last(nn.functional.silu(h))

        return Net()


@hookimpl
def ddpmkit_register_backbones() -> list[type]:
    """Return the backbones of this plugin."""
    return [V1Backbone]


@dataclass(frozen=True)
class V1Prediction(Prediction):
    """EDM's F: x0hat = c_skip x_t / m_t + c_out F, for data of standard deviation s."""

    name = "v1-prediction"
    reference = "the plugin API, version 1"
    s: float = param(0.5, "standard deviation of the data", gt=0)

    def target(self, at: Factors, x0: Tensor, eps: Tensor, xt: Tensor) -> Tensor:
        """Return what the network is asked for at x_t = m_t x0 + S_t eps."""
        return (x0 - self.skip(at) * xt) / self.out(at)

    def x0hat(self, at: Factors, xt: Tensor, out: Tensor) -> Tensor:
        """Return what the answer ``out`` says of x0; the inverse of the target."""
        return self.skip(at) * xt + self.out(at) * out

    def divisor(self, tables: Tables) -> Array:
        """Return (error of the answer / error of x0hat)^2 = 1 / c_out^2, float64 (T,)."""
        return (tables.noise2 + self.s**2 * tables.signal**2) / (tables.noise2 * self.s**2)

    def skip(self, at: Factors) -> Tensor:
        """c_skip / m_t."""
        return self.s**2 * at.signal / (at.noise**2 + self.s**2 * at.signal**2)

    def out(self, at: Factors) -> Tensor:
        """c_out."""
        return at.noise * self.s / (at.noise**2 + self.s**2 * at.signal**2) ** 0.5


@hookimpl
def ddpmkit_register_predictions() -> list[type]:
    """Return the predictions of this plugin."""
    return [V1Prediction]


@dataclass(frozen=True)
class V1Sampler(Sampler):
    """Ancestral sampling with less noise: x_{t-1} = c_t x0hat + k_t x_t + temperature sigma_t z."""

    name = "v1-sampler"
    reference = "the plugin API, version 1"
    temperature: float = param(0.9, "factor on the noise of every step; 1 is ancestral sampling", ge=0, le=1)

    def timesteps(self, T: int, count: int) -> Sequence[int]:
        """Return the ``count`` indices that the walk visits, rising to T-1."""
        return spaced("even", T, count)

    def sample(self, denoise: Denoise, tables: Tables, noise: Noise) -> Tensor:
        """Walk from the last step to the first: c_t and k_t are the posterior's, z is unit noise."""
        # Plain floats: a numpy scalar times a tensor would be a copy to the host.
        on_x0, on_xt = tables.posterior_x0.tolist(), tables.posterior_xt.tolist()
        x = noise(0) * float(tables.prior_variance) ** 0.5
        for k, t in enumerate(range(tables.T - 1, -1, -1)):
            denoised = denoise(x, t)
            x = on_x0[t] * clipped(denoised.x0, "static") + on_xt[t] * x
            if t > 0:  # the last step adds none
                x = x + self.temperature * denoised.sigma * noise(k + 1)
        return x


@hookimpl
def ddpmkit_register_samplers() -> list[type]:
    """Return the samplers of this plugin."""
    return [V1Sampler]


@dataclass(frozen=True)
class V1Dataset(Dataset):
    """Stripes, 8x8 with 17 grey levels: a wave across (label 0) or down (label 1) the image, its phase at random."""

    name = "v1-dataset"
    reference = "the plugin API, version 1"
    count: int = param(600, "images to train on", ge=10)

    def load(self) -> Images:
        """Return the images, uint8 (N, 1, 8, 8) in levels 0 .. 16: the same ones every time."""
        import numpy as np

        rng = np.random.default_rng(0)
        images: dict[str, Levels] = {}
        labels = {}
        for split, n in (("train", self.count), ("validation", 100), ("test", 400)):
            phase = rng.uniform(0, 2 * np.pi, (n, 1))
            wave = np.rint(8 + 8 * np.sin(np.arange(8) * np.pi / 4 + phase)).astype(np.uint8)
            across = np.repeat(wave[:, None, None, :], 8, axis=2)
            labels[split] = rng.integers(0, 2, n)
            images[split] = np.where(labels[split][:, None, None, None] == 0, across, across.swapaxes(2, 3))
        return Images(**images, levels=17, labels=labels, classes=("across", "down"))


@hookimpl
def ddpmkit_register_datasets() -> list[type]:
    """Return the data sets of this plugin."""
    return [V1Dataset]


@dataclass(frozen=True)
class V1Features(Features):
    """Mean grey levels of side x side blocks of the image, in shares of white, one after another for each channel."""

    name = "v1-features"
    reference = "the plugin API, version 1"
    side: int = param(4, "blocks along each side", ge=1)

    def label(self) -> str:
        """Return the name behind ``FD-`` in tables."""
        return f"v1-features{self.side}"

    def fingerprint(self) -> str:
        """Return what changes when a feature may: the version and the parameters, and a hash of weights if any."""
        return f"v1-features/{self.version}/{self.side}"

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return the extractor, uint8 levels (N, C, H, W) -> float64 (N, C side^2); ``data`` is the training set.

        Raises:
            DdpmkitError: for images with fewer pixels along a side than there are blocks.
        """
        import numpy as np

        height, width = data.train.shape[2:]
        if min(height, width) < self.side:
            raise DdpmkitError(
                f"features 'v1-features' cut {self.side} blocks along a side, and the images are {height}x{width}",
                f"--features v1-features:side={min(height, width)}",
            )
        rows, columns = (np.linspace(0, n, self.side + 1).astype(int) for n in (height, width))
        blocks = [
            (slice(*rows[i : i + 2]), slice(*columns[j : j + 2])) for i in range(self.side) for j in range(self.side)
        ]

        def extract(levels: Levels) -> Array:
            means = [levels[:, :, i, j].mean((2, 3), dtype=np.float64) for i, j in blocks]
            return np.concatenate(means, axis=1) / (data.levels - 1)

        return extract


@hookimpl
def ddpmkit_register_features() -> list[type]:
    """Return the features of this plugin."""
    return [V1Features]


@dataclass(frozen=True)
class V1Metric(Metric):
    """How far the mean pixel of the samples lies from the reference's, as a share of the way from black to white."""

    name = "v1-metric"
    reference = "the plugin API, version 1"
    title = "v1-metric"
    unit = "of black to white"
    better = "lower"
    needs = ("pixels",)

    def value(self, sets: Sets) -> Measurement:
        """Return |mean of samples - mean of reference|; each sample's own part in it gives the standard error."""
        if sets.x_levels is None or sets.y_levels is None or sets.levels is None:
            raise ValueError("it needs pixels")  # and says so: they are here
        white = sets.levels - 1
        ours, theirs = (levels.mean((1, 2, 3)) / white for levels in (sets.x_levels, sets.y_levels))
        gap = float(ours.mean() - theirs.mean())
        return Measurement(abs(gap), influence=(1 if gap >= 0 else -1) * (ours - ours.mean()))


@hookimpl
def ddpmkit_register_metrics() -> list[type]:
    """Return the metrics of this plugin."""
    return [V1Metric]


@dataclass(frozen=True)
class V1Executor(Executor):
    """Run every stage in this very process, one after another."""

    name = "v1-executor"
    reference = "the plugin API, version 1"

    def open(self, job: Job, emit: Emit, should_stop: ShouldStop) -> Pool:
        """Return the places in which stages run; here there is one."""
        return Here(job, emit, should_stop)


@dataclass
class Here(Pool):
    """One place: a stage that was submitted runs at the next poll, and ends with one event."""

    job: Job
    emit: Emit
    should_stop: ShouldStop
    waiting: list[Task] = field(default_factory=list)
    places: int = 1

    def submit(self, place: int, task: Task) -> None:
        """Take a stage in."""
        self.waiting.append(task)

    def poll(self, seconds: float) -> None:
        """Run what waits; an engine of its own would look for news for about so many seconds."""
        from ddpmkit import run_one

        while self.waiting:
            task = self.waiting.pop(0)
            state = run_one(self.job, task, self.emit, self.should_stop)
            self.emit({"event": "end", "stage": task.id, "state": state})


@hookimpl
def ddpmkit_register_executors() -> list[type]:
    """Return the executors of this plugin."""
    return [V1Executor]
