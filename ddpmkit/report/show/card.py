"""The study card: design, seeds, hashes, versions, hardware, what was left out, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ddpmkit import __version__, files
from ddpmkit.plugin.spec import encode
from ddpmkit.report.read.axes import out_of
from ddpmkit.report.read.frames import Records
from ddpmkit.report.show.markdown import escape
from ddpmkit.study.store import Store

FINGERPRINT = (
    "device", "device_name", "cpu_capability", "threads", "torch", "numpy", "cuda", "memory_format", "kernels"
)  # fmt: skip


def card(records: Records) -> dict[str, Any]:
    """Return what one must know to judge a study and to repeat it, as JSON values."""
    plan, grid = records.plan, records.plan["grid"]
    states: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    machines: Counter[str] = Counter()
    plugins: dict[str, str] = {}
    kits: set[str] = set()
    stages = {s["id"]: s for s in plan["stages"]}
    where = {i: out_of(records, r) for r in plan["results"] for i in stage_ids(r, stages)}
    for id, stage in stages.items():
        store = Store(where.get(id, records.folder.parent.parent))
        done = store.done(stage["kind"], id)
        status = store.status(stage["kind"], id)
        states["done" if done else str(status.get("state", "pending"))] += 1
        if done:
            seconds[stage["kind"]] = seconds.get(stage["kind"], 0.0) + float(status.get("seconds") or 0)
            fingerprint = status.get("fingerprint") or {}
            machines[", ".join(f"{k} {fingerprint[k]}" for k in FINGERPRINT if fingerprint.get(k) is not None)] += 1
            kits |= {str(status["ddpmkit"])} if "ddpmkit" in status else set()
        for part in components(stage):
            plugins[str(part["plugin"])] = str(part.get("plugin_version", ""))
    data = sorted({str(s["spec"]["data"]) for s in stages.values() if "data" in s.get("spec", {})})
    # What was made elsewhere, and several studies side by side, have no one command.
    return {
        "study": plan["study"],
        "design": {
            "axes": grid.get("axes", {}),
            "cells": [c["label"] for c in plan["cells"]],
            "train_seeds": grid["train_seeds"],
            **({"stopped": plan["stopped"]} if plan.get("stopped") else {}),
            "sample_seeds": grid.get("sample_seeds", []),
            "metrics": grid.get("metrics", []),
            "features": grid.get("features", []),
            "settings": {k: v for k, v in grid.get("settings", {}).items() if k not in grid.get("axes", {})},
        },
        "results": len(plan["results"]),
        "stages": dict(states),
        "plan_sha256": files.sha256(files.canonical(sorted(stages)).encode()),
        "data_sha256": data,
        "extractors": {str(r.record.features_label or "features"): str(r.record.features) for r in records.references},
        "ddpmkit": sorted(kits) or [__version__],
        "plugins": plugins,
        "hardware": dict(machines),
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "excluded": [list(e) for e in plan.get("excluded", ())],
        "warnings": list(plan.get("warnings", ())),
        "problems": [list(p) for p in records.problems],
        "command": _again(plan) if stages and "same" not in plan else "",
        "needs_plugins": [f"{n} {v}".strip() for n, v in plugins.items() if n != "ddpmkit"],
    }


def _again(plan: Mapping[str, Any]) -> str:
    """The command that makes a study again; fewer seeds of a cell, and orderings, stand in its file alone."""
    return (
        "ddpmkit ablate study.toml"
        if plan.get("stopped") or plan.get("orderings")
        else command(plan["grid"], str(plan["study"]))
    )


def command(grid: Mapping[str, Any], name: str, point: Mapping[str, Any] | None = None) -> str:
    """Return the command that makes a study again, every setting spelled out; a defaults' change can't touch it.

    Args:
        grid: The plan's grid.
        name: Name of the study.
        point: One cell's values of the axes; the whole grid without it.
    """
    axes = grid.get("axes", {})
    values = {k: [v] for k, v in grid.get("settings", {}).items()} | {k: list(v) for k, v in axes.items()}
    if point is not None:
        values |= {k: [v] for k, v in point.items()}
    parts = ["ddpmkit", "ablate"]
    shape = {key: grid.get(key, []) for key in ("zip", "exclude", "only")} if point is None else {}
    zipped = {field for text in shape.get("zip", ()) for field in str(text).partition("=")[0].split("+")}
    ordered = [*axes, *(k for k in values if k not in axes)]
    for key in ordered:
        if key in values and key not in zipped:
            parts += ["--axis", f"{key}={','.join(encode(v) if not isinstance(v, str) else v for v in values[key])}"]
    for key in ("train_seeds", "sample_seeds", "metrics", "features"):
        if grid.get(key):
            parts += [f"--{key.replace('_', '-')}", ",".join(str(v) for v in grid[key])]
    for key, texts in shape.items():
        parts += [word for text in texts for word in (f"--{key}", str(text))]
    if point is None and grid.get("design"):
        parts += ["--design", str(grid["design"])]
    if point is None:
        parts += ["--name", name]
    return shlex.join(parts)


def card_markdown(records: Records) -> str:
    """The study card as Markdown."""
    content = card(records)
    design = content.pop("design")
    command_line = content.pop("command")
    out = [f"**study card: {escape(content['study'])}**", ""]
    for key, value in {**design, **content}.items():
        text = files.canonical(value) if isinstance(value, (dict, list)) else str(value)
        out.append(f"- {key.replace('_', ' ')}: {escape(text)}")
    fence = "`" * 4
    return "\n".join([*out, "", fence, command_line.replace("`", "'"), fence]) + "\n"


def components(stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the components of a stage and their parts as they were recorded, versions included."""

    def whole(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield record
        for part in record.get("parts", {}).values():
            yield from whole(part)

    values = [v for v in stage.get("how", {}).values() if isinstance(v, dict)]
    values += [v for group in values if "plugin" not in group for v in group.values() if isinstance(v, dict)]  # metrics
    records = (v for v in values if "plugin" in v)
    return [part for record in records for part in whole(record)]


def stage_ids(result: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the stages of one result, id -> kind, what a stage needs before it; ``stages`` are the plan's, by id."""
    out: dict[str, str] = {}

    def add(kind: str, id: str) -> None:
        for need_kind, need in stages.get(id, {}).get("needs", ()):
            if need not in out:
                add(need_kind, need)
        out[id] = kind

    add("train", result["train"])
    for kind in ("sample", "nll", "nll_train"):
        if result.get(kind):
            add(kind.removesuffix("_train"), result[kind])
    for _, score, ref in result["scores"]:
        add("ref", ref)
        add("score", score)
    return out
