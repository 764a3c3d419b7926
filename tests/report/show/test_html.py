"""The page as text: one file, nothing that acts, the digits of the tables; and what it may cost."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from ddpmkit.cli import main
from ddpmkit.report.draw.charts import charts
from ddpmkit.report.show.html import breaks, kind
from ddpmkit.report.show.latex import to_latex
from ddpmkit.report.show.terminal import to_tsv
from ddpmkit.report.show.views import View
from ddpmkit.report.show.words import findings, lead
from ddpmkit.report.write import make, render, write_report

ACTING = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "'><svg onload=alert(1)>",
)
HOSTILE = (
    *ACTING, "=1+1", "\x1b[31mred", "a\u202eb\u200fc", "a\x00b\rc", "$\\frac{1}{$", "\\input{/etc/passwd}", "%_&#~^{}",
    "{{ 7*7 }}", "{% raw %}", "]]>", "--><b>", "a\\\\[1cm]",
)  # fmt: skip


class Reader(HTMLParser):
    """Tags with their attributes, and the text of the tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br", "wbr", "path", "use", "source"):
            self.inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("span", "br") and {"td", "th"} & set(self.inside):
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if {"style", "script"} & set(self.inside):
            return
        self.text.append(data)
        if {"td", "th"} & set(self.inside):
            self.rows[-1][-1] += data


def page_of(folder, **view) -> str:
    records, summary, printed = make([folder], View(**view))
    return render("html", records, summary, printed)


@pytest.fixture(scope="module")
def page(study):
    return page_of(study)


@pytest.mark.long
def test_the_page_is_one_file_that_asks_for_nothing(page):
    reader = Reader(page)
    for tag, attributes in reader.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in page.replace("url(#", "")
    assert "@import" not in page
    policy = next(a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy


@pytest.mark.long
def test_links_inside_the_page_lead_somewhere(page):
    reader = Reader(page)
    ids = {a["id"] for _, a in reader.tags if "id" in a}
    assert {a["href"][1:] for t, a in reader.tags if t == "a"} <= ids
    for part in set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'xlink:href="#([^"]+)"', page)):
        assert part in ids


@pytest.mark.long
def test_the_tables_have_the_digits_of_every_other_form(study, page):
    _, summary, _ = make([study])
    expected = [line.split("\t") for line in to_tsv(summary).splitlines() if line and not line.startswith("# ")]
    found = [[" ".join(c.split()) for c in row] for row in Reader(page).rows]
    for row in expected:
        heads = [r for r in found if r[0] == row[0] and len(r) == len(row)]
        assert any(all(cell in shown for cell, shown in zip(row, r, strict=True)) for r in heads), row


@pytest.mark.long
def test_verdicts_stand_beside_the_numbers(page):
    rows = [[" ".join(c.split()) for c in row] for row in Reader(page).rows]
    linear = next(r for r in rows if r[0] == "linear")
    cosine = next(r for r in rows if r[0] == "cosine")
    assert [c.split()[-1] for c in linear[2:]] == ["baseline", "baseline"]
    assert [c.split()[-1] for c in cosine[2:]] == ["worse", "better"]


@pytest.mark.long
def test_the_samples_in_the_page_are_those_of_the_store(study, page):
    plan = json.loads((study / "plan.json").read_text())
    strips = [a for t, a in Reader(page).tags if t == "img" and a.get("class") == "pixels"]
    assert len(strips) == 2
    for strip, result in zip(strips, (plan["results"][0], plan["results"][3]), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(strip["src"].split(",")[1]))) as picture:
            pixels = np.asarray(picture.convert("L")).astype(int)
        id = result["sample"]
        blob = study.parent.parent / "store" / "sample" / id[:2] / id / "out" / "samples.safetensors"
        images = load(blob.read_bytes())["levels"].astype(int)
        for i in (0, 1, 15, 16, 31):
            y, x = i // 16 * 9, i % 16 * 9
            np.testing.assert_array_equal(pixels[y : y + 8, x : x + 8], np.round(images[i, 0] * 255 / 16))


@pytest.mark.long
def test_cells_at_other_seeds_are_said_to_have_other_noise(maker):
    folder = maker.write(schedules=("a", "b", "c"), failed=[("c", 0)])
    text = " ".join("".join(Reader(page_of(folder)).text).split())
    # Seed 0 is missing in c alone: all three have seed 1, so that is what is shown, the same for all.
    assert text.count("train seed 1, sample seed 0") == 3
    assert "other noise" not in text


