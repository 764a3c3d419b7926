"""A disk that fails at the nth change below a folder: the process is killed there, or the call raises.

Everything that changes the folder counts, whoever asks for it: a file that is opened to be written, a write, an fsync,
a rename, link, mkdir, unlink, rmdir and utime. A write that fails has written the half of its bytes.

    python failing_disk.py TASK.json      {"folder": .., "dataset": .., "cases": [["kill", 3], ["EIO", 0.25], ..]}

A case is how it fails and at which call, or at which share of them all; at every call for a how alone, ["kill"]. Torch
is imported once, and the same small study forked for each case, and again, undisturbed, to see what that finds. A line
of JSON for each case goes to FOLDER/cases.jsonl: what went wrong.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KILLED = 66  # the exit code of a process that is killed at a call
HOWS = ("kill", "EIO", "ENOSPC")
TAKES_SPACE = {"open", "write", "fsync", "mkdir", "link"}  # what a full disk refuses
LIMIT = 300.0  # seconds after which a case hangs
OPTIONS = (
    "--schedules", "linear", "--train-seeds", "0", "--train-steps", "3", "--batch-size", "4", "--samples", "4",
    "--sampling-steps", "2", "--timesteps", "24", "--features", "pca:k=2", "--metrics", "fd",
    "--backbones", "unet:channels=4:mults=1:middle_attention=false", "--checkpoint-every", "1", "--device", "cpu",
    "--executor", "inline", "--axis", "warmup=0", "--name", "s",
)  # fmt: skip
TIMES = {"seconds", "train_seconds", "sample_seconds"}


class Disk:
    """Counts the calls that change a folder, and fails at the nth (0: never); a full one from there on."""

    def __init__(self, folder: Path, how: str, nth: int) -> None:
        self.folder, self.how, self.nth = f"{folder}{os.sep}", how, nth
        self.calls: list[str] = []
        self._busy = False

    def install(self) -> None:
        """See every call of this process from now on; there is no way back."""
        sys.addaudithook(self._heard)
        fsync, plain_open = os.fsync, io.open

        def synced(descriptor: int) -> None:
            self._counted("fsync", _path(descriptor), named=False)
            fsync(descriptor)

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            made = plain_open(file, mode, *args, **kwargs)
            here = isinstance(file, (str, Path)) and self._below(os.fspath(file))
            return _File(made, self, os.fspath(file)) if here and {*mode} & {*"wax+"} else made

        os.fsync, io.open, builtins.open = synced, opened, opened  # type: ignore[assignment]

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._counted("open", path)
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            self._counted(event[3:], _from(args[-1], args[0]))
        elif event in ("os.rename", "os.link"):
            self._counted(event[3:], _from(args[-1], args[1]))
        elif event == "os.utime":
            self._counted("utime", args[0])

    def written(self, path: str, data: Any, write: Callable[[Any], Any], flush: Callable[[], Any]) -> Any:
        """Write, or half of it where this is the call."""
        try:
            self._counted("write", path, named=False, killed=lambda: (write(bytes(data)[: len(data) // 2]), flush()))
        except OSError:
            with contextlib.suppress(TypeError):
                write(bytes(data)[: len(data) // 2])
            raise
        return write(data)

    def _below(self, path: Any) -> bool:
        return isinstance(path, (str, Path)) and os.path.abspath(path).startswith(self.folder)  # noqa: PTH100

    def _counted(self, name: str, path: Any, *, named: bool = True, killed: Callable[[], Any] = lambda: None) -> None:
        if self._busy or not self._below(path):
            return
        self.calls.append(f"{name} {os.path.relpath(path, self.folder)}")
        now = len(self.calls)
        full = self.how == "ENOSPC" and 0 < self.nth <= now and name in TAKES_SPACE
        if not full and (self.how == "ENOSPC" or now != self.nth):
            return
        if self.how == "kill":
            self._busy = True
            killed()
            os._exit(KILLED)
        number = getattr(errno, self.how)
        raise OSError(number, os.strerror(number), *([os.fspath(path)] if named else []))


class _File:
    """A file whose writes count."""

    def __init__(self, file: Any, disk: Disk, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> Any:
        return self._disk.written(self._path, data, self._file.write, self._file.flush)


def _path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a Path would be asked for within the call


def _from(descriptor: Any, path: Any) -> Any:
    return path if descriptor in (-1, None) else f"{_path(descriptor)}{os.sep}{os.fspath(path)}"


def forked(action: Callable[[], int], said: Path) -> int | None:
    """Run something in a child whose output goes to a file; return its exit code, None where it hung."""
    child = os.fork()
    if not child:
        code = 70
        try:
            with said.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    until = time.monotonic() + LIMIT
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(done[1])


def study(out: Path, dataset: str) -> int:
    """Run the study, and write its report but for the pictures, of which one stands for all."""
    from ddpmkit import files
    from ddpmkit.cli import main
    from ddpmkit.report.draw import charts, figures
    from ddpmkit.report.show import html

    for module in (charts, html):
        module.charts = lambda records, summary: iter(())
    figures.write_figures = lambda folder, *_, **__: files.write_bytes(folder / "one.png", b"a picture")
    return main(["--no-plugins", "ablate", "--dataset", dataset, *OPTIONS, "--out", str(out)])


def numbers(out: Path) -> list[str]:
    """Every number of the study's results.csv but the seconds."""
    import pandas as pd

    frame = pd.read_csv(out / "studies" / "s" / "results.csv")
    return frame[[c for c in frame.columns if c not in TIMES and "seconds" not in c]].to_csv().splitlines()


