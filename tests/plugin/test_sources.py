"""What a plugin's numbers rest on: its own text, what its import and its hooks read, and files that are named to it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmkit import DdpmkitError
from ddpmkit.plugin import loader
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.sources import Sources, reading, sources_of
from ddpmkit.study.identity import identified

SAMPLER = """
from dataclasses import dataclass
from pathlib import Path
from ddpmkit import Sampler, hookimpl, param
{top}
@dataclass(frozen=True)
class Mine(Sampler):
    name = "mine"
    path: str = param("", "a file, or a word")
    def timesteps(self, T, count):
        return range(T - count, T)
    def sample(self, denoise, tables, noise):
        return noise(0)

@hookimpl
def ddpmkit_register_samplers():
    {hook}
    return [Mine]
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a plugin file; what it brings to the process is forgotten at the end."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(top: str = "", hook: str = "pass", name: str = "sources_plugin.py") -> Path:
        path = tmp_path / name
        path.write_text(SAMPLER.format(top=top, hook=hook))
        return path

    yield make
    for module in set(sys.modules) - before:
        del sys.modules[module]


def identity(plugin: Path, text: str = "mine") -> dict[str, Any]:
    registry = Registry([str(plugin)], installed=False)
    return identified(registry.build("sampler", text), registry)[0]


def test_an_installed_module_outside_site_packages_is_one_of_its_own_sources(write: Write) -> None:
    plugin = write()
    module = importlib.import_module(plugin.stem)
    assert list(sources_of(module, itself=True).modules) == [plugin.stem]
    assert sources_of(module).modules == {}
    before = sources_of(module, itself=True).digest()
    plugin.write_text(plugin.read_text().replace("noise(0)", "2 * noise(0)"))
    assert sources_of(module, itself=True).digest() != before