def hostile(maker, text, **how):
    """A study that carries a text wherever text from outside can stand."""
    return maker.write(
        schedules=("linear", *how.pop("schedules", (text,))), metric=f"FD-{text}", failed=[("linear", 1)],
        error=f"{text}\n{text}", excluded=[(text, text)], plugin=text, **how,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("text", [" ".join(HOSTILE), *ACTING], ids=["all", "script", "image", "double", "single"])
def test_no_text_from_outside_acts_in_the_page(maker, page, text):
    plain = Reader(page)
    page = page_of(hostile(maker, text, schedules=HOSTILE if text not in ACTING else (text,)))
    reader = Reader(page)
    assert {t for t, _ in reader.tags} <= {t for t, _ in plain.tags}
    assert sum(t == "script" for t, _ in reader.tags) == 1
    assert not [a for _, a in reader.tags for name in a if name.startswith("on")]
    left = {c for c in page if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert left == set()
    said = "".join(reader.text)
    assert "<script>alert(1)</script>" in said or text in ACTING[1:]  # shown, as what it is
    if text not in ACTING:
        assert "{{ 7*7 }}" in said


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_text_from_outside_acts_in_a_spreadsheet(maker, text):
    import csv

    folder = maker.write(schedules=("linear", text), metric=text)
    for form in ("csv", "wide"):
        records, summary, printed = make([folder])
        for row in csv.reader(io.StringIO(render(form, records, summary, printed))):
            for cell in row:
                assert not cell.startswith(("=", "@", "\t", "\r"))
                assert not cell.startswith(("+", "-")) or re.fullmatch(r"[+-][\d.]+(e-?\d+)?", cell)
                assert not {c for c in cell if unicodedata.category(c) in ("Cc", "Cf")}


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_text_from_outside_acts_in_latex(maker, text):
    folder = maker.write(schedules=("linear", text), metric=text)
    plain = maker.write(schedules=("linear", "plain"), metric="plain", name="plain")

    def commands(path):
        found = to_latex(make([path])[1])
        return set(re.findall(r"\\[A-Za-z]+", found)), found

    known, _ = commands(plain)
    used, found = commands(folder)
    assert used - known <= {
        r"\textbackslash", r"\textless", r"\textgreater", r"\textbar", r"\textasciitilde", r"\textasciicircum", r"\char"
    }  # fmt: skip
    bare = re.sub(r"\\[{}]", "", found)
    assert bare.count("{") == bare.count("}")
    body = [line for line in found.splitlines() if line.endswith(r"\\")]
    # A number and its interval are two columns, and what stands in the middle of both counts for two.
    assert len({len(re.findall(r"(?<!\\)&|\\multicolumn\{2\}", line)) for line in body[:4]}) == 1
    for line in found.splitlines()[1:]:
        assert not re.search(r"(?<!\\)[%#]", line)
        assert not re.search(r"\\\\\s*\[", line)  # the optional argument of a row's end


def test_latex_names_what_a_stock_font_lacks():
    from ddpmkit.report.show.latex import escape

    assert escape("café \u03c3 中 🙂") == "café $\\sigma$ {[}U+4E2D{]} {[}U+1F642{]}"
    assert escape("a_b^c") == r"a\_b\textasciicircum{}c"


@pytest.mark.long
def test_a_report_outlives_the_plugin_that_made_the_study(maker):
    """Specs that nothing registers, of a plugin that is not there: every form is made all the same."""
    folder = maker.write(schedules=("gone/cubic:beta_T=0.03", "gone/cubic:beta_T=0.04"), plugin="ddpmkit-gone")
    write_report(folder)
    for form in ("terminal", "md", "latex", "html", "csv", "wide", "json"):
        assert main(["report", "demo", "--out", str(folder.parent.parent), "-f", form, "--to", str(folder / "x")]) == 0
        assert "cubic" in (folder / "x").read_text()
    assert "ddpmkit-gone 9.9" in "".join(Reader((folder / "report.html").read_text()).text)


@pytest.mark.long
def test_a_failure_is_on_the_page_where_it_happened(maker):
    folder = maker.write(failed=[("cosine", 1)], error="x0hat is not finite at step 3")
    text = " ".join("".join(Reader(page_of(folder)).text).split())
    assert "diverged: x0hat is not finite at step 3" in text
    assert "5 of 6 results done" in text


def test_a_study_without_a_single_number_still_makes_a_page(maker):
    folder = maker.write(failed=[(s, n) for s in ("linear", "cosine") for n in range(3)], error="no")
    page = page_of(folder)
    assert "0 of 6 results done" in page
    write_report(folder)


def test_one_seed_is_said_to_give_no_verdict(maker):
    _, summary, _ = make([maker.write(seeds=(0,))])
    assert "One train seed gives numbers and no verdict" in " ".join(lead(summary))


def test_the_words_are_the_tables_own(study):
    _, summary, _ = make([study])
    found = {f.metric: f.groups for f in findings(summary)}
    assert [v for v, _ in found["NLL"]] == ["better"]
    assert [v for v, _ in found["FD-digits"]] == ["worse"]
    ((cell, gap),) = found["NLL"][0][1]
    assert (cell, gap) in {
        (r[0], r[2]) for r in (line.split("\t") for line in to_tsv(summary).splitlines()) if len(r) > 5
    }
    assert "2 of 2 differences from linear are settled." in lead(summary)


def test_verdicts_that_are_new_are_shown_plainly():
    assert kind("one result") == "open"
    assert [kind(v) for v in ("better", "worse", "no gap larger than 0.1", "anything")] == [
        "better",
        "worse",
        "same",
        "open",
    ]


def test_a_spec_may_break_and_copies_as_it_is():
    assert str(breaks("unet:a=1/2<b>")) == "unet:<wbr>a=<wbr>1/<wbr>2&lt;b&gt;"


@pytest.mark.long
def test_the_charts_show_what_the_table_says(study):
    records, summary, _ = make([study])
    drawn = {c.stem: c for c in charts(records, summary)}
    metrics = {"effects-FD-digits", "seeds-FD-digits", "effects-NLL", "seeds-NLL"}
    assert set(drawn) == metrics | {"training", "bits-by-step", "schedule-alpha-bars", "schedule-log-snr"}
    lines = drawn["bits-by-step"].figure.axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0.5, 0.25]] * 3 + [[0.5, 0.125]] * 3
    assert list(lines[0].get_xdata()) == [1, 4]  # a block from 2 to 8, at its middle
    alphas = drawn["schedule-alpha-bars"].figure.axes[0].lines
    assert [list(line.get_ydata()) for line in alphas] == [[0.99, 0.5, 0.0], [0.99, 0.4, 0.0]]
    axis = drawn["effects-NLL"].figure.axes[0]
    contrast = summary.differences["NLL"]["cosine"]
    line, point = axis.lines
    assert list(line.get_xdata()) == [contrast.low, contrast.high]
    assert list(point.get_xdata()) == [contrast.difference]
    assert axis.get_xlim()[0] < contrast.low < contrast.high < 0 < axis.get_xlim()[1]
    seeds = drawn["seeds-NLL"].figure.axes[0].lines
    assert [list(s.get_ydata()) for s in seeds] == [
        [summary.values["NLL"][c][n] for c in ("linear", "cosine")] for n in range(3)
    ]
    curves = drawn["training"].figure.axes[0].lines
    assert [line.get_label() for line in curves][:1] == ["linear, cosine"]  # their losses are the same here: drawn once
    assert len(curves) == 3
    assert list(curves[0].get_xdata()) == [50, 100, 150, 200, 250]


