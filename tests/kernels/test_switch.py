"""The switch between fused kernels and torch, and the eager twin; needs no triton."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpmkit import DdpmkitError, group_norm_silu, kernels
from ddpmkit import device as devices

CPU = torch.device("cpu")


def test_a_cpu_runs_plain_torch_and_has_no_choice_to_speak_of(monkeypatch):
    monkeypatch.delenv("DDPMKIT_KERNELS", raising=False)
    assert not kernels.fused(CPU)
    assert kernels.said(CPU) is None
    found = devices.fingerprint(CPU)
    assert (found["kernels"], found["noise"]) == (None, None)


@pytest.mark.parametrize(
    ("asked", "capability", "version", "expected"),
    [
        ("auto", (9, 0), "3", "triton 3"),
        ("auto", (7, 5), "3", "eager"),
        ("auto", (9, 0), None, "eager"),
        ("eager", (9, 0), "3", "eager"),
        ("triton", (9, 0), "3", "triton 3"),
    ],
)
def test_an_nvidia_gpu_runs_triton_where_it_can(monkeypatch, asked, capability, version, expected):
    monkeypatch.setenv("DDPMKIT_KERNELS", asked)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(kernels, "_version", lambda: version)
    assert kernels.said(torch.device("cuda")) == expected
    assert kernels.fused(torch.device("cuda")) == expected.startswith("triton")


def test_what_can_not_be_had_is_refused_in_two_lines(monkeypatch):
    monkeypatch.setenv("DDPMKIT_KERNELS", "fast")
    with pytest.raises(DdpmkitError, match="DDPMKIT_KERNELS=fast is no choice"):
        kernels.fused(CPU)
    monkeypatch.setenv("DDPMKIT_KERNELS", "triton")
    monkeypatch.setattr(kernels, "_version", lambda: None)
    with pytest.raises(DdpmkitError, match="triton can't be imported"):
        kernels.fused(CPU)
    monkeypatch.setattr(kernels, "_version", lambda: "3")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(DdpmkitError, match="by interpretation alone"):
        kernels.fused(CPU)


def test_the_twin_is_what_the_network_did_before_bit_for_bit():
    torch.manual_seed(0)
    norm, x, a, b = nn.GroupNorm(2, 8), torch.randn(3, 8, 4, 4), torch.randn(3, 8), torch.randn(3, 8)
    nn.init.normal_(norm.weight)
    rows = a[:, :, None, None], b[:, :, None, None]
    assert torch.equal(group_norm_silu(norm, x), F.silu(norm(x)))
    assert torch.equal(group_norm_silu(norm, x, silu=False), norm(x))
    assert torch.equal(group_norm_silu(norm, x, before=a), F.silu(norm(x + rows[0])))
    assert torch.equal(group_norm_silu(norm, x, scale=a, shift=b), F.silu(norm(x) * (1 + rows[0]) + rows[1]))
    with pytest.raises(DdpmkitError, match="a scale and a shift together"):
        group_norm_silu(norm, x, scale=a)


ON_FAKE_TENSORS = """
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from ddpmkit import group_norm_silu, kernels
from ddpmkit.randomness import normal, stream_key, uniform

kernels._version = lambda: "0"  # as where triton can be imported; what runs on fake tensors needs none
for form in (torch.contiguous_format, torch.channels_last):
    with FakeTensorMode():
        norm = nn.GroupNorm(2, 8, device="meta")
        x = torch.empty(3, 8, 4, 4, device="meta", dtype=torch.bfloat16).to(memory_format=form).requires_grad_()
        a, b = (torch.empty(3, 8, device="meta", requires_grad=True) for _ in range(2))
        out = group_norm_silu(norm, x, scale=a, shift=b)
        out.sum().backward()
        assert (out.shape, out.dtype, out.stride()) == (x.shape, x.dtype, x.stride())
        assert [p.grad.shape for p in (x, a, norm.weight)] == [x.shape, a.shape, (8,)]
        assert x.grad.stride() == x.stride()
        index = torch.arange(5, device="meta")
        assert normal(stream_key(0, "noise"), index, (1, 3), index).shape == (5, 1, 3)
        assert uniform(stream_key(0, "time"), index).dtype == torch.float64
print("seen")
"""


def test_the_operators_are_known_to_fake_tensors_with_their_gradients():
    """In a process of its own: torch has ended a process here in which much else had used fake tensors before."""
    env = {**os.environ, "DDPMKIT_KERNELS": "triton"}
    done = subprocess.run([sys.executable, "-c", ON_FAKE_TENSORS], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "seen\n", done.stderr