def test_an_editable_plugin_is_known_by_its_text(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for edit in ("noise(0)", "2 * noise(0)"):
        plugin = write()
        plugin.write_text(plugin.read_text().replace("noise(0)", edit))
        sys.modules.pop(plugin.stem, None)
        importlib.invalidate_caches()
        loaded = loader.Loaded("dist", "1.0", plugin.stem)
        module = loader._imported(loaded, lambda name=plugin.stem: importlib.import_module(name), itself=True)
        loader._take_in(loaded, module, identity=None)
        found.append(loaded.entries[0].sources)
    assert found[0] != found[1]


def test_who_loads_a_plugin_again_in_one_process_gets_what_its_import_read(write: Write, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("[1]")
    plugin = write(top="T = (Path(__file__).parent / 'table.json').read_text()")
    assert identity(plugin) == identity(plugin)
    (tmp_path / "table.json").write_text("[2]")
    with pytest.raises(DdpmkitError, match=r"table\.json' has changed since it was imported"):
        identity(plugin)


def test_a_file_that_a_hook_reads_counts_each_time(write: Write, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("[1]")
    plugin = write(hook="(Path(__file__).parent / 'table.json').read_text()")
    first = identity(plugin)
    assert identity(plugin) == first
    (tmp_path / "table.json").write_text("[2]")
    assert identity(plugin) != first


@pytest.mark.parametrize("how", ["safetensors.torch", "safetensors.numpy", "safetensors"])
def test_a_file_that_safetensors_opens_is_heard_of(tmp_path: Path, how: str) -> None:
    from safetensors.numpy import save_file

    module = importlib.import_module(how)
    path = tmp_path / "w.safetensors"
    save_file({"w": np.zeros(2, np.float32)}, path)
    with reading() as paths:
        if how == "safetensors":
            with module.safe_open(path, framework="np") as held:
                held.get_tensor("w")
        else:
            module.load_file(path)
    assert paths == {str(path)}
    before = module.safe_open
    with reading():
        pass
    assert module.safe_open is before


def test_a_named_file_is_its_content_wherever_it_lies(write: Write, tmp_path: Path) -> None:
    plugin, found = write(), []
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.bin").write_text(text)
        found.append(identity(plugin, f"mine:path={tmp_path / folder / 'weights.bin'}"))
    assert found[0] == found[1] != found[2]


def test_a_plain_word_is_no_path_whatever_the_working_folder_holds(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = write()
    before = identity(plugin, "mine:path=group")
    (tmp_path / "group").write_text("not meant")
    assert identity(plugin, "mine:path=group") == before


def test_two_files_of_one_name_are_told_apart_and_the_folder_above_does_not_matter() -> None:
    def digest(root: str, low: str, high: str) -> str:
        return Sources({}, {f"{root}/low/p.json": low, f"{root}/high/p.json": high}).digest()

    assert digest("/a", "1", "2") == digest("/b/c", "1", "2")
    assert digest("/a", "1", "2") != digest("/a", "2", "1")


def test_a_working_folder_that_is_gone_fails_nobody_s_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "file.txt").write_text("x")
    before = Path.cwd()
    os.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    try:
        with reading(), open(tmp_path / "file.txt") as held:
            assert held.read() == "x"
        with reading(), pytest.raises(FileNotFoundError):
            open("file.txt")  # noqa: SIM115
    finally:
        os.chdir(before)
    monkeypatch.delenv("HOME", raising=False)
    with reading() as paths:
        (tmp_path / "file.txt").read_text()
    assert paths == {str(tmp_path / "file.txt")}


TWO = """
from dataclasses import dataclass
from pathlib import Path
from ddpmkit import Sampler, hookimpl, param
@dataclass(frozen=True)
class Two(Sampler):
    name = "two"
    teacher: str = param("", "a file")
    student: str = param("", "a file")
    def timesteps(self, T, count):
        return range(T - count, T)
    def sample(self, denoise, tables, noise):
        return noise(0)
@hookimpl
def ddpmkit_register_samplers():
    return [Two]
"""


def test_which_parameter_names_which_file_is_part_of_the_identity(write: Write, tmp_path: Path) -> None:
    plugin = write()
    plugin.write_text(TWO)
    (tmp_path / "a.npz").write_text("a")
    (tmp_path / "b.npz").write_text("b")
    one = identity(plugin, f"two:teacher={tmp_path}/a.npz:student={tmp_path}/b.npz")
    assert one != identity(plugin, f"two:teacher={tmp_path}/b.npz:student={tmp_path}/a.npz")
    assert one != identity(plugin, f"two:teacher={tmp_path}/a.npz")


@pytest.mark.parametrize("spelling", ["{0}//w.npz", "{0}/./w.npz", "w.npz", "./w.npz", "other.npz"])
def test_how_a_file_is_spelt_or_called_does_not_matter(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = write()
    for name in ("w.npz", "other.npz"):
        (tmp_path / name).write_text("w")
    registry = Registry([str(plugin)], installed=False)

    def found(text: str) -> Any:
        # As if it was read on the way to the component's values, too.
        return identified(registry.build("sampler", f"mine:path={text}"), registry, files=[str(Path.cwd() / text)])[0]

    assert found(spelling.format(tmp_path)) == found(str(tmp_path / "w.npz"))


def test_what_a_hook_read_once_stays_among_its_sources(write: Write, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("[1]")
    top = "KEPT = []\ndef once():\n    KEPT or KEPT.append((Path(__file__).parent / 'table.json').read_text())"
    plugin = write(top=top, hook="once()")
    assert identity(plugin) == identity(plugin)
    (tmp_path / "table.json").write_text("[2]")
    with pytest.raises(DdpmkitError, match=r"table\.json' has changed since it was imported"):
        identity(plugin)


def test_a_module_that_was_edited_in_one_process_is_refused(write: Write) -> None:
    plugin = write()
    first = Registry([plugin.stem], installed=False)
    assert first.build("sampler", "mine")
    plugin.write_text(plugin.read_text() + "# edited\n")
    with pytest.raises(DdpmkitError, match=f"'{plugin.stem}' has changed since it was imported"):
        Registry([plugin.stem], installed=False)
