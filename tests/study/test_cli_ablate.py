"""``ddpmkit ablate`` and ``ddpmkit status`` through main(): exit codes, two-line errors, and who writes what where."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddpmkit import files
from ddpmkit.cli import main

BASE = [
    "--train-steps", "6", "--batch-size", "8", "--samples", "4", "--sampling-steps", "2", "--timesteps", "50",
    "--features", "pca:k=4", "--train-seeds", "0", "--axis", "nll_evals=16", "--axis", "eval_batch=64",
    "--executor", "inline", "--device", "cpu",
]  # fmt: skip
SMALL = ["--backbones", "unet:channels=4:mults=1:middle_attention=false"]

PLUGIN = """
from dataclasses import dataclass
from ddpmkit import Backbone, Schedule, Weighting, hookimpl, param

@dataclass(frozen=True)
class Flat(Schedule):
    name = "flat"
    beta: float = param(0.1, "every beta", gt=0, lt=1)
    def betas(self, T):
        import numpy as np
        return np.full(T, self.beta)

@dataclass(frozen=True)
class Explodes(Weighting):
    name = "explodes"
    def weights(self, tables, log_sigma2):
        return tables.snr * 1e300

@dataclass(frozen=True)
class Broken(Schedule):
    name = "broken"
    def betas(self, T):
        raise RuntimeError("out of order")

@hookimpl
def ddpmkit_register_schedules():
    return [Flat, Broken]

@hookimpl
def ddpmkit_register_weightings():
    return [Explodes]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "cli_plugin.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.fixture
def ablate(tmp_path, capsys, no_pictures):
    """Run the command, without its pictures; return (code, stdout, stderr)."""

    def call(*args: str, out: Path | None = None):
        code = main(["ablate", *BASE, *SMALL, *args, "--out", str(out or tmp_path / "out")])
        return code, *capsys.readouterr()

    return call


def is_two_lines(said: str) -> bool:
    lines = said.splitlines()
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ") and len(lines[1]) > 6


BAD = {
    "unknown schedule": (["--schedules", "cosin"], "error: unknown schedule 'cosin'; did you mean 'cosine'?"),
    "unknown parameter": (["--schedules", "cosine:z=1"], "error: schedule 'cosine' has no parameter 'z'"),
    "no number": (["--schedules", "cosine:s=abc"], "error: cosine: s must be a float >= 0, got 'abc'"),
    "no key": (["--schedules", "cosine:0.1"], "error: 'cosine:0.1': expected key=value"),
    "twice": (["--schedules", "cosine:s=1:s=2"], "error: 'cosine:s=1:s=2': parameter 's' is given twice"),
    "empty entry": (["--schedules", "linear,,cosine"], "error: 'linear,,cosine' has an empty entry"),
    "line break": (["--schedules", "co\nsin"], "error: unknown schedule 'co"),
    "T too small": (["--timesteps", "10"], "error: schedule 'linear' at T=10"),
    "more steps than T": (["--sampling-steps", "51"], "error: 51 sampling steps of a chain with T=50"),
    "no seed": (["--train-seeds", "x"], "error: --train-seeds: 'x' is no seed"),
    "name above": (["--name", "../x"], "error: '../x' can't be the name of a study"),
    "name empty": (["--name", ""], "error: '' can't be the name of a study"),
    "no worker": (["--jobs", "0"], "error: --jobs must be at least 1, got 0"),
    "workers in words": (["--jobs", "two"], "error: Invalid value for '--jobs'"),
    "no checkpoint": (["--checkpoint-every", "0"], "error: --checkpoint-every must be at least 1, got 0"),
    "unknown device": (["--device", "tpu0"], "error: unknown device 'tpu0'"),
    "device elsewhere": (["--device", "cuda:99"], "error: device 'cuda:99' is not here"),
    "unknown executor": (["--executor", "slurm"], "error: unknown executor 'slurm'"),
    "unknown metric": (["--metrics", "fid"], "error: unknown metric 'fid'; did you mean 'fd'?"),
    "unknown preset": (["--preset", "quik"], "error: unknown preset 'quik'; did you mean 'quick'?"),
    "unknown flag": (["--scheduls", "linear"], "error: No such option: --scheduls"),
    "unknown axis": (["--axis", "lr=1"], "error: unknown setting 'lr'"),
    "not halved": (["--backbones", "unet:mults=1/1/1/1/1"], "error: unet: an image of size 8 can't be halved 4 times"),
    "channels": (["--backbones", "unet:channels=6"], "error: unet: channels=6 must be a multiple of 4"),
    "components": (["--features", "pca:k=65"], "error: pca: k=65 components"),
    "no plugin": (["-p", "nowhere.py"], "error: -p nowhere.py: there is no such file"),
    "no study": (["nowhere.toml"], "error: can't read 'nowhere.toml': No such file or directory"),
    "no data": (["--dataset", "npz"], "error: npz needs a file"),
    "no sample": (["--samples", "1"], "error: settings: samples must be an int >= 2, got '1'"),
}


