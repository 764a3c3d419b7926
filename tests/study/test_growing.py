"""A named study grows: only what is added runs, what is there stays, and two processes may grow it at once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, files
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import growth
from ddpmkit.study.claim import Held, claimed
from ddpmkit.study.config import Study, make_study
from ddpmkit.study.enter import enter
from ddpmkit.study.grids import There, added, lacking, union
from ddpmkit.study.prepare import Prepared, RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.store import Store
from ddpmkit.study.study_name import ADDS

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

REGISTRY = Registry(installed=False)
TINY = {
    "schedules": "linear,cosine", "train_seeds": "0-1", "train_steps": 2, "batch_size": 4, "samples": 6,
    "timesteps": 50, "sampling_steps": 2, "metrics": "sw", "features": "pca:k=2", "name": "mine",
    "backbones": "unet:channels=4:mults=1", "axis": ["warmup=0"],
}  # fmt: skip
INLINE = RunOptions(executor="inline", device="cpu")
Entry = dict[str, Any]


def planned(out: Path, **options: Any) -> Prepared:
    """A study with these options changed; None takes one out."""
    return prepare({**TINY, **options}, out=out, registry=REGISTRY, run_options=INLINE)


def by_name(out: Path, **options: Any) -> Prepared:
    return prepare({"study": "mine", **options}, out=out, registry=REGISTRY, run_options=INLINE)


def plan_of(out: Path) -> Entry:
    return json.loads((out / "studies" / "mine" / "plan.json").read_text())


def kinds(prepared: Prepared) -> dict[str, int]:
    """How many stages of each kind are to run."""
    return dict(Counter(s.kind for s in prepared.todo))


@pytest.fixture
def out(tmp_path: Path, few_digits: str) -> Path:
    """A results folder with a study that has been planned and entered; nothing of it ran."""
    enter(planned(tmp_path / "r", dataset=few_digits))
    return tmp_path / "r"


# What one grid has of another.


def study(**options: Any) -> Study:
    return make_study({**TINY, **options}, REGISTRY)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"train_seeds": "0-4"}, ["train seeds 2-4"]),
        ({"train_seeds": "0,1,3,5-6"}, ["train seeds 3,5-6"]),
        ({"sample_seeds": "0-1"}, ["sample seeds 1"]),
        ({"schedules": "linear,cosine,sigmoid"}, ["schedules sigmoid"]),
        ({"schedules": "sigmoid,cosine,linear"}, ["schedules sigmoid"]),
        ({"metrics": "sw,kid,nll"}, ["metrics kid,nll"]),
        ({"features": "pca:k=2,pixels"}, ["features pixels"]),
        ({"timesteps": "50,60"}, ["timesteps 60 beside 50, so that cells are named by it too"]),
        ({"guidances": "0,1"}, ["guidances 1.0 beside 0.0, so that cells are named by it too"]),
        ({"train_seeds": "0-2", "metrics": "sw,kid"}, ["train seeds 2", "metrics kid"]),
        ({}, []),
    ],
    ids=str,
)
def test_more_of_anything_adds_and_is_said(more: dict[str, str], what: list[str]) -> None:
    there, asked = There(study().grid()), study(**more)
    assert lacking(there.grid, asked.grid()) == []
    assert added(there.grid, union(there, asked).grid()) == what


@pytest.mark.parametrize(
    ("other", "keys"),
    [
        ({"train_seeds": "1-4"}, ["train_seeds"]),
        ({"schedules": "linear,sigmoid"}, ["schedule"]),
        ({"metrics": "kid"}, ["metrics"]),
        ({"features": "pixels"}, ["features"]),
        ({"train_steps": 3, "train_seeds": "0-4"}, ["train_steps"]),
        ({"axis": ["warmup=0", "ema=0.9,0.99"]}, ["ema"]),  # its training would be another one
        ({"only": ["linear"]}, ["only"]),
    ],
    ids=str,
)
def test_what_drops_or_changes_a_cell_does_not(other: dict[str, Any], keys: list[str]) -> None:
    assert lacking(study().grid(), study(**other).grid()) == keys


def test_what_is_there_keeps_its_place_and_so_does_the_baseline() -> None:
    both = union(
        There(study().grid()), study(schedules="sigmoid,cosine,linear", train_seeds="4,1,0", timesteps="60,50")
    )
    assert both.axes["schedule"] == ("linear", "cosine", "sigmoid")
    assert both.train_seeds == (0, 1, 4)
    first = both.cells()[0]
    assert (first.settings.schedule, first.settings.timesteps) == ("linear", 50)
    assert both.base == first.settings


def test_cells_that_were_left_out_can_be_added() -> None:
    some, every = study(only=["linear"]), study()
    assert lacking(some.grid(), every.grid()) == []
    both = union(There(some.grid()), every)
    assert [c.label for c in both.cells()] == ["linear", "cosine"]
    assert added(some.grid(), both.grid()) == ["cells that were left out"]
    again = union(There(study(only=["linear"]).grid()), study(only=["cosine", "linear"]))
    assert again.only == ("linear", "cosine")


def test_lists_that_nobody_asked_for_are_those_that_are_there() -> None:
    asked = make_study({k: v for k, v in TINY.items() if k not in ("train_seeds", "features")}, REGISTRY)
    assert asked.train_seeds == (0, 1, 2)
    both = union(There(study(train_seeds="0,7").grid()), asked)
    assert (both.train_seeds, both.features) == ((0, 7), ("pca:k=2",))
    assert lacking(study(train_seeds="0,7").grid(), asked.grid(), asked.unsaid) == []
    assert lacking({**study().grid(), "train_seeds": ["x"]}, asked.grid(), asked.unsaid) == ["train_seeds"]


def test_metrics_that_are_added_are_taken_beside_those_that_are_there() -> None:
    there = There(study(metrics="sw,nll", features="pca:k=2").grid())
    both = union(there, study(metrics="sw,nll,kid", features="pca:k=2,pixels"))
    assert both.scored == (("pca:k=2", ("sw",)), ("pca:k=2", ("kid",)), ("pixels", ("sw", "kid")))
    later = union(There(both.grid(), both.scored), study(metrics="sw,nll,kid,fd", features="pca:k=2,pixels"))
    assert later.scored == (*both.scored, ("pca:k=2", ("fd",)), ("pixels", ("fd",)))
    for alone in ({"train_seeds": "0-4"}, {"features": "pca:k=2,pixels"}, {"metrics": "nll,sw"}):
        assert union(there, study(**{"metrics": "sw,nll", **alone})).scored == ()


# Planned and entered, without a run.


def test_the_plan_says_what_is_added_and_the_folder_when(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.of(out / "studies" / "mine") == ()
    more = by_name(out, train_seeds="0-4", schedules="linear,cosine,sigmoid")
    assert more.adds == ("schedules sigmoid", "train seeds 2-4")
    assert "note: adds to study 'mine': schedules sigmoid; train seeds 2-4\n" in capsys.readouterr().err
    assert growth.of(out / "studies" / "mine") == ()  # it is a plan so far
    enter(more)
    (grown,) = growth.of(out / "studies" / "mine")
    assert grown.what == more.adds
    assert (grown.seeds_before, grown.seeds_after) == ((0, 1), (0, 1, 2, 3, 4))
    assert plan_of(out)["grid"]["train_seeds"] == [0, 1, 2, 3, 4]
    enter(by_name(out))  # the same again is no growth
    assert len(growth.of(out / "studies" / "mine")) == 1


def test_a_study_is_taken_by_its_name_its_folder_and_its_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = out / "studies" / "mine"
    for asked in ("mine", str(folder), folder / "study.toml"):
        found = prepare({"study": asked, "train_seeds": "0-2"}, out=out, registry=REGISTRY, run_options=INLINE)
        assert (found.study.name, found.adds) == ("mine", ("train seeds 2",))
    monkeypatch.chdir(out.parent)
    (out.parent / "mine").write_text('schedules = "sigmoid"\nname = "own"\n')  # a file that is here comes first
    assert prepare({"study": "mine"}, out=out, registry=REGISTRY, run_options=INLINE).study.name == "own"


def test_a_file_to_which_more_was_written_grows_its_study(out: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text((out / "studies" / "mine" / "study.toml").read_text())
    for file in (own, out / "studies" / "mine" / "study.toml"):
        file.write_text(file.read_text().replace("train_seeds = [0, 1]", "train_seeds = [0, 1, 5]"))
        found = prepare({"study": file}, out=out, registry=REGISTRY, run_options=INLINE)
        assert (found.study.name, found.adds) == ("mine", ("train seeds 5",))


def test_a_name_that_nothing_has_is_refused_with_those_that_are(out: Path) -> None:
    with pytest.raises(DdpmkitError, match=r"there is no study 'mime' in .* did you mean 'mine'") as caught:
        prepare({"study": "mime"}, out=out, registry=REGISTRY)
    assert caught.value.hint == "studies there: mine"
    with pytest.raises(DdpmkitError, match=r"can't read 'mime\.toml'"):
        prepare({"study": "mime.toml"}, out=out, registry=REGISTRY)


def test_a_study_that_was_moved_goes_by_the_name_of_its_folder(out: Path) -> None:
    (out / "studies" / "mine").rename(out / "studies" / "other")
    found = prepare({"study": "other", "train_seeds": "0-2"}, out=out, registry=REGISTRY, run_options=INLINE)
    assert (found.study.name, found.adds) == ("other", ("train seeds 2",))


def test_what_is_refused_names_the_flag_and_writes_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for flags, said, hinted in (
        (("--train-seeds", "2-4"), f"--train-seeds 0-1 there, 2-4 now{ADDS}", "--train-seeds 0-4"),
        (("--schedules", "sigmoid"), f"--schedules linear,cosine there, sigmoid now{ADDS}", "linear,cosine,sigmoid"),
        (("--train-steps", "5"), f"--train-steps 2 there, 5 now{ADDS}", "--train-steps 2,5"),
        (("--axis", "ema=0.9,0.99"), "--axis ema=0.99 there, 0.9,0.99 now", "--name mine-2"),  # another training
    ):
        assert main(["--no-plugins", "ablate", "mine", "--out", str(out), *flags]) == 2
        first, hint = capsys.readouterr().err.splitlines()
        assert first.endswith(f"another grid, in {out / 'studies' / 'mine'}: {said}")
        assert hinted in hint
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_metrics_that_nobody_asked_for_are_those_of_the_study(tmp_path: Path, few_digits: str) -> None:
    """By default copy is among them, which the study was told to leave out."""
    enter(planned(tmp_path, dataset=few_digits, metrics="fd,nll"))
    unsaid = planned(tmp_path, dataset=few_digits, metrics=None, schedules="linear,cosine,sigmoid")
    assert unsaid.study.metrics == ("fd", "nll")
    assert unsaid.adds == ("schedules sigmoid",)
    enter(planned(tmp_path, dataset=few_digits, metrics="fd,nll,kid"))
    assert planned(tmp_path, dataset=few_digits, metrics=None).study.metrics == ("fd", "nll", "kid")


def test_a_level_for_which_a_metric_can_not_be_taken_is_refused_and_drops_no_column(
    tmp_path: Path, few_digits: str
) -> None:
    enter(planned(tmp_path, dataset=few_digits, metrics=None, samples=6))
    with pytest.raises(DdpmkitError, match="can't be taken"):
        planned(tmp_path, dataset=few_digits, metrics=None, samples="6,2", features="pca:k=2,pca:k=30")


def test_the_command_line_plans_a_growth_as_text_and_as_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--no-plugins", "ablate", "mine", "--out", str(out), "--train-seeds", "0-2", "-n"]
    assert main(command) == 0
    assert "note: adds to study 'mine': train seeds 2" in capsys.readouterr().err
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["study"], found["adds"]) == ("mine", ["train seeds 2"])
    assert plan_of(out)["grid"]["train_seeds"] == [0, 1]


def test_data_that_changed_are_said_of_cells_with_longer_names_too(
    out: Path, few_digits: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "ddpmkit.study.plan.find_data"
    found = by_name(out).plan.data
    monkeypatch.setattr(data, lambda *_, **__: replace(found, fingerprint="other"))
    capsys.readouterr()
    by_name(out, samplers="ancestral,ddim")
    said = capsys.readouterr().err
    assert "study 'mine' was run before with another data set: 4 of its 8 results now rest on other stages" in said
    assert "adds to study 'mine': samplers ddim beside ancestral" in said


# Two processes at once.


def test_what_another_process_added_meanwhile_stays(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds, levels = by_name(out, train_seeds="0-3"), by_name(out, schedules="linear,cosine,sigmoid")
    enter(seeds)
    both = enter(levels)
    assert "another process has grown study 'mine' meanwhile; both are planned as one" in capsys.readouterr().err
    for grid in (plan_of(out)["grid"], both.study.grid()):
        assert grid["train_seeds"] == [0, 1, 2, 3]
        assert grid["axes"]["schedule"] == ["linear", "cosine", "sigmoid"]
    assert len(both.plan.results) == 3 * 4
    assert [g.what for g in growth.of(out / "studies" / "mine")] == [("train seeds 2-3",), ("schedules sigmoid",)]


def test_who_planned_before_a_growth_does_not_drop_it(out: Path) -> None:
    resumed, more = by_name(out), by_name(out, train_seeds="0-3")
    enter(more)
    grown = plan_of(out)
    assert enter(resumed).plan is resumed.plan  # its own part is run
    assert plan_of(out) == grown


def test_a_name_that_became_another_study_meanwhile_is_refused(tmp_path: Path, few_digits: str) -> None:
    first, second = (planned(tmp_path, dataset=few_digits, schedules=s) for s in ("linear,cosine", "linear,sigmoid"))
    enter(first)
    with pytest.raises(DdpmkitError, match="--schedules linear,cosine there, linear,sigmoid now"):
        enter(second)
    assert plan_of(tmp_path)["grid"]["axes"]["schedule"] == ["linear", "cosine"]


def test_one_process_writes_a_plan_at_a_time(out: Path) -> None:
    """Many threads, each with its own seed: none is lost, and there is a record for each."""
    wanted = [by_name(out, train_seeds=f"0-1,{seed}") for seed in range(2, 7)]
    threads = [threading.Thread(target=enter, args=(each,)) for each in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(plan_of(out)["grid"]["train_seeds"]) == [0, 1, 2, 3, 4, 5, 6]
    records = growth.of(out / "studies" / "mine")
    assert sorted(g.what for g in records) == [(f"train seeds {seed}",) for seed in range(2, 7)]
    for before, after in itertools.pairwise(records):
        assert before.seeds_after == after.seeds_before
    assert not [*(out / "studies" / "mine").glob("claim*")]


def test_a_writer_is_waited_for(out: Path) -> None:
    more, done = by_name(out, train_seeds="0-2"), threading.Event()
    with claimed(out / "studies" / "mine", "") as held:
        assert isinstance(held, Held)
        thread = threading.Thread(target=lambda: (enter(more), done.set()))
        thread.start()
        assert not done.wait(0.5)
        assert plan_of(out)["grid"]["train_seeds"] == [0, 1]
    thread.join(30)
    assert done.is_set()
    assert plan_of(out)["grid"]["train_seeds"] == [0, 1, 2]


def test_a_writer_that_was_killed_holds_nobody_up(out: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom ddpmkit.study.claim import claimed\n"
        "with claimed(Path(sys.argv[1]), ''):\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(out / "studies" / "mine")], check=False)
    assert [*(out / "studies" / "mine").glob("claim*")]
    began = time.monotonic()
    enter(by_name(out, train_seeds="0-2"))
    assert time.monotonic() - began < 30
    assert plan_of(out)["grid"]["train_seeds"] == [0, 1, 2]


def test_a_study_stopped_between_its_mark_and_its_plan_is_grown_by_the_same_command(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, write = by_name(out, train_seeds="0-2"), files.write_sealed

    def full(path: Path, record: Entry) -> None:
        if path.name == "plan.json":
            raise OSError(28, "No space left on device")
        write(path, record)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_sealed", full)
        with pytest.raises(DdpmkitError, match="No space left"):
            enter(more)
    assert plan_of(out)["grid"]["train_seeds"] == [0, 1]
    assert len(growth.of(out / "studies" / "mine")) == 1  # a mark too many, never one too few
    enter(by_name(out, train_seeds="0-2"))
    assert plan_of(out)["grid"]["train_seeds"] == [0, 1, 2]
    assert len(growth.of(out / "studies" / "mine")) == 1


# The story.


def test_the_story_each_step_runs_exactly_what_is_new(tmp_path: Path, few_digits: str) -> None:
    """Two cells and two seeds; one more schedule; three more seeds; one more metric; one more axis; features."""
    from ddpmkit.report.write import write_report

    out, seen = tmp_path, dict[str, str]()

    def step(prepared: Prepared, expected: dict[str, int]) -> list[str]:
        """Run it, and return the stages that ran; no file of an earlier stage's output has changed."""
        assert kinds(prepared) == expected
        ran: list[str] = []
        outcome = run(enter(prepared), lambda e: ran.append(e["stage"]) if e["event"] == "attempt" else None)
        assert outcome.code == 0
        assert sorted(ran) == sorted(s.id for s in prepared.todo)
        assert not {*ran} & {*seen}
        write_report(outcome.folder)
        now = {s: Store(out).folder(k.kind, s) / "out" / "COMMIT.json" for s, k in prepared.plan.stages.items()}
        for stage, commit in seen.items():
            assert now[stage].read_text() == commit  # each stage of the smaller study is one of the larger
        seen.update({s: path.read_text() for s, path in now.items()})
        return ran

    def results() -> set[tuple[str, int, str, str]]:
        rows = records(out).results
        told = rows[["train_seed", "metric", "value"]].itertuples(index=False)
        return {(c, int(s), m, repr(v)) for c, (s, m, v) in zip(rows["cell"], told, strict=True)}

    step(planned(out, dataset=few_digits), {"ref": 1, "train": 4, "sample": 4, "score": 4})
    first = results()
    step(by_name(out, schedules="linear,cosine,sigmoid"), {"train": 2, "sample": 2, "score": 2})
    step(by_name(out, train_seeds="0-4"), {"train": 9, "sample": 9, "score": 9})
    second = results()
    assert first < second
    step(by_name(out, metrics="sw,kid"), {"ref": 1, "score": 15})
    third = results()
    assert second < third
    assert {m for _, _, m, _ in third - second} == {"KID-pca2"}
    step(by_name(out, samplers="ancestral,ddim"), {"sample": 15, "score": 30})
    step(by_name(out, features="pca:k=2,pca:k=3"), {"ref": 1, "score": 30})
    step(by_name(out), {})
    folder = out / "studies" / "mine"
    assert [g.what for g in growth.of(folder)] == [
        ("schedules sigmoid",), ("train seeds 2-4",), ("metrics kid",),
        ("samplers ddim beside ancestral, so that cells are named by it too",), ("features pca:k=3",),
    ]  # fmt: skip
    assert [g.seeds_after for g in growth.of(folder)] == [(0, 1), *[(0, 1, 2, 3, 4)] * 4]
    text = (folder / "report.md").read_text()
    assert text.count("The study grew on ") == 5
    assert "UTC by train seeds 2-4" in text


def records(out: Path) -> Any:
    from ddpmkit.report.read.frames import read_study

    return read_study(out / "studies" / "mine")
