"""The export against TensorBoard's own reader and the records it was made from."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys

import ddpmkit
import numpy as np
import pandas as pd
import pytest
from ddpmkit import files
from PIL import Image
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from ddpmkit_tensorboard import export
from ddpmkit_tensorboard.cli import main

SEEDS, DRAWS = (0, 1), (0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    outcome = ddpmkit.ablate(
        out=out, executor="inline", device="cpu", on_event=lambda _: None, name="tiny", schedules="linear,cosine",
        axis=["learning_rate=1e-3,4e-3"], train_steps=8, samples=12, sampling_steps=3, nll_evals=64, timesteps=50,
        eval_batch=16, batch_size=8, backbones="unet:channels=4:mults=1", features="pca:k=4", train_seeds="0,1",
        sample_seeds="0,1",
    )  # fmt: skip
    assert outcome.code == 0
    return outcome.folder


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory):
    return export(study, tmp_path_factory.mktemp("logs"))


@pytest.fixture
def copy(study, tmp_path):
    """A study that may be damaged."""
    shutil.copytree(study.parent.parent, tmp_path / "out")
    return tmp_path / "out" / "studies" / "tiny"


def reader(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def plan(study):
    return json.loads((study / "plan.json").read_text())


def cells(study, exported):
    for cell in plan(study)["cells"]:
        for seed in SEEDS:
            (folder,) = (p for p in (exported / "cell").iterdir() if p.name[-4:] == cell["slug"][-4:])
            yield cell, seed, reader(folder / f"seed-{seed}")


def test_every_scalar_is_that_of_results_csv_and_none_is_missing(study, exported):
    frame = pd.read_csv(study / "results.csv")
    checked = 0
    for cell, seed, found in cells(study, exported):
        rows = frame[(frame.cell == cell["label"]) & (frame.train_seed == seed)]
        expected = {}
        for metric in rows.metric.unique():
            values = [float(rows[(rows.metric == metric) & (rows.sample_seed == d)].value.iloc[0]) for d in DRAWS]
            expected[f"result/{metric}"] = sum(values) / 2
            expected |= {f"result/{metric}/sample seed {d}": v for d, v in zip(DRAWS, values, strict=True)}
        assert set(found.Tags()["scalars"]) == set(expected)
        for tag, value in expected.items():
            (event,) = found.Scalars(tag)
            assert event.step == 0
            assert event.value == pytest.approx(value, rel=1e-7)  # TensorBoard keeps float32
        checked += len(rows)
    assert checked == len(frame) > 0


def test_curves_are_those_of_the_records_one_run_a_training(study, exported):
    ids = {r["train"] for r in plan(study)["results"]}
    assert len(ids) == 8
    for id in ids:
        (folder,) = (exported / "train").glob(f"*-{id[:16]}")
        rows = list(files.read_lines(study.parent.parent / "store/train" / id[:2] / id / "metrics.jsonl"))
        found = reader(folder)
        assert set(found.Tags()["scalars"]) == {"training/loss", "training/eps_mse", "training/grad_norm"}
        for name in ("loss", "eps_mse", "grad_norm"):
            said = [(x["step"], np.float32(x[name])) for x in rows]
            assert [(e.step, np.float32(e.value)) for e in found.Scalars(f"training/{name}")] == said
    assert len(list((exported / "train").iterdir())) == 8


def test_a_step_said_twice_after_a_resume_stands_once_with_the_later_word(copy, tmp_path):
    id = plan(copy)["results"][0]["train"]
    rows = [(50, 9.0), (100, 8.0), (50, 3.0), (100, 2.0), (150, 1.0)]
    lines = [json.dumps({"step": s, "loss": v, "eps_mse": float("nan"), "grad_norm": None}) for s, v in rows]
    path = copy.parent.parent / "store/train" / id[:2] / id / "metrics.jsonl"
    path.write_text("\n".join(lines) + '\n{"step": 200, "lo')
    (folder,) = (export(copy, tmp_path / "logs") / "train").glob(f"*-{id[:16]}")
    found = reader(folder)
    assert [(e.step, e.value) for e in found.Scalars("training/loss")] == [(50, 3), (100, 2), (150, 1)]
    assert found.Tags()["scalars"] == ["training/loss"]


def test_images_decode_and_hold_the_samples_pixel_by_pixel(study, exported):
    for cell, seed, found in cells(study, exported):
        results = [r for r in plan(study)["results"] if r["cell"] == cell["label"] and r["train_seed"] == seed]
        assert set(found.Tags()["images"]) == {f"samples/sample seed {d}" for d in DRAWS}
        for r in results:
            (event,) = found.Images(f"samples/sample seed {r['sample_seed']}")
            pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
            out = study.parent.parent / "store/sample" / r["sample"][:2] / r["sample"] / "out"
            levels = load_file(out / "samples.safetensors")["levels"]
            top = json.loads((out / "result.json").read_text())["levels"] - 1
            assert pixels.shape == (event.height, event.width, 3) == (17, 89, 3)  # 12 images of 8 x 8, ten in a row
            for i, image in enumerate(levels):
                y, x = 9 * (i // 10), 9 * (i % 10)
                for channel in range(3):
                    assert (pixels[y : y + 8, x : x + 8, channel] == np.round(image[0] * 255.0 / top)).all()


def test_hparams_are_the_axes_that_vary_with_their_types(study, exported):
    groups = set()
    for cell, _, found in cells(study, exported):
        start = metadata.parse_session_start_info_plugin_data(
            found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        )
        assert set(start.hparams) == {"schedule", "learning_rate"}
        assert start.hparams["schedule"].string_value == cell["settings"]["schedule"]
        assert start.hparams["learning_rate"].number_value == cell["settings"]["learning_rate"]
        end = found.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
        assert metadata.parse_session_end_info_plugin_data(end).status == api_pb2.STATUS_SUCCESS
        groups.add(start.group_name)
    assert len(groups) == 4  # the seeds of a cell are one group


def test_a_failed_result_is_marked_and_has_no_number(copy, tmp_path):
    frame = pd.read_csv(copy / "results.csv")
    first = (frame.cell == frame.cell[0]) & (frame.train_seed == 0) & (frame.metric == "NLL")
    frame.loc[first & (frame.sample_seed == 1), ["value", "status"]] = [float("nan"), "diverged"]
    frame.to_csv(copy / "results.csv", index=False)
    _, _, found = next(cells(copy, export(copy, tmp_path / "logs")))
    end = found.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(end).status == api_pb2.STATUS_FAILURE
    assert {"result/NLL", "result/NLL/sample seed 1"}.isdisjoint(found.Tags()["scalars"])
    assert "result/NLL/sample seed 0" in found.Tags()["scalars"]


def test_the_same_export_again_changes_nothing_in_another_process(study, exported):
    before = {p: p.stat().st_mtime_ns for p in exported.rglob("*")}
    code = f"from ddpmkit_tensorboard import export; export({str(study)!r}, {str(exported.parent)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert {p: p.stat().st_mtime_ns for p in exported.rglob("*")} == before


def test_another_export_is_refused_and_left_as_it_is(copy, tmp_path, capsys):
    logs = tmp_path / "logs"
    target = export(copy, logs)
    file = next(target.rglob("events*"))
    file.write_bytes(file.read_bytes() + b"x")
    assert main([str(copy), "--logdir", str(logs)]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert "another export" in error
    assert f"rm -r '{target}'" in hint
    assert file.read_bytes().endswith(b"x")
    assert [p.name for p in logs.iterdir()] == ["tiny"]


def test_nothing_is_left_when_the_write_fails_halfway(study, tmp_path, monkeypatch):
    from ddpmkit import files

    write, count = files.write_bytes, iter(range(3))

    def full(path, data):
        if next(count, None) is None:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(ddpmkit.DdpmkitError, match="No space left"):
        export(study, tmp_path / "logs")
    assert not list((tmp_path / "logs").iterdir())


@pytest.mark.parametrize("damage", ["study", "plan", "cells", "csv", "empty", "samples", "logdir"])
def test_bad_input_is_two_lines_and_exit_two(copy, tmp_path, capsys, damage):
    logs = tmp_path / "logs"
    name = "tiny"
    if damage == "study":
        name = "nosuch"
    elif damage == "plan":
        (copy / "plan.json").write_text("{")
    elif damage == "cells":
        (copy / "plan.json").write_text(json.dumps({**plan(copy), "cells": [{"label": 1}]}))
    elif damage == "csv":
        (copy / "results.csv").write_text("a,b\n1,2\n")
    elif damage == "empty":
        frame = pd.read_csv(copy / "results.csv")
        frame.assign(value=float("nan")).to_csv(copy / "results.csv", index=False)
    elif damage == "samples":
        id = plan(copy)["results"][0]["sample"]
        path = copy.parent.parent / "store/sample" / id[:2] / id / "out/samples.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    else:
        logs.write_text("")
    assert main([name, "--out", str(copy.parent.parent), "--logdir", str(logs)]) == 2
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.err.splitlines()] == ["error", "hint"]
    assert captured.out == ""
    assert not logs.is_dir()


def test_the_command_says_what_to_type_next(study, capsys):
    out = study.parent.parent
    assert main(["tiny", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}/tensorboard/tiny\ntensorboard --logdir {out}/tensorboard\n"
    assert main([]) == 2
    assert main(["tiny", "--nonsense"]) == 2


def test_no_torch_is_loaded(study, tmp_path):
    code = (
        f"import sys; from ddpmkit_tensorboard.cli import main; code = main([{str(study)!r}, '--logdir', "
        f"{str(tmp_path)!r}]); sys.exit(code or 'torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
