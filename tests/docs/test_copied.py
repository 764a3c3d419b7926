"""Tables of results in the documents are copied from the committed reports, never typed: each says where it is from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^<!-- from: (\S+) -->$")
RULER = re.compile(r"^\|[:|-]+\|$")
# Tables that hold figures of a study look like this: an interval, as reports write them.
INTERVAL = re.compile(r"\\\[[-+.\d]+, [-+.\d]+\\\]")
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tables(text: str) -> list[tuple[str | None, list[str]]]:
    """The tables of a page, each with the report that the mark above it names."""
    out: list[tuple[str | None, list[str]]] = []
    source, inside = None, False
    for line in text.splitlines():
        if mark := MARK.match(line):
            source = mark[1]
        elif line.startswith("#"):
            source = None
        if line.startswith("|"):
            if not inside:
                out.append((source, []))
            out[-1][1].append(line)
        inside = line.startswith("|")
    return out


def not_of_a_report(text: str, root: Path) -> list[str]:
    """Rows with results that their report does not have, or that name no report."""
    out = []
    for source, rows in tables(text):
        if source is None:
            out += [row for row in rows if INTERVAL.search(row)]
        else:
            report = (root / source).read_text().splitlines()
            out += [row for row in rows if row not in report and not RULER.match(row)]
    return out


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_table_of_results_is_that_of_a_committed_report(page: Path) -> None:
    assert not_of_a_report(page.read_text(), ROOT) == []


def test_a_figure_that_was_typed_is_found(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("| cell | NLL |\n|:--|--:|\n| linear | 2.1 \\[2.0, 2.2\\] |\n")
    page = "<!-- from: report.md -->\n\n| cell | NLL |\n|:--|--:|\n| linear | 2.1 \\[2.0, 2.2\\] |\n"
    assert not_of_a_report(page, tmp_path) == []
    assert not_of_a_report(page.replace("2.1", "2.0"), tmp_path) == ["| linear | 2.0 \\[2.0, 2.2\\] |"]
    assert len(not_of_a_report(page.replace("<!--", "<!-- not"), tmp_path)) == 1, "a table that names no report"
