"""Whether committed tables still say what the store says: numbers and verdicts; timings and machines may differ."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.read.frames import Records, read_study
from ddpmkit.report.read.margins import stated_margins
from ddpmkit.report.show.csv import to_tidy
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.markdown import to_markdown

# How LaTeX sets a number is no number.
ALIGNING = re.compile(r"\\phantom\{[.0]*\}|\\multicolumn\{2\}\{c\}|[&{} ]")
IGNORED = {"study", "seconds", "train_seconds", "fingerprint"}


@dataclass(frozen=True)
class Mismatch:
    """What no longer matches, and what to do about it."""

    message: str
    hint: str


def differences(folder: Path, committed: Path) -> list[Mismatch]:
    """Compare the files in ``committed`` with what the store of the study in ``folder`` says now.

    Raises:
        DdpmkitError: when there is nothing to compare.
    """
    records = read_study(folder)
    report = files.read_json(committed / "report.json")
    base = report.get("baseline") if isinstance(report, dict) else None
    labels = [c["label"] for c in records.plan["cells"]]
    margins = stated_margins(committed, set(records.results["metric"]))
    summary = summarise(records, base if base in labels else None, margin=margins)
    mismatches, count = [], 0
    for name, (make, read) in _KINDS.items():
        path = committed / name
        if not path.is_file():
            continue
        count += 1
        try:
            mine = read(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError):
            mine = None
        difference = _first(mine, read(make(records, summary)))
        if difference:
            mismatches.append(
                Mismatch(
                    f"'{path}' no longer matches the store: {difference}",
                    f"ddpmkit report {folder.name} writes it again; or the store has changed since",
                )
            )
    if not count:
        raise DdpmkitError(f"there is no table in '{committed}'", f"one of {', '.join(_KINDS)}")
    return mismatches


def digest(summary: Summary) -> str:
    """A hash of the tables as they are printed; a page carries it."""
    tables = [(t["columns"], t["rows"]) for t in json.loads(to_json(summary))["tables"]]
    return files.sha256(files.canonical(tables).encode())


def _first(mine: Any, now: Any) -> str:
    """Say the first entry that differs; empty when none does."""
    if mine is None:
        return "it can't be read"
    for key in [*now, *(k for k in mine if k not in now)]:
        if mine.get(key) != now.get(key):
            return f"{key}: {mine.get(key, 'nothing')} there, {now.get(key, 'nothing')} in the store"
    return ""


def _tidy(text: str) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(text))
    keys = ("cell", "train_seed", "sample_seed", "metric")
    return {
        " ".join(r[k] for k in keys): ", ".join(v for k, v in r.items() if k not in IGNORED and k not in keys and v)
        for r in rows
    }


def _rows(pattern: str, text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    return {f"row {i + 1}": line for i, line in enumerate(lines)}


def _latex(text: str) -> dict[str, str]:
    return {name: ALIGNING.sub("", line) for name, line in _rows(r" & .*\\\\$", text).items()}


def _json(text: str) -> dict[str, str]:
    report = json.loads(text)
    for contrasts in report["differences"].values():
        for contrast in contrasts.values():
            contrast.pop("anytime", None)  # it follows from the values, and an older report has none
    return {
        k: files.canonical(report[k]) for k in ("cells", "baseline", "intervals", "differences", "counts", "values")
    }


def _page(text: str) -> dict[str, str]:
    stamp = re.search(r'name="ddpmkit-tables" content="([0-9a-f]{64})"', text)
    return {"tables": stamp[1] if stamp else ""}


def _html(_: Records, summary: Summary) -> str:
    return f'name="ddpmkit-tables" content="{digest(summary)}"'


_KINDS: dict[str, tuple[Any, Any]] = {
    "results.csv": (lambda r, s: to_tidy(r), _tidy),
    "report.md": (lambda r, s: to_markdown(s), lambda t: _rows(r"^\|", t)),
    "report.tex": (lambda r, s: to_latex(s), _latex),
    "report.json": (lambda r, s: to_json(s), _json),
    "report.html": (_html, _page),
}
