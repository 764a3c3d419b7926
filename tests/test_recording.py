"""Replays of a network give what the network gives: walks and likelihoods by a tape, bit for bit."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

import ddpmkit
from ddpmkit import device as devices
from ddpmkit import recording
from ddpmkit.diffusion.denoise import predictor
from ddpmkit.diffusion.guidance import guided
from ddpmkit.diffusion.labels import labels_of_samples
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.likelihood.ask import draw
from ddpmkit.pixels import to_pixels
from ddpmkit.recording import RecordingError, Replayed, replayed, same
from ddpmkit.sampling import sample, with_sigma
from ddpmkit.tape import Tape

CPU, CLASSES = torch.device("cpu"), 3
EPS = ddpmkit.build("prediction", "eps")
TABLES = tables_for(ddpmkit.build("schedule", "linear"), 40)


@pytest.fixture(autouse=True)
def _one_thread():
    with devices.one_thread():
        yield


@pytest.fixture
def tapes(monkeypatch):
    """Every recording is a tape; they are listed."""
    made = []

    def recorder(device):
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(recording, "recorder", recorder)
    return made


class Net(nn.Module):
    """Counts how often Python runs it; draws when it is told to, as a network with noise of its own does."""

    def __init__(self, outputs: int = 1, noisy: float = 0.0) -> None:
        super().__init__()
        self.conv, self.time, self.label = (
            nn.Conv2d(1, outputs, 3, padding=1),
            nn.Linear(1, outputs),
            nn.Embedding(4, 1),
        )
        self.noisy, self.calls = noisy, 0

    def forward(self, x, t, y=None):
        self.calls += 1
        out = self.conv(x) + self.time(t[:, None] / 1000)[:, :, None, None]
        out = out if y is None else out + self.label(y)[:, :, None, None]
        return out + self.noisy * torch.randn_like(out) if self.noisy else out


def network(**kinds) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Net(**kinds).eval()


def drawn(net, spec, *, wrapped, kind="beta", guidance=0.0):
    chain = TABLES.strided(range(0, 40, 3))
    sigma = ddpmkit.build("sigma", kind)
    predict = predictor(net, chain, EPS, CPU, sigma, none=CLASSES)
    predict = guided(replayed(predict, "the network") if wrapped else predict, guidance)
    return sample(
        with_sigma(predict, None if sigma.learned else np.full(14, 0.1)),
        chain,
        ddpmkit.build("sampler", spec),
        count=11,
        shape=(1, 4, 4),
        levels=256,
        seed=3,
        micro_batch=4,
        device=CPU,
        label_of=labels_of_samples("balanced", np.arange(CLASSES), CLASSES, 0) if guidance else None,
    )


WALKS = ["ancestral", "ddim:eta=1", "ddim:rederive=false", "dpm-solver++:clip=none"]


@pytest.mark.parametrize("kind", ["beta", "learned-range"])
@pytest.mark.parametrize("spec", WALKS)
def test_a_walk_of_replays_is_the_walk(tapes, monkeypatch, spec, kind):
    nets = [network(outputs=2 if kind != "beta" else 1) for _ in range(2)]
    replays = drawn(nets[0], spec, wrapped=True, kind=kind)
    assert max(tape.replays for tape in tapes) > 30
    with monkeypatch.context() as patch:
        patch.setattr(recording, "recorder", lambda device: None)
        assert torch.equal(replays, drawn(nets[1], spec, wrapped=False, kind=kind))
    assert nets[1].calls == 3 * 14
    # Two calls as it is, one to warm up, one that is recorded, two that are held against it: and then none.
    assert nets[0].calls == 6


def test_a_guided_walk_of_replays_is_the_walk(tapes):
    replays = drawn(network(), "ancestral", wrapped=True, guidance=2.0)
    assert torch.equal(replays, drawn(network(), "ancestral", wrapped=False, guidance=2.0))


def test_a_network_that_draws_is_replayed_with_its_own_draws(tapes, capsys):
    replays, plain = (drawn(network(noisy=0.5), "ddim", wrapped=wrapped) for wrapped in (True, False))
    assert torch.equal(replays, plain)
    assert capsys.readouterr().err == ""


def test_an_answer_that_is_kept_is_the_callers_own(tapes, monkeypatch):
    right = drawn(network(), "dpm-solver++:clip=none", wrapped=False)
    monkeypatch.setattr(recording, "_own", lambda out: out)  # the mistake
    assert not torch.equal(drawn(network(), "dpm-solver++:clip=none", wrapped=True), right)


def test_a_likelihood_of_replays_is_the_likelihood(tapes, monkeypatch):
    images = to_pixels(torch.arange(6 * 16).remainder(17).to(torch.uint8).reshape(6, 1, 4, 4), 17)

    def ask(net, wrapped):
        predict = predictor(net, TABLES, EPS, CPU)
        predict = replayed(predict, "the network") if wrapped else predict
        answers = draw(predict, TABLES, images=images, pilot=images, levels=17, evaluations=4000, micro_batch=64)
        return answers.arrays()

    nets = network(), network()
    mine, theirs = ask(nets[0], True), ask(nets[1], False)
    assert all(np.array_equal(mine[k], theirs[k], equal_nan=True) for k in theirs)
    assert nets[0].calls == 6 < nets[1].calls


def twice(x):
    return 2 * x


def test_gradients_are_not_asked_of_a_replay(tapes):
    function, x = replayed(twice, "it"), torch.ones(3, requires_grad=True)
    for _ in range(8):
        function(x).sum().backward()
    assert tapes == []
    torch.testing.assert_close(x.grad, torch.full((3,), 16.0))


@torch.no_grad()
def test_only_so_many_shapes_are_recorded(tapes):
    function = replayed(twice, "it")
    for size in range(1, Replayed.MOST + 3):
        for value in range(6):
            assert torch.equal(function(torch.full((size,), float(value))), torch.full((size,), 2.0 * value))
    assert len(function.recordings) == Replayed.MOST


class Counts:
    """A planted mistake: what it gives hangs on a Python number that changes."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x * self.calls


