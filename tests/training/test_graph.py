"""A recorded step is the step: a tape that replays frozen operations gives the bits of code that runs as it stands."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.diffusion.labels import Shown
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import Interrupted
from ddpmkit.recording import OneByOne, RecordingError, same
from ddpmkit.tape import Tape
from ddpmkit.training import checkpoint
from ddpmkit.training.config import TrainConfig, learning_rate
from ddpmkit.training.ema import decay_at
from ddpmkit.training.inputs import Inputs
from ddpmkit.training.loop import Hooks, build_objective, set_dropout, train

CPU, STEPS, CLASSES = torch.device("cpu"), 20, 3
DATA = torch.arange(20 * 16).remainder(17).to(torch.uint8).reshape(20, 1, 4, 4)
Y = torch.arange(20) % CLASSES
# Everything that a step has: clipping, AdamW, averages whose decay rises, importance, dropout, an uneven micro-batch.
CONFIG = TrainConfig(
    steps=STEPS, batch_size=8, micro_batch=3, learning_rate=1e-2, lr_decay="cosine", warmup=3, weight_decay=0.01,
    grad_clip=0.5, emas=(0.0, 0.9, 0.9999), dropout=0.1, prediction=ddpmkit.build("prediction", "eps"),
    timestep_sampling="importance", precision="fp32", seed=0, flip=True, label_dropout=0.3,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    with devices.one_thread():
        yield


class Net(nn.Module):
    """Dropout, a norm's buffers, an embedding, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.drop = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.0)
        self.time, self.outer, self.label = nn.Linear(1, 4), nn.Conv2d(4, 1, 3, padding=1), nn.Embedding(CLASSES + 1, 4)
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, x, t, y=None):
        h = self.norm(self.inner(x)) + self.time(t[:, None] / 1000)[:, :, None, None]
        h = h if y is None else h + self.label(y)[:, :, None, None]
        return self.outer(self.drop(torch.relu(h)))


