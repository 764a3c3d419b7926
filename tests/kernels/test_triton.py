"""Every Triton kernel against its eager twin: on a GPU where there is one, else by Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

HERE = "cuda" if torch.cuda.is_available() else "cpu"
if HERE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is declared
triton = pytest.importorskip("triton", reason="no triton here: NO KERNEL IS TESTED; make test-kernels brings it")

# Behind the lines above: a kernel is declared when its module is imported, and there must be a triton.
from ddpmkit import group_norm_silu, randomness  # noqa: E402
from ddpmkit.kernels import group_norm_triton, noise_triton  # noqa: E402
from ddpmkit.randomness import normal, philox, stream_key, uniform  # noqa: E402

KEY = stream_key(7, "noise")


@pytest.fixture
def each_way(monkeypatch):
    """Run something by torch and by the kernels."""

    def run(what):
        out = []
        for mode in ("eager", "triton"):
            monkeypatch.setenv("DDPMKIT_KERNELS", mode)
            out.append(what())
        return out

    return run


# --- noise -------------------------------------------------------------------------------------------------------


def words_differ(count=4000):
    """The number of words of the kernel that are not those of plain torch, ends of the range among the counters."""
    drawn = np.random.default_rng(0).integers(0, 2**32, (4, count))
    drawn[:, :3] = [[2**32 - 1, 0, 2**31]] * 4
    counters = torch.from_numpy(drawn).to(HERE)
    out = torch.empty_like(counters)
    signed = [k - 2**32 if k >= 2**31 else k for k in KEY]
    noise_triton.words_kernel[(-(-count // 256),)](counters, out, *signed, count, ROWS=256)
    return int((torch.stack(philox(KEY, *counters)) != out).sum())


def test_the_words_are_equal_everywhere():
    assert words_differ() == 0


@pytest.mark.skipif(HERE == "cuda", reason="a compiled kernel keeps its constants")
def test_a_wrong_multiplier_is_seen(monkeypatch):
    monkeypatch.setattr(noise_triton, "M0", triton.language.constexpr(0xD2511F55))
    assert words_differ() > 15000


def test_uniforms_are_equal_everywhere(each_way):
    index = torch.tensor([0, 5, 2**32 - 1, *range(300)], device=HERE)
    slow, fast = each_way(lambda: uniform(KEY, index, 3))
    assert torch.equal(slow, fast)
    assert fast.dtype == torch.float64


@pytest.mark.parametrize(
    ("shape", "position"),
    [((3,), 9), ((1, 8, 8), 0), ((3, 20, 21), 2**32 - 1), ((5,), "each"), ((), 1)],
    ids=str,
)
def test_normals_are_the_twin_s_where_sine_and_cosine_are(each_way, monkeypatch, shape, position):
    index = torch.tensor([4, 4, 9, 2**32 - 1, 0], device=HERE)
    where = index * 3 % 2**32 if position == "each" else position
    if HERE == "cpu":  # the interpreter computes with numpy, and torch's own sine rounds otherwise
        monkeypatch.setattr(torch.Tensor, "cos", lambda v: torch.from_numpy(np.cos(v.numpy())))
        monkeypatch.setattr(torch.Tensor, "sin", lambda v: torch.from_numpy(np.sin(v.numpy())))
    slow, fast = each_way(lambda: normal(KEY, index, shape, where))
    assert fast.shape == (5, *shape)
    assert torch.equal(slow, fast)


def share_that_differs(each_way, images, numbers=4096):
    """The share of normals in another last place; none is further off than two of them."""
    slow, fast = each_way(lambda: normal(KEY, torch.arange(images, device=HERE), (numbers,)))
    off = (slow.view(torch.int32) - fast.view(torch.int32)).abs()
    assert int(off.max()) <= 2
    return float((off > 0).double().mean())


def test_few_normals_differ_in_the_last_place_and_are_counted(each_way, monkeypatch):
    assert share_that_differs(each_way, 4) < (0.25 if HERE == "cpu" else 1e-6)
    said = randomness.differing.__wrapped__(torch.device(HERE))
    assert said.endswith(" of 65536 normals differ")
    monkeypatch.setattr(randomness.noise, "uniform", lambda *given: torch.zeros(256, dtype=torch.float64))
    with pytest.raises(randomness.DdpmkitError, match="the fused noise is wrong"):
        randomness.differing.__wrapped__(torch.device(HERE))


@pytest.mark.skipif(not os.environ.get("DDPMKIT_MANY"), reason="DDPMKIT_MANY=1: 2^24 counters")
def test_normals_of_many_counters(each_way):
    share = share_that_differs(each_way, 16384)
    print(f"{share:.3%} of 2^26 normals differ in the last places")
    assert share < (0.25 if HERE == "cpu" else 1e-6)


# --- group normalisation -----------------------------------------------------------------------------------------

ROWS = {"plain": (), "before": ("before",), "scale-shift": ("scale", "shift"), "all": ("before", "scale", "shift")}


def outcome(each_way, shape, groups, rows, form, dtype=torch.float32, silu=True):
    """The result and all gradients: in float64 by torch, and by the kernels."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator).to(HERE)

    x = (draw(*shape) * 2 + 5).to(dtype).to(memory_format=form)
    given, weight, bias, dy = {r: draw(*shape[:2]) for r in rows}, draw(shape[1]), draw(shape[1]), draw(*shape)

    def run():
        exact = os.environ["DDPMKIT_KERNELS"] == "eager"
        norm = nn.GroupNorm(groups, shape[1]).to(HERE)
        norm.weight.data, norm.bias.data = weight.clone(), bias.clone()
        mine = x.detach().clone(memory_format=torch.preserve_format)
        if exact:
            norm, mine = norm.double(), mine.double()
        mine.requires_grad_()
        by = {r: v.to(norm.weight.dtype).clone().requires_grad_() for r, v in given.items()}
        y = group_norm_silu(norm, mine, silu=silu, **by)
        y.backward(dy.to(y.dtype))
        assert y.stride() == mine.grad.stride() == x.stride()
        return [y.detach(), mine.grad, norm.weight.grad, norm.bias.grad, *(v.grad for v in by.values())]

    return each_way(run)


