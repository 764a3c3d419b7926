"""How far a run is: counts, time left, plain lines and the live picture, on a made-up clock."""

from __future__ import annotations

import io
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from rich.console import Console

from ddpmkit.cli.live import render
from ddpmkit.study import progress
from ddpmkit.study.kind import StageKind
from ddpmkit.study.progress import Monitor, PlainLines
from ddpmkit.study.queue import makespan
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages import STAGE_KINDS
from ddpmkit.text import clock


class Clock:
    """What time.monotonic() says."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def watch(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@dataclass(frozen=True, kw_only=True)
class Named(StageKind):
    """A stage that is nothing but a name and what it needs."""

    name: str
    after: tuple[tuple[str, str], ...]

    @classmethod
    def planned(cls, at):
        raise NotImplementedError

    def run(self, w):
        raise NotImplementedError

    @property
    def needs(self):
        return self.after


def stage(kind, name, work, needs=()):
    like = STAGE_KINDS[kind]
    facts = {"kind": kind, "version": 1, "priority": like.priority, "cost": like.cost, "per": like.per}
    spec = type(kind, (Named,), facts)(name=name, after=tuple((n.kind, n.id) for n in needs))
    return Stage(spec, {}, name, work)


class Study:
    """One reference; for each cell a training, its samples, its likelihood and its score."""

    def __init__(self, cells=("linear", "cosine"), done=()):
        self.by = {}
        ref = self.add("ref", "reference", 10)
        for cell in cells:
            train = self.add("train", f"train {cell}", 300)
            sample = self.add("sample", f"sample {cell}", 60, [train])
            self.add("draw", f"nll {cell}", 30, [train])
            self.add("score", f"score {cell}", 5, [sample, ref])
        stages = {s.id: s for s in self.by.values()}
        todo = tuple(s for s in self.by.values() if s.label not in done)
        self.prepared = SimpleNamespace(
            study=SimpleNamespace(name="demo"), plan=SimpleNamespace(stages=stages), todo=todo
        )

    def add(self, kind, name, work, needs=()):
        self.by[name] = stage(kind, name, work, needs)
        return self.by[name]

    def start(self, name, worker=0):
        return {"event": "start", "stage": self.by[name].id, "worker": worker}

    def at(self, name, done, **more):
        return {"event": "progress", "stage": self.by[name].id, "done": done, **more}

    def end(self, name, state="done", worker=0):
        return {"event": "end", "stage": self.by[name].id, "worker": worker, "state": state}


def monitor(study, watch):
    return Monitor(study.prepared, started=watch.now)


def run(study, take, watch, *stages):
    """Let one worker do (name, seconds) one after the other."""
    for name, seconds in stages:
        take(study.start(name))
        watch.now += seconds
        take(study.end(name))


def test_counts_start_from_what_is_done_already(watch):
    m = monitor(Study(done=("reference", "train linear")), watch)
    assert dict(m.total) == {"ref": 1, "train": 2, "sample": 2, "draw": 2, "score": 2}
    assert {k: m.finished[k] for k in m.total} == {"ref": 1, "train": 1, "sample": 0, "draw": 0, "score": 0}


@pytest.mark.parametrize(
    ("state", "finished", "failed"), [("done", 1, 0), ("failed", 0, 1), ("diverged", 0, 1), ("interrupted", 0, 0)]
)
def test_an_end_is_counted_by_how_it_ended(watch, state, finished, failed):
    study = Study()
    m = monitor(study, watch)
    m.take(study.start("train linear"))
    assert [a.label for a in m.active.values()] == ["train linear"]
    m.take(study.end("train linear", state))
    assert (m.finished["train"], m.failed["train"], m.active) == (finished, failed, {})


def test_progress_reaches_the_worker_that_has_the_stage(watch):
    study = Study()
    m = monitor(study, watch)
    m.take(study.start("train linear", 0))
    m.take(study.start("train cosine", 1))
    m.take(study.at("train cosine", 0.5, step=150, loss=0.25))
    m.take(study.at("train cosine", 0.6))  # no step and no loss this time: the last ones stay
    a, b = m.active[0], m.active[1]
    assert (a.done, a.step, a.loss) == (0.0, None, None)
    assert (b.done, b.step, b.loss) == (0.6, 150, 0.25)


def test_events_that_are_no_business_of_the_count_change_nothing(watch):
    study = Study()
    m = monitor(study, watch)
    before = (dict(m.finished), dict(m.failed), dict(m.active))
    m.take({"event": "log", "text": "hello"})
    m.take({"event": "ready"})
    m.take(study.at("train linear", 0.5))
    assert (dict(m.finished), dict(m.failed), dict(m.active)) == before


def test_time_left_is_unknown_until_a_training_has_shown_its_pace(watch):
    study = Study()
    m = monitor(study, watch)
    assert m.eta() is None
    m.take(study.start("train linear"))
    watch.now += 5
    assert m.eta() is None
    m.take(study.at("train linear", 0.01))
    assert m.eta() is None  # one step says little
    m.take(study.at("train linear", 0.05))
    assert m.eta() is not None


def test_time_left_by_hand_with_one_worker(watch):
    study = Study()
    m = monitor(study, watch)
    # 300 units of training in 30 s, 60 of sampling in 12 s, 30 of likelihood in 3 s: 0.1, 0.2 and 0.1 s a unit.
    run(study, m.take, watch, ("train linear", 30), ("sample linear", 12), ("nll linear", 3))
    m.take(study.start("train cosine"))
    watch.now += 10
    m.take(study.at("train cosine", 0.25))
    assert m.elapsed == 55
    assert m.eta() == pytest.approx(0.75 * 30 + 12 + 3)


def test_time_left_is_shared_by_the_workers(watch):
    study = Study(cells=("a", "b", "c", "d"))
    m = monitor(study, watch)
    run(study, m.take, watch, ("train a", 30), ("sample a", 12), ("nll a", 3))
    m.take(study.start("train b", 0))
    alone = m.eta()
    m.take(study.start("train c", 1))
    assert alone == pytest.approx(3 * 45)
    # b and c, then d beside what follows them, and at last the samples of d alone: more than alone / 2.
    assert m.eta() == pytest.approx(30 + 30 + 12)
    assert m.eta() > alone / 2


def test_time_left_falls_as_work_is_done_and_ends_at_nothing(watch):
    study = Study()
    m = monitor(study, watch)
    run(study, m.take, watch, ("train linear", 30), ("sample linear", 12), ("nll linear", 3))
    seen = [m.eta()]
    for name, seconds in (("train cosine", 30), ("sample cosine", 12), ("nll cosine", 3)):
        run(study, m.take, watch, (name, seconds))
        seen.append(m.eta())
    assert seen == pytest.approx([45, 15, 3, 0])


def test_what_waits_for_a_failed_stage_is_not_time_left(watch):
    """The samples and the likelihood of a training that failed will not run in this run."""
    study = Study()
    m = monitor(study, watch)
    run(study, m.take, watch, ("train linear", 30), ("sample linear", 12), ("nll linear", 3))
    m.take(study.start("train cosine"))
    m.take(study.end("train cosine", "failed"))
    assert m.eta() == 0


def test_a_resumed_training_does_not_make_the_pace_look_faster(watch):
    """It was at 0.9 when it began, and needs 10 s for each further hundredth: 100 s, not 10."""
    study = Study(cells=("linear",))
    m = monitor(study, watch)
    m.take(study.start("train linear"))
    m.take(study.at("train linear", 0.90))
    watch.now += 10
    m.take(study.at("train linear", 0.91))
    a_tenth_of_a_training = 100
    assert m.eta() >= 0.9 * a_tenth_of_a_training


def test_plain_lines_say_at_the_start_what_is_to_be_done(watch, capsys):
    PlainLines(monitor(Study(done=("reference", "train linear")), watch))
    captured = capsys.readouterr()
    assert captured.out == ""  # stdout is for data
    assert captured.err == "study demo: 9 stages, 2 of them done before\n"


def test_plain_lines_come_now_and_then_and_not_with_every_event(watch, capsys):
    study = Study()
    lines = PlainLines(monitor(study, watch), every=15)
    capsys.readouterr()
    lines(study.start("train linear"))
    for i in range(1, 60):
        watch.now += 1
        lines(study.at("train linear", i / 60, step=i, loss=0.5))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3  # in 59 seconds: after 16, 32 and 48
    assert said[0].startswith("[0:16] ")
    for part in ("train 0/2", "ref 0/1", "left", "train linear loss 0.5000"):
        assert part in said[0]


def test_plain_lines_say_what_a_stage_says_of_itself(watch, capsys):
    study = Study()
    lines = PlainLines(monitor(study, watch), every=15)
    lines(study.start("train linear"))
    capsys.readouterr()
    watch.now += 16
    lines(study.at("train linear", 0.0, note="process 4711 on node3 runs it, silent for 2:00:00"))
    assert capsys.readouterr().err.endswith(" | train linear: process 4711 on node3 runs it, silent for 2:00:00\n")


def test_the_last_line_tells_the_end(watch, capsys):
    study = Study(cells=("linear",))
    lines = PlainLines(monitor(study, watch))
    run(study, lines, watch, ("reference", 1), ("train linear", 2), ("sample linear", 3), ("nll linear", 1))
    capsys.readouterr()
    run(study, lines, watch, ("score linear", 1))
    assert capsys.readouterr().err == "[0:08] ref 1/1, train 1/1, sample 1/1, draw 1/1, score 1/1\n"


def test_the_last_line_comes_also_when_something_failed_and_names_the_failure(watch, capsys):
    study = Study(cells=("linear",))
    lines = PlainLines(monitor(study, watch))
    run(study, lines, watch, ("reference", 1))
    lines(study.start("train linear"))
    capsys.readouterr()
    lines(study.end("train linear", "diverged"))
    said = capsys.readouterr().err
    assert "train 0/1" in said
    assert "1 failed" in said


def test_log_lines_are_passed_on_at_once_and_made_harmless(watch, capsys):
    lines = PlainLines(monitor(Study(), watch))
    capsys.readouterr()
    lines({"event": "log", "text": "a warning"})
    lines({"event": "log", "text": "\x1b]0;title\x07evil\x1b[2J"})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "a warning"
    assert "evil" in second
    assert second.isprintable()


def picture(m, width=100):
    out = io.StringIO()
    Console(file=out, width=width).print(render(m))
    return out.getvalue()


def test_the_live_picture_shows_counts_workers_and_time(watch):
    study = Study()
    m = monitor(study, watch)
    run(study, m.take, watch, ("reference", 1), ("train linear", 29), ("sample linear", 12), ("nll linear", 3))
    m.take(study.start("train cosine", 1))
    watch.now += 15
    m.take(study.at("train cosine", 0.5, step=150, loss=0.1234567))
    text = picture(m)
    head, *rows = text.splitlines()
    assert "study demo" in head
    assert "1:00" in head  # 60 seconds gone
    assert f"about {clock(m.eta())} left" in head
    shown = {row.split()[0]: row for row in rows if row.strip()}
    assert {k: shown[k].split()[-1] for k in ("ref", "train", "sample", "draw", "score")} == {
        "ref": "1/1", "train": "1/2", "sample": "1/2", "draw": "1/2", "score": "0/2",
    }  # fmt: skip
    for part in ("train cosine", "50 %", "step 150", "loss 0.1235"):
        assert part in shown["1"]


def test_the_live_picture_shows_failures_and_leaves_out_what_is_not_planned(watch):
    study = Study()
    study.prepared.plan.stages = {i: s for i, s in study.prepared.plan.stages.items() if s.kind != "draw"}
    study.prepared.todo = tuple(s for s in study.prepared.todo if s.kind != "draw")
    m = monitor(study, watch)
    m.take(study.start("train linear"))
    m.take(study.end("train linear", "diverged"))
    text = picture(m)
    assert "1 failed" in text
    assert "draw" not in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_live_picture_stays_within_the_terminal(watch, width):
    study = Study(cells=("cosine:s=0.01 vlb unet:channels=64:mults=1/2/2:attention=8",))
    m = monitor(study, watch)
    (name,) = (n for n in study.by if n.startswith("train"))
    m.take(study.start(name))
    m.take(study.at(name, 0.4, step=100, loss=0.5))
    assert max(len(line) for line in picture(m, width).splitlines()) <= width


def test_before_the_first_pace_the_live_picture_says_that_it_estimates(watch):
    study = Study()
    m = monitor(study, watch)
    assert "left" not in picture(m)
    m.take(study.start("train linear"))
    assert "estimating" in picture(m)


def test_the_live_picture_does_not_estimate_when_only_moments_are_left(watch):
    """All training, sampling and likelihood is done, a score runs: the time left is known to be about nothing."""
    study = Study(cells=("linear",))
    m = monitor(study, watch)
    run(study, m.take, watch, ("reference", 1), ("train linear", 30), ("sample linear", 12), ("nll linear", 3))
    m.take(study.start("score linear"))
    assert m.eta() == 0
    assert "estimating" not in picture(m)


@pytest.mark.parametrize("label", ["evil\x1b[2Jname", "a [bold red]b[/] c", "\u202ereversed"])
def test_labels_are_shown_and_do_nothing_in_the_live_picture(watch, label):
    study = Study(cells=(label,))
    m = monitor(study, watch)
    m.take(study.start(f"train {label}"))
    text = picture(m, 140)
    assert all(line.isprintable() for line in text.splitlines())
    if "[bold" in label:
        assert label in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.9, "0:42"), (60, "1:00"), (723, "12:03"), (3599.99, "59:59"), (3600, "1:00:00"),
     (11045, "3:04:05"), (360000, "100:00:00")],
)  # fmt: skip
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_one_long_stage_is_not_shared_by_the_workers():
    """What one worker must do alone bounds the whole, however many there are."""
    study = Study(cells=("a",))
    seconds = {s.id: float(s.work) for s in study.prepared.todo}  # 300, then 60 and then 5; 10 and 30 beside them
    assert makespan(study.prepared.todo, seconds, 1) == 405
    for workers in (2, 3, 8):
        assert makespan(study.prepared.todo, seconds, workers) == 365


def test_a_stage_that_runs_keeps_its_worker():
    study = Study(cells=("a", "b"))
    by, todo = study.by, study.prepared.todo
    seconds = {s.id: 10.0 for s in todo}
    # One worker draws the samples of a; training b comes first in the queue all the same, on the other.
    left = [s for s in todo if s.label not in ("train a", "reference")]
    assert makespan(left, seconds, 1, running=[by["sample a"].id]) == 70
    assert makespan(left, {**seconds, by["sample a"].id: 100.0}, 2, running=[by["sample a"].id]) == 110


def test_the_time_of_many_stages_is_found_at_once():
    import time

    study = Study(cells=tuple(map(str, range(3000))))
    seconds = {s.id: float(s.work) for s in study.prepared.todo}
    began = time.process_time()
    total = sum(seconds.values())
    assert total / 7 <= makespan(study.prepared.todo, seconds, 7) <= total / 7 + 365
    assert time.process_time() - began < 2
