"""From a study's records to event files: which runs there are, and what each of them holds."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ddpmkit
import numpy as np
import pandas as pd
from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.draw.samples import GRID
from ddpmkit.report.draw.tiles import tile
from ddpmkit.study.store import Store, find_study
from ddpmkit.text import one_line
from safetensors.numpy import load
from tensorboard.compat.proto.event_pb2 import Event

from ddpmkit_tensorboard import events

CURVES = ("loss", "eps_mse", "grad_norm")
NAME = "events.out.tfevents.0.ddpmkit"  # TensorBoard knows its files by the middle of their names
COLUMNS = {"cell", "train_seed", "sample_seed", "metric", "value", "status"}


def export(folder: str | Path, logdir: str | Path) -> Path:
    """Write a study as TensorBoard runs below ``logdir/STUDY``, and return that folder.

    ``train/LABEL-ID`` holds a training's curves; ``cell/CELL/seed-S`` the results of a cell at a train seed, its
    settings that vary as hparams, and its first samples. Only records are read: results.csv, plan.json and the store.
    The folder appears whole or not at all; one that is there is left as it is.

    Args:
        folder: A study's folder, ``results/studies/NAME``.
        logdir: What ``tensorboard --logdir`` will be given; made when it is not there.

    Raises:
        DdpmkitError: when there is no such study, it has no results yet or is damaged; when ``logdir`` holds another
            export of it, or can't be written.
    """
    study = find_study(str(folder), Path(folder).parent.parent)
    content = dict(_runs(study))
    target = Path(logdir) / study.name
    try:
        if not os.path.lexists(target):
            _write(target, content)
        found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    except OSError as err:
        raise DdpmkitError(
            f"can't read or write '{logdir}': {err.strerror or err}", "choose another --logdir"
        ) from None
    if found != content:
        raise DdpmkitError(
            f"'{target}' holds another export of this study, or something else",
            f"rm -r '{target}' and export again, or choose another --logdir",
        )
    return target


def _runs(study: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path of every event file below the study's folder, and its bytes."""
    plan, frame, store = files.read_sealed(study / "plan.json") or {}, _results(study), Store(study.parent.parent)
    try:
        hparams = _hparams(plan["cells"])
        slugs = {c["label"]: _slug(c["slug"]) for c in plan["cells"]}
        labels = {s["id"]: str(s["label"]) for s in plan["stages"]}
        trainings: dict[str, None] = dict.fromkeys(r["train"] for r in plan["results"])
        replicates: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for r in plan["results"]:
            replicates.setdefault((r["cell"], int(r["train_seed"])), []).append(r)
        samples = {k: [(int(r["sample_seed"]), r["sample"]) for r in v if r["sample"]] for k, v in replicates.items()}
        missing = [cell for cell, _ in replicates if cell not in slugs]
    except (KeyError, TypeError, ValueError, AttributeError):
        missing = ["?"]
    if missing:
        raise DdpmkitError(
            f"the plan of study '{study.name}' is damaged", "run the study again; its stages are kept"
        ) from None
    if not frame["value"].notna().any():
        raise DdpmkitError(f"study '{study.name}' has no results yet", f"ddpmkit status {study.name}")
    for train in trainings:
        curves = list(_curves(store, train))
        if curves:
            name = _slug(labels.get(train, "").removeprefix("train "))
            yield f"train/{name}-{train[:16]}/{NAME}", events.event_file(curves)
    for (cell, seed), drawn in samples.items():
        rows = frame[(frame["cell"] == cell) & (frame["train_seed"] == seed)]
        found = events.hparams(hparams[cell], f"{study.name}/{slugs[cell]}", _status(rows))
        found += _scalars(rows)
        for sample_seed, stage in drawn:
            if store.done("sample", stage):
                found.append(events.image(f"samples/sample seed {sample_seed}", _grid(store, stage)))
        yield f"cell/{slugs[cell]}/seed-{seed}/{NAME}", events.event_file(found)


def _results(study: Path) -> pd.DataFrame:
    frame = ddpmkit.load_results(study)
    if not COLUMNS <= set(frame.columns) or not pd.api.types.is_numeric_dtype(frame["value"]):
        raise DdpmkitError(f"'{study / 'results.csv'}' is not what ddpmkit wrote", f"ddpmkit report {study.name}")
    return frame


def _hparams(cells: list[dict[str, Any]]) -> dict[str, dict[str, bool | float | str]]:
    """Return the settings that vary among the cells, cell by cell; a study of one cell is told by its name."""
    names = sorted({k for c in cells for k in c["settings"]})
    varying = [k for k in names if any(c["settings"].get(k) != cells[0]["settings"].get(k) for c in cells)]
    if not varying:
        return {c["label"]: {"cell": one_line(c["label"])} for c in cells}
    return {c["label"]: {k: _typed(c["settings"].get(k)) for k in varying} for c in cells}


def _typed(value: object) -> bool | float | str:
    return value if isinstance(value, bool | int | float) else "" if value is None else one_line(str(value))


def _curves(store: Store, train: str) -> Iterator[Event]:
    """What a training said of itself; a resumed training may say a step twice, and the later word holds."""
    lines = files.read_lines(store.folder("train", train) / "metrics.jsonl")
    said = {x["step"]: x for x in lines if isinstance(x, dict) and isinstance(x.get("step"), int)}
    for step in sorted(said):
        for name in CURVES:
            value = said[step].get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                yield events.scalar(f"training/{name}", value, step)


def _scalars(rows: pd.DataFrame) -> Iterator[Event]:
    """A metric is the mean over sample seeds where all have a number, as in ddpmkit's tables; then each of several."""
    for metric, group in rows.groupby("metric", sort=False):
        tag = f"result/{one_line(str(metric))}"
        values = group["value"].to_numpy(np.float64)
        if np.isfinite(values).all():
            yield events.scalar(tag, float(values.mean()))
        if len(group) > 1:
            for seed, value in zip(group["sample_seed"].tolist(), values.tolist(), strict=True):
                if math.isfinite(value):
                    yield events.scalar(f"{tag}/sample seed {seed}", value)


def _status(rows: pd.DataFrame) -> str:
    found = set(rows["status"])
    if found & {"failed", "diverged"}:
        return "failed"
    return "done" if found == {"done"} else "unfinished"


def _grid(store: Store, stage: str) -> events.Pixels:
    """The first samples of a stage, ten in a row."""
    out = store.folder("sample", stage) / "out"
    if files.verify_folder(out) is None:
        raise DdpmkitError(f"the samples in '{out}' are damaged", "run the study again; what is damaged is drawn again")
    levels = load((out / "samples.safetensors").read_bytes())["levels"]
    return tile(levels[: GRID * GRID], int(store.result("sample", stage)["levels"]), GRID)


def _slug(text: str) -> str:
    """A folder's name: nothing in it leads elsewhere."""
    return re.sub(r"[^A-Za-z0-9=_-]+", "-", text).strip("-")[:80] or "unnamed"


def _write(target: Path, content: Mapping[str, bytes]) -> None:
    """Make the folder of runs beside its place, and rename it; another process may have been first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        for name, data in content.items():
            files.write_bytes(staged / name, data)
        try:
            os.rename(staged, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