def furthest(found):
    return max(float((a - b.double()).abs().max() / a.abs().max()) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rows", ROWS)
def test_values_and_gradients_are_the_twin_s(each_way, rows, form):
    found = outcome(each_way, (2, 6, 3, 5), 2, ROWS[rows], form, silu=rows != "plain")
    assert furthest(found) < 3e-6


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_images_larger_than_a_tile(each_way, form):
    assert furthest(outcome(each_way, (1, 4, 41, 67), 1, ("before",), form)) < 3e-5


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_in_and_out_is_rounded_once(each_way, form):
    found = outcome(each_way, (2, 6, 3, 5), 2, ("scale", "shift"), form, torch.bfloat16)
    assert found[1][0].dtype == found[1][1].dtype == torch.bfloat16
    # Half a unit in the last place; the interpreter cuts what a GPU rounds, which is a whole one.
    assert furthest([found[0][:1], found[1][:1]]) <= (2**-7 if HERE == "cpu" else 2**-8)
    assert furthest(found) < 2e-2  # dy is rounded too


@pytest.mark.skipif(HERE == "cuda", reason="a compiled kernel keeps its code")
def test_a_wrong_group_statistic_is_seen(each_way, monkeypatch):
    right = group_norm_triton.total
    monkeypatch.setattr(group_norm_triton, "total", lambda values: right(values) * 1.001)
    assert furthest(outcome(each_way, (2, 6, 3, 5), 2, (), torch.contiguous_format)) > 1e-4


def test_the_same_bits_every_time(each_way):
    first, again = (outcome(each_way, (2, 6, 3, 5), 2, ("before",), torch.channels_last)[1] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("rows", [(), ("before",), ("scale", "shift")])
def test_the_operator_keeps_the_rules_of_torch(rows):
    x, w, b = (torch.randn(size, device=HERE, requires_grad=True) for size in ((2, 4, 2, 2), 4, 4))
    by = [torch.randn(2, 4, device=HERE, requires_grad=True) if r in rows else None for r in ROWS["all"]]
    operator = torch.ops.ddpmkit.group_norm.default
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (x, w, b, *by), {"groups": 2, "eps": 1e-5, "silu": True}, test_utils=tests)


# --- compiled ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_kernel_compiles_for_a_gpu_and_adds_nothing_atomically(architecture, tmp_path):
    script = Path(__file__).with_name("for_gpus.py")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script), str(architecture)], capture_output=True, text=True, env=env, check=True
    )
    found = json.loads(done.stdout)
    assert len(found) == 5
    assert all(case["cubin"] > 0 and case["atomic"] == [] for case in found.values())
