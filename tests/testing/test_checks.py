"""Planted mistakes in copies of the built-ins, each caught by its check; no false alarm on what is legal."""

from __future__ import annotations

import enum
import functools
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ddpmkit import Measurement, Pool, Schedule, build, run_one
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.interfaces import KINDS, SPLITS
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


# More of them, kind by kind.


def seeding(of: Any, *args: Any, **kw: Any) -> Any:
    np.random.seed(0)
    return of(*args, **kw)


def of_double(of: Any, T: int) -> Any:
    torch.set_default_dtype(torch.float64)
    return of(T)


def by_length() -> Callable[..., Any]:
    """What is kept by T alone, so that another chain of that length gets it."""
    known: dict[int, Any] = {}
    return lambda of, tables, *args: known.setdefault(tables.T, of(tables, *args))


def net(forward: Callable[..., Any]) -> Any:
    return copy("backbone", "mlp", build=around(forward))


class Held(nn.Module):
    """A network that multiplies its input with a tensor of its own."""

    def __init__(self, net: nn.Module, factor: Any, *, buffer: bool = False, moved: bool = False) -> None:
        super().__init__()
        self.net, self.moved = net, moved
        if buffer:
            self.register_buffer("factor", factor, persistent=False)
        else:
            self.factor = factor

    def forward(self, x: Any, t: Any, y: Any = None) -> Any:
        return self.net(x * (self.factor.to(x) if self.moved else self.factor), t, y)


def held(factor: Callable[[], Any], **kw: Any) -> Any:
    return copy("backbone", "mlp", build=lambda of, **k: Held(of(**k), factor(), **kw))


def shared() -> Callable[..., Any]:
    built: dict[str, Any] = {}
    return lambda of, **kw: built.setdefault(str(kw), of(**kw))


