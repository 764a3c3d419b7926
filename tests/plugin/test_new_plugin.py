"""``new-plugin``: for every kind a package that passes its own test as it stands, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.new import COMMANDS, NAME, TEMPLATES, new_plugin, package
from ddpmkit.plugin.registry import Registry

Capsys = pytest.CaptureFixture[str]
SOURCE = Path(ddpmkit.__file__).parents[1]


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("ddpmkit_an_odd", "ddpmkit_p_")):
            del sys.modules[name]


def installed(folder: Path) -> None:
    """Give a package what pip would write beside its module: its name and entry points, as its pyproject has them."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = project["tool"]["setuptools"]["py-modules"]
    assert (folder / f"{module}.py").is_file()
    name, version = project["project"]["name"], project["project"]["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = [f"{key} = {value}" for key, value in project["project"]["entry-points"]["ddpmkit"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ddpmkit]", *points, ""]))


@pytest.mark.long
def test_the_package_of_each_kind_passes_its_own_test_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    folders = []
    for kind in KINDS:
        folders.append(new_plugin(f"an-odd-{kind}", kind, tmp_path)[0].parent)
        installed(folders[-1])
    # Found by their names, and nothing is wrong with them.
    for folder in folders:
        monkeypatch.syspath_prepend(str(folder))
    registry = Registry(strict=True)
    for kind in KINDS:
        entry = registry.find(kind, f"an-odd-{kind}")
        assert (entry.plugin, entry.plugin_version) == (f"ddpmkit-an-odd-{kind}", "0.1.0")
        assert registry.build(kind, f"an-odd-{kind}") == entry.cls()
        assert {"torch", "numpy"}.isdisjoint(vars(sys.modules[entry.cls.__module__]))
    # One process for all, since each would import torch; under the settings of the first, which all have.
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    paths = os.pathsep.join(map(str, [SOURCE, *folders]))
    done = subprocess.run(
        [*command, "-c", str(folders[0] / "pyproject.toml"), *(str(f / "tests") for f in folders)],
        capture_output=True, text=True, timeout=600, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in KINDS:
        assert list((tmp_path / f"ddpmkit-an-odd-{kind}" / "tests").glob("test_*.py")), kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_module_is_a_plugin_by_itself(kind: str, tmp_path: Path, forget: None) -> None:
    files = new_plugin("odd", kind, tmp_path)
    module = tmp_path / "ddpmkit-odd" / "ddpmkit_odd.py"
    assert module in files
    (entry,) = Registry([str(module)], installed=False).foreign()
    assert (entry.kind, entry.name) == (kind, "odd")
    # Its docstring and its reference are what a user of ls and show reads.
    assert entry.cls.__doc__
    assert entry.cls.reference
    assert entry.cls.__name__ == f"Odd{kind.capitalize()}"
    assert "ddpmkit_api = (1, 1)" in module.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_these_files_and_no_others(kind: str, tmp_path: Path) -> None:
    files = new_plugin("ddpmkit-very-odd", kind, tmp_path)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {p.relative_to(tmp_path).as_posix() for p in files}
    assert found == {
        "ddpmkit-very-odd/pyproject.toml",
        "ddpmkit-very-odd/README.md",
        "ddpmkit-very-odd/.gitignore",
        "ddpmkit-very-odd/.github/workflows/test.yml",
        "ddpmkit-very-odd/ddpmkit_very_odd.py",
        "ddpmkit-very-odd/tests/test_very_odd.py",
    }
    assert f"\n    {COMMANDS[kind].format('very-odd')}\n" in (tmp_path / "ddpmkit-very-odd/README.md").read_text()


def test_every_template_is_used_and_shipped() -> None:
    templates = {p.relative_to(TEMPLATES).as_posix() for p in TEMPLATES.rglob("*") if p.is_file()}
    kinds = {f"{kind}/{file}.py.txt" for kind in KINDS for file in ("module", "test")}
    common = {f"common/{name}.txt" for name in ("pyproject.toml", "README.md", "gitignore", "test.yml")}
    assert templates == kinds | common
    assert set(COMMANDS) == set(KINDS)
    settings = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))
    assert "plugin/templates/*/*.txt" in settings["tool"]["setuptools"]["package-data"]["ddpmkit"]


