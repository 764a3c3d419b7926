"""Ask the network for what the bound needs, once: layer one of the likelihood, without any fixed sigma.

t=1 is drawn for every image, the other steps by importance: a pilot on other images estimates the losses, and steps
come from p_t by systematic sampling in R = 16 independently shifted replicates. Or every image at every step, as a full
sweep. Where there are few images each is drawn often enough for its noise to show; the passes are padded, so that it
mostly costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ddpmkit.diffusion.bound_terms import middle_constant, middle_factor
from ddpmkit.diffusion.gaussian import Coefficients
from ddpmkit.diffusion.tables_for import Array, Tables, decoder_log_variance
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood import checks
from ddpmkit.likelihood import proposal as proposals
from ddpmkit.likelihood.control_variates import Controls, LinearGaussian, coefficients, scales_of
from ddpmkit.likelihood.draws import Draws, Plain, Sampled, SweepSums, Swept, Values, blocks
from ddpmkit.likelihood.passes import Passes, Pool, Predict, ask_at_one, flat
from ddpmkit.likelihood.proposal import PILOT_IMAGES, REPLICATES
from ddpmkit.likelihood.vlb import bound
from ddpmkit.randomness import normal, stream_key

DECODER_DRAWS = 2
ENOUGH = 16  # draws at one step from which their spread is known; with fewer images each is drawn several times
FIRST_STAGE = 64  # draws a replicate from which a target error's budget is worked out; they are then thrown away
EXAMPLES = {"evaluations": 8192, "decoder_draws": 2, "micro_batch": 256}
MOST_SWEEPS = 64  # beyond, a target error is refused: it was hardly meant
SAFETY = 1.46  # 15 / chi2_15(0.2): the variance that 15 degrees of freedom show is below this share in 8 of 10 cases


def beside_the_middle(T: int, images: int) -> int:
    """Return the evaluations that pilot and decoder take for so many images, whatever the middle sum's budget."""
    return len(proposals.pilot_grid(T)) * PILOT_IMAGES + draws_at_one(images) * images


def draws_at_one(images: int) -> int:
    """Return the noise draws of each image at t=1: two, and more where there are fewer than eight images."""
    return max(DECODER_DRAWS, math.ceil(ENOUGH / max(images, 1)))


