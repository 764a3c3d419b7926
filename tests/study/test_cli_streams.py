"""Standard output is data whatever plugins print; who fails is named; a learned sigma is bounded whoever made it."""

import json
import math
import os
import subprocess
import sys

import pytest

from ddpmkit import cli, files
from ddpmkit.cli import main

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

TINY = [
    "--train-steps", "3", "--batch-size", "8", "--samples", "4", "--sampling-steps", "2", "--timesteps", "50",
    "--features", "pca:k=4", "--train-seeds", "0", "--axis", "nll_evals=16", "--axis", "eval_batch=64",
    "--backbones", "unet:channels=4:mults=1:middle_attention=false", "--executor", "inline", "--device", "cpu",
]  # fmt: skip

PLUGIN = '''
"""A loud plugin."""
import atexit, ctypes, os, subprocess, sys, threading, time
from dataclasses import dataclass
from ddpmkit import Executor, Features, Pool, Schedule, Sigma, hookimpl, param

def shout(what):
    print("print", what)
    sys.__stdout__ and sys.__stdout__.write(f"old stdout {what}\\\\n")
    sys.__stdout__ and sys.__stdout__.flush()
    os.system(f"echo system {what}")
    os.write(1, f"write {what}\\\\n".encode())
    ctypes.CDLL(None).puts(f"puts {what}".encode())
    ctypes.CDLL(None).fflush(None)

shout("import")
atexit.register(print, "print at exit")
atexit.register(os.write, 1, b"write at exit\\\\n")

@dataclass(frozen=True)
class Loud(Schedule):
    """Loud."""
    name = "loud"
    def betas(self, T):
        import numpy as np
        shout("betas")
        return np.linspace(1e-3, 0.3, T)

@dataclass(frozen=True)
class Torn(Schedule):
    """Torn."""
    name = "torn"
    def betas(self, T):
        return 1 / 0

@dataclass(frozen=True)
class Own(Sigma):
    """Learned, between narrower bounds."""
    name = "own"
    learned = True
    width: float = param(0.5, "share of the way from beta-tilde to beta", gt=0, le=1)
    def log_bounds(self, tables):
        from ddpmkit.diffusion.tables_for import log_bounds
        from ddpmkit import build
        low, high = log_bounds(build("sigma", "learned-range"), tables)
        return low, low + self.width * (high - low)

class Nothing(Pool):
    places = 0

    def submit(self, place, task):
        pass

    def poll(self, seconds):
        pass

@dataclass(frozen=True)
class Broken(Executor):
    """Broken."""
    name = "broken"
    how: str = param("raises", "what it does")
    def __post_init__(self):
        super().__post_init__()
        if self.how == "refuses":
            raise TypeError("not like this")
    def open(self, job, emit, should_stop):
        if self.how == "raises":
            raise RuntimeError("no cluster")
        if self.how == "exits":
            sys.exit(0)
        if self.how == "torch":
            import torch
            torch.zeros(2) @ torch.zeros(3)
        if self.how == "reports":
            emit({"event": "end"})
        return Nothing()

@hookimpl
def ddpmkit_register_schedules():
    return [Loud, Torn]

@hookimpl
def ddpmkit_register_sigmas():
    return [Own]

@hookimpl
def ddpmkit_register_executors():
    return [Broken]
'''.replace("\\\\n", "\\n")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "loud_plugin.py"
    path.write_text(PLUGIN)
    return path


