"""A small study in a store, written by hand: what the report's tests share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

SETTINGS = {
    "dataset": "digits", "sigma": "beta-tilde", "weighting": "simple", "backbone": "unet", "sampler": "ancestral",
    "timesteps": 1000, "sampling_steps": 50, "prediction": "eps",
}  # fmt: skip


class StudyMaker:
    """Writes stages and a plan whose only axis is the schedule."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def stage(self, kind: str, label: str, result: dict[str, Any], state: str = "done", error: str = "") -> str:
        id = hashlib.sha256(f"{kind} {label}".encode()).hexdigest()
        folder = self.out / "store" / kind / id[:2] / id
        folder.mkdir(parents=True, exist_ok=True)
        status: dict[str, Any] = {"state": state, "seconds": 1.5, "error": error, "ddpmkit": "0.1.0"}
        status["fingerprint"] = {"torch": "2.13.0", "device_name": "CPU", "threads": 1}
        (folder / "status.json").write_text(json.dumps(status))
        if state == "done":
            (folder / "out").mkdir(exist_ok=True)
            text = json.dumps(result).encode()
            (folder / "out" / "result.json").write_bytes(text)
            commit = {"files": {"result.json": {"sha256": hashlib.sha256(text).hexdigest()}}}
            (folder / "out" / "COMMIT.json").write_text(json.dumps(commit))
        return id

    def write(
        self, schedules=("linear", "cosine"), seeds=(0, 1, 2), *, name="demo", metric="FD-digits", failed=(), error="",
        excluded=(), plugin="ddpmkit",
    ) -> Path:  # fmt: skip
        """One cell a schedule; ``failed`` names (schedule, seed) whose training diverged with ``error``."""
        rng = np.random.default_rng(7)
        reference = {
            "label": metric,
            "floors": {metric: 1.9},
            "names": {"fd": metric},
            "n_floor": 900,
            "n_reference": 797,
            "split": "test",
        }
        reference |= {"features": "f" * 64, "baselines": {"uniform": 4.0875}}
        ref = self.stage("ref", metric, reference)
        stages: list[dict[str, Any]] = [{"kind": "ref", "id": ref, "label": f"reference {metric}"}]
        results = []
        for c, schedule in enumerate(schedules):
            how = {"schedule": {"kind": "schedule", "name": schedule, "params": {"s": 0.01}, "plugin": plugin}}
            how["schedule"] |= {"plugin_version": "9.9", "version": 1}
            for seed in seeds:
                label, broken = f"{schedule} {seed}", (schedule, seed) in failed
                state = {"state": "diverged", "error": error} if broken else {}
                chain = {"t": [1, 500, 1000], "alpha_bars": [0.99, 0.5 - 0.1 * c, 0.0], "log_snr": [4.6, None, -6.9]}
                train = self.stage("train", label, {"parameters": 9, "flops": 9, "chain": chain}, **state)
                if not broken:
                    lines = [json.dumps({"step": 50 * i, "loss": 1 / i}) + "\n" for i in range(1, 6)]
                    (self.out / "store" / "train" / train[:2] / train / "metrics.jsonl").write_text("".join(lines))
                after = {"state": "pending"} if broken else {}
                sample = self.stage("sample", label, {"levels": 17, "evaluations": 9}, **after)
                if not broken:
                    pixels = rng.integers(0, 17, (40, 1, 8, 8), dtype=np.uint8)
                    blob = self.out / "store" / "sample" / sample[:2] / sample / "out" / "samples.safetensors"
                    blob.write_bytes(save({"levels": pixels}))
                score = self.stage(
                    "score",
                    label,
                    {"metrics": {"fd": {"value": 5 + c + float(rng.normal(0, 0.2))}}, "n": 64},
                    **after,
                )
                bound = {"total": 3 - 0.3 * c + float(rng.normal(0, 0.02)), "standard_error": 0.004}
                nll = {"clipped": bound, "unclipped": bound, "decoder": "cdf", "decoder_variance": "b", "T": 1000}
                bound["curve"] = {"first": [1, 2], "last": [1, 8], "bits": [0.5, 0.25 / (c + 1)]}
                found = self.stage("nll", label, nll | {"split": "test", "images": 9, "evaluations": 9}, **after)
                for kind, id in (("train", train), ("sample", sample), ("score", score), ("nll", found)):
                    stages.append({"kind": kind, "id": id, "label": f"{kind} {schedule} seed {seed}", "how": how})
                results.append(
                    {
                        "cell": schedule, "train_seed": seed, "sample_seed": 0, "train": train, "sample": sample,
                        "scores": [["digits", score, ref]], "nll": found,
                    }
                )  # fmt: skip
        settings = [{**SETTINGS, "schedule": s} for s in schedules]
        plan = {
            "study": name,
            "grid": {
                "train_seeds": list(seeds), "sample_seeds": [0], "axes": {"schedule": list(schedules)},
                "settings": settings[0], "metrics": ["fd", "nll"], "features": ["digits"],
            },
            "cells": [
                {"label": s, "slug": f"cell-{i}", "point": {"schedule": s}, "settings": settings[i]}
                for i, s in enumerate(schedules)
            ],
            "results": results,
            "stages": stages,
            "excluded": [list(e) for e in excluded],
            "warnings": [],
        }  # fmt: skip
        folder = self.out / "studies" / name
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps(plan))
        return folder


