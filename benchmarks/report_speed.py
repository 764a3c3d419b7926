"""What a report costs, by its form and by results: ``python benchmarks/report_speed.py > benchmarks/report_speed.md``.

CPU seconds of this process, so that other work on the machine does not count; medians after one run that is not
counted. The studies are those of the report's tests: records of every kind, no training.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import statistics
import tempfile
import time
from pathlib import Path

import torch

from ddpmkit import device as devices
from ddpmkit.cli import main as ddpmkit

CELLS, SEEDS, TURNS = (5, 50), 10, 3
FORMS = ("terminal", "md", "latex", "csv", "wide", "json", "html")
TESTS = Path(__file__).parent.parent / "tests"


def spent(out: Path, study: str, form: str) -> float:
    """Median CPU seconds of one command."""
    seconds = []
    for _ in range(TURNS + 1):
        started = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):
            code = ddpmkit(["report", study, "--out", str(out), "-f", form, "--to", str(out / "report")])
        seconds.append(time.process_time() - started)
        if code:
            raise SystemExit(f"{study} {form}: exit {code}")
    return statistics.median(seconds[1:])


def main() -> None:
    """Measure, print Markdown."""
    maker = runpy.run_path(str(TESTS / "report" / "conftest.py"))["StudyMaker"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for cells in CELLS:
            maker(out).write(tuple(f"schedule{i}" for i in range(cells)), range(SEEDS), name=f"study{cells}")
        print("# What a report costs\n")
        print("`python benchmarks/report_speed.py > benchmarks/report_speed.md`\n")
        print(f"{devices.fingerprint(torch.device('cpu'))['device_name']}; CPU seconds, medians of {TURNS} runs.\n")
        few, many = (cells * SEEDS for cells in CELLS)
        print(f"| form | {few} results | {many} results | ratio |")
        print("|---|---|---|---|")
        for form in FORMS:
            small, large = (spent(out, f"study{cells}", form) for cells in CELLS)
            print(f"| {form} | {small:.2f} s | {large:.2f} s | {large / small:.1f} |")


if __name__ == "__main__":
    main()