def tree(out: Path) -> dict[str, str]:
    """Every file, and its hash where it holds no time."""
    from ddpmkit import files

    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out))
        timeless = "/out/" in name or "/ckpt/" in name or name.endswith("spec.json")
        found[name] = files.sha256(path.read_bytes()) if timeless else ""
    return found


def broken(out: Path) -> Iterator[str]:
    """What of a folder in which a run was cut short is not as it says."""
    from ddpmkit import files
    from ddpmkit.errors import DdpmkitError
    from ddpmkit.study.doctor import check_up
    from ddpmkit.study.stages import STAGE_KINDS
    from ddpmkit.study.store import Store

    store = Store(out)
    try:
        store.check_format()
        if store.root.is_dir():
            damaged = [d for d in check_up(store).damaged if not being_entered(d.path)]
            yield from (f"doctor: {d.path.relative_to(out)} {d.why}" for d in damaged)
    except DdpmkitError as err:
        yield f"the store does not open: {err.message}"
    for kind in STAGE_KINDS:
        for id in store.stages(kind):
            folder, state = store.folder(kind, id), store.status(kind, id).get("state")
            if state == "done" and not store.intact(kind, id):
                yield f"{kind} says that it is done"
            for place in (folder / "out", *(folder / "ckpt").glob("[0-9]*")):
                if place.exists() and files.verify_folder(place) is None:
                    yield f"{place.relative_to(out)} is there, and not whole"


def being_entered(plan: Path) -> bool:
    """Whether a plan is missing between a new study's file and its plan, of which doctor says how it is written."""
    if plan.name != "plan.json" or not plan.parent.is_dir():
        return False
    of_who_enters = (".", "claim", "alive")
    return [p.name for p in plan.parent.iterdir() if not p.name.startswith(of_who_enters)] == ["study.toml"]


def told(code: int | None, said: str, out: Path, how: str) -> Iterator[str]:
    """What is wrong with how a run ended and what it said."""
    if code is None:
        yield "hangs"
    if "Traceback" in said or code not in (0, 1, 2, KILLED, None):
        yield f"exit code {code}: {said[-1500:]}"
    if "wrote " in said and not all((out / "studies" / "s" / n).is_file() for n in ("report.html", "results.csv")):
        yield "says that it wrote what is not there"
    if how == "kill":
        return
    if code and os.strerror(getattr(errno, how)) not in said:
        yield f"does not say why: {said[-1500:]}"
    if code and str(out) not in said:
        yield f"does not name the file: {said[-1500:]}"
    if code and not ("\nhint: " in f"\n{said}" or "the same command" in said):
        yield f"does not say what to do: {said[-1500:]}"