@torch.inference_mode()
def draw(
    predict: Predict,
    tables: Tables,
    *,
    images: Tensor,
    pilot: Tensor,
    labels: Tensor | None = None,
    pilot_labels: Tensor | None = None,
    levels: int,
    evaluations: int | None = None,
    target_se: float | None = None,
    full: bool = False,
    seed: int | str = 0,
    micro_batch: int = 256,
    linear: LinearGaussian | None = None,
    proposal: Array | None = None,
    decoder_draws: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Draws:
    """Draw what the bound of ``images`` is made of; give one of ``evaluations``, ``target_se`` and ``full``.

    Args:
        predict: ``predict(xt, t) -> (x0hat, log_sigma2)``, t int64 (B,), x0hat not clipped; ``log_sigma2`` is None, or
            the network's own log-variance of p(x_{t-1} | x_t), shaped like x0hat.
        tables: The chain; strided or full.
        images: Float32 pixels (N, ...) in [-1, 1], exactly on the grey levels unless the decoder is continuous.
        pilot: Images for the proposal and the controls' factors. They may be the same images: the noise is never.
        labels: Of the images, int64 (N,); ``predict(xt, t, y)`` is then told them, and it is p(x | y) that is bounded.
        pilot_labels: Of the pilot's images; given where the others are.
        levels: Number K of grey levels; it matters to ``target_se`` alone.
        evaluations: Budget in network evaluations, the pilot's and the decoder's included; rounded up to replicates.
        target_se: Monte-Carlo standard error to reach, bits/dim, for the clipped bound under beta as under beta-tilde
            (or the network's own variance), with the exact decoder of variance beta-tilde_2. A first stage of
            64 draws a replicate tells how many are needed; it is thrown away, so that the size does not bias the mean.
        full: Every image at every step, with the same number of draws at t=1; fewer than 16 images are each drawn
            several times at every step, so that at least 16 draws show the noise.
        seed: Keys of all noise and shifts.
        micro_batch: Images per network pass, always; the last pass is padded.
        linear: Fitted to training images; without it only the norm of the noise serves as control variate.
        proposal: p_t of other draws, to share their (step, image, noise) triples; no pilot shapes it then.
        decoder_draws: Noise draws an image at t=1; from two on their noise is measured, with one it is bounded. Two by
            default, and more where there are fewer than eight images: see :func:`draws_at_one`.
        on_progress: Told the finished fraction.
        should_stop: Asked before every pass.

    Raises:
        Diverged: when the network gives a value that is not finite; the step and the image are named.
        Interrupted: when asked to stop.
        DdpmkitError: when the budget is given twice or not at all, is below what pilot and decoder need, or is beyond
            reason; when there are no images, or what is given does not fit them or the chain.
    """
    checks.images("images", images)
    if not full:
        checks.images("pilot", pilot, images)
    for name, value in (("evaluations", evaluations), ("decoder_draws", decoder_draws), ("micro_batch", micro_batch)):
        if value is not None:
            checks.whole(name, value, 1, f"as in {name}={EXAMPLES[name]}")
    if proposal is not None and np.shape(proposal) != (tables.T,):
        raise DdpmkitError(
            f"the proposal has shape {np.shape(proposal)}, and the chain {tables.T} steps",
            "one of draws over the same chain: draws.middle.proposal",
        )
    if sum((evaluations is not None, target_se is not None, full)) != 1:
        raise DdpmkitError("give one of evaluations, target_se and full", "as in evaluations=8192")
    if target_se is not None and not target_se > 0:
        raise DdpmkitError(f"target_se must be above 0, got {target_se}", "as in target_se=0.01, in bits/dim")
    given = [None if y is None else len(y) for y in (labels, pilot_labels)]
    if given not in ([None, None], [len(images), len(pilot)]):
        raise DdpmkitError(
            f"labels of {given[0]} images and of {given[1]} of the pilot, which are {len(images)} and {len(pilot)}",
            "give both, one label an image, or neither",
        )
    count = len(images)
    usual = draws_at_one(count)
    decoder_draws = usual if decoder_draws is None else decoder_draws
    asker = Passes(predict, tables, Coefficients.of(tables, images.device), seed, micro_batch, should_stop)
    pool = Pool(images, labels)
    if full:
        return _sweep(asker, pool, decoder_draws, on_progress)

    grid = proposals.pilot_grid(tables.T)
    piloting = len(grid) * PILOT_IMAGES
    least = piloting + decoder_draws * count + 1
    first = FIRST_STAGE if target_se is not None else 0
    if evaluations is not None and evaluations < least:
        raise DdpmkitError(
            f"{evaluations} evaluations are fewer than the {least} that pilot and decoder need for {count} images",
            f"give at least {least}, or fewer images",
        )
    size = -(-(evaluations - least + 1) // REPLICATES) if evaluations is not None else 0
    planned = piloting + (decoder_draws * count if not first else 2 * usual * count)
    planned += REPLICATES * (first or size)

    def tell(done: int) -> None:
        on_progress(min(done / planned, 1.0))

    device = images.device
    pilot_t = torch.tensor(np.repeat(grid, PILOT_IMAGES), device=device)
    which = torch.arange(len(pilot_t), device=device) % len(pilot)
    seen = asker(Pool(pilot, pilot_labels), "nll-pilot", which, pilot_t, Controls.of(tables, pilot, linear), tell)
    p, scales = proposal, scales_of(tables, linear, images[0].numel())
    if p is None:
        p = proposal_of(seen.t, seen.errors, seen.terms, seen.controls, scales, tables, images[0].numel())
    controls = Controls.of(tables, images, linear)

    def stage(stream: str, size: int, decoder: int) -> Draws:
        mean, log_variance = ask_at_one(asker, pool, stream, decoder, tell)
        t, image = proposals.systematic(p, count, size, seed, stream, device)
        found = asker(pool, stream, image, t, controls, tell)
        middle = Sampled(
            found.t, found.image, p, found.errors, found.terms, found.controls,
            seen.t, seen.errors, seen.terms, seen.controls, scales, REPLICATES,
        )  # fmt: skip
        return Draws(flat(images), mean, log_variance, middle, tables.T, asker.done)

    if target_se is not None:
        size, decoder_draws = _needed(stage("nll-first", first, usual), tables, levels, target_se)
        most = MOST_SWEEPS * count * (tables.T - 1)
        if REPLICATES * size > most:
            reach = target_se * math.sqrt(REPLICATES * size / most)
            raise DdpmkitError(
                f"a standard error of {target_se:g} bits/dim takes about {REPLICATES * size:,} evaluations, more than "
                f"{MOST_SWEEPS} full sweeps",
                f"{reach:.2g} is within reach, as in --nll-se {reach:.2g}",
            )
        planned = asker.done + decoder_draws * count + REPLICATES * size
    return stage("nll", size, decoder_draws)


def references(tables: Tables) -> list[Array]:
    """Return the log-variances between which fixed sigmas lie: beta-tilde_t and beta_t, (T,); entry 0 is beta_1."""
    tilde = tables.posterior_variance.copy()
    tilde[0] = tables.b2[0]
    return [np.log(tilde), np.log(tables.b2)]


def proposal_of(
    t: Plain, errors: Values, terms: Values | None, controls: Array, scales: Array, tables: Tables, dims: int
) -> Array:
    """Return p_t from pilot draws, for all fixed sigmas at once, or for the network's own variance."""
    shapes: dict[bool, list[Array]] = {True: [], False: []}
    for clip, found in shapes.items():
        x = (errors if terms is None else terms).of(clip)
        rest = x - (coefficients(t, x, controls, scales)[t] * controls).sum(1)
        # What differs between draws at one step is left; the mean over them is not noise.
        for step in np.unique(t):
            rest[t == step] -= rest[t == step].mean()
        if terms is not None:
            found.append(proposals.shape(t, x, rest, tables.T))
            continue
        for log_sigma2 in references(tables):
            factor, constant = middle_factor(tables, log_sigma2), dims * middle_constant(tables, log_sigma2)
            found.append(proposals.shape(t, factor[t] * x + constant[t], factor[t] * rest, tables.T))
    return proposals.mixture(shapes[True], shapes[False])


def _needed(first: Draws, tables: Tables, levels: int, target: float) -> tuple[int, int]:
    """Return draws a replicate and draws an image at t=1 that reach the target for every reference."""
    own = first.decoder_log_variance is not None
    choices = [None] if own else references(tables)
    decoder = None if own else decoder_log_variance(tables)
    found = [bound(first, tables, s, decoder, levels=levels) for s in choices]
    count = len(first.x0)
    drawn = FIRST_STAGE * REPLICATES
    # Variances of a single evaluation; the split between the two parts that costs least is by their roots.
    middle = SAFETY * max(b.evidence.middle_variance() for b in found) * drawn
    usual = len(first.decoder_mean)
    at_one = max(b.evidence.decoder_variance() for b in found) * usual * count
    best = math.sqrt(at_one) * (math.sqrt(middle) + math.sqrt(at_one)) / target**2 / count
    draws = max(usual, math.ceil(best))
    left = target**2 - at_one / (draws * count)
    return max(1, math.ceil(middle / left / REPLICATES)), draws


def _sweep(asker: Passes, pool: Pool, decoder_draws: int, on_progress: Callable[[float], None]) -> Draws:
    """Every image at every step, one step after another, kept as sums."""
    tables, images = asker.tables, pool.x0
    count = len(images)
    repeats = math.ceil(ENOUGH / count) if count else 1
    T, planned = tables.T, count * (repeats * (tables.T - 1) + decoder_draws)
    block = blocks(T)
    reference = middle_factor(tables, references(tables)[0])
    key, shape = stream_key(asker.seed, "nll-full"), tuple(images.shape[1:])
    every = torch.arange(count, device=images.device).repeat(repeats)  # the noise is keyed by the place in this list
    mean, log_variance = ask_at_one(asker, pool, "nll-full", decoder_draws, lambda n: on_progress(n / planned))
    kinds = 2 if log_variance is None else 4
    total, square, lagged = (np.zeros((kinds, T)) for _ in range(3))
    image = np.zeros((kinds, len(every), int(block.max()) + 1))
    before = np.zeros((kinds, len(every)))
    for t in range(1, T):
        steps = torch.full_like(every, t)
        noise = partial(normal, key, shape=shape, position=t)
        parts = []
        for rows in torch.arange(len(every), device=every.device).split(asker.micro_batch):
            x0, hat, own, _ = asker.batch(pool, every, steps, noise, rows)
            parts.append(torch.stack(asker.values(x0, hat, own, steps[rows])))
            on_progress(asker.done / planned)
        now = torch.cat(parts, 1).numpy()
        total[:, t], square[:, t] = now.sum(1), (now**2).sum(1)
        lagged[:, t - 1] = (before * now).sum(1)
        weight = np.array([reference[t], reference[t], 1.0, 1.0][:kinds])
        image[:, :, block[t]] += weight[:, None] * now
        before = now
    m = [SweepSums(total[k], square[k], lagged[k], image[k]) for k in range(kinds)]
    terms = m[2:] if kinds == 4 else (None, None)
    swept = Swept(m[0], m[1], terms[0], terms[1], block, reference, repeats)
    return Draws(flat(images), mean, log_variance, swept, T, asker.done)
