"""What is asked of a sampler: it walks from noise to a Gaussian world, whose denoiser is known exactly."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import Sampler
from ddpmkit.testing.check import NotAsked, fail, named, unless_refused
from ddpmkit.testing.process import leaves_alone
from ddpmkit.testing.walks import DEVIATION, MEAN, short, spread, walked, walks

if TYPE_CHECKING:
    from torch import Tensor

CLOSE = 1e-4
WIDE = 1.6  # what is asked about at a step may be so much wider, or narrower, than x_t is


def timesteps(sampler: Sampler) -> None:
    """It visits as many steps as were asked for, rising, and the last one is T-1."""
    walks(sampler)
    for T, count in ((1000, 1), (50, 50)):
        if _takes(sampler, T, count):
            contract.timesteps(sampler, T, count)


def kernel(sampler: Sampler) -> None:
    """It says what noise its steps have: variances from 0, the same when asked again."""
    for tables in walks(sampler):
        contract.kernel(sampler, tables)


def walk(sampler: Sampler) -> None:
    """It gives finite images of the shape of the noise, at every length."""
    import torch

    for tables in walks(sampler):
        samples = walked(sampler, tables).samples
        if samples.dtype != torch.float32:
            fail(
                f"sampler '{sampler.name}' gives images of {samples.dtype} for noise of float32",
                "keep tables as Python floats: table.tolist()",
            )
        if not bool(torch.isfinite(samples).all()):
            fail(
                f"sampler '{sampler.name}' gives images that are not finite in {tables.T} steps", "look at its factors"
            )


def leaves_its_input(sampler: Sampler) -> None:
    """It does not write into the noise, nor into what the denoiser gave it."""
    import torch

    for tables in walks(sampler):
        for what, given, kept in walked(sampler, tables).given:
            if not torch.equal(given, kept):
                fail(
                    f"sampler '{sampler.name}' mutates its input: it writes into {what}",
                    "use x = a * x + b instead of x *= a, and clamp instead of clamp_, on what it is given",
                )


def repeats_itself(sampler: Sampler) -> None:
    """A second walk over the same noise gives the same images: nothing is kept from the first."""
    import torch

    tables = short(sampler)
    if not torch.equal(walked(sampler, tables).samples, walked(sampler, tables).samples):
        fail(
            f"sampler '{sampler.name}' gives other images of the same noise",
            "draw no numbers but those of noise(k), and begin every walk afresh",
        )


def no_leak_across_the_batch(sampler: Sampler) -> None:
    """What it draws for one image does not depend on the others of the batch."""
    import torch

    tables = short(sampler)

    def wild(what: str, k: int, tensor: Tensor) -> Tensor:
        return torch.cat([tensor[:3], 30 * tensor[3:]]) if what == "noise" else tensor

    whole, part = walked(sampler, tables, shown=wild).samples, walked(sampler, tables, images=3).samples
    if bool(((whole[:3] - part).abs() > CLOSE).any()):
        fail(f"sampler '{sampler.name}' leaks across the batch", "take no mean, norm or quantile over the batch")


def says_whether_it_uses_sigma(sampler: Sampler) -> None:
    """Another choice of sigma changes what it draws if, and only if, it says uses_sigma = True."""
    import torch

    tables = short(sampler)
    same = torch.equal(walked(sampler, tables).samples, walked(sampler, tables, sigma="beta").samples)
    if same and sampler.uses_sigma:
        fail(
            f"sampler '{sampler.name}' says that it uses sigma, and draws the same for another one",
            "say uses_sigma = False and give kernel(tables), or add denoised.sigma times noise",
        )
    if not same and not sampler.uses_sigma:
        fail(f"sampler '{sampler.name}' says uses_sigma = False, and uses it", "leave out uses_sigma = False")


def reaches_the_data(sampler: Sampler) -> None:
    """Given the exact denoiser of a Gaussian world, it draws images with that world's mean and deviation."""
    # With the exact reverse variance too, so that the length of the walk costs nothing but to an equation's solver.
    samples = walked(sampler, walks(sampler)[0], sigma=None).samples
    mean, deviation = float(samples.mean()), float(samples.std())
    if abs(mean - MEAN) > 0.05 or not 0.75 * DEVIATION < deviation < 1.25 * DEVIATION:
        fail(
            f"sampler '{sampler.name}' draws pixels of mean {mean:.3g} and deviation {deviation:.3g} where the data "
            f"have {MEAN} and {DEVIATION}",
            "check its factors and its kernel against the paper, and that it walks from the last step to the first",
        )


