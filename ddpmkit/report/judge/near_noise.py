"""How bad is bad: which cells are nearer to pure noise than to real images, and what the rows of such images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from ddpmkit.report.judge.by_cell import named
from ddpmkit.report.read.frames import Records
from ddpmkit.statistics import Interval
from ddpmkit.text.numbers import significant

UNLEARNED = ("pure noise", "mean image", "Gaussian")  # as records name them, in the order of tables
NOISE = UNLEARNED[0]
SQUARED = "squared distance"  # the unit of metrics whose root is a distance


def halfway(real: float, noise: float) -> float:
    """Return the squared distance whose root is as far from that of real images as from that of noise.

    ((sqrt r + sqrt z) / 2)^2. A Frechet distance is the square of one, and on its own scale 193 would be nearer to 3
    than to 400. By the triangle's inequality samples below z / 4 are closer to the reference than to noise.
    """
    return ((sqrt(max(real, 0.0)) + sqrt(max(noise, 0.0))) / 2) ** 2


def caution(records: Records, metrics: Sequence[str], intervals: Mapping[str, Mapping[str, Interval]]) -> str:
    """Say that nothing can be concluded of the images of cells that are nearer to noise than to real images.

    Empty where there are none, or where the records do not say what noise scores.
    """
    frame, near, said = records.results, dict[str, None](), []
    for metric in metrics:
        if set(frame.loc[frame["metric"] == metric, "unit"].dropna()) != {SQUARED}:
            continue
        lines = {
            halfway(real[metric], noise[metric]): (real[metric], noise[metric])
            for ref in records.references
            if metric in (real := ref.record.floors) and metric in (noise := ref.record.unlearned.get(NOISE, {}))
        }
        if not lines:
            continue
        line = max(lines)  # of several references the one that says it of fewer cells
        real_score, noise_score = lines[line]
        beyond = {cell: i.mean for cell, i in intervals[metric].items() if i.mean > line and noise_score > real_score}
        near |= dict.fromkeys(beyond)
        if beyond:
            ends = dict.fromkeys(significant(v, 3) for v in (min(beyond.values()), max(beyond.values())))
            said.append(
                f"{metric} {' to '.join(ends)}, where real images score {significant(real_score, 3)} and {NOISE} "
                f"{significant(noise_score, 3)}"
            )
    if not near:
        return ""
    every = [c["label"] for c in records.plan["cells"]]
    cells = [c for c in every if c in near]
    what = "image quality" if len(cells) == len(every) else f"the image quality of {named(cells, len(every))}"
    return (
        f"Nothing can be concluded about {what} yet: the samples score nearer to {NOISE} than to real images "
        f"({'; '.join(said)})."
    )


def rows_note(records: Records, metrics: Sequence[str]) -> list[str]:
    """Return the note on the rows of images that no network has drawn, where a metric that is shown has some."""
    if not any(m in values for ref in records.references for values in ref.record.unlearned.values() for m in metrics):
        return []
    return [
        f"How bad is bad: '{NOISE}' is N(0, 1), clipped to [-1, 1] and rounded to the grey levels; 'mean image' is "
        "that of the training images, again and again; 'Gaussian' has their mean and covariance."
    ]
