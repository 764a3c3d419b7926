"""Twenty planted mistakes in copies of the built-ins, each caught by its check; no false alarm on what is legal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddpmkit import Pool, Schedule, build
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing import checks, run_checks, summary

ENTRIES = Registry(installed=False).entries()


def copy(kind: str, text: str, /, **changed: Any) -> Any:
    """A built-in with some attributes and methods of another class; a method takes the built-in as ``of``."""
    cls = type(build(kind, text))
    methods = {k: _method(v, getattr(cls, k)) if callable(v) else v for k, v in changed.items()}
    body = {"__doc__": cls.__doc__, **methods}
    return make_dataclass("Planted", [], bases=(cls,), namespace=body, frozen=True)()


def _method(planted: Callable[..., Any], original: Any) -> Any:
    return lambda self, *args, **kw: planted(lambda *a, **k: original(self, *(a or args), **(k or kw)), *args, **kw)


class Wrapped(nn.Module):
    """A network with something wrong around it."""

    def __init__(self, net: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.net, self.around = net, forward

    def forward(self, x: Any, t: Any, y: Any = None) -> Any:
        return self.around(self.net, x, t, y)


def around(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda of, **kw: Wrapped(of(**kw), forward)


def with_batch_norm(of: Any, **kw: Any) -> nn.Module:
    net = Wrapped(of(**kw), lambda net, x, t, y: net(norm(x), t, y))
    norm = nn.BatchNorm2d(kw["in_channels"])
    net.norm = norm
    return net


def with_dead_layer(of: Any, **kw: Any) -> nn.Module:
    net = of(**kw)
    net.unused = nn.Linear(2, 2)
    return net  # type: ignore[no-any-return] # of a module


def in_place(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
    noise(0).mul_(0.5)
    return of(denoise, tables, noise)


def transposed(net: Any, x: Any, t: Any, y: Any) -> Any:
    return net(x, t, y).transpose(2, 3).contiguous().transpose(2, 3)


def wave(of: Any, T: int) -> Any:
    return of(T) * (1.5 + np.sin(np.linspace(0, 12, T))) / 3


def up_and_down(of: Any, T: int) -> Any:
    return np.minimum(of(T), of(T)[::-1])


def nan_last(of: Any, tables: Any, log_sigma2: Any) -> Any:
    return np.append(of(tables, log_sigma2)[:-1], np.nan)


def drawn(of: Any) -> Any:
    images = of()
    rng = np.random.default_rng()
    return replace(images, train=rng.permutation(images.train), labels={})


@dataclass
class NoPlace(Pool):
    places: int = 0

    def submit(self, place: int, task: Any) -> None: ...

    def poll(self, seconds: float) -> None: ...


def one_sided(of: Any, sets: Any) -> float:
    return float(sets.x.std())


PLANTED = [
    ("does-not-turn", copy("schedule", "linear", betas=wave)),
    ("does-not-turn", copy("schedule", "linear", betas=up_and_down)),
    ("least-noisy-first", copy("schedule", "linear", betas=lambda of, T: of(T)[::-1])),
    ("steps", copy("schedule", "cosine", betas=lambda of, T: of(T) - 0.01)),
    ("ends-in-its-prior", copy("schedule", "random-walk", prior_variance=lambda of, T: 1.0)),
    ("weights", copy("weighting", "simple", weights=nan_last)),
    ("declarations", copy("weighting", "vlb", uses_sigma=False)),
    ("within-bounds", copy("sigma", "beta", log_bounds=lambda of, tables: tuple(v / 2 for v in of(tables)))),
    ("from-network", copy("sigma", "learned-range", from_network=lambda of, low, high, out: high + 1 + out)),
    ("no-leak-across-the-batch", copy("backbone", "mlp", build=with_batch_norm)),
    ("uses-time", copy("backbone", "mlp", build=around(lambda net, x, t, y: net(x, 0 * t, y)))),
    ("uses-labels", copy("backbone", "mlp", build=around(lambda net, x, t, y: net(x, t)))),
    ("every-parameter-learns", copy("backbone", "mlp", build=with_dead_layer)),
    ("dtype-and-layout", copy("backbone", "mlp", build=around(lambda net, x, t, y: net(x, t, y).double()))),
    ("dtype-and-layout", copy("backbone", "mlp", build=around(transposed))),
    ("leaves-its-input", copy("sampler", "ancestral", sample=in_place)),
    ("reaches-the-data", copy("sampler", "ancestral", sample=lambda of, d, tables, n: 3 * of(d, tables, n))),
    ("loads-the-same", copy("dataset", "two-point", load=drawn, fingerprint=lambda of: "0" * 64)),
    ("fingerprint", copy("dataset", "two-point", load=drawn)),
    ("agrees-with-itself", copy("prediction", "v", divisor=lambda of, tables: 2 * of(tables))),
    ("symmetric", copy("metric", "fd", symmetric=True, value=one_sided)),
    ("better-is-better", copy("metric", "fd", better="higher")),
    ("rows", copy("features", "pixels", load=lambda of, data: lambda levels: of(data)(levels)[:-1])),
    ("opens-and-closes", copy("executor", "inline", open=lambda of, *args: NoPlace())),
    ("reference", copy("schedule", "linear", reference="")),
    ("docstring", copy("schedule", "linear", __doc__="")),
]


def failed(component: Any) -> dict[str, str]:
    return {o.check: o.seen for o in run_checks(component) if o.state == "failed"}


@pytest.mark.parametrize(("name", "component"), PLANTED, ids=[f"{c.name}-{n}" for n, c in PLANTED])
def test_a_planted_mistake_is_caught_by_name(name: str, component: Any) -> None:
    found = failed(component)
    assert name in found
    assert found[name]


def test_mistakes_are_planted_in_every_kind() -> None:
    assert len(PLANTED) >= 20
    assert {k.name for k in KINDS.values() for _, c in PLANTED if isinstance(c, k.interface)} == set(KINDS)
    known = {str(check) for kind in KINDS for check in checks(kind)}
    assert {name for name, _ in PLANTED} <= known


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.kind}-{e.name}")
def test_no_false_alarm_on_a_builtin(entry: Any) -> None:
    assert failed(entry.cls()) == {}


def stateful(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
    seen: list[Any] = []

    def remembering(x: Any, t: int) -> Any:
        seen.append(x)
        return denoise(x, t)

    return of(remembering, tables, noise)


def only_two(of: Any, T: int) -> Any:
    if T != 2:
        raise DdpmkitError("it has two steps", "--timesteps 2")
    return np.array([0.2, 0.9])


class Extra(nn.Module):
    """A network with a buffer and another output of its own, that nobody asked for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("seen", torch.zeros(()))
        self.second: Any = None

    def forward(self, x: Any, t: Any, y: Any = None) -> Any:
        out = self.net(x, t, y)
        self.second = out.detach().mean()
        return out


