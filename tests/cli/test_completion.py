"""What a shell completes, asked of the shells; bash is everywhere that the tests run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ddpmkit.cli import main
from ddpmkit.cli.app import COMMANDS
from ddpmkit.plugin.registry import Registry


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ddpmkit.cli.completion import SCRIPTS, commands

    folder = tmp_path_factory.mktemp("completion")
    found = commands()
    for shell, write in SCRIPTS.items():
        (folder / shell).write_text(write(found) + "\n")
    return folder


def asked(script: Path, line: str, breaks: str = "' \t\n'") -> list[str]:
    """What bash offers at the end of a line; by default without bash's own cuts inside words."""
    typed = f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _ddpmkit; "
    run = f"COMP_WORDBREAKS={breaks}; source {script / 'bash'}; {typed}" + 'printf "%s\\n" "${COMPREPLY[@]}"'
    out = subprocess.run(["bash", "--norc", "-c", run], capture_output=True, text=True, check=True)
    assert out.stderr == ""
    return out.stdout.split()


def test_commands_and_flags(script: Path) -> None:
    assert {*COMMANDS} <= {*asked(script, "ddpmkit ")}
    assert asked(script, "ddpmkit verif") == ["verify"]
    assert asked(script, "ddpmkit ablate --schedul") == ["--schedules", "--schedule"]
    assert asked(script, "ddpmkit -p mine.py ablate --sampling-st") == ["--sampling-steps"]
    assert "--help" in asked(script, "ddpmkit doctor --")


def test_values(script: Path) -> None:
    assert {e.name for e in Registry(installed=False).entries("sigma")} <= {*asked(script, "ddpmkit ablate --sigmas ")}
    assert asked(script, "ddpmkit ablate --weighting=min-") == ["min-snr"]
    assert asked(script, "ddpmkit ablate --timestep-sampling u") == ["uniform"]
    assert asked(script, "ddpmkit new-plugin mine --kind sched") == ["schedule"]
    assert asked(script, "ddpmkit ls sam") == ["sampler"]
    assert asked(script, "ddpmkit show cos") == ["cosine", "cosine-gamma"]
    assert {"rename", "rm", "restore"} <= {*asked(script, "ddpmkit studies ")}


def test_lists_and_parameters(script: Path) -> None:
    assert asked(script, "ddpmkit ablate --schedules linear,sig") == ["linear,sigmoid", "linear,sigmoid-gamma"]
    assert asked(script, "ddpmkit ablate --schedules linear,cosine:") == [
        "linear,cosine:s=", "linear,cosine:max_beta=",
    ]  # fmt: skip
    assert asked(script, "ddpmkit ablate --samplers ddim,ancestral:spacing=tr") == ["ddim,ancestral:spacing=trailing"]
    # Bash gives the part behind its last cut, and wants that part back.
    assert asked(script, "ddpmkit ablate --schedules linear,cosine:m", "$' \\t\\n=:'") == ["max_beta="]


def test_where_nothing_is_known_files_are_offered(script: Path) -> None:
    assert asked(script, "ddpmkit ablate --out ") == []
    assert "complete -o default -F _ddpmkit ddpmkit" in (script / "bash").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_of_their_shell(script: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert subprocess.run([shell, "-n", script / shell], capture_output=True, text=True).stderr == ""


def test_fish_offers_lists(script: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    line = f"source {script / 'fish'}; complete -C 'ddpmkit ablate --sigmas beta,interpolate:'"
    out = subprocess.run(["fish", "--no-config", "-c", line], capture_output=True, text=True, check=True).stdout
    assert [row.split("\t")[0] for row in out.splitlines()] == ["beta,interpolate:w="]


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef ddpmkit\n")
