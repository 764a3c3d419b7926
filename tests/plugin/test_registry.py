"""Looking components up: built-ins first and alone, clashes, -p and its negations, records that outlive a session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit import DdpmkitError, Sigma
from ddpmkit.plugin.registry import Registry

Install = Callable[..., str]
Write = Callable[..., str]


def source(name: str, fields: str = "w: float = param(1.0, 'w')", version: int = 1) -> str:
    """A plugin with one schedule of constant betas."""
    return f'''
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl, param

@dataclass(frozen=True)
class Thing(Schedule):
    """A schedule of a test."""
    name = "{name}"
    version = {version}
    {fields}

    def betas(self, T):
        import numpy as np
        return np.full(T, 0.1)

@hookimpl
def ddpmkit_register_schedules():
    return [Thing]
'''


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("reg_", "ddpmkit_p_")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> Install:
    """Make an installed distribution that is only a folder on sys.path."""

    def make(dist: str, text: str) -> str:
        module = "reg_" + dist.replace("-", "_")
        folder = tmp_path / f"site-{dist}"
        info = folder / f"{dist.replace('-', '_')}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[ddpmkit]\nmain = {module}\n")
        (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        return module

    return make


@pytest.fixture
def write(tmp_path: Path, forget: None) -> Write:
    """Write a file for -p and return its path."""

    def make(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return make


# --- built-ins ---------------------------------------------------------------------------------------------------


def test_a_builtin_name_imports_no_installed_plugin(install: Install) -> None:
    module = install("watch", source("watched"))
    registry = Registry()
    for entry in Registry(installed=False).entries():
        registry.build(entry.kind, entry.name)
        registry.build(entry.kind, entry.qualified)
        registry.rebuild(registry.record(registry.build(entry.kind, entry.name)))
    assert module not in sys.modules
    assert registry.build("schedule", "watched").w == 1.0
    assert module in sys.modules


def test_a_builtin_cannot_be_shadowed_but_the_full_name_works(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("shadow", source("linear"))
    registry = Registry()
    registry.entries()  # now the other one is known
    assert registry.find("schedule", "linear").plugin == "ddpmkit"
    assert registry.find("schedule", "ddpmkit/linear").plugin == "ddpmkit"
    assert registry.find("schedule", "shadow/linear").plugin == "shadow"
    lines = [line for line in capsys.readouterr().err.splitlines() if "shadow" in line]
    assert lines == [
        "warning: plugin shadow 0.1 (component): schedule 'linear' is a built-in name; "
        "yours is reachable as shadow/linear only"
    ]


@pytest.mark.parametrize("installed", [True, False])
def test_a_file_that_would_shadow_a_builtin_is_told_so(
    write: Write, installed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whoever passes a file with his own 'linear' and asks for linear must not get the built-in in silence.
    registry = Registry([write(source("linear"))], installed=installed)
    assert registry.find("schedule", "linear").plugin == "ddpmkit"
    err = capsys.readouterr().err
    assert err.count("schedule 'linear' is a built-in name; yours is reachable as mine/linear only") == 1


def test_a_file_named_ddpmkit_takes_nothing_away(write: Write) -> None:
    registry = Registry([write(source("linear"), "ddpmkit.py")], installed=False)
    assert type(registry.build("schedule", "linear")).__module__ == "ddpmkit.builtin.schedules.linear"


# --- clashes -----------------------------------------------------------------------------------------------------


def test_two_plugins_with_one_name_clash_only_when_the_bare_name_is_used(install: Install) -> None:
    install("dist-a", source("twin", "w: float = param(1.0, 'w')"))
    install("dist-b", source("twin", "w: float = param(2.0, 'w')"))
    registry = Registry()
    assert [e.qualified for e in registry.entries("schedule") if e.name == "twin"] == ["dist-a/twin", "dist-b/twin"]
    assert registry.build("schedule", "dist-a/twin").w == 1.0
    assert registry.build("schedule", "dist-b/twin:w=5").w == 5.0
    with pytest.raises(DdpmkitError) as caught:
        registry.build("schedule", "twin")
    assert caught.value.message == "schedule 'twin' is provided by 2 plugins: dist-a/twin and dist-b/twin"
    assert caught.value.hint == "write the full name, plugin/name"


@pytest.mark.long
def test_a_clash_is_found_whether_or_not_anything_was_listed_before(install: Install, write: Write) -> None:
    install("dist-a", source("twin"))
    path = write(source("twin"))

    def answer(registry: Registry) -> str:
        try:
            return registry.find("schedule", "twin").qualified
        except DdpmkitError as err:
            return err.message

    fresh, listed = Registry([path]), Registry([path])
    listed.entries()
    assert answer(fresh) == answer(listed)


def test_one_file_written_in_two_ways_is_one_plugin(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(source("once"))
    monkeypatch.chdir(Path(path).parent)
    registry = Registry([path, "mine.py", "./mine.py"], installed=False)
    assert registry.build("schedule", "once").w == 1.0


def test_two_files_of_one_name_are_not_confused(write: Write) -> None:
    first = write(source("twin", "w: float = param(1.0, 'w')"), "a/mine.py")
    second = write(source("twin", "w: float = param(2.0, 'w')"), "b/mine.py")
    # Whichever was meant, one of the two must not be taken in silence.
    with pytest.raises(DdpmkitError, match="mine"):
        Registry([first, second], installed=False).build("schedule", "mine/twin")


# --- what is not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "message", "hint"),
    [
        ("schedule", "cosin", "unknown schedule 'cosin'; did you mean 'cosine'?", "ddpmkit ls schedule"),
        ("schedule", "zzz", "unknown schedule 'zzz'", "ddpmkit ls schedule"),
        ("sigma", "cosine", "unknown sigma 'cosine'", "ddpmkit ls sigma"),
        ("schedule", "", "unknown schedule ''", "ddpmkit ls schedule"),
        (
            "shedule",
            "cosine",
            "unknown kind 'shedule'; did you mean 'schedule'?",
            "kinds: schedule, sigma, weighting, ",
        ),
    ],
)
def test_unknown_names(kind: str, text: str, message: str, hint: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        Registry(installed=False).build(kind, text)
    assert caught.value.message == message
    assert (caught.value.hint or "").startswith(hint)
    assert caught.value.code == 2


def test_an_unknown_name_mentions_the_plugin_that_failed(install: Install) -> None:
    install("broken", "raise RuntimeError('boom')")
    with pytest.raises(DdpmkitError, match=r"^unknown schedule 'zzz' \(plugin .*broken.* did not load whole"):
        Registry().build("schedule", "zzz")


def test_a_plugin_that_only_shadows_is_not_blamed_for_an_unknown_name(install: Install) -> None:
    install("shadow", source("linear"))
    with pytest.raises(DdpmkitError) as caught:
        Registry().build("schedule", "zzz")
    assert "shadow" not in caught.value.message


# --- which plugins -----------------------------------------------------------------------------------------------


def test_no_name_removes_an_installed_plugin_without_importing_it(install: Install) -> None:
    module = install("watch", source("watched"))
    registry = Registry(["no:watch"])
    with pytest.raises(DdpmkitError, match="unknown schedule 'watched'"):
        registry.build("schedule", "watched")
    assert module not in sys.modules


def test_without_installed_plugins_none_is_imported(install: Install) -> None:
    module = install("watch", source("watched"))
    registry = Registry(installed=False)
    assert {e.plugin for e in registry.entries()} == {"ddpmkit"}
    assert [p.name for p in registry.plugins()] == ["ddpmkit"]
    assert module not in sys.modules


def test_a_file_works_without_installed_plugins(write: Write) -> None:
    assert Registry([write(source("mine"))], installed=False).build("schedule", "mine:w=2").w == 2.0


@pytest.mark.long
def test_the_public_function_takes_what_p_takes(write: Write, install: Install) -> None:
    install("watch", source("watched"))
    assert ddpmkit.build("schedule", "mine:w=2", plugins=[write(source("mine"))]).w == 2.0
    assert ddpmkit.build("schedule", "watched").w == 1.0
    with pytest.raises(DdpmkitError, match="unknown schedule 'watched'"):
        ddpmkit.build("schedule", "watched", plugins=["no:watch"])


def test_strict_turns_the_first_issue_into_an_error(install: Install) -> None:
    install("broken", "raise RuntimeError('boom')")
    with pytest.raises(DdpmkitError, match=r"^plugin broken 0\.1 \(import\): RuntimeError: boom$"):
        Registry(strict=True).entries()


def test_a_warning_is_given_once(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("broken", "raise RuntimeError('boom')")
    registry = Registry()
    registry.entries()
    registry.plugins()
    registry.entries("schedule")
    assert capsys.readouterr().err.count("plugin broken") == 1


def test_registries_are_values(write: Write) -> None:
    # What one session loads is not in the next one: there is no manager behind them.
    Registry([write(source("mine"))], installed=False).build("schedule", "mine")
    with pytest.raises(DdpmkitError, match="unknown schedule 'mine'"):
        Registry(installed=False).build("schedule", "mine")


# --- records -----------------------------------------------------------------------------------------------------


def test_a_record_holds_every_parameter_and_where_it_came_from() -> None:
    registry = Registry(installed=False)
    assert registry.record(registry.build("schedule", "cosine:s=0.01")) == {
        "kind": "schedule",
        "name": "cosine",
        "params": {"s": 0.01, "max_beta": 0.999},
        "plugin": "ddpmkit",
        "plugin_version": ddpmkit.__version__,
        "version": 1,
    }


@pytest.mark.parametrize("entry", Registry(installed=False).entries(), ids=lambda e: f"{e.kind}-{e.name}")
def test_record_and_rebuild(entry: ddpmkit.plugin.loader.Entry) -> None:
    registry = Registry(installed=False)
    obj = entry.cls()
    assert Registry(installed=False).rebuild(registry.record(obj)) == obj


def test_tuples_come_back_from_a_record() -> None:
    registry = Registry(installed=False)
    obj = registry.build("backbone", "unet:mults=1/2/4:attention=8")
    record = registry.record(obj)
    assert record["params"]["mults"] == [1, 2, 4]
    assert registry.rebuild(record) == obj


def test_a_record_names_the_installed_plugin_or_the_hash_of_the_file(install: Install, write: Write) -> None:
    install("dist-a", source("known", version=4))
    path = write(source("mine"))
    registry = Registry([path])
    known = registry.record(registry.build("schedule", "known"))
    mine = registry.record(registry.build("schedule", "mine"))
    assert (known["plugin"], known["plugin_version"], known["version"]) == ("dist-a", "0.1", 4)
    assert mine["plugin"] == "mine"
    assert len(mine["version"]) == 64
    assert registry.rebuild(mine) == registry.build("schedule", "mine")


def test_rebuild_takes_the_plugin_that_was_recorded(install: Install) -> None:
    install("dist-a", source("twin", "w: float = param(1.0, 'w')"))
    install("dist-b", source("twin", "w: float = param(2.0, 'w')"))
    registry = Registry()
    for dist in ("dist-a", "dist-b"):
        obj = registry.build("schedule", f"{dist}/twin")
        assert type(registry.rebuild(registry.record(obj))) is type(obj)
        assert registry.record(obj)["plugin"] == dist


def test_a_plugin_that_is_gone(write: Write) -> None:
    registry = Registry([write(source("mine"))], installed=False)
    record = registry.record(registry.build("schedule", "mine"))
    with pytest.raises(DdpmkitError, match=r"'mine' from mine .* is not here") as caught:
        Registry(installed=False).rebuild(record)
    assert caught.value.hint == "install that plugin, or pass the same -p again"


def test_a_file_that_changed(write: Write) -> None:
    path = write(source("mine"))
    registry = Registry([path], installed=False)
    record = registry.record(registry.build("schedule", "mine"))
    write(source("mine") + "\n# another comment\n")
    with pytest.raises(DdpmkitError, match="schedule 'mine' of mine has changed since the stage was planned"):
        Registry([path], installed=False).rebuild(record)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_a_component_of_another_version(version: int | str) -> None:
    registry = Registry(installed=False)
    record = {**registry.record(registry.build("schedule", "cosine")), "version": version}
    with pytest.raises(DdpmkitError, match="has changed since the stage was planned"):
        registry.rebuild(record)


@pytest.mark.parametrize(
    "params", [{"s": 0.01, "gone": 1.0}, {"s": -1.0, "max_beta": 0.999}, {"s": "0.01", "max_beta": 0.999}]
)
def test_a_record_whose_parameters_do_not_fit_any_more(params: dict[str, object]) -> None:
    # The author renamed a parameter or narrowed its range and forgot to raise the version.
    registry = Registry(installed=False)
    record = {**registry.record(registry.build("schedule", "cosine")), "params": params}
    with pytest.raises(DdpmkitError, match="cosine"):
        registry.rebuild(record)


def test_a_component_that_nobody_registered_cannot_be_recorded() -> None:
    class Stray(Sigma):
        name = "stray"

        def log_bounds(self, tables: object) -> tuple[object, object]:  # type: ignore[override] # never called
            raise NotImplementedError

    with pytest.raises(DdpmkitError, match="stray"):
        Registry(installed=False).record(Stray())
