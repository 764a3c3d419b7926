"""Compiled networks: the dropout of eager ones, and eager ones again where compiling fails."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.cpp_builder import CppBuilder
from torch._inductor.exc import CppCompileError
from torch._inductor.utils import clear_caches

from ddpmkit import compiling
from ddpmkit import device as devices
from ddpmkit.compiling import compile_network, wanted
from ddpmkit.plugin import changes
from ddpmkit.randomness import seed_libraries

CPU = torch.device("cpu")


class Net(nn.Module):
    """Few kernels, and dropout and a buffer among them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop, self.outer = nn.Linear(16, 32), nn.Dropout(0.3), nn.Linear(32, 16)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, t, y=None):
        self.calls += 1
        h = torch.nn.functional.silu(self.inner(x.flatten(1))) + t[:, None] / 1000
        return self.outer(self.drop(h)).reshape(x.shape)


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    forget()
    with devices.one_thread():
        yield
    forget()


def forget() -> None:
    """Forget what was compiled, in torch's memory too, as another process would know nothing of it."""
    torch._dynamo.reset()
    clear_caches()
    counters.clear()


def fresh() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Net()


def fail(monkeypatch) -> None:
    """Let no C++ be compiled; torch would remember a compiler that is none for the rest of the process."""

    def build(builder) -> None:
        raise CppCompileError(["c++"], "no room left\non the disk")

    monkeypatch.setattr(CppBuilder, "build", build)


SHOWN = [(torch.zeros(64, 1, 4, 4), torch.zeros(64))]


@pytest.mark.long
def test_a_compiled_network_drops_what_the_eager_one_drops_and_is_left_as_it_was():
    eager, net = fresh(), fresh()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert compile_network(net, SHOWN, learns=True) is None
    assert torch.equal(torch.random.get_rng_state(), before)
    assert net.calls == 0
    assert all(p.grad is None for p in net.parameters())
    assert copy.deepcopy(net)._compiled_call_impl is None  # the averages are eager, and hold the same names
    assert list(net.state_dict()) == list(eager.state_dict())
    x, t, out = torch.randn(64, 1, 4, 4), torch.rand(64) * 1000, []
    x = x.as_strided(x.shape, (16, 1, 4, 1))  # one channel, channels last, as a walk comes by it
    for each in (eager, net):
        seed_libraries(0, "dropout", 5)
        out.append(each(x, t))
        out[-1].square().mean().backward()
    assert counters["stats"]["unique_graphs"] == 1  # what was tried is what runs
    torch.testing.assert_close(out[1], out[0], rtol=1e-4, atol=1e-6)
    for a, b in zip(eager.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.long
def test_a_compiler_that_fails_leaves_the_network_eager(monkeypatch):
    fail(monkeypatch)
    net, eager = fresh(), fresh()
    failure = compile_network(net, SHOWN, learns=True)
    assert failure
    assert "\n" not in failure
    assert net.calls == 0
    seed_libraries(0, "dropout", 5)
    a = net(*SHOWN[0])
    seed_libraries(0, "dropout", 5)
    assert torch.equal(a, eager(*SHOWN[0]))


@pytest.mark.long
def test_half_a_library_of_a_killed_process_is_compiled_again_and_plugins_may_be_here(tmp_path):
    assert compile_network(fresh(), SHOWN, learns=False) is None
    libraries = list((tmp_path / "compiled").rglob("*.so"))
    assert libraries
    for path in libraries:
        path.unlink()  # it is open in this process: another file takes its name
        path.write_bytes(b"half")
    forget()
    with changes.left_alone():  # torch.compile's own marks are no plugin's
        assert compile_network(fresh(), SHOWN, learns=False) is None


def test_auto_compiles_where_the_work_takes_twenty_times_as_long_and_a_compiler_is_here(monkeypatch):
    net = fresh()  # two layers: three seconds
    enough = 20 * 3 * compiling.RATES["cpu"]
    monkeypatch.setattr(compiling, "has_compiler", lambda device: True)
    assert wanted("auto", net, lambda: 1.01 * enough, CPU, learns=True)
    assert not wanted("auto", net, lambda: 0.99 * enough, CPU, learns=True)
    assert wanted("auto", net, lambda: 0.51 * enough, CPU, learns=False)  # forwards alone takes half as long
    assert not wanted("auto", net, lambda: 1e30, torch.device("mps"), learns=True)
    monkeypatch.setattr(compiling, "has_compiler", lambda device: False)
    assert not wanted("auto", net, lambda: 1e30, CPU, learns=True)
    assert wanted("on", net, lambda: 0.0, CPU, learns=True)
    assert not wanted("off", net, lambda: 1e30, CPU, learns=True)


def test_a_compiler_that_is_not_here_is_seen(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert not compiling.has_compiler(CPU)


def test_compiled_code_is_kept_outside_of_results(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiling.cache_folder() == tmp_path / "ddpmkit" / "compiled"
