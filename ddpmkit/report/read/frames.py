"""The store as a table: one tidy row per (cell, train seed, sample seed, metric)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.read.by_class import SHARES, balanced, class_rows, too_few, untold
from ddpmkit.report.read.columns import AXES, COLUMNS, OF_CLASSES, TEXT
from ddpmkit.report.read.directions import read
from ddpmkit.report.read.fewer import marked
from ddpmkit.report.read.gone_on import gone_on
from ddpmkit.report.read.reference import GIVEN_CLASS, Reference
from ddpmkit.study import growth
from ddpmkit.study.begin import seconds_in_all
from ddpmkit.study.records import (
    UNITS_BEFORE,
    NllRecord,
    Record,
    RefRecord,
    SampleRecord,
    ScoreRecord,
    TrainRecord,
    metric_keys,
)
from ddpmkit.study.store import Store

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Records:
    """A study as its records tell it: the plan, the tidy results, the references, how its stages ended."""

    folder: Path
    plan: dict[str, Any]
    results: pd.DataFrame
    references: list[Reference]
    problems: list[tuple[str, str, str]]  # label, state, error
    mixed: tuple[str, ...] = ()  # what differs between the fingerprints of the stages
    copies: tuple[str, ...] = ()  # cells some of whose samples are likely copies of training images
    short_classes: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # FD -> images a class needs, the most short
    originals: dict[str, str] = field(default_factory=dict)  # of several studies: a metric's name here -> its own name
    said: tuple[str, ...] = ()  # what metrics say of their own values, each behind its column
    growths: tuple[growth.Growth, ...] = ()  # what was added to the study after it was planned

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.plan["study"])


def load_results(path: str | Path) -> pd.DataFrame:
    """Read tidy results from a study folder or a results.csv; see :func:`ddpmkit.load_results`."""
    file = files.home(path)
    file = file / "results.csv" if file.is_dir() else file
    try:
        # A cell may be called null, NA or 007; only an empty field is no value.
        return pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXT, "str"))
    except FileNotFoundError:
        raise DdpmkitError(f"there are no results at '{path}'", "give a study's folder or a results.csv") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as err:
        raise DdpmkitError(f"'{file}' is no CSV of results: {err}", "give a results.csv that ddpmkit wrote") from None


class Reading:
    """A store read once a stage: several results rest on one stage, and it does not change while a report is made."""

    def __init__(self, store: Store) -> None:
        self.done, self.status = cache(store.done), cache(store.status)
        self.train_seconds = cache(partial(seconds_in_all, store))
        self._record: Callable[[Any, str], Any] = cache(store.record)

    def record(self, kind: type[R], stage: str) -> R | None:
        """What a finished stage found; None when it is not done."""
        found: R | None = self._record(kind, stage)
        return found


def read_study(folder: Path) -> Records:
    """Read a study and everything it needs of the store.

    Raises:
        DdpmkitError: when the folder holds no study.
    """
    plan = files.read_sealed(folder / "plan.json")
    if plan is None:
        raise DdpmkitError(f"'{folder}' is no study", "ddpmkit report lists the newest study of --out")
    plan["notes"] = [*plan.get("notes", ()), *growth.told(folder), *gone_on(plan, Store(folder.parent.parent))]
    store = Reading(Store(folder.parent.parent))
    settings = {c["label"]: c["settings"] for c in plan["cells"]}
    told = any(s.get("conditional") for s in settings.values())
    axes = (*AXES, *(OF_CLASSES if told else ()))
    stages = {s["id"]: s for s in plan["stages"]}
    rows: list[dict[str, Any]] = []
    for r in plan["results"]:
        base = {"study": plan["study"], "cell": r["cell"], **{a: settings[r["cell"]][a] for a in axes}}
        base |= {"train_seed": r["train_seed"], "sample_seed": r["sample_seed"], "train_stage": r["train"][:16]}
        trained, first, own = store.record(TrainRecord, r["train"]), len(rows), settings[r["cell"]]
        base |= {"train_seconds": store.train_seconds(r["train"])}
        base |= {"parameters": trained and trained.parameters, "flops": trained and trained.flops}
        for features, score, ref in r["scores"]:
            rows += [{**base, **row} for row in _score_rows(store, stages, r, features, score, ref, own)]
        name = GIVEN_CLASS if settings[r["cell"]].get("conditional") else "NLL"
        for which in ("nll", "nll_train"):
            if r.get(which):
                rows += [{**base, **row} for row in _nll_rows(store, stages, r, which, name)]
        if trained and trained.micro_batch:  # such numbers share no column with those of trainings as they were asked
            rows[first:] = marked(rows[first:], trained.micro_batch)
    prints = [
        (s["kind"], store.status(s["kind"], i).get("fingerprint"))
        for i, s in stages.items()
        if store.done(s["kind"], i)
    ]
    refs = [(s, store.record(RefRecord, i)) for i, s in stages.items() if s["kind"] == RefRecord.kind]
    problems = []
    for s in stages.values():
        if not store.done(s["kind"], s["id"]):
            status = store.status(s["kind"], s["id"])
            problems.append((s["label"], status.get("state", "pending"), status.get("error", "")))
    for s in stages.values():
        scored = store.record(ScoreRecord, s["id"]) if s["kind"] == ScoreRecord.kind else None
        problems += [
            (s["label"], "failed", f"{metric}: {why}") for metric, why in (scored.failed if scored else {}).items()
        ]
    mixed = _mixed([(kind, f) for kind, f in prints if isinstance(f, dict)])
    copies = tuple(
        dict.fromkeys(
            r["cell"]
            for r in plan["results"]
            for _, score, _ in r["scores"]
            if (scored := store.record(ScoreRecord, score)) and scored.metrics.get("copy", {}).get("flag")
        )
    )
    references = [Reference(ref, mirrored=bool(s.get("spec", {}).get("flip"))) for s, ref in refs if ref is not None]
    columns = [
        *COLUMNS[:2],
        *axes,
        *COLUMNS[2 + len(AXES) :],
        *(["better"] if any("better" in row for row in rows) else []),
    ]
    short: dict[str, tuple[int, int]] = {}
    for r in plan["results"]:
        for _, score, ref in r["scores"]:
            scored, reference = store.record(ScoreRecord, score), store.record(RefRecord, ref)
            if scored and reference and not untold(settings[r["cell"]]) and (found := too_few(scored, reference)):
                name, needed, most = found
                short[name] = needed, max(most, short.get(name, (0, 0))[1])
    frame = pd.DataFrame(rows, columns=columns)
    said = _remarks(store, plan["results"])
    return Records(
        folder, plan, frame, references, problems, mixed, copies, short, said=said, growths=growth.of(folder)
    )


def _remarks(store: Reading, results: list[dict[str, Any]]) -> tuple[str, ...]:
    """What metrics say of their values to whoever reads the table, each once behind its column."""
    out: dict[str, None] = {}
    for r in results:
        for _, score, ref in r["scores"]:
            scored, reference = store.record(ScoreRecord, score), store.record(RefRecord, ref)
            for metric, told in (scored.metrics if scored else {}).items():
                if isinstance(note := told.get("note"), str):
                    out[f"{reference.names.get(metric, metric) if reference else metric}: {note}"] = None
    return tuple(out)


def _mixed(prints: list[tuple[str, dict[str, Any]]]) -> tuple[str, ...]:
    """Say which entries differ between the fingerprints of stages, and their values."""
    keys = sorted({k for _, f in prints for k in f} - {"network"})
    values = {k: sorted({str(f.get(k)) for _, f in prints}) for k in keys}
    # How a network ran is compared between stages of one kind: training may pay for its compilation, sampling not.
    for kind in sorted({kind for kind, _ in prints}):
        values[f"network of {kind}"] = sorted({f.get("network", "eager") for of, f in prints if of == kind})
    return tuple(f"{k} {' / '.join(v)}" for k, v in values.items() if len(v) > 1)


def _score_rows(
    store: Reading, stages: dict[str, Any], r: dict[str, Any], features: str, score: str, ref: str, own: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each metric of the drawn images, and for what stands beside it, as the distance without its bias."""
    scored, reference = store.record(ScoreRecord, score), store.record(RefRecord, ref)
    sampled, status = store.record(SampleRecord, r["sample"]), store.status("sample", r["sample"])
    metrics = scored.metrics if scored else {}
    shared = {
        "status": _state(store, stages, r, "score", score),
        "n": scored and scored.n,
        "evaluations": sampled and sampled.evaluations,
        "seconds": status.get("seconds"),
        "fingerprint": _fingerprint(status),
        "stage": score[:16],
    }
    out = []
    taken = stages.get(score, {}).get("spec", {}).get("metrics", ["fd"])
    for metric, asked in zip(metric_keys(taken), taken, strict=True):
        found = metrics.get(metric, {})
        name = f"FD-{features}" if metric == "fd" else metric
        definition = ""
        if reference:
            name = reference.names.get(metric, name)
            definition = (
                f"{name} n={scored.n if scored else ''}/{reference.n_reference} ref={reference.split} "
                f"extractor={reference.features[:8]}"
                + _protocol(reference.reference, reference.levels, reference.resize, reference.quantiser)
                + _of_plugin(asked)
                + (SHARES if balanced(own) else "")
            )
        state = "failed" if scored and metric in scored.failed else shared["status"]
        row = {
            **shared,
            "status": state,
            "metric": name,
            "value": found.get("value"),
            "standard_error": found.get("se") or None,  # older records say 0 of a share of 0 or 1
        }
        row |= {"unit": (reference.units if reference else UNITS_BEFORE).get(metric, ""), "definition": definition}
        better = reference.better.get(metric) if reference else None
        out.append({**row, **_said(better, name)})
        for key in scored.beside.get(metric, ()) if scored else ():
            other, column = metrics.get(key), name + key.removeprefix(metric)
            if other:
                row |= {"value": other["value"], "standard_error": other["se"] or None, "metric": column}
                out.append({**row, "definition": definition.replace(name, column, 1), **_said(better, column)})
        if scored and reference and not untold(own):
            out += class_rows(scored, metric, {**shared, "definition": definition}, name)
    return out