def walk(
    *,
    noise_of: Callable[[int, int], int] = lambda k, t: k + 1,
    sigma: Callable[[Any], Any] = lambda s: s,
    start: Callable[[Any, Any], Any] = lambda n, tables: n(0) * tables.prior_variance**0.5,
    factors: Callable[[Any], Any] = lambda tables: (tables.posterior_x0, tables.posterior_xt),
    x0: Callable[[Any], Any] = lambda x0: x0,
    last: int = 0,
    quiet_end: bool = True,
    asked: Callable[[int, int], int] = lambda t, T: t,
) -> Any:
    """Ancestral sampling with something changed in it."""

    def sample(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
        on_x0, on_xt = (v.tolist() for v in factors(tables))
        x = start(noise, tables)
        for k, t in enumerate(range(tables.T - 1, last - 1, -1)):
            denoised = denoise(x, asked(t, tables.T))
            x = on_x0[t] * x0(denoised.x0.clamp(-1, 1)) + on_xt[t] * x
            if t or not quiet_end:
                x = x + sigma(denoised.sigma) * noise(noise_of(k, t))
        return x

    return copy("sampler", "ancestral", sample=sample)


def changed(change: Callable[[Any], dict[str, Any]], text: str = "digits") -> Any:
    """A data set with some of its images or labels changed."""
    outlined = {"outline": lambda of: None} if text == "digits" else {}
    return copy("dataset", text, load=lambda of: replace(images := of(), **change(images)), **outlined)


def of_every_split(change: Callable[[Any], Any], **more: Any) -> Callable[[Any], dict[str, Any]]:
    return lambda i: {**{s: change(getattr(i, s)) for s in ("train", "validation", "test")}, **more}


def relabelled(change: Callable[[str, Any], Any]) -> Any:
    return changed(lambda i: {"labels": {k: change(k, v) for k, v in i.labels.items()}})


def permuted(array: Any) -> Any:
    return np.random.default_rng(0).permutation(array)


def features(around: Callable[[Any], Any], text: str = "pixels") -> Any:
    return copy("features", text, load=lambda of, data: around(of(data)))


def gap(sets: Any) -> Any:
    return np.square(sets.x.mean(0) - sets.mu).sum()


def metric(value: Callable[[Any], Any], **kw: Any) -> Any:
    return copy("metric", "fd", value=lambda of, sets: value(sets), **kw)


def measured(change: Callable[[Any], Any]) -> Any:
    """How far the first feature's mean is off, its influences changed."""

    def value(sets: Any) -> Measurement:
        first = sets.x[:, 0] - sets.mu[0]
        return Measurement(abs(first.mean()), influence=change(np.sign(first.mean()) * (first - first.mean())))

    return metric(value)


def paired(sets: Any) -> float:
    n = min(len(sets.x), len(sets.y))
    return float(np.abs(sets.x[:n] - sets.y[:n]).mean())


def of_seeded_part(sets: Any) -> float:
    np.random.seed(0)
    return float(np.square(sets.x[np.random.permutation(len(sets.x))[: len(sets.x) // 2]].mean(0) - sets.mu).sum())


class Queue(Pool):
    """An executor's pool, right in all that a mistake does not change."""

    places = 1

    def __init__(self, job: Any, emit: Any, should_stop: Any) -> None:
        self.job, self.emit, self.should_stop, self.waiting = job, emit, should_stop, []

    def submit(self, place: int, task: Any) -> None:
        self.waiting.append(task)

    def poll(self, seconds: float) -> None:
        while self.waiting:
            self.one(self.waiting.pop())

    def one(self, task: Any) -> None:
        self.end(task, self.run(task))

    def run(self, task: Any) -> str:
        return run_one(self.job, task, self.emit, self.should_stop)

    def end(self, task: Any, state: str) -> None:
        self.emit({"event": "end", "stage": task.id, "state": state})


def pool(**changed: Any) -> Any:
    return copy("executor", "inline", open=lambda of, *args: type("Planted", (Queue,), changed)(*args))


def in_a_thread(self: Any, task: Any) -> None:
    thread = threading.Thread(target=lambda: self.end(task, "failed"))
    thread.start()
    thread.join()


PLANTED += [
    ("leaves-the-process-alone", copy("schedule", "linear", betas=seeding)),
    ("leaves-the-process-alone", copy("schedule", "linear", betas=of_double)),
    ("keeps-chains-apart", copy("sigma", "beta", log_bounds=by_length())),
    (
        "leaves-its-input",
        copy("sigma", "learned-range", from_network=lambda of, a, b, out: of(a, b, out.detach().mul_(2)) + 0 * out),
    ),
    (
        "no-leak-across-the-batch",
        copy("sigma", "learned-range", from_network=lambda of, a, b, out: of(a, b, out - out.mean(0))),
    ),
    ("from-network", copy("sigma", "learned-range", from_network=lambda of, a, b, out: of(a, b, out).double())),
    ("x0-variance", copy("sigma", "optimal", x0_variance=lambda of, tables, s: np.sqrt(of(tables, s)))),
    ("x0-variance", copy("sigma", "analytic", x0_variance=lambda of, tables, s: 1 - s["eps_squared"])),
    ("weights", copy("weighting", "simple", weights=lambda of, tables, v: of(tables, v) / tables.snr)),
    ("weights", copy("weighting", "simple", weights=lambda of, tables, v: np.sqrt(1 - tables.betas))),
    ("declarations", copy("weighting", "simple", uses_sigma=True)),
    (
        "leaves-its-input",
        copy("weighting", "simple", weights=lambda of, tables, v: of(tables, np.multiply(v, 2, out=v))),
    ),
    ("keeps-chains-apart", copy("weighting", "simple", weights=by_length())),
    ("uses-time", net(lambda net, x, t, y: net(x, torch.where(t < 100, 0 * t, t), y))),
    ("uses-time", net(lambda net, x, t, y: net(x, t.clamp(max=500), y))),
    ("uses-time", net(lambda net, x, t, y: net(x, t % 100, y))),
    ("no-leak-across-the-batch", net(lambda net, x, t, y: net(x, t[:1].expand(len(x)), y))),
    ("no-leak-across-the-batch", net(lambda net, x, t, y: net(x / x.std(), t, y))),
    ("takes-any-batch", net(lambda net, x, t, y: net(x, t, y) * len(x))),
    ("takes-any-batch", net(lambda net, x, t, y: net(x, t, y) + torch.arange(len(x)).reshape(-1, 1, 1, 1))),
    ("takes-any-batch", net(lambda net, x, t, y: net(x, t, y).squeeze(0))),
    ("repeats-itself", net(lambda net, x, t, y: F.dropout(net(x, t, y), 0.1))),
    ("repeats-itself", held(lambda: torch.randn(()))),
    ("repeats-itself", held(lambda: torch.randn(()), buffer=True)),
    ("repeats-itself", copy("backbone", "mlp", build=shared())),
    ("moves-to-a-device", held(lambda: torch.full((1, 1, 1, 1), 2.0))),
    ("uses-its-input", net(lambda net, x, t, y: net(x[:, :1].expand_as(x), t, y))),
    (
        "uses-its-input",
        net(lambda net, x, t, y: F.pad(out := net(x, t, y)[:, :3], (0,) * 5 + (net(x, t, y).shape[1] - out.shape[1],))),
    ),
    (
        "tells-labels-apart",
        net(lambda net, x, t, y: net(x, t, None if y is None else torch.where(y == 3, y, y.clamp(max=1)))),
    ),
    ("leaves-the-process-alone", copy("backbone", "mlp", build=lambda of, **kw: (torch.manual_seed(0), of(**kw))[1])),
    ("passes-a-gradient", copy("prediction", "eps", x0hat=lambda of, at, xt, out: of(at, xt, out.detach()))),
    ("passes-a-gradient", copy("prediction", "eps", x0hat=lambda of, at, xt, out: of(at, xt.double(), out.double()))),
    ("asks-for-each-noise-once", walk(noise_of=lambda k, t: k)),
    ("asks-for-each-noise-once", walk(noise_of=lambda k, t: t)),
    ("reaches-the-data", walk(noise_of=lambda k, t: 1)),
    ("reaches-the-data", walk(sigma=lambda s: 0.7 * s)),
    (
        "reaches-the-data",
        copy("sampler", "ancestral", kernel=lambda of, tables: (np.sqrt(of(tables)[0]), of(tables)[1])),
    ),
    ("ends-without-noise", walk(quiet_end=False)),
    ("ends-without-noise", walk(last=1)),
    (
        "ends-without-noise",
        walk(factors=lambda tables: (np.roll(tables.posterior_x0, 1), np.roll(tables.posterior_xt, 1))),
    ),
    ("stays-on-the-chain", walk(start=lambda n, tables: n(0))),
    ("stays-on-the-chain", walk(start=lambda n, tables: 0 * n(0))),
    ("stays-on-the-chain", walk(asked=lambda t, T: min(t + 1, T - 1))),
    ("takes-a-sigma-of-pixels", walk(sigma=float)),
    ("no-leak-across-the-batch", walk(x0=lambda x0: x0 / x0.abs().max().clamp(min=0.5) / 2)),
    ("walk", copy("sampler", "ancestral", sample=lambda of, *args: of(*args).double())),
    (
        "timesteps",
        copy("sampler", "ancestral", timesteps=lambda of, T, n: [round(k * (T - 1) / (n - 1)) for k in range(n)]),
    ),
    ("splits-are-apart", changed(lambda i: {"test": np.concatenate([i.train[800:], i.test[100:]])})),
    ("splits-are-apart", changed(lambda i: {"validation": i.train[:100]})),
    ("labels", changed(lambda i: {"train": permuted(i.train)})),
    ("labels", relabelled(lambda split, v: permuted(v) if split == "test" else v)),
    ("labels", relabelled(lambda split, v: (v + 1) % 10 if split == "test" else v)),
    ("labels", relabelled(lambda split, v: v + 1)),
    ("labels", changed(lambda i: {"classes": tuple("012345678")})),
    ("levels-and-axes", changed(lambda i: {"levels": 256})),
    ("levels-and-axes", changed(of_every_split(lambda v: (v / 17).astype(np.uint8)))),
    ("levels-and-axes", changed(lambda i: {"test": 16 - i.test})),
    ("levels-and-axes", changed(of_every_split(lambda v: v.transpose(0, 2, 3, 1)))),
    ("leaves-the-process-alone", copy("dataset", "digits", load=seeding)),
    (
        "repeats-itself",
        features(
            lambda f: (
                lambda v: np.concatenate([f(v[k : k + 16]) - f(v[k : k + 16]).mean() for k in range(0, len(v), 16)])
            )
        ),
    ),
    ("repeats-itself", features(lambda f: lambda v: f(v) / v.max())),
    ("rows", features(lambda f: lambda v: np.squeeze(f(v)))),
    ("rows", features(lambda f: lambda v: f(v) / f(v).sum(1, keepdims=True))),
    ("leaves-its-input", features(lambda f: lambda v: f(np.maximum(v, 1, out=v)))),
    ("fingerprint-tells", copy("features", "pca", fingerprint=lambda of: "pca")),
    ("label-and-fingerprint", copy("features", "pixels", fingerprint=lambda of: str(hash("pixels")))),
    ("label-and-fingerprint", copy("features", "pixels", label=lambda of: "pixels, all")),
    ("leaves-the-process-alone", copy("features", "pixels", load=seeding)),
    ("does-not-depend-on-order", metric(paired, needs=("features",))),
    ("takes-what-it-says", metric(lambda s: float(gap(s) / gap(s)) + float(gap(s)))),
    (
        "takes-what-it-says",
        metric(lambda s: float(np.square(np.sort(s.x, 0) - np.sort(s.y, 0)).mean()), needs=("features",)),
    ),
    ("takes-what-it-says", copy("metric", "precision", why_not=lambda of, *args: None)),
    ("influence", measured(lambda v: v / len(v) ** 0.5)),
    ("influence", measured(np.sort)),
    ("influence", measured(lambda v: -v)),
    ("looks-at-the-samples", metric(lambda s: float(np.trace(s.cov)))),
    ("leaves-the-process-alone", metric(of_seeded_part)),
    ("reports-each-end-once", pool(one=lambda self, task: (self.run(task), self.end(task, "done")))),
    ("reports-each-end-once", pool(one=lambda self, task: self.end(task, "done"))),
    ("reports-each-end-once", pool(run=lambda self, task: (Queue.run(self, task), Queue.run(self, task))[1])),
    ("reports-each-end-once", pool(one=lambda self, task: (self.end(task, "failed"), self.end(task, "failed")))),
    ("reports-each-end-once", pool(one=lambda self, task: self.run(task), places=1)),
    ("reports-each-end-once", pool(one=lambda self, task: self.end(task, "error"))),
    ("reports-each-end-once", pool(one=in_a_thread)),
]


def failed(component: Any) -> dict[str, str]:
    return {o.check: o.seen for o in run_checks(component) if o.state == "failed"}


@pytest.mark.parametrize(("name", "component"), PLANTED, ids=[f"{c.name}-{n}-{k}" for k, (n, c) in enumerate(PLANTED)])
def test_a_planted_mistake_is_caught_by_name(name: str, component: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpmkit.testing.executor.PATIENCE", 2.0)  # for one that never says how a stage ended
    found = failed(component)
    assert name in found
    assert found[name]


def test_mistakes_are_planted_in_every_kind() -> None:
    assert len(PLANTED) >= 100
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


class DropPath(nn.Module):
    """A network whose answer for some images is left out, in training."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any, t: Any, y: Any = None) -> Any:
        out = self.net(x, t, y)
        return out * (torch.rand(len(x), 1, 1, 1) > 0.1) if self.training else out


def beforehand(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
    known = {k: noise(k) for k in range(tables.T, -1, -1)}
    return of(denoise, tables, lambda k: known[k])


def preserving(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
    if not tables.variance_preserving:
        raise DdpmkitError("it is for variance-preserving chains", "another schedule")
    return of(denoise, tables, noise)


def heun(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
    signal, deviation = tables.signal.tolist(), (tables.noise2**0.5).tolist()
    x = noise(0) * tables.prior_variance**0.5
    for t in range(tables.T - 1, 0, -1):
        first = denoise(x, t).x0
        eps = (x - signal[t] * first) / deviation[t]
        second = denoise(y := signal[t - 1] * first + deviation[t - 1] * eps, t - 1).x0
        other = (y - signal[t - 1] * second) / deviation[t - 1]
        x = signal[t - 1] * (first + second) / 2 + deviation[t - 1] * (eps + other) / 2
    return denoise(x, 0).x0


def of_layer(f: Any) -> Any:
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 256).reshape(4, 64))
        layer.bias.zero_()
    return lambda v: layer(torch.from_numpy(f(v)).float()).detach().numpy()


def of_the_whole_image(sigma: Any) -> Any:
    """As a corrector does that takes its step from a norm: each pixel's depends on those of all others."""
    if not isinstance(sigma, torch.Tensor):
        return sigma
    images = sigma.flatten(1)
    return sigma * (images.square().mean(1).sqrt() / images.mean(1))[:, None, None, None]


def tried_first(of: Any, denoise: Any, tables: Any, noise: Any) -> Any:
    """As a walk does that is solved for all steps at once: it asks about each step with x_T before anything else."""
    first = noise(0)
    for t in range(tables.T):
        denoise(first * tables.prior_variance**0.5, t)
    return of(denoise, tables, lambda k: noise(k) if k else first)


@functools.cache
def frozen() -> nn.Module:
    return nn.Conv2d(3, 3, 1).requires_grad_(False)


class Checkpointed(nn.Module):
    """A network whose forward pass is made again for the gradient, beside fixed weights that all networks share."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.fixed = net, frozen()

    def forward(self, x: Any, t: Any, y: Any = None) -> Any:
        x = x + self.fixed(x).mean((1, 2, 3), keepdim=True) if x.shape[1] == 3 else x
        if not x.requires_grad:
            return self.net(x, t, y)
        return checkpoint(self.net, x, t, y, use_reentrant=True)


@functools.cache
def a_picture_a_class() -> Any:
    """Forty people, ten pictures of each: eight in training, one in each of the other splits."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, 17, (40, 1, 8, 8))
    seen = {s: np.clip(np.repeat(people, n, 0) + rng.integers(-1, 2, (40 * n, 1, 8, 8)), 0, 16) for s, n in PEOPLE}
    labels = {s: np.repeat(np.arange(40), n) for s, n in PEOPLE}
    return {**{s: v.astype(np.uint8) for s, v in seen.items()}, "labels": labels, "classes": ()}


PEOPLE = (("train", 8), ("validation", 1), ("test", 1))


def named_by_enum(of: Any) -> str:
    return {Model.SMALL: "small weights"}[Model("small")]


class Model(enum.Enum):
    SMALL = "small"


def log_distance(sets: Any) -> float:
    squared = float(np.square(sets.x.mean(0) - sets.mu).sum())
    return math.log10(squared) if squared else -math.inf


def share_of_two_kinds(sets: Any) -> float:
    if len(np.unique(sets.x, axis=0)) < 2:
        raise ValueError("all samples are alike")
    return 0.5


LEGAL = {
    "a step from a norm": walk(sigma=of_the_whole_image),
    "steps that are asked about beforehand": copy("sampler", "ancestral", sample=tried_first),
    "a network that is run again for its gradient": copy(
        "backbone", "mlp", build=lambda of, **kw: Checkpointed(of(**kw))
    ),
    "one embedding for ten times": net(lambda net, x, t, y: net(x, (t / 10).floor(), y)),
    "classes that training lacks": relabelled(lambda split, v: v % 5 + 5 * (split == "test")),
    "a picture a class": changed(lambda i: a_picture_a_class()),
    "signals of twelve channels": changed(
        lambda i: {**{s: permuted(np.tile(getattr(i, s), (1, 12, 16, 1)))[..., :1] for s in SPLITS}, "labels": {}}
    ),
    "a fingerprint by an enum": copy("features", "pixels", fingerprint=named_by_enum),
    "weights of the first half": copy(
        "weighting", "simple", weights=lambda of, tables, v: (np.arange(tables.T) < (tables.T + 1) // 2).astype(float)
    ),
    "learned between two numbers": copy(
        "sigma", "learned", log_bounds=lambda of, tables: (np.full(tables.T, -20.0), np.full(tables.T, 2.0))
    ),
    "a logarithm": metric(log_distance),
    "a share that raises where all are alike": metric(share_of_two_kinds, better="none"),
    "a sampler with state": copy("sampler", "ancestral", sample=stateful),
    "T=2": copy("schedule", "linear", betas=only_two),
    "non-square": build("backbone", "mlp"),
    "a learned sigma": copy("sigma", "learned", from_network=lambda of, low, high, out: low + out**3 + out),
    "an extra output": copy("backbone", "mlp", build=lambda of, **kw: Extra(of(**kw))),
    "drops out in training": copy("backbone", "mlp", build=lambda of, **kw: DropPath(of(**kw))),
    "a tensor that forward moves": held(lambda: torch.full((1, 1, 1, 1), 2.0), moved=True),
    "a table of whole times": net(lambda net, x, t, y: net(x, t.floor(), y)),
    "noise that is asked for beforehand": copy("sampler", "ancestral", sample=beforehand),
    "variance-preserving chains alone": copy("sampler", "ancestral", sample=preserving),
    "a second-order walk": copy("sampler", "ddim", sample=heun),
    "a quantile of each image": build("sampler", "ancestral:clip=dynamic"),
    "two channels": changed(of_every_split(lambda v: np.concatenate([v, v], 1))),
    "vectors": changed(of_every_split(lambda v: v.reshape(-1, 64, 1, 1))),
    "a column of pixels": changed(of_every_split(lambda v: v.reshape(-1, 1, 64, 1))),
    "images that are three wide": changed(of_every_split(lambda v: v[..., 2:5])),
    "training images twice": changed(
        lambda i: {
            "train": np.tile(i.train, (2, 1, 1, 1)),
            "labels": {**i.labels, "train": np.tile(i.labels["train"], 2)},
        }
    ),
    "a class that test lacks": changed(
        lambda i: {
            "test": i.test[i.labels["test"] != 3],
            "labels": {**i.labels, "test": i.labels["test"][i.labels["test"] != 3]},
        }
    ),
    "one class in test": changed(
        lambda i: {
            "test": i.test[i.labels["test"] == 3],
            "labels": {**i.labels, "test": i.labels["test"][i.labels["test"] == 3]},
        }
    ),
    "labels that nobody can read": relabelled(lambda split, v: permuted(v)),
    "few images": changed(
        lambda i: {"train": i.train[:1], "validation": i.validation[:1], "test": i.test[:2], "labels": {}}
    ),
    "few kinds of image": build("dataset", "two-point:p=0.999"),
    "images of one pixel": build("dataset", "mixture:size=1"),
    "dark images": build("dataset", "gaussian:mean=-1:deviation=0.05:levels=256"),
    "features of a layer with drawn weights": features(lambda f: of_layer(f)),
    "a metric of a part by a seed": metric(
        lambda s: float(np.square(s.x[permuted(np.arange(len(s.x)))[: len(s.x) // 2]].mean(0) - s.mu).sum())
    ),
    "a metric that is 0 mostly": metric(lambda s: float((s.x_levels.max((1, 2, 3)) == 0).mean()), needs=("pixels",)),
    "weights by t": copy("weighting", "simple", weights=lambda of, tables, v: np.linspace(1, 0.1, tables.T)),
    "a damped variance": copy("sigma", "optimal", x0_variance=lambda of, tables, s: 0.8 * of(tables, s)),
    "stages that go back": pool(one=lambda self, task: self.emit({"event": "requeued", "stage": task.id})),
    "stages that end at the close": pool(
        poll=lambda self, seconds: None, stop=lambda self: [self.end(task, "interrupted") for task in self.waiting]
    ),
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
    assert capsys.readouterr().out == "9 checks: 9 passed, 0 failed, 0 skipped\n"
    assert main(["--no-plugins", "check", "-p", str(file), "schedule/good"]) == 0
    capsys.readouterr()
    assert main(["--no-plugins", "check", "-p", str(file), "checked"]) == 1  # all that the plugin brings
    out = capsys.readouterr().out
    assert "failed schedule bad docstring: class Bad has no docstring" in out
    assert "failed schedule bad steps: " in out
    assert "not finite" in out
    assert out.endswith("18 checks: 12 passed, 2 failed, 4 skipped\n")
    assert main(["--no-plugins", "check", "-p", str(file), "bad", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["checks"], record["failed"], len(record["outcomes"])) == (9, 2, 9)
    assert main(["--no-plugins", "check", "cosin"]) == 2
    assert "did you mean 'cosine'?" in capsys.readouterr().err


def test_the_page_names_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    for kind in KINDS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {kind} |") and "`" in line]
        assert row == f"| {kind} | {', '.join(f'`{c}`' for c in checks(kind)[4:])} |"
