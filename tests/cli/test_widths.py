"""Tables in terminals of any width: a number is whole or absent, and stands with the name of its row."""

from __future__ import annotations

import io
import random
import re
import sys

import pytest
from rich.console import Console

from ddpmkit.cli.console import print_rows
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.terminal import to_terminal

WIDTHS = (50, 60, 72, 80, 100, 140)
NUMBER = re.compile(r"[+-]?\d+\.\d+")
SUMMARY = Summary("demo", ("a",), (), "a", {}, {}, {"a": {"done": 1}}, {}, (), {})


def terminal(table: Table, width: int) -> str:
    out = io.StringIO()
    to_terminal(SUMMARY, Console(file=out, width=width), shown=[table])
    return out.getvalue()


def rows_in_terminal(monkeypatch: pytest.MonkeyPatch, width: int, heads: list[str], rows: list[list[str]]) -> str:
    """What ``print_rows`` prints, the command line's tables."""
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(stream, "isatty", lambda: True, raising=False)
        patch.setattr(sys, "stdout", stream)
        patch.setenv("COLUMNS", str(width))
        patch.setenv("NO_COLOR", "1")
        patch.setenv("TERM", "dumb")
        print_rows("a title", heads, rows)
    return stream.getvalue()


def owners(text: str, names: list[str]) -> dict[str, set[str]]:
    """Number -> the names of the rows it was read in: that at the start of its line, or that above its block."""
    out: dict[str, set[str]] = {}
    above = ""
    for line in text.splitlines():
        here = [name for name in names if line == name or line.startswith(f"{name} ")]
        if not line.startswith(" "):
            above = max(here, key=len, default="")
        for number in NUMBER.findall(line):
            out.setdefault(number, set()).add(above)
    return out


