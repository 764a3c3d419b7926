"""The layout of a training: timed by the replay that it makes, found once, and the same ever after."""

import contextlib

import pytest
import torch
from torch import nn

from ddpmkit import device as devices
from ddpmkit import recording
from ddpmkit.study import memory_format
from ddpmkit.study.memory_format import FORMATS, faster, in_format, remembered, seconds
from ddpmkit.tape import Tape


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls = nn.Conv2d(2, 2, 3, padding=1), 0

    def forward(self, x, t, y=None):
        self.calls += 1
        return self.conv(x) + t[:, None, None, None]


@pytest.mark.parametrize(
    ("contiguous", "last", "expected"),
    [(1.0, 2.0, "contiguous"), (2.0, 1.0, "channels_last"), (0.97, 1.0, "channels_last"), (1.0, 1.0, "channels_last")],
)
def test_the_faster_layout_is_taken_and_channels_last_where_they_are_alike(contiguous, last, expected):
    assert faster({"contiguous": contiguous, "channels_last": last}.__getitem__) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_laid_out_as_named(name):
    weight = in_format(in_format(Net(), "channels_last"), name).conv.weight
    assert weight.is_contiguous(memory_format=FORMATS[name])


def test_what_is_timed_is_the_replay(monkeypatch):
    tapes = []
    monkeypatch.setattr(recording, "recorder", lambda device: tapes.append(Tape()) or tapes[-1])
    net = Net()
    assert seconds(net, "contiguous", (2, 4, 4), 3, "fp32") > 0
    assert tapes[0].replays == 1 + memory_format.REPEATS
    assert net.calls == 2  # to warm up, and to be recorded
    assert net.conv.weight.grad is None


def test_what_cannot_be_replayed_is_timed_as_it_runs(monkeypatch):
    monkeypatch.setattr(recording, "recorder", lambda device: Tape())

    class Waits(Net):
        def forward(self, x, t, y=None):
            return super().forward(x, t) * (1 + float(x.detach().sum()))

    net = Waits()
    assert seconds(net, "channels_last", (2, 4, 4), 3, "fp32") > 0
    assert net.calls > memory_format.REPEATS


def test_what_was_found_first_stays(tmp_path):
    assert remembered(tmp_path, ["unet"], lambda: "contiguous") == "contiguous"
    assert remembered(tmp_path, ["unet"], lambda: "channels_last") == "contiguous"
    assert remembered(tmp_path, ["mlp"], lambda: "channels_last") == "channels_last"


def test_of_two_processes_that_probe_the_first_to_write_is_right_for_both(tmp_path):
    def slow():
        assert remembered(tmp_path, ["unet"], lambda: "contiguous") == "contiguous"  # the other one
        return "channels_last"

    assert remembered(tmp_path, ["unet"], slow) == "contiguous"


def test_a_word_that_is_no_layout_is_not_believed(tmp_path):
    remembered(tmp_path, ["unet"], lambda: "contiguous")
    (path,) = (tmp_path / "layouts").iterdir()
    path.write_text("{}")
    assert remembered(tmp_path, ["unet"], lambda: "contiguous") == "channels_last"


def test_on_a_cpu_nothing_is_timed(monkeypatch):
    class Work:
        device = torch.device("cpu")

    monkeypatch.setattr(memory_format, "seconds", None)
    assert isinstance(memory_format.placed(Net(), Work(), (2, 4, 4), 3, "fp32"), Net)


def test_a_probe_leaves_the_mode_of_the_training_alone_and_multiplies_as_it_does(monkeypatch):
    inside = []

    @contextlib.contextmanager
    def products(device, declared):
        inside.append(declared)
        yield
        inside.pop()

    class Lenient(Tape):
        def warm(self, run):
            assert inside == ["tf32"]
            torch.use_deterministic_algorithms(True, warn_only=True)
            run()

    monkeypatch.setattr(recording, "recorder", lambda device: Lenient())
    monkeypatch.setattr(devices, "products", products)
    seconds(Net(), "contiguous", (2, 4, 4), 3, "tf32")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
