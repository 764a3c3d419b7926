"""A cell of a study by its name, at one train seed: its settings, its training, and what the plan knows of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.study.settings import FIELDS, Settings
from ddpmkit.study.stages import read_stage
from ddpmkit.study.stages.fit import Fit
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.store import Store, find_study


@dataclass(frozen=True)
class StudyCell:
    """A cell of a study at one train seed.

    Attributes:
        store: where its stages are.
        study: the study's name.
        label: the cell's name in tables.
        train_seed: the seed of the training.
        settings: what it was made with.
        training: the id of its training.
        walk: the stage that drew its samples; None where the study drew none.
        recipe: the records of its data and components, as its stages have them.
        fits: what was fitted to its network: (id, spec).
    """

    store: Store
    study: str
    label: str
    train_seed: int
    settings: Settings
    training: str
    walk: Sample | None
    recipe: dict[str, Any]
    fits: tuple[tuple[str, Fit], ...] = ()

    def fit(self, weights: str, *, told: bool) -> str | None:
        """Return the id of what was fitted to an average of the network, told labels or not; None where nothing was."""
        found = [i for i, spec in self.fits if spec.weights == weights and spec.told == told]
        return next((i for i in found if self.store.done("fit", i)), None)


def split_name(text: str, out: Path) -> tuple[str, str | None]:
    """Split ``STUDY/CELL``, where the study may be a folder's path, and either may hold a slash.

    Returns the study and the cell; None where only the study is named.
    """
    parts = text.split("/")
    for cut in range(len(parts), 0, -1):
        study, cell = "/".join(parts[:cut]), "/".join(parts[cut:])
        if study and any((folder / "plan.json").is_file() for folder in (out / "studies" / study, files.home(study))):
            return study, cell or None
    return (parts[0], "/".join(parts[1:]) or None) if parts[0] not in ("", ".", "..", "~") else (text, None)


def find_cell(study: str | Path | None, cell: str | None, seed: int | None, *, out: str | Path) -> StudyCell:
    """Return a cell of a study at a train seed.

    Args:
        study: Name or folder of the study; the newest for None.
        cell: Its label, or its slug; needed where there are several.
        seed: The train seed; the first one that is trained for None.
        out: The results folder.

    Raises:
        DdpmkitError: when there is no such study, cell or seed, or it is not trained.
    """
    folder = find_study(None if study is None else str(study), files.home(out))
    plan, store = files.read_sealed(folder / "plan.json") or {}, Store(folder.parent.parent)
    found = _cell(plan, cell)
    results = [r for r in plan["results"] if r["cell"] == found["label"]]
    seeds = list(dict.fromkeys(r["train_seed"] for r in results))
    trained = [s for s in seeds if any(r["train_seed"] == s and store.done("train", r["train"]) for r in results)]
    if seed is not None and seed not in seeds:
        said = ", ".join(map(str, seeds))
        raise DdpmkitError(f"'{plan['study']}/{found['label']}' has no train seed {seed}", f"its train seeds: {said}")
    if not trained or (seed is not None and seed not in trained):
        at = f" at train seed {seed}" if seed is not None else ""
        raise DdpmkitError(f"'{plan['study']}/{found['label']}' is not trained{at}", f"ddpmkit status {plan['study']}")
    train_seed = trained[0] if seed is None else seed
    here = [r for r in results if r["train_seed"] == train_seed]
    training = here[0]["train"]
    stages = {s["id"]: s for s in plan["stages"]}
    drawn = next((r["sample"] for r in here if r["sample"]), None)
    walk = None if drawn is None else read_stage(stages[drawn])
    of_training = [s for s in stages.values() if ["train", training] in s["needs"]]
    beside: dict[str, Any] = {}
    if walk is None:  # cells of several sigmas share a draw, and a bound is of one
        beside = stages.get(here[0]["nll"]) or next((s for s in of_training if s["kind"] in ("draw", "fit")), {})
    fits = tuple((s["id"], read_stage(s).spec) for s in of_training if s["kind"] == Fit.kind)
    return StudyCell(
        store=store,
        study=plan["study"],
        label=found["label"],
        train_seed=train_seed,
        settings=Settings(**{k: v for k, v in found["settings"].items() if k in FIELDS}),
        training=training,
        walk=None if walk is None else walk.spec,
        recipe={**stages[training]["how"], **beside.get("how", {}), **(walk.recipe if walk else {})},
        fits=fits,
    )


def _cell(plan: dict[str, Any], cell: str | None) -> dict[str, Any]:
    """The record of a cell by its label or slug; of the only one for None."""
    cells: list[dict[str, Any]] = plan["cells"]
    labels = [c["label"] for c in cells]
    if cell is None:
        if len(cells) == 1:
            return cells[0]
        named = ", ".join(f"{plan['study']}/{label}" for label in labels[:6])
        raise DdpmkitError(f"study '{plan['study']}' has {len(cells)} cells", f"name one: {named}")
    found = next((c for c in cells if cell in (c["label"], c["slug"])), None)
    if found is None:
        close = did_you_mean(cell, labels)
        raise DdpmkitError(f"study '{plan['study']}' has no cell '{cell}'{close}", f"cells: {', '.join(labels)}")
    return found
