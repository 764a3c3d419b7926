"""What was found to go wrong between the launcher, Slurm's answers, and what others put into the results folder."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import replace

import pytest
from ddpmkit import Job, Task

from ddpmkit_slurm import Slurm, pool, submission
from ddpmkit_slurm.output import keep_log
from ddpmkit_slurm.signals import held_back
from ddpmkit_slurm.states import GONE, Seen, _said
from ddpmkit_slurm.submission import Submissions
from ddpmkit_slurm.submitted import Submitted

TASK = Task("0" * 64, "train", "train 0", {})


@pytest.fixture
def job(tmp_path):
    return Job(str(tmp_path / "out"), (), False, ("cpu",), 64, 500, run="r")


@pytest.fixture
def looking(job, tmp_path, monkeypatch):
    """A pool with one job, and Slurm's answers as functions of ours."""
    monkeypatch.setattr(pool, "LINGER", 0.0)
    monkeypatch.setattr(pool, "UNKNOWN", 0.0)
    monkeypatch.setattr(pool, "cancel", lambda *_: None)
    events = []
    jobs = Slurm().open(job, events.append, lambda: False)
    jobs.jobs = {TASK.id: Submitted(TASK, "12", tmp_path / "1.json")}

    def answers(accounting, *controller):
        said = iter(controller)
        monkeypatch.setattr(pool, "ask", lambda _: accounting)
        monkeypatch.setattr(pool, "ask_controller", lambda _: next(said))

    def look(times):
        for _ in range(times):
            time.sleep(0.001)
            jobs._ask_slurm()
        return [e for e in events if e["event"] in ("end", "requeued")]

    return jobs, answers, look


def test_ctrl_c_while_sbatch_is_at_work_loses_no_job(job, cluster):
    sbatch = cluster.folder / "bin" / "sbatch"
    # As a terminal does: to all that is in front.
    sbatch.write_text(sbatch.read_text().replace("exec", "kill -INT $PPID; kill -INT $$\nexec", 1))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    events = []
    jobs = Slurm().open(job, events.append, lambda: False)
    try:
        jobs.submit(0, TASK)
        with pytest.raises(KeyboardInterrupt):
            jobs.poll(0.0)
    finally:
        signal.signal(signal.SIGINT, before)
    jobs.close(now=True)
    assert cluster.calls("scancel") == ["scancel 12"]
    assert [e["state"] for e in events if e["event"] == "end"] == ["interrupted"]


def test_each_signal_that_was_held_back_comes_at_the_end():
    came = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    with held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert came == []
    assert sorted(came) == sorted(before)
    for number, handler in before.items():
        signal.signal(number, handler)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_question_to_slurm_is_in_a_session_of_its_own():
    # In front of a terminal it would die of Ctrl-C.
    assert _said(sys.executable, "-S", "-E", "-c", "import os; print(os.getsid(0) == os.getpid())") == "True\n"


def test_what_the_controller_says_of_an_end_stays(looking):
    _, answers, look = looking
    answers({}, Seen("OUT_OF_MEMORY"), Seen(GONE), Seen(GONE))
    (ended,) = look(4)
    assert (ended["event"], ended["state"]) == ("end", "failed")
    assert "ran out of memory" in ended["error"]


def test_a_job_that_runs_in_the_accounting_alone_is_not_waited_for(looking, monkeypatch):
    _, answers, look = looking
    answers({"12": Seen("RUNNING")})
    assert look(3) == []
    monkeypatch.setattr(pool, "QUIET", 0.0)
    answers({"12": Seen("RUNNING")}, Seen("RUNNING"), Seen(GONE))
    assert look(4)[0] == {"event": "requeued", "stage": TASK.id}


def test_a_stage_whose_word_was_lost_is_done_where_its_output_is_there(looking, job):
    _, answers, look = looking
    out = job.folder(TASK) / "out"
    out.mkdir(parents=True)
    (out / "COMMIT.json").touch()
    answers({"12": Seen("COMPLETED")})
    assert look(3) == [{"event": "end", "stage": TASK.id, "state": "done"}]


def test_where_nobody_says_how_many_the_login_node_does_not(job):
    def places(asked, **parameters):
        return Slurm(**parameters).open(replace(job, asked_jobs=asked), lambda _: None, lambda: False).places

    assert [places(None), places(5), places(5000), places(5, places=7)] == [pool.PLACES, 5, 1000, 7]


def test_a_sign_of_life_is_given_without_jobs_too_and_a_folder_that_was_swept_is_made_again(job, cluster):
    cluster.plan("wait")
    jobs = Slurm().open(job, lambda _: None, lambda: False)
    jobs.submissions = Submissions(jobs.executor, job)
    os.utime(jobs.submissions.folder, (0, 0))
    jobs._look_at_files()
    assert jobs.submissions.folder.stat().st_mtime > 0
    shutil.rmtree(jobs.submissions.folder)
    assert jobs.submissions.submit([TASK])[0][0] == "12"
    assert jobs.submissions.remove()


def test_names_that_others_put_there_are_no_jobs(job, cluster, tmp_path):
    stray = tmp_path / "out" / f"{submission.PREFIX}x"
    stray.mkdir(parents=True)
    (stray / "foo_submitted.pkl").touch()
    os.utime(stray, (0, 0))
    submissions = Submissions(Slurm(), job)
    assert submissions.sweep() == []
    assert submissions.remove()


def test_a_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "log").write_text("printed")
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "log.txt.half").symlink_to("theirs")
    keep_log(tmp_path / "log", tmp_path / "log.txt")
    assert (tmp_path / "theirs").read_text() == "precious"
    assert (tmp_path / "log.txt").read_text() == "printed"
    assert not (tmp_path / "log.txt").is_symlink()
    keep_log(tmp_path / "none", tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == "printed"
    assert not (tmp_path / "log.txt.half").exists()
