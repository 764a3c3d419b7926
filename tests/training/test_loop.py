"""The training loop: resuming is exact at every step, seeds block the noise, what is not finite stops it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ddpmkit import device as devices
from ddpmkit import files
from ddpmkit.builtin.predictions.eps import Eps
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.sigmas.beta_tilde import BetaTilde
from ddpmkit.builtin.weightings.p2 import P2
from ddpmkit.builtin.weightings.simple import Simple
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.errors import DdpmkitError, Diverged, Interrupted
from ddpmkit.training import checkpoint, ema
from ddpmkit.training import loop as training
from ddpmkit.training.config import TrainConfig, learning_rate
from ddpmkit.training.inputs import Order
from ddpmkit.training.loop import Hooks, build_objective, train

CPU = torch.device("cpu")
STEPS = 9
DATA = torch.arange(20 * 16).remainder(17).to(torch.uint8).reshape(20, 1, 4, 4)


@pytest.fixture(autouse=True)
def _one_thread():
    with devices.one_thread():
        yield


class Net(nn.Module):
    """A small convolutional net with everything that state can hide in: dropout, a norm's buffers, an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.drop = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.0)
        self.time, self.outer = nn.Linear(1, 4), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x, t, y=None):
        h = self.norm(self.inner(x)) + self.time(t[:, None] / 1000)[:, :, None, None]
        return self.outer(self.drop(torch.relu(h)))


def config(**changes) -> TrainConfig:
    usual = {
        "steps": STEPS, "batch_size": 8, "micro_batch": 8, "learning_rate": 1e-2, "lr_decay": "cosine", "warmup": 3,
        "weight_decay": 0.01, "grad_clip": 1.0, "emas": (0.9,), "dropout": 0.0, "prediction": Eps(),
        "precision": "fp32", "timestep_sampling": "uniform", "seed": 0,
    }  # fmt: skip
    return TrainConfig(**{**usual, **changes})


def objective(c: TrainConfig, schedule=None, T: int = 50):
    tables = tables_for(schedule or Linear(), T)
    log_sigma2 = fixed_log_variance(BetaTilde(), tables)
    return build_objective(tables, Simple(), log_sigma2, decoder_log_variance(tables), c, 17, CPU)


def fresh(net=Net) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return net()


class Crash(Exception):
    """A process that is gone without having written anything."""


def one_run(c: TrainConfig, folder, *, stop_at: int | None = None, crash_at: int | None = None):
    """One process' worth of training; its metrics file is kept as the train stage keeps it."""
    metrics, looks = folder / "metrics.jsonl", iter(range(10**6))
    begun = []

    def on_resume(step):
        begun.append(step)
        kept = [r for r in files.read_lines(metrics) if r["step"] <= step]
        files.write_lines(metrics, map(files.canonical, kept))

    def should_stop():
        step = begun[0] + next(looks)
        if step == crash_at:
            raise Crash
        return step == stop_at

    hooks = Hooks(
        folder / "ckpt", checkpoint_every=4, checkpoint_seconds=1e9, log_every=5,
        on_progress=lambda p: files.append_line(metrics, files.canonical(vars(p))),
        on_resume=on_resume, should_stop=should_stop,
    )  # fmt: skip
    train(fresh(), DATA, objective(c), c, CPU, hooks)
    return begun[0]


def outcome(folder) -> dict[str, bytes]:
    last = folder / "ckpt" / f"{STEPS:08d}"
    return {p.name: p.read_bytes() for p in (*last.iterdir(), folder / "metrics.jsonl")}


VARIANTS = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.3, "micro_batch": 3},
        {"timestep_sampling": "importance", "emas": (0.0, 0.5, 0.9), "micro_batch": 3},
        {"flip": True},
        {"clip_ratio": 1.05},
    ],
    ids=["plain", "dropout and micro-batches", "importance and three averages", "flips", "a clip that remembers"],
)