def run(recorder, c=CONFIG, *, net=Net, weighting="p2", folder=None, stop_at=None, sigma=None):
    """Return all weights and averages, what was reported, and how the steps ran."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = net()
    tables, kind = tables_for(ddpmkit.build("schedule", "linear"), 50), ddpmkit.build("weighting", weighting)
    log_sigma2 = fixed_log_variance(ddpmkit.build("sigma", "beta"), tables)
    learned = ddpmkit.build("sigma", sigma) if sigma else None
    o = build_objective(tables, kind, log_sigma2, decoder_log_variance(tables), c, 17, CPU, learned)
    rows, how, begun, looks = [], [], [], iter(range(10**6))
    hooks = Hooks(
        folder, checkpoint_every=4, checkpoint_seconds=1e9, log_every=5, on_progress=rows.append,
        on_resume=begun.append, should_stop=lambda: begun[0] + next(looks) == stop_at,
        recorder=lambda device: recorder, on_steps=how.append,
    )  # fmt: skip
    averages = train(network, DATA, o, c, CPU, hooks, Shown.of(Y, CLASSES, c.label_dropout, c.seed))
    weights = [v for n in (network, *averages.values()) for v in n.state_dict().values()]
    return weights, rows, how


CASES = {
    "everything": {},
    "one micro-batch": {"micro_batch": 8},
    "micro-batches that fit": {"micro_batch": 4, "timestep_sampling": "stratified"},
    "bf16": {"precision": "bf16", "lr_decay": "constant"},
    "a clip that remembers": {"clip_ratio": 1.05, "micro_batch": 8},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_twenty_replayed_steps_are_twenty_steps_bit_for_bit(changes):
    c, tape = replace(CONFIG, **changes), Tape(believing=True)
    replayed, eager = run(tape, c), run(OneByOne(), c)
    assert (replayed[2], eager[2]) == (["recorded"], ["one by one"])
    assert same(replayed[0], eager[0])
    assert replayed[1] == eager[1]
    assert tape.replays == (2 + -(-8 // c.micro_batch)) * (STEPS + 1)  # each step, and the one of the proof
    assert len(tape.operations) == {3: 5, 8: 3, 4: 4}[c.micro_batch]
    assert min(tape.operations) > 20


@pytest.mark.long
@pytest.mark.parametrize(
    ("weighting", "sigma"), [("vlb", None), ("hybrid", "learned-range")], ids=["the bound", "a learned sigma"]
)
def test_every_loss_can_be_replayed(weighting, sigma):
    def net():
        kinds = {"in_channels": 1, "out_channels": 2 if sigma else 1, "image_size": 4, "num_classes": CLASSES}
        return ddpmkit.build("backbone", "unet:channels=4:attention=4:fourier=true").build(**kinds)

    c = replace(CONFIG, steps=6)
    replayed, eager = (run(r, c, net=net, weighting=weighting, sigma=sigma) for r in (Tape(), OneByOne()))
    assert replayed[2] == ["recorded"]
    assert same(replayed[0], eager[0])


def test_inputs_in_tensors_train_as_inputs_in_python_do():
    c = replace(CONFIG, dropout=0.0)
    held, plain = run(OneByOne(), c), run(None, c)
    assert plain[2] == []  # nothing to be told where nothing could be recorded
    # A rate in float32 differs from one in Python in its last bits; Adam doubles and redoubles that.
    for mine, theirs in zip(held[1], plain[1], strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert mine.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-2)


@pytest.mark.long
def test_a_training_stopped_at_every_step_and_resumed_has_the_same_bytes(tmp_path):
    def outcome(folder):
        return {p.name: p.read_bytes() for p in (folder / f"{c.steps:08d}").iterdir()}

    c = replace(CONFIG, steps=9)
    run(Tape(), c, folder=tmp_path / "whole")
    for step in range(1, c.steps):
        with pytest.raises(Interrupted):
            run(Tape(), c, folder=tmp_path / str(step), stop_at=step)
        assert run(Tape(), c, folder=tmp_path / str(step))[2] == ["recorded"]
        assert outcome(tmp_path / str(step)) == outcome(tmp_path / "whole"), f"stopped after step {step}"


def test_making_a_recording_moves_nothing(tmp_path):
    folders = tmp_path / "recorded", tmp_path / "not"
    for recorder, folder in zip((Tape(), None), folders, strict=True):
        with pytest.raises(Interrupted):
            run(recorder, folder=folder, stop_at=0)
    (mine, theirs) = (checkpoint.newest(folder) for folder in folders)
    assert mine is not None
    assert theirs is not None
    assert mine.step == theirs.step == 0
    for group in ("model", "ema"):
        kept, expected = getattr(mine, group), getattr(theirs, group)
        assert same([kept[k] for k in sorted(expected)], [expected[k] for k in sorted(expected)])
    assert all(not bool(v.any()) for v in mine.optim.values())


class PythonRate(Inputs):
    """A planted mistake: the learning rate is a Python number."""

    def at(self, step):
        super().at(step)
        self.rate = learning_rate(self.config, step)


class PythonDecay(Inputs):
    """A planted mistake: the averages' decays are Python numbers."""

    def at(self, step):
        super().at(step)
        self.decays = [decay_at(rate, step) for rate in self.config.emas]


@pytest.mark.parametrize("planted", [PythonRate, PythonDecay])
def test_a_python_number_that_changes_is_caught(monkeypatch, capsys, planted):
    right = run(OneByOne())
    monkeypatch.setattr("ddpmkit.training.loop.Inputs", planted)
    frozen = run(Tape(believing=True))
    assert frozen[2] == ["recorded"]
    assert not same(frozen[0], right[0])  # what would come of it
    assert capsys.readouterr().err == ""
    refused = run(Tape())
    assert refused[2] == ["one by one"]
    assert "not recorded as a CUDA graph and takes longer: its replay gives other numbers" in capsys.readouterr().err
    for mine, theirs in zip(refused[1], right[1], strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)


