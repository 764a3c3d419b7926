"""Who is at work on a stage: one process at a time, and nobody is taken for dead who may be alive."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import claim as claims
from ddpmkit.study import processes, takeover
from ddpmkit.study.claim import Claim, Held, claimed, free, holder, told
from ddpmkit.study.config import make_study
from ddpmkit.study.ending import settle
from ddpmkit.study.execute import execute
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.store import Store
from ddpmkit.study.takeover import TakeOver, to_steal

TINY = {
    "train_steps": 4, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 50, "eval_batch": 8,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=4", "train_seeds": "0",
    "metrics": "fd",
}  # fmt: skip
ELSEWHERE = Claim("node3", "0a1b", "boot-7", "pid:[1]", 4711, "99", "another run", "8c1d")


@pytest.fixture
def held_by_us(monkeypatch):
    """A claim as this process holds it."""
    ours = Claim.ours("x")
    monkeypatch.setattr(claims, "_MINE", {ours.mark})
    return ours


def put(folder, claim, name="claim.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(asdict(claim)))


def gone():
    """The claim of a process of this machine that is no more."""
    return replace(Claim.ours("gone"), born="1")


def anyone(_):
    """From whom to take over."""
    return True


def whose(claim):
    """A claim but for its mark."""
    return replace(claim, mark="")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def left_by_a_process(folder, end="os._exit(0)"):
    """A process that claims and ends without a word; it is waited for."""
    code = f"""