@pytest.mark.parametrize(("args", "first"), BAD.values(), ids=BAD)
def test_a_wrong_request_is_exit_2_two_lines_and_nothing_written(ablate, tmp_path, args, first):
    code, printed, said = ablate(*args)
    assert code == 2
    assert said.startswith(first)
    assert is_two_lines(said), said
    assert printed == ""
    assert not (tmp_path / "out").exists()


def test_the_error_for_an_unknown_schedule_is_this_one_to_the_letter(ablate):
    assert ablate("--schedules", "cosin")[2] == (
        "error: unknown schedule 'cosin'; did you mean 'cosine'?\nhint: ddpmkit ls schedule\n"
    )


def arrays(**changes) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(0)
    usual = {f"{k}_images": dice.integers(0, 17, (n, 8, 8), dtype=np.uint8) for k, n in (("train", 30), ("test", 9))}
    return {k: v for k, v in {**usual, **changes}.items() if v is not None}


def save(path: Path, **changes) -> None:
    np.savez(path, **arrays(**changes))


def cut(path: Path) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path: Path) -> None:
    np.savez_compressed(path, **arrays())
    data = bytearray(path.read_bytes())
    data[60:400] = bytes(b ^ 0x5A for b in data[60:400])
    path.write_bytes(data)


NPZ = {
    "missing": (lambda p: None, "there is no file"),
    "truncated": (cut, "is no readable .npz file"),
    "empty": (lambda p: p.write_bytes(b""), "is no readable .npz file"),
    "scrambled": (scrambled, "is no readable .npz file"),
    "a folder": (lambda p: p.mkdir(), "is no readable .npz file"),
    "wrong shape": (
        lambda p: save(p, train_images=np.zeros((30, 8, 9), np.uint8)),
        "train_images has shape (30, 8, 9)",
    ),
    "wrong channels": (lambda p: save(p, test_images=np.zeros((9, 8, 8, 2), np.uint8)), "test_images has shape"),
    "wrong dtype": (lambda p: save(p, train_images=np.zeros((30, 8, 8))), "train_images has dtype float64, not uint8"),
    "objects": (lambda p: save(p, test_images=np.array([{}, {}], dtype=object)), "is no readable .npz file"),
    "no test images": (lambda p: save(p, test_images=None), "has no array 'test_images'"),
    "too bright": (lambda p: save(p, test_images=np.full((9, 8, 8), 17, np.uint8)), "holds the value 17"),
    "too few": (lambda p: save(p, train_images=np.zeros((5, 8, 8), np.uint8)), "5 training images, 5 for validation"),
    "two sizes": (lambda p: save(p, test_images=np.zeros((9, 4, 4), np.uint8)), "(C, H, W)"),
}


@pytest.mark.parametrize(("make", "message"), NPZ.values(), ids=NPZ)
def test_a_bad_npz_file_is_exit_2_two_lines_and_nothing_written(ablate, tmp_path, make, message):
    path = tmp_path / "data.npz"
    make(path)
    code, printed, said = ablate("--dataset", f"npz:path={path}:levels=17:validation=5")
    assert code == 2
    assert message in said
    assert is_two_lines(said), said
    assert printed == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_an_npz_file_that_is_fine_is_trained_on(ablate, tmp_path):
    save(tmp_path / "data.npz")
    code, _, said = ablate("--dataset", f"npz:path={tmp_path / 'data.npz'}:levels=17:validation=5")
    assert code == 0, said


