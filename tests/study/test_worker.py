"""Workers and what plugins do to them: printing, garbage, children, exits, crashes, hangs."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.builtin.executors._channel import LONGEST, Reader, encode
from ddpmkit.builtin.executors._log import HEAD, LAST, TAIL, Log
from ddpmkit.errors import DdpmkitError, Exit
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run

TINY = {
    "train_steps": 3, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 24, "eval_batch": 16,
    "batch_size": 8, "features": "pca:k=4", "train_seeds": "0", "metrics": "nll",
}  # fmt: skip

# One backbone whose network does something once, in its first real pass. Planning, which runs none, finds nothing.
PLUGIN = """
import ctypes, os, random, re, subprocess, sys, time
from dataclasses import dataclass
from ddpmkit import Backbone, hookimpl, param

if os.environ.get("HANG_IN_WORKER") and "ddpmkit.builtin.executors._worker" in " ".join(sys.orig_argv):
    open(os.environ["HANG_IN_WORKER"], "w").write(str(os.getpid()))
    time.sleep(10000)

HOLY = [
    b'{"event": "end", "stage": "x", "state": "done"}\\n', b'{"event": "progress"}\\n', b"7\\n", b"[1]\\n", b"null\\n",
    b'"word"\\n', b"{}\\n", b'{"event": 3}\\n', b'{"event": "log"}\\n', b'{"stop": true}\\n', b"[" * 3000 + b"\\n",
    b'{"event": "ready"', b"\\n", b"\\xff\\xfe", b"\\r50%\\x1b[31m", b"\\x00" * 50, b'{"a": ' * 2000,
]

def garbage(seed):
    dice = random.Random(seed)
    for _ in range(30):
        what, where = dice.choice([*HOLY, dice.randbytes(dice.randrange(5000))]), dice.choice([0, 1, 2, 1, 2])
        try:
            os.write(where, what)
        except OSError:
            pass
        if where == 0:
            try:
                os.read(0, 4096)
            except OSError:
                pass
    print("half a line", end="")
    os.system("echo '[3]'; cat; echo '{\\"event\\": \\"end\\"}' >&2")

def flood():
    for i in range(20000):
        print("line", i, "x" * 80)
    sys.stdout.write("y" * 20_000_000)
    sys.stdout.flush()
    for i in range(20000):
        os.write(2, b"\\r %d%% \\x1b[31m" % i)
    os.write(1, b"\\n\\xff\\xfe the \\x1b[1mend\\x1b[0m\\n")
    raise RuntimeError("flooded")

def act(how, mark):
    if how == "garbage":
        return garbage(mark)
    if how == "child":
        child = subprocess.Popen(["sleep", "3333"])
        open(mark, "w").write(str(child.pid))
    if how in ("hang", "locks", "swallows"):
        child = os.posix_spawnp("sleep", ["sleep", "3333"], os.environ)
        with open(mark + ".new", "w") as f:
            f.write(f"{os.getpid()} {child}")
        os.rename(mark + ".new", mark)
        if how == "locks":  # inside C code that never lets go of the interpreter
            re.match("(a+)+$", "a" * 60 + "b")
        while True:
            try:
                time.sleep(10000)
            except BaseException:
                if how == "hang":
                    raise
    if how == "exit":
        os._exit(0)
    if how == "sysexit":
        sys.exit(0)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "crash":
        ctypes.string_at(0)
    if how == "flood":
        flood()

@dataclass(frozen=True)
class Acts(Backbone):
    name = "acts"
    how: str = param("quiet", "what it does")
    mark: str = param("0", "where it says so, or a seed")

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn
        how, mark = self.how, self.mark

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.acted = nn.Conv2d(in_channels, out_channels, 1), how == "quiet"

            def forward(self, x, t, y=None):
                if not self.acted and x.device.type != "meta":
                    self.acted = True
                    act(how, mark)
                return self.layer(x)

        return Net()

@hookimpl
def ddpmkit_register_backbones():
    return [Acts]