def random_table(rng: random.Random) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: names of one or several words, numbers of which no two are alike, some places empty."""
    letters = "abcdefghijklmnopqrstuvwxyz:-/="
    columns, count = rng.randint(1, 9), rng.randint(1, 6)

    def word(low: int, high: int) -> str:
        return "".join(rng.choice(letters[:26]) for _ in range(rng.randint(low, high)))

    def name() -> str:
        words = [word(2, 12) for _ in range(rng.randint(1, 3))]
        return " ".join(words)[: rng.choice((8, 20, 45))].strip()

    taken: set[str] = set()

    def number() -> str:
        while True:
            text = f"{rng.choice(('', '-', '+'))}{rng.randint(0, 10 ** rng.randint(1, 7))}.{rng.randint(0, 10**5)}"
            if text.lstrip("+-") not in taken:
                taken.add(text.lstrip("+-"))
                return text

    def cell() -> str:
        shape = rng.random()
        return "" if shape < 0.1 else number() if shape < 0.5 else f"{number()} [{number()}, {number()}]"

    names = list(dict.fromkeys(f"{chr(65 + k)}{name()}" for k in range(count)))
    heads = ["cell", *(f"{word(2, 14)}{rng.choice(('', ' ↓', ' ↑ bits/dim'))}" for _ in range(columns))]
    return heads, [[n, *(cell() for _ in range(columns))] for n in names]


def check(text: str, rows: list[list[str]], width: int) -> None:
    names = [row[0] for row in rows]
    found = owners(text, names)
    for row in rows:
        assert re.search(rf"(?m)^{re.escape(row[0])}( |$)", text), (row[0], text)
        for number in NUMBER.findall(" ".join(row[1:])):
            assert found.get(number) == {row[0]}, (number, row[0], text)
    assert set(found) == set(NUMBER.findall(" ".join(c for row in rows for c in row[1:])))
    assert max(map(len, text.splitlines())) <= width, text
    assert "…" not in text


@pytest.mark.parametrize("seed", range(8))
def test_any_table_at_any_width_is_whole_and_named(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        (heads, rows), width = random_table(rng), rng.randint(50, 140)
        references = rng.randint(0, len(rows) - 1)
        check(terminal(Table("a title", tuple(heads), tuple(map(tuple, rows)), references), width), rows, width)


@pytest.mark.parametrize("seed", range(8))
def test_any_rows_of_the_command_line_are_whole_and_named(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(100 + seed)
    for _ in range(25):
        (heads, rows), width = random_table(rng), rng.randint(50, 140)
        check(rows_in_terminal(monkeypatch, width, heads, rows), rows, width)


def study(cells: list[str]) -> Table:
    heads = ("cell", "seeds", "FD-digits ↓", "KID-digits ↓", "precision-digits ↑", "recall-digits ↑", "NLL ↓ bits/dim")
    rows = [
        (cell, "3", f"4.{n} [4.{n}0, 5.{n}6]", f"0.{n}13 [-0.{n}20, 1.{n}47]", f"0.8{n} [0.7{n}, 0.9{n}]",
         f"0.9{n}1 [0.9{n}2, 0.9{n}3]", f"3.1{n}9 [3.0{n}6, 3.1{n}3]")
        for n, cell in enumerate(cells)
    ]  # fmt: skip
    rows.append(("real, train n=900", "", "1.9", "", "0.951", "0.952", ""))
    rows.append(("uniform", "", "", "", "", "", "4.087"))
    return Table("study demo", heads, tuple(rows), 2)


LONG = ["linear unet:channels=8:octaves=7/8 beta-tilde", "cosine:s=1 unet:channels=8:octaves=7/8 beta", "sigmoid"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("cells", [["linear", "cosine", "sigmoid"], LONG], ids=["short", "long"])
def test_a_study_of_several_metrics_is_whole(cells: list[str], width: int) -> None:
    table = study(cells)
    text = terminal(table, width)
    check(text, [list(row) for row in table.rows], width)
    assert text.count("study demo") == 1
    for head in table.columns[1:]:
        assert text.count(head) == 1 or text.startswith("study demo\nlinear")  # once, or once a block


def test_a_row_stands_only_in_the_tables_where_it_says_something() -> None:
    tables = terminal(study(["linear", "cosine", "sigmoid"]), 72).strip().split("\n\n")
    assert len(tables) > 1
    for text in tables:
        assert ("uniform" in text) == ("4.087" in text)
        assert "linear" in text


def test_a_difference_and_its_verdict_stay_together() -> None:
    heads = ("cell", "metric", "difference", "Holm p", "seed corr.", "verdict")
    rows = tuple((c, m, "-13.4 [-27.9, +1.2]", ".054", "+0.98", "inconclusive") for m in "FN" for c in ("ab", "cd"))
    for width in (50, 60):
        text = terminal(Table("differences", heads, rows, keys=(0, 1), lead=(2, 5)), width)
        assert re.search(r"ab +F +-13.4 \[-27.9, \+1.2\] +inconclusive", text)


def test_a_name_longer_than_the_terminal_is_broken_between_words() -> None:
    name = "one two three four five six seven eight nine ten eleven twelve"
    text = terminal(Table("t", ("cell", "value"), ((name, "1.5"),)), 50)
    assert " ".join(text.split()).endswith(f"{name} value 1.5")
    assert max(map(len, text.splitlines())) <= 50


def test_wide_characters_take_two_columns() -> None:
    table = Table("t", ("cell", *"abcd"), (("中文中文中文", *["1.25"] * 4), ("ab", *["2.5"] * 4)))
    lines = terminal(table, 60).splitlines()
    assert len({len(line) + sum(c > "\u2e80" for c in line) for line in lines[2:5]}) == 1


def test_prose_is_wrapped_and_numbers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "60")
    prose = "a sentence of many words that does not fit into one line of the terminal"
    print_rows("t", ("name", "value", "remark"), [("cosine", "1.25 [0.50, 2.00]", prose)], prose=(2,))
    text = stream.getvalue()
    assert "1.25 [0.50, 2.00]" in text
    assert re.findall(r"[a-z]+", text.split("2.00]")[1]) == prose.split()


def test_the_committed_study_at_every_width(tmp_path_factory: pytest.TempPathFactory) -> None:
    from pathlib import Path

    import ddpmkit
    from ddpmkit.report.read.foreign import read_foreign
    from ddpmkit.report.show.tables import all_tables

    file = Path(ddpmkit.__file__).parents[1] / "results/reference/digits-schedules/results.csv"
    summary = summarise(read_foreign(file))
    wide = io.StringIO()
    to_terminal(summary, Console(file=wide, width=300))
    for width in WIDTHS:
        out = io.StringIO()
        to_terminal(summary, Console(file=out, width=width))
        assert sorted(NUMBER.findall(out.getvalue())) == sorted(NUMBER.findall(wide.getvalue()))
        for table in all_tables(summary):
            for row in table.rows if not table.detail else ():
                assert f"\n{row[0]} " in out.getvalue()
