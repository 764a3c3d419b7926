"""The optimal loss: what the best denoiser of the training images themselves would lose, by log-SNR.

Data that are the N training images x_1 .. x_N, each as likely, have the posterior mean in closed form. With
z = x_t / m_t = x0 + SNR^(-1/2) eps,

    x0hat(z) = sum_i w_i x_i,    w = softmax_i( -SNR ||z - x_i||^2 / 2 ).

No network has a lower expected loss on the training images. Its loss on held-out images is that of a perfect copier,
which a network that generalises beats. It depends on t by SNR alone, so that it is one curve for all schedules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.tables_for import Array
from ddpmkit.errors import DdpmkitError
from ddpmkit.randomness import normal, permutation, stream_key

ENTRIES = 2**22  # numbers in the largest array of a chunk


@dataclass(frozen=True, eq=False)
class OptimalLoss:
    """The loss of the optimal denoiser at some log-SNRs, each (K,).

    Attributes:
        log_snr: log of the signal-to-noise ratio.
        x0_loss: mean squared error of x0hat, per dimension.
        standard_error: its Monte-Carlo error, over draws of an image and its noise.
    """

    log_snr: Array
    x0_loss: Array
    standard_error: Array

    @property
    def eps_loss(self) -> Array:
        """Mean squared error of eps, per dimension: SNR times that of x0."""
        return np.asarray(np.exp(self.log_snr) * self.x0_loss)

    @property
    def eps_standard_error(self) -> Array:
        """The Monte-Carlo error of the eps loss."""
        return np.asarray(np.exp(self.log_snr) * self.standard_error)


def optimal_loss(
    log_snr: Array,
    train: Tensor,
    images: Tensor,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    draws: int = 512,
    seed: int | str = 0,
) -> OptimalLoss:
    """Return E ||x0 - x0hat(z)||^2 / d of the optimal denoiser of ``train`` on ``images``, arXiv 2506.13763.

    The same images and noise at every log-SNR, so that the curve is smooth; float64 throughout.

    Args:
        log_snr: Where, (K,).
        train: What the denoiser knows, pixels (N, ...).
        images: What it is asked about, (M, ...): the training images, or held-out ones.
        labels: Of ``train`` and of ``images``, int64 (N,) and (M,), for a denoiser that is told the class.
        draws: Pairs of image and noise; the images are taken in turn, in random order.
        seed: Key of order and noise.

    Raises:
        DdpmkitError: when there is no image, fewer than two draws, or a class that no training image has.
    """
    if len(train) == 0 or len(images) == 0 or draws < 2:
        raise DdpmkitError("an optimal loss needs images and two draws", "give more images or draws")
    known, device = train.detach().double().flatten(1), train.device
    order = permutation(seed, len(images), 0, device)
    index = order[torch.arange(draws, device=device) % len(images)]
    x0 = images.detach().double().flatten(1)[index]
    eps = normal(stream_key(seed, "optimal"), torch.arange(draws, device=device), (x0.shape[1],)).double()
    classes = None
    if labels is not None:
        classes = labels[0], labels[1][index]
        if not bool(torch.isin(classes[1], classes[0]).all()):
            raise DdpmkitError("a class has no training image", "its images have no optimal loss")
    snr = torch.from_numpy(np.exp(log_snr)).to(device)
    size = max(1, ENTRIES // (len(snr) * max(known.shape[1], 1024)))
    errors = torch.cat(
        [
            (x0[rows] - _posterior_mean(snr, known, x0[rows], eps[rows], classes, rows)).square().mean(2)
            for rows in torch.arange(draws, device=device).split(size)
        ],
        1,
    )
    spread = errors.std(1) / math.sqrt(draws)
    return OptimalLoss(np.asarray(log_snr, np.float64), errors.mean(1).cpu().numpy(), spread.cpu().numpy())


def _posterior_mean(
    snr: Tensor, known: Tensor, x0: Tensor, eps: Tensor, classes: tuple[Tensor, Tensor] | None, rows: Tensor
) -> Tensor:
    """E[x0 | z] of each row at each SNR, (K, B, d): the softmax over the known images, a chunk of them at a time."""
    count, batch = len(snr), len(x0)
    top = torch.full((count, batch, 1), -math.inf, dtype=torch.float64, device=x0.device)
    total, mean = torch.zeros_like(top), x0.new_zeros(count, batch, x0.shape[1])
    for chunk in torch.arange(len(known), device=x0.device).split(max(1, ENTRIES // (count * batch))):
        x = known[chunk]
        # -SNR ||z - x_i||^2 / 2 without what all x_i share: products of each image and noise serve every SNR.
        distance = torch.cdist(x0, x, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
        score = -snr[:, None, None] * distance + snr.sqrt()[:, None, None] * (eps @ x.T)
        if classes is not None:
            score = score.masked_fill(classes[0][chunk] != classes[1][rows][:, None], -math.inf)
        new = torch.maximum(top, score.amax(2, keepdim=True))
        # Before the first image of its class has come a row has no weight, and -inf less -inf is no number.
        shift = torch.where(new.isinf(), 0.0, new)
        weight, fade = (score - shift).exp(), (top - shift).exp()
        total = fade * total + weight.sum(2, keepdim=True)
        mean = fade * mean + weight @ x
        top = new
    return mean / total
