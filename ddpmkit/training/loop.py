"""Training: Algorithm 1 of DDPM as one visible loop.

Everything random comes from counters, so that a run which was killed and resumed gives the same bits as one that was
not, and every cell of a study sees the same images, steps and noise at the same train seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddpmkit import device as devices
from ddpmkit.diffusion.denoise import Denoiser
from ddpmkit.diffusion.gaussian import q_sample
from ddpmkit.diffusion.labels import Shown
from ddpmkit.diffusion.objective import BoundTerm, Objective, check_possible, loss, prediction_weights
from ddpmkit.diffusion.tables_for import Array, Tables, checked_weights
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.contract import divisor, dropout_layers, vlb_share
from ddpmkit.plugin.interfaces import Sigma, Weighting
from ddpmkit.randomness import normal, seed_libraries, stream_key, uniform
from ddpmkit.recording import Recorder, recorder
from ddpmkit.training import ema
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.gradient_clip import GradientClip
from ddpmkit.training.graph import Cut, Parts, recorded
from ddpmkit.training.inputs import Inputs
from ddpmkit.training.state import State
from ddpmkit.training.timesteps import timesteps


@dataclass(frozen=True)
class Progress:
    """What the loop says of itself every ``log_every`` steps: means since the last time."""

    step: int
    loss: float
    eps_mse: float
    grad_norm: float


@dataclass(frozen=True)
class Hooks:
    """How the loop meets the outside: where it saves, whom it tells, when it should stop, and who records its steps."""

    folder: Path | None = None
    checkpoint_every: int = 500
    checkpoint_seconds: float = 60.0
    log_every: int = 50
    on_progress: Callable[[Progress], None] = lambda _: None
    on_resume: Callable[[int], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False
    recorder: Callable[[torch.device], Recorder | None] = recorder
    on_saved: Callable[[], None] = lambda: None
    on_steps: Callable[[str], None] = lambda _: None  # where there is a recorder: "recorded", or "one by one" after all


def build_objective(
    tables: Tables,
    weighting: Weighting,
    log_sigma2: Array,
    decoder: float,
    config: TrainConfig,
    levels: int,
    device: torch.device,
    learned: Sigma | None = None,
) -> Objective:
    """Put what the loss needs on the device; ``decoder`` is the log-variance of p(x0 | x1), sigma's entry at t=1.

    With a ``learned`` sigma the loss holds its bound term: alone where the weighting is the bound, otherwise the
    weighting's share of it, the mean held still.

    Raises:
        DdpmkitError: when the weighting gives a wrong shape, negative or infinite weights, or only zeros; when the
            prediction can't be learned on the chain.
    """
    with_decoder = log_sigma2.copy()
    with_decoder[0] = decoder
    x0_weights = checked_weights(weighting, tables, with_decoder)
    check_possible(config.prediction, tables)
    weights = (
        x0_weights if weighting.space == "prediction" else prediction_weights(tables, x0_weights, config.prediction)
    )
    bound = None
    if learned is not None:
        with np.errstate(divide="ignore"):  # beta-tilde_1 is zero, and not used
            log_tilde = np.log(tables.posterior_variance)
        log_tilde[0] = 0.0
        bound = BoundTerm(
            torch.from_numpy(log_tilde).float().to(device),
            torch.from_numpy(tables.posterior_x0**2).float().to(device),
            1.0 if weighting.is_bound else vlb_share(weighting, tables.T),
            not weighting.is_bound,
        )
        weights = np.zeros_like(weights) if weighting.is_bound else weights
    return Objective(
        Denoiser.of(tables, config.prediction, device, learned),
        torch.from_numpy(weights).float().to(device),
        math.exp(decoder / 2) if weighting.decoder_first and learned is None else None,
        levels,
        np.array_equal(divisor(config.prediction, tables), tables.snr),
        bound,
    )


def train(
    net: nn.Module,
    data: Tensor,
    objective: Objective,
    config: TrainConfig,
    device: torch.device,
    hooks: Hooks,
    labels: Shown | None = None,
) -> dict[str, nn.Module]:
    """Train ``net`` on ``data`` and return the moving averages of its weights, by the rate as text.

    Args:
        net: The backbone, already on the device.
        data: uint8 grey levels (N, C, H, W), resident on the device.
        objective: From :func:`build_objective`.
        config: The settings.
        device: Where the network and the data are.
        hooks: Checkpoints, progress, stopping.
        labels: Of the images, for a class-conditional network; None shows it none.

    Raises:
        Diverged: when a loss or a weight is not finite.
        Interrupted: when asked to stop; a checkpoint of the last finished step has been written.
    """
    set_dropout(net, config.dropout)
    denoiser, shape = objective.denoiser, tuple(data.shape[1:])
    choice = timesteps(config.timestep_sampling, len(objective.weights), device)
    time_key, noise_key, flip_key = (stream_key(config.seed, stream) for stream in ("time", "noise", "flip"))
    recording = hooks.recorder(device)
    inputs = Inputs(config, len(data), device, held=recording is not None)
    optimizer = devices.adamw(
        net.parameters(),
        device,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        capturable=recording is not None,
    )
    averages = {repr(rate): ema.average_of(net) for rate in config.emas}
    sums = torch.zeros(3, device=device)  # weighted loss, eps-MSE, gradient norm, since the last report
    losses = torch.zeros(config.batch_size, device=device)
    healthy = torch.zeros((), dtype=torch.int64, device=device)  # steps since the last report before one is not finite
    clip = GradientClip(config.grad_clip, config.clip_ratio, device)
    state = State(net, averages, optimizer, choice, clip, sums)
    start = state.restore(hooks.folder)
    hooks.on_resume(start)
    saved = time.monotonic()
    net.train()
    b: _Batch

    def draw() -> None:
        """Draw images, their steps and their noise."""
        nonlocal b
        x0 = to_pixels(data[inputs.index], objective.levels)
        if config.flip:
            x0 = flipped(x0, uniform(flip_key, inputs.number))
        t, factors = choice.draw(uniform(time_key, inputs.number))  # steps, and 1 / (T p_t) unless they are uniform
        eps = normal(noise_key, inputs.number, shape)
        y = None if labels is None else labels.at(inputs.index, inputs.number)
        b = _Batch(x0, t, factors, eps, q_sample(denoiser.coefficients, x0, t, eps), y)

    def descend(cut: Cut, begins: bool) -> None:
        """Add a micro-batch's gradient; the first of a step begins anew."""
        if begins:
            optimizer.zero_grad(set_to_none=True)
        with devices.autocast(device, config.precision):
            out = denoiser.ask(net, b.xt[cut], b.t[cut], None if b.y is None else b.y[cut])
        terms = loss(objective, b.x0[cut], b.t[cut], b.eps[cut], b.xt[cut], out.float())
        counted = terms.weighted if b.factors is None else b.factors[cut] * terms.weighted
        (counted.sum() / config.batch_size).backward()
        losses[cut] = terms.weighted.detach()
        sums[0] += counted.detach().sum() / config.batch_size
        eps_mse = terms.eps_mse if b.factors is None else b.factors[cut] * terms.eps_mse
        sums[1] += eps_mse.sum() / config.batch_size

    def finish() -> None:
        """Clip, step, average."""
        sums[2] += clip.clip(net.parameters())
        optimizer.step()
        healthy.add_(torch.isfinite(sums[::2]).all())  # what is not finite stays so in a sum
        for average, decay in zip(averages.values(), inputs.decays, strict=True):
            ema.update(average, net, decay)
        choice.learn(b.t, losses)

    def take(step: int, parts: Parts) -> None:
        inputs.at(step)
        for group in optimizer.param_groups:
            group["lr"] = inputs.rate
        parts.draw()
        for number, first in enumerate(range(0, config.batch_size, config.micro_batch)):
            seed_libraries(config.seed, "dropout", f"{step}/{number}")  # and whatever else a network may draw
            parts.descend(slice(first, first + config.micro_batch), first == 0)
        parts.finish()

    parts = Parts(draw, descend, finish)
    if recording is not None and start < config.steps:
        replays = recorded(recording, parts, take, state, start, (config.batch_size, config.micro_batch))
        hooks.on_steps(("one by one" if replays is None else recording.kind) + recording.caveat)
        parts = replays or parts
    healthy.fill_(start % hooks.log_every)  # after the steps that only warm up
    for step in range(start, config.steps):
        if hooks.should_stop():
            state.save(hooks.folder, step)
            raise Interrupted(f"stopped after step {step}")
        take(step, parts)
        done = step + 1
        if done % hooks.log_every == 0 or done == config.steps:
            _report(hooks, done, sums, healthy, (done - 1) % hooks.log_every + 1)  # the loop's one host sync
        if done % hooks.log_every == 0:  # not at an end between two reports: a longer training goes on from there
            sums.zero_()
        late = time.monotonic() - saved > hooks.checkpoint_seconds
        if hooks.folder is not None and (done % hooks.checkpoint_every == 0 or done == config.steps or late):
            state.save(hooks.folder, done)
            hooks.on_saved()
            saved = time.monotonic()
    return averages