class Waits(Net):
    """A planted mistake: it reads a number of a tensor."""

    def forward(self, x, t, y=None):
        return super().forward(x, t, y) * (1 if x.sum().item() else 0)


class Throws(Net):
    """A network that draws from numpy and random, which no recording sees."""

    def forward(self, x, t, y=None):
        return super().forward(x, t, y) * (1 + np.random.random() * random.random())


@pytest.mark.parametrize(
    ("net", "why"), [(Waits, "it waits for the device"), (Throws, "its replay gives other numbers")]
)
def test_a_network_that_cannot_be_recorded_trains_all_the_same(capsys, net, why):
    refused, right = run(Tape(), net=net), run(OneByOne(), net=net)
    assert refused[2] == ["one by one"]
    assert why in capsys.readouterr().err
    assert same(refused[0], right[0])


class Refuses(OneByOne):
    """A device that fails while it records the last part."""

    def __init__(self):
        self.made = 0

    def record(self, run):
        self.made += 1
        if self.made == 5:
            raise RecordingError("out of memory")
        return run


def test_a_device_that_refuses_half_way_leaves_the_training_as_it_was(capsys):
    refused, right = run(Refuses()), run(OneByOne())
    assert refused[2] == ["one by one"]
    assert "out of memory" in capsys.readouterr().err
    assert same(refused[0], right[0])


def test_decays_in_tensors_keep_their_digits():
    c = replace(CONFIG, emas=(0.999999,))
    inputs = Inputs(c, 20, CPU, held=True)
    inputs.at(10**9)
    assert float(1.0 - inputs.decays[0]) == 1.0 - 0.999999
    assert inputs.rate.dtype is torch.float32  # as fused AdamW reads it on CUDA


class Counting(Net):
    """A network with a buffer that no checkpoint holds, and that every step changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x, t, y=None):
        self.seen += 1
        return super().forward(x, t, y) * (1 + 0.1 * self.seen)


def test_trial_steps_leave_no_trace_in_a_buffer_that_is_not_kept():
    replayed, eager = run(Tape(), net=Counting), run(OneByOne(), net=Counting)
    assert replayed[2] == ["recorded"]
    assert same(replayed[0], eager[0])


class Doubted(Tape):
    """A recorder of kernels whose bits are not the same twice, as far as anybody knows."""

    caveat = ", not deterministic"


class Varies(Net):
    """A network that is not the same twice."""

    calls = 0

    def forward(self, x, t, y=None):
        Varies.calls += 1
        return super().forward(x, t, y) * (1 + 0.01 * Varies.calls)


def test_a_network_that_differs_from_itself_is_named_and_its_replay_not_accused(capsys):
    assert run(Doubted())[2] == ["recorded, not deterministic"]
    assert capsys.readouterr().err == ""
    assert run(Doubted(), net=Varies)[2] == ["one by one, not deterministic"]
    assert "takes longer: it differs from itself" in capsys.readouterr().err


@pytest.mark.parametrize(("micro", "warmed"), [(3, 4), (8, 1)])
def test_what_reads_rows_has_run_before_anything_is_recorded(micro, warmed):
    did = []

    class Watched(OneByOne):
        def warm(self, run):
            did.append("warm")
            run()

        def record(self, run):
            did.append("record")
            return run

    run(Watched(), replace(CONFIG, steps=1, micro_batch=micro))
    assert did == ["warm"] * warmed + ["record"] * (2 + max(1, warmed - 1))


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_checkpointed_network_reads_the_random_state_only_where_it_draws(monkeypatch, rate):
    kinds = {"in_channels": 1, "out_channels": 1, "image_size": 4}
    net = ddpmkit.build("backbone", "unet:channels=4:mults=1:checkpoint=true").build(**kinds).train()
    set_dropout(net, rate)
    read, state = [], torch.get_rng_state
    monkeypatch.setattr(torch, "get_rng_state", lambda: read.append(1) or state())
    net(torch.ones(2, 1, 4, 4), torch.zeros(2)).sum().backward()
    assert bool(read) == (rate > 0)
