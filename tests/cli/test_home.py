"""``~`` at the start of a path is the user's home, wherever a path is taken."""

from __future__ import annotations

import json
import os
import random
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.plugin import spec

TINY = shlex.split(
    "--train-steps 2 --batch-size 4 --samples 4 --sampling-steps 3 --train-seeds 0 --timesteps 40 --nll-evals 32 "
    "--executor inline --backbones unet:channels=4:mults=1 --metrics fd --features pca:k=2"
)
PLUGIN = """
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl, param

@dataclass(frozen=True)
class FromFile(Schedule):
    name = "from-file"
    path: str = param("", "a text file of betas")
    def betas(self, T):
        with open(self.path) as file:
            return [float(line) for line in file]

@hookimpl
def ddpmkit_register_schedules():
    return [FromFile]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, and another folder to work in, which must stay empty of a folder called ``~``."""
    place, work = tmp_path / "home", tmp_path / "work"
    place.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(work)
    return place


def images(path: Path, count: int = 24) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, (count, 8, 8), dtype=np.uint8)
    np.savez(path, train_images=pixels, test_images=pixels[:8])


def nothing_here() -> bool:
    return list(Path().iterdir()) == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Tight layout not applied")  # pytest's folders make a very long label
def test_a_study_lives_in_the_home_folder_from_end_to_end(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(home / "x.npz")
    (home / "my.py").write_text(PLUGIN)
    (home / "betas.txt").write_text("0.1\n" * 40)
    study = home / "study.toml"
    study.write_text(
        'name = "mine"\ndataset = "npz:path=~/x.npz:levels=17:validation=4"\n'
        'schedules = ["linear", "from-file:path=~/betas.txt"]\n'
    )
    assert main(["ablate", "~/study.toml", "--out=~/r", "-p", "~/my.py", *TINY]) == 0
    assert (home / "r" / "studies" / "mine" / "results.csv").is_file()
    for argv in (
        ["status", "mine", "--out=~/r"],
        ["status", "~/r/studies/mine"],
        ["report", "~/r/studies/mine", "--to=~/report.md", "-f", "md"],
        ["report", "~/r/studies/mine/results.csv"],
        ["plot", "reverse", "mine", "--out=~/r", "-p", "~/my.py", "--to=~/reverse.png"],
    ):
        assert main(argv) == 0, argv
    assert (home / "report.md").is_file()
    assert (home / "reverse.png").is_file()
    assert main(["likelihood", "0" * 8, "--out=~/r"]) == 2
    assert str(home) in capsys.readouterr().err
    assert len(ddpmkit.load_results("~/r/studies/mine")) > 0
    assert nothing_here()


def test_evaluate_reads_and_writes_in_the_home_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(home / "drawn.npz", images=pixels)
    np.savez(home / "real.npz", images=pixels[:30])
    images(home / "x.npz")
    common = ["evaluate", "--samples=~/drawn.npz", "--metrics", "fd", "--features", "pca:k=2", "--json"]
    asked = ["--reference=~/real.npz", "--train=~/real.npz", "--save-statistics=~/s.safetensors"]
    assert main([*common, *asked]) == 0
    assert main([*common, "--reference", "npz:path=~/x.npz:validation=4"]) == 0
    assert (home / "s.safetensors").is_file()
    said = capsys.readouterr().out
    assert json.loads(said[: said.index("\n}") + 2])["panels"]
    weights = ["--inception-weights=~/w.pth", "--features", "inception"]
    assert main([*common[:2], "--reference=~/real.npz", *weights]) == 2
    assert str(home / "w.pth") in capsys.readouterr().err
    assert nothing_here()


@pytest.mark.long
def test_from_python_too(home: Path, no_pictures: None) -> None:
    outcome = ddpmkit.ablate(
        out="~/r", train_steps=2, batch_size=4, samples=4, sampling_steps=3, train_seeds=0, timesteps=40, metrics="fd",
        executor="inline", backbones="unet:channels=4:mults=1", features="pca:k=2", name="mine",
        on_event=lambda _: None,
    )  # fmt: skip
    assert outcome.folder == home / "r" / "studies" / "mine"
    images(home / "x.npz")
    assert len(ddpmkit.build("dataset", "npz:path=~/x.npz:levels=17:validation=4").load().train) == 20
    assert nothing_here()


@pytest.mark.parametrize(
    ("kind", "text", "field"),
    [
        ("dataset", "npz:path={}", "path"),
        ("features", "dinov2:path={}", "path"),
        ("features", "inception:weights={}", "weights"),
    ],
)
def test_a_path_in_the_home_folder_is_one_component_however_it_is_written(
    kind: str, text: str, field: str, home: Path
) -> None:
    short, long = (ddpmkit.build(kind, text.format(p)) for p in ("~/a b.x", f"{home}/a b.x"))
    assert short == long
    assert getattr(short, field) == f"{home}/a b.x"
    assert type(short)(**{field: "~/a b.x"}) == long
    _, raw = spec.parse(spec.format(short))
    assert spec.construct(type(short), raw, kind=kind) == short
    assert spec.from_values(type(short), spec.values(short)) == short


def test_what_only_looks_like_a_home_stays(home: Path) -> None:
    for path in ("~no-such-user/x.npz", "a~/x.npz", "./~/x.npz", "~", "~x.npz", "x/~/y.npz"):
        assert ddpmkit.build("dataset", f"npz:path={path}").path == path


@pytest.mark.long
def test_any_path_is_what_the_shell_would_have_made_of_it(home: Path) -> None:
    rng = random.Random(19)
    for _ in range(200):
        tail = "".join(rng.choice("ab ~.-_é=/") for _ in range(rng.randint(1, 12)))
        text = spec.encode(f"~/{tail}")
        assert ddpmkit.build("dataset", f"npz:path={text}").path == os.path.normpath(f"{home}/{tail}") or ".." in tail


def test_the_help_still_says_that_it_is_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--out PATH" in " ".join(said.split())
    assert "[default: results]" in said
    assert sys.modules["ddpmkit.files"].home.__doc__ is not None
