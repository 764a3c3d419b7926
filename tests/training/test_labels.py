"""Class-conditional training: each image with its own label, some without, and the same bits however it was cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ddpmkit import device as devices
from ddpmkit.builtin.predictions.eps import Eps
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.weightings.simple import Simple
from ddpmkit.diffusion.labels import Shown
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import Interrupted
from ddpmkit.randomness import stream_key, uniform
from ddpmkit.training import loop as training
from ddpmkit.training.config import TrainConfig
from ddpmkit.training.loop import Hooks, build_objective, train

CPU, STEPS, CLASSES, COUNT = torch.device("cpu"), 7, 5, 17
DATA = (
    torch.arange(COUNT, dtype=torch.uint8)[:, None, None, None].expand(COUNT, 1, 4, 4).contiguous()
)  # image i: level i
Y = (torch.arange(COUNT) * 3) % CLASSES
CONFIG = TrainConfig(
    steps=STEPS, batch_size=8, micro_batch=8, learning_rate=1e-2, lr_decay="cosine", warmup=3, weight_decay=0.01,
    grad_clip=1.0, emas=(0.9,), dropout=0.0, prediction=Eps(), precision="fp32", timestep_sampling="uniform", seed=0,
    label_dropout=0.3,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    with devices.one_thread():
        yield


class Net(nn.Module):
    """Writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.label, self.drop = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(CLASSES + 1, 1), nn.Dropout(0.0)
        self.seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def forward(self, x, t, y=None):
        self.seen.append((x.detach(), y))
        out = self.drop(self.conv(x))
        return out if y is None else out + self.label(y)[:, :, None, None]


def run(c: TrainConfig, folder=None, *, stop_at: int | None = None, labels: bool = True) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        net = Net()
    tables = tables_for(Linear(), 50)
    o = build_objective(
        tables, Simple(), fixed_log_variance(BetaTilde(), tables), decoder_log_variance(tables), c, 17, CPU
    )
    looks, begun = iter(range(10**6)), []
    hooks = Hooks(
        folder, checkpoint_every=3, checkpoint_seconds=1e9, log_every=2, on_resume=begun.append,
        should_stop=lambda: begun[0] + next(looks) == stop_at,
    )  # fmt: skip
    train(net, DATA, o, c, CPU, hooks, Shown.of(Y, CLASSES, c.label_dropout, c.seed) if labels else None)
    return net


@pytest.fixture
def _no_noise(monkeypatch):
    monkeypatch.setattr(training, "q_sample", lambda coefficients, x0, t, eps: x0)


@pytest.mark.usefixtures("_no_noise")
@pytest.mark.parametrize("micro_batch", [8, 3])
def test_every_image_is_shown_with_its_own_label_or_with_none(micro_batch):
    c = replace(CONFIG, micro_batch=micro_batch, steps=40)
    net = run(c)
    scale = tables_for(Linear(), 50).input_scale[0]
    told = torch.cat([y for _, y in net.seen])
    levels = torch.cat([((x[:, 0, 0, 0] / scale + 1) * 8).round().long() for x, _ in net.seen])
    dropped = told == CLASSES
    assert torch.equal(told[~dropped], Y[levels[~dropped]])
    assert abs(float(dropped.float().mean()) - 0.3) < 4 * (0.21 / len(told)) ** 0.5
    number = torch.arange(len(told))  # of each image since the start: no two steps drop alike
    assert torch.equal(dropped, uniform(stream_key(0, "label"), number) < 0.3)
    assert levels.unique().numel() == COUNT
    assert set(told.tolist()) == set(range(CLASSES + 1))


@pytest.mark.usefixtures("_no_noise")
def test_what_is_dropped_does_not_hang_on_the_micro_batch():
    told = [torch.cat([y for _, y in run(replace(CONFIG, micro_batch=m)).seen]) for m in (8, 3, 1)]
    assert torch.equal(told[0], told[1])
    assert torch.equal(told[0], told[2])
    other = torch.cat([y for _, y in run(replace(CONFIG, seed=1)).seen])
    assert not torch.equal(told[0] == CLASSES, other == CLASSES)


def outcome(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / f"{STEPS:08d}").iterdir()}


@pytest.mark.long
@pytest.mark.parametrize("changes", [{}, {"micro_batch": 3, "dropout": 0.2, "timestep_sampling": "importance"}])
def test_stopped_and_resumed_gives_the_same_bytes(tmp_path, changes):
    c = replace(CONFIG, **changes)
    run(c, tmp_path / "whole")
    for stop in range(1, STEPS):
        folder = tmp_path / f"{stop}"
        with pytest.raises(Interrupted):
            run(c, folder, stop_at=stop)
        run(c, folder)
        assert outcome(folder) == outcome(tmp_path / "whole")


def test_a_training_without_labels_says_nothing_of_them():
    assert all(y is None for _, y in run(CONFIG, labels=False).seen)


def test_labels_dropped_or_not_are_other_trainings():
    weights = [run(replace(CONFIG, label_dropout=d)).label.weight.detach() for d in (0.0, 0.3)]
    assert not torch.equal(*weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        start = Net().label.weight.detach()[CLASSES]
    assert float((weights[1][CLASSES] - start).abs().max()) > 10 * float((weights[0][CLASSES] - start).abs().max())