def left(out: Path) -> dict[str, str]:
    """Every file that the next run and a collection, some days later, leave."""
    from ddpmkit.study.garbage import collect, find_garbage, homes
    from ddpmkit.study.presence import at_work
    from ddpmkit.study.store import Store

    old = time.time() - 3 * 86400
    for path in out.rglob("*"):
        os.utime(path, (old, old))
    store = Store(out)
    with at_work(store.study("s"), "later"):
        pass
    collect(store, find_garbage(store, everything=True))
    for home in homes(store):
        shutil.rmtree(home / ".trash", ignore_errors=True)
    return tree(out)


def wrong(here: dict[str, str], right: dict[str, str]) -> Iterator[str]:
    """How the files of a folder are not those of another."""
    yield from (f"{name} is left" for name in here if name not in right)
    yield from (f"{name} is lost" for name in right if name not in here)
    yield from (f"{name} is another" for name in right if right[name] != here.get(name, right[name]))


def again(out: Path, dataset: str, code: int | None, said: str, how: str, right: dict[str, Any]) -> list[str]:
    """Look at what a disturbed run has left, run it again, and say what is wrong."""
    from ddpmkit import files

    problems = [*told(code, said, out, how), *broken(out)]
    if code == 0 and numbers(out) != right["numbers"]:
        problems.append("says that it is done, and has other numbers")
    if (now := study(out, dataset)) != 0:
        problems.append(f"the same command again ends with {now}")
    elif numbers(out) != right["numbers"]:
        problems.append("the same command again finds other numbers")
    if now == 0:
        states = [files.read_sealed(p) or {} for p in out.glob("store/*/*/*/status.json")]
        problems += [f"{s.get('label')} is {s.get('state')}" for s in states if s.get("state") != "done"]
        problems += wrong(left(out), right["tree"])
    return problems


def main(task: dict[str, Any]) -> None:
    """Run every case, or those that are named, and print what is wrong with each."""
    work, dataset = Path(task["folder"]).resolve(), task["dataset"]
    study(work / "warm", dataset)  # so that no fork has to import anything
    said = (work / "cases.jsonl").open("w", buffering=1)
    reference, found = work / "right", work / "right.json"

    def whole() -> int:
        disk = Disk(reference, "kill", 0)
        disk.install()
        code, calls = study(reference, dataset), list(disk.calls)
        found.write_text(json.dumps({"calls": calls, "numbers": numbers(reference), "tree": left(reference)}))
        return code

    if (code := forked(whole, work / "right.txt")) != 0:
        raise SystemExit(f"the study by itself ends with {code}: {(work / 'right.txt').read_text()}")
    right = json.loads(found.read_text())
    calls = right["calls"]
    said.write(json.dumps({"calls": calls}) + "\n")
    spaced = [n + 1 for n, call in enumerate(calls) if call.split()[0] in TAKES_SPACE]
    cases = [
        (how, n) for how, *at in task["cases"] for n in at or (spaced if how == "ENOSPC" else range(1, len(calls) + 1))
    ]
    for how, share in cases:
        nth = share if isinstance(share, int) else 1 + int(share * len(calls))
        out, heard, looked = work / f"{how}-{nth}", work / "said.txt", work / "problems.json"

        def disturbed(out: Path = out, how: str = how, nth: int = nth) -> int:
            Disk(out, how, nth).install()
            return study(out, dataset)

        code = forked(disturbed, heard)
        text = heard.read_text(errors="replace")

        def looks(out: Path = out, code: int | None = code, text: str = text, how: str = how, to: Path = looked) -> int:
            to.write_text(json.dumps(again(out, dataset, code, text, how, right)))
            return 0

        looked.unlink(missing_ok=True)
        ended = forked(looks, work / "again.txt")
        problems = json.loads(looked.read_text()) if looked.exists() else [f"looking ends with {ended}"]
        if ended != 0 or problems:
            problems.append((work / "again.txt").read_text(errors="replace")[-1500:])
        here = {"how": how, "nth": nth, "call": calls[nth - 1] if nth <= len(calls) else "", "code": code}
        said.write(json.dumps({**here, "problems": problems}) + "\n")
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
