"""What a stream can't carry goes out as something plainer: no command ends in a traceback because of a character."""

# ruff: noqa: RUF001 - characters that look like others are what is tested

from __future__ import annotations

import csv
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit.cli import main

HARD = ["ascii", "latin-1", "cp437"]
FORMS = ["terminal", "md", "latex", "html", "csv", "wide"]
HEADS = ("study", "cell", "train_seed", "sample_seed", "metric", "value")


def results(path: Path, cells: list[str]) -> Path:
    """A file of results made elsewhere: two metrics, three seeds a cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADS)
        for n, cell in enumerate(cells):
            for seed in range(3):
                for metric, scale in (("FD-digits", 10.0), ("NLL", 1.0)):
                    writer.writerow(("demo", cell, seed, 0, metric, scale * (3 + n + 0.1 * seed * (n + 1))))
    return path


class Streams:
    """Both standard streams as a process of some encoding has them, in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str, *, terminal: bool = False) -> None:
        self.encoding = encoding
        self.raw = {name: io.BytesIO() for name in ("stdout", "stderr")}
        for name, raw in self.raw.items():
            stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
            if terminal:
                monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
            monkeypatch.setattr(sys, name, stream)

    def said(self, name: str = "stdout") -> str:
        return self.raw[name].getvalue().decode(self.encoding)