@pytest.mark.long
@VARIANTS
def test_stopped_at_every_step_and_resumed_gives_the_same_bytes(tmp_path, changes):
    c = config(**changes)
    one_run(c, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    assert set(expected) == {
        "model.safetensors", "ema.safetensors", "optim.safetensors", files.COMMIT, "metrics.jsonl",
    }  # fmt: skip
    for step in range(STEPS):
        folder = tmp_path / str(step)
        with pytest.raises(Interrupted):
            one_run(c, folder, stop_at=step)
        assert one_run(c, folder) == step  # nothing is lost by an orderly stop
        assert outcome(folder) == expected, f"stopped after step {step}"


@pytest.mark.long
def test_crashed_at_every_step_and_resumed_gives_the_same_bytes(tmp_path):
    c = config(dropout=0.3, micro_batch=3)
    one_run(c, tmp_path / "whole")
    for step in range(STEPS):
        folder = tmp_path / str(step)
        with pytest.raises(Crash):
            one_run(c, folder, crash_at=step)
        assert one_run(c, folder) == step // 4 * 4  # back to the last checkpoint
        assert outcome(folder) == outcome(tmp_path / "whole"), f"crashed at step {step}"


@pytest.mark.long
def test_stopped_at_every_step_of_one_run_gives_the_same_bytes(tmp_path):
    c = config(dropout=0.3)
    one_run(c, tmp_path / "whole")
    for step in range(1, STEPS):
        with pytest.raises(Interrupted):
            one_run(c, tmp_path / "often", stop_at=step)
    one_run(c, tmp_path / "often")
    assert outcome(tmp_path / "often") == outcome(tmp_path / "whole")


@pytest.mark.long
def test_dropout_changes_the_outcome_and_so_does_the_seed(tmp_path):
    # Otherwise the tests above would hold of a loop that ignores both.
    for name, changes in {"a": {}, "b": {"dropout": 0.3}, "c": {"seed": 1}}.items():
        one_run(config(**changes), tmp_path / name)
    models = {outcome(tmp_path / name)["model.safetensors"] for name in "abc"}
    assert len(models) == 3


@pytest.mark.long
def test_training_leaves_the_global_random_state_out_of_it(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        one_run(config(dropout=0.3), tmp_path / name)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def drawn(monkeypatch, *, schedule, T=50, **changes):
    """Return all (x0, t, eps) that a training sees, one row an image."""
    seen = []
    real = training.q_sample

    def spy(c, x0, t, eps):
        seen.append((x0.clone(), t.clone(), eps.clone()))
        return real(c, x0, t, eps)

    with monkeypatch.context() as patch:
        patch.setattr(training, "q_sample", spy)
        c = config(**changes)
        train(fresh(), DATA, objective(c, schedule, T), c, CPU, Hooks())
    return tuple(torch.cat(parts) for parts in zip(*seen, strict=True))


def test_the_same_seed_gives_every_schedule_the_same_images_steps_and_noise(monkeypatch):
    for mine, theirs in zip(drawn(monkeypatch, schedule=Linear()), drawn(monkeypatch, schedule=Cosine()), strict=True):
        assert torch.equal(mine, theirs)


def test_another_seed_gives_other_images_steps_and_noise(monkeypatch):
    for mine, theirs in zip(
        drawn(monkeypatch, schedule=Linear()), drawn(monkeypatch, schedule=Linear(), seed=1), strict=True
    ):
        assert not torch.equal(mine, theirs)


def test_with_another_t_the_step_is_another_reading_of_the_same_u(monkeypatch):
    x0, t, eps = drawn(monkeypatch, schedule=Linear(), T=50)
    other_x0, other_t, other_eps = drawn(monkeypatch, schedule=Linear(), T=100)
    assert torch.equal(x0, other_x0)
    assert torch.equal(eps, other_eps)
    assert torch.equal(t, other_t // 2)  # floor(50 u) = floor(floor(100 u) / 2)


def test_the_stream_does_not_depend_on_the_batch_size(monkeypatch):
    small = drawn(monkeypatch, schedule=Linear(), batch_size=4, micro_batch=4, steps=12)
    large = drawn(monkeypatch, schedule=Linear(), batch_size=8, micro_batch=8, steps=6)
    for mine, theirs in zip(small, large, strict=True):
        assert torch.equal(mine, theirs)


def test_flips_mirror_half_of_the_images_others_each_time_and_nothing_else(monkeypatch):
    plain, steps, noise = drawn(monkeypatch, schedule=Linear(), steps=40)
    mirrored, same_steps, same_noise = drawn(monkeypatch, schedule=Linear(), steps=40, flip=True)
    assert torch.equal(steps, same_steps)
    assert torch.equal(noise, same_noise)
    turned = torch.tensor([torch.equal(m, p.flip(2)) for m, p in zip(mirrored, plain, strict=True)])
    left = torch.tensor([torch.equal(m, p) for m, p in zip(mirrored, plain, strict=True)])
    assert bool((turned ^ left).all())  # no image of these is its own mirror image
    assert 0.4 < turned.float().mean() < 0.6
    pictures = {}
    for was, picture in zip(turned.tolist(), plain, strict=True):
        pictures.setdefault(picture.numpy().tobytes(), set()).add(was)
    assert all(both == {True, False} for both in pictures.values())


def test_the_flips_do_not_depend_on_the_batch_size_and_do_on_the_seed(monkeypatch):
    small = drawn(monkeypatch, schedule=Linear(), batch_size=4, micro_batch=4, steps=12, flip=True)[0]
    large = drawn(monkeypatch, schedule=Linear(), batch_size=8, micro_batch=8, steps=6, flip=True)[0]
    assert torch.equal(small, large)
    numbers = torch.arange(48)
    flips = [training.uniform(training.stream_key(seed, "flip"), numbers) < 0.5 for seed in (0, 1)]
    assert not torch.equal(*flips)


def test_every_epoch_visits_every_image_once_in_another_order():
    order = Order(config(batch_size=5, micro_batch=5), 20, CPU)
    first, second = (torch.cat([order.batch(s)[0] for s in range(4 * e, 4 * e + 4)]) for e in (0, 1))
    assert sorted(first.tolist()) == list(range(20))
    assert sorted(second.tolist()) == list(range(20))
    assert not torch.equal(first, second)


def test_batches_run_across_the_ends_of_epochs():
    order = Order(config(batch_size=7, micro_batch=7), 5, CPU)
    flat = torch.cat([order.batch(s)[0] for s in range(5)])
    numbers = torch.cat([order.batch(s)[1] for s in range(5)])
    assert numbers.tolist() == list(range(35))
    for epoch in range(7):
        assert sorted(flat[5 * epoch : 5 * epoch + 5].tolist()) == list(range(5))


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    rows: dict[int, list[training.Progress]] = {}
    for size in (8, 3):
        c = config(micro_batch=size, steps=4)
        # No batch statistics here: those do differ between micro-batches.
        net = fresh()
        net.norm = nn.Identity()
        rows[size] = []
        train(net, DATA, objective(c), c, CPU, Hooks(log_every=1, on_progress=rows[size].append))
    for whole, parts in zip(rows[8], rows[3], strict=True):
        assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
        assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        # Half a cosine, 0.5 (1 + cos(pi s / 10)), times the same warm-up.
        ("cosine", [min(1, (s + 1) / 4) * 0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
    ],
)
def test_the_learning_rate_warms_up_and_decays(decay, expected):
    c = config(steps=10, warmup=4, learning_rate=2.0, lr_decay=decay)
    assert [learning_rate(c, s) for s in range(10)] == pytest.approx([2 * e for e in expected])


def test_without_warm_up_the_first_rate_is_the_full_one():
    assert learning_rate(config(warmup=0, learning_rate=0.5), 0) == 0.5


def test_the_first_step_moves_the_weights_by_the_first_rate():
    # Adam's first step is rate * g / (|g| + 1e-8): the rate itself wherever the gradient is not tiny.
    c = config(steps=1, warmup=10, learning_rate=0.1, weight_decay=0.0)
    net = fresh()
    before = net.outer.weight.detach().clone()
    train(net, DATA, objective(c), c, CPU, Hooks())
    assert (net.outer.weight - before).abs().max().item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 0.9999])
def test_the_average_follows_the_recursion(rate):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    average = ema.average_of(net)
    naive = net.weight.detach().double().numpy().copy()
    for n in range(30):
        with torch.no_grad():
            net.weight.add_(torch.randn(2, 3))
        ema.update(average, net, ema.decay_at(rate, n))
        decay = min(rate, (1 + n) / (10 + n))
        naive = decay * naive + (1 - decay) * net.weight.detach().double().numpy()
    assert average.weight.detach().numpy() == pytest.approx(naive, abs=1e-5)


def test_the_loop_averages_the_weights_after_every_step():
    weights, c = [], config()
    net = fresh()

    def look() -> bool:  # the loop asks before every step
        weights.append(net.outer.weight.detach().double().clone())
        return False

    average = train(net, DATA, objective(c), c, CPU, Hooks(should_stop=look))["0.9"]
    weights.append(net.outer.weight.detach().double())
    naive = weights[0]
    for n, w in enumerate(weights[1:]):
        decay = min(c.emas[0], (1 + n) / (10 + n))
        naive = decay * naive + (1 - decay) * w
    assert len(weights) == STEPS + 1
    torch.testing.assert_close(average.outer.weight.double(), naive, atol=1e-6, rtol=1e-5)


@pytest.mark.long
def test_several_averages_are_kept_in_one_training_and_are_those_of_trainings_of_their_own():
    c = config(emas=(0.0, 0.5, 0.9))
    net = fresh()
    together = train(net, DATA, objective(c), c, CPU, Hooks())
    assert list(together) == ["0.0", "0.5", "0.9"]
    for rate in c.emas:
        alone = train(fresh(), DATA, objective(c), replace(c, emas=(rate,)), CPU, Hooks())[repr(rate)]
        for mine, theirs in zip(together[repr(rate)].parameters(), alone.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert torch.equal(together["0.0"].outer.weight, net.outer.weight)  # no average at all
    assert not torch.equal(together["0.9"].outer.weight, net.outer.weight)


class Nothing(nn.Module):
    """Predicts t/T whatever it sees: the eps-error of an image is 1 + (t/T)^2 in the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, y=None):
        return 0 * x + self.bias + (t / 1000).reshape(-1, 1, 1, 1)


@pytest.mark.long
@pytest.mark.parametrize("choice", ["uniform", "stratified", "importance"])
def test_every_choice_of_steps_estimates_the_same_loss_and_the_better_ones_with_less_noise(choice):
    """The mean loss is that of (1 + (t/T)^2) w_t, here P2's w_t = 1 / (1 + SNR_t)."""
    seen = []
    c = config(steps=400, learning_rate=1e-9, timestep_sampling=choice, batch_size=10, micro_batch=10)
    tables = tables_for(Linear(), 50)
    zeros = fixed_log_variance(BetaTilde(), tables)
    o = build_objective(tables, P2(), zeros, decoder_log_variance(tables), c, 17, CPU)
    train(Nothing(), DATA, o, c, CPU, Hooks(log_every=1, on_progress=lambda p: seen.append((p.loss, p.eps_mse))))
    late, raw = torch.tensor(seen[100:], dtype=torch.float64).T
    alpha_bars = torch.cumprod(1 - torch.from_numpy(Linear().betas(50)), 0)
    error = 1 + (torch.arange(50) / 50) ** 2
    expected = float(((1 - alpha_bars) * error).mean())  # 1 / (1 + SNR) = 1 - alpha-bar
    assert float(late.mean()) == pytest.approx(expected, abs=4.5 * float(late.std()) / math.sqrt(len(late)))
    # The raw eps-MSE is told as of even steps too, so that it can be compared across the choices.
    assert float(raw.mean()) == pytest.approx(float(error.mean()), abs=4.5 * float(raw.std()) / math.sqrt(len(raw)))
    # 16 pixels of chi-square, ten images, and the spread of the weights, which uniform draws pay in full.
    assert float(late.std()) < {"uniform": 0.3, "stratified": 0.2, "importance": 0.22}[choice]


def test_the_average_has_no_gradients_and_takes_over_the_buffers():
    net = fresh()
    average = ema.average_of(net)
    net.norm.running_mean.fill_(3.0)
    ema.update(average, net, 0.9)
    assert not any(p.requires_grad for p in average.parameters())
    assert torch.equal(average.norm.running_mean, torch.full((4,), 3.0))
    assert not average.training


class Poisoned(Net):
    """Gives ``value`` from the given forward pass on."""

    after, value = 5, math.nan

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x, t, y=None):
        self.calls += 1
        out = super().forward(x, t)
        return out * self.value if self.calls > self.after else out


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(1, 500), (500, 1), (5, 4)])
def test_a_loss_that_is_not_finite_is_a_divergence_and_never_a_checkpoint(
    tmp_path, monkeypatch, value, log_every, checkpoint_every
):
    monkeypatch.setattr(Poisoned, "value", value)
    c = config()
    with pytest.raises(Diverged, match="step"):
        train(
            fresh(Poisoned), DATA, objective(c), c, CPU,
            Hooks(tmp_path, checkpoint_every=checkpoint_every, log_every=log_every),
        )  # fmt: skip
    found = checkpoint.newest(tmp_path)
    if found is not None:
        tensors = (*found.model.values(), *found.ema.values(), *found.optim.values())
        assert all(bool(torch.isfinite(v).all()) for v in tensors)
        assert found.step <= Poisoned.after


