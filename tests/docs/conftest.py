"""The commands of the documents, for the tests of this folder: found once, parsed by one and run by another."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = "ddpmkit|git|make|pip|pytest|python3?"
COMMAND = re.compile(rf"^    ((?:{PROGRAMS}) .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of the documents: the page that it stands on, its words, and the file that it is sent to."""

    page: str
    words: tuple[str, ...]
    to: str | None = None

    def __str__(self) -> str:
        return shlex.join(self.words)


def documents() -> dict[str, str]:
    """The text of every page of the site, by its name, and of the README."""
    pages = {p.relative_to(ROOT / "docs").with_suffix("").as_posix(): p for p in (ROOT / "docs").rglob("*.md")}
    return {name: path.read_text(encoding="utf-8") for name, path in {**pages, "README": ROOT / "README.md"}.items()}


def commands_of(page: str, text: str) -> list[Command]:
    """The commands of a page in their order; those that && joins are two."""
    found = []
    for line in COMMAND.findall(text):
        typed, _, to = line.partition(" > ")
        words: list[str] = []
        for word in [*shlex.split(typed, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            else:
                found.append(Command(page, tuple(words), shlex.split(to, comments=True)[0] if to else None))
                words = []
    return found


COMMANDS = [c for page, text in sorted(documents().items()) for c in commands_of(page, text)]


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """The text of every page and of the README."""
    return documents()


@pytest.fixture(scope="session")
def written() -> list[Command]:
    """Every command of the documents."""
    return COMMANDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Call a test that asks for a page with commands once for each."""
    if "page_with_commands" in metafunc.fixturenames:
        metafunc.parametrize("page_with_commands", dict.fromkeys(c.page for c in COMMANDS))