"""


@pytest.fixture(scope="module", autouse=True)
def few(few_digits):
    TINY["dataset"] = few_digits


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "acts_plugin.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def registry(plugin):
    return Registry([str(plugin)], installed=False)


def study(out, registry, backbones, executor="local", jobs=2, on_event=lambda _: None, **options):
    how = RunOptions(jobs, "cpu", executor)
    return run(
        prepare({**TINY, "backbones": backbones, **options}, out=out, registry=registry, run_options=how), on_event
    )


def gone(pid: int) -> bool:
    """Whether a process has ended, or is a corpse that nobody has buried."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def records(out: Path, kind: str = "train") -> dict[str, dict]:
    return {r["label"]: r for p in (out / "store" / kind).glob("*/*/status.json") if (r := files.read_json(p))}


@pytest.fixture(scope="module")
def wild(tmp_path_factory, registry):
    """One run of everything that a network may do to its worker; a good cell is among them."""
    out, events = tmp_path_factory.mktemp("wild"), []
    mark = out / "child"
    cells = ["quiet", f"child:mark={mark}", "exit", "sysexit", "interrupt", "crash", "flood"]
    outcome = study(out, registry, ",".join(f"acts:how={c}" for c in cells), on_event=events.append)
    return out, outcome, events, int(mark.read_text())


def said(events) -> list[str]:
    return [e["text"] for e in events if e["event"] == "log"]


@pytest.mark.long
def test_the_other_cells_finish_whatever_one_does(wild):
    _, outcome, _, _ = wild
    assert outcome.code == Exit.FAILED
    assert outcome.states == {"done": 2 * 5, "failed": 5, "blocked": 5 * 4}


@pytest.mark.long
@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("exit", "its worker died with exit code 0"),
        ("sysexit", "SystemExit: 0"),
        ("interrupt", "KeyboardInterrupt"),
        ("crash", "its worker was killed by SIGSEGV"),
        ("flood", "RuntimeError: flooded"),
    ],
)
def test_how_a_stage_went_is_in_its_record_and_on_the_terminal(wild, cell, error):
    out, _, events, _ = wild
    (record,) = (r for label, r in records(out).items() if f"how={cell}" in label)
    assert record["state"] == "failed"
    assert record["error"].startswith(error)
    assert any(error in text and f"how={cell}" in text for text in said(events))


@pytest.mark.long
def test_a_plugins_line_is_named_where_it_raised(wild):
    line = next(i for i, text in enumerate(PLUGIN.splitlines(), 1) if "sys.exit(0)" in text)
    assert any(f"acts_plugin.py line {line}]" in text and "SystemExit" in text for text in said(wild[2]))


@pytest.mark.long
def test_a_child_that_lives_on_holds_nobody_up_and_ends_with_its_worker(wild):
    assert gone(wild[3])


def logs(out: Path) -> dict[str, Path]:
    return {files.read_json(p.parent / "status.json")["label"]: p for p in (out / "store").glob("*/*/*/log.txt")}


@pytest.mark.long
def test_where_a_crash_was_is_in_the_log(wild):
    (log,) = (p for label, p in logs(wild[0]).items() if "how=crash" in label)
    assert "Segmentation fault" in log.read_text()
    assert "in act" in log.read_text()


@pytest.mark.long
def test_a_flood_is_kept_at_both_ends_and_its_last_lines_are_shown(wild):
    out, _, events, _ = wild
    (log,) = (p for label, p in logs(out).items() if "how=flood" in label)
    text = log.read_text(encoding="utf-8")
    assert log.stat().st_size < HEAD + TAIL + 200
    assert text.startswith("line 0 xxx")
    assert text.endswith("end\x1b[0m\n")
    assert "bytes left out here ..." in text
    shown = [t for t in said(events) if t.startswith("  | ")]
    assert "  | \ufffd\ufffd the end" in shown
    assert "  | 19999%" in shown
    assert sum(map(len, said(events))) < 50_000
    assert any(str(log) in t for t in said(events))


@pytest.mark.long
def test_a_stage_that_prints_nothing_leaves_no_log(wild):
    assert not [label for label in logs(wild[0]) if "how=" not in label and "acts" in label]


def numbers(out: Path) -> dict[str, list[str]]:
    """Every finished result, by what backbone it is of; ids and all that depends on the clock left out."""
    found: dict[str, list[str]] = {}
    for path in sorted((out / "store").glob("*/*/*/out/result.json")):
        label = files.read_json(path.parent.parent / "status.json")["label"]
        cell = re.search(r"acts\S*", label)
        if cell is not None:  # the reference is of none
            found.setdefault(cell[0], []).append(f"{label.replace(cell[0], 'acts')}: {path.read_text()}")
    return {cell: sorted(values) for cell, values in found.items()}


