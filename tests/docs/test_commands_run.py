"""Every command of the documents is run, page by page and in order, each page in a folder of its own.

What would be long is scaled: fewer steps, images and seeds. What a page takes as given (a study, a folder of images) is
made. What can't be run here is listed with its reason, and so is what a page says will fail.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmkit import build
from ddpmkit.builtin.datasets import cifar10
from ddpmkit.cli import main
from ddpmkit.plugin.new import package
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import target

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)

# Beginnings of commands that are not run, and why. Of several the longest counts.
SKIPPED = {
    "git clone": "a clone of what is tested here",
    "cd ddpmkit": "into that clone",
    "python3 -m venv": "make release and make test-plugins install into fresh environments",
    ". venv/bin/activate": "of that environment",
    "pip install ./ddpmkit": "make release installs the wheel",
    "pip install . ./plugins/ddpmkit-diffusers": "wants diffusers; make test-plugins installs it",
    "make ablate": "runs what the page says: ddpmkit ablate, which is run here",
    "make test": "is all other tests",
    "make bench": "wants the environment of make test-oracles, and minutes",
    "make bench-gpu": "wants a GPU, or minutes",
    "pip install .[ray]": "make test-ray has Ray in an environment of its own",
    "pip install . ./plugins/ddpmkit-slurm": "make test-plugins installs it",
    "ddpmkit ablate mine --executor ray": "wants Ray; make test-ray runs studies on a cluster",
    "ddpmkit ablate --schedules linear,cosine --executor slurm": "wants Slurm; the plugin's tests have a stand-in",
    "ddpmkit bench mnist": "wants MNIST's files; tests/study/test_target.py has a stand-in",
}
# What a page says ends otherwise than with 0: the code, and words of what it says then.
ENDS = {"ddpmkit export": (2, "ddpmkit-diffusers")}  # "without it, export says so"

# Appended to an ablate that begins a study, each unless the command has the flag itself.
TOY = {
    "--train-steps": "2", "--samples": "24", "--nll-evals": "64", "--sampling-steps": "2", "--timesteps": "100",
    "--batch-size": "4", "--train-seeds": "0",
}  # fmt: skip
TOY_AXES = {"warmup": "1", "eval_batch": "24", "fit_images": "2"}
RUN = ("--executor", "inline", "--compile", "off")
# Values that cost too much, and what stands for them.
SCALED = {
    "--train-steps": {"1000,2000,4000": "2,4,8", "1000,2000,4000,8000": "2,4,8,16", "1200": "2", "20000": "2"},
    "--train-seeds": {"0-4": "0-2"},
    "--count": {"5000": "50"},
    "--backbones": {"unet:size=ho-cifar10:checkpoint=true": "unet:size=ho-cifar10:channels=16:checkpoint=true"},
}
# Further words where a command, by its beginning, would run for long.
MORE = {
    "ddpmkit ablate mine --until": ("--max-seeds", "4"),
    "ddpmkit likelihood": ("--nll-evals", "64"),
    "ddpmkit bench digits": ("--recipe", "toy.toml"),
}
# Names that stand for something of one's own, and what is there instead; the stages are trainings of the study mine.
NAMES = {"mine/guidance=1.0": "classes/guidance=1.0"}
STAGES = ("3f9c", "81d0")
WALKS = "ddpmkit.study.walks.walks"  # which have networks draw pictures for the report


def starts(command: str, table: dict[str, Any]) -> str | None:
    """The longest beginning of a command that a table has; whole words, of a spec its name at least."""
    found = [each for each in table if re.match(rf"{re.escape(each)}(?=[ :]|$)", command)]
    return max(found, key=len, default=None)


def typed(words: tuple[str, ...]) -> str:
    """A command as tables here have it: without quotes."""
    return " ".join(words)


def test_what_is_left_out_or_changed_stands_in_the_documents(written: list[Any]) -> None:
    found = [typed(c.words) for c in written]
    for beginning in (*SKIPPED, *ENDS, *MORE):
        assert any(starts(each, {beginning: 0}) for each in found), f"no document has the command '{beginning}'"
    pairs = {pair for c in written for pair in pairwise(c.words)}
    for flag, values in SCALED.items():
        for value in values:
            assert (flag, value) in pairs, f"no document has '{flag} {value}'"
    words = {word for c in written for word in c.words}
    assert {*NAMES, *STAGES} <= words
    assert {made for page in GIVEN for made in GIVEN[page]} == set(MAKERS)
    assert set(GIVEN) <= {c.page for c in written}


def test_every_target_of_make_in_the_documents_is_one(written: list[Any]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    asked = {word for c in written if c.words[0] == "make" for word in c.words[1:] if "=" not in word}
    assert {"ablate", "test"} <= asked <= targets


def scaled(command: Any) -> tuple[list[str], bool]:
    """A command's words with toy budgets, and whether they are others than the page has."""
    words = list(command.words)
    changed = False
    for at, (flag, value) in enumerate(pairwise(words), 1):
        if value in SCALED.get(flag, {}):
            words[at], changed = SCALED[flag][value], True
    more = MORE.get(starts(typed(command.words), MORE) or "", ())
    if more and more[0] not in words and "--print-recipe" not in words:
        words, changed = [*words, *more], True
    if words[:2] == ["ddpmkit", "ablate"] and "--dry-run" not in words:
        words += RUN  # where the stages run: no number depends on it, and nothing of the command is replaced
        if words[2].startswith("-") or words[2].endswith(".toml"):
            words, changed = [*words, *toy(words)], True
    return words, changed


