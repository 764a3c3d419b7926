"""What was measured, as JSON and as a table that people read."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ddpmkit import __version__
from ddpmkit import device as devices

PACKAGES = ("torch", "numpy", "triton", "diffusers", "denoising-diffusion-pytorch")


def circumstances(device: str) -> dict[str, Any]:
    """Device, versions, and how busy the machine is."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.date.today().isoformat(),
        "ddpmkit": __version__,
        "python": platform.python_version(),
        "versions": {**versions, "torch": torch.__version__, "cuda": torch.version.cuda},
        "device": devices.fingerprint(torch.device(device)),
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }


def words(where: dict[str, Any]) -> str:
    """The circumstances in a line or two."""
    held = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    missing = [name for name, version in where["versions"].items() if not version and name not in ("cuda", "triton")]
    busy = "; busy: other work ran meanwhile" if where["load"] > where["cores"] / 2 else ""
    device = where["device"]
    return (
        f"{where['date']}, {device['device_name']} ({device['device']}, {device['cpu_capability']}, "
        f"{where['cores']} cores, load {where['load']:.1f}{busy}). ddpmkit {where['ddpmkit']}, {held}."
        + (f" Not installed: {', '.join(missing)}." if missing else "")
    )


def race_table(title: str, unit: str, by: str, rows: list[dict[str, Any]]) -> list[str]:
    """A race: medians, spread, and each against the first row."""
    kind = "CPU" if by == "cpu" else "wall"
    lines = [
        f"## {title}",
        "",
        f"| contender | parameters | {kind} ms a {unit} (least .. most) | in ddpmkit's | ready after s | GiB | loss |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    first = next((row["median"] for row in rows if "median" in row), None)
    for row in rows:
        if "median" not in row:
            lines.append(f"| {row['row']} | | {row['failed'] or 'no time was left'} | | | | |")
            continue
        spread = f"{1e3 * row['median']:.4g} ({1e3 * row['least']:.4g} .. {1e3 * row['most']:.4g})"
        loss = "" if row["loss"] is None else f"{row['loss']:.3g}"
        lines.append(
            f"| {row['row']} | {row['parameters']:,} | {spread} | {row['median'] / first:.2f} | {row['preparing']:.0f} "
            f"| {row['memory'] / 2**30:.2f} | {loss} |"
        )
    return [*lines, ""]


def claims_table(claims: list[dict[str, Any]]) -> list[str]:
    """What a GPU is to show, line by line."""
    lines = ["## What it must show", "", "| claim | wanted | found | verdict |", "|:--|--:|--:|:--|"]
    lines += [f"| {c['claim']} | {c['wanted']} | {c['found']} | {c['verdict']} |" for c in claims]
    return [*lines, ""]


def write(name: str, folder: Path, record: dict[str, Any], lines: list[str]) -> None:
    """Write NAME.json and NAME.md, and print the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = "\n".join(lines).rstrip() + "\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