@pytest.mark.long
def test_random_garbage_on_all_three_descriptors_changes_no_number(registry, tmp_path):
    cells = ["acts", *(f"acts:how=garbage:mark={seed}" for seed in range(6))]
    outcome = study(tmp_path, registry, ",".join(cells), metrics="fd,nll")
    assert outcome.code == Exit.DONE
    found = numbers(tmp_path)
    quiet = found.pop("acts")
    assert len(quiet) == 1 + 1 + 2 + 2 + 1
    assert len(found) == 6
    for cell, values in found.items():
        assert values == quiet, cell


# --- the protocol itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_messages_come_through_whatever_lines_stand_between_them_and_wherever_it_is_cut(seed):
    dice = random.Random(seed)
    sent, raw = [{"event": "progress", "n": i, "text": "x" * dice.randrange(300)} for i in range(50)], b""
    for message in sent:
        if dice.random() < 0.5:
            raw += dice.choice(
                [b"7", b"[1]", b"null", b"{", b"[" * 5000, b"\xff\xfe", dice.randbytes(99).replace(b"{", b"")]
            )
        raw += encode(message)
    reader, found = Reader(), []
    while raw:
        cut = dice.randrange(1, 2000)
        found += reader.feed(raw[:cut])
        raw = raw[cut:]
    assert [m for m in found if "n" in m] == sent
    assert all(isinstance(m, dict) for m in found)


def test_a_line_without_end_takes_no_memory():
    reader, chunk = Reader(), b"x" * (1 << 22)
    for _ in range(LONGEST // len(chunk) + 3):
        assert reader.feed(chunk) == []
        assert sum(map(len, reader._rest)) <= LONGEST
    assert reader.feed(b"\n" + encode({"event": "ready"})) == [{"event": "ready"}]


@pytest.mark.parametrize("seed", range(10))
def test_a_log_holds_the_first_and_the_last_part_of_anything_as_utf8(seed, tmp_path):
    dice, whole = random.Random(seed), b""
    log = Log(tmp_path / "a" / "log.txt")
    begun_at = dice.randrange(5)
    for i in range(dice.choice([1, 5, 40, 80])):
        if i == begun_at:
            log.begin()
        part = dice.choice(["ä€𝄞\n".encode() * 9000, dice.randbytes(40000), b"\r7%", b"plain\n" * 3000])
        whole += part
        log.write(part)
        assert len(log._tail) <= 2 * TAIL
    if not log.begun:
        log.begin()
    log.finish()
    text, expected = log.path.read_bytes().decode(), whole.decode(errors="replace")
    if "bytes left out here" in text:
        first, last = text.split("\n... ")[0], text.rpartition("left out here ...\n")[2]
        assert expected.startswith(first)
        assert expected.endswith(last)
        assert min(len(first.encode()), len(last.encode())) > HEAD - 8
        assert f"{len(expected.encode()) - len(first.encode()) - len(last.encode()):,} bytes" in text
    else:
        assert text == expected
    assert len(log.last_lines()) <= LAST


def test_a_log_that_is_not_ours_is_left_alone_and_an_earlier_one_is_replaced(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("another's")
    waits = Log(path)
    waits.write(b"import")
    waits.finish()
    assert path.read_text() == "another's"
    begins = Log(path)
    begins.write(b"import ")
    begins.begin()
    begins.write(b"run")
    begins.finish()
    assert path.read_text() == "import run"
    silent = Log(path)
    silent.begin()
    silent.finish()
    assert not path.exists()


# --- stopping ----------------------------------------------------------------------------------------------------


def send_when(mark: Path, *numbers: int, pause: float = 1.0) -> threading.Thread:
    """Send signals to this process once a file is there."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not mark.exists() and time.monotonic() < until:
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(pause)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "number", "code"), [("hang", signal.SIGINT, 130), ("locks", signal.SIGTERM, 143)], ids=["sleep", "lock"]
)
def test_a_stage_that_hangs_is_killed_after_the_grace(registry, tmp_path, how, number, code):
    mark, events = tmp_path / "mark", []
    sender = send_when(mark, number)
    cell = f"acts:how={how}:mark={mark}"
    outcome = study(tmp_path, registry, cell, "local:grace=0.5", 1, events.append)
    sender.join()
    assert outcome.code == code
    (record,) = records(tmp_path).values()
    assert record["state"] == "interrupted"
    assert "had not ended 0.5 s after the stop" in record["error"]
    assert any("waiting for train" in t and "Ctrl-C again kills it now" in t for t in said(events))
    assert all(map(gone, map(int, mark.read_text().split())))


@pytest.mark.long
def test_a_second_signal_kills_what_hangs_at_once(registry, tmp_path):
    mark = tmp_path / "mark"
    sender = send_when(mark, signal.SIGINT, signal.SIGINT)
    outcome = study(tmp_path, registry, f"acts:how=swallows:mark={mark}", "local:grace=100000", 1)
    sender.join()
    assert outcome.code == Exit.SIGINT
    assert {r["state"] for r in records(tmp_path).values()} == {"interrupted"}
    assert all(map(gone, map(int, mark.read_text().split())))


@pytest.mark.long
def test_a_second_signal_interrupts_a_stage_of_this_process(registry, tmp_path):
    mark = tmp_path / "mark"
    sender = send_when(mark, signal.SIGTERM, signal.SIGTERM)
    outcome = study(tmp_path, registry, f"acts:how=hang:mark={mark}", "inline", 1)
    sender.join()
    child = int(mark.read_text().split()[1])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert outcome.code == Exit.SIGTERM
    assert {r["state"] for r in records(tmp_path).values()} == {"interrupted"}


@pytest.mark.long
def test_a_worker_that_hangs_while_it_starts_is_killed_without_a_grace(registry, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    monkeypatch.setenv("HANG_IN_WORKER", str(mark))
    sender = send_when(mark, signal.SIGINT)
    outcome = study(tmp_path, registry, "acts", "local:grace=100000", 1)
    sender.join()
    assert outcome.code == Exit.SIGINT
    assert {(r["state"], r["error"]) for r in records(tmp_path).values()} == {
        ("interrupted", "it was killed: it had not begun")
    }
    assert gone(int(mark.read_text()))


ORPHANS = """
import os, signal, subprocess, sys
from ddpmkit.builtin.executors._leash import Leash
leash = Leash()
pids = []
for _ in range(2):
    # A worker that is stopped, so that no thread or handler of its own can help; and its child.
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '3333']).pid, flush=True); time.sleep(3333)"
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    leash.hold(worker.pid)
    pids += [worker.pid, int(worker.stdout.readline())]
    os.kill(worker.pid, signal.SIGSTOP)
