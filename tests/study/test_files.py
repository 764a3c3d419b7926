"""Writes to the store are whole or absent, whatever fails and whenever; damage to a committed folder is noticed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from ddpmkit import files

CALLS = ("fsync", "replace", "rename")


class FailingDisk:
    """Counts the calls that reach the disk, and lets the nth one fail (0: none)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int = 0) -> None:
        self.nth, self.calls = nth, []
        for name in CALLS:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name, real):
        def call(*args, **kwargs):
            self.calls.append(name)
            if len(self.calls) == self.nth:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call


def leftovers(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.name.startswith(".tmp")]


def steps_of(action) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch)
        action()
    return disk.calls


def test_a_file_is_fsynced_renamed_and_its_folder_fsynced_in_this_order(tmp_path):
    # Renaming before the data are on the disk is what leaves empty files after a power cut.
    assert steps_of(lambda: files.write_bytes(tmp_path / "a", b"new")) == ["fsync", "replace", "fsync"]


def test_a_folder_is_fsynced_file_by_file_before_it_is_renamed(tmp_path):
    calls = steps_of(lambda: files.commit_folder(tmp_path / "c", {"a": b"1", "b": b"2"}, {}))
    # Two files, COMMIT.json, the folder itself; the rename; the folder above.
    assert calls == ["fsync"] * 4 + ["rename", "fsync"]


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_file_is_old_or_new_and_never_torn_when_the_nth_call_fails(tmp_path, nth):
    target = tmp_path / "a"
    files.write_bytes(target, b"old")
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, nth)
        with pytest.raises(OSError, match="No space left"):
            files.write_bytes(target, b"new, and longer")
    # Only when the last call fails, the folder's fsync, had the rename taken place.
    assert target.read_bytes() == (b"new, and longer" if "replace" in disk.calls[:-1] else b"old")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_first_write_that_fails_before_the_rename_leaves_nothing(tmp_path, nth):
    with pytest.MonkeyPatch.context() as patch:
        FailingDisk(patch, nth)
        with pytest.raises(OSError, match="No space left"):
            files.write_bytes(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == (["a"] if nth == 3 else [])


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_folder_is_committed_whole_or_absent_when_the_nth_call_fails(tmp_path, nth):
    target = tmp_path / "c"
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, nth)
        with pytest.raises(OSError, match="No space left"):
            files.commit_folder(target, {"a": b"1", "b": b"2"}, {"step": 3})
    if "rename" in disk.calls[:-1]:
        assert files.verify_folder(target) == {"step": 3}
    else:
        assert not target.exists()
    assert leftovers(tmp_path) == []


def test_a_short_write_that_raises_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a"
    files.write_bytes(target, b"old")

    def half(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_synced", half)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(target, b"new, and longer")
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_ctrl_c_in_the_middle_of_a_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    files.commit_folder(tmp_path / "c", {"a": b"first"}, {"n": 1})
    files.commit_folder(tmp_path / "c", {"a": b"second"}, {"n": 2})
    assert (tmp_path / "c" / "a").read_bytes() == b"first"
    assert files.verify_folder(tmp_path / "c") == {"n": 1}
    assert leftovers(tmp_path) == []


def test_the_commit_lists_sizes_and_hashes(tmp_path):
    files.commit_folder(tmp_path / "c", {"a": b"hello"}, {"n": 1})
    listed = json.loads((tmp_path / "c" / files.COMMIT).read_text())["files"]
    assert listed == {"a": {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}}


@pytest.fixture
def committed(tmp_path):
    files.commit_folder(tmp_path / "c", {"a.bin": bytes(range(7)), "b.bin": b"xyz"}, {"step": 6})
    return tmp_path / "c"


def test_a_committed_folder_verifies(committed):
    assert files.verify_folder(committed) == {"step": 6}


def test_a_folder_without_a_commit_does_not_verify(tmp_path):
    assert files.verify_folder(tmp_path) is None
    assert files.verify_folder(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["a.bin", "b.bin", files.COMMIT])
def test_a_missing_file_is_noticed(committed, name):
    (committed / name).unlink()
    assert files.verify_folder(committed) is None


@pytest.mark.long
@pytest.mark.parametrize("name", ["a.bin", "b.bin", files.COMMIT])
def test_truncation_at_every_length_is_noticed(committed, name):
    whole = (committed / name).read_bytes().rstrip(b"\n")
    for size in range(len(whole)):
        (committed / name).write_bytes(whole[:size])
        assert files.verify_folder(committed) is None, f"{name} cut to {size} bytes"


@pytest.mark.parametrize("name", ["a.bin", "b.bin"])
def test_every_flipped_bit_of_the_data_is_noticed(committed, name):
    whole = (committed / name).read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (committed / name).write_bytes(flipped)
        assert files.verify_folder(committed) is None, f"bit {bit} of {name}"


@pytest.mark.long
def test_every_flipped_bit_of_the_commit_is_noticed_or_harmless(committed):
    """The record that guards the others is guarded too: it must not crash its reader, nor give another step."""
    whole = (committed / files.COMMIT).read_bytes()
    for bit in range(0, 8 * len(whole), 5):  # every byte, and every place in a byte
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (committed / files.COMMIT).write_bytes(flipped)
        assert files.verify_folder(committed) in (None, {"step": 6}), f"bit {bit}: {bytes(flipped)!r}"


def test_quarantine_keeps_the_damaged_thing_beside_its_place(committed):
    place = files.quarantine(committed)
    assert not committed.exists()
    assert place.parent == committed.parent
    assert (place / "b.bin").read_bytes() == b"xyz"


def test_a_torn_last_line_is_passed_over(tmp_path):
    log = tmp_path / "m.jsonl"
    files.append_line(log, '{"step":1}')
    files.append_line(log, '{"step":2}')
    whole = log.read_bytes()
    for size in range(len(whole) + 1):
        log.write_bytes(whole[:size])
        # A line counts from its newline on.
        assert [row["step"] for row in files.read_lines(log)] == [1, 2][: whole[:size].count(b"\n")]


def test_json_that_is_missing_or_garbled_reads_as_none(tmp_path):
    (tmp_path / "g").write_bytes(b"\xff{")
    assert files.read_json(tmp_path / "g") is None
    assert files.read_json(tmp_path / "nowhere") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_that_is_not_finite_enters_the_store(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical({"x": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a", {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_what_was_looked_at(tmp_path, monkeypatch):
    """Between a look and a second opening another file could have come: one that has no end, or is larger."""
    small, large = tmp_path / "a", tmp_path / "b"
    small.write_bytes(b"small")
    large.write_bytes(bytes(100))
    look = os.fstat, Path.stat
    swapped = []

    def swap(*of):
        found = look[0](*of) if isinstance(of[0], int) else look[1](*of)
        if not swapped:
            swapped.append(os.replace(large, small))
        return found

    monkeypatch.setattr(os, "fstat", swap)
    monkeypatch.setattr(Path, "stat", lambda path: swap(path))
    assert files.read_record(small, 10) == b"small"
    assert swapped


def test_a_folder_that_is_no_record_leaves_nothing_open(tmp_path):
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        with pytest.raises(OSError, match="directory"):
            files.read_record(tmp_path)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert files.canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"\\u00e9"],"b":1}'
