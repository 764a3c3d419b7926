"""How a report looks: the same digits everywhere, and no text from outside that anything acts on."""

from __future__ import annotations

import io
import itertools
import json
import re
import unicodedata

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.tables import all_tables
from ddpmkit.report.show.terminal import to_terminal, to_tsv
from ddpmkit.statistics import contrasts, t_interval
from ddpmkit.text import inert

VALUES = {
    "FD-digits": {
        "linear": {0: 101.0, 1: 104.2, 2: 99.1},
        "cosine": {0: 61.0, 1: 66.5, 2: 57.3},
        "sigmoid": {0: 98.0, 1: 108.0, 2: 101.5},
    },
    "NLL": {
        "linear": {0: 2.01, 1: 2.03, 2: 1.98},
        "cosine": {0: 2.51, 1: 2.57, 2: 2.46},
        "sigmoid": {0: 2.0, 1: 2.05, 2: 1.97},
    },
}
# What someone could put into a plugin's name, and what must be gone or inert wherever it is shown.
CONTROLS = ("\x1b[31mred", "a\tb", "a\nb", "a\rb", "\x07bell", "\x9b31m", "\x00nul", "\u2028line", "\u2029paragraph")
BIDI = [chr(c) for c in range(0x110000) if unicodedata.bidirectional(chr(c)) in
        ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")] + ["\u200e", "\u200f", "\u061c"]  # fmt: skip
MARKUP = (
    "<script>alert(1)</script>", "a|b", "=1+1", "*bold* _it_", "[x](http://e.org)", "![i](x)", "`code`", "&lt;b&gt;",
    "# head", "~~gone~~", "<!-- c -->", "\\|", "$x$", "- item", "https://e.org", "[bold red]rich[/]", ":smile:",
)  # fmt: skip


def summary(values=VALUES, *, study="demo", notes=("a note",), references=None):
    cells = tuple(next(iter(values.values())))
    return Summary(
        study,
        cells,
        tuple(values),
        cells[0],
        {m: {c: t_interval(list(v.values())) for c, v in by.items()} for m, by in values.items()},
        {m: contrasts(by, cells[0]) for m, by in values.items()},
        {c: {"done": 3} for c in cells},
        {"uniform": {"NLL": 4.0875}} if references is None else references,
        tuple(notes),
        values,
    )


def hostile(text):
    """A summary whose every name is this text."""
    values = {
        f"{text}-metric": {"linear": {0: 1.0, 1: 1.1}, text: {0: 2.0, 1: 2.2}},
        "NLL": {"linear": {0: 1.0, 1: 1.1}, text: {0: 2.0, 1: 2.2}},
    }
    return summary(values, study=text, notes=(f"{text}: {text}",), references={text: {"NLL": 4.0}})


def terminal(s, width=200, **how):
    out = io.StringIO()
    to_terminal(s, Console(file=out, width=width, **how))
    return out.getvalue()


def numbers(text):
    """Every number in a text, the 3 of n=3 and such included, in order of size: layouts differ in their order."""
    return sorted(re.findall(r"[+-]?\d*\.\d+", text))


def markdown_cells(text):
    """The tables of a Markdown text as a renderer reads them: rows of the plain text of each cell."""
    rows, tokens = [], MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            rows[-1].append("".join(t.content for t in token.children if t.type == "text"))
    return rows


def markdown_kinds(text):
    """The kinds of everything that a Markdown renderer finds."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return {t.type for block in tokens for t in (block, *(block.children or []))}


def test_the_digits_are_the_same_in_terminal_pipe_and_markdown():
    s = summary()
    tables = to_tsv(s)
    assert len(numbers(tables)) > 30
    assert numbers(tables) == numbers(to_markdown(s))
    brief = to_tsv(s, [t for t in all_tables(s) if not t.detail])
    assert numbers(terminal(s)) == numbers(terminal(s, 80)) == numbers(brief)
    assert len(numbers(brief)) < len(numbers(tables))  # details are for files


def test_the_numbers_of_the_json_are_those_of_the_table_before_rounding():
    s = summary()
    found = json.loads(to_json(s))
    title, *rows = [line.split("\t") for line in to_tsv(s).splitlines()]
    assert title == ["# study demo"]
    heads = rows[0]
    for row in rows[1:4]:
        for metric in s.metrics:
            (column,) = (i for i, head in enumerate(heads) if head.startswith(metric))
            shown = [float(x) for x in re.findall(r"[\d.]+", row[column])]
            exact = found["intervals"][metric][row[0]]
            decimals = re.search(r"\.(\d+)", row[column])  # a wide interval has none
            half_a_digit = 0.5 * 10 ** -len(decimals.group(1) if decimals else "")
            assert shown == pytest.approx([exact["mean"], exact["low"], exact["high"]], abs=half_a_digit * 1.001)
    assert found["differences"]["FD-digits"]["cosine"]["verdict"] == "better"
    assert found["differences"]["NLL"]["cosine"]["verdict"] == "worse"
    assert found["values"]["NLL"]["cosine"] == {"0": 2.51, "1": 2.57, "2": 2.46}


def test_every_cell_metric_and_verdict_is_in_every_form():
    s = summary()
    for text in (terminal(s), to_tsv(s), to_markdown(s), to_json(s)):
        for word in ("linear", "cosine", "sigmoid", "FD-digits", "NLL", "better", "worse", "inconclusive", "uniform"):
            assert word in text


def test_piped_rows_are_tab_separated_and_as_wide_as_their_head():
    blocks = [b.splitlines() for b in to_tsv(summary()).strip("\n").split("\n\n")]
    assert len(blocks) == 3
    assert [b[0] for b in blocks] == [f"# {t.title}" for t in all_tables(summary())]
    for _, *block in blocks:
        width = len(block[0].split("\t"))
        assert width > 3
        assert {len(line.split("\t")) for line in block} == {width}
    assert to_tsv(summary()).endswith("\n")


def test_without_a_terminal_the_rows_go_out_tab_separated(capsys):
    to_terminal(summary())
    assert capsys.readouterr().out == to_tsv(summary())


def test_a_table_of_one_cell_has_no_second_table():
    s = summary({"NLL": {"linear": {0: 2.0}}})
    assert to_tsv(s).count("cell\t") == 1
    assert len(markdown_cells(to_markdown(s))) == 3  # head, the cell, the reference


def test_json_has_no_nan_and_no_infinity():
    def refuse(name):
        raise AssertionError(name)

    s = summary({"NLL": {"a": {0: 1.0, 1: 2.0}, "b": {7: 1.0, 8: 1.5}}})  # no common seed: the difference is NaN
    s.values["NLL"]["b"][7] = float("inf")
    s.values["NLL"]["b"][8] = float("-inf")
    found = json.loads(to_json(s), parse_constant=refuse)
    assert found["differences"]["NLL"]["b"]["difference"] is None
    assert found["values"]["NLL"]["b"] == {"7": None, "8": None}


def test_json_is_plain_ascii_whatever_the_names_are():
    shown = to_json(hostile("\x1b[31m\u202e中"))
    assert shown.isascii()
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_of_the_terminal_table_is_cut_or_too_long(width):
    text = terminal(summary(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for cell in ("cosine", "sigmoid"):  # nowhere folded in the middle of the word
        # In the first table, and for each metric among the differences.
        assert len(re.findall(rf"\b{cell}\b", text)) == 1 + len(VALUES)


@pytest.mark.parametrize("text", [*CONTROLS, *BIDI], ids=ascii)
def test_no_control_character_or_direction_mark_reaches_a_reader(text):
    name = f"evil{text}name"
    s = hostile(name)
    for shown in (terminal(s), to_tsv(s).replace("\t", ""), to_markdown(s)):
        left = {c for c in shown if c != "\n" and (unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp"))}
        assert left == set()
        assert "evil" in shown  # the name is there, without what was wrong with it


@pytest.mark.parametrize("text", [*CONTROLS, *BIDI], ids=ascii)
def test_hostile_names_break_no_row(text):
    blocks = [b.splitlines() for b in to_tsv(hostile(f"a{text}b")).strip("\n").split("\n\n")]
    assert [len(b) for b in blocks] == [1 + 4, 1 + 3, 1 + 3]  # a title, and its table
    assert all(len({line.count("\t") for line in b[1:]}) == 1 for b in blocks)


def test_an_escape_sequence_goes_as_a_whole():
    assert inert("a\x1b[1;31mb\x1b[0mc") == "abc"


@pytest.mark.parametrize("text", ["linear", "cosine:s=0.01", "ζ-schedule", "中文", "a/b=1 c", "é", "🙂"])
def test_ordinary_text_stays_as_it_is(text):
    assert inert(text) == text


@pytest.mark.parametrize("text", MARKUP)
def test_markdown_shows_a_name_as_it_is_and_acts_on_none_of_it(text):
    shown = to_markdown(hostile(text))
    plain = to_markdown(
        summary({"m": {"linear": {0: 1.0, 1: 1.1}, "b": {0: 2.0, 1: 2.2}}}, references={"r": {"m": 4.0}})
    )
    assert markdown_kinds(shown) == markdown_kinds(plain)
    rows = markdown_cells(shown)
    assert {len(r) for r in rows[:4]} == {4}
    assert rows[2][0] == rows[3][0] == text  # the cell and the reference of that name


@pytest.mark.parametrize("text", MARKUP)
def test_the_terminal_shows_a_name_as_it_is(text):
    assert terminal(hostile(text), 400).count(text) == terminal(hostile("plainname"), 400).count("plainname")


def test_a_terminal_without_colour_gets_no_escape_sequence():
    assert "\x1b" not in terminal(summary(), no_color=True)
    coloured = terminal(summary(), force_terminal=True, color_system="standard")
    assert "\x1b[32m" in coloured  # better is green
    assert "\x1b[31m" in coloured  # worse is red
    assert numbers(re.sub(r"\x1b\[[\d;]*m", "", coloured)) == numbers(terminal(summary()))