def flipped(x0: Tensor, u: Tensor) -> Tensor:
    """Mirror images (B, C, H, W) left to right where u (B,), uniform in [0, 1), is below one half."""
    return torch.where((u < 0.5)[:, None, None, None], x0.flip(3), x0)


def set_dropout(net: nn.Module, rate: float | None) -> None:
    """Set the rate of every layer that drops out, of whatever kind; None leaves the network's own rates.

    Raises:
        DdpmkitError: when a rate above 0 is asked of a network without dropout layers.
    """
    layers = dropout_layers(net)
    if rate and not layers:
        raise DdpmkitError("this backbone has no dropout layer", "leave out --dropout, or give it an nn.Dropout")
    for layer, attribute in layers if rate is not None else ():
        setattr(layer, attribute, rate)


def _report(hooks: Hooks, step: int, sums: Tensor, healthy: Tensor, count: int) -> None:
    weighted, eps_mse, norm = (sums / count).tolist()
    if not (math.isfinite(weighted) and math.isfinite(norm)):
        first = step - count + int(healthy) + 1
        raise Diverged(f"the loss is {weighted} and the gradient's norm {norm} at step {first}")
    healthy.zero_()
    hooks.on_progress(Progress(step, weighted, eps_mse, norm))


@dataclass(frozen=True, eq=False)
class _Batch:
    """What a step is about; each (B, ...)."""

    x0: Tensor
    t: Tensor
    factors: Tensor | None
    eps: Tensor
    xt: Tensor
    y: Tensor | None