def as_script(*args):
    done = subprocess.run([sys.executable, "-m", "ddpmkit", *args], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_json_is_json_to_the_very_end_of_the_process(plugin):
    code, printed, said = as_script("-p", str(plugin), "ls", "schedule", "--json")
    assert code == 0, said
    assert "loud" in {c["name"] for c in json.loads(printed)}
    for way in ("print", "old stdout", "system", "write", "puts"):
        assert f"{way} import" in said
    assert "print at exit" in said
    assert "write at exit" in said


@pytest.mark.long
def test_a_piped_table_holds_rows_alone(plugin):
    code, printed, _ = as_script("-p", str(plugin), "--no-plugins", "ls", "schedule")
    assert code == 0
    assert {line.count("\t") for line in printed.splitlines()} == {4}
    code, printed, _ = as_script("-p", str(plugin), "show", "loud")
    assert code == 0
    assert printed.startswith("schedule loud ")


@pytest.mark.long
def test_a_closed_standard_output_or_error_is_no_failure(plugin):
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        command = f'"{sys.executable}" -m ddpmkit -p "{plugin}" ls schedule --json {closed}'
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (closed, done.stderr)
        if not closed.startswith(">"):
            json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("command", ["ablate --help", "--help", "ls", "ls --json", "show cosine"])
def test_a_reader_that_has_left_is_no_defect(command):
    # A pipe whose other end is closed before a byte is written: head, when it has seen enough.
    ours, theirs = os.pipe()
    os.close(ours)
    argv = [sys.executable, "-m", "ddpmkit", "--no-plugins", *command.split()]
    done = subprocess.run(argv, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("width", ["80", "140"])
def test_no_summary_of_a_command_is_cut(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", width)
    for argv in (["--help"], ["plot", "--help"]):
        assert main(argv) == 0
        printed = capsys.readouterr().out
        assert "Commands:" in printed
        assert "..." not in printed.partition("Commands:")[2]


def test_the_help_of_ablate_is_in_sections_with_an_example(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["ablate", "--help"]) == 0
    printed = capsys.readouterr().out
    heads = [line.rstrip(":") for line in printed.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Arguments", "Axes", "Budget", "Seeds and metrics", "Output", "Running"]
    assert "--train-steps INT,.. " in printed
    assert "--learning-rate FLOAT,.. " in printed
    assert "Example: ddpmkit ablate --schedules" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("capture", ["capsys", "capfd"])
def test_a_plan_as_json_whatever_is_printed_while_planning(plugin, tmp_path, capture, request):
    captured = request.getfixturevalue(capture)
    before = sys.stdout
    args = ["ablate", *TINY, "--schedules", "linear,loud", "-n", "--json", "--out", str(tmp_path / "o")]
    assert main(["-p", str(plugin), *args]) == 0
    assert sys.stdout is before
    printed, said = captured.readouterr()
    assert json.loads(printed)["cells"] == ["linear", "loud"]
    assert "print betas" in said
    print("data again")
    assert captured.readouterr().out == "data again\n"


@pytest.mark.long
def test_results_as_json_of_a_run_in_this_process(plugin, tmp_path, capfd):
    args = ["ablate", *TINY, "--schedules", "loud", "--metrics", "nll", "--json", "--out", str(tmp_path)]
    assert main([*args, "-p", str(plugin)]) == 0
    printed, said = capfd.readouterr()
    assert json.loads(printed)["cells"]
    assert "system betas" in said


# --- who is to blame ---------------------------------------------------------------------------------------------


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(PLUGIN.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("how", "error", "line", "exit_code"),
    [
        ("raises", "RuntimeError: no cluster", 'raise RuntimeError("no cluster")', 1),
        ("exits", "SystemExit: 0", "sys.exit(0)", 1),
        ("torch", "RuntimeError: ", "torch.zeros(2) @ torch.zeros(3)", 1),
        ("reports", "", 'emit({"event": "end"})', 1),
        ("refuses", "TypeError: not like this", "not like this", 2),
    ],
)
def test_an_executor_that_fails_is_named_with_plugin_file_and_line(
    plugin, tmp_path, capsys, how, error, line, exit_code
):
    args = ["ablate", *TINY, "--metrics", "nll", "-p", str(plugin), "--out", str(tmp_path)]
    code = main([*args, "--executor", f"broken:how={how}"])
    _, said = capsys.readouterr()
    assert code == exit_code  # bad parameters are refused before anything runs
    assert "internal error" not in said
    last = said.splitlines()[-2]
    assert last.startswith("error: executor 'broken")
    assert "plugin loud_plugin " in last
    assert error in last
    assert f"loud_plugin.py line {line_of(line)}" in last
    assert said.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in said


def test_an_executor_that_runs_nothing_is_said_to(plugin, tmp_path, capsys):
    args = ["ablate", *TINY, "--metrics", "nll", "-p", str(plugin), "--out", str(tmp_path)]
    assert main([*args, "--executor", "broken:how=idles"]) == 1
    _, said = capsys.readouterr()
    assert "executor 'broken:how=idles' of plugin loud_plugin " in said
    assert "returned and left 1 stages that could run, such as train " in said


def test_a_defect_of_our_own_is_still_called_one(monkeypatch, capsys, plugin):
    monkeypatch.setattr("ddpmkit.cli.components.KINDS", None)
    assert main(["ls", "schedule", "-p", str(plugin)]) == 3
    assert "internal error" in capsys.readouterr().err


# --- a plugin's learned sigma ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(plugin, tmp_path_factory):
    out = tmp_path_factory.mktemp("taught")
    args = ["ablate", *TINY, "--metrics", "nll", "--weightings", "hybrid", "-p", str(plugin), "--out", str(out)]
    assert main([*args, "--sigmas", "own:width=0.7,learned-range", "--name", "s"]) == 0
    found = {}
    for path in (out / "store" / "train").glob("*/*/status.json"):
        record = files.read_json(path)
        found[record["how"]["sigma"]["name"]] = path.parent.name
    return out, found


def bounded(capsys, plugin, taught, training, *args):
    command = ["likelihood", taught[1][training][:12], "--out", str(taught[0]), "--nll-evals", "16", *args]
    code = main([*command, "--device", "cpu", "--json", "-p", str(plugin)])
    return code, *capsys.readouterr()


@pytest.mark.long
@pytest.mark.parametrize(
    ("training", "args", "sigma"),
    [
        ("own", [], "own:width=0.7"),
        ("own", ["--sigma", "own:width=0.7"], "own:width=0.7"),
        ("own", ["--sigma", "loud_plugin/own:width=0.7"], "loud_plugin/own:width=0.7"),
        ("learned-range", [], "learned-range"),
    ],
)
def test_a_learned_sigma_is_bounded_whoever_made_it_and_is_the_default(capsys, plugin, taught, training, args, sigma):
    code, printed, said = bounded(capsys, plugin, taught, training, *args)
    assert code == 0, said
    found = json.loads(printed)
    assert (found["sigma"], found["decoder_variance"]) == (sigma, "learned")
    assert math.isfinite(found["clipped"]["total"])


@pytest.mark.long
def test_the_default_is_what_is_said_in_full(capsys, plugin, taught):
    plain, full = (bounded(capsys, plugin, taught, "own", *a) for a in ([], ["--sigma", "own:width=0.7"]))
    assert json.loads(plain[1])["clipped"] == json.loads(full[1])["clipped"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("training", "sigma", "message"),
    [
        ("own", "own", "was not trained with sigma 'own'"),
        ("own", "learned-range", "was not trained with sigma 'learned-range'"),
        ("own", "beta-tilde", "this network learned its own variance, 'own:width=0.7'"),
        ("learned-range", "own", "was not trained with sigma 'own'"),
    ],
)
def test_another_sigma_than_the_one_it_learned_is_refused(capsys, plugin, taught, training, sigma, message):
    code, printed, said = bounded(capsys, plugin, taught, training, "--sigma", sigma)
    assert (code, printed) == (2, "")
    assert message in said


def test_a_plugin_that_fails_while_planning_is_named_with_file_and_line(plugin, tmp_path, capsys):
    args = ["ablate", *TINY, "--schedules", "torn", "-p", str(plugin), "--out", str(tmp_path)]
    assert main(args) == 2
    first = capsys.readouterr().err.splitlines()[-2]
    assert first.startswith("error: schedule 'torn' failed: ZeroDivisionError")
    assert f"loud_plugin.py line {line_of('1 / 0')}]" in first


def test_ctrl_c_before_there_is_a_command_is_an_interruption_too(monkeypatch, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "open_closed_ones", interrupted)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit) as caught:
        cli.entry()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\nhint: the same command goes on from here\n"
