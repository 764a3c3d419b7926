"""Declared precision: what each device offers, what auto means, and that TF32 is allowed only where it is declared."""

import pytest
import torch

from ddpmkit import device as devices
from ddpmkit.errors import DdpmkitError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "bf16", "tf32", "training", "evaluation"),
    [(GPU, True, True, "bf16", "tf32"), (GPU, False, False, "fp32", "fp32"), (CPU, True, False, "bf16", "fp32")],
)
def test_auto_is_bf16_in_training_and_tf32_in_evaluation_where_they_are(
    monkeypatch, device, bf16, tf32, training, evaluation
):
    monkeypatch.setattr(devices, "native_bf16", lambda device: bf16)
    monkeypatch.setattr(devices, "native_tf32", lambda device: tf32)
    assert devices.precision("auto", device) == training
    assert devices.precision("auto", device, learns=False) == evaluation


def test_what_a_device_does_not_offer_is_refused():
    with pytest.raises(DdpmkitError, match="precision tf32 is not offered on this cpu") as err:
        devices.precision("tf32", CPU, learns=False)
    assert err.value.hint == "use --axis eval_precision=fp32"
    with pytest.raises(DdpmkitError, match="precision bf16 is not offered on this mps"):
        devices.precision("bf16", torch.device("mps"))
    with pytest.raises(DdpmkitError, match="unknown precision 'fp16'"):
        devices.precision("fp16", CPU)


def test_tf32_is_allowed_inside_and_as_before_outside():
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = allowed()
    with devices.reproducible(GPU):
        assert allowed() == (False, False)
        with devices.autocast(GPU, "tf32"):
            assert allowed() == (True, True)
        with devices.autocast(GPU, "fp32"):
            assert allowed() == (False, False)
        assert allowed() == (False, False)
    assert allowed() == before


def test_a_process_that_keeps_its_memory_computes_the_same(monkeypatch):
    x = torch.randn(64, 64)
    before = x @ x
    devices.keep_memory(CPU)
    assert torch.equal(x @ x, before)
    devices.keep_memory(GPU)
    monkeypatch.setattr(devices.platform, "libc_ver", lambda: ("", ""))
    devices.keep_memory(CPU)  # another C library: nothing is asked of it
