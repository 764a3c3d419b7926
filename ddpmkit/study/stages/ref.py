"""ref: features of the reference images, what real images and unlearnt ones score, and plain baselines of the NLL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.study.identity import Identity
from ddpmkit.study.kind import StageKind
from ddpmkit.study.planning import Place
from ddpmkit.study.records import RefRecord
from ddpmkit.study.stage import Output, Stage, added

if TYPE_CHECKING:
    from ddpmkit.study.work import Work


@dataclass(frozen=True, kw_only=True)
class Ref(StageKind):
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
    flip: bool = added(False)  # whether a metric looks at the training images, and the network was shown them mirrored
    given_class: bool = added(False)  # whether a plain model that is told the class is among the baselines

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
                metrics=tuple(w.identified[0] for w in asked.metrics),
                features={**identity, "fingerprint": asked.fingerprint},
                samples=at.settings.samples,
                flip=at.settings.flip and any("training" in w.metric.needs for w in asked.metrics),
                given_class=at.settings.conditional,
            )
            recipe = {**context.recipe, "features": record, "metrics": {w.key: w.identified[1] for w in asked.metrics}}
            mirrored = ", training images mirrored too" if spec.flip else ""
            yield Stage(spec, recipe, f"reference {asked.label}{mirrored}", len(context.images.test))

    def run(self, w: Work) -> Output:
        """Take the features, the floor of each metric (real against real) and the baselines."""
        from ddpmkit.distances import prepare
        from ddpmkit.distances.by_class import heldout_by_class, perfect_by_class
        from ddpmkit.distances.copies import shown_mirrored
        from ddpmkit.distances.unlearned import MOST, score_unlearned
        from ddpmkit.likelihood.baselines import categorical_bits, categorical_bits_given_class, uniform_bits

        images, features = w.images(self.data), w.component("features")
        metrics = w.metrics(self.metrics)
        made = prepare(images, features, split=self.split, floor=self.samples, metrics=metrics, flip=self.flip)
        made.check_again()
        y = made.features
        if y is None:
            raise DdpmkitError(f"features '{features.name}' left no features of the reference")
        names = {key: contract.column(metric, made.protocol) for key, metric in metrics.items()}
        n_unlearned = min(self.samples, MOST)
        unlearned = score_unlearned(images, made, metrics, n_unlearned)
        told, given_class, heldout, perfect = made.protocol, {}, [], []
        if self.given_class:
            if any(metric.name == "copy" for metric in metrics.values()):
                seen = shown_mirrored(images.train) if self.flip else images.train
                heldout = heldout_by_class(seen, images.test, images.labels["test"])
            if any(metric.name == "fd" for metric in metrics.values()):
                perfect = perfect_by_class(y, images.labels[self.split])
            given_class["uniform"] = uniform_bits(images.levels)
            given_class["per-pixel categorical, given the class"] = categorical_bits_given_class(
                images.train,
                images.test,
                images.levels,
                labels=images.labels["train"],
                test_labels=images.labels["test"],
            )
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
            units={key: metric.unit for key, metric in metrics.items()},
            better={key: metric.better for key, metric in metrics.items()},
            floors={names[m]: record["value"] for m, record in made.floor.items() if m in names},
            n_floor=next((record["n"] for record in made.floor.values()), 0),
            baselines={
                "uniform": uniform_bits(images.levels),
                "per-pixel categorical": categorical_bits(images.train, images.test, images.levels),
            },
            baselines_given_class=given_class,
            heldout_by_class=heldout,
            unlearned={
                name: {names[m]: value for m, value in values.items() if m in names}
                for name, values in unlearned.items()
            },
            n_unlearned=n_unlearned,
            perfect_by_class=perfect,
        )
        return Output(record, {"features": {"reference": y}})
