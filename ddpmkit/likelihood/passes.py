"""The network in fixed, padded passes: what it answers to draws of (step, image, noise)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.bound_terms import middle_terms
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.tables_for import Array, Tables
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.likelihood.control_variates import Controls
from ddpmkit.likelihood.draws import Plain, Values
from ddpmkit.randomness import normal, stream_key

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Answers:
    """What the network said to some draws."""

    t: Plain
    image: Plain
    errors: Values
    terms: Values | None
    controls: Array


@dataclass(eq=False)
class Passes:
    """Runs the network on one fixed, padded micro-batch after another, and counts."""

    predict: Predict
    tables: Tables
    c: Coefficients
    seed: int | str
    micro_batch: int
    should_stop: Callable[[], bool]
    done: int = 0

    def batch(
        self, pool: Tensor, image: Tensor, t: Tensor, noise: Callable[[Tensor], Tensor], rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Return x0, x0hat, the network's log-variance and eps of at most ``micro_batch`` rows, all finite."""
        if self.should_stop():
            raise Interrupted("stopped during the likelihood")
        keep = len(rows)
        rows = torch.cat([rows, rows[-1:].expand(self.micro_batch - keep)])
        x0, steps, eps = pool[image[rows]], t[rows], noise(rows)
        hat, log_sigma2 = self.predict(q_sample(self.c, x0, steps, eps), steps)
        if hat.shape != x0.shape or (log_sigma2 is not None and log_sigma2.shape != x0.shape):
            shapes = [tuple(v.shape) for v in (hat, log_sigma2) if v is not None]
            raise DdpmkitError(f"the network gives {shapes} for images of shape {tuple(x0.shape)}")
        for name, value in (("x0hat", hat), ("log sigma^2", log_sigma2)):
            if value is not None:
                bad = ~torch.isfinite(value[:keep]).flatten(1).all(1)
                if bool(bad.any()):
                    row = int(bad.nonzero()[0])
                    raise Diverged(f"{name} is not finite at step {int(steps[row])} of image {int(image[rows][row])}")
        self.done += keep
        own = None if log_sigma2 is None else log_sigma2[:keep].cpu().double()
        return x0[:keep].cpu().double(), hat[:keep].cpu().double(), own, eps[:keep]

    def values(self, x0: Tensor, hat: Tensor, own: Tensor | None, t: Tensor) -> list[Tensor]:
        """Return the squared errors, clipped and not, and likewise the terms where the network gives its variance."""
        both = [hat.clamp(-1, 1), hat]
        out = [(x0 - h).square().flatten(1).sum(1) for h in both]
        if own is not None:
            out += [middle_terms(self.tables, t.cpu(), x0, h, own) for h in both]
        return out

    def __call__(
        self, pool: Tensor, stream: str, image: Tensor, t: Tensor, controls: Controls, tell: Callable[[int], None]
    ) -> Answers:
        """Ask about every (image, t); the noise of a draw is keyed by its place in the list."""
        noise = partial(normal, stream_key(self.seed, stream), shape=tuple(pool.shape[1:]))
        parts, extra = [], []
        for rows in torch.arange(len(t), device=t.device).split(self.micro_batch):
            x0, hat, own, eps = self.batch(pool, image, t, noise, rows)
            parts.append(torch.stack(self.values(x0, hat, own, t[rows])))
            extra.append(controls(image[rows], t[rows], eps))
            tell(self.done)
        found = torch.cat(parts, 1).numpy()
        terms = Values(found[2], found[3]) if len(found) == 4 else None
        return Answers(t.cpu().numpy(), image.cpu().numpy(), Values(found[0], found[1]), terms, np.concatenate(extra))


def flat(images: Tensor) -> Plain:
    """Images as float32 rows (N, d) on the CPU."""
    return np.ascontiguousarray(images.detach().cpu().float().flatten(1).numpy())


def ask_at_one(
    asker: Passes, images: Tensor, stream: str, draws: int, tell: Callable[[int], None]
) -> tuple[Plain, Plain | None]:
    """Return x0hat at t=1 for every image and draw, float32 (draws, N, d), and the network's log-variance."""
    count, dims = len(images), images[0].numel()
    image = torch.arange(count, device=images.device).repeat(draws)
    noise = partial(normal, stream_key(asker.seed, f"{stream}-decoder"), shape=tuple(images.shape[1:]))
    t, means, logs = torch.zeros_like(image), [], []
    for rows in torch.arange(len(image), device=image.device).split(asker.micro_batch):
        _, hat, own, _ = asker.batch(images, image, t, noise, rows)
        means.append(hat.float().flatten(1))
        if own is not None:
            logs.append(own.float().flatten(1))
        tell(asker.done)
    stacked = [torch.cat(v).reshape(draws, count, dims).numpy() if v else None for v in (means, logs)]
    if stacked[0] is None:
        raise DdpmkitError("there are no images to be scored", "give at least one")
    return stacked[0], stacked[1]