@pytest.mark.long
def test_the_same_records_give_the_same_page(study, page):
    assert page_of(study) == page


@pytest.mark.slow
def test_a_page_of_500_results_takes_little_more_than_ten_times_one_of_50_and_no_torch(maker):
    for name, count in (("small", 5), ("large", 50)):
        maker.write(schedules=tuple(f"schedule{i}" for i in range(count)), seeds=range(10), name=name)
    script = (
        "import json, sys, time\n"
        "from ddpmkit.cli import main\n"
        "spent = {}\n"
        "for form in ('terminal', 'html'):\n"
        "    for name in ('small', 'small', 'large'):\n"  # twice: what is loaded at the first use is no part of it
        "        started = time.process_time()\n"
        "        code = main(['report', name, '--out', sys.argv[1], '-f', form, '--to', sys.argv[2]])\n"
        "        spent[form + ' ' + name] = time.process_time() - started\n"
        "        assert code == 0\n"
        "print(json.dumps(spent))\n"
        "sys.exit('torch is loaded' if 'torch' in sys.modules else 0)\n"
    )
    to = str(maker.out / "x")
    ran = subprocess.run(
        [sys.executable, "-c", script, str(maker.out), to], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    spent = json.loads(ran.stdout)
    # Processor time of one process: what else the machine does is not the report's fault.
    for form in ("terminal", "html"):
        assert spent[f"{form} large"] < 3 * 10 * spent[f"{form} small"], form