def toy(words: list[str]) -> list[str]:
    """The budget of a study that begins, but for what its own command or its recipe settles."""
    own = dict(TOY)
    if "--recipe" in words or any(word.endswith(".toml") for word in words):  # what is expected names these
        del own["--timesteps"], own["--sampling-steps"]
    axes = {word.partition("=")[0] for word in words}
    out = [w for flag, value in own.items() if flag not in words for w in (flag, value)]
    return out + [w for name, value in TOY_AXES.items() if name not in axes for w in ("--axis", f"{name}={value}")]


def folder_of(path: Path, shape: tuple[int, ...], count: int) -> None:
    path.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path / f"{i:03}.png")


def photos(_: Path) -> None:
    for name in ("cats", "dogs"):
        folder_of(Path("photos", name), (36, 32, 3), 60)


def digits_like(_: Path) -> None:
    for name in ("DIR", "FOLDER"):
        folder_of(Path(name), (8, 8), 60)


def some_folder(_: Path) -> None:
    folder_of(Path("some-folder"), (32, 32, 3), 60)


def mnist(_: Path) -> None:
    train, test = (RNG.integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (1040, 40))  # 1000 are set aside
    np.savez("mnist.npz", train_images=train, test_images=test)


def cifar(_: Path) -> None:
    with tarfile.open("cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in (*cifar10.TRAIN, cifar10.TEST):
            rows = RNG.integers(0, 256, (cifar10.RECORDS, 3073), dtype=np.uint8)
            rows[:, 0] %= 10
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = rows.size
            tar.addfile(info, io.BytesIO(rows.tobytes()))


def foreign(_: Path) -> None:
    rows = [f"{c},{s},reward,{1 + s / 10 + (c == 'b') + s * s / 100}" for c in "ab" for s in range(3)]
    Path("theirs.csv").write_text("\n".join(["cell,train_seed,metric,value", *rows, ""]), encoding="utf-8")


def recipe(_: Path) -> None:
    text = (Path(target.__file__).with_name("recipes") / "digits.toml").read_text(encoding="utf-8")
    Path("toy.toml").write_text(shorter(text), encoding="utf-8")


def orderings(_: Path) -> None:
    shutil.copytree(ROOT / "results/reference/orderings", "results/reference/orderings")


def checkpoint(_: Path) -> None:
    save(weights_of(build("backbone", "unet"), 1, 8), "mine.pt")


def checkpoints(_: Path) -> None:
    save(weights_of(build("backbone", "unet:channels=64"), 3, 32), "mine.pt")
    Path("mynet.py").write_text(package("mynet", "backbone")["ddpmkit_mynet.py"], encoding="utf-8")
    theirs = weights_of(Registry(["mynet.py"], installed=False).build("backbone", "mynet"), 1, 28)
    save({"ema": {f"module.{name}": value for name, value in theirs.items()}}, "run.pt")


def weights_of(backbone: Any, channels: int, side: int) -> dict[str, Any]:
    network = backbone.build(in_channels=channels, out_channels=channels, image_size=side)
    return dict(network.state_dict())


def save(weights: dict[str, Any], file: str) -> None:
    import torch  # the tests of make test need none of it

    torch.save(weights, file)


def studies(made: Path) -> None:
    shutil.copytree(made, "results")
    shutil.copytree("results/studies/mystudy", "results/reference/mystudy")


MAKERS: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (
        photos,
        digits_like,
        some_folder,
        mnist,
        cifar,
        foreign,
        recipe,
        orderings,
        checkpoint,
        checkpoints,
        studies,
    )
}
GIVEN = {
    "README": ("photos", "digits_like", "some_folder", "studies"),
    "bench": ("recipe",),
    "commands": ("photos", "digits_like", "mnist", "cifar", "recipe", "checkpoint"),
    "papers": ("orderings",),
    "plugins": ("digits_like",),
    "report": ("studies", "foreign"),
    "weights": ("studies", "checkpoints"),
}


