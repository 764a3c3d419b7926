"""The report's page in a real Chromium: it asks for nothing, says nothing, sorts by key, shows every picture."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from ddpmkit.report.write import write_report

pytestmark = pytest.mark.browser

LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
CELLS = [(s, g) for s in ("linear", "cosine:s=0.01", "<img src=x onerror=alert(1)>") for g in ("beta", "beta-tilde")]
REFERENCE = {
    "names": {"fd": "FD-digits"}, "floors": {"FD-digits": 13.8}, "features_label": "digits",
    "n_floor": 64, "n_reference": 797, "split": "test", "features": "f" * 64,
    "baselines": {"uniform": 4.0875},
}  # fmt: skip


def write_stage(out: Path, kind: str, label: str, result: dict, **more: bytes) -> str:
    id = hashlib.sha256(f"{kind} {label}".encode()).hexdigest()
    done = out / "store" / kind / id[:2] / id / "out"
    done.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result).encode()
    (done / "result.json").write_bytes(text)
    commit = {"files": {"result.json": {"sha256": hashlib.sha256(text).hexdigest()}}}
    (done / "COMMIT.json").write_text(json.dumps(commit))
    fingerprint = {"torch": "2.13.0", "device_name": "CPU", "threads": 1}
    (done.parent / "status.json").write_text(json.dumps({"state": "done", "seconds": 1.0, "fingerprint": fingerprint}))
    for name, data in more.items():
        (done.parent / name.replace("__", "/").replace("_", ".")).write_bytes(data)
    return id


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A study of two axes with everything that a page can show, a hostile name included."""
    out = tmp_path_factory.mktemp("browser") / "results"
    rng = np.random.default_rng(0)
    ref = write_stage(out, "ref", "digits", REFERENCE)
    results, stages, cells = [], [{"kind": "ref", "id": ref, "label": "reference digits"}], []
    for c, (schedule, sigma) in enumerate(CELLS):
        label = f"{schedule} {sigma}"
        settings = {
            "dataset": "digits", "schedule": schedule, "sigma": sigma, "weighting": "simple", "backbone": "unet",
            "sampler": "ancestral", "timesteps": 1000, "sampling_steps": 50, "prediction": "eps",
        }  # fmt: skip
        cells.append({"label": label, "slug": f"cell-{c}", "point": {}, "settings": settings})
        for seed in range(3):
            name = f"{label} {seed}"
            chain = {"t": [1, 500, 1000], "alpha_bars": [0.99, 0.5, 0.001], "log_snr": [4.6, 0.0, -6.9]}
            lines = "".join(json.dumps({"step": 50 * i, "loss": 1 / i + 0.01 * c}) + "\n" for i in range(1, 20))
            train = write_stage(
                out, "train", f"{schedule} {seed}", {"parameters": 9, "flops": 9, "chain": chain},
                metrics_jsonl=lines.encode(),
            )  # fmt: skip
            stages.append({"kind": "train", "id": train, "label": f"train {schedule} seed {seed}"})
            pixels = rng.integers(0, 17, (40, 1, 8, 8), dtype=np.uint8)
            sample = write_stage(
                out, "sample", name, {"levels": 17, "evaluations": 9}, out__samples_safetensors=save({"levels": pixels})
            )
            bound = {"total": 2 + 0.3 * c + float(rng.normal(0, 0.02)), "standard_error": 0.004}
            nll = {"clipped": bound, "unclipped": bound, "decoder": "cdf", "decoder_variance": "b", "T": 1000}
            bound["curve"] = {"first": [1, 9, 90], "last": [1, 11, 110], "bits": [0.1, 0.02, 0.001]}
            nll |= {"split": "test", "images": 9}
            distance = 50 - 4 * (c if c > 1 else 0) + float(rng.normal(0, 1))
            score = {"metrics": {"fd": {"value": distance}}, "n": 64}
            results.append(
                {
                    "cell": label,
                    "train_seed": seed,
                    "sample_seed": 0,
                    "train": train,
                    "sample": sample,
                    "scores": [["digits", write_stage(out, "score", name, score), ref]],
                    "nll": write_stage(out, "nll", name, nll),
                }
            )
    axes = {"schedule": list(dict.fromkeys(s for s, _ in CELLS)), "sigma": ["beta", "beta-tilde"]}
    grid = {"train_seeds": [0, 1, 2], "sample_seeds": [0], "axes": axes, "settings": cells[0]["settings"]}
    plan = {"study": "everything", "grid": grid, "cells": cells, "results": results, "stages": stages}
    folder = out / "studies" / "everything"
    (folder / "figures").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    for name in ("forward", "reverse"):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (40, 400), dtype=np.uint8)).save(buffer, "PNG")
        (folder / "figures" / f"{name}.png").write_bytes(buffer.getvalue())
    write_report(folder)
    return folder / "report.html"


