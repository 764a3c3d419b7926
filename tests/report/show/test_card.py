"""The study card, the command on it, and committed tables held against the store."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil

import pytest

from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.show.card import card, card_markdown, command, components
from ddpmkit.report.write import write_report
from ddpmkit.study.config import make_study

OPTIONS = {
    "schedules": "linear,cosine:s=0.01", "backbones": "unet,unet:fourier=true", "train_steps": "7", "dropout": "0.125",
    "learning_rate": "1e-3,2e-3", "train_seeds": "0,3,5", "sample_seeds": "0-1", "features": "digits", "name": "it's",
}  # fmt: skip


def typed(text: str) -> dict[str, object]:
    """The options that a command line gives, as the command reads them."""
    words = shlex.split(text)
    assert words[:2] == ["ddpmkit", "ablate"]
    out: dict[str, object] = {"axis": []}
    for flag, value in zip(words[2::2], words[3::2], strict=True):
        if flag == "--axis":
            out["axis"] = [*out["axis"], value]
        else:
            out[flag.removeprefix("--").replace("-", "_")] = value
    return out


def test_the_command_on_the_card_is_the_study_again_whatever_the_defaults_are():
    registry = Registry()
    first = make_study({**OPTIONS, "name": "again"}, registry)
    said = command(first.grid(), first.name)
    again = make_study(typed(said), registry)
    assert again.grid() == first.grid()
    assert again.name == first.name
    settings = {a.split("=")[0] for a in typed(said)["axis"]}
    assert settings == set(first.grid()["settings"])  # each spelled out, so that no default matters


def test_the_command_of_a_cell_is_that_cell_alone():
    registry = Registry()
    first = make_study({**OPTIONS, "name": "again"}, registry)
    for cell in first.cells():
        one = make_study(typed(command(first.grid(), first.name, cell.point)), registry)
        (only,) = one.cells()
        assert only.settings == cell.settings
        assert one.train_seeds == first.train_seeds


def test_nothing_on_the_command_line_is_left_to_the_shell():
    grid = {"axes": {"schedule": ["a; rm -rf /", "$(x)"]}, "settings": {"schedule": "a"}, "train_seeds": [0]}
    assert typed(command(grid, "it's"))["axis"] == ["schedule=a; rm -rf /,$(x)"]
    assert typed(command(grid, "it's"))["name"] == "it's"


def test_the_card_says_what_one_must_know(maker):
    folder = maker.write(
        failed=[("cosine", 1)], error="it blew up", excluded=[("zero eps", "no signal")], plugin="other"
    )
    found = card(read_study(folder))
    assert found["design"]["axes"] == {"schedule": ["linear", "cosine"]}
    assert found["design"]["train_seeds"] == [0, 1, 2]
    assert found["design"]["settings"]["timesteps"] == 1000
    assert "schedule" not in found["design"]["settings"]
    assert found["results"] == 6
    assert found["stages"] == {"done": 1 + 5 * 4, "diverged": 1, "pending": 3}
    assert found["needs_plugins"] == ["other 9.9"]
    assert found["excluded"] == [["zero eps", "no signal"]]
    assert ["train cosine seed 1", "diverged", "it blew up"] in found["problems"]
    assert found["hardware"] == {"device_name CPU, threads 1, torch 2.13.0": 21}
    assert found["seconds"] == {"ref": 1.5, "train": 7.5, "sample": 7.5, "score": 7.5, "nll": 7.5}
    assert len(found["plan_sha256"]) == 64
    text = card_markdown(read_study(folder))
    assert "it blew up" in text
    assert found["command"] in text
    json.dumps(found, allow_nan=False)


@pytest.fixture(scope="module")
def original(study):
    """A study with its report, written once."""
    write_report(study)
    return study


@pytest.fixture
def written(original, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(original.parent.parent, tmp_path / "results")
    return tmp_path / "results" / "studies" / original.name


def check(capsys, folder, *more):
    code = main(["report", "demo", "--check", "--out", str(folder.parent.parent), *map(str, more)])
    return code, capsys.readouterr().err


@pytest.fixture
def change(written):
    """Give a stage's result another number, committed as it should be."""

    def to(kind, key, value):
        out = written.parent.parent
        r = json.loads((written / "plan.json").read_text())["results"][0]
        id = {"score": r["scores"][0][1], "nll": r["nll"]}[kind]
        folder = out / "store" / kind / id[:2] / id / "out"
        result = json.loads((folder / "result.json").read_text())
        if kind == "nll":
            result["clipped"][key] = value
        else:
            result[key] = value
        text = json.dumps(result).encode()
        (folder / "result.json").write_bytes(text)
        commit = {"files": {"result.json": {"sha256": hashlib.sha256(text).hexdigest()}}}
        (folder / "COMMIT.json").write_text(json.dumps(commit))

    return to


