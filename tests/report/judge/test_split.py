"""The split of two cells' NLL by log SNR: its numbers by hand, its seeds, and when there is none."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from ddpmkit.cli import main
from ddpmkit.report.draw.charts import charts
from ddpmkit.report.draw.split import split_figure
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.show.json import to_json
from ddpmkit.report.show.markdown import to_markdown
from ddpmkit.report.show.views import View
from ddpmkit.report.write import make, render
from ddpmkit.statistics import t_interval
from ddpmkit.study.store import Store

# Four steps: t=2 runs from log SNR 2 to 6, t=3 from -1 to 2, t=4 from -5 to -1.
CHAIN = {"t": [1, 2, 3, 4], "log_snr": [6.0, 2.0, -1.0, -5.0], "alpha_bars": [0.9, 0.8, 0.3, 0.01]}
ROWS = ("L_T", "log SNR below 0", "log SNR 0 to 4", "log SNR 4 to 8", "log SNR above 8", "L_0", "total")
GAINS = {0: -0.20, 1: -0.26, 2: -0.14}  # of cosine at t=2, by seed


def bounded(maker, cells: dict[str, list[tuple[float, list[float]]]], *, chain=CHAIN, T=4, times=None, name="demo"):
    """Write a study: cell -> for each seed L_T and the bits/dim of every step, L_0 first."""
    folder = maker.write(tuple(cells), range(len(next(iter(cells.values())))), name=name)
    plan = json.loads((folder / "plan.json").read_text())
    for r in plan["results"]:
        prior, bits = cells[r["cell"]][r["train_seed"]]
        maker.stage("train", f"{r['cell']} {r['train_seed']}", {"parameters": 9, "flops": 9, "chain": chain})
        numbers = list(range(1, T + 1))
        errors = ([0.003, 0.004, 0.006, 0.002] * T)[:T]
        curve = {"first": numbers, "last": numbers, "bits": bits, "standard_error": errors}
        total = prior + sum(b or 0.0 for b in bits)
        bound = {"total": total, "standard_error": 0.008, "prior": prior, "decoder": bits[0], "curve": curve}
        nll = {"clipped": bound, "unclipped": bound, "reported": "clipped", "decoder": "cdf", "decoder_variance": "b"}
        nll |= {"T": T, "split": "test", "images": 9, "evaluations": 9}
        maker.stage("nll", f"{r['cell']} {r['train_seed']}", nll)
        id = hashlib.sha256(f"draw {r['cell']} {r['train_seed']}".encode()).hexdigest()
        draw = {"kind": "draw", "id": id, "label": "draw", "spec": {"times": times}}
        next(s for s in plan["stages"] if s["id"] == r["nll"])["spec"] = {"draw": draw["id"]}
        plan["stages"].append(draw)
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def three_seeds(maker, **more: Any):
    linear = [(0.01, [0.5, 1.0 + s / 100, 0.6, 0.3]) for s in GAINS]
    cosine = [(0.00, [0.4, 1.0 + s / 100 + gain, 0.9, 0.3]) for s, gain in GAINS.items()]
    return bounded(maker, {"linear": linear, "cosine": cosine}, **more)


def test_many_cells_have_a_row_each_and_no_figure(maker) -> None:
    seeds = {f"c{i}": [(0.01, [0.5, 1.0 + s / 100 + i / 10, 0.6, 0.3]) for s in GAINS] for i in range(10)}
    folder = bounded(maker, seeds)
    text = to_markdown(summarise(read_study(folder)))
    block = text.split("split by log SNR**")[1].split("\n\n")[1].splitlines()
    assert (
        block[0]
        == "| cell | L\\_T | log SNR below 0 | log SNR 0 to 4 | log SNR 4 to 8 | log SNR above 8 | L\\_0 | total |"
    )
    parts = [float(x) for x in block[-1].strip("|").split("|")[1:]]
    assert block[-1].startswith("| c9 |")
    assert len(block) == 2 + 9
    assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=2e-3) == pytest.approx(0.9, abs=2e-3)
    records = read_study(folder)
    assert "split" not in {chart.stem for chart in charts(records, summarise(records))}


def test_each_part_is_its_steps_share_and_they_sum_to_the_difference(maker) -> None:
    summary = summarise(read_study(three_seeds(maker)))
    split, contrast = summary.splits["NLL"]["cosine"], summary.differences["NLL"]["cosine"]
    gaps = {part.name: part.difference.mean for part in split.parts}
    assert tuple(gaps) == ROWS
    # Half of t=2 lies in 4 to 8 and half in 0 to 4; of t=3, which costs 0.3 more, a third lies below 0.
    assert gaps == pytest.approx(
        dict(zip(ROWS, (-0.01, 0.1, 0.2 - 0.1, -0.1, 0.0, -0.1, -0.01), strict=True)), abs=1e-12
    )
    assert sum(list(gaps.values())[:-1]) == pytest.approx(contrast.difference, abs=1e-12)
    assert gaps["total"] == pytest.approx(contrast.difference, abs=1e-12)
    assert split.along.cumulative[-1] == pytest.approx(contrast.difference, abs=1e-12)
    assert sum(split.along.difference) == pytest.approx(contrast.difference, abs=1e-12)
    for part in split.parts[:-1]:
        assert part.cell - part.baseline == pytest.approx(part.difference.mean, abs=1e-12)
    assert sum(part.cell for part in split.parts[:-1]) == pytest.approx(split.parts[-1].cell, abs=1e-12)


def test_intervals_are_over_seeds_in_pairs_and_the_error_is_of_both_sides(maker) -> None:
    split = summarise(read_study(three_seeds(maker))).splits["NLL"]["cosine"]
    parts = {part.name: part for part in split.parts}
    assert split.seeds == (0, 1, 2)
    halves = t_interval([gain / 2 for gain in GAINS.values()])
    for name in ("log SNR 4 to 8", "log SNR 0 to 4"):
        assert parts[name].difference.high - parts[name].difference.low == pytest.approx(halves.high - halves.low)
    whole = t_interval([gain + 0.19 for gain in GAINS.values()])
    assert (parts["total"].difference.low, parts["total"].difference.high) == pytest.approx((whole.low, whole.high))
    # Where all seeds have one difference, as of L_T, which no draw enters, there is no interval.
    assert parts["L_T"].difference.low is None
    assert parts["L_T"].standard_error == 0
    # Two cells and three seeds: sqrt(2 / 3) of one bound's error; a part of a step has that part of its error.
    assert parts["log SNR 4 to 8"].standard_error == pytest.approx(0.5 * 0.004 * (2 / 3) ** 0.5)
    assert parts["L_0"].standard_error == pytest.approx(0.003 * (2 / 3) ** 0.5)
    assert parts["total"].standard_error == pytest.approx(0.008 * (2 / 3) ** 0.5)


def test_of_one_seed_there_is_no_interval_but_the_error(maker) -> None:
    folder = bounded(maker, {"linear": [(0.0, [0.5, 1.0, 0.6, 0.3])], "cosine": [(0.0, [0.5, 0.8, 0.6, None])]})
    _, summary, (table,) = make([folder], View(tables=("split",)))
    split = summary.splits["NLL"]["cosine"]
    assert {part.difference.low for part in split.parts} == {None}
    assert set(split.along.half) == {None}
    assert max(split.along.standard_error) > 0
    assert split.parts[1].difference.mean == pytest.approx(-0.3)  # a step that nothing was drawn at is nothing
    assert "there is one train seed" in table.note
    (legend,) = split_figure(summary.splits["NLL"], summary.baseline).legends
    text = legend.get_title().get_text()
    assert text == "difference from linear; bands: 95 % of the Monte-Carlo error, one train seed"


def test_the_steps_of_a_walk_lie_where_the_walk_goes(maker) -> None:
    chain = {"t": list(range(1, 21)), "log_snr": np.linspace(7.0, -8.0, 20).tolist(), "alpha_bars": [0.5] * 20}
    times = [0, 5, 12, 19]  # the chain's t = 1, 6, 13 and 20
    at = np.linspace(7.0, -8.0, 20)[times]
    split = summarise(read_study(three_seeds(maker, chain=chain, times=times))).splits["NLL"]["cosine"]
    gaps = {part.name: part.difference.mean for part in split.parts}
    assert at == pytest.approx([7.0, 3.05, -2.47, -8.0], abs=0.01)
    above = (at[0] - 4) / (at[0] - at[1])  # of t=2
    assert gaps["log SNR 4 to 8"] == pytest.approx(-0.2 * above)
    assert gaps["log SNR below 0"] == pytest.approx(0.3 * at[2] / (at[2] - at[1]))


def test_every_form_has_the_table_and_the_data(maker, capsys) -> None:
    folder = three_seeds(maker)
    records, summary, tables = make([folder])
    (table,) = (t for t in tables if t.name == "split")
    assert table.detail
    assert [row[1] for row in table.rows] == list(ROWS)
    assert table.rows[3] == ("cosine", "log SNR 4 to 8", "0.405", "0.505", "-0.100 [-0.175, -0.025]", "0.0016")
    assert table.rows[0] == ("cosine", "L_T", "0.000", "0.010", "-0.010", "0.0000")
    data = json.loads(to_json(summary))["splits"]["NLL"]["cosine"]
    assert data["seeds"] == [0, 1, 2]
    assert [part["name"] for part in data["parts"]] == list(ROWS)
    assert len(data["along"]["difference"]) == len(data["along"]["edges"]) + 3
    assert "split by log SNR" in to_markdown(summary)
    page = render("html", records, summary, tables)
    assert "Difference in NLL from linear by log SNR" in page
    assert main(["report", "demo", "--out", str(maker.out), "--table", "split"]) == 0
    assert capsys.readouterr().out.count("cosine\t") == len(ROWS)


def test_records_without_terms_by_step_leave_it_out_without_a_word(study, capsys, tmp_path) -> None:
    records, summary, tables = make([study])
    assert not summary.splits
    assert "split" not in [t.name for t in tables]
    assert "splits" not in json.loads(to_json(summary))
    assert "log SNR" not in to_markdown(summary)
    assert "by log SNR" not in render("html", records, summary, tables).replace("and by log SNR where", "")
    assert main(["plot", "split", str(study), "--to", str(tmp_path / "split.png")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: study 'demo' has no NLL by step of linear and another cell"
    assert len(said) == 2
    assert not list(tmp_path.iterdir())


def test_one_seed_without_terms_leaves_its_cell_out(maker) -> None:
    folder = three_seeds(maker)
    assert summarise(read_study(folder)).splits
    old = {"total": 2.0, "standard_error": 0.01, "curve": {}}
    nll = {"clipped": old, "unclipped": old, "decoder": "cdf", "decoder_variance": "b", "T": 4, "split": "test"}
    maker.stage("nll", "cosine 1", nll | {"images": 9, "evaluations": 9})
    assert not summarise(read_study(folder)).splits  # a mean over other seeds would be another difference


def test_the_baseline_is_the_one_that_was_asked_for_and_other_metrics_have_none(maker) -> None:
    folder = three_seeds(maker)
    _, summary, _ = make([folder], baseline="cosine")
    assert list(summary.splits["NLL"]) == ["linear"]
    assert summary.splits["NLL"]["linear"].parts[-1].difference.mean == pytest.approx(0.01)
    _, summary, tables = make([folder], View(metrics=("FD-digits",)))
    assert not [t for t in tables if t.name == "split"]
    assert "splits" not in json.loads(to_json(summary))


def test_the_figure_is_steps_and_sums_with_the_ends_beside(maker) -> None:
    summary = summarise(read_study(three_seeds(maker)))
    found = summary.splits["NLL"]
    left, right = split_figure(found, "linear").axes
    along = found["cosine"].along
    (stairs,) = left.patches
    assert stairs.get_data().values == pytest.approx(along.difference[1:-1])
    line = right.lines[0]
    assert line.get_ydata() == pytest.approx(along.cumulative[:-1])
    assert [t.get_text() for t in left.get_xticklabels()][:: len(left.get_xticklabels()) - 1] == ["$L_T$", "$L_0$"]
    assert right.get_xticklabels()[-1].get_text() == "all"


def test_the_command_writes_the_figure(maker, tmp_path, capsys) -> None:
    three_seeds(maker)
    path = tmp_path / "split.svg"
    assert main(["plot", "split", "demo", "--out", str(maker.out), "--to", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().err
    assert "difference from linear" in path.read_text()


def test_the_total_has_the_interval_of_the_verdict(maker) -> None:
    seeds = {f"c{i}": [(0.01, [0.5, 1.0 + g * i, 0.6, 0.3]) for g in GAINS.values()] for i in range(4)}
    _, summary, tables = make([bounded(maker, seeds)])
    (table,) = (t for t in tables if t.name == "split")
    assert "of the total that of the differences" in table.note
    for cell, split in summary.splits["NLL"].items():
        contrast, total = summary.differences["NLL"][cell], split.parts[-1].difference
        assert (total.low, total.high) == contrast.interval
    widths = {s.parts[-1].difference.high - s.parts[2].difference.high for s in summary.splits["NLL"].values()}
    assert max(widths) > 0.05  # and Holm's is wider than the parts'


def test_an_error_that_is_not_known_is_said_of_no_part_that_it_is_in(maker) -> None:
    folder = three_seeds(maker)
    nll = Store(maker.out).result("nll", first_nll(folder))
    for one in ("clipped", "unclipped"):
        nll[one]["curve"]["standard_error"] = [0.003, None, 0.006, 0.002]  # of t=2, half in 0 to 4, half in 4 to 8
    maker.stage("nll", "cosine 0", nll)
    split = summarise(read_study(folder)).splits["NLL"]["cosine"]
    errors = {part.name: part.standard_error for part in split.parts}
    assert errors["log SNR 0 to 4"] is None
    assert errors["log SNR 4 to 8"] is None
    assert min(errors[name] for name in ("log SNR below 0", "L_0", "total")) > 0
    assert split.along.cumulative_error[-1] is None
    split_figure({"cosine": split}, "linear").canvas.draw()


def first_nll(folder) -> str:
    plan = json.loads((folder / "plan.json").read_text())
    return next(r["nll"] for r in plan["results"] if r["cell"] == "cosine" and r["train_seed"] == 0)


def test_terms_below_zero_lose_no_bins(maker) -> None:
    chain = {"t": list(range(1, 41)), "log_snr": np.linspace(12.0, -12.0, 40).tolist(), "alpha_bars": [0.5] * 40}
    bits = [0.3, 0.4, *[0.02] * 10, -0.9, *[0.03] * 20, 0.7, *[0.0] * 6]
    folder = bounded(maker, {c: [(0.0, bits)] for c in ("linear", "cosine")}, chain=chain, T=40)
    edges = summarise(read_study(folder)).splits["NLL"]["cosine"].along.edges
    at = np.array(chain["log_snr"])
    assert edges[0] <= at[33]  # the last step with bits
    assert edges[-1] >= at[0] - 1


@pytest.mark.parametrize(("chain", "bits"), [
    ({"t": [1], "log_snr": [5.0], "alpha_bars": [0.9]}, [0.5]),
    ({"t": [], "log_snr": [], "alpha_bars": []}, [0.5]),
    ({"t": [1], "log_snr": [5.0], "alpha_bars": [0.9]}, [0.5, 0.4]),
])  # fmt: skip
def test_a_chain_of_one_step_or_of_two_the_last_without_signal_has_a_split(maker, chain, bits) -> None:
    more = [bits[0] - 0.1, *bits[1:]]
    folder = bounded(maker, {"linear": [(0.1, bits)], "cosine": [(0.2, more)]}, chain=chain, T=len(bits))
    _, summary, _ = make([folder])
    split = summary.splits["NLL"]["cosine"]
    parts = {part.name: part.cell for part in split.parts}
    assert parts["L_0"] == pytest.approx(0.4)
    assert parts["log SNR 4 to 8"] == pytest.approx(sum(bits[1:]))  # at the upper end of the one step there is
    assert parts["total"] == pytest.approx(0.2 + sum(more))
    split_figure(summary.splits["NLL"], "linear").canvas.draw()


def test_steps_wider_than_a_bin_are_named(maker) -> None:
    wide = {"t": [1, 2, 3, 4], "log_snr": [9.0, 2.0, -1.0, -5.0], "alpha_bars": [0.9, 0.8, 0.3, 0.01]}
    _, _, tables = make([three_seeds(maker)])
    assert "wider than a bin" not in next(t for t in tables if t.name == "split").note
    _, _, tables = make([three_seeds(maker, chain=wide, name="wide")])
    note = next(t for t in tables if t.name == "split").note
    assert "Steps wider than a bin, in log SNR: linear 7.0, cosine 7.0; the bits of a step are spread evenly" in note
