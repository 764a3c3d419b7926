"""ref: features of the reference images, what real images score against them, and plain baselines of the NLL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.config import IMAGE_METRICS
from ddpmkit.study.identity import Identity
from ddpmkit.study.kind import Kind
from ddpmkit.study.planning import Place, bare_name, builtin_identity
from ddpmkit.study.records import RefRecord
from ddpmkit.study.stage import Output, Stage

if TYPE_CHECKING:
    from ddpmkit.study.work import Work

TITLES = {"kid": "KID", "sw": "SW"}


@dataclass(frozen=True, kw_only=True)
class Ref(Kind):
    """One extractor over one split of the data."""

    kind = "ref"
    version = 3
    priority = 0  # it is short, and much waits for it
    cost = "moment"
    per = "cell"
    data: str
    split: str
    metrics: tuple[Identity, ...]
    features: Identity  # with the extractor's fingerprint
    samples: int

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Ref]]:
        """Give one for each extractor of the study."""
        context = at.context
        for asked in context.extractors:
            identity, record = asked.identified
            spec = cls(
                changed_by=context.changed_by,
                data=context.data,
                split=at.settings.reference_split,
                metrics=tuple(builtin_identity(m) for m in asked.metrics),
                features={**identity, "fingerprint": asked.fingerprint},
                samples=at.settings.samples,
            )
            how = {**context.how, "features": record}
            yield Stage(spec, how, f"reference {asked.label}", len(context.images.test))

    def run(self, w: Work) -> Output:
        """Take the features, the floor of each metric (real against real) and the baselines."""
        from ddpmkit.distances.panel import prepare
        from ddpmkit.likelihood.baselines import categorical_bits, uniform_bits

        images, features = w.images(self.data), w.component("features")
        metrics = [bare_name(m) for m in self.metrics]
        made = prepare(images, features, split=self.split, floor=self.samples, metrics=metrics)
        made.check_again()
        y = made.features
        if y is None:
            raise DdpmkitError(f"features '{features.name}' left no features of the reference")
        names = {m: metric_name(m, made.protocol) for m in metrics}
        told = made.protocol
        record = RefRecord(
            label=told["label"],
            names=names,
            features_label=told["features"],
            features=told["extractor"],
            extractor=told["extractor"],
            dims=told["dims"],
            n_reference=told["n_reference"],
            split=told["split"],
            reference=told["reference"],
            resize=told["resize"],
            quantiser=told["quantiser"],
            levels=told["levels"],
            floors={names[m]: record["value"] for m, record in made.floor.items() if m in names},
            n_floor=next((record["n"] for record in made.floor.values()), 0),
            baselines={
                "uniform": uniform_bits(images.levels),
                "per-pixel categorical": categorical_bits(images.train, images.test, images.levels),
            },
        )
        return Output(record, {"features": {"reference": y}})


def metric_name(metric: str, protocol: dict[str, Any]) -> str:
    """Return the column of a metric: ``FD-digits``, ``precision-digits``; those of pixels have no extractor."""
    if metric == "fd":
        return str(protocol["label"])
    if metric in IMAGE_METRICS:
        return metric
    return f"{TITLES.get(metric, metric)}-{protocol['features']}"