free = subprocess.Popen(["sleep", "3333"], start_new_session=True, stdout=-3, stderr=-3)
leash.hold(free.pid)
leash.let_go(free.pid)
print(*pids, free.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_on_the_leash_dies_with_a_parent_that_is_killed():
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *held, free = map(int, done.stdout.split())
    assert len(held) == 4
    assert all(map(gone, held))
    os.kill(free, signal.SIGKILL)  # which is alive: it was let go


@pytest.mark.long
def test_a_worker_that_is_terminated_while_idle_costs_nothing(registry, tmp_path):
    """Its stage goes to another worker, once."""
    killed = []

    def on_event(event):
        if event["event"] == "end" and not killed:
            children = subprocess.run(
                ["pgrep", "-f", "ddpmkit.builtin.executors._worker", "-P", str(os.getpid())],
                capture_output=True,
                text=True,
            ).stdout.split()
            killed.extend(map(int, children))
            for pid in killed:
                os.kill(pid, signal.SIGTERM)

    outcome = study(tmp_path, registry, "acts", "local", 1, on_event)
    assert killed
    assert outcome.code == Exit.DONE


def test_a_grace_that_is_no_number_is_refused(registry, tmp_path):
    with pytest.raises(DdpmkitError, match="grace must be a float >= 0"):
        study(tmp_path, registry, "acts", "local:grace=-1")


@pytest.mark.long
def test_results_are_finite(wild):
    values = [json.loads(p.read_text()) for p in (wild[0] / "store" / "nll").glob("*/*/out/result.json")]
    assert values
    assert all(math.isfinite(v["clipped"]["total"]) for v in values)
