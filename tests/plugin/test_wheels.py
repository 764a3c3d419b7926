"""Wheels of plugins beside a wheel of ddpmkit: ten that are broken, and others that do what an import should not.

All are installed at once, so each must cost its own line and nothing of the others.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
OF_DDPMKIT = ("ddpmkit", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
HEAD = """from dataclasses import dataclass

import numpy as np

from ddpmkit import Schedule, hookimpl, param
"""
CLASS = """

@dataclass(frozen=True)
class Flat(Schedule):
    name = "NAME"

    def betas(self, T):
        return np.full(T, 0.1)
"""
HOOK = """

@hookimpl
def ddpmkit_register_schedules():
    return [Flat]
"""
GOOD = HEAD + CLASS + HOOK
# What is wrong with each, and its line: the stage, and what tells the cause.
BROKEN = {
    "raises": (HEAD + "raise ImportError('no such luck')\n", r"\(import\): ImportError: no such luck"),
    "syntax": ("def (:\n", r"\(import\): SyntaxError: invalid syntax"),
    "hook": (GOOD.replace("schedules()", "scheduels()"), r"\(hook\): .*ddpmkit_register_scheduels'; did you mean"),
    "argument": (GOOD.replace("schedules()", "schedules(T)"), r"\(register\): .*'T'"),
    "list": (GOOD.replace("[Flat]", "Flat"), r"\(component\): ddpmkit_register_schedules\(\) must return a list"),
    "class": (GOOD.replace("[Flat]", "[dict]"), r"\(component\): <class 'dict'> is no subclass of Schedule"),
    "field": (
        GOOD.replace("    def", "    of: object = param(None, 'any')\n\n    def"),
        r"\(component\): class Flat is not usable: .*\bof\b",
    ),
    "clash": (GOOD.replace("NAME", "linear"), r"\(component\): schedule 'linear' is a built-in name"),
    "api": (f"ddpmkit_api = (7, 9)\n{GOOD}", r"\(api\): it was made for versions 7 to 9 of the plugin API"),
    "missing": (None, r"\(import\): ModuleNotFoundError: No module named 'plug_missing'"),
    "exits": ("import sys\nsys.exit(3)\n", r"\(import\): SystemExit: 3"),
}
ODD = {
    "slow": "import os, pathlib, time\npathlib.Path(os.environ['IMPORTED']).touch()\ntime.sleep(5)\n",
    "prints": "import os\nprint('by print')\nos.system('echo by a program')\n",
    "dtype": "import torch\ntorch.set_default_dtype(torch.float64)\n",
    "seeds": "import random, numpy, torch\nrandom.seed(0)\nnumpy.random.seed(0)\ntorch.manual_seed(0)\n",
    "filters": "import warnings\nwarnings.simplefilter('error')\n",
    "thread": "import threading\ndef wait():\n    threading.Event().wait()\n"
    "threading.Thread(target=wait, name='for ever').start()\n",
    "good": "",
}
STUDY = ["--timesteps", "40", "--train-steps", "2", "--batch-size", "8", "--samples", "8", "--sampling-steps", "2"]
STUDY += ["--nll-evals", "16", "--metrics", "fd,nll", "--features", "pixels", "--train-seeds", "0"]
STUDY += ["--backbones", "unet:channels=4:mults=1", "--executor", "inline", "--name", "tried"]


def wheel(folder: Path, name: str, source: str | None) -> Path:
    """A wheel of one module and its entry point, written by hand: what pip takes, without a build."""
    path = folder / f"ddpmkit_{name}-1.0-py3-none-any.whl"
    info = f"ddpmkit_{name}-1.0.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: ddpmkit-{name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[ddpmkit]\n{name} = plug_{name}\n",
    }
    if source is not None:
        files[f"plug_{name}.py"] = source.replace("NAME", f"odd-{name}")
    with zipfile.ZipFile(path, "w") as out:
        for place, text in files.items():
            out.writestr(place, text)
        out.writestr(f"{info}/RECORD", "".join(f"{place},,\n" for place in (*files, f"{info}/RECORD")))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment in which ddpmkit and all these plugins are installed, none of them editable."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools here is older than pyproject.toml asks for, and nothing else can build the wheel")
    place = tmp_path_factory.mktemp("wheels")
    for name in OF_DDPMKIT:
        here, there = REPOSITORY / name, place / "source" / name
        if here.is_dir():
            shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(here, there)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", ".", "./source"], cwd=place, check=True)
    for name, source in {**{n: s for n, (s, _) in BROKEN.items()}, **{n: s + GOOD for n, s in ODD.items()}}.items():
        wheel(place, name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=place, check=True)
    (packages,) = place.glob("env/lib/python*/site-packages")
    # What ddpmkit needs is seen over there; .pth files of that folder, an editable ddpmkit's too, are not read.
    (packages / "others.pth").write_text("".join(f"{p}\n" for p in sys.path if Path(p).name == "site-packages"))
    install = [*pip, "--python", str(place / "env/bin/python"), "install", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, *map(str, place.glob("*.whl"))], cwd=place, check=True)
    return place


def run(place: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"IMPORTED": str(place / "imported"), "COLUMNS": "200"}
    command = [str(place / "env/bin/ddpmkit"), *words]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def lines_of(done: subprocess.CompletedProcess[str], head: str) -> dict[str, list[str]]:
    """The lines on standard error that begin with a word and one of the plugins, by the plugin's name."""
    found: dict[str, list[str]] = {}
    for line, name in re.findall(rf"^({head}: plugin ddpmkit-(\w+).*)$", done.stderr, re.MULTILINE):
        found.setdefault(name, []).append(line)
    return found