@pytest.mark.long
@pytest.mark.parametrize("encoding", HARD)
@pytest.mark.parametrize("form", FORMS)
def test_a_report_goes_out_in_every_form(
    form: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = results(tmp_path / "r.csv", ["linear", "cosiné →", "σ² ± 中"])
    streams = Streams(monkeypatch, encoding)
    assert main(["report", str(file), "-f", form]) == 0
    assert "linear" in streams.said()
    assert streams.said("stderr") == ""
    if form in ("terminal", "md") and encoding == "ascii":
        assert "FD-digits v" in streams.said()
        assert "cosine >" in streams.said()
        assert "sigma^2 +- ?" in streams.said()
    if form == "html":
        assert "FD-digits &#8595;" in streams.said()  # a page that is UTF-8 by its own word stays one


def test_characters_that_the_stream_has_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = results(tmp_path / "r.csv", ["linear", "cosiné ±"])
    streams = Streams(monkeypatch, "latin-1")
    assert main(["report", str(file)]) == 0
    assert "cosiné ±" in streams.said()
    assert "FD-digits v" in streams.said()


@pytest.mark.parametrize("encoding", HARD)
def test_a_table_in_a_terminal_stays_a_table(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = results(tmp_path / "r.csv", ["linear", "≤ 10 ½ αβ", "short"])
    monkeypatch.setenv("COLUMNS", "120")
    streams = Streams(monkeypatch, encoding, terminal=True)
    assert main(["report", str(file)]) == 0
    lines = streams.said().splitlines()
    (head,) = (line for line in lines if line.startswith("cell") and "seeds" in line)
    ends = {line.rstrip()[-1] for line in lines[lines.index(head) + 2 : lines.index(head) + 5]}
    assert ends == {"]"}
    assert len({len(line) for line in lines[lines.index(head) + 1 : lines.index(head) + 5]}) == 1  # stand-ins counted


PLUGIN = '''
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl, param

@dataclass(frozen=True)
class Mine(Schedule):
    """β_t = ½ (1 − cos πt) → 1, of Müller; 中."""

    name = "mine"
    reference = "Müller 2024, § 3"
    β: float = param(0.02, "letzte β_t, größer als 0")

    def betas(self, T):
        return [self.β] * T

@hookimpl
def ddpmkit_register_schedules():
    return [Mine]
'''


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["ls", "schedule", "-p", "mine.py"], 0),
        (["show", "mine", "-p", "mine.py"], 0),
        (["show", "cosiné→中"], 2),
        (["report", "weiß→"], 2),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_every_command_can_speak(
    argv: list[str], code: int, terminal: bool, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    streams = Streams(monkeypatch, encoding, terminal=terminal)
    assert main(["--no-plugins", *argv]) == code
    assert "Traceback" not in streams.said("stderr")
    if code == 0 and encoding == "ascii":
        assert "beta_t =  1/2 (1 - cos pit) > 1, of Muller; ?." in streams.said()
    if code == 2:
        assert len(streams.said("stderr").splitlines()) == 2


@pytest.mark.long
def test_a_sparkline_falls_and_shades_differ_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    streams = Streams(monkeypatch, "ascii")
    assert main(["--no-plugins", "plot", "schedules", "linear"]) == 0
    line = streams.said().splitlines()[1].split("\t")[1]
    heights = [" _.-=+*%#".index(c) for c in line]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) > 6


def test_a_picture_without_half_blocks_is_drawn_in_shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm-256color")
    streams = Streams(monkeypatch, "ascii", terminal=True)
    assert main(["--no-plugins", "plot", "forward", "linear"]) == 0
    picture = streams.said()
    assert {".", ":", "%", "#"} <= set(picture)
    assert '"' not in picture


def test_a_name_that_is_no_text_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file name of bytes that are no UTF-8 reaches Python as lone surrogates."""
    file = results(tmp_path / "r.csv", ["linear"])
    streams = Streams(monkeypatch, "utf-8")
    assert main(["report", str(file), "-f", "md", "--to", str(tmp_path / "out\udcff.md")]) == 0
    assert "wrote" in streams.said("stderr")


@pytest.mark.long
def test_files_are_utf8_whatever_the_streams_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = results(tmp_path / "r.csv", ["linear", "cosiné →"])
    Streams(monkeypatch, "ascii")
    for form in FORMS:
        to = tmp_path / f"out.{form}"
        assert main(["report", str(file), "-f", form, "--to", str(to)]) == 0
        text = to.read_bytes().decode("utf-8")
        if form in ("md", "html"):
            assert "↓" in text
            assert "cosiné →" in text


@pytest.mark.long
@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_a_process_of_that_encoding_ends_well(env: dict[str, str], tmp_path: Path) -> None:
    file = results(tmp_path / "r.csv", ["linear", "cosiné"])
    folder = Path(ddpmkit.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "ddpmkit", "report", str(file)],
        env={**os.environ, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"FD-digits v" in done.stdout


@pytest.mark.long
def test_any_text_can_be_printed_to_any_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(17)
    for n in range(15):
        # Names of any characters but those that a line or a CSV file is made of.
        letters = [chr(rng.choice([rng.randrange(32, 0x3000), rng.randrange(0xE000, 0x110000)])) for _ in range(40)]
        names = ["".join(letters[i : i + 8]) for i in range(0, 40, 8)]
        file = results(tmp_path / f"{n}.csv", [f"x{name.strip()}x" for name in names])
        with monkeypatch.context() as patch:
            streams = Streams(patch, rng.choice(HARD), terminal=n % 2 == 0)
            assert main(["report", str(file), "-f", rng.choice(FORMS[:3])]) == 0
            assert "Traceback" not in streams.said("stderr")


def test_no_text_at_all_raises_and_ascii_is_what_comes() -> None:
    from ddpmkit.text.plain import carries, plain, speakable

    rng = random.Random(18)
    for encoding in ("ascii", "latin-1", "cp1252", "utf-8"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        speakable(stream)
        for _ in range(300):
            text = "".join(chr(rng.randrange(0x110000)) for _ in range(50))  # surrogates and unassigned ones too
            print(text, file=stream)
            assert carries(plain(text, encoding), encoding)
        stream.flush()
        raw.getvalue().decode(encoding)
    assert plain("↓ ± × · – é “x” ≤ ﬁ Σ ς", "ascii") == 'v +- x . - e "x" <= fi Sigma sigma'
    assert plain("10² 1½ x₀ ７", "ascii") == "10^2 1 1/2 x0 7"  # no number becomes another one
    assert plain("░▒▓█ ─│┌", "ascii") == ".:%# -|+"
    assert plain("\udcff", "utf-8") == "?"
