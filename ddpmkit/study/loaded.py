"""A cell of a study as one uses it afterwards: its trained network, new samples from it, the bound of any images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpmkit import device as devices
from ddpmkit import files
from ddpmkit.diffusion.denoise import Predict
from ddpmkit.diffusion.reverse_variance import log_variance
from ddpmkit.diffusion.tables_for import Tables, decoder_log_variance
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.any_network import pixels_of
from ddpmkit.likelihood.vlb import Bound, bound
from ddpmkit.plugin.contract import timesteps
from ddpmkit.plugin.interfaces import Images, Levels, Sampler, Schedule, Sigma
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import seeded_libraries
from ddpmkit.study.asked_labels import need_labels, told_of_images, told_of_samples
from ddpmkit.study.cells import StudyCell, find_cell, split_name
from ddpmkit.study.stages.draw import answers_about
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.trained import Trained, load_trained

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array


@dataclass(frozen=True, eq=False)
class Drawn:
    """New samples.

    Attributes:
        images: grey levels 0 .. K-1, uint8 (N, C, H, W).
        levels: K.
        labels: the class of each, int64 (N,); None where the network is told none.
        evaluations: of the network.
    """

    images: Levels
    levels: int
    labels: np.ndarray[Any, np.dtype[np.int64]] | None
    evaluations: int


@dataclass(frozen=True, eq=False)
class Loaded:
    """A trained cell of a study.

    Attributes:
        cell: which one, with its settings.
        trained: the network and all that gives its output a meaning.
        schedule: the variance schedule, the component itself.
        sampler: the walk that the study took.
        walk: what the study asks of it: its steps, images a pass, guidance, labels.
    """

    cell: StudyCell
    trained: Trained
    schedule: Schedule
    sampler: Sampler
    walk: Sample
    registry: Registry

    @property
    def network(self) -> torch.nn.Module:
        """The network with the averaged weights that the study reports, in eval mode."""
        return self.trained.net

    @property
    def tables(self) -> Tables:
        """The full chain: betas, alpha-bars, posterior, (T,) each."""
        return self.trained.tables

    @property
    def sigma(self) -> Sigma:
        """The reverse variance of the cell."""
        return self.trained.sigma

    @property
    def images(self) -> Images:
        """The data that the network was trained on, and those that were held out."""
        return self.trained.images

    @property
    def classes(self) -> int | None:
        """How many classes the network is told of; None where it was trained without labels."""
        return self.trained.classes

    @functools.cached_property
    def predict(self) -> Predict:
        """What gives (x0hat, log sigma^2) of (xt, t, y=None); x0hat not clipped, the second None unless it is learned.

        xt float32 (B, C, H, W) on the network's device, t int64 (B,) with 0 the least noisy step, y labels int64 (B,).
        """
        return self.trained.predict(self.tables, self.walk.eval_precision)

    def sample(self, n: int, **how: Any) -> Levels:
        """Return ``n`` new images, uint8 levels (n, C, H, W), as :meth:`draw` draws them."""
        return self.draw(n, **how).images

    @torch.inference_mode()
    def draw(
        self,
        n: int,
        *,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        labels: str | int | Sequence[int] | None = None,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Drawn:
        """Draw ``n`` images; with nothing else said, bit for bit the first ones that the study drew.

        Image i depends on the train seed, the sample seed and i alone, whatever ``n`` is.

        Args:
            n: How many.
            seed: The sample seed.
            sampler: Spec of another sampler than the study's.
            steps: Of the walk; the study's by default.
            guidance: Strength w, for a network that was trained with labels.
            labels: ``data`` or ``balanced``, one class for all, or classes that are taken in turn.
            on_progress: Told the finished fraction.

        Raises:
            DdpmkitError: when the network can't do what is asked.
            Diverged: when an image is not finite.
        """
        if n < 1:
            raise DdpmkitError(f"{n} images can't be drawn", "one or more: --count 64")
        walk, sampler_object = self._walk(seed, sampler, steps, guidance)
        walk, label_of = told_of_samples(walk, self.trained, labels, self.cell.settings.sample_labels)
        device = self.trained.device
        with devices.one_thread(), devices.reproducible(device), seeded_libraries(walk.seed, "stage", 0):
            drawn, evaluations = walk.draw(
                self.trained,
                sampler_object,
                self._statistics(told=walk.guidance != -1),
                count=n,
                label_of=label_of,
                on_progress=lambda done: on_progress(done / n),
            )
        told = None if label_of is None else label_of(torch.arange(n)).numpy()
        return Drawn(drawn.numpy(), self.images.levels, told, evaluations)

    def bits_per_dim(
        self,
        images: Any,
        labels: Any = None,
        *,
        evals: int | None = None,
        se: float | None = None,
        full: bool = False,
        seed: int | None = None,
    ) -> Bound:
        """Return the bound on the NLL of images under the cell's sigma and decoder; total and its error in bits/dim.

        Of the study's own test images, with nothing else said, it is bit for bit the study's number.

        Args:
            images: Integer levels 0 .. K-1, or pixels -1 + 2 k / (K - 1); (N, C, H, W).
            labels: Of them, int (N,), for a network that was trained with labels.
            evals: Network evaluations for the middle sum; as in the study by default.
            se: Standard error to reach instead.
            full: Every image at every step instead.
            seed: Key of all noise; the train seed by default, as in the study.

        Raises:
            DdpmkitError: when images or labels do not fit the network.
            Diverged: when the network gives a value that is not finite.
        """
        s, device = self.cell.settings, self.trained.device
        if evals is None and se is None and not full:
            full, se = s.nll_full, s.nll_se
            evals = s.nll_evals if not full and se is None else None
        pixels = pixels_of(images, self.images.levels, "cdf").to(device)
        if tuple(pixels.shape[1:]) != self.images.train.shape[1:]:
            shape = tuple(self.images.train.shape[1:])
            raise DdpmkitError(f"images of shape {tuple(pixels.shape[1:])} for a network of {shape}", "(N, C, H, W)")
        y = told_of_images(self.trained, labels, len(pixels))
        chain = self.tables if s.nll_chain == "full" else self.tables.strided(self.walk.times)
        with devices.one_thread(), devices.reproducible(device):
            draws = answers_about(
                self.trained,
                chain,
                pixels,
                y,
                evals=evals,
                se=se,
                full=full,
                seed=self.cell.train_seed if seed is None else seed,
                batch=self.walk.batch,
                precision=self.walk.eval_precision,
            )
        log_sigma2, decoder = None, None
        if not self.sigma.learned:
            statistics = self._statistics(told=True)
            log_sigma2 = log_variance(self.sigma, chain, statistics, self.tables)
            if s.decoder_variance == "fitted" and statistics is not None:
                decoder = float(statistics["decoder_log_variance"])
            else:
                decoder = decoder_log_variance(chain, s.decoder_variance)
        clip = self.tables.variance_preserving  # as the study reports it
        return bound(draws, chain, log_sigma2, decoder, "cdf", levels=self.images.levels, clip=clip)

    def _walk(
        self, seed: int, sampler: str | None, steps: int | None, guidance: float | None
    ) -> tuple[Sample, Sampler]:
        """What is asked, with what the study asks where nothing is said; and its sampler."""
        walk = replace(self.walk, seed=f"{self.cell.train_seed}.{seed}")
        if guidance is not None and guidance != walk.guidance:
            need_labels(self.trained, "guidance")
            if guidance < -1:
                raise DdpmkitError(f"guidance {guidance:g} is below -1, which asks without labels", "--guidance 0")
            walk = replace(walk, guidance=float(guidance))
        built = self.sampler if sampler is None else self.registry.build("sampler", sampler)
        if sampler is not None or steps is not None:
            times = timesteps(built, self.tables.T, self.cell.settings.sampling_steps if steps is None else steps)
            # The values that were held of another walk are not those of this one.
            walk = replace(walk, sampler=self.registry.identity(built), times=tuple(times), sigma=None)
        return walk, built

    def _statistics(self, *, told: bool) -> Mapping[str, Array] | None:
        """What the study fitted to this network, as it is asked here; None where nothing was."""
        found = self.cell.fit(self.walk.weights, told=told)
        return None if found is None else self.cell.store.arrays("fit", found, "statistics")


def load(
    study: str | Path | None = None,
    cell: str | None = None,
    seed: int | None = None,
    *,
    out: str | Path = "results",
    plugins: Iterable[str] = (),
    device: str = "auto",
    registry: Registry | None = None,
) -> Loaded:
    """Return a trained cell of a study: ``load("mine", "cosine").sample(16)``.

    Args:
        study: Name or folder of a study, or ``STUDY/CELL``; the newest by default.
        cell: Its label as in tables, or its slug; needed where the study has several.
        seed: The train seed; by default the first one that is trained.
        out: The results folder.
        plugins: What ``-p`` takes on the command line.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        registry: The components, instead of ``plugins``.

    Raises:
        DdpmkitError: when there is no such study, cell or seed, or it is not trained.
    """
    if cell is None and study is not None:
        study, cell = split_name(str(study), files.home(out))
    found = find_cell(study, cell, seed, out=out)
    registry = registry or Registry(plugins)
    recipe = found.recipe
    s = found.settings
    sigma = registry.rebuild(recipe["sigma"]) if "sigma" in recipe else registry.build("sigma", s.sigma)
    sampler = registry.rebuild(recipe["sampler"]) if "sampler" in recipe else registry.build("sampler", s.sampler)
    walk = found.walk or Sample(
        train=found.training,
        weights=f"ema {s.ema!r}",
        batch=s.eval_batch,
        eval_precision=s.eval_precision,
        sampler=registry.identity(sampler),
        times=tuple(timesteps(sampler, s.timesteps, s.sampling_steps)),
        count=s.samples,
        seed=f"{found.train_seed}.0",
        guidance=s.guidance,
    )
    where = devices.resolve(device)
    with devices.one_thread():
        trained = load_trained(found.store, registry, found.training, recipe, ema=walk.ema, sigma=sigma, device=where)
    return Loaded(found, trained, registry.rebuild(recipe["schedule"]), sampler, walk, registry)
