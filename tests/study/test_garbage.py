"""What no study needs goes to the trash, nothing else: the rest answers report, sample and a longer training."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import ddpmkit
from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.study import garbage
from ddpmkit.study.catalogue import remove_study
from ddpmkit.study.claim import claimed
from ddpmkit.study.garbage import DATA, EARLIER, LEFT, OPTIMISERS, STAGES, collect, find_garbage
from ddpmkit.study.presence import COLLECTION, collected_lately, collecting
from ddpmkit.study.runner import run
from ddpmkit.study.sharing import SHARED
from ddpmkit.study.store import Store
from ddpmkit.study.trash import TRASH, size_of
from ddpmkit.training import checkpoint


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is not in a trash."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and TRASH not in p.parts and COLLECTION not in p.parts
    }


def numbers(out: Path, study: str) -> str:
    """What the report of a study says."""
    assert main(["report", study, "--out", str(out), "--format", "json", "--to", str(out / "r.json")]) == 0
    return (out / "r.json").read_text()


def trainings(out: Path) -> list[Path]:
    return sorted(p for p in (out / "store" / "train").glob("[0-9a-f][0-9a-f]/*"))


def test_what_studies_need_stays_and_earlier_checkpoints_go(two_studies: Path, capsys) -> None:
    store, before = Store(two_studies), content(two_studies)
    said = numbers(two_studies, "both")
    samples = ddpmkit.load("both", "cosine", out=two_studies, device="cpu").sample(4)
    found = find_garbage(store)
    assert {i.what for i in found.items} == {EARLIER}
    assert [i.path.name for i in found.items] == ["00000004"] * 3
    collect(store, found)
    gone = set(before) - set(content(two_studies))
    assert gone
    assert all("/ckpt/00000004/" in name for name in gone)
    assert numbers(two_studies, "both") == said
    np.testing.assert_array_equal(ddpmkit.load("both", "cosine", out=two_studies, device="cpu").sample(4), samples)
    for folder in trainings(two_studies):  # a longer training goes on from here
        last = checkpoint.newest(folder / "ckpt")
        assert last is not None
        assert last.step == 6
        assert last.optim
        assert last.model
    assert find_garbage(store).items == ()
    assert main(["gc", "--out", str(two_studies), "--yes"]) == 0
    assert "there is nothing to collect" in capsys.readouterr().err


def test_stages_that_only_a_removed_study_needed_go_and_come_back(two_studies: Path, run_small) -> None:
    store = Store(two_studies)
    both = content(two_studies)
    said = numbers(two_studies, "more")
    remove_study(store, "both")
    found = find_garbage(store)
    counts = found.counts()
    kinds = sorted(i.home.name for i in found.items if i.what == STAGES)
    assert kinds == ["draw", "draw", "nll", "nll", "sample", "score", "train"]  # of cosine alone; ref is shared
    collect(store, found)
    assert numbers(two_studies, "more") == said
    assert len(trainings(two_studies)) == 2
    # The same study again: what is in the trash is made again, to the byte.
    ran = run_small(two_studies, schedules="linear,cosine", name="both").ran
    assert ran == counts[STAGES][0]
    again = content(two_studies)
    outputs = [name for name in both if "/out/" in name]
    assert outputs
    assert all(again[name] == both[name] for name in outputs)


def test_a_collection_takes_nothing_of_a_study_that_begins_meanwhile(two_studies: Path, run_small) -> None:
    store = Store(two_studies)
    place = remove_study(store, "both")
    found = find_garbage(store)
    os.rename(place, two_studies / "studies" / "both")  # its plan is written between the looking and the moving
    done = collect(store, found)
    assert {i.what for i in done.items} == {EARLIER}
    assert done.busy == len([i for i in found.items if i.what == STAGES])
    assert run_small(two_studies, schedules="linear,cosine", name="both").ran == 0


def test_a_run_that_planned_before_a_collection_makes_again_what_it_took(two_studies: Path, prepare_small) -> None:
    store = Store(two_studies)
    remove_study(store, "both")
    prepared = prepare_small(two_studies, schedules="linear,cosine", name="both")
    assert prepared.todo == ()
    collect(store, find_garbage(store))
    outcome = run(prepared)
    assert outcome.ran > 0
    assert outcome.code == 0


@pytest.mark.long
def test_collections_beside_a_running_study_change_nothing_of_it(two_studies: Path, run_small) -> None:
    store, before = Store(two_studies), content(two_studies)
    remove_study(store, "both")  # what of it the new study needs is taken before its plan is written, or not at all
    ended: list = []
    options = {"schedules": "linear,cosine,sigmoid", "name": "third"}
    run = threading.Thread(target=lambda: ended.append(run_small(two_studies, **options)))
    run.start()
    rounds = 0
    while run.is_alive():
        collect(store, find_garbage(store, everything=True))
        rounds += 1
    run.join()
    assert rounds > 1
    assert ended[0].code == 0
    after = content(two_studies)
    outputs = {name: data for name, data in before.items() if "/out/" in name}
    assert outputs.items() <= after.items()
    assert find_garbage(store).counts().keys() <= {EARLIER}


def test_a_run_waits_for_a_collection_that_is_at_work(tmp_path: Path, capsys) -> None:
    store = Store(tmp_path)
    store.prepare()
    assert not collected_lately(store)
    inside, leave, seen = threading.Event(), threading.Event(), []

    def collection() -> None:
        with collecting(store, "one"):
            inside.set()
            leave.wait(30)

    def looking() -> None:
        seen.append(collected_lately(store))

    threads = [threading.Thread(target=collection), threading.Thread(target=looking)]
    threads[0].start()
    assert inside.wait(30)
    with pytest.raises(DdpmkitError, match="another gc is at work"), collecting(store, "two"):
        pass
    threads[1].start()
    time.sleep(0.5)
    assert seen == []
    leave.set()
    for thread in threads:
        thread.join(30)
    assert seen == [True]
    assert "waiting for a gc to end" in capsys.readouterr().err
    old = time.time() - 7200
    os.utime(store.root / COLLECTION, (old, old))
    assert not collected_lately(store)


def test_what_somebody_is_at_work_on_stays(two_studies: Path) -> None:
    store = Store(two_studies)
    remove_study(store, "both")
    free = find_garbage(store)
    item = next(i for i in free.items if i.what == STAGES and i.home.name == "train")
    stage = item.path
    with claimed(stage, "somebody"):
        assert not garbage._move(item, "20261127T000000Z-0000", "gc")  # as it was claimed after all had been looked at
        found = find_garbage(store)
        assert found.busy == 1
        assert stage not in [i.path for i in found.items]
        assert stage not in [i.path for i in collect(store, free).items]
    assert stage.is_dir()
    collect(store, find_garbage(store))
    assert not stage.exists()
    thrown = list((two_studies / "store" / "train" / TRASH).glob("*/*/*"))
    assert [p.name for p in thrown if p.name == stage.name]
    assert not [p for place in thrown for p in place.glob("claim*.json")]


def test_a_last_checkpoint_that_is_damaged_keeps_the_one_before_it(two_studies: Path) -> None:
    store = Store(two_studies)
    folder = trainings(two_studies)[0] / "ckpt"
    weights = folder / "00000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    collect(store, find_garbage(store))
    assert (folder / "00000004").is_dir()
    weights.write_bytes(b"")  # seen by its size already
    assert folder not in [i.path.parent for i in find_garbage(store).items]


def test_deep_lets_the_optimisers_go_and_the_networks_answer_as_before(two_studies: Path, run_small, capsys) -> None:
    samples = ddpmkit.load("both", "linear", out=two_studies, device="cpu").sample(4)
    averages = {f: checkpoint.newest(f / "ckpt").ema for f in trainings(two_studies)}
    assert main(["gc", "--deep", "--yes", "--out", str(two_studies)]) == 0
    captured = capsys.readouterr()
    assert OPTIMISERS in captured.out
    assert "a longer training can't go on" in captured.err
    store = Store(two_studies)
    for folder in trainings(two_studies):
        assert store.intact("train", folder.name)
        last = checkpoint.newest(folder / "ckpt")
        assert (last.step, last.optim) == (6, {})
        assert last.model
    np.testing.assert_array_equal(ddpmkit.load("both", "linear", out=two_studies, device="cpu").sample(4), samples)
    assert find_garbage(store, deep=True).items == ()
    # One that has to go on starts again, and ends with the same bits.
    folder = trainings(two_studies)[0]
    files.quarantine(folder / "out")
    for name in ("both", "more"):
        schedules = "linear,cosine" if name == "both" else "linear,sigmoid"
        assert run_small(two_studies, schedules=schedules, name=name).code == 0
    again = checkpoint.newest(folder / "ckpt").ema
    assert again.keys() == averages[folder].keys()
    assert all(bool((again[k] == averages[folder][k]).all()) for k in again)


def test_a_reader_of_a_checkpoint_never_sees_it_damaged_while_a_file_is_let_go(two_studies: Path, monkeypatch) -> None:
    folder = trainings(two_studies)[0] / "ckpt" / "00000006"
    real, calls = files.read_json, []

    def slow(path: Path):
        found = real(path)
        if path == folder / files.COMMIT and not calls:  # after the list was read, and before the files are
            calls.append(path)
            files.let_go(folder, "optim.safetensors")
            (folder / "optim.safetensors").unlink()
        return found

    monkeypatch.setattr(files, "read_json", slow)
    assert files.verify_folder(folder) is not None
    assert calls


def test_data_and_leftovers_that_nobody_needs_go(two_studies: Path) -> None:
    store = Store(two_studies)
    home = two_studies / "store" / "data"
    (kept,) = (p for p in home.iterdir() if (p / files.COMMIT).exists())
    files.commit_folder(home / ("0" * 64), {"x": b"x"}, {})
    folder = trainings(two_studies)[0]
    (folder / "quarantined-out-1234").mkdir()
    young, old = folder / "ckpt" / ".tmp-1-a", folder / "ckpt" / ".tmp-1-b"
    for path in (young, old):
        path.mkdir()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    done = collect(store, find_garbage(store))
    assert sorted(i.path.name for i in done.items if i.what == LEFT) == [".tmp-1-b", "quarantined-out-1234"]
    assert [i.path.name for i in done.items if i.what == DATA] == ["0" * 64]
    assert kept.is_dir()
    assert young.is_dir()


def test_the_trash_is_emptied_by_its_age(two_studies: Path, capsys) -> None:
    out, store = ["--out", str(two_studies)], Store(two_studies)
    remove_study(store, "both")
    assert main(["gc", *out, "--json"]) == 0  # nobody is there to be asked
    told = json.loads(capsys.readouterr().out)
    assert told["done"] is False
    assert find_garbage(store).items
    assert main(["gc", *out, "--yes"]) == 0
    assert "to the trash" in capsys.readouterr().out
    bins = list(two_studies.rglob(TRASH))
    assert bins
    assert main(["gc", *out, "--yes"]) == 0
    assert "nothing to collect" in capsys.readouterr().err
    for batch in (two_studies / "store" / "train" / TRASH).iterdir():
        batch.rename(batch.with_name(f"20200101T000000Z-{batch.name[-4:]}"))
    assert main(["gc", *out, "--yes"]) == 0
    assert not (two_studies / "store" / "train" / TRASH).exists()
    assert list(two_studies.rglob(TRASH))  # younger ones stay
    assert main(["gc", *out, "--empty-trash", "-n"]) == 0
    assert list(two_studies.rglob(TRASH))
    assert main(["gc", *out, "--empty-trash", "--yes"]) == 0
    assert not list(two_studies.rglob(TRASH))
    assert numbers(two_studies, "more")


@pytest.mark.parametrize(("answer", "left"), [("y\n", 2), ("n\n", 3)])
def test_somebody_who_is_there_is_asked(answer: str, left: int, two_studies: Path, monkeypatch, capsys) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    remove_study(Store(two_studies), "both")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["gc", "--out", str(two_studies)]) == 0
    captured = capsys.readouterr()
    assert "do it?" in captured.err
    assert STAGES in captured.out
    assert len(trainings(two_studies)) == left


def test_a_damaged_plan_stops_a_collection(two_studies: Path, capsys) -> None:
    plan = two_studies / "studies" / "more" / "plan.json"
    plan.write_text(plan.read_text()[:-40])
    assert main(["gc", "--out", str(two_studies), "--yes"]) == 2
    err = capsys.readouterr().err
    assert "the plan of study 'more' is damaged" in err
    assert "hint: run the study again, or ddpmkit studies rm more" in err
    assert len(trainings(two_studies)) == 3
    assert main(["studies", "rm", "more", "--out", str(two_studies)]) == 0
    assert main(["gc", "--out", str(two_studies), "--yes"]) == 0
    assert len(trainings(two_studies)) == 2


def test_a_store_that_is_linked_to_keeps_what_the_other_folder_needs(
    two_studies: Path, tmp_path, run_small, capsys
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "store").symlink_to(two_studies / "store", target_is_directory=True)
    run_small(here, schedules="cosine", name="mine", train_seeds="1")
    assert len(list((two_studies / "store" / SHARED).iterdir())) == 1
    for out in (two_studies, here):  # from either end
        store = Store(out)
        assert STAGES not in find_garbage(store).counts()
        collect(store, find_garbage(store))
    assert len(trainings(two_studies)) == 4
    # A folder that is gone might be a disk that is not there today.
    here.rename(tmp_path / "there")
    capsys.readouterr()
    assert main(["gc", "--out", str(two_studies), "--yes"]) == 2
    err = capsys.readouterr().err
    assert f"ddpmkit gc --forget {here.resolve()}" in err
    assert len(trainings(two_studies)) == 4
    assert main(["gc", "--out", str(two_studies), "--forget", str(here), "--yes"]) == 0
    assert len(trainings(two_studies)) == 3
    assert main(["gc", "--out", str(two_studies), "--forget", str(here), "--yes"]) == 2


def test_a_store_that_has_moved_is_collected_where_it_is(two_studies: Path, tmp_path: Path) -> None:
    moved = two_studies.rename(tmp_path / "elsewhere")
    store = Store(moved)
    remove_study(store, "both")
    assert STAGES in find_garbage(store).counts()
    collect(store, find_garbage(store))
    assert numbers(moved, "more")


def test_a_link_in_the_trash_is_deleted_and_not_what_it_leads_to(two_studies: Path, tmp_path: Path) -> None:
    store = Store(two_studies)
    remove_study(store, "both")
    stage = next(i.path for i in find_garbage(store).items if i.what == STAGES and i.home.name == "train")
    elsewhere = stage.rename(tmp_path / "big")
    stage.symlink_to(elsewhere, target_is_directory=True)
    collect(store, find_garbage(store))
    assert not stage.exists()
    collect(store, find_garbage(store, everything=True))
    assert (elsewhere / "out" / files.COMMIT).exists()
    assert size_of(tmp_path / "nothing") == 0


def test_what_can_not_be_moved_is_where_it_was(two_studies: Path, monkeypatch) -> None:
    store = Store(two_studies)
    before = content(two_studies)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(garbage, "throw_away", refuse)
    found = find_garbage(store)
    done = collect(store, found)
    assert len(done.failed) == len(found.items)
    assert all("No space" in line for line in done.failed)
    assert done.items == ()
    assert content(two_studies) == before