import os, sys
from pathlib import Path
from ddpmkit.study.claim import claimed
with claimed(Path(sys.argv[1]), "gone") as held:
    print("claimed", flush=True)
    {end}
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_claim_is_made_and_given_back(tmp_path):
    folder = tmp_path / "stage"
    with claimed(folder, "mine") as held:
        assert isinstance(held, Held)
        assert held.holds()
        assert not held.lost()
        assert whose(holder(folder)) == whose(Claim.ours("mine"))
        assert names(folder) == ["alive", "claim.json"]
        with claimed(folder, "other") as second:
            assert second == held.claim
        assert held.holds()
    assert holder(folder) is None
    assert names(folder) == []


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_that_try_at_once_one_has_it(tmp_path, dead):
    winners = set()
    for round_ in range(30):
        folder = tmp_path / str(round_)
        if dead:
            put(folder, gone())
        start, inside, had = threading.Barrier(6), [0, 0], []
        lock = threading.Lock()

        def attempt(seed, folder=folder, start=start, inside=inside, had=had, lock=lock):
            start.wait()
            for _ in range(4):
                with claimed(folder, str(seed)) as held:
                    if isinstance(held, Held):
                        with lock:
                            inside[0] += 1
                            inside[1] = max(inside)
                            had.append(seed)
                        time.sleep(random.Random(seed).random() / 2000)
                        with lock:
                            inside[0] -= 1

        threads = [threading.Thread(target=attempt, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert inside[1] == 1
        assert names(folder) == []
        winners |= set(had)
    assert len(winners) > 1  # they did compete


def test_who_took_over_from_one_that_another_has_already_replaced_withdraws(tmp_path, monkeypatch):
    # The slow one finds the first claim's owner dead; before it adds its own, a fast one has taken over, run and given
    # all back, and a third one has claimed the stage anew.
    folder, made, asked = tmp_path / "stage", claims._made, []
    put(folder, gone())

    def slow(path, claim):
        asked.append(path.name)
        if len(asked) == 1:
            with claimed(folder, "fast") as held:
                assert isinstance(held, Held)
            put(folder, ELSEWHERE)
        return made(path, claim)

    monkeypatch.setattr(claims, "_made", slow)
    with claimed(folder, "slow") as found:
        assert found == ELSEWHERE
    assert names(folder) == ["claim.json"]
    assert holder(folder) == ELSEWHERE


def test_who_gives_back_what_was_taken_over_at_that_moment_leaves_it(tmp_path, monkeypatch):
    folder, made = tmp_path / "stage", claims._made
    with claimed(folder, "first") as first:

        def slow(path, claim):
            monkeypatch.setattr(claims, "_made", made)
            assert isinstance(claims._take(folder, "second", anyone), Held)
            return made(path, claim)

        monkeypatch.setattr(claims, "_made", slow)
    assert not first.holds()
    assert holder(folder).run == "second"


@pytest.mark.parametrize("reaped", [True, False])
def test_a_process_that_ended_without_a_word_is_known_to_be_dead(tmp_path, reaped):
    folder = tmp_path / "stage"
    process = left_by_a_process(folder)
    assert process.stdout.readline() == "claimed\n"
    if reaped:
        process.wait()
    else:  # what is left of it is there until somebody asks: a parent that never does must not hold the stage for ever
        process.stdout.read()
        until = time.monotonic() + 60
        while holder(folder) is not None and time.monotonic() < until:
            time.sleep(0.01)
    assert (folder / "claim.json").exists()
    assert holder(folder) is None
    with claimed(folder, "mine") as held:
        assert isinstance(held, Held)
        assert len(list(folder.glob("claim*.json"))) == 2
    assert names(folder) == []
    process.communicate()


def test_a_process_that_lives_is_not_taken_for_dead(tmp_path):
    folder = tmp_path / "stage"
    process = left_by_a_process(folder, "sys.stdin.read()")
    try:
        assert process.stdout.readline() == "claimed\n"
        with claimed(folder, "mine") as found:
            assert isinstance(found, Claim)
            assert (found.pid, found.run, found.alive, found.dead) == (process.pid, "gone", True, False)
    finally:
        process.kill()
        process.communicate()


def test_what_proves_that_a_process_is_gone(held_by_us):
    ours = held_by_us
    assert ours.alive
    assert not ours.dead
    assert replace(ours, born=f"{ours.born}0").dead  # the number was given again, to another process
    assert replace(ours, pid=2**22 + 1).dead  # there are no such numbers
    # Of these nothing is known: their numbers mean nothing here.
    for other in (replace(ours, host="node3"), replace(ours, space="pid:[1]"), replace(ours, machine="0a1b"), Claim()):
        assert not replace(other, pid=2**22 + 1).dead
        assert not other.alive


def test_a_process_from_before_the_machine_was_started_again_is_gone(monkeypatch):
    space = claims.OUTERMOST
    monkeypatch.setattr(claims, "here", lambda: ("laptop", "0a1b", "boot-8", space))
    before = Claim("laptop", "0a1b", "boot-7", space, os.getpid(), "99")
    assert before.dead
    assert not replace(before, host="other").dead  # another machine
    assert not replace(before, machine="ffff").dead  # one that is called the same
    assert not replace(before, boot="").dead
    assert not replace(before, space="pid:[2]").dead  # a container, which may have run anywhere
    monkeypatch.setattr(claims, "here", lambda: ("laptop", "", "boot-8", space))
    assert not replace(before, machine="").dead  # a container that knows no machine by any number


def test_a_copy_of_this_machine_is_not_this_machine_before_it_was_started_again(tmp_path, monkeypatch):
    # Two copies of one virtual machine have one name and one machine id; each sees another boot than its own.
    space, folder = claims.OUTERMOST, tmp_path / "stage"
    monkeypatch.setattr(claims, "here", lambda: ("vm", "0a1b", "boot-8", space))
    copy = Claim("vm", "0a1b", "boot-7", space, 4711, "99", mark="1")
    put(folder, copy)
    (folder / "alive").touch()
    monkeypatch.setattr(claims, "booted", lambda: time.time() - 3600)
    assert holder(folder) == copy
    monkeypatch.setattr(claims, "booted", lambda: time.time() + 3600)  # nothing was heard since
    assert holder(folder) is None
    monkeypatch.setattr(claims, "booted", lambda: 0.0)
    assert holder(folder) == copy
    assert 0 < processes.booted() < time.time()


def test_a_machine_is_not_known_by_its_name_alone(monkeypatch):
    # As on a system that says neither its id nor its boot.
    monkeypatch.setattr(claims, "here", lambda: ("laptop", "", "", ""))
    other = Claim("laptop", pid=2**22 + 1, mark="1")
    assert not other.beside_us
    assert not other.dead
    assert not other.alive
    ours = replace(other, pid=os.getpid())
    monkeypatch.setattr(claims, "_MINE", {"1"})
    assert ours.alive
    assert not ours.dead


def test_on_macos_the_system_is_asked(monkeypatch):
    said = {"sysctl": "5C1A\n", "ps": "Ss   Fri Nov 27 08:00:29 2026\n"}
    asked = []

    def answer(command, **options):
        asked.append((command, options["env"]["LC_ALL"], options["env"]["TZ"]))
        if not said:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, said[command[0]], "")

    monkeypatch.setattr(processes.sys, "platform", "darwin")
    monkeypatch.setattr(processes.subprocess, "run", answer)
    assert processes.here.__wrapped__() == (socket.gethostname(), "", "5C1A", "")
    assert processes.stat(4711) == ("S", "Fri Nov 27 08:00:29 2026")
    assert asked[-1] == (("ps", "-o", "stat=", "-o", "lstart=", "-p", "4711"), "C", "UTC")
    assert processes.ended(os.getpid(), "Fri Nov 27 07:00:00 2026")
    assert not processes.ended(os.getpid(), "Fri Nov 27 08:00:29 2026")
    said.clear()
    assert processes.here.__wrapped__() == (socket.gethostname(), "", "", "")
    assert not processes.ended(os.getpid(), "Fri Nov 27 07:00:00 2026")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"host": 3}', '{"pid": true}', json.dumps({**asdict(ELSEWHERE), "pid": "x"})]
)
def test_a_claim_that_cannot_be_read_is_nobodys_proof(tmp_path, content):
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "claim.json").write_text(content)
    with claimed(folder, "mine") as found:
        assert found == Claim()
        assert str(found) == "a process that nothing is known of"
    with claimed(folder, "mine", over=anyone) as held:
        assert isinstance(held, Held)
    assert names(folder) == []