@pytest.mark.parametrize("log_every", [1, 2, 4, 9])
def test_a_divergence_names_the_first_step_that_is_not_finite(log_every):
    c = config()
    with pytest.raises(Diverged) as caught:
        train(fresh(Poisoned), DATA, objective(c), c, CPU, Hooks(log_every=log_every))
    calls = -(-c.batch_size // c.micro_batch)
    assert str(caught.value).endswith(f" at step {Poisoned.after // calls + 1}")


def test_a_stop_after_the_poison_does_not_save_it(tmp_path):
    c, looks = config(), iter(range(100))
    with pytest.raises(Diverged):
        train(fresh(Poisoned), DATA, objective(c), c, CPU, Hooks(tmp_path, should_stop=lambda: next(looks) == 7))
    assert checkpoint.newest(tmp_path) is None


def test_a_checkpoint_is_written_when_time_has_passed(tmp_path):
    c = config(steps=3)
    saved = []

    def look() -> bool:
        saved.append(sorted(p.name for p in tmp_path.iterdir()))
        return False

    train(fresh(), DATA, objective(c), c, CPU, Hooks(tmp_path, checkpoint_seconds=0.0, should_stop=look))
    assert saved == [[], ["00000001"], ["00000001", "00000002"]]


def test_dropout_without_a_dropout_layer_is_refused():
    with pytest.raises(DdpmkitError, match="no dropout layer"):
        training.set_dropout(nn.Linear(2, 2), 0.1)
    training.set_dropout(nn.Linear(2, 2), 0.0)


def test_progress_is_the_mean_since_the_last_report():
    rows: dict[int, list[training.Progress]] = {1: [], 5: []}
    for every, into in rows.items():
        c = config(steps=12)
        train(fresh(), DATA, objective(c), c, CPU, Hooks(log_every=every, on_progress=into.append))
    assert [p.step for p in rows[5]] == [5, 10, 12]
    single = [p.loss for p in rows[1]]
    means = [sum(single[0:5]) / 5, sum(single[5:10]) / 5, sum(single[10:12]) / 2]
    assert [p.loss for p in rows[5]] == pytest.approx(means, rel=1e-5)
    # L_simple: the loss that is minimised is the eps-MSE.
    assert [p.eps_mse for p in rows[1]] == pytest.approx(single, rel=1e-5)