LEGAL = {
    "a sampler with state": copy("sampler", "ancestral", sample=stateful),
    "T=2": copy("schedule", "linear", betas=only_two),
    "non-square": build("backbone", "mlp"),
    "a learned sigma": copy("sigma", "learned", from_network=lambda of, low, high, out: low + out**3 + out),
    "an extra output": copy("backbone", "mlp", build=lambda of, **kw: Extra(of(**kw))),
}


@pytest.mark.parametrize("component", LEGAL.values(), ids=LEGAL)
def test_no_false_alarm_on_what_is_odd_but_legal(component: Any) -> None:
    assert failed(component) == {}


def test_what_a_component_raises_is_an_outcome_with_its_line() -> None:
    @dataclass(frozen=True)
    class Raising(Schedule):
        """It raises."""

        name = "raising"
        reference = "this test"

        def betas(self, T: int) -> Any:
            raise KeyError("k")

    (outcome,) = [o for o in run_checks(Raising()) if o.state == "failed"]
    assert outcome.check == "steps"
    assert "KeyError: 'k'" in outcome.seen
    assert "test_checks.py line" in outcome.hint
    assert summary([outcome]) == "1 check: 0 passed, 1 failed, 0 skipped"
    with pytest.raises(DdpmkitError, match="int is no component"):
        run_checks(1)


PLUGIN = '''
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl

@dataclass(frozen=True)
class Good(Schedule):
    """Constant betas."""
    name = "good"
    reference = "this test"
    def betas(self, T):
        import numpy as np
        return np.full(T, 0.1)

@dataclass(frozen=True)
class Bad(Good):
    name = "bad"
    def betas(self, T):
        return Good.betas(self, T) * float("nan")

@hookimpl
def ddpmkit_register_schedules():
    return [Good, Bad]
'''


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "checked.py"
    file.write_text(PLUGIN)
    assert main(["--no-plugins", "check", "cosine:s=0.01"]) == 0
    assert capsys.readouterr().out == "8 checks: 8 passed, 0 failed, 0 skipped\n"
    assert main(["--no-plugins", "check", "-p", str(file), "schedule/good"]) == 0
    capsys.readouterr()
    assert main(["--no-plugins", "check", "-p", str(file), "checked"]) == 1  # all that the plugin brings
    out = capsys.readouterr().out
    assert "failed schedule bad docstring: class Bad has no docstring" in out
    assert "failed schedule bad steps: " in out
    assert "not finite" in out
    assert out.endswith("16 checks: 11 passed, 2 failed, 3 skipped\n")
    assert main(["--no-plugins", "check", "-p", str(file), "bad", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["checks"], record["failed"], len(record["outcomes"])) == (8, 2, 8)
    assert main(["--no-plugins", "check", "cosin"]) == 2
    assert "did you mean 'cosine'?" in capsys.readouterr().err


def test_the_page_names_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    for kind in KINDS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {kind} |") and "`" in line]
        assert row == f"| {kind} | {', '.join(f'`{c}`' for c in checks(kind)[4:])} |"