def test_a_claim_outlives_a_power_cut(tmp_path, monkeypatch):
    # Of what is not synced a disk may keep the name and lose the content, or lose both: then nobody has the stage.
    synced, named = [], []

    def sync(descriptor):
        place = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        synced.append(place)
        named.append((place, names(folder)))

    folder = tmp_path / "stage"
    monkeypatch.setattr(files.os, "fsync", sync)
    with claimed(folder, "mine"):
        assert [Path(place).name.startswith(".tmp-") for place in synced] == [True, False]
        assert named[0][1] == [Path(synced[0]).name]  # before it has its name
        assert named[1] == (str(folder), ["claim.json"])  # and the name itself


def test_a_claim_that_cannot_be_read_is_nobodys_after_a_while(monkeypatch):
    # Whoever had it looks every LOOK seconds and leaves; a claim that has come back to sense is somebody's again.
    now = [1000.0]
    monkeypatch.setattr(takeover.time, "monotonic", lambda: now[0])
    over = TakeOver()
    asked = []
    for claim, seconds in (
        (Claim(), 0), (Claim(), claims.SILENT), (Claim(), 1), (ELSEWHERE, 1), (Claim(), 1), (Claim(), claims.SILENT),
    ):  # fmt: skip
        now[0] += seconds
        asked.append(over(claim))
    assert asked == [False, False, True, False, False, False]
    assert claims.SILENT > 2 * claims.LOOK


