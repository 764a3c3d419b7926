"""score: drawn images against the reference, all metrics from one pass through the extractor."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpmkit.study.identity import Identity
from ddpmkit.study.kind import StageKind
from ddpmkit.study.records import ScoreRecord
from ddpmkit.study.stage import Output, Stage, upstream
from ddpmkit.study.stages.ref import Ref
from ddpmkit.study.stages.sample import Sample

if TYPE_CHECKING:
    from ddpmkit.study.planning import Place
    from ddpmkit.study.work import Work


@dataclass(frozen=True, kw_only=True)
class Score(StageKind):
    """Samples, a reference, and the metrics that are taken."""

    kind = "score"
    version = 3
    priority = 6
    cost = "moment"
    per = "sample seed"
    metrics: tuple[Identity, ...]
    sample: str = upstream("sample")
    ref: str = upstream("ref")

    @classmethod
    def planned(cls, at: Place) -> Iterable[Stage[Score]]:
        """Give one for each reference."""
        for asked, ref in zip(at.context.extractors, at.all(Ref), strict=True):
            sampled = at.one(Sample)
            spec = cls(changed_by=at.context.changed_by, metrics=ref.spec.metrics, sample=sampled.id, ref=ref.id)
            label = f"score {at.cell.label} {asked.text} seed {sampled.spec.seed}"
            yield Stage(spec, ref.recipe, label, at.settings.samples)

    def run(self, w: Work) -> Output:
        """Take the metrics; one that can't be taken of these samples costs its own value alone."""
        from ddpmkit.distances import prepare, score
        from ddpmkit.distances.by_class import by_class

        ref = w.spec(Ref, self.ref)
        drawn = w.arrays("sample", self.sample, "samples")
        levels = drawn["levels"]
        taken = w.arrays("ref", self.ref, "features")["reference"]
        images = w.images(ref.data)
        made = prepare(images, w.component("features"), split=ref.split, taken=taken, flip=ref.flip)
        made.check_again()
        metrics = w.metrics(self.metrics)
        sets = made.beside(made.checked(levels))
        panel = score(levels, made, metrics=metrics, keep=True, sets=sets)
        classes = []
        if "labels" in drawn:
            asked = {metric.name for metric in metrics.values()}
            real = images.labels[ref.split]
            checked = next((m for name, m in panel.items() if panel.kinds[name].name == "copy"), None)
            near = checked.rows.get("near") if checked else None
            classes = by_class(sets, drawn["labels"], real, fd="fd" in asked, copies="copy" in asked, near=near)
        for name, why in panel.failed.items():
            print(f"warning: {w.stage.label}: {name} failed: {why}", file=sys.stderr)
        record = ScoreRecord(
            metrics=panel.records(),
            notes=list(panel.notes),
            failed=panel.failed,
            beside={name: panel.beside(name) for name in metrics if panel.beside(name)},
            n=len(levels),
            by_class=classes,
        )
        return Output(record)