def test_what_was_just_written_matches(capsys, written):
    code, err = check(capsys, written)
    assert (code, err) == (0, f"{written}: as the store has it\n")


def test_a_margin_of_a_metric_that_the_store_no_longer_has_is_no_error_of_the_user(capsys, written, change):
    path = written / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "margins": {"FD-gone": 1.0}}))
    assert check(capsys, written)[0] == 0
    change("score", "metrics", {"fd": {"value": 9.0}})
    code, err = check(capsys, written)
    assert code == 1
    assert "no longer matches the store" in err


@pytest.mark.parametrize("kept", ["results.csv", "report.md", "report.tex", "report.json", "report.html"])
def test_each_form_is_held_against_the_store_by_itself(capsys, written, change, tmp_path, kept):
    committed = tmp_path / "committed"
    committed.mkdir()
    shutil.copy(written / kept, committed)
    assert check(capsys, written, "--to", committed)[0] == 0
    change("score", "metrics", {"fd": {"value": 9.0}})
    code, err = check(capsys, written, "--to", committed)
    assert code == 1
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert kept in error
    assert "no longer matches the store" in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("kept", "number"),
    [
        ("results.csv", r"^(demo,linear,.*,FD-digits,\d+\.\d)\d"),
        ("report.md", r"^(\| cosine \| 3 \| \d+\.)\d"),
        ("report.tex", r"^(cosine & 3 & \d+\.)\d"),
        ("report.json", r"(\"mean\": \d+\.\d)\d"),
    ],
)
def test_a_number_changed_by_hand_is_found(capsys, written, kept, number):
    path = written / kept
    text = path.read_text()
    digit = re.search(number, text, re.MULTILINE)
    at = digit.end() - 1
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    code, err = check(capsys, written)
    assert code == 1
    assert kept in err


def test_time_and_machine_may_differ(capsys, written):
    for path in (written.parent.parent / "store").rglob("status.json"):
        status = json.loads(path.read_text())
        path.write_text(json.dumps({**status, "seconds": 77.0, "fingerprint": {**status["fingerprint"], "torch": "3"}}))
    assert check(capsys, written)[0] == 0


def test_a_damaged_file_is_a_difference_and_nothing_to_check_is_an_error(capsys, written, tmp_path):
    (written / "report.json").write_text("{")
    code, err = check(capsys, written)
    assert code == 1
    assert "report.json" in err
    (tmp_path / "empty").mkdir()
    code, err = check(capsys, written, "--to", tmp_path / "empty")
    assert code == 2
    assert "no table" in err


def test_the_baseline_of_the_committed_report_is_kept(capsys, written):
    out = str(written.parent.parent)
    assert (
        main(
            ["report", "demo", "--baseline", "cosine", "-f", "json", "--out", out, "--to", str(written / "report.json")]
        )
        == 0
    )
    for name in ("report.md", "report.tex", "report.html"):
        (written / name).unlink()
    capsys.readouterr()
    assert check(capsys, written)[0] == 0


def test_the_plugin_of_a_metric_is_needed_too():
    gap = {"plugin": "other", "plugin_version": "9.9", "name": "gap", "params": {}}
    found = components({"how": {"data": "b", "metrics": {"gap": gap}}})
    assert found == [gap]


def test_the_plugin_of_a_part_is_needed_too():
    part = {"kind": "schedule", "name": "flat", "params": {}, "plugin": "theirs", "plugin_version": "0.3"}
    whole = {"kind": "schedule", "name": "zero-snr", "params": {"base": "flat"}, "plugin": "ddpmkit"}
    schedule = {**whole, "parts": {"base": {**part, "parts": {"of": part}}}}
    found = components({"how": {"schedule": schedule, "data": "b"}})
    assert [f["plugin"] for f in found] == ["ddpmkit", "theirs", "theirs"]
