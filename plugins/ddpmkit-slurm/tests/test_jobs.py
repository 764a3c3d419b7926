"""What becomes of a stage in each state of its job. Nothing is run: the stand-in is told how jobs end."""

from __future__ import annotations

import os
import stat
import time

import pytest
from ddpmkit import DdpmkitError, Job, Task

from ddpmkit_slurm import Slurm, pool, submission
from ddpmkit_slurm.states import Seen, verdict
from ddpmkit_slurm.submission import PREFIX

TASKS = [Task(f"{i}{'0' * 63}", "train", f"train {i}", {}) for i in range(3)]


@pytest.fixture
def opened(cluster, tmp_path, monkeypatch):
    """Open a pool that waits for nothing, and collect what it says."""
    monkeypatch.setattr(pool, "LINGER", 0.0)
    monkeypatch.setattr(pool, "UNKNOWN", 0.0)
    pools = []

    def make(**parameters):
        events = []
        job = Job(str(tmp_path / "out"), (), False, ("cpu",), 64, 500, run="r", asked_jobs=2)
        made = Slurm(**{"every": 0.02, "grace": 0.0, **parameters}).open(job, events.append, lambda: False)
        pools.append(made)
        return made, events

    yield make
    for one in pools:
        one.close(now=True)


def drive(jobs, events, tasks, *, until=None, stop_after=None):
    """Do what ddpmkit does with a pool; ``until`` tells from the events when that is enough."""
    waiting, deadline = list(tasks), time.monotonic() + 120
    places, seen, stopped = {}, 0, False
    while time.monotonic() < deadline:
        for event in events[seen:]:
            if event["event"] in ("end", "requeued"):
                task = places.pop(next(p for p, t in places.items() if t.id == event["stage"]), None)
                waiting += [task] if event["event"] == "requeued" else []
        seen = len(events)
        if stop_after is not None and not stopped and stop_after(events):
            stopped = True
            jobs.stop()
            continue
        for place in range(0 if stopped else jobs.places):
            if place not in places and waiting:
                places[place] = waiting.pop(0)
                jobs.submit(place, places[place])
        if (until is not None and until(events)) or (not places and seen == len(events)):
            return
        jobs.poll(0.01)
    raise AssertionError(events)


def ends(events):
    return [(e["state"], e.get("error", "")) for e in events if e["event"] == "end"]


def said(events):
    return [e["text"] for e in events if e["event"] == "log"]


@pytest.mark.parametrize(
    ("word", "state", "told"),
    [
        ("FAILED", "failed", "job 12 on node1 ended as FAILED with exit code 0:0 without saying how its stage did"),
        ("COMPLETED", "failed", "job 12 on node1 ended as COMPLETED with exit code 0:0 without saying"),
        ("OUT_OF_MEMORY", "failed", "job 12 on node1 ran out of memory with memory=2; give it more with memory=GIB"),
        ("TIMEOUT", "timed out", "job 12 on node1 was ended by its time limit, minutes=240"),
        ("CANCELLED", "interrupted", "job 12 on node1 was cancelled"),
    ],
)
def test_a_job_that_ended_without_a_word(opened, cluster, word, state, told):
    cluster.plan(word)
    jobs, events = opened(memory=2.0)
    drive(jobs, events, TASKS[:1])
    ((found, error),) = ends(events)
    assert found == state
    assert told in error
    assert any(told in line for line in said(events)) == (state != "interrupted")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("NODE_FAIL", "job 12 on node1 lost its node"),
        ("PREEMPTED", "job 12 on node1 was preempted"),
        ("lost", "job 12 is unknown to Slurm by now"),
    ],
)
def test_a_stage_of_which_nothing_is_wrong_is_handed_out_again(opened, cluster, word, told):
    cluster.plan(word, "FAILED")
    jobs, events = opened()
    drive(jobs, events, TASKS[:1])
    assert [e["event"] for e in events if e["event"] in ("requeued", "end")] == ["requeued", "end"]
    assert said(events)[0] == f"warning: train 0: {told}; it goes on in another job"
    assert cluster.calls("scancel")[0] == "scancel 12"  # so that Slurm does not requeue it as well
    assert "job 13" in ends(events)[0][1]


def test_but_not_for_ever(opened, cluster):
    cluster.plan(*["NODE_FAIL"] * 9)
    jobs, events = opened(requeues=2)
    drive(jobs, events, TASKS[:1])
    assert ends(events) == [
        ("failed", "job 14 on node1 lost its node, and it was begun again requeues=2 times already")
    ]