@pytest.mark.thorough
def test_each_broken_wheel_costs_one_line_and_everything_else_works(place: Path) -> None:
    listed = run(place, "ls", "schedule")
    warned, noted = lines_of(listed, "warning"), lines_of(listed, "note")
    assert set(warned) == set(BROKEN)
    for name, (_, cause) in BROKEN.items():
        (line,) = warned[name]
        assert re.match(rf"warning: plugin ddpmkit-{name} 1\.0 {cause}", line), line
    (slow,) = noted["slow"]  # and another where this machine is
    assert re.fullmatch(r"note: plugin ddpmkit-slow 1\.0 took \d+\.\d s to import; -p no:ddpmkit-slow .*", slow)
    names = [row.split("\t")[1] for row in listed.stdout.splitlines()]
    assert {"linear", "cosine", *(f"odd-{name}" for name in ODD)} <= set(names)
    assert "by print" not in listed.stdout
    assert "by a program" not in listed.stdout
    assert re.search(r"^warning: the thread 'for ever' \(.* is still running", listed.stderr, re.MULTILINE)


@pytest.mark.thorough
def test_what_needs_no_plugin_does_not_wait_for_a_slow_one(place: Path) -> None:
    for words in (("--help",), ("--no-plugins", "ls"), ("ablate", "--help"), ("show", "linear")):
        (place / "imported").unlink(missing_ok=True)
        done = run(place, *words)
        assert not (place / "imported").exists(), words
        assert "ddpmkit-" not in done.stderr
    run(place, "plugins", "--requirements")
    assert (place / "imported").exists()


@pytest.mark.thorough
def test_a_study_has_the_numbers_that_it_has_without_them(place: Path) -> None:
    run(place, "--no-plugins", "ablate", "--schedules", "cosine", *STUDY, "--out", "without")
    run(place, "ablate", "--schedules", "cosine,odd-good", *STUDY, "--out", "beside")
    with (
        (place / "without/studies/tried/results.csv").open() as a,
        (place / "beside/studies/tried/results.csv").open() as b,
    ):
        without, beside = list(csv.DictReader(a)), list(csv.DictReader(b))
    key = ("metric", "value", "standard_error")
    ours = [tuple(row[k] for k in key) for row in beside if row["schedule"] == "cosine"]
    assert ours == [tuple(row[k] for k in key) for row in without]
    assert len(beside) == 2 * len(without) > 0
