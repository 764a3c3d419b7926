"""Weights from elsewhere: read without running what stands in the file, held against a backbone, and used."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - what is refused is made first
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood import bits_per_dim
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import imported, unpickled
from ddpmkit.study.imported import Network, fit, import_checkpoint, open_weights
from ddpmkit.study.unpickled import NotTakenError, forbid, plain, read

REGISTRY = Registry(installed=False)
SPEC = "mlp:width=8:depth=1"
WORDS = ["--no-plugins", "import-checkpoint"]


def network(spec: str = SPEC, *, learned: bool = False) -> Network:
    return Network.read(spec, "1/2/3", classes=None, learned=learned, registry=REGISTRY)


def made(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return network().build(REGISTRY, meta=False).eval()


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.long
def test_a_network_of_elsewhere_gives_the_same_answers_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, file, to = made(), tmp_path / "mine.pt", tmp_path / "mine.safetensors"
    averaged = {f"module.{name}": value.to(torch.float64) for name, value in net.state_dict().items()}
    torch.save({"step": 7, "model": made(1).state_dict(), "ema": averaged}, file)
    asked = [str(file), "--backbone", SPEC, "--shape", "1/2/3", "--to", str(to), "--key", "ema", "--prefix", "module."]
    assert main([*WORDS, *asked]) == 0
    said = capsys.readouterr()
    assert said.out == f"{to}\n"
    assert "tensors under 'ema'" in said.err
    x, t = torch.randn(4, 1, 2, 3), torch.tensor([0.0, 10.0, 500.0, 999.0])
    found = open_weights(to, registry=REGISTRY)
    assert torch.equal(found(x, t), net(x, t))
    images = torch.zeros(16, 1, 2, 3, dtype=torch.uint8)
    bound = bits_per_dim(lambda xt, t: found(xt, t.float()), images, levels=2, timesteps=24, full=True)
    assert bound.total > 0


@pytest.mark.long
def test_a_checkpoint_that_is_a_program_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark, file, to = tmp_path / "ran", tmp_path / "x.pt", tmp_path / "x.safetensors"
    torch.save({"model": made().state_dict(), "hook": Bomb(mark)}, file)
    assert not mark.exists()
    assert main([*WORDS, str(file), "--backbone", SPEC, "--shape", "1/2/3", "--to", str(to)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"error: '{file}': reading it would run more than builds tensors")
    assert said[1] == f"hint: {unpickled.SAVE}"
    assert len(said) == 2
    assert not mark.exists()
    assert not to.exists()


def test_a_bare_pickle_is_not_run_either(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), protocol=2))
    with pytest.raises(NotTakenError, match="would run more"):
        read(str(tmp_path / "x.pt"), "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "event", ["os.system", "os.exec", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen"]
)
def test_the_reader_may_start_nothing(event: str) -> None:
    with pytest.raises(PermissionError, match=event):
        forbid("/t")(event, ("x",))


def test_the_reader_writes_its_target_alone() -> None:
    heard = forbid("/t/weights")
    heard("open", ("/t/weights", "w", os.O_WRONLY | os.O_CREAT))
    heard("open", ("/etc/hostname", "r", os.O_RDONLY))
    heard("os.listdir", ("/t",))
    with pytest.raises(PermissionError, match="to write"):
        heard("open", ("/t/other", "w", os.O_WRONLY | os.O_CREAT))


def test_what_the_reader_watches_for_is_no_name_of_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = forbid("/t/weights")
    for name, value in (("FORBIDDEN", ()), ("HARMLESS", ("os.system",)), ("PermissionError", Warning)):
        monkeypatch.setattr(unpickled, name, value, raising=False)
    monkeypatch.setattr(os, "O_WRONLY", 0)
    with pytest.raises(PermissionError):
        heard("os.system", ("x",))
    with pytest.raises(PermissionError):
        heard("open", ("/t/other", "w", 1))


@pytest.mark.parametrize("version", ["2.4.0", "2.5.1+cu121", "1.13.1"])
def test_a_torch_whose_reader_runs_more_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for sound in ("2.6.0", "2.10.0+cpu", "3.0.0a0+git1"):
        unpickled.refuse_old(sound)
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(unpickled, "guard", lambda _: None)  # which there is no way back from
    said = unpickled.main("nowhere", "/nowhere", "", "1")
    assert said["error"].startswith(f"torch {version} can be made to run")
    assert "2.6" in said["hint"]


def test_tensors_take_no_more_than_the_network_does_or_the_file(tmp_path: Path) -> None:
    wide = {"a": torch.zeros(1).expand(1000)}
    assert plain(wide, 4000).keys() == {"a"}
    with pytest.raises(NotTakenError, match="4,000 bytes, more than the file"):
        plain(wide, 3999)
    file, wanted = tmp_path / "x.pt", network().build(REGISTRY, meta=True).state_dict()
    file.write_bytes(b"1")
    assert imported._most(file, wanted) == 8 * sum(value.numel() for value in wanted.values())
    torch.save({"a": torch.zeros(10_000)}, file)  # another network's, whose names and shapes are to be told
    assert imported._most(file, wanted) >= 40_000


def test_the_reader_is_told_how_much_it_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text("import json, sys\nprint(json.dumps({'error': sys.argv[4]}))\n")
    monkeypatch.setattr(imported, "READER", reader)
    (tmp_path / "x.pt").write_bytes(b"1")
    with pytest.raises(DdpmkitError) as caught:
        import_checkpoint(tmp_path / "x.pt", tmp_path / "x.safetensors", network(), registry=REGISTRY)
    numbers = sum(value.numel() for value in made().state_dict().values())
    assert caught.value.message.endswith(f": {8 * numbers}")


def test_a_network_larger_than_what_the_file_holds_is_never_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[bool] = []
    build = Network.build

    def seen(self: Network, registry: Registry, *, meta: bool) -> torch.nn.Module:
        built.append(meta)
        return build(self, registry, meta=meta)

    monkeypatch.setattr(Network, "build", seen)
    path = tmp_path / "x.safetensors"
    path.write_bytes(files.pack({"a": torch.zeros(1)}, {"network": json.dumps(asdict(network()))}))
    with pytest.raises(DdpmkitError, match="is not of"):
        open_weights(path, registry=REGISTRY)
    assert built == [True]


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": 1}, {"channels": "1"}, {"channels": True}, {"height": 0}, {"width": 10**9}, {"classes": 0},
        {"classes": 1.5}, {"learned": 1}, {"more": 1},
    ],
)  # fmt: skip
def test_a_network_with_a_field_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(files.pack(dict(made().state_dict()), {"network": json.dumps({**asdict(network()), **change})}))
    with pytest.raises(DdpmkitError, match="holds no imported weights: its network has"):
        open_weights(path, registry=REGISTRY)


def test_the_key_of_a_file_is_printed_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imported, "import_checkpoint", lambda *_, **__: {"key": "\x1b[2J", "tensors": 1, "numbers": 2})
    assert main([*WORDS, "x.pt", "--backbone", SPEC, "--shape", "1/2/3", "--to", str(tmp_path / "x.safetensors")]) == 0
    said = capsys.readouterr().err
    assert "took 1 tensors under '" in said
    assert "\x1b" not in said


def test_the_reader_is_a_process_that_knows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import json, os, sys\n"
        "print(json.dumps({'error': json.dumps([sorted(os.environ), sys.flags.isolated, os.getcwd(), sys.argv[3]])}))\n"
    )
    monkeypatch.setattr(imported, "READER", reader)
    monkeypatch.setenv("SECRET", "1")
    (tmp_path / "x.pt").write_bytes(b"1")
    with pytest.raises(DdpmkitError) as caught:
        import_checkpoint(tmp_path / "x.pt", tmp_path / "x.safetensors", network(), registry=REGISTRY, key="k")
    names, isolated, place, key = json.loads(caught.value.message.partition("': ")[2])
    assert "SECRET" not in names
    assert (isolated, key) == (1, "k")
    assert Path(place).name.startswith("ddpmkit-import-")


@pytest.mark.parametrize("said", ["", "print('[')", "print('[]')", "import os; os._exit(1)", "print('{\"a\": 1}')"])
def test_a_reader_that_ends_without_a_word_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(said)
    monkeypatch.setattr(imported, "READER", reader)
    (tmp_path / "x.pt").write_bytes(b"1")
    with pytest.raises(DdpmkitError, match="ended without a word"):
        import_checkpoint(tmp_path / "x.pt", tmp_path / "x.safetensors", network(), registry=REGISTRY)


def test_of_several_sets_of_weights_one_is_named(tmp_path: Path) -> None:
    file, weights = str(tmp_path / "x.pt"), {"a": torch.zeros(2)}
    torch.save({"net": {"model": weights, "ema": weights}, "betas": torch.ones(3), "step": 1}, file)
    with pytest.raises(NotTakenError, match="holds 3 sets") as caught:
        read(file, "")
    assert caught.value.hint == "name one: --key . (1 tensors), --key net.model (1 tensors), --key net.ema (1 tensors)"
    assert read(file, "net.ema")[1].keys() == {"a"}
    assert read(file, ".")[1].keys() == {"betas"}
    with pytest.raises(NotTakenError, match="no weights under 'net'"):
        read(file, "net")
    torch.save({"step": 1}, file)
    with pytest.raises(NotTakenError, match="holds no sets"):
        read(file, "")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(1).expand(2**40),
    ],
    ids=["sparse", "meta", "complex", "of one number"],
)
def test_what_has_no_plain_numbers_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(NotTakenError):
        plain({"a": tensor})


def test_what_does_not_fit_is_named() -> None:
    wanted = {"a": torch.zeros(2), "b": torch.zeros(3, 4), "n": torch.zeros((), dtype=torch.int64)}

    def refused(tensors: dict[str, torch.Tensor], prefix: str = "") -> tuple[str, str | None]:
        with pytest.raises(DdpmkitError) as caught:
            fit(tensors, wanted, prefix, "'x.pt'", "mlp")
        return caught.value.message, caught.value.hint

    message, _ = refused({"a": torch.zeros(2), "b": torch.zeros(4, 3), "c": torch.zeros(1), "n": torch.zeros(())})
    assert message == (
        "'x.pt' is not of 'mlp': 1 left over (c); 1 of another shape (b is 4x3, not 3x4); "
        "1 of another kind (n is torch.float32)"
    )
    assert refused({})[0] == "'x.pt' is not of 'mlp': 3 missing (a, b, n)"
    assert refused({f"m.{name}": value for name, value in wanted.items()})[1] == "--prefix m."
    assert "not finite: a" in refused({**wanted, "a": torch.tensor([1.0, float("nan")])})[0]
    half = {name: value.half() if value.is_floating_point() else value for name, value in wanted.items()}
    assert {value.dtype for value in fit(half, wanted, "", "", "").values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("shape", ["", "1/2", "1/2/0", "a/b/c", "1/2/99999", "-1/2/2"])
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    with pytest.raises(DdpmkitError, match="no shape of an image"):
        Network.read(SPEC, shape, classes=None, learned=False, registry=REGISTRY)


def test_weights_that_were_not_imported_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for data in (b"", b"no weights", files.pack({"a": torch.zeros(1)})):
        path.write_bytes(data)
        with pytest.raises(DdpmkitError, match="holds no imported weights"):
            open_weights(path, registry=REGISTRY)
    path.write_bytes(files.pack({"a": torch.zeros(1)}, {"network": "[" * 100_000}))
    with pytest.raises(DdpmkitError, match="holds no imported weights"):
        open_weights(path, registry=REGISTRY)
    with pytest.raises(DdpmkitError, match="is no file"):
        open_weights(tmp_path / "nowhere", registry=REGISTRY)


def test_the_reader_is_of_itself_alone() -> None:
    text = Path(unpickled.__file__).read_text(encoding="utf-8")
    assert "ddpmkit." not in text.replace("ddpmkit.study", "")
    assert "import ddpmkit" not in text
    assert sys.executable