def test_a_stage_that_its_node_has_stopped_goes_on_elsewhere(opened, cluster):
    cluster.plan("wait", "wait")
    jobs, events = opened()
    drive(jobs, events, TASKS[:1], until=lambda _: jobs.jobs)
    (one,) = jobs.jobs.values()
    (one.file.parent / f"{one.file.name}.end").write_text("interrupted\n")
    jobs.poll(0.0)
    time.sleep(0.1)
    jobs.poll(0.0)
    assert events[-1] == {"event": "requeued", "stage": TASKS[0].id}


def test_ctrl_c_empties_the_queue_and_asks_what_runs_for_its_checkpoint(opened, cluster):
    cluster.plan("wait", "RUNNING", "wait")
    jobs, events = opened(grace=30.0)

    def both_seen(events):
        return any(e.get("note") == "job 12_1: running" for e in events)

    def stop(events):
        if not both_seen(events):
            return False
        one = jobs.jobs[TASKS[1].id]  # the job hears the signal, and says so
        (one.file.parent / f"{one.file.name}.end").write_text("interrupted\n")
        return True

    drive(jobs, events, TASKS, stop_after=stop)
    assert sorted(ends(events)) == [("interrupted", ""), ("interrupted", "job 12_0 on node1 was cancelled")]
    assert cluster.calls("scancel")[:2] == [
        "scancel --state=PENDING 12_0 12_1",
        "scancel --signal=TERM 12_0 12_1",
    ]
    assert (jobs.submissions.folder / "stop").exists()
    assert said(events)[0].startswith("stopping: waiting for train 0; train 1; ")


def test_what_dies_of_the_stop_before_it_has_begun_has_not_failed(opened, cluster):
    cluster.plan("RUNNING")
    jobs, events = opened(grace=30.0)

    def stop(events):
        if jobs.jobs:
            cluster.write("12", state="FAILED", exit="0:15")
        return bool(jobs.jobs)

    drive(jobs, events, TASKS[:1], stop_after=stop)
    assert ends(events)[0][0] == "interrupted"


def test_what_does_not_end_after_the_stop_is_cancelled(opened, cluster):
    cluster.plan("RUNNING")
    jobs, events = opened(grace=0.05)
    drive(jobs, events, TASKS[:1], stop_after=lambda events: jobs.jobs)
    assert ends(events) == [("interrupted", "it had not ended 0.05 s after the stop")]
    assert "scancel 12" in cluster.calls("scancel")