def waits(x):
    """A planted mistake: it reads a number of a tensor."""
    return x * x.sum().item()


@torch.no_grad()
@pytest.mark.parametrize(
    ("function", "why"), [(Counts(), "its replay gives other numbers than it does"), (waits, "it waits for the device")]
)
def test_a_function_that_cannot_be_replayed_is_called_as_it_is(tapes, capsys, function, why):
    guarded = replayed(function, "the network")
    for value in range(1, 8):
        assert guarded(torch.full((3,), float(value))).shape == (3,)
    assert guarded.refused
    assert capsys.readouterr().err == (
        f"warning: the network is not recorded as a CUDA graph and takes longer: {why}\n"
    )


def test_without_a_gpu_nothing_is_recorded():
    assert recording.recorder(CPU) is None
    assert recording.recorder(torch.device("meta")) is None


def test_bits_and_not_numbers_are_compared():
    nan, zero = torch.tensor([float("nan")]), torch.tensor([0.0])
    assert same([nan], [nan.clone()])
    assert not same([zero], [-zero])
    four = torch.zeros(2, 3, 4, 4)
    assert same([four], [four.to(memory_format=torch.channels_last)])
    assert not same([zero], [torch.zeros(2)])


class Cuda:
    """In the place of torch.cuda: writes down what it is asked for."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.stub = {
            "Stream": lambda device: self,
            "graph_pool_handle": lambda: (0, 1),
            "current_stream": lambda device: self,
            "stream": lambda stream: contextlib.nullcontext(),
            "get_sync_debug_mode": lambda: 0,
            "set_sync_debug_mode": lambda mode: self.asked.append(f"waiting {mode}"),
            "CUDAGraph": lambda: self,
            "graph": lambda graph, pool, stream: contextlib.nullcontext(),
        }
        for name, value in self.stub.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def wait_stream(self, other):
        self.asked.append("streams meet")

    def replay(self):
        self.asked.append("replay")


@pytest.fixture
def cuda(monkeypatch):
    before = torch.are_deterministic_algorithms_enabled()
    yield Cuda(monkeypatch)
    torch.use_deterministic_algorithms(before)


def test_what_is_recorded_on_cuda_has_run_there_without_waiting(cuda):
    recorder = recording.CudaGraphs(torch.device("cuda"))
    recorder.warm(lambda: cuda.asked.append("run"))
    replay = recorder.record(lambda: cuda.asked.append("captured"))
    replay()
    assert cuda.asked == [
        "streams meet", "run", "waiting error", "run", "waiting 0", "streams meet", "captured", "replay",
    ]  # fmt: skip


def test_code_that_waits_on_cuda_is_refused_and_waiting_is_allowed_again(cuda):
    def run():
        if "waiting error" in cuda.asked:
            raise RuntimeError("called a synchronizing CUDA operation\nmore")

    recorder = recording.CudaGraphs(torch.device("cuda"))
    with pytest.raises(RecordingError, match=r"^called a synchronizing CUDA operation$"):
        recorder.warm(run)
    assert cuda.asked[-1] == "waiting 0"

    def fails():
        raise RuntimeError("out of memory")

    with pytest.raises(RecordingError, match="out of memory"):
        recorder.record(fails)


def test_a_kernel_without_a_deterministic_form_runs_with_a_warning(cuda, capsys):
    def run():
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError("this_kernel does not have a deterministic implementation\nmore")

    recorder = recording.CudaGraphs(torch.device("cuda"))
    with pytest.raises(RuntimeError, match="this_kernel"):
        recorder.warm(run)  # outside of the mode it is any error
    torch.use_deterministic_algorithms(True)
    recorder.warm(run)
    assert recorder.caveat == ", not deterministic"
    assert "this_kernel does not have a deterministic implementation" in capsys.readouterr().err


def test_stages_on_cuda_run_in_deterministic_mode_and_nothing_else_does():
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with devices.reproducible(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory  # which writes every new tensor
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == filled
    with devices.reproducible(CPU):
        assert not torch.are_deterministic_algorithms_enabled()


@torch.no_grad()
def test_a_function_that_differs_from_itself_is_not_said_to_be_replayed_wrongly(monkeypatch, capsys):
    class Doubted(Tape):
        caveat = ", not deterministic"

    monkeypatch.setattr(recording, "recorder", lambda device: Doubted())
    guarded = replayed(Counts(), "the network")
    for value in range(1, 8):
        guarded(torch.full((3,), float(value)))
    assert "takes longer: it differs from itself" in capsys.readouterr().err


@torch.no_grad()
def test_each_layout_has_a_recording_of_its_own(tapes):
    function, x = replayed(twice, "it"), torch.ones(2, 3, 4, 4)
    for form in (torch.contiguous_format, torch.channels_last):
        for _ in range(6):
            function(x.to(memory_format=form))
    assert len(tapes) == 2


def test_noise_of_one_kernel_is_not_recorded(tapes, monkeypatch):
    eager = drawn(network(), "ancestral", wrapped=False)
    assert len(tapes) == 1
    monkeypatch.setattr("ddpmkit.sampling.fused", lambda device: True)
    assert torch.equal(drawn(network(), "ancestral", wrapped=False), eager)
    assert len(tapes) == 1


def test_after_a_capture_that_failed_the_generator_draws_again(cuda, monkeypatch):
    class Generator:
        def clone_state(self):
            return "a state that is not captured"

        def graphsafe_set_state(self, state):
            cuda.asked.append(state)

    def fails():
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.cuda, "default_generators", (Generator(),))
    with pytest.raises(RecordingError, match="out of memory"):
        recording.CudaGraphs(torch.device("cuda:0")).record(fails)
    assert cuda.asked == ["a state that is not captured"]
