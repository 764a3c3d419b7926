"""The site and the code say the same: kinds, hooks, methods and where they are called, commands, flags, stages."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ddpmkit
from ddpmkit.cli.app import COMMANDS, application
from ddpmkit.cli.completion import commands
from ddpmkit.cli.given import Global
from ddpmkit.plugin.hookspecs import HOOKS
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.new import package
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.spec import split
from ddpmkit.study.settings import FIELDS, PLURALS
from ddpmkit.study.stages import STAGE_KINDS
from ddpmkit.testing import tiny, tiny_study

ROOT = Path(ddpmkit.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {p.relative_to(DOCS).with_suffix("").as_posix(): p.read_text(encoding="utf-8") for p in DOCS.rglob("*.md")}
ROW = re.compile(r"^\| `(\w+)` \| *((?:`\w+` ?)*) *\|", re.MULTILINE)
OBJECT = re.compile(r"auto(?:class|function):: ddpmkit\.(\w+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def made() -> Iterator[Any]:
    """What makes the site's pages from the code."""
    sys.path.insert(0, str(DOCS))
    import made
    import stage_graph

    yield made
    sys.path.remove(str(DOCS))
    del sys.modules[made.__name__], sys.modules[stage_graph.__name__]


@pytest.fixture(scope="module")
def site(made: Any) -> dict[str, str]:
    """The pages as Sphinx reads them."""
    return {name: made.page(name, text) for name, text in PAGES.items()}


def called(kind: str) -> dict[str, set[str]]:
    """What a kind's page says of each name: where it is called."""
    table = PAGES[f"kinds/{kind}"].split("## When it is called")[1].split("\n## ")[0]
    return {name: set(re.findall(r"\w+", where)) for name, where in ROW.findall(table)}


def test_every_kind_has_a_page_with_all_its_parts() -> None:
    assert {name for name in PAGES if name.startswith("kinds/")} == {f"kinds/{kind}" for kind in KINDS}
    for kind in KINDS:
        parts = re.findall(r"<!-- made: ([a-z-]+) ([a-z]+) -->", PAGES[f"kinds/{kind}"])
        assert parts == [(part, kind) for part in ("signature", "example", "checked", "built-in")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_names_every_method_and_attribute_of_its_kind(kind: str) -> None:
    own = {name for name in vars(KINDS[kind].interface) if not name.startswith("_")}
    assert set(called(kind)) == own


@pytest.mark.long
def test_methods_are_called_where_their_pages_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)

    def noted(kind: str, name: str, original: Any) -> Any:
        @functools.wraps(original)
        def method(*args: Any, **kw: Any) -> Any:
            seen[kind, name].add(_place())
            return original(*args, **kw)

        return method

    for entry in Registry(installed=False).entries():
        for cls in (KINDS[entry.kind].interface, entry.cls):
            for name in called(entry.kind):
                method = vars(cls).get(name)
                if inspect.isfunction(method) and not hasattr(method, "__wrapped__"):
                    monkeypatch.setattr(cls, name, noted(entry.kind, name, method))
    # One sigma that is fitted, with metrics of every need, and one that is learned.
    monkeypatch.setitem(tiny.SETTINGS, "metrics", "fd,kid,copy,nll")
    tiny_study(ddpmkit.build("sigma", "optimal"), tmp_path / "fitted")
    tiny_study(ddpmkit.build("sigma", "learned-range"), tmp_path / "learned")
    said = {(kind, name): where for kind in KINDS for name, where in called(kind).items() if where}
    del said["dataset", "outline"]  # of dry runs alone
    assert seen.pop(("executor", "open")) == {""}
    assert dict(seen) == said


def _place() -> str:
    """The stage within which this is called, ``plan``, or nothing between them."""
    frame = sys._getframe(2)
    place = ""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "run" and Path(code.co_filename).parent.name == "stages":
            return Path(code.co_filename).stem
        place = "plan" if code.co_name == "prepare" else place
        frame = frame.f_back
    return place


