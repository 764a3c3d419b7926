"""Who is at work on a stage: a claim beside its files, given back at the end, taken over only where its owner is gone.

A lock of the file system would not do: another node may not see it. The first claim on a stage is ``claim.json``. Who
takes over from a claim, or gives its own back, writes ``claim-HASH.json``, named by the content of that claim: such a
file is made whole and by one process alone, so of two that try one fails, and the end of the chain holds. Without
``claim.json`` there is no chain, and the stage is free. What a stage found is renamed into place, and the first to do
so wins; both would have written the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ddpmkit import files
from ddpmkit.study.processes import booted, ended, here, stat
from ddpmkit.text import clock

BEAT = 15.0  # seconds between two signs of life; they are for people, and decide nothing
SILENT = 4 * BEAT  # seconds without one after which that is worth a word
LOOK = 5.0  # seconds between two looks at whether a claim still holds
ALIVE, FIRST = "alive", "claim.json"
OUTERMOST = "pid:[4026531836]"  # the name space of a machine's own processes, include/linux/proc_ns.h

_MINE: set[str] = set()  # the marks of the claims that this process holds


@dataclass(frozen=True)
class Claim:
    """The process that is at work on a stage.

    Attributes:
        host: the machine's name.
        machine: what the system knows it by; empty where it says nothing.
        boot: what the system calls the time since it was started; the same.
        space: the name space of process numbers, as a container has its own.
        pid: the process.
        born: when it began, in the system's own count; a number that is given again begins at another time.
        run: the run that it works for.
        mark: drawn by chance, so that no two claims are the same.
        ending: not empty where the stage is being given back.
    """

    host: str = ""
    machine: str = ""
    boot: str = ""
    space: str = ""
    pid: int = 0
    born: str = ""
    run: str = ""
    mark: str = ""
    ending: str = ""

    @classmethod
    def ours(cls, run: str, *, ending: bool = False) -> Claim:
        """Return a new claim of this process."""
        born = stat(os.getpid())[1]
        return cls(*here(), os.getpid(), born, run, secrets.token_hex(8), "yes" if ending else "")

    @property
    def beside_us(self) -> bool:
        """Whether its process number means here what it means there."""
        # A name is no proof of a machine; a boot, drawn by chance at each start, is.
        return bool(self.host and self.boot) and self._place == here()

    @property
    def _place(self) -> tuple[str, str, str, str]:
        return self.host, self.machine, self.boot, self.space

    @property
    def alive(self) -> bool:
        """Whether the process is known to be there and holds it still: giving it back may have been cut short."""
        if self.pid == os.getpid() and self._place == here():
            return self.mark in _MINE and not ended(self.pid, self.born)
        return self.beside_us and not ended(self.pid, self.born)

    @property
    def dead(self) -> bool:
        """Whether the process is gone: from this machine, or, where nothing was heard of it since, before a restart."""
        if self.beside_us:
            return not self.alive
        host, machine, boot, space = here()
        rebooted = bool(machine and self.boot and boot) and self.boot != boot
        # A container has its image's name and machine id, wherever it runs: of one no reboot is known.
        return rebooted and (self.host, self.machine, self.space, space) == (host, machine, OUTERMOST, OUTERMOST)

    def __str__(self) -> str:
        """The process, for people."""
        return f"process {self.pid} on {self.host}" if self.host else "a process that nothing is known of"


@dataclass(eq=False)
class Held:
    """A claim of this process, while it holds."""

    folder: Path
    claim: Claim
    _looked: float = 0.0
    _lost: bool = False

    def holds(self) -> bool:
        """Whether nobody has taken the stage over."""
        with contextlib.suppress(OSError):  # a file system that stumbles says nothing of who has the stage
            self._lost = self._lost or _end(self.folder)[1] != self.claim
        self._looked = time.monotonic()
        return not self._lost

    def lost(self) -> bool:
        """Whether somebody has, as far as the last look in these seconds told; for a loop to ask at every step."""
        if time.monotonic() - self._looked > LOOK:
            self.holds()
        return self._lost


@contextmanager
def claimed(folder: Path, run: str, *, over: Callable[[Claim], bool] = lambda _: False) -> Iterator[Held | Claim]:
    """Claim a stage for the length of the block; yield the claim of whoever has it where that is somebody else.

    Args:
        folder: The stage's.
        run: What the process works for.
        over: Whether to take it over from a process that may be alive.

    Raises:
        OSError: when the folder can't be read or written.
    """
    taken = _take(folder, run, over)
    if isinstance(taken, Claim):
        yield taken
        return
    done = threading.Event()
    try:
        threading.Thread(target=_beat, args=(taken, done), daemon=True).start()
        yield taken
    finally:
        done.set()
        with contextlib.suppress(OSError):  # what the stage has left counts; of a claim that stays, the process is gone
            _give_back(folder, taken.claim)


def holder(folder: Path) -> Claim | None:
    """Return the claim on a stage whose process is not known to be gone; None where there is none."""
    try:
        found = _end(folder)[1]
    except OSError:
        return Claim()
    return None if found is None or _gone(folder, found) else found


def free(folder: Path, run: str) -> None:
    """Take back a claim of a run whose process has ended, as who started it knows; not of one that is seen to live."""
    with contextlib.suppress(OSError):
        found = _end(folder)[1]
        if found is not None and run and found.run == run and not found.alive:
            _give_back(folder, found)


def told(folder: Path, claim: Claim) -> str:
    """Say who runs a stage, and where that one has been silent for long, what to do if it is gone."""
    quiet = silent_for(folder)
    if claim.alive or quiet <= SILENT:
        return f"{claim} runs it"
    return f"{claim} runs it, silent for {clock(quiet)}; if it is gone, take it over with --steal"


def silent_for(folder: Path) -> float:
    """Return the seconds since whoever has claimed a folder gave a sign of life."""
    return time.time() - _last_sign(folder)


def _last_sign(folder: Path) -> float:
    """When whoever is at work last gave a sign of life, by the clock of the file system."""
    signs = [0.0]
    for path in (folder / ALIVE, *folder.glob("claim*.json")):
        with contextlib.suppress(OSError):  # it has just ended
            signs.append(path.stat().st_mtime)
    return max(signs)


def _gone(folder: Path, claim: Claim) -> bool:
    """Whether the process of a claim is known to be gone.

    A copy of a machine has its name and its id, and another boot: it looks like this machine before it was started
    again, but for signs of life that came later than that.
    """
    return claim.dead and (claim.boot == here()[2] or _last_sign(folder) <= booted())


def _take(folder: Path, run: str, over: Callable[[Claim], bool] = lambda _: False) -> Held | Claim:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        follower, found = _end(folder)
        if found is not None and not _gone(folder, found) and ((found.ending and found.alive) or not over(found)):
            return found
        ours = Claim.ours(run)
        _MINE.add(ours.mark)
        taken = False
        try:
            if _made(folder / follower, ours):
                chain = _walk(folder)[0]
                taken = ours in chain[-1:]
                if ours not in chain:  # what it follows was given back meanwhile
                    (folder / follower).unlink(missing_ok=True)
        finally:
            if not taken:
                _MINE.discard(ours.mark)
        if taken:
            with contextlib.suppress(OSError):
                (folder / ALIVE).touch()
            return Held(folder, ours, time.monotonic())


def _give_back(folder: Path, claim: Claim) -> None:
    """End the chain that ends with a claim; where somebody has taken that over, the chain is theirs."""
    last = Claim.ours(claim.run, ending=True)
    _MINE.add(last.mark)
    try:
        if _closed(folder, claim, last):
            (folder / ALIVE).unlink(missing_ok=True)
            behind = [*folder.glob("claim-*.json")]
            (folder / FIRST).unlink(missing_ok=True)
            for path in behind:  # what a new chain adds has other names
                path.unlink(missing_ok=True)
    finally:
        _MINE.difference_update((claim.mark, last.mark))


def _closed(folder: Path, claim: Claim, last: Claim) -> bool:
    """Make the last claim of a chain, which nobody takes over while its process lives; False where it is not ours."""
    try:
        follower, found = _end(folder)
        if found != claim or not _made(folder / follower, last):
            return False
        if _end(folder)[1] == last:
            return True
        (folder / follower).unlink(missing_ok=True)  # the claim was gone before its follower was made
        return False
    except OSError:  # a full disk: no follower can be made, so nobody else can make one either
        return _alone(folder, claim)


def _alone(folder: Path, claim: Claim) -> bool:
    """Whether a claim is the whole chain."""
    try:
        content = files.read_record(folder / FIRST)
    except OSError:
        return False
    return _read(content) == claim and not any(folder.glob("claim-*.json"))


def _made(path: Path, claim: Claim) -> bool:
    """Make a claim's file; False where it is there."""
    return files.make_bytes(path, (files.canonical(asdict(claim)) + "\n").encode())


