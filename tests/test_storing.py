"""What is stored is what was computed: any layout goes in, the same values come out, through every door."""

import ast
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_tensors

import ddpmkit
from ddpmkit import files
from ddpmkit.distances.images import read_statistics, write_statistics
from ddpmkit.errors import DdpmkitError
from ddpmkit.study import execute
from ddpmkit.study.records import FitRecord
from ddpmkit.study.stage import Output
from ddpmkit.study.store import Store
from ddpmkit.training import checkpoint
from ddpmkit.training.checkpoint import Checkpoint

ROOT = Path(ddpmkit.__file__).parent


def odd_arrays():
    """Arrays whose memory does not lie as C order would have it."""
    a = np.arange(24, dtype=np.float64).reshape(4, 6)
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    return {
        "view": a[:, :2],
        "every other": a[::2, ::3],
        "transposed": a.T,
        "fortran": np.asfortranarray(a),
        "turned round": a[::-1, ::-1],
        "one row again and again": np.broadcast_to(a[:1], (5, 6)),
        "channels last": np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "byte-swapped": a.astype(">f8"),
        "byte-swapped view": a.astype(">f4")[:, 1::2],
        "byte-swapped integers": np.arange(7, dtype=">i4"),
        "0-d": np.asarray(2.5),
        "0-d of another byte order": np.asarray(7, dtype=">i8"),
        "no rows": np.zeros((0, 5)),
        "no columns of a view": a[:, 3:3],
        "a field of a record": np.array([(1, 2.0), (3, 4.0)], dtype=[("n", "i4"), ("x", "f8")])["x"],
        "half": a.astype(np.float16)[1:, ::2],
        "booleans": (a > 7).T,
    }


def odd_tensors():
    """The same for torch, with what only torch has: bfloat16, memory formats, lazy signs, weights that are tied."""
    a = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    return {
        "view": a[:, :2],
        "transposed": a.T,
        "channels last": images.to(memory_format=torch.channels_last),
        "channels last bfloat16": images.bfloat16().to(memory_format=torch.channels_last),
        "half": a.half()[1:, ::2],
        "expanded": a[:1].expand(5, 6),
        "lazily negated": torch.complex(a, a + 1).conj().imag,
        "0-d": torch.tensor(2.5),
        "no rows": torch.zeros(0, 5),
        "integers": torch.arange(7).flip(0)[::2],
        "parameter": weight,
        "tied": weight,
    }


def check_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def check_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        assert torch.equal(found[name], value.detach()), name


def test_arrays_and_tensors_of_any_layout_are_read_as_they_were():
    check_arrays(load_arrays(files.pack(odd_arrays())), odd_arrays())
    check_tensors(load_tensors(files.pack(odd_tensors())), odd_tensors())
    assert load_arrays(files.pack({})) == {}


def test_a_stage_stores_what_it_computed(tmp_path):
    """The one function behind ref, fit, sample and draw, and the one that reads their arrays back."""
    store, draw = Store(tmp_path), SimpleNamespace(kind="draw", id="ab" * 32)
    work = SimpleNamespace(folder=store.folder(draw.kind, draw.id), stage=draw)
    execute._commit(work, Output(FitRecord(1, "test", 9), {"draws": odd_arrays()}))
    check_arrays(store.arrays("draw", draw.id, "draws"), odd_arrays())


def test_a_checkpoint_stores_what_was_trained(tmp_path):
    checkpoint.write(tmp_path, Checkpoint(7, odd_tensors(), odd_tensors(), odd_tensors()))
    found = checkpoint.newest(tmp_path)
    for part in (found.model, found.ema, found.optim):
        check_tensors(part, odd_tensors())


def test_statistics_of_any_layout(tmp_path):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(6, 12))
    cov = wide @ wide.T
    for mu, sigma in (
        (wide[0, ::2], cov.T),
        (wide[0, ::2].astype(">f8"), np.asfortranarray(cov)),
        (np.float32(wide[0, :6]), np.repeat(cov, 2, axis=1)[:, ::2]),
    ):
        write_statistics(tmp_path / "a.safetensors", mu, sigma, {})
        got = read_statistics(tmp_path / "a.safetensors")
        np.testing.assert_array_equal(got.mu, mu)
        np.testing.assert_array_equal(got.cov, sigma)


def test_whatever_is_done_to_an_array_it_comes_back():
    """Random arrays under random chains of views, transposes and dtypes, against the values themselves."""
    chance, rng = random.Random(0), np.random.default_rng(0)
    dtypes = ("<f8", ">f8", "<f4", ">f4", "<f2", ">f2", "<i8", ">i8", "<i4", ">u2", "u1", "?")
    odd = 0
    for _ in range(300):
        shape = tuple(chance.randrange(5) for _ in range(chance.randrange(5)))
        array = (rng.normal(size=shape) * 50).astype(chance.choice(dtypes))
        for _ in range(chance.randrange(4)):
            axes = list(range(array.ndim))
            chance.shuffle(axes)
            step = tuple(slice(None, None, chance.choice([-2, -1, 1, 2])) for _ in axes)
            array = chance.choice([lambda a, x=axes: a.transpose(x), lambda a, s=step: a[s], np.asfortranarray])(array)
        odd += not (array.flags.c_contiguous and array.dtype.isnative)
        expected = np.array(array.tolist(), dtype=array.dtype.newbyteorder("=")).reshape(array.shape)
        found = load_arrays(files.pack({"a": array}))["a"]
        assert found.shape == array.shape
        assert found.tobytes() == expected.tobytes()
    assert odd > 100


@pytest.mark.parametrize("array", [np.array(["x"]), np.array([{}], object), np.zeros(2, np.longdouble)])
def test_what_has_no_place_in_the_format_is_named(array):
    with pytest.raises(DdpmkitError, match=r"arrays that can't be stored.*odd") as caught:
        files.pack({"odd": array})
    assert caught.value.hint


# --- one writer ---------------------------------------------------------------------------------------------------

WRITERS = {"save", "save_file", "save_model", "serialize", "serialize_file", "savez", "savez_compressed", "tofile"}


def writers(source):
    """The calls and imports of a module that write arrays in a way of their own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("safetensors", "numpy", "torch"):
            yield from (f"{node.lineno}: {a.name}" for a in node.names if a.name in WRITERS)
        elif isinstance(node, ast.Attribute) and node.attr in WRITERS:
            owner = ast.unparse(node.value).split(".")[0]
            if owner in ("safetensors", "np", "numpy", "torch") or node.attr == "tofile":
                yield f"{node.lineno}: {ast.unparse(node)}"


def test_nothing_else_writes_arrays():
    plugins = ROOT.parent / "plugins"
    sources = [*ROOT.rglob("*.py"), *(p for p in plugins.glob("*/ddpmkit_*/**/*.py"))]
    found = {p.name: list(writers(p.read_text(encoding="utf-8"))) for p in sources}
    assert len(found.pop("arrays.py")) == 3  # arrays, tensors, and archives for others to read
    assert len(found.pop("unpickled.py")) == 2  # a process of its own, which has nothing of ddpmkit
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from safetensors.numpy import save",
        "from safetensors.torch import save_file as put",
        "safetensors.torch.save({})",
        "from safetensors import serialize",
        "np.savez(path, a=a)",
        "array.tofile(path)",
        "torch.save(x, f)",
    ],
)
def test_the_search_for_writers_finds_them(line):
    assert list(writers(line))
