"""Wheels beside one another, as a user has them: installed, used, uninstalled, installed again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
OF_DDPMKIT = ("ddpmkit", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
PACKAGES = ("ddpmkit-dit", "ddpmkit-p2")
STUDY = ["--schedules", "cosine", "--timesteps", "8", "--train-steps", "2", "--batch-size", "8", "--samples", "8"]
STUDY += ["--sampling-steps", "2", "--metrics", "fd", "--features", "pixels", "--train-seeds", "0"]
STUDY += ["--backbones", "dit:width=16:depth=1", "--executor", "inline", "--name", "tried"]


def run(*command: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels, and an environment with what this one has but for ddpmkit and its plugins."""
    place = tmp_path_factory.mktemp("installed")
    source = place / "source"  # a copy, so that nothing is left in the repository and nothing old is taken from it
    source.mkdir()
    for name in OF_DDPMKIT:
        here = REPOSITORY / name
        if here.is_dir():
            shutil.copytree(here, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(here, source / name)
    for name in PACKAGES:
        shutil.copytree(
            REPOSITORY / "plugins" / name, place / name, ignore=shutil.ignore_patterns("build", "*.egg-info")
        )
    run(
        *pip(),
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "wheels",
        "./source",
        *(f"./{name}" for name in PACKAGES),
        cwd=place,
    )
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=place)
    (packages,) = place.glob("env/lib/python*/site-packages")
    for folder in [Path(p) for p in sys.path if Path(p).name == "site-packages"]:
        for package in folder.iterdir():
            ours = package.name.startswith(("ddpmkit", "__editable__")) or package.suffix in (".pth", ".egg-link")
            if not ours and not (packages / package.name).exists():
                (packages / package.name).symlink_to(package)
    return place


def pip(place: Path | None = None) -> list[object]:
    into = [] if place is None else ["--python", place / "env/bin/python"]
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *into]


def test_a_plugin_comes_and_goes_beside_ddpmkit(place: Path) -> None:
    install = [*pip(place), "install", "--no-deps", "--no-index", "--no-compile"]
    run(*install, *sorted(place.glob("wheels/*.whl")), cwd=place)
    python, ddpmkit = place / "env/bin/python", place / "env/bin/ddpmkit"
    where = run(
        python,
        "-c",
        "import ddpmkit, ddpmkit_dit, ddpmkit_p2 as p; print(ddpmkit.__file__, ddpmkit_dit.__file__, p.__file__)",
        cwd=place,
    )
    assert where.stdout.count(str(place / "env")) == 3  # none is editable

    ablate = [ddpmkit, "--strict-plugins", "ablate", "--weightings", "simple,perception", *STUDY]
    assert "perception" in run(*ablate, cwd=place).stdout

    run(*pip(place), "uninstall", "--yes", "ddpmkit-p2", cwd=place)
    run(python, "-c", "import ddpmkit_p2", cwd=place, code=1)
    # The report needs no plugin.
    assert "perception" in run(ddpmkit, "report", "tried", cwd=place).stdout
    # What would run it says what to install, by the study's name and by the command that made it.
    for again in ([ddpmkit, "ablate", "tried"], ablate):
        told = run(*again, cwd=place, code=2)
        assert told.stdout == ""
        assert told.stderr.splitlines() == [
            "error: weighting 'perception' is of ddpmkit-p2 0.1.0, which is not here",
            "hint: install ddpmkit-p2 0.1.0 again, or leave no:ddpmkit-p2 and --no-plugins out",
        ]

    run(*install, *place.glob("wheels/ddpmkit_p2*.whl"), cwd=place)
    plan = json.loads(run(*ablate, "--dry-run", "--no-probe", "--json", cwd=place).stdout)
    assert {kind: stage["to_run"] for kind, stage in plan["stages"].items()} == dict.fromkeys(plan["stages"], 0)