def _end(folder: Path) -> tuple[str, Claim | None]:
    """Return the claim at the end of the chain, None where there is no chain, and the name of what would follow it."""
    chain, name = _walk(folder)
    return name, chain[-1] if chain else None


def _walk(folder: Path) -> tuple[list[Claim], str]:
    """Return the claims of the chain, the first one first, and the name of what would follow the last."""
    chain: list[Claim] = []
    name = FIRST
    while True:
        try:
            content = files.read_record(folder / name)
        except FileNotFoundError:
            return chain, name
        chain.append(_read(content))
        name = f"claim-{files.sha256(content)[:16]}.json"


def _read(content: bytes) -> Claim:
    """Read a claim; an empty one where it can't be read: nobody knows that its owner is dead."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return Claim()
    kinds = {f.name: int if f.name == "pid" else str for f in fields(Claim)}
    whole = isinstance(record, dict) and all(type(record.get(name)) is kind for name, kind in kinds.items())
    whole = whole and 0 <= record["pid"] < 2**31  # what no system has given would be no question to it
    return Claim(**{name: record[name] for name in kinds}) if whole else Claim()


def _beat(held: Held, done: threading.Event) -> None:
    while not done.wait(BEAT) and not held.lost():
        with contextlib.suppress(OSError):  # a disk that is full for a while
            os.utime(held.folder / ALIVE)
