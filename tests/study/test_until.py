"""``--until settled``: seeds are added where a verdict is open, and nowhere else, as long as the limits allow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ddpmkit import DdpmkitError, files
from ddpmkit.cli import main
from ddpmkit.cli.until import check
from ddpmkit.errors import Exit
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.judge.settled import look
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.show.card import card
from ddpmkit.study import growth, runner, until
from ddpmkit.study.config import Study, make_study
from ddpmkit.study.enter import enter
from ddpmkit.study.grids import There, union
from ddpmkit.study.look import Look
from ddpmkit.study.prepare import Prepared, RunOptions, prepare
from ddpmkit.study.runner import Outcome
from ddpmkit.study.until import Limits, seconds, until_settled

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

REGISTRY = Registry(installed=False)
FOUR = "linear,cosine,sigmoid,constant"
TINY = {
    "schedules": "linear,cosine,sigmoid", "train_seeds": "0-1", "train_steps": 2, "batch_size": 4, "timesteps": 50,
    "sampling_steps": 2,
    "metrics": "nll", "name": "mine", "backbones": "unet:channels=4:mults=1", "axis": ["warmup=0"],
}  # fmt: skip


def planned(out: Path, **options: Any) -> Prepared:
    options = {**TINY, **options}
    return prepare(options, out=out, registry=REGISTRY, run_options=RunOptions(executor="inline", device="cpu"))


class Rounds:
    """A run that runs nothing, and looks that find what the test says; what was planned is kept."""

    def __init__(self, open_: Sequence[Sequence[str]], codes: Sequence[Exit] = (), fewest: int = 2) -> None:
        self.open, self.codes, self.fewest = [*open_], [*codes], fewest
        self.seeds: list[dict[str, tuple[int, ...]]] = []

    def run(self, prepared: Prepared) -> Outcome:
        study = prepared.study
        assert prepared.entered
        here: dict[str, tuple[int, ...]] = {}
        for r in prepared.plan.results:
            here[r.cell] = (*here.get(r.cell, ()), r.train_seed)
        assert here == {c.label: study.seeds_of(c) for c in study.cells()}
        self.seeds.append(here)
        return Outcome(prepared.folder, {}, 0, self.codes.pop(0) if self.codes else Exit.DONE)

    def look(self, folder: Path) -> Look:
        return Look("NLL", "linear", tuple(self.open.pop(0)), (), self.fewest)


def test_a_settled_cell_gets_no_more_seeds_and_the_baseline_goes_on(tmp_path: Path, few_digits: str) -> None:
    rounds = Rounds([["cosine", "sigmoid"], ["sigmoid"], ["sigmoid"], []])
    ended = until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    assert [len(r["linear"]) for r in rounds.seeds] == [2, 3, 4, 5]
    assert [len(r["cosine"]) for r in rounds.seeds] == [2, 3, 3, 3]
    assert [len(r["sigmoid"]) for r in rounds.seeds] == [2, 3, 4, 5]
    assert ended.why == "every verdict on NLL that seeds can settle is settled, with at most 5 train seeds"
    # the study is marked from the start, and its file makes this very plan again
    first, *rest = growth.of(ended.outcome.folder)
    assert (first.seeds_before, first.seeds_after) == ((), (0, 1))
    assert [g.seeds_after[-1] for g in rest] == [2, 3, 4]
    again = planned(tmp_path / "elsewhere", **dict.fromkeys(TINY), study=ended.outcome.folder / "study.toml")
    assert {(r.cell, r.train_seed) for r in again.plan.results} == {
        (r.cell, r.train_seed) for r in ended.prepared.plan.results
    }
    # no flags say that
    assert card(read_study(ended.outcome.folder))["command"] == "ddpmkit ablate study.toml"
    assert card(read_study(ended.outcome.folder))["design"]["stopped"] == {"cosine": [0, 1, 2]}
    # who goes on by name keeps what stopped; who asks for more seeds has them in every cell
    name = {**dict.fromkeys(TINY), "study": "mine"}
    assert planned(tmp_path, **name).plan.json() == ended.prepared.plan.json()
    whole = planned(tmp_path, **{**name, "train_seeds": "0-5"})
    assert len(whole.plan.results) == 18
    assert whole.study.stopped == {}


def test_seeds_below_which_no_verdict_can_fall_are_added_at_once(tmp_path: Path, few_digits: str) -> None:
    rounds = Rounds([["cosine"], ["cosine"], []], fewest=6)
    until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    assert [len(r["linear"]) for r in rounds.seeds] == [2, 6, 7]


def test_the_most_seeds_are_the_most(tmp_path: Path, few_digits: str) -> None:
    rounds = Rounds([["cosine"]] * 9, fewest=4)
    ended = until_settled(planned(tmp_path, dataset=few_digits), Limits(seeds=4), rounds.look, rounds.run)
    assert [len(r["linear"]) for r in rounds.seeds] == [2, 4]
    assert ended.why == "open on NLL: cosine with 4 train seeds, the most allowed"


def test_no_seed_is_spent_where_the_most_allowed_are_too_few_for_any_verdict(tmp_path: Path, few_digits: str) -> None:
    rounds = Rounds([["cosine"]] * 9, fewest=6)
    ended = until_settled(planned(tmp_path, dataset=few_digits), Limits(seeds=5), rounds.look, rounds.run)
    assert [len(r["linear"]) for r in rounds.seeds] == [2]
    assert ended.why == (
        "open on NLL: cosine after 2 train seeds; no verdict can fall below 6 train seeds: --max-seeds at least 6"
    )


def test_seeds_that_nobody_said_are_added_to_all_the_same(tmp_path: Path, few_digits: str) -> None:
    rounds = Rounds([["cosine"], []])
    until_settled(planned(tmp_path, dataset=few_digits, train_seeds=None), Limits(), rounds.look, rounds.run)
    assert [len(r["linear"]) for r in rounds.seeds] == [3, 4]
    # resumed: by the command that began it, whose seeds are those to start with, and by name
    for asked in ({}, {**dict.fromkeys(TINY), "study": "mine"}):
        options = {**TINY, "dataset": few_digits, **asked}
        if asked:
            del options["dataset"]
        run_options = RunOptions(executor="inline", device="cpu")
        again = prepare(options, out=tmp_path, registry=REGISTRY, run_options=run_options, starting=True)
        more = Rounds([["cosine"], ["cosine", "sigmoid"], []])
        until_settled(again, Limits(), more.look, more.run)
        had = len(rounds.seeds[-1]["linear"])
        assert [len(r["linear"]) for r in more.seeds] == [had, had + 1, had + 2]
        assert [len(r["cosine"]) for r in more.seeds] == [had, had + 1, had + 2]
        assert [len(r["sigmoid"]) for r in more.seeds][1:] == [len(rounds.seeds[-1]["sigmoid"]), had + 2]
        rounds = more


def test_a_round_that_adds_nothing_is_the_last(
    tmp_path: Path, few_digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(until, "_grown", lambda prepared, found, count: (prepared, []))
    rounds = Rounds([["cosine"]] * 3)
    ended = until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    assert len(rounds.seeds) == 1
    assert ended.why == "open on NLL: cosine after 2 train seeds, and no more could be added"


def test_what_another_process_adds_while_it_runs_is_run_too(
    tmp_path: Path, few_digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Grown(Rounds):
        def run(self, prepared: Prepared) -> Outcome:
            outcome = super().run(prepared)
            if len(self.seeds) == 2:
                enter(planned(tmp_path, **{**dict.fromkeys(TINY), "study": "mine", "train_seeds": "0-4"}))
                enter(planned(tmp_path, **{**dict.fromkeys(TINY), "study": "mine", "schedules": FOUR}))
            return outcome

    rounds = Grown([["cosine"], ["sigmoid"], []])
    until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    assert [{c: len(s) for c, s in r.items()} for r in rounds.seeds] == [
        {"linear": 2, "cosine": 2, "sigmoid": 2},
        {"linear": 3, "cosine": 3, "sigmoid": 2},
        {"linear": 5, "cosine": 5, "sigmoid": 5, "constant": 5},  # before anybody looked
        {"linear": 6, "cosine": 5, "sigmoid": 6, "constant": 5},
    ]
    err = capsys.readouterr().err
    assert err.count("another process has grown study 'mine' meanwhile") == 1


def test_what_another_process_adds_while_a_round_is_planned_is_kept(
    tmp_path: Path, few_digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, grown = Rounds([["cosine"], []]), until._grown

    def late(*args: Any) -> Any:
        more = grown(*args)
        enter(planned(tmp_path, **{**dict.fromkeys(TINY), "study": "mine", "train_seeds": "0-1,5"}))
        return more

    monkeypatch.setattr(until, "_grown", late)
    until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    assert rounds.seeds[-1] == {"linear": (0, 1, 5, 2), "cosine": (0, 1, 5, 2), "sigmoid": (0, 1, 5)}


@pytest.mark.parametrize("code", [Exit.SIGINT, Exit.SIGTERM])
def test_a_signal_ends_it_without_another_look(tmp_path: Path, few_digits: str, code: Exit) -> None:
    rounds = Rounds([["cosine"], ["cosine"]], codes=[Exit.DONE, code])
    ended = until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    assert len(rounds.seeds) == 2
    assert (ended.look, ended.outcome.code) == (None, code)


def test_no_seeds_are_begun_that_would_not_end_in_the_budget(
    tmp_path: Path, few_digits: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hour:
        seconds = 3600.0

    monkeypatch.setattr(until, "estimate", lambda prepared: Hour())
    ticks = iter(range(0, 999 * 3600, 3600))
    rounds = Rounds([["cosine"]] * 9)
    limits = Limits(seconds=3.5 * 3600)
    ended = until_settled(
        planned(tmp_path, dataset=few_digits), limits, rounds.look, rounds.run, lambda: float(next(ticks))
    )
    assert len(rounds.seeds) == 3  # after 1 and 2 hours another one fits, after 3 it does not
    assert "train seeds 4" not in capsys.readouterr().err
    assert ended.why.startswith("open on NLL: cosine after 4 train seeds: the next seeds take about 1:00:00")
    with pytest.raises(DdpmkitError, match="more than the budget") as caught:
        until_settled(planned(tmp_path / "new", dataset=few_digits), Limits(seconds=60), rounds.look, rounds.run)
    assert len(rounds.seeds) == 3
    assert (caught.value.hint or "").startswith("--budget 2h")
    # a first round of a minute is no zero hours
    monkeypatch.setattr(Hour, "seconds", 70.0)
    with pytest.raises(DdpmkitError) as caught:
        until_settled(planned(tmp_path / "new", dataset=few_digits), Limits(seconds=60), rounds.look, rounds.run)
    assert (caught.value.hint or "").startswith("--budget 1h")
    assert not (tmp_path / "new" / "studies").exists()


def test_a_warning_is_said_once_and_not_once_a_round(
    tmp_path: Path, few_digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = Rounds([["cosine"], ["cosine"], []])
    prepared = planned(tmp_path, dataset=few_digits, axis=None)  # two steps never leave the usual warm-up
    assert prepared.plan.warnings
    until_settled(prepared, Limits(), rounds.look, rounds.run)
    err = capsys.readouterr().err
    assert all(err.count(f"warning: {w}") == 1 for w in prepared.plan.warnings)
    assert err.count("adds to study 'mine': train seeds") == 2


@pytest.mark.parametrize(("text", "found"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1.5 d", 129600)])
def test_a_budget_is_a_time(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": "bored"}, "--until: unknown goal 'bored'"),
        ({"budget": "2h"}, "--budget belongs to --until"),
        ({"metric": "NLL"}, "--until-metric belongs to --until"),
        ({"most": 9}, "--max-seeds belongs to --until"),
        ({"until": "settled", "most": 1}, "--max-seeds must be at least 2"),
        ({"until": "settled", "budget": "soon"}, "'soon' is no time"),
        ({"until": "settled", "budget": "0h"}, "'0h' is no time"),
        ({"until": "settled", "margin": "NLL=-1"}, "names no positive gap"),
        ({"until": "settled", "margin": "NLL"}, "names no positive gap"),
        ({"until": "settled", "margin": ""}, "names no positive gap"),
    ],
    ids=str,
)
def test_what_can_not_be_meant_is_refused_before_anything_runs(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DdpmkitError, match=said):
        check(**{"until": None, "budget": None, "metric": None, "most": 20, "margin": None, **given})


def test_stopped_cells_are_read_from_a_file_and_checked() -> None:
    some = {"schedules": "linear,cosine", "train_seeds": "0-4"}
    study = make_study({**some, "stopped": {"cosine": "0-2"}}, REGISTRY)
    assert [study.seeds_of(c) for c in study.cells()] == [(0, 1, 2, 3, 4), (0, 1, 2)]
    assert study.grid() == make_study(some, REGISTRY).grid()
    for stopped, said in (({"cosin": "0-2"}, "no cell 'cosin'"), ({"cosine": "0-5"}, "seed 5"), ("0-2", "a table")):
        with pytest.raises(DdpmkitError, match=said):
            make_study({**some, "stopped": stopped}, REGISTRY)
    # a cell that goes by another name now is asked for anew
    there = There(study.grid(), stopped=study.stopped)
    assert union(there, make_study(some, REGISTRY)).stopped == {"cosine": (0, 1, 2)}
    assert union(there, make_study({**some, "timesteps": "1000,50"}, REGISTRY)).stopped == {}


def test_a_stale_word_of_a_cell_that_stopped_drops_nothing_that_is_there() -> None:
    def study(stopped: dict[str, Any], **more: str) -> Study:
        return make_study({"schedules": "linear,cosine", "train_seeds": "0-4", "stopped": stopped, **more}, REGISTRY)

    stale = {"cosine": "0-1"}
    assert union(There(study({}).grid()), study(stale)).stopped == {}
    assert union(There(study({}).grid()), study(stale, train_seeds="0-5")).stopped == {"cosine": (0, 1, 2, 3, 4)}
    there = There(study({}).grid(), stopped={"cosine": (0, 1, 2)})
    assert union(there, study(stale)).stopped == {"cosine": (0, 1, 2)}
    # a cell that is new has only what is asked for; one that has a longer name now keeps all that it had
    assert union(There(study({}, schedules="linear").grid()), study(stale)).stopped == {"cosine": (0, 1)}
    longer = {"cosine timesteps=1000": "0-1", "cosine timesteps=50": "0-1"}
    found = union(There(study({}).grid()), study(longer, timesteps="1000,50")).stopped
    assert found == {"cosine timesteps=50": (0, 1)}


def test_a_study_with_cells_that_stopped_grows_by_an_axis_and_by_a_level(tmp_path: Path, few_digits: str) -> None:
    rounds = Rounds([["cosine"], []])
    until_settled(planned(tmp_path, dataset=few_digits), Limits(), rounds.look, rounds.run)
    name = {**dict.fromkeys(TINY), "study": "mine"}
    assert planned(tmp_path, **name).study.stopped == {"sigmoid": (0, 1)}
    levels = planned(tmp_path, **{**name, "schedules": FOUR})
    assert levels.study.stopped == {"sigmoid": (0, 1)}
    assert planned(tmp_path, **{**name, "sigmas": "beta,beta-tilde"}).study.stopped == {}
    assert planned(tmp_path, **{**name, "name": "other"}).study.stopped == {"sigmoid": (0, 1)}


def ablate(out: Path, dataset: str, *flags: str) -> int:
    argv = [
        "ablate", "--schedules", "linear,cosine", "--dataset", dataset, "--train-seeds", "0-1", "--name", "mine",
        "--train-steps", "2", "--batch-size", "4", "--timesteps", "50", "--sampling-steps", "2", "--metrics", "nll,fd",
        "--features", "pca:k=2", "--backbones", "unet:channels=4:mults=1", "--axis", "warmup=0",
        "--executor", "inline", "--device", "cpu", "--out", str(out),
    ]  # fmt: skip
    return main([*argv, *flags])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--until", "settled", "--margin", "NL=0.1"], "unknown metric 'NL'; did you mean 'NLL'?"),
        (["--margin", "FD-digits=1"], "unknown metric 'FD-digits'"),
        (["--until", "settled", "--until-metric", "FD"], "metric 'FD' is not in the study"),
        (["--until", "settled", "--budget", "1s"], "more than the budget"),
    ],
    ids=lambda v: "",
)
def test_a_name_or_budget_that_can_not_be_is_refused_before_anything_is_written(
    tmp_path: Path, few_digits: str, flags: list[str], said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    class Hour:
        seconds = 3600.0

    monkeypatch.setattr(until, "estimate", lambda prepared: Hour())
    assert ablate(tmp_path, few_digits, *flags) == 2
    err = capsys.readouterr().err
    assert said in err
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("flags", [[], ["--until", "settled", "--until-metric", "FD-pca2"]], ids=["", "until"])
def test_a_run_that_is_interrupted_before_a_number_says_so_whatever_the_margin(
    tmp_path: Path, few_digits: str, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", lambda prepared, _: Outcome(enter(prepared).folder, {}, 0, Exit.SIGINT))
    assert ablate(tmp_path, few_digits, "--margin", "NLL=0.1,FD-pca2=1", *flags) == 130
    assert (tmp_path / "studies" / "mine" / "report.md").exists()


@pytest.mark.long
def test_a_toy_study_from_end_to_end(tmp_path: Path, few_digits: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "ablate", "--schedules", "linear,cosine", "--dataset", few_digits, "--train-seeds", "0-1", "--name", "mine",
        "--train-steps", "2", "--batch-size", "4", "--timesteps", "50", "--sampling-steps", "2",
        "--metrics", "nll", "--nll-evals", "300",
        "--backbones", "unet:channels=4:mults=1", "--axis", "warmup=0", "--executor", "inline", "--device", "cpu",
        "--until", "settled", "--max-seeds", "9", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "without a margin a contrast without a gap is never settled" in err
    assert "every verdict on NLL that seeds can settle is settled" in err
    assert "e (needed)" in out
    folder = tmp_path / "studies" / "mine"
    summary = summarise(read_study(folder))
    contrast = summary.differences["NLL"]["cosine"]
    assert contrast.verdict in ("better", "worse")
    assert contrast.anytime.e >= 20
    assert 5 <= contrast.n <= 9  # one contrast: five seeds are the fewest
    assert look(summary).open == ()
    report = json.loads((folder / "report.json").read_text())
    assert report["grown"]
    assert len(growth.of(folder)) >= 2
    stages = len(list((tmp_path / "store" / "train").glob("*/*/status.json")))
    assert stages == 2 * contrast.n
    # the same command has nothing to do, and no more seeds
    assert main(argv) == 0
    assert summarise(read_study(folder)).differences["NLL"]["cosine"] == contrast
    # with a margin so wide that it is settled either way, and an unknown metric
    assert main([*argv, "--until-metric", "FD"]) == 2
    assert "metric 'FD' is not in the study" in capsys.readouterr().err


def test_what_is_open_and_what_no_seed_settles(tmp_path: Path, few_digits: str) -> None:
    # planned and not run: nothing has a number, so there is nothing to add seeds for
    prepared = enter(planned(tmp_path, dataset=few_digits))
    with pytest.raises(DdpmkitError, match="no differences to settle"):
        look(summarise(read_study(prepared.folder)))
    assert files.read_sealed(prepared.folder / "plan.json") is not None
