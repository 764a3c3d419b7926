"""A dry run without a probe is planning and no more: no torch, no pixel, and the very plan of one that tries all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpmkit
from ddpmkit.builtin.datasets.digits import Digits
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.kept import Data
from ddpmkit.study.prepare import prepare

GRID = ["--schedules", "linear,cosine,random-walk", "--sigmas", "beta-tilde,learned-range,analytic", "--conditional"]
WIDE = [*GRID, "--weightings", "simple,hybrid", "--predictions", "eps,v", "--guidances", "0,1", "--samplers", "ddim"]


def imported(argv: list[str]) -> tuple[set[str], str]:
    """The modules that a command leaves imported, as ``-X importtime`` names them too, and what it prints."""
    code = f"import sys\nfrom ddpmkit.cli import main\nassert main({argv!r}) == 0\nprint(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-P", "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    lines = done.stderr.splitlines()
    timed = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    held = set(lines[-1].split())
    assert {"ddpmkit.study.plan"} <= timed & held
    return {name.split(".")[0] for name in timed | held}, done.stdout


@pytest.mark.parametrize("more", [[], WIDE], ids=["default", "wide"])
def test_it_imports_no_torch_and_no_reader_of_digits(more: list[str], tmp_path: Path) -> None:
    loaded, out = imported(["--no-plugins", "ablate", *more, "-n", "--no-probe", "--out", str(tmp_path)])
    assert "train\t" in out
    assert sorted(loaded & {"torch", "sklearn", "pandas", "matplotlib"}) == []
    assert list(tmp_path.iterdir()) == []


def test_the_outline_of_the_digits_is_what_they_are() -> None:
    read, told = Data.of(ddpmkit.build("dataset", "digits").load()), Data.outlined(Digits().outline())
    for name in ("fingerprint", "least", "most", "second_moment"):
        assert getattr(told, name) == getattr(read, name)
    for split in ("train", "validation", "test"):
        assert getattr(told.images, split).shape == getattr(read.images, split).shape
    assert told.images.levels == read.images.levels
    assert {k: v.max() for k, v in told.images.labels.items()} == {k: v.max() for k, v in read.images.labels.items()}
    assert not told.images.train.flags.writeable  # of no memory, and nothing to write to


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"conditional": True, "guidances": "0,1"}], ids=["plain", "conditional"])
def test_it_plans_the_same_stages(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"schedules": "linear,cosine", "train_seeds": "0-1", "backbones": "unet:channels=4:mults=1", **options}
    registry = Registry(installed=False)
    whole = prepare(asked, out=tmp_path, registry=registry)
    monkeypatch.setattr(Digits, "load", lambda _: pytest.fail("a pixel was read"))
    bare = prepare(asked, out=tmp_path, registry=registry, probe=False)
    assert [s.json() for s in bare.plan.stages.values()] == [s.json() for s in whole.plan.stages.values()]
    assert bare.plan.json() == whole.plan.json()
    assert [s.id for s in bare.todo] == [s.id for s in whole.todo]


def archive(tmp_path: Path) -> str:
    rng, path = np.random.default_rng(0), tmp_path / "some.npz"
    train, test = (rng.integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (40, 20))
    np.savez(path, train_images=train, test_images=test)
    return f"npz:path={path}:validation=5"


@pytest.mark.long
def test_data_that_were_read_once_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"dataset": archive(tmp_path), "backbones": "unet:channels=4:mults=1", "train_seeds": "0"}
    registry = Registry(installed=False)
    monkeypatch.setattr("ddpmkit.study.kept.TICK", 0)  # what was written just now would be read again
    first = prepare(asked, out=tmp_path, registry=registry, probe=False)
    opened: list[str] = []

    def watched(self: Any, *args: Any) -> Any:
        opened.append(str(args))
        raise AssertionError("a pixel was read")

    monkeypatch.setattr("ddpmkit.builtin.datasets.npz.Npz.load", watched)
    monkeypatch.setattr(ddpmkit, "no_copy_check", watched)
    again = prepare(asked, out=tmp_path, registry=registry, probe=False)
    assert opened == []
    assert list(again.plan.stages) == list(first.plan.stages)


def test_what_is_not_known_of_time_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--no-plugins", "ablate", "-n", "--no-probe", "--out", str(tmp_path)]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "train\t3\t0\t3\t-\t-" in out
    assert (
        "estimate: not timed: no finished stage here of about this length has this network; without --no-probe" in err
    )
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] is None
    assert found["stages"]["train"]["each"] is None


def test_it_is_of_a_dry_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--no-probe"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --no-probe is of a dry run: what is run is tried first",
        "hint: ddpmkit ablate --dry-run --no-probe",
    ]


def test_an_outline_that_is_none_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(
        '''from dataclasses import dataclass
from ddpmkit import Dataset, hookimpl

@dataclass(frozen=True)
class Odd(Dataset):
    """Odd."""
    name = "odd"
    def load(self):
        raise RuntimeError
    def outline(self):
        return {"shape": (1, 8, 8)}

@hookimpl
def ddpmkit_register_datasets():
    return [Odd]
''',
        encoding="utf-8",
    )
    args = ["--no-plugins", "-p", str(plugin), "ablate", "--dataset", "odd", "-n", "--no-probe", "--out", str(tmp_path)]
    assert main(args) != 0
    assert "dataset 'odd': outline gives a dict and no Outline" in capsys.readouterr().err