def asked(page) -> list[str]:
    return [url for url in page.requests if not url.startswith("data:")]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_is_quiet_whole_and_as_wide_as_the_window(page, report, width, scheme, tmp_path):
    page.look(width, scheme)
    page.open(report)
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.complaints == []
    assert asked(page) == [report.as_uri()]
    assert page.run("document.documentElement.scrollWidth") == width
    sections = page.run("[...document.querySelectorAll('main > section')].map(s => s.id)")
    expected = "findings tables effects seeds grid training bits schedules samples forward reverse cells card"
    assert sections == expected.split()
    undecoded = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0, () => false)))"
    decoded = page.run(undecoded)
    assert len(decoded) == len(CELLS) + 2
    assert all(decoded)
    sizes = page.run("[...document.querySelectorAll('.draw svg')].map(s => s.getBBox().width)")
    assert len(sizes) == 2 + 2 + 2 + 4
    assert min(sizes) > 100
    folder = Path(os.environ.get("DDPMKIT_SHOTS", tmp_path))
    page.shot(folder / f"report-{width}-{scheme}.png")
    with Image.open(folder / f"report-{width}-{scheme}.png") as picture:
        assert picture.size[0] == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_against_its_ground(page, report, scheme):
    page.look(1280, scheme)
    page.open(report)
    pairs = page.run(
        "['body', '.said', '.chip.better', '.chip.worse', '.chip.open', 'tr.reference th', '.notes'].map(q => {"
        " const e = document.querySelector(q); let g = e, ground = 'rgba(0, 0, 0, 0)';"
        " while (g && ground === 'rgba(0, 0, 0, 0)') { ground = getComputedStyle(g).backgroundColor;"
        " g = g.parentElement; }"
        " return [getComputedStyle(e).color, ground]; })"
    )

    def luminance(colour: str) -> float:
        parts = [int(v) / 255 for v in colour.removeprefix("rgb(").rstrip(")").split(",")]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for ink, ground in pairs:
        dark, light = sorted((luminance(ink), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
    assert (luminance(pairs[0][1]) < 0.1) == (scheme == "dark")


def column(page, index: int, table: int = 0) -> list[str]:
    rows = f"[...document.querySelectorAll('table')[{table}].tBodies[0].rows]"
    script = f"{rows}.map(r => r.cells[{index}].innerText.split('\\n')[0])"
    return [v.strip() for v in page.run(script)]


def test_a_head_sorts_its_column_by_click_and_the_references_stay_below(page, report):
    page.look(1280, "light")
    page.open(report)
    names, values = column(page, 0), [float(v) for v in column(page, 2)[: len(CELLS)]]
    assert values != sorted(values)
    page.run("document.querySelectorAll('table')[0].tHead.rows[0].cells[2].querySelector('button').click()")
    assert [float(v) for v in column(page, 2)[: len(CELLS)]] == sorted(values)
    page.run("document.querySelectorAll('table')[0].tHead.rows[0].cells[2].querySelector('button').click()")
    assert [float(v) for v in column(page, 2)[: len(CELLS)]] == sorted(values, reverse=True)
    assert column(page, 0)[len(CELLS) :] == names[len(CELLS) :]
    assert sorted(column(page, 0)) == sorted(names)
    state = "[...document.querySelector('table').tHead.rows[0].cells].map(c => c.getAttribute('aria-sort'))"
    assert page.run(state) == [None, None, "descending", None]


def test_signed_numbers_are_sorted_by_value(page, report):
    page.look(1280, "light")
    page.open(report)
    before = [float(v) for v in column(page, 2, 1)]
    assert min(before) < -10 < 0 < max(before)
    page.run("document.querySelectorAll('table')[1].tHead.rows[0].cells[2].querySelector('button').click()")
    assert [float(v) for v in column(page, 2, 1)] == sorted(before)


def test_the_keyboard_is_enough(page, report):
    page.look(1280, "light")
    page.open(report)
    seen = []
    for _ in range(60):
        page.press("Tab")
        seen.append(page.run("document.activeElement.tagName + ' ' + document.activeElement.innerText.slice(0, 9)"))
        if seen[-1].startswith("BUTTON FD-digits"):
            break
    assert seen[0] == "A Skip to t"
    assert seen[-1].startswith("BUTTON FD-digits")
    page.press("Enter")
    values = [float(v) for v in column(page, 2)[: len(CELLS)]]
    assert values == sorted(values)


def test_a_link_to_a_cell_opens_its_section(page, report):
    page.look(390, "light")
    page.open(report)
    link = "document.querySelector('#samples figcaption a')"
    target = page.run(f"{link}.hash.slice(1)")
    assert page.run(f"document.getElementById('{target}').open") is False
    page.run(f"{link}.click()")
    page.browser.until(lambda: page.run(f"document.getElementById('{target}').open"))


def test_the_browser_tells_of_errors_and_requests(page, tmp_path):
    """Or the tests above would pass for a reason of their own."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='nothing.png'><script>console.error('x'); throw new Error('y')</script>")
    page.open(bad)
    assert len(page.complaints) >= 2
    assert [u for u in asked(page) if u.endswith("nothing.png")]
    decode = "Promise.all([...document.images].map(i => i.decode().then(() => true, () => false)))"
    assert page.run(decode) == [False]