def test_a_place_that_can_not_be_written_is_two_lines(ablate, tmp_path):
    (tmp_path / "file").write_text("")
    code, printed, said = ablate(out=tmp_path / "file")
    assert (code, printed) == (2, "")
    # A line of progress may come first.
    assert f"\nerror: can't write to '{tmp_path / 'file'}'" in "\n" + said
    assert said.splitlines()[-1] == "hint: choose another --out"


def test_a_plugin_that_raises_while_planning_is_blamed_by_name(ablate, plugin, tmp_path):
    code, _, said = ablate("-p", plugin, "--schedules", "linear,broken")
    assert code == 2
    assert said.startswith("error: schedule 'broken' failed: RuntimeError: out of order")
    assert is_two_lines(said)
    assert not (tmp_path / "out").exists()


def table(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


@pytest.mark.long
def test_a_dry_run_prints_the_plan_and_writes_nothing(ablate, tmp_path):
    code, printed, said = ablate("--schedules", "linear,cosine", "--sigmas", "beta,beta-tilde", "--dry-run")
    assert code == 0
    rows = {row[0]: row[1:4] for row in table(printed)}
    assert rows["stage"] == ["total", "cached", "to run"]
    assert rows["ref"] == ["1", "0", "1"]
    assert rows["train"] == ["2", "0", "2"]
    for kind, count in {"sample": "4", "draw": "4", "nll": "8", "score": "4"}.items():
        assert rows[kind] == [count, "0", count]
    assert "4 results need 2 trainings" in said
    assert "estimate: " in said
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_dry_run_as_json(ablate, tmp_path):
    code, printed, _ = ablate("--schedules", "linear,cosine", "--sigmas", "beta,beta-tilde", "-n", "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["cells"] == ["linear beta", "linear beta-tilde", "cosine beta", "cosine beta-tilde"]
    assert found["results"] == 4
    assert {k: v["to_run"] for k, v in found["stages"].items()} == {
        "ref": 1, "train": 2, "sample": 4, "draw": 4, "nll": 8, "score": 4,
    }  # fmt: skip
    assert found["seconds"] > 0
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    assert main(["ablate", *BASE, *SMALL, "--schedules", "linear,cosine", "--name", "mine", "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(done, tmp_path):
    shutil.copytree(done, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.long
def test_a_study_leaves_its_files(done):
    study = done / "studies" / "mine"
    for name in ("study.toml", "plan.json", "results.csv", "report.md", "report.json"):
        assert (study / name).stat().st_size > 0
    assert list((study / "figures").iterdir())
    assert not list(done.rglob(".tmp*"))


@pytest.mark.long
def test_the_second_time_all_is_cached(ablate, copy):
    code, printed, said = ablate("--schedules", "linear,cosine", "--name", "mine", "--dry-run", out=copy)
    assert code == 0
    assert {tuple(row[1:4]) for row in table(printed) if row[0] in ("train", "sample", "score")} == {("2", "2", "0")}
    assert "nothing to do" in said


@pytest.mark.long
def test_the_results_as_json_are_the_report(ablate, copy):
    code, printed, _ = ablate("--schedules", "linear,cosine", "--name", "mine", "--json", out=copy)
    assert code == 0
    assert json.loads(printed) == json.loads((copy / "studies" / "mine" / "report.json").read_text())


@pytest.mark.long
def test_a_study_file_gives_the_same_study_and_flags_override_it(ablate, copy):
    file = str(copy / "studies" / "mine" / "study.toml")
    code, printed, _ = ablate(file, "--json", "-n", out=copy)
    assert code == 0
    assert json.loads(printed)["cells"] == ["linear", "cosine"]
    _, printed, _ = ablate(file, "--json", "-n", "--schedules", "cosine", "--name", "other", out=copy)
    found = json.loads(printed)
    assert (found["study"], found["cells"]) == ("other", ["cosine"])
    assert found["stages"]["train"]["cached"] == 1


@pytest.mark.long
def test_a_name_used_by_another_grid_is_exit_2_and_nothing_changes(ablate, copy):
    before = {str(p): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    code, printed, said = ablate("--schedules", "linear", "--name", "mine", out=copy)
    assert (code, printed) == (2, "")
    assert "the name 'mine' is already used by another grid" in said
    assert is_two_lines(said)
    assert {str(p): p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


@pytest.mark.long
def test_a_cell_that_diverges_is_exit_1_and_counted(ablate, plugin, tmp_path, capsys):
    code, printed, said = ablate(
        "-p", plugin, "--schedules", "flat", "--weightings", "simple,explodes", "--name", "bad"
    )
    assert code == 1
    assert "simple" in printed
    assert "explodes" in printed  # failures are counted in the table, never dropped
    assert "diverged: the loss is" in said
    assert "8 done, 1 diverged, 6 blocked of 15 stages; the same command goes on from here" in said
    code = main(["status", "bad", "--out", str(tmp_path / "out"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["kinds"]["train"] == {"done": 1, "diverged": 1}
    assert [(p["state"], "loss is" in p["error"]) for p in found["problems"]] == [("diverged", True)]


@pytest.mark.long
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_plugin_is_given_before_or_after_the_command(plugin, tmp_path, capsys, place):
    args = [
        "ablate",
        *BASE,
        *SMALL,
        "--schedules",
        "linear,flat:beta=0.2",
        "-n",
        "--json",
        "--out",
        str(tmp_path / "o"),
    ]
    code = main(["-p", plugin, *args] if place == "before" else [*args, "-p", plugin])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["cells"] == ["linear", "flat:beta=0.2"]


@pytest.mark.long
def test_status_prints_stages_by_kind_and_state(done, capsys):
    code = main(["status", "mine", "--out", str(done)])
    printed, said = capsys.readouterr()
    assert (code, said) == (0, "")
    assert table(printed) == [
        ["stage", "done"], ["ref", "1"], ["train", "2"], ["draw", "4"], ["nll", "4"], ["sample", "2"], ["score", "2"],
    ]  # fmt: skip


@pytest.mark.long
def test_status_as_json_and_of_the_newest_study(done, capsys):
    assert main(["status", "--out", str(done), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"] == "mine"
    assert found["kinds"]["train"] == {"done": 2}
    assert found["problems"] == []


@pytest.mark.long
def test_status_says_what_is_still_to_do(copy, capsys):
    shutil.rmtree(copy / "store" / "nll")
    for path in (copy / "store" / "score").glob("*/*/out"):
        shutil.rmtree(path)
        record = files.read_sealed(path.parent / "status.json")
        files.write_sealed(path.parent / "status.json", {**record, "state": "interrupted"})
    main(["status", "mine", "--out", str(copy), "--json"])
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert kinds["nll"] == {"pending": 4}
    assert kinds["score"] == {"interrupted": 2}
    assert kinds["train"] == {"done": 2}


@pytest.mark.long
@pytest.mark.parametrize(
    ("args", "first"),
    [(["nowhere"], "error: there is no study 'nowhere'"), (["--out", "nowhere"], "error: there are no studies")],
)
def test_status_of_a_study_that_is_not_there(done, capsys, args, first):
    assert main(["status", "--out", str(done), *args]) == 2
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.startswith(first)
    assert is_two_lines(said)


@pytest.mark.long
@pytest.mark.parametrize("content", ["", "[]", "{}", "5"])
@pytest.mark.parametrize("command", ["status", "ablate"])
def test_a_garbled_plan_is_no_internal_error(ablate, copy, capsys, command, content):
    (copy / "studies" / "mine" / "plan.json").write_text(content)
    if command == "status":
        code = main(["status", "mine", "--out", str(copy)])
    else:
        code = ablate("--schedules", "linear,cosine", "--name", "mine", "-n", out=copy)[0]
    # Whether it is planned again or refused, the one thing it is not is a defect to report.
    assert code in (0, 2)


@pytest.mark.long
def test_status_needs_no_torch(done):
    code = (
        "import sys; from ddpmkit.cli import main; "
        f"main(['status', '--out', {str(done)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
