"""One CPU thread, fp32, CPU seconds: training steps, and network evaluations in sampling."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import table
from race import Entry, Race, Where, run

TUNED = {"tuned": True, "compiled": True}


def races(*, peers: bool = True) -> list[Race]:
    """The races; ddpmkit is always the first row."""
    out = []
    for case in ("8x8", "28x28"):
        for doing, unit in (("training", "step"), ("sampling", "evaluation")):
            entries = [Entry("ddpmkit, as it comes", "ours", doing)]
            entries.append(Entry("ddpmkit, --compile on", "ours", doing, {"compiled": True}))
            for name, make in (("diffusers", "diffusers"), ("denoising-diffusion-pytorch", "ddpm_pytorch")):
                if peers:
                    entries.append(Entry(f"{name}, as its script runs it", "peers", f"{make}_{doing}"))
                    entries.append(Entry(f"{name}, tuned", "peers", f"{make}_{doing}", TUNED))
            out.append(Race(f"{case}, {doing}", case, unit, tuple(entries)))
    return out


def main(blocks: int, to: Path, *, only: str | None = None, small: bool = False, peers: bool = True) -> int:
    """Run them all and write the results."""
    where = Where(device="cpu", threads=1, small=small, blocks=blocks, by="cpu")
    told = table.circumstances("cpu")
    record: dict[str, Any] = {**told, "blocks": blocks, "small": small, "races": []}
    lines = [
        "# Speed on a CPU",
        "",
        "`make bench`. One thread each, fp32, the same architecture (denoising-diffusion-pytorch: the nearest); CPU "
        f"time, medians of {blocks} blocks that take turns. Getting ready (imports, compilation) is shown and not "
        "counted; of memory the most that each process held.",
        "",
        table.words(told),
        "",
    ]
    if small:
        lines += ["A trial run of a few steps: **these are no figures**.", ""]
    for race in races(peers=peers):
        if only is None or race.title.startswith(only):
            print(race.title, file=sys.stderr)
            rows = run(race, where)
            record["races"].append({"title": race.title, "unit": race.unit, "rows": rows})
            lines += table.race_table(race.title, race.unit, where.by, rows)
    table.write("cpu", to, record, lines)
    return 0