def stays_on_the_chain(sampler: Sampler) -> None:
    """It asks about the last step and about the first, and what it asks about at last is as wide as x_t is."""
    for schedule in ("cosine", "random-walk"):
        tables = short(sampler, schedule)
        try:
            asked = unless_refused(functools.partial(walked, sampler, tables, sigma=None)).asked
        except NotAsked:  # a chain whose variance grows need not be taken
            continue
        steps = {t for t, _ in asked}
        if not {0, tables.T - 1} <= steps:
            fail(
                f"sampler '{sampler.name}' on '{schedule}' asks the denoiser about steps {max(steps, default='-')} to "
                f"{min(steps, default='-')} of a walk from {tables.T - 1} to 0",
                "begin with x_T at the last step, and end with x0hat of the first",
            )
        for t, width in dict(asked).items():  # the last question about each: a step may be tried, or all at once
            if not 1 / WIDE < width / spread(tables, t) < WIDE:
                fail(
                    f"sampler '{sampler.name}' on '{schedule}' asks about step {t} with an x of deviation {width:.4g}, "
                    f"and x_t has {spread(tables, t):.4g} there",
                    "begin with noise(0) times the root of tables.prior_variance, and take factors from tables",
                )


def ends_without_noise(sampler: Sampler) -> None:
    """Where the data are one single image, it draws that image: the last step is taken, and adds no noise."""
    for tables in walks(sampler)[-2:]:
        miss = float((walked(sampler, tables, deviation=0.0).samples - MEAN).abs().max())
        if miss > 1e-3:
            fail(
                f"sampler '{sampler.name}' in {tables.T} steps ends {miss:.3g} away from the one image that there is",
                "return x0hat of step 0: the last step adds no noise, and none of x_t is left",
            )


def asks_for_each_noise_once(sampler: Sampler) -> None:
    """The noise of a step is its own: not that of x_T, and counted from the noise end."""
    import torch

    tables = short(sampler)
    seen: set[int] = set()

    def other(what: str, k: int, tensor: Tensor) -> Tensor:
        again = what == "noise" and k == 0 and k in seen and "sigma" in told
        seen.add(k)
        told.add(what)
        return -tensor if again else tensor

    told: set[str] = set()
    plain, turned = walked(sampler, tables), walked(sampler, tables, shown=other)
    if not torch.equal(plain.samples, turned.samples):
        fail(
            f"sampler '{sampler.name}' adds the noise of x_T, noise(0), in a step again",
            "take noise(k + 1) for the k-th step, counted from 0",
        )
    order = {k: after for k, after in reversed(plain.noises) if k}  # when each was asked for first, the last one first
    turned_round = all(a < b and order[a] > order[b] for a, b in itertools.pairwise(order))
    if len(order) > 2 and turned_round:
        fail(
            f"sampler '{sampler.name}' counts noises from the data end: it begins with noise({max(order)}) and ends "
            f"with noise({min(order)})",
            "take noise(1) in the first step, from T-1, and so on: walks of any length then share their noise",
        )


def takes_a_sigma_of_pixels(sampler: Sampler) -> None:
    """Where it uses sigma, it takes one that is a tensor like x0, as a learned one is."""
    if not sampler.uses_sigma:
        raise NotAsked("it says uses_sigma = False")
    import torch

    tables = short(sampler)
    plain, pixelwise = walked(sampler, tables), walked(sampler, tables, pixelwise=True)
    if float((plain.samples - pixelwise.samples).abs().max()) > CLOSE:
        fail(
            f"sampler '{sampler.name}' draws something else where sigma is a tensor of the same number everywhere",
            "multiply denoised.sigma with the noise, pixel by pixel",
        )
    # A pixel may depend on the sigma of others, as by a step that is taken from a norm; where each is must matter.
    ramped = walked(sampler, tables, shown=lambda w, t, v: _ramped(v) if w == "sigma" else v)
    turned = walked(sampler, tables, shown=lambda w, t, v: _ramped(v).flip(2, 3) if w == "sigma" else v)
    if torch.equal(ramped.samples, turned.samples):
        fail(
            f"sampler '{sampler.name}' draws the same wherever sigma is large and wherever it is small",
            "multiply denoised.sigma with the noise, pixel by pixel",
        )


def leaves_the_process_alone(sampler: Sampler) -> None:
    """It seeds no global generator, and changes no setting of the process."""
    tables = walks(sampler)[-1]
    leaves_alone(sampler, lambda: walked(sampler, tables, images=2))


def _ramped(sigma: Tensor) -> Tensor:
    """A deviation that differs from pixel to pixel, and is as it was at the first."""
    import torch

    return sigma * torch.linspace(1.0, 1.2, sigma[0].numel()).reshape(sigma[0].shape)


def _takes(sampler: Sampler, T: int, count: int) -> bool:
    try:
        unless_refused(lambda: sampler.timesteps(T, count))
    except NotAsked:
        return False
    return True


CHECKS = named(
    timesteps,
    kernel,
    walk,
    leaves_its_input,
    repeats_itself,
    no_leak_across_the_batch,
    says_whether_it_uses_sigma,
    reaches_the_data,
    stays_on_the_chain,
    ends_without_noise,
    asks_for_each_noise_once,
    takes_a_sigma_of_pixels,
    leaves_the_process_alone,
)
