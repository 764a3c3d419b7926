"""What must be said of cells with labels: guidance and its cost, how classes were drawn, what distances lack."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ddpmkit.diffusion.guidance import passes
from ddpmkit.report.judge.some import some
from ddpmkit.report.read.by_class import balanced
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.reference import GIVEN_CLASS


def class_notes(records: Records, metrics: Sequence[str]) -> list[str]:
    """Return the notes of a study with labels; none of one without."""
    labelled = [c["settings"] for c in records.plan["cells"] if c.get("settings", {}).get("conditional")]
    if not labelled:
        return []
    strengths = list(dict.fromkeys(f"{s['guidance']:g}" for s in labelled))
    drawn_as = " / ".join(dict.fromkeys(str(s["sample_labels"]) for s in labelled))
    said = f"Conditional cells: labels of samples {drawn_as}"
    if strengths == ["0"]:
        said += ", no guidance."
    else:
        said += (
            f"; guidance w = {', '.join(strengths)}, eps = (1 + w) eps(x_t, y) - w eps(x_t), where guidance_scale of "
            "diffusers is 1 + w."
        )
    if any(records.originals.get(m, m) == GIVEN_CLASS for m in metrics):
        said += f" {GIVEN_CLASS} is -log p(x | y) of the network without guidance, and is not compared with NLL."
    notes = [said]
    drawn_in_turn = [c["label"] for c in records.plan["cells"] if balanced(c.get("settings", {}))]
    if drawn_in_turn:
        notes.append(
            f"{some(drawn_in_turn)}: the classes of these samples are drawn in turn, those of the reference are not: "
            "what is measured over all samples measures the shares of the classes too."
        )
    return notes + [
        f"{metric} by class needs {needed} images of a class on both sides: of the classes without it the largest "
        f"has {most}."
        for metric, (needed, most) in records.short_classes.items()
    ]


def evaluations(records: Records, rows: pd.DataFrame) -> str:
    """Say how often the network was asked for an image, where that differs by guidance or is not once a step.

    Args:
        records: The study.
        rows: Those of its results whose samples took the same steps of the same sampler.
    """
    settings = {c["label"]: c.get("settings", {}) for c in records.plan["cells"]}
    by: dict[float, list[str]] = {}
    not_steps: set[float] = set()  # a sampler may ask twice a step, and once at the last
    each = rows.loc[rows["evaluations"].notna() & (rows["n"] > 0), ["cell", "evaluations", "n"]].drop_duplicates()
    for cell, asked, n in zip(*(each[c].tolist() for c in each), strict=True):
        own = settings[cell]
        if isinstance(own.get("conditional"), bool):  # a table made elsewhere may mean anything by it
            words = by.setdefault(asked / n, [])
            name = f"w = {own['guidance']:g}" if own["conditional"] else "no labels"
            words += [] if name in words else [name]
            once = asked / n / passes(own["guidance"] if own["conditional"] else 0)
            not_steps |= {once} - {float(own.get("sampling_steps") or once)}
    if len(by) < 2:
        return f" ({next(iter(by)):g} evaluations an image)" if not_steps else ""
    first, *more = (f"{', '.join(names)}: {count:g}" for count, names in by.items())
    return f" ({'; '.join((f'{first} evaluations an image', *more))})"