def test_every_hook_is_on_the_page_of_kinds(site: dict[str, str]) -> None:
    assert set(re.findall(r"`(ddpmkit_register_\w+)\(\)`", site["kinds"])) == HOOKS


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_shows_what_new_plugin_writes_and_every_built_in(kind: str, site: dict[str, str]) -> None:
    page = site[f"kinds/{kind}"]
    files = package("mine", kind)
    shown = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert shown == [text for place, text in files.items() if place.endswith(".py")]
    listed = page.split("## Built in")[1]
    assert re.findall(r"^\| `([^`]+)` \|", listed, re.MULTILINE) == [
        e.name for e in Registry(installed=False).builtin(kind)
    ]


def test_the_reference_has_every_command_flag_and_setting(site: dict[str, str]) -> None:
    page = site["cli"]
    for command in commands():
        title = f"\n## {command.name or 'ddpmkit'}\n"
        assert page.count(title) == 1, command.name
        section = page.split(title)[1].split("\n## ")[0]
        assert command.help in section
        for flag in command.flags:
            for name in flag.names:
                assert name == "--help" or re.search(rf"`{name}`", section), f"{command.name} {name}"
    listed = page.split("## Settings of a study")[1]
    assert re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE) == list(FIELDS)


def test_every_public_name_has_its_place(site: dict[str, str]) -> None:
    shown = {name for page in site.values() for name in OBJECT.findall(page)}
    constants = set(re.findall(r"`(\w+)`", site["api"].split("Types and constants")[1].split("\n")[0]))
    assert shown | constants == set(ddpmkit.__all__)
    assert shown & constants == set()


def test_the_picture_of_the_stages_is_that_of_the_code(made: Any, site: dict[str, str]) -> None:
    import stage_graph

    assert (DOCS / "stages.svg").read_text(encoding="utf-8") == stage_graph.picture(), "python docs/stage_graph.py"
    assert re.findall(r"^\| `(\w+)` \|", site["stages"], re.MULTILINE) == list(STAGE_KINDS)


def test_every_page_is_reached_and_every_link_leads_somewhere(site: dict[str, str]) -> None:
    reached = {"index"}
    for text in PAGES.values():
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
            reached |= {line for line in block.splitlines() if line and not line.startswith(":")}
    assert reached == set(PAGES), "a new page has its line in docs/index.md"
    for name, text in site.items():
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert "://" in target or (DOCS / name).parent.joinpath(target).exists(), f"{name}: {target}"


@pytest.mark.long
def test_every_command_of_the_documents_is_one(tmp_path: Path, pages: dict[str, str], written: list[Any]) -> None:
    """Each is parsed by the application itself, and the components that it names are built.

    They are not run here, but before a tag: test_commands_run.py.
    """
    top: Any = typer.main.get_command(application(tuple(COMMANDS)))
    plugins = [("my-power", package("my-power", "schedule")["ddpmkit_my_power.py"])]
    for text in pages.values():
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            if "@hookimpl" in block:
                plugins.append((re.findall(r'name = "(.*)"', block)[0], block))
    for name, block in plugins:
        (tmp_path / f"{name}.py").write_text(block)
    registry = Registry([str(tmp_path / f"{name}.py") for name, _ in plugins], installed=False)
    found = [(c.page, c.words[1:]) for c in written if c.words[0] == "ddpmkit"]
    assert len(found) > 60
    for page, words in found:
        context = top.make_context("ddpmkit", list(words), obj=Global(argv=tuple(words)))
        command, name, rest = top, "ddpmkit", list(words)
        while word := next((w for w in rest if w in getattr(command, "commands", {})), None):
            command, name, rest = command.commands[word], word, rest[rest.index(word) + 1 :]
        assert command is not top, f"{page}: {words}"
        parsed = command.make_context(name, rest, parent=context).params
        for plural, kind in PLURALS.items():
            if kind in KINDS and isinstance(parsed.get(plural), str):
                for text in split(parsed[plural]):
                    assert registry.build(kind, text), f"{page}: {text}"