LABELLED = {
    **SETTINGS,
    "schedule": "linear",
    "sampling_steps": 5,
    "conditional": True,
    "guidance": 0.0,
    "sample_labels": "data",
}
HELD = ({"class": 0, "n": 30, "near": 0.1}, {"class": 1, "n": 30, "near": 0.2})


def write_labelled(
    maker: StudyMaker, cells: dict[str, dict[str, Any]], *, name: str = "demo", seeds: Sequence[int] = (0, 1, 2),
    classes: int = 2, n: int = 40, heldout: Sequence[dict[str, Any]] = HELD, data: str = "d" * 64, near: float = 0.25,
    nll: bool = True, labels: Any = None, fd: bool = True, perfect: Sequence[dict[str, Any]] = (),
) -> Path:  # fmt: skip
    """Write a study: cell -> what differs from LABELLED. ``labels(settings)`` may give a cell's labels, or None."""
    rng = np.random.default_rng(0)
    reference = {
        "label": "FD-x", "floors": {"FD-x": 1.0}, "names": {"fd": "FD-x", "copy": "copy"}, "n_floor": 60,
        "n_reference": 60, "split": "test", "features": "f" * 64, "reference": data, "dims": 2, "levels": 17,
        "heldout_by_class": list(heldout), "perfect_by_class": list(perfect), "baselines": {"uniform": 4.0875},
    }  # fmt: skip
    ref = maker.stage("ref", f"ref {name}", reference)
    stages: list[dict[str, Any]] = [{"kind": "ref", "id": ref, "label": "reference"}]
    plan_cells, results = [], []
    for i, (label, differs) in enumerate(cells.items()):
        settings = {**LABELLED, **differs}
        plan_cells.append({"label": label, "slug": f"cell-{i}", "point": {"cell": label}, "settings": settings})
        for seed in seeds:
            told = labels(settings) if labels else np.arange(n, dtype=np.int64) % classes
            text = f"{name} {label} {seed}"
            train = maker.stage("train", text, {"parameters": 9, "flops": 1_000_000})
            strength = settings["guidance"] if settings["conditional"] else 0
            passes = 2 if strength not in (0.0, -1.0) else 1
            drawn = {"count": n, "levels": 17, "evaluations": passes * n * settings["sampling_steps"]}
            sample = maker.stage("sample", text, drawn)
            blob = maker.out / "store" / "sample" / sample[:2] / sample / "out" / "samples.safetensors"
            arrays = {"levels": rng.integers(0, 17, (n, 1, 4, 4), dtype=np.uint8)}
            blob.write_bytes(save(arrays | ({} if told is None else {"labels": told})))
            rows = []
            for c in range(classes) if settings["conditional"] and told is not None else ():
                row = {"class": c, "n": int((told == c).sum()), "n_reference": 30, "near": near}
                rows.append(row | ({"fd": 7.0 + c + i + seed / 10, "fd_se": 0.5} if fd else {}))
            metrics = {"fd": {"value": 5.0 + i + seed / 10, "se": 0.1}, "copy": {"value": 0.9, "se": None}}
            scored = {"n": n, "metrics": metrics, "by_class": rows}
            score = maker.stage("score", text, scored)
            found = {"split": "test", "images": 9, "evaluations": 9, "decoder": "cdf", "decoder_variance": "b", "T": 9}
            bound = {"total": 3.0 + seed / 10, "standard_error": 0.01}
            bits = maker.stage("nll", text, found | {"clipped": bound, "unclipped": bound}) if nll else None
            stages += [{"kind": k, "id": s, "label": f"{k} {text}"} for k, s in (("train", train), ("sample", sample))]
            stages.append({"kind": "score", "id": score, "label": text, "spec": {"metrics": ["fd", "copy"]}})
            results.append(
                {"cell": label, "train_seed": seed, "sample_seed": 0, "train": train, "sample": sample}
                | {"scores": [["x", score, ref]], "nll": bits}
            )
    plan = {
        "study": name, "cells": plan_cells, "results": results, "stages": stages, "excluded": [], "warnings": [],
        "grid": {"train_seeds": list(seeds), "sample_seeds": [0], "axes": {}, "settings": LABELLED},
    }  # fmt: skip
    folder = maker.out / "studies" / name
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


@pytest.fixture
def maker(tmp_path):
    return StudyMaker(tmp_path / "results")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of two cells and three seeds; for reading only."""
    return StudyMaker(tmp_path_factory.mktemp("study") / "results").write()


@pytest.fixture
def labelled(maker):
    """A maker of studies of cells with labels: cell -> the settings in which it differs."""
    return partial(write_labelled, maker)