def test_a_stage_whose_claim_is_spoilt_runs_after_a_while(registry, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(takeover, "SILENT", 1.0)
    stage, store = next(iter(plan.stages.values())), Store(tmp_path)
    folder, notes = store.folder(stage.kind, stage.id), []
    folder.mkdir(parents=True)
    (folder / "claim.json").touch()
    assert execute(stage, store, registry, StageOptions(device="cpu"), lambda e: notes.append(e.get("note"))) == "done"
    assert notes[0] == "a process that nothing is known of runs it"
    assert holder(folder) is None


def test_a_stolen_stage_is_lost_to_whoever_had_it(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LOOK", 0.0)
    folder = tmp_path / "stage"
    with claimed(folder, "first") as first:
        assert not first.lost()
        with claimed(folder, "second", over=anyone) as second:
            assert isinstance(second, Held)
            assert first.lost()
            assert second.holds()
        assert names(folder) == []
        assert not first.holds()
        with claimed(folder, "third") as third:
            assert isinstance(third, Held)
            assert first.lost()
    assert names(folder) == []


def test_what_is_stolen_is_what_stood_claimed_when_the_run_began(registry, plan, tmp_path, held_by_us):
    store, stages = Store(tmp_path), [*plan.stages.values()][:4]
    later = replace(ELSEWHERE, mark="later")
    for stage, claim in zip(stages, (ELSEWHERE, held_by_us, gone(), None), strict=True):
        if claim is not None:
            put(store.folder(stage.kind, stage.id), claim)
    marks, said = to_steal(stages, store)
    assert marks == (ELSEWHERE.mark,)
    assert said == [
        f"{stages[0].label}: process 4711 on node3 has it; it is taken over",
        f"{stages[1].label}: {held_by_us} has it, which lives; it is waited for",
    ]
    over = TakeOver(steal=marks)
    assert over(ELSEWHERE)
    assert not over(later)
    assert not TakeOver()(ELSEWHERE)


def test_the_newer_one_of_two_processes_of_one_run_has_a_stage(registry, plan, tmp_path, held_by_us):
    # An engine has started a job again, on another node; it knows that the first one is lost.
    mine = replace(ELSEWHERE, run="mine")
    assert TakeOver(run="mine")(mine)
    assert not TakeOver(run="mine")(ELSEWHERE)
    assert not TakeOver()(replace(ELSEWHERE, run=""))
    assert not TakeOver(run="x")(held_by_us)  # it is seen to live, whatever the engine thinks
    over = TakeOver(steal=(ELSEWHERE.mark,), run="mine")
    over.had = True  # a node that comes back finds that the newer one has it, and does not take it again
    assert not over(mine)
    assert not over(ELSEWHERE)

    stage, store = next(iter(plan.stages.values())), Store(tmp_path)
    put(store.folder(stage.kind, stage.id), mine)
    assert execute(stage, store, registry, StageOptions(device="cpu", run="mine"), lambda _: None) == "done"


@pytest.mark.long
def test_who_has_lost_a_stage_to_its_own_run_waits(registry, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LOOK", 0.0)
    stage, store = next(s for s in plan.stages.values() if s.kind == "train"), Store(tmp_path)
    folder, said = store.folder(stage.kind, stage.id), []

    def listen(event):
        said.append(event)
        if event["event"] == "progress" and "step" in event and not any("note" in e for e in said):
            put(folder, replace(ELSEWHERE, run="mine"), claims._end(folder)[0])

    def waits():
        return any("note" in e for e in said)

    options = StageOptions(device="cpu", run="mine")
    assert execute(stage, store, registry, options, listen, waits) == "interrupted"
    assert holder(folder) == replace(ELSEWHERE, run="mine")


def test_a_loop_may_ask_at_every_step_whether_it_holds(tmp_path, monkeypatch):
    looks, end = [], claims._end
    with claimed(tmp_path / "stage", "mine") as held:
        monkeypatch.setattr(claims, "_end", lambda folder: looks.append(folder) or end(folder))
        monkeypatch.setattr(claims.time, "monotonic", lambda: held._looked + claims.LOOK)
        assert not any(held.lost() for _ in range(1000))
        assert looks == []
        monkeypatch.setattr(claims.time, "monotonic", lambda: held._looked + claims.LOOK + 0.1)
        assert not held.lost()
        assert len(looks) == 1
        monkeypatch.undo()


def test_the_engine_knows_that_its_own_process_has_ended(tmp_path):
    folder = tmp_path / "stage"
    put(folder, ELSEWHERE)
    free(folder, "mine")
    free(folder, "")
    assert holder(folder) == ELSEWHERE
    free(folder, ELSEWHERE.run)
    assert holder(folder) is None
    with claimed(folder, "mine") as held:  # it is seen to live, whatever the engine thinks
        free(folder, "mine")
        assert held.holds()


def test_who_has_been_silent_is_said_and_how_to_go_on(tmp_path, held_by_us):
    folder = tmp_path / "stage"
    put(folder, ELSEWHERE)
    (folder / "alive").touch()
    assert told(folder, ELSEWHERE) == "process 4711 on node3 runs it"
    old = time.time() - 7200
    os.utime(folder / "alive", (old, old))
    os.utime(folder / "claim.json", (old, old))
    assert told(folder, ELSEWHERE) == (
        "process 4711 on node3 runs it, silent for 2:00:00; if it is gone, take it over with --steal"
    )
    assert told(folder, held_by_us) == f"process {os.getpid()} on {socket.gethostname()} runs it"


def test_it_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    folder = tmp_path / "stage"
    with claimed(folder, "mine"):
        os.utime(folder / "alive", (0, 0))
        until = time.monotonic() + 60
        while (folder / "alive").stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.005)
        assert (folder / "alive").stat().st_mtime > 1


def test_where_the_file_system_has_no_links_there_is_one_owner_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(claims.os, "link", refuse)
    with claimed(tmp_path / "stage", "mine") as held, claimed(tmp_path / "stage", "other") as other:
        assert isinstance(held, Held)
        assert other == held.claim
    assert names(tmp_path / "stage") == []


def test_a_full_disk_leaves_no_claim_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_synced", full)
    with pytest.raises(OSError, match="No space"):
        claims._take(tmp_path / "stage", "mine")
    assert names(tmp_path / "stage") == []


def test_a_process_of_somebody_else_that_cannot_be_looked_at_is_not_dead(monkeypatch, held_by_us):
    # As on a cluster whose /proc hides what is not one's own.
    def refuse(*_):
        raise PermissionError

    ours = held_by_us
    monkeypatch.setattr(claims.os, "kill", refuse)
    monkeypatch.setattr(processes, "stat", lambda _: ("", ""))
    assert ours.alive
    assert not ours.dead


def test_a_disk_that_fills_up_meanwhile_holds_no_claim_back(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with claimed(tmp_path / "stage", "mine") as held:
        monkeypatch.setattr(files, "_write_synced", full)
        assert held.holds()
    assert names(tmp_path / "stage") == []
    monkeypatch.undo()
    put(tmp_path / "stage", ELSEWHERE)
    monkeypatch.setattr(files, "_write_synced", full)
    free(tmp_path / "stage", ELSEWHERE.run)
    assert names(tmp_path / "stage") == []


def test_a_file_system_that_stumbles_takes_no_claim_away(tmp_path, monkeypatch):
    def stumble(_):
        raise OSError(5, "Input/output error")

    with claimed(tmp_path / "stage", "mine") as held:
        with monkeypatch.context() as m:
            m.setattr(claims.files, "read_record", stumble)
            assert held.holds()
            assert holder(tmp_path / "stage") == Claim()
        assert held.holds()
    assert names(tmp_path / "stage") == []


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


@pytest.fixture(scope="module", autouse=True)
def few(few_digits):
    TINY["dataset"] = few_digits


@pytest.fixture(scope="module")
def plan(registry, few):
    return make_plan(make_study(TINY, registry), registry)


@pytest.mark.long
def test_a_stage_that_is_taken_over_stops_and_writes_nothing_more(registry, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LOOK", 0.0)
    stage, store = next(s for s in plan.stages.values() if s.kind == "train"), Store(tmp_path)
    folder, written = store.folder(stage.kind, stage.id), []

    def steal(event):
        if event["event"] == "progress" and not written:
            put(folder, ELSEWHERE, claims._end(folder)[0])
            files.write_sealed(folder / "status.json", {"state": "running", "attempt": 7})
            written.append((folder / "status.json").read_bytes())

    options = StageOptions(device="cpu")
    assert execute(stage, store, registry, options, steal, lambda: bool(written)) == "interrupted"
    assert not (folder / "ckpt").exists()
    assert not (folder / "out").exists()
    assert (folder / "status.json").read_bytes() == written[0]
    assert store.held(stage.kind, stage.id)
    assert holder(folder) == ELSEWHERE
    assert not store.done(stage.kind, stage.id)
    options = StageOptions(device="cpu", steal=(ELSEWHERE.mark,))
    assert execute(stage, store, registry, options, lambda _: None) == "done"
    alone = Store(tmp_path / "alone")
    assert execute(stage, alone, registry, StageOptions(device="cpu"), lambda _: None) == "done"
    last = "ckpt/00000004/model.safetensors"
    assert (folder / last).read_bytes() == (alone.folder(stage.kind, stage.id) / last).read_bytes()


def test_a_claim_that_its_own_process_forgot_holds_nothing_up(tmp_path, monkeypatch):
    # A second Ctrl-C in the middle of giving it back, in a notebook that lives on.
    folder = tmp_path / "stage"

    def cut_short(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(claims, "_closed", cut_short)
        with pytest.raises(KeyboardInterrupt), claimed(folder, "mine"):
            pass
    assert (folder / "claim.json").exists()
    assert holder(folder) is None
    with claimed(folder, "mine") as held:
        assert isinstance(held, Held)
    assert names(folder) == []


def test_a_link_whose_answer_was_lost_is_made(tmp_path, monkeypatch):
    link = os.link

    def link_and_lose_the_answer(source, target):
        link(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(claims.os, "link", link_and_lose_the_answer)
    with claimed(tmp_path / "stage", "mine") as held:
        assert isinstance(held, Held)
        with claimed(tmp_path / "stage", "other") as other:
            assert other == held.claim
    assert names(tmp_path / "stage") == []


def test_a_claim_that_is_being_given_back_is_not_stolen_from_a_process_that_lives(tmp_path, monkeypatch):
    folder, seen, made = tmp_path / "stage", [], claims._made

    def then_steal(path, claim):
        done = made(path, claim)
        if claim.ending:
            monkeypatch.setattr(claims, "_made", made)
            seen.append(claims._take(folder, "thief", anyone))
        return done

    with claimed(folder, "mine"):
        monkeypatch.setattr(claims, "_made", then_steal)
    assert [claim.ending for claim in seen] == ["yes"]
    assert names(folder) == []


def test_who_is_stolen_from_before_it_has_looked_leaves_the_thief_its_chain(tmp_path, monkeypatch):
    folder, thief, made = tmp_path / "stage", [], claims._made

    def then_be_stolen_from(path, claim):
        monkeypatch.setattr(claims, "_made", made)
        done = made(path, claim)
        thief.append(claims._take(folder, "thief", anyone))
        return done

    monkeypatch.setattr(claims, "_made", then_be_stolen_from)
    with claimed(folder, "mine") as found:
        assert found == thief[0].claim
    assert thief[0].holds()


def test_what_another_process_found_to_diverge_is_not_trained_again(registry, plan, tmp_path, monkeypatch):
    stage, store = next(s for s in plan.stages.values() if s.kind == "train"), Store(tmp_path)
    folder = store.folder(stage.kind, stage.id)
    put(folder, ELSEWHERE)

    def ends(event):
        (folder / "claim.json").unlink()
        files.write_sealed(folder / "status.json", {"state": "diverged", "attempt": 1})

    assert execute(stage, store, registry, StageOptions(device="cpu"), ends) == "diverged"
    assert store.status(stage.kind, stage.id)["attempt"] == 1


def test_a_stage_whose_output_is_there_is_done_whoever_claims_it(registry, plan, tmp_path):
    stage, store = next(iter(plan.stages.values())), Store(tmp_path)
    assert execute(stage, store, registry, StageOptions(device="cpu"), lambda _: None) == "done"
    put(store.folder(stage.kind, stage.id), ELSEWHERE)
    assert execute(stage, store, registry, StageOptions(device="cpu"), lambda _: None, lambda: True) == "done"


@pytest.mark.long
def test_a_study_takes_a_stage_of_another_machine_over_when_it_is_told_to(plan, tmp_path, capfd):
    stage, store = next(s for s in plan.stages.values() if s.kind == "train"), Store(tmp_path)
    folder, study = store.folder(stage.kind, stage.id), tmp_path / "study.toml"
    study.write_text(plan.study.toml())
    prepared = prepare({"study": str(study)}, out=tmp_path, run_options=RunOptions(1, "cpu", "inline"))
    put(folder, ELSEWHERE)
    record = {"state": "running", "attempt": 1, "seconds": 0.0, "work": 1.0}
    files.write_sealed(folder / "status.json", record)
    store.prepare()
    prepared.folder.mkdir(parents=True)
    files.write_sealed(prepared.folder / "plan.json", prepared.plan.json())
    assert store.status(stage.kind, stage.id) == record

    assert main(["status", f"--out={tmp_path}", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["kinds"]["train"] == {"running": 1}
    assert found["running"] == [{"label": stage.label, "where": "process 4711 on node3 runs it"}]
    assert main(["status", f"--out={tmp_path}"]) == 0
    assert f"{stage.label}: process 4711 on node3 runs it\n" in capfd.readouterr().err

    command = ["ablate", str(study), f"--out={tmp_path}", "--executor=inline", "--device=cpu"]
    assert main([*command, "--steal"]) == 0
    assert f"{stage.label}: process 4711 on node3 has it; it is taken over\n" in capfd.readouterr().err
    assert store.done(stage.kind, stage.id)
    assert holder(folder) is None
    capfd.readouterr()
    assert main(["status", f"--out={tmp_path}", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["kinds"]["train"] == {"done": 1}
    assert found["running"] == []


def test_what_the_executor_reports_as_ended_is_no_claim_any_more(plan, tmp_path):
    stage, store = next(s for s in plan.stages.values() if s.kind == "train"), Store(tmp_path)
    folder = store.folder(stage.kind, stage.id)
    put(folder, replace(ELSEWHERE, run="mine"))
    files.write_sealed(folder / "status.json", {"state": "running", "attempt": 1, "seconds": 0.0, "work": 1.0})
    settle(store, stage, {"event": "end", "stage": stage.id, "state": "failed", "error": "node3 was lost"}, "mine")
    assert store.status(stage.kind, stage.id)["error"] == "node3 was lost"
    assert names(folder) == ["status.json"]


def test_of_another_run_the_executor_knows_nothing(plan, tmp_path):
    stage, store = next(s for s in plan.stages.values() if s.kind == "train"), Store(tmp_path)
    folder = store.folder(stage.kind, stage.id)
    put(folder, ELSEWHERE)
    files.write_sealed(folder / "status.json", {"state": "running", "attempt": 1, "seconds": 0.0, "work": 1.0})
    settle(store, stage, {"event": "end", "stage": stage.id, "state": "interrupted"}, "mine")
    assert store.status(stage.kind, stage.id)["state"] == "running"
    assert holder(folder) == ELSEWHERE
