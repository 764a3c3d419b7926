"""sample: images drawn from a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.diffusion.guidance import passes
from ddpmkit.diffusion.tables_for import Tables, log_bounds
from ddpmkit.study.identity import Identity, hold
from ddpmkit.study.records import SampleRecord
from ddpmkit.study.stage import Output, Stage, added
from ddpmkit.study.stages.fit import fit_of, statistics_of, tells
from ddpmkit.study.stages.of_network import OfNetwork, asked
from ddpmkit.study.stages.train import Train

if TYPE_CHECKING:
    from torch import Tensor

    from ddpmkit.diffusion.labels import LabelOf, SampleLabels
    from ddpmkit.plugin.interfaces import Array, Sampler
    from ddpmkit.sampling import Denoise
    from ddpmkit.study.planning import Place
    from ddpmkit.study.trained import Trained
    from ddpmkit.study.work import Work


@dataclass(frozen=True, kw_only=True)
class Sample(OfNetwork):
    """A walk over some steps of the chain, so many times."""

    kind = "sample"
    version = 2
    priority = 3
    cost = "pass"
    per = "sample seed"
    sampler: Identity
    times: tuple[int, ...]
    count: int
    seed: str  # the same x_T in every cell; another one for each replicate
    sigma: Identity | None = added(None)  # only where the walk's noise depends on it
    fit: str | None = added(None, upstream="fit")
    guidance: float = added(0.0)
    labels: SampleLabels | None = added(None)  # which classes are drawn; None where the network is told none

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Sample]]:
        """Give one, where a metric of samples is asked for."""
        if not at.context.extractors:
            return
        parts, train, s = at.parts, at.one(Train), at.settings
        fitted = parts.sigma.fitted and parts.noisy
        spec = cls(
            **asked(at, train),
            seed=f"{at.train_seed}.{at.sample_seed}",
            sampler=parts.identities["sampler"],
            times=tuple(parts.strided),
            count=s.samples,
            sigma=parts.identities["sigma of the walk"] if parts.sampler.uses_sigma or fitted else None,
            fit=fit_of(at, told=tells(s)) if fitted else None,
            guidance=s.guidance,
            labels=s.sample_labels if s.conditional and tells(s) else None,
        )
        label = f"sample {at.cell.label} seed {spec.seed}"
        work = s.samples * len(parts.strided) * passes(s.guidance)
        yield at.stage(spec, label, work, "sampler", "sigma", like=train)

    def run(self, w: Work) -> Output:
        """Draw the images, and their labels where they have some."""
        import torch

        from ddpmkit.study.trained import trained_for

        network, sampler = trained_for(self, w), w.component("sampler")
        label_of = self.label_of(network)
        drawn, evaluations = self.draw(
            network,
            sampler,
            statistics_of(self.fit, w),
            label_of=label_of,
            on_progress=lambda n: w.progress(n / self.count),
            should_stop=w.should_stop,
        )
        record = SampleRecord(count=self.count, levels=network.images.levels, evaluations=evaluations)
        labels = {} if label_of is None else {"labels": label_of(torch.arange(self.count)).numpy()}
        return Output(record, {"samples": {"levels": drawn.numpy(), **labels}})

    def label_of(self, network: Trained) -> LabelOf | None:
        """Return the label of each sample by its index; None where the network was trained without labels."""
        from ddpmkit.diffusion.labels import labels_of_samples

        if self.labels is None or network.classes is None:
            return None
        return labels_of_samples(self.labels, network.images.labels["train"], network.classes, self.seed)

    def draw(
        self,
        network: Trained,
        sampler: Sampler,
        statistics: Mapping[str, Array] | None,
        *,
        count: int | None = None,
        label_of: LabelOf | None = None,
        on_progress: Callable[[int], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Tensor, int]:
        """Return images, uint8 levels (count, C, H, W) on the CPU, and how often the network was asked for them.

        Image i is the same however many are drawn; ``count`` is the stage's where none is given.

        Raises:
            DdpmkitError: as of :meth:`reverse`.
            Diverged: when an image is not finite.
        """
        from ddpmkit.sampling import sample

        denoise, chain = self.reverse(network, sampler, statistics)
        asked: list[int] = []
        drawn = sample(
            denoise,
            chain,
            sampler,
            count=self.count if count is None else count,
            shape=network.images.train.shape[1:],
            levels=network.images.levels,
            seed=self.seed,
            micro_batch=self.batch,
            device=network.device,
            label_of=label_of,
            on_progress=on_progress,
            on_asked=asked.append,
            should_stop=should_stop,
        )
        return drawn, sum(asked) * passes(self.guidance)

    def reverse(
        self, network: Trained, sampler: Sampler, statistics: Mapping[str, Array] | None
    ) -> tuple[Denoise, Tables]:
        """Return the denoiser with its guidance and the noise of each step, and the chain that is walked.

        Raises:
            DdpmkitError: when a plugin's sampler or sigma gives other numbers than when the stage was planned.
        """
        from ddpmkit.diffusion.guidance import guided
        from ddpmkit.diffusion.reverse_variance import step_sigmas
        from ddpmkit.sampling import with_sigma

        chain = network.tables.strided(self.times)
        hold("sampler", self.sampler, *sampler.kernel(chain))
        if self.sigma is not None:
            hold("sigma", self.sigma, *log_bounds(network.sigma, chain))
        levels = network.images.levels
        sigmas = step_sigmas(sampler, network.sigma, network.tables, chain, levels, statistics)
        predict = guided(network.predict(chain, self.eval_precision), self.guidance)
        return with_sigma(predict, sigmas), chain
