"""Studies are listed, renamed, thrown away and taken back; never under the hands of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.report.write import write_report
from ddpmkit.study.catalogue import list_studies, remove_study, rename_study, restore_study
from ddpmkit.study.garbage import collect, find_garbage
from ddpmkit.study.presence import RUNS, at_work, runs_of
from ddpmkit.study.store import Store
from ddpmkit.study.trash import TRASH, size_of
from ddpmkit.text import size


@pytest.fixture(autouse=True)
def plain(no_pictures):
    """Reports without pictures."""


def test_a_list_says_what_there_is(two_studies: Path, capsys) -> None:
    store = Store(two_studies)
    old = two_studies / "studies" / "both" / "plan.json"
    os.utime(old, (1_700_000_000,) * 2)
    more, both = list_studies(store)  # the one that was run last comes first
    assert (more.name, both.name, both.when) == ("more", "both", 1_700_000_000)
    assert (both.cells, both.results, both.running) == (2, 2, False)
    assert both.done == both.stages == 15
    dataset = files.read_sealed(old)["grid"]["settings"]["dataset"]
    assert both.question == f"schedule linear, cosine; {dataset}; 1 train seed"
    whole = size_of(two_studies / "store") + size_of(two_studies / "studies")
    shared = both.size - both.alone
    assert 0 < shared < both.alone < both.size < whole
    # All that is of the two, what they share counted once, is all there is but for data and the mark of the format.
    rest = size_of(two_studies / "store" / "data") + size_of(two_studies / "store" / "FORMAT")
    assert both.size + more.alone == whole - rest
    assert main(["studies", "--out", str(two_studies)]) == 0
    heads, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert heads == ["study", "last run", "cells", "done", "size", "question"]
    assert [row[0] for row in rows] == ["more", "both"]
    assert rows[1][3] == "15/15"
    assert main(["studies", "--out", str(two_studies), "--json"]) == 0
    assert [s["alone"] for s in json.loads(capsys.readouterr().out)] == [more.alone, both.alone]
    assert main(["studies", "--out", str(two_studies / "nothing")]) == 0
    assert "there are none" in capsys.readouterr().err


def test_a_study_that_is_not_whole_or_damaged_is_listed(two_studies: Path) -> None:
    store = Store(two_studies)
    plan = files.read_sealed(two_studies / "studies" / "both" / "plan.json")
    train = plan["results"][1]["train"]
    files.quarantine(store.folder("train", train) / "out")
    (two_studies / "studies" / "more" / "plan.json").write_text("{")
    found = {s.name: s for s in list_studies(store)}
    assert (found["both"].done, found["both"].stages) == (14, 15)
    assert "damaged" in found["more"].question


def test_a_renamed_study_is_the_same_study(two_studies: Path, run_small, capsys) -> None:
    write_report(two_studies / "studies" / "both")
    before = ddpmkit.load_results(two_studies / "studies" / "both")
    assert main(["studies", "rename", "both", "schedules", "--out", str(two_studies), "--json"]) == 0
    folder = two_studies / "studies" / "schedules"
    assert json.loads(capsys.readouterr().out)["folder"] == str(folder)
    assert not (two_studies / "studies" / "both").exists()
    after = ddpmkit.load_results(folder)
    assert set(after["study"]) == {"schedules"}
    assert after.drop(columns="study").equals(before.drop(columns="study"))
    assert "both" not in (folder / "report.md").read_text()
    assert main(["report", "schedules", "--out", str(two_studies), "--check"]) == 0
    # It goes on under its new name, from its own file too.
    assert run_small(two_studies, schedules="linear,cosine", name="schedules").ran == 0
    assert run_small(two_studies, study=folder / "study.toml").folder == folder
    assert find_garbage(Store(two_studies)).counts().keys() == {"earlier checkpoints of finished trainings"}


def test_a_renamed_study_keeps_the_margins_of_its_report(two_studies: Path) -> None:
    folder = two_studies / "studies" / "both"
    metric = write_report(folder).metrics[0]
    write_report(folder, margin=f"{metric}=0.05")
    assert main(["studies", "rename", "both", "schedules", "--out", str(two_studies)]) == 0
    assert files.read_json(folder.with_name("schedules") / "report.json")["margins"] == {metric: 0.05}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rename", "both", "more"], "already"),
        (["rename", "both", "../away"], "can't be the name"),
        (["rename", "bth", "x"], "did you mean 'both'?"),
        (["rm", "studies/both"], "there is no study"),
        (["restore", "both"], "there is no study 'both' in the trash"),
    ],
)
def test_what_can_not_be_renamed_or_removed_stays(argv: list[str], said: str, two_studies: Path, capsys) -> None:
    assert main(["studies", *argv, "--out", str(two_studies)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0]
    assert lines[1].startswith("hint: ")
    assert sorted(p.name for p in (two_studies / "studies").iterdir()) == ["both", "more"]


def test_an_option_before_the_word_is_not_passed_over(two_studies: Path, capsys) -> None:
    assert main(["studies", "--out", str(two_studies), "rm", "both"]) == 2
    assert f"hint: ddpmkit studies rm NAME --out {two_studies}" in capsys.readouterr().err
    assert (two_studies / "studies" / "both").is_dir()


def test_nobody_touches_a_study_that_is_running(two_studies: Path, capsys) -> None:
    folder = two_studies / "studies" / "both"
    with at_work(folder, "one"), at_work(folder, "two"):
        assert len(runs_of(folder)) == 2
        (listed,) = (s for s in list_studies(Store(two_studies)) if s.name == "both")
        assert listed.running
        for argv in (["rm", "both"], ["rename", "both", "other"]):
            assert main(["studies", *argv, "--out", str(two_studies)]) == 2
            assert "study 'both' is running: process" in capsys.readouterr().err
    assert not (folder / RUNS).exists()
    remove_study(Store(two_studies), "both")


def test_a_run_says_that_it_is_at_work(two_studies: Path, monkeypatch, run_small) -> None:
    from ddpmkit.study import runner

    seen = []
    real = runner.dispatch

    def looking(*given, **more):
        seen.append(len(runs_of(two_studies / "studies" / "third")))
        return real(*given, **more)

    monkeypatch.setattr(runner, "dispatch", looking)
    run_small(two_studies, schedules="linear", name="third", samples=3)
    assert seen == [1]
    assert runs_of(two_studies / "studies" / "third") == []


def test_a_study_is_at_work_from_its_plan_to_its_report(two_studies: Path, few_digits, small, monkeypatch) -> None:
    from ddpmkit.report import write
    from ddpmkit.study import enter, runner

    seen: dict[str, int] = {}
    folder = two_studies / "studies" / "both"

    def looking(place, name: str) -> None:
        real = getattr(place, name)

        def look(*given, **named):
            seen[name] = len(runs_of(folder))
            return real(*given, **named)

        monkeypatch.setattr(place, name, look)

    looking(enter, "_entered")
    looking(runner, "_mend_records")
    looking(write, "write_report")
    words = {**small, "dataset": few_digits, "schedules": "linear,cosine", "name": "both"}
    asked = []
    for key, value in words.items():
        axis = key in ("timesteps", "eval_batch", "warmup", "nll_evals")
        asked += ["--axis", f"{key}={value}"] if axis else [f"--{key.replace('_', '-')}", str(value)]
    assert main(["ablate", *asked, "--out", str(two_studies), "--executor", "inline", "--device", "cpu"]) == 0
    assert seen.keys() == {"_entered", "_mend_records", "write_report"}
    assert all(seen.values())
    assert runs_of(folder) == []
    seen.clear()
    ddpmkit.ablate(**words, out=two_studies, executor="inline", device="cpu", on_event=lambda _: None)
    assert seen.keys() == {"_entered", "_mend_records", "write_report"}
    assert all(seen.values())


def test_a_removed_study_comes_back_with_its_stages(two_studies: Path, run_small, capsys) -> None:
    store = Store(two_studies)
    samples = ddpmkit.load("both", "cosine", out=two_studies, device="cpu").sample(3)
    assert main(["studies", "rm", "both", "--out", str(two_studies)]) == 0
    assert "ddpmkit studies restore both" in capsys.readouterr().err
    assert [s.name for s in list_studies(store)] == ["more"]
    gone = collect(store, find_garbage(store)).counts()["stages that no study needs"][0]
    folder, back, left = restore_study(store, "both")
    assert (folder.name, back, left) == ("both", gone, 0)
    assert run_small(two_studies, schedules="linear,cosine", name="both").ran == 0
    assert (ddpmkit.load("both", "cosine", out=two_studies, device="cpu").sample(3) == samples).all()
    assert not (two_studies / "studies" / TRASH).exists() or not list((two_studies / "studies" / TRASH).iterdir())
    # Of two of one name the later comes back, and never over one that is there.
    remove_study(store, "both")
    run_small(two_studies, schedules="cosine", name="both")
    with pytest.raises(DdpmkitError, match="there is a study 'both' again"):
        restore_study(store, "both")
    rename_study(store, "both", "aside")
    assert len(files.read_sealed(restore_study(store, "both")[0] / "plan.json")["cells"]) == 2


def test_a_study_that_is_a_link_is_renamed_and_not_what_it_leads_to(two_studies: Path, tmp_path: Path) -> None:
    store = Store(two_studies)
    elsewhere = (two_studies / "studies" / "both").rename(tmp_path / "kept")
    (two_studies / "studies" / "both").symlink_to(elsewhere, target_is_directory=True)
    rename_study(store, "both", "linked")
    assert (two_studies / "studies" / "linked").is_symlink()
    assert "cosine" in {c["label"] for c in files.read_sealed(elsewhere / "plan.json")["cells"]}
    remove_study(store, "linked")
    collect(store, find_garbage(store, everything=True))
    assert (elsewhere / "plan.json").exists()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (812, "812 B"), (999_600, "1 MB"), (12_345_678, "12.3 MB"), (5e15, "5e+03 TB")]
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert size(int(count)) == text


def test_the_command_of_rm_frees_as_much_as_it_says(two_studies: Path, capsys) -> None:
    store = Store(two_studies)
    assert main(["studies", "rm", "both", "--out", str(two_studies)]) == 0
    *_, back, frees = capsys.readouterr().err.splitlines()
    assert back == f"ddpmkit studies restore both --out {two_studies} takes it back"
    commands, said = frees.split(" frees ")
    # Records of what a collection looks at come and go meanwhile.
    before = size_of(two_studies)
    expected = find_garbage(store, everything=True)
    whole = sum(i.size for i in expected.items) + sum(size_of(b.folder) for b in expected.old)
    assert said.startswith(f"{size(whole)} for good: ")
    for command in commands.split(" && "):
        assert command.startswith("ddpmkit ")
        assert main(command.split()[1:]) == 0
    assert before - size_of(two_studies) == pytest.approx(whole, rel=0.02)
    assert [s.name for s in list_studies(store)] == ["more"]
    assert main(["studies", "restore", "both", "--out", str(two_studies)]) == 2
    told = capsys.readouterr().err.splitlines()[-2:]
    assert told[0] == "error: there is no study 'both' in the trash, which is empty"
    assert "ddpmkit ablate .. --name both" in told[1]
    assert main(["studies", "restore", "more", "--out", str(two_studies)]) == 2
    assert "it is there and was not thrown away: ddpmkit report more" in capsys.readouterr().err


def test_in_the_usual_folder_the_commands_name_none(two_studies: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(two_studies.parent)
    two_studies.rename("results")
    assert main(["studies", "rm", "both"]) == 0
    *_, back, frees = capsys.readouterr().err.splitlines()
    assert back == "ddpmkit studies restore both takes it back"
    assert frees.startswith("ddpmkit gc --yes && ddpmkit gc --empty-trash --yes frees ")