def _of_plugin(asked: dict[str, Any] | str) -> str:
    """Which plugin's metric it is, and a hash of what it is made of; of ddpmkit's own the name says enough."""
    name = asked if isinstance(asked, str) else str(asked["name"])
    if isinstance(asked, str) or name.startswith("ddpmkit/"):
        return ""
    return f" by={name}:{files.sha256(files.canonical(asked).encode())[:8]}"


def _said(better: str | None, column: str) -> dict[str, str]:
    """The direction that a record says, where the name alone would be read otherwise."""
    return {"better": better} if better and read(column) != (better, True) else {}


def _nll_rows(store: Reading, stages: dict[str, Any], r: dict[str, Any], which: str, name: str) -> list[dict[str, Any]]:
    """The rows of a bound: on the test split as reported and as the network is; on the training split as reported."""
    bounds, status = store.record(NllRecord, r[which]), store.status("nll", r[which])
    reported = bounds.reported if bounds and bounds.reported else "clipped"
    rows = [(name, reported), (f"{name}-unclipped", "unclipped")] if which == "nll" else [(f"{name}-train", reported)]
    shared = {
        "unit": "bits/dim",
        "status": _state(store, stages, r, "nll", r[which]),
        "n": bounds and bounds.images,
        "evaluations": bounds and bounds.evaluations,
        "seconds": status.get("seconds"),
        "fingerprint": _fingerprint(status),
        "stage": r[which][:16],
    }
    out = []
    for metric, key in rows:
        value, definition = {}, ""
        if bounds:
            bound = bounds.clipped if key == "clipped" else bounds.unclipped
            definition = (
                f"{metric} x0hat {key}, decoder={bounds.decoder} variance={bounds.decoder_variance} "
                f"T={bounds.T} split={bounds.split}{_protocol(bounds.data, bounds.levels)}"
            )
            value = {"value": bound.total, "standard_error": bound.standard_error}
            value["test_set_error"] = bound.test_set_error
        out.append({**shared, "metric": metric, "definition": definition, **value})
    return out


def _protocol(data: str, levels: int, resize: str = "", quantiser: str = "") -> str:
    """The rest of what must agree before two numbers are compared: data, grey levels, resizing, quantiser."""
    words = {"data": (data or "")[:8], "K": levels, "resize": resize, "quantiser": quantiser}
    return "".join(f" {k}={str(v).replace(' ', '-')}" for k, v in words.items() if v)


def _state(store: Reading, stages: dict[str, Any], r: dict[str, Any], kind: str, stage: str) -> str:
    """The state of a result: done, or the state of the first stage on its way, the training on, that is not."""
    if store.done(kind, stage):
        return "done"
    if kind != "train":
        for need_kind, need in (("train", r["train"]), *stages.get(stage, {}).get("needs", ())):
            state = _state(store, stages, r, need_kind, need)
            if state != "done":
                return state
    return str(store.status(kind, stage).get("state", "pending"))


def _fingerprint(status: dict[str, Any]) -> str:
    f = status.get("fingerprint", {})
    return f"torch {f['torch']}, {f['device_name']}, {f['threads']} thread" if f else ""