def test_a_second_ctrl_c_cancels_all_and_leaves_no_file(opened, cluster, tmp_path):
    cluster.plan("wait", "wait")
    jobs, events = opened()
    drive(jobs, events, TASKS[:2], until=lambda _: jobs.jobs)
    (folder,) = (tmp_path / "out").glob(f"{PREFIX}*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [*folder.glob("*.pkl")]
    jobs.close(now=True)
    assert ends(events) == [("interrupted", "it was cancelled by a second signal")] * 2
    assert cluster.calls("scancel") == ["scancel 12_0 12_1"]
    assert not [*(tmp_path / "out").iterdir()]


def test_where_the_run_fails_jobs_are_asked_for_checkpoints_and_no_file_is_left(opened, cluster, tmp_path):
    cluster.plan("RUNNING")
    jobs, events = opened(grace=0.1)
    drive(jobs, events, TASKS[:1], until=lambda _: jobs.jobs)
    jobs.close(now=False)
    assert cluster.calls("scancel")[1:] == ["scancel --signal=TERM 12", "scancel 12"]
    assert ends(events) == [("interrupted", "the run ended before it did")]
    assert not [*(tmp_path / "out").iterdir()]


def test_sbatch_s_own_words_are_shown_where_it_refuses(opened, cluster, capsys):
    cluster.plan("refuse")
    jobs, events = opened(partition="nosuch")
    with pytest.raises(DdpmkitError) as caught:
        drive(jobs, events, TASKS[:1])
    assert caught.value.message == ("sbatch refuses: Batch job submission failed: Invalid partition name specified")
    assert "slurm:partition=" in str(caught.value.hint)
    assert capsys.readouterr() == ("", "")


def test_a_queue_that_is_full_for_a_while_is_waited_for(opened, cluster):
    cluster.plan("NODE_FAIL", "refuse", "FAILED")
    jobs, events = opened()
    drive(jobs, events, TASKS[:1])
    assert "sbatch refuses" in said(events)[1]
    assert "tried again in 0.04 s" in said(events)[1]
    assert "job 13" in ends(events)[0][1]


@pytest.mark.parametrize("missing", submission.NEEDED)
def test_a_machine_without_slurm_is_told_apart_at_once(opened, cluster, missing):
    (cluster.folder / "bin" / missing).unlink()
    jobs, events = opened()
    with pytest.raises(DdpmkitError, match=f"^{missing} is not on PATH, and executor 'slurm'") as caught:
        drive(jobs, events, TASKS[:1])
    assert "login node" in str(caught.value.hint)


def test_where_there_is_no_accounting_the_controller_is_asked(opened, cluster):
    (cluster.folder / "mute").write_text("sacct")
    cluster.plan("OUT_OF_MEMORY")
    jobs, events = opened()
    drive(jobs, events, TASKS[:1])
    assert "ran out of memory" in ends(events)[0][1]


def test_a_cluster_that_does_not_answer_is_waited_for(opened, cluster):
    (cluster.folder / "mute").write_text("sacct scontrol")
    cluster.plan("FAILED")
    jobs, events = opened()
    drive(jobs, events, TASKS[:1], until=said)
    for _ in range(3):
        time.sleep(0.03)
        jobs.poll(0.0)
    assert said(events) == [
        "warning: Slurm does not answer (scontrol: error: Unable to contact slurm controller (connect failure)); "
        "jobs go on, and it is asked again"
    ]
    (cluster.folder / "mute").unlink()
    for _ in range(200):
        if not jobs.jobs:
            break
        jobs.poll(0.01)
    assert ends(events)[0][0] == "failed"


def test_a_setup_that_fails_is_seen_in_the_last_lines(opened, cluster):
    # The script is run, by a real shell.
    jobs, events = opened(setup="echo 'module: no such thing'; exit 3")
    drive(jobs, events, TASKS[:1])
    assert ends(events)[0][0] == "failed"
    assert "exit code 3:0" in ends(events)[0][1]
    assert "  | module: no such thing" in said(events)


def test_folders_of_runs_that_were_killed_are_swept_but_not_under_their_jobs(opened, cluster, tmp_path):
    cluster.plan("wait", "wait", "FAILED", "FAILED", "FAILED")
    first, _ = opened()
    drive(first, [], TASKS[:2], until=lambda _: first.jobs)
    (folder,) = (tmp_path / "out").glob(f"{PREFIX}*")
    first.jobs = {}  # killed with SIGKILL: it does nothing any more
    first.submissions = None

    def another():
        jobs, events = opened()
        drive(jobs, events, TASKS[:1])
        return said(events)

    assert "earlier run" not in another()[0]  # it has just given a sign of life
    old = time.time() - submission.SILENT - 1
    os.utime(folder, (old, old))
    cluster.say("scancel", "12_0")
    assert "jobs of an earlier run are in Slurm still: 12_1; " in another()[0]
    assert folder.exists()
    cluster.say("scancel", "12_1")
    os.utime(folder, (old, old))
    another()
    assert not folder.exists()


def test_news_that_are_none_are_passed_over(opened, cluster):
    cluster.plan("RUNNING")
    jobs, events = opened()
    drive(jobs, events, TASKS[:1], until=lambda _: jobs.jobs)
    (one,) = jobs.jobs.values()
    for news in (
        "[]", "{", '{"begun": 1, "event": {"event": "progress", "done": 7}}',
        '{"begun": true, "event": {"event": "x"}}',
        '{"begun": true, "event": {"event": "progress", "done": 0.5, "stage": "another"}}',
    ):  # fmt: skip
        (one.file.parent / f"{one.file.name}.news").write_text(news)
        jobs._look_at_files()
    told = [e for e in events if e["event"] != "log" and "note" not in e]
    assert told == [
        {"event": "attempt", "stage": TASKS[0].id},
        {"event": "progress", "stage": TASKS[0].id, "done": 0.5},
    ]


@pytest.mark.parametrize("state", ["BOOT_FAIL", "DEADLINE", "REVOKED", "LAUNCH_FAILED"])
def test_rarer_states_have_words_too(state):
    found, why = verdict("12", Seen(state, "0:0", "None assigned"), None, 60)
    assert found in ("", "timed out")
    assert why.startswith("job 12 ")


def test_a_job_inside_of_a_job_does_not_inherit_its_wishes(opened, cluster, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    monkeypatch.setenv("SLURM_CONF", "/etc/here")
    with submission._outside_of_jobs():
        assert [k for k in os.environ if k.startswith("SLURM_")] == ["SLURM_CONF"]
    assert os.environ["SLURM_MEM_PER_NODE"] == "100"
