"""A check that fails says what to do, once, and not to have shown what its author wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ddpmkit import Array, Images, Schedule, betas_from_alpha_bars, param
from ddpmkit.plugin.interfaces import KINDS, Component
from ddpmkit.testing import run_checks
from ddpmkit.testing.check import Outcome


def planted(kind: str, **body: Any) -> Any:
    said = {
        "__doc__": "A planted mistake.",
        "name": "planted",
        "reference": "this test",
        "__module__": __name__,
        **body,
    }
    for key, value in body.items():
        if callable(value):
            value.__qualname__ = f"Planted.{key}"  # Python names it in what it says of a call that does not fit
    return dataclass(frozen=True)(type("Planted", (KINDS[kind].interface,), said))()


def failures(component: Component) -> list[Outcome]:
    return [o for o in run_checks(component) if o.state == "failed"]


def images(make: Callable[[Any], Any], **more: Any) -> Any:
    def load(self: Any) -> Images:
        drawn = np.random.default_rng(0).integers(0, 2, (3, 20, 4, 4, 3)).astype(np.uint8)
        return Images(*map(make, drawn), levels=2, **more)

    return planted("dataset", load=load)


STEPS = {"timesteps": lambda self, T, count: list(range(T - count, T))}
FEATURES = {"label": lambda self: "planted", "fingerprint": lambda self: "planted/1"}
MISTAKES = {
    "another step": (planted("sampler", sample=lambda self, d, tables, z: d(z(0), 999).x0, **STEPS), "tables.T - 1"),
    "no kernel": (planted("sampler", sample=lambda self, d, t, z: z(0), uses_sigma=False, **STEPS), "kernel(tables)"),
    "arguments": (planted("features", load=lambda self: len, **FEATURES), "it is called as load(data)"),
    "a method": (planted("weighting", weights=lambda self, t: t.snr), "it is called as weights(tables, log_sigma2)"),
    "four axes": (planted("features", load=lambda self, data: lambda x: x.astype(float), **FEATURES), "flatten"),
    "not a number": (planted("metric", value=lambda self, sets: (float(sets.x.sum()), 0.1)), "Measurement(value"),
    "not asked for": (
        planted("metric", value=lambda self, sets: float(sets.x_levels.mean())),
        "what needs does not name is None in the sets, and it is ('features',)",
    ),
    "minus infinity": (
        planted("sigma", log_bounds=lambda self, tables: (np.log(tables.posterior_variance),) * 2),
        "where sigma beta-tilde takes its value of step 1",
    ),
    "floats": (images(lambda x: x.transpose(0, 3, 1, 2) / 2), "levels.astype(np.uint8)"),
    "channels last": (images(lambda x: x), "ddpmkit.channels_first"),
    "one-hot labels": (
        images(lambda x: x.transpose(0, 3, 1, 2), labels={s: np.eye(20) for s in ("train", "validation", "test")}),
        "y.astype(np.int64)",
    ),
    "a negative weight": (planted("weighting", weights=lambda self, t, s: -t.snr), "docs/kinds/weighting.md"),
    "a short reference": (planted("weighting", weights=lambda self, t, s: t.snr, reference="me"), "Author YEAR"),
}


@pytest.mark.parametrize(("component", "told"), MISTAKES.values(), ids=MISTAKES)
def test_one_mistake_is_one_failure_that_says_what_to_do(component: Component, told: str) -> None:
    (failure,) = failures(component)
    assert told in failure.hint
    assert "ddpmkit show" not in failure.hint


def test_what_is_there_and_too_short_is_not_called_missing() -> None:
    (failure,) = failures(planted("weighting", weights=lambda self, t, s: t.snr, reference="me"))
    assert failure.seen == "class Planted has the reference 'me', too short to say"


def test_a_network_that_is_not_told_the_time_is_told_how_it_is_called() -> None:
    def net(self: Any, *, in_channels: int, out_channels: int, **more: Any) -> Any:
        from torch import nn

        return nn.Conv2d(in_channels, out_channels, 1)

    (failure,) = failures(planted("backbone", build=net))
    assert failure.hint.startswith("the network is called as forward(x, t)")


@dataclass(frozen=True)
class Karras(Schedule):
    """The noise levels of EDM as a chain that keeps the variance: their betas rise and then fall."""

    name = "karras"
    reference = "Karras et al. 2022 (arXiv 2206.00364), eq. 5"
    rho: float = param(7.0, "how much the levels crowd where little noise is left", gt=0)

    def betas(self, T: int) -> Array:
        sigma = np.linspace(0.002 ** (1 / self.rho), 80 ** (1 / self.rho), T) ** self.rho
        return betas_from_alpha_bars(1 / (1 + np.concatenate([[0.0], sigma]) ** 2))


def test_the_noise_levels_of_edm_are_no_mistake() -> None:
    betas = Karras().betas(1000)
    assert 0 < int(betas.argmax()) < 900
    assert failures(Karras()) == []


def test_images_without_labels_need_not_say_so() -> None:
    component = images(lambda x: x.transpose(0, 3, 1, 2).copy())
    assert failures(component) == []
    assert component.load().labels == {}
    assert component.fingerprint() == images(lambda x: x.transpose(0, 3, 1, 2).copy(), labels={}).fingerprint()


@pytest.mark.parametrize("default", [[1.0], {}, set()])
def test_a_default_that_can_be_changed_is_refused_with_what_can_be_one(default: Any) -> None:
    with pytest.raises(TypeError, match="parameters are numbers, texts, tuples and components"):
        param(default, "some numbers")