def shorter(text: str) -> str:
    """A recipe of ``bench``, edited to be over soon."""
    for name in ("look_every", "train_steps", "sampling_steps", "warmup"):
        text, found = re.subn(rf"^{name} = \d+", f"{name} = {2 + (name == 'train_steps')}", text, flags=re.MULTILINE)
        assert found == 1, name
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, leave_out_pictures: Any) -> Path:
    """A results folder with the studies that pages take as given."""
    out = tmp_path_factory.mktemp("given") / "results"
    budget = [*toy([]), *RUN, "--out", str(out)]
    budget[budget.index("--train-seeds") + 1] = "0-2"
    both = ["--schedules", "linear,cosine"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WALKS, lambda prepared: {})
        assert main(["ablate", *both, "--sigmas", "beta,beta-tilde", "--name", "mystudy", *budget]) == 0
        leave_out_pictures(patch)
        for name, axes in {
            "before": both,
            "after": ["--schedules", "linear,sigmoid"],
            "classes": ["--schedules", "cosine", "--conditional", "--guidances", "0,1"],
            "mine": both,
        }.items():
            assert main(["ablate", *axes, "--name", name, *budget]) == 0, name
    return out


class Yes(io.StringIO):
    """Somebody at a terminal who agrees to what gc would do."""

    def __init__(self) -> None:
        super().__init__("y\n")

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clean() -> Iterator[None]:
    """Leave no plugin of a page in this process."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("ddpmkit_"):
            del sys.modules[name]


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")  # of two steps of training, as a study of nothing
def test_the_commands_of_a_page_run(
    page_with_commands: str,
    written: list[Any],
    pages: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    leave_out_pictures: Any,
    clean: None,
) -> None:
    page = page_with_commands
    given = request.getfixturevalue("made") if "studies" in GIVEN.get(page, ()) else tmp_path  # with its pictures
    monkeypatch.chdir(tmp_path)
    if page != "report":
        leave_out_pictures(monkeypatch)
    monkeypatch.setattr(WALKS, lambda prepared: {})
    monkeypatch.setattr(cifar10, "RECORDS", 20)
    easy = replace(target.TARGETS["digits"], nll=1e9, fd=1e9, samples=140, evals=64)
    monkeypatch.setitem(target.TARGETS, "digits", easy)
    for name in GIVEN.get(page, ()):
        MAKERS[name](given)
    write_plugins(pages[page], [c for c in written if c.page == page])
    counts: Counter[str] = Counter()
    failed = []
    for command in (c for c in written if c.page == page):
        if starts(typed(command.words), SKIPPED):
            counts["skipped"] += 1
            continue
        words, changed = scaled(command)
        words = [named(word) for word in words]
        counts["scaled" if changed else "run as written"] += 1
        capfd.readouterr()
        code = ran(words, monkeypatch)
        out, err = capfd.readouterr()
        if code in (130, 143):  # the command has taken the signal, and the next one is not wanted either
            pytest.exit(f"interrupted in {command}")
        if command.to:
            Path(command.to).write_text(shorter(out) if command.to.endswith(".toml") else out, encoding="utf-8")
        expected, says = ENDS.get(starts(typed(command.words), ENDS) or "", (0, ""))
        if code != expected or says not in err:
            failed.append(f"{command}\n  run as {shlex.join(words)}\n  exit {code}: {err[-1500:] or out[-500:]}")
    with capfd.disabled():
        print(f"\n{page}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    assert not failed, "\n\n".join(failed)


def named(word: str) -> str:
    """What stands here for a name that readers put their own for."""
    if word in STAGES:
        (study,) = (p for p in map(Path("results/studies").joinpath, ("mine", "schedules")) if p.is_dir())
        with (study / "results.csv").open(encoding="utf-8") as f:
            trainings = list(dict.fromkeys(row["train_stage"] for row in csv.DictReader(f) if row["train_stage"]))
        return trainings[STAGES.index(word)][:12]
    return NAMES.get(word, word)


def write_plugins(text: str, commands: list[Any]) -> None:
    """Write the plugins that a page shows, each under the name that its commands give to ``-p``."""
    asked = list(dict.fromkeys(b for c in commands for a, b in pairwise(c.words) if a == "-p"))
    shown = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "@hookimpl" in b]
    blocks = {re.findall(r'name = "(.*)"', b)[0].replace("-", "_"): b for b in shown}
    for file in asked:
        if Path(file).exists():  # one of somebody else's, which the page does not show
            continue
        first = next((b for b in shown if b.startswith(f"# {file}\n")), None)
        Path(file).write_text(first or blocks[Path(file).stem], encoding="utf-8")


def ran(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one command, ddpmkit's in this process, and return its exit code."""
    program, *rest = words
    if program == "ddpmkit":
        monkeypatch.setattr(sys, "stdin", Yes())
        return main(rest)
    if program == "pip":  # -e would write into the environment of these tests
        assert rest[:2] == ["install", "-e"]
        flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
        monkeypatch.syspath_prepend(str(Path("site").resolve()))
        install = [sys.executable, "-m", "pip", "install", *flags, "--target", "site", rest[2]]
        return subprocess.run(install, check=False).returncode
    assert program == "pytest"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path("site").resolve()), str(ROOT)])}
    return subprocess.run([sys.executable, "-m", *words], env=env, check=False).returncode