def test_the_command_prints_what_it_wrote_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "soft-cosine", "--kind", "schedule"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"ddpmkit-soft-cosine/{place}" for place in package("soft-cosine", "schedule")]
    assert all(Path(line).is_file() for line in out.splitlines())
    assert err == (
        "next: pip install -e './ddpmkit-soft-cosine[dev]' && pytest ddpmkit-soft-cosine && "
        "ddpmkit ablate --schedules linear,soft-cosine\n"
    )


@pytest.mark.parametrize(
    ("name", "kind", "error", "hint"),
    [
        ("odd", "shedule", "error: unknown kind 'shedule'; did you mean 'schedule'?", "hint: kinds: schedule, sigma,"),
        ("Odd", "schedule", "error: 'Odd' is no name for a plugin", "hint: ddpmkit new-plugin soft-cosine --kind sch"),
        ("../odd", "sigma", "error: '../odd' is no name for a plugin", "hint: ddpmkit new-plugin"),
        ("odd_one", "sigma", "error: 'odd_one' is no name", "hint: ddpmkit new-plugin"),
        ("odd-", "sigma", "error: 'odd-' is no name", "hint: ddpmkit new-plugin"),
        ("ddpmkit-", "sigma", "error: 'ddpmkit-' is no name", "hint: ddpmkit new-plugin"),
        ("o" * 41, "sigma", "error: 'oooo", "hint: ddpmkit new-plugin"),
        ("odd\n", "sigma", "error: 'odd", "hint: ddpmkit new-plugin"),
        ("cosine", "schedule", "error: schedule 'cosine' is built in", "hint: another name: ddpmkit new-plugin my-cos"),
        ("there", "schedule", "error: 'ddpmkit-there' is there already", "hint: another name, or move it away"),
        ("a-file", "schedule", "error: 'ddpmkit-a-file' is there already", "hint: another name, or move it away"),
    ],
)
def test_what_is_refused_is_told_in_two_lines_and_writes_nothing(
    name: str, kind: str, error: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    (tmp_path / "ddpmkit-there").mkdir()
    (tmp_path / "ddpmkit-a-file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", name, "--kind", kind]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert first.startswith(error)
    assert second.startswith(hint)
    assert {p.name for p in tmp_path.rglob("*")} == {"ddpmkit-there", "ddpmkit-a-file"}
    assert (tmp_path / "ddpmkit-a-file").read_text() == "mine"


def test_a_kind_must_be_named(capsys: Capsys) -> None:
    assert main(["new-plugin", "odd"]) == 2
    first, _ = capsys.readouterr().err.splitlines()
    assert "--kind" in first


def test_a_name_of_another_kind_is_free(tmp_path: Path) -> None:
    assert new_plugin("cosine", "weighting", tmp_path)
    assert NAME.fullmatch("a1-b2")


def test_the_tutorial_leads_to_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys, forget: None
) -> None:
    tutorial = (SOURCE / "docs/tutorial.md").read_text(encoding="utf-8")
    commands = [line.split() for line in tutorial.splitlines() if line.startswith("    ")]
    clone, venv, here, *commands = commands  # need a network: for make test-plugins, which installs
    assert (clone[0], venv[:3], here[:2]) == ("git", ["python3", "-m", "venv"], ["pip", "install"])
    start, _, _, ls, check, show, plot, dry, ablate, _, plugins = (
        commands  # pip and pytest likewise, and the whole study
    )
    assert [c[:2] for c in commands[1:3]] == [["pip", "install"], ["pytest", "ddpmkit-my-power"]]
    assert dry == [*ablate, "--dry-run"]
    assert commands[-2] == ["ddpmkit", "report"]
    monkeypatch.chdir(tmp_path)
    assert main(start[1:]) == 0
    module = "ddpmkit-my-power/ddpmkit_my_power.py"
    assert module in capsys.readouterr().out.splitlines()
    assert f"`-p {module}`" in tutorial
    assert main(["--no-plugins", "-p", module, *ls[1:]]) == 0
    assert "\tmy-power\t" in capsys.readouterr().out
    assert main(["--no-plugins", "-p", module, *ablate[1:], "--dry-run", "--no-probe"]) == 0
    assert "my-power" in capsys.readouterr().out
    for words in (check, show, plugins):
        assert main(["--no-plugins", "-p", module, *words[1:]]) == 0, words
    out = capsys.readouterr().out
    assert "0 failed" in out
    assert "the power: larger ones destroy the image sooner" in out
    assert main(["--no-plugins", "-p", module, *plot[1:], "--to", "curves.svg"]) == 0
    assert "my-power" in Path("curves.svg").read_text()
