"""What a component must satisfy, kind by kind: everything that one hands in is asked for and checked here, once.

Each function calls the component, twice where the answer must not change, and gives back a clean value: float64 arrays
of one's own in C order, Python numbers, a network that checks its own output. What does not fit is refused by name.
In a loop over steps only shape, dtype and device are looked at, never a value: that would wait for the device.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import operator
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.interfaces import Images, Kind, Schedule, kind_of
from ddpmkit.text import one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ddpmkit.plugin.interfaces import (
        Array,
        Backbone,
        Dataset,
        Denoise,
        Denoised,
        Executor,
        Factors,
        Features,
        Levels,
        Noise,
        Prediction,
        Sampler,
        Sigma,
        Weighting,
    )
    from ddpmkit.plugin.tables import Tables

NAME = re.compile(r"[a-z][a-z0-9_+-]*")
LOG_LIMIT = 700.0  # of a log-variance: its exponential must be a float64 above 0
PROBE = 16  # images that an extractor is shown again
EXACT = 1e-6  # of a formula in float64, far above its rounding
CLOSE = 1e-3  # relative; features of a batch of another size differ in their last bits, not more
SPLITS = ("train", "validation", "test")


# --- the class, when it is registered -----------------------------------------------------------------------------


def class_problem(kind: Kind, cls: Any) -> str:
    """Return what makes a class unusable as a component of a kind, or an empty string."""
    if not (isinstance(cls, type) and issubclass(cls, kind.interface)):
        return f"{cls!r} is no subclass of {kind.interface.__name__}"
    label = f"class {cls.__name__} is not usable:"
    for attribute in ("name", "reference", "version"):
        if dataclasses.is_dataclass(cls) and attribute in {f.name for f in dataclasses.fields(cls)}:
            return f"{label} '{attribute}' is a field; write {attribute} = ... without a type"
    name = getattr(cls, "name", None)
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        return f"{label} its name is {name!r}; write lower-case letters, digits, '-', '_' or '+'"
    params = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.frozen or (inspect.get_annotations(cls) and not _own_dataclass(cls)):
        return f"{label} decorate it with @dataclass(frozen=True)"
    if inspect.isabstract(cls):
        return f"{label} it lacks {', '.join(sorted(cls.__abstractmethods__))}"
    if not any(getattr(cls, m) is not getattr(kind.interface, m) for m in kind.methods):
        return f"{label} it lacks {' or '.join(kind.methods)}"
    if not isinstance(cls.version, int):
        return f"{label} its version must be an integer"
    try:
        with blame(kind.name, name):  # the author's own __post_init__ may raise anything
            try:
                for p in spec.parameters(cls):
                    if p.part and not kind_of(p.part):
                        return f"{label} field '{p.name}' has type {p.part.__name__}; name the kind, as Schedule"
                cls()
            except (TypeError, ValueError) as err:
                return f"{label} {err}"
    except DdpmkitError as err:
        return f"{label} {err}"
    return ""


def _own_dataclass(cls: type) -> bool:
    """Whether ``cls`` itself went through ``@dataclass``, and not only a base of it."""
    return "__dataclass_fields__" in vars(cls) and dataclasses.is_dataclass(cls)


# --- schedule -----------------------------------------------------------------------------------------------------


def steps(schedule: Schedule, T: int) -> tuple[Array, Array]:
    """Return a schedule's (a_t, b_t^2), each float64 (T,): b_t^2 above 0, a_t at least 0, and 0 at the last step alone.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again; the step and its value are
            named.
    """
    import numpy as np

    told = f"schedule '{schedule.name}' at T={T}"

    what = "steps"
    if getattr(type(schedule), "steps", None) is Schedule.steps:
        what = "betas"
        with blame("schedule", schedule.name):
            given = schedule.betas(T)
        _numbers(told, what, given, (T,))

    def ask() -> tuple[Array, ...]:
        with blame("schedule", schedule.name):
            pair = schedule.steps(T)
        return _pair(told, ("factors a_t", "variances b_t^2"), pair, (T,))

    a, b2 = _twice(told, f"other {what}", ask)
    silent, last = a == 0, np.arange(T) == T - 1
    if (b2 <= 0).any():
        t = int(np.argmax(b2 <= 0))
        _refuse(schedule, f"{told}: step {t} adds no noise, its variance is {_exact(b2[t])}")
    if (a < 0).any():
        t = int(np.argmax(a < 0))
        _refuse(schedule, f"{told}: step {t} flips the sign, its factor is {_exact(a[t])}")
    if (silent & (b2 > 1)).any():
        t = int(np.argmax(silent & (b2 > 1)))
        _refuse(schedule, f"{told}: beta at step {t} is {_exact(b2[t])}, and none may be above 1")
    if (silent & ~last).any():
        t = int(np.argmax(silent & ~last))
        _refuse(schedule, f"{told}: beta at step {t} is {_exact(b2[t])} and leaves no signal; only the last may")
    return a, b2


def prior_variance(schedule: Schedule, T: int) -> float:
    """Return the variance of a schedule's prior p(x_T), a finite number above 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    told = f"schedule '{schedule.name}' at T={T}"
    return _number(told, "prior variance", "schedule", schedule, lambda: schedule.prior_variance(T), above=True)


# --- sigma --------------------------------------------------------------------------------------------------------


def log_bounds(sigma: Sigma, tables: Tables) -> tuple[Array, Array]:
    """Return a sigma's (low, high) log-variances, each float64 (T,), low at most high.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    told = f"sigma '{sigma.name}'"
    if sigma.learned and sigma.fitted:
        _refuse(sigma, f"{told} says that it is learned and that it is fitted; it is one of the two")

    def ask() -> tuple[Array, ...]:
        with blame("sigma", sigma.name):
            pair = sigma.log_bounds(_own(tables))
        return _pair(told, ("low log-variances", "high log-variances"), pair, (tables.T,))

    low, high = _twice(told, "other log-variances", ask)
    for values in (low, high):
        if (np.abs(values) > LOG_LIMIT).any():
            t = int(np.argmax(np.abs(values) > LOG_LIMIT))
            _refuse(
                sigma, f"{told} gives a log-variance of {_exact(values[t])} at step {t}, and e to that is no number"
            )
    if (low > high).any():
        t = int(np.argmax(low > high))
        _refuse(
            sigma, f"{told} gives a low log-variance of {_exact(low[t])} above the high {_exact(high[t])} at step {t}"
        )
    return low, high


def fixed_log_variance(sigma: Sigma, tables: Tables) -> Array:
    """Return log sigma_t^2, (T,), of a sigma whose bounds coincide.

    Raises:
        DdpmkitError: as :func:`log_bounds`, and when the sigma gives a range.
    """
    low, high = log_bounds(sigma, tables)
    if (low != high).any():
        raise DdpmkitError(
            f"sigma '{sigma.name}' gives a range of variances, and is neither learned nor fitted",
            "a sigma whose bounds differ says learned = True or fitted = True",
        )
    return low


def x0_variance(sigma: Sigma, tables: Tables, statistics: Mapping[str, Array]) -> Array:
    """Return a fitted sigma's Var(x_0 | x_t) per dimension over the full chain, float64 (T,), at least 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    told = f"sigma '{sigma.name}'"

    def ask() -> tuple[Array, ...]:
        own = {key: np.array(value) for key, value in statistics.items()}
        with blame("sigma", sigma.name):
            found = sigma.x0_variance(_own(tables), own)
        return (_numbers(told, "variances of x0", found, (tables.T,)),)

    (found,) = _twice(told, "other variances of x0", ask)
    return _not_negative(sigma, told, "variance of x0", found)


def largest_last_variance(sigma: Sigma, levels: int) -> float:
    """Return the most that the last noisy step of a walk may add, above 0; it may be infinite.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    told = f"sigma '{sigma.name}'"

    def ask() -> Any:
        return sigma.largest_last_variance(levels)

    return _number(told, "largest last variance", "sigma", sigma, ask, above=True, infinite=True)


def network_log_variance(sigma: Sigma, low: Tensor, high: Tensor, out: Tensor) -> Tensor:
    """Return a learned sigma's log-variance, like ``out`` (B, C, H, W) in shape and device, and floating.

    Raises:
        DdpmkitError: when it gives something else.
    """
    found = sigma.from_network(low, high, out)
    _tensor(sigma, f"sigma '{sigma.name}': from_network", found, tuple(out.shape), out.device)
    return found


# --- weighting ----------------------------------------------------------------------------------------------------


def checked_weights(weighting: Weighting, tables: Tables, log_sigma2: Array) -> Array:
    """Return a weighting's factors, float64 (T,), at least 0 and not all of them 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    told = f"weighting '{weighting.name}'"

    def ask() -> tuple[Array, ...]:
        with blame("weighting", weighting.name):
            found = weighting.weights(_own(tables), np.array(log_sigma2))
        return (_numbers(told, "weights", found, (tables.T,)),)

    (found,) = _twice(told, "other weights", ask)
    weights = _not_negative(weighting, told, "weight", found)
    if not weights.any():
        _refuse(weighting, f"{told} gives only zeros")
    return weights


def vlb_share(weighting: Weighting, T: int) -> float:
    """Return a weighting's factor on L_{t-1}, at least 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    told = f"weighting '{weighting.name}'"
    return _number(told, "share of the bound", "weighting", weighting, lambda: weighting.vlb_share(T))


def declared_weights(weighting: Weighting, sigma: Sigma, tables: Tables, log_sigma2: Array) -> Array:
    """Return the weights, if the declarations beside them are true: else an id would hold less than training sees.

    Raises:
        DdpmkitError: with what it should say.
    """
    import numpy as np

    told = f"weighting '{weighting.name}'"
    weights = checked_weights(weighting, tables, log_sigma2)
    if weighting.space not in ("x0", "prediction"):
        _refuse(weighting, f"{told}: space is 'x0' or 'prediction', not {_shown(weighting.space)}")
    sees = not np.array_equal(weights, checked_weights(weighting, tables, log_sigma2 + 1))
    if (sees or weighting.is_bound or weighting.decoder_first) and not weighting.uses_sigma:
        _refuse(weighting, f"{told} depends on sigma and does not say uses_sigma = True")
    bound = tables.bound_factor(log_sigma2)
    if weighting.is_bound and sigma.learned and not np.allclose(weights, bound, rtol=1e-9):
        raise DdpmkitError(
            f"{told} says it is the bound and weighs its steps otherwise: a learned sigma would take the bound in full",
            "leave out is_bound = True",
        )
    return weights


# --- backbone -----------------------------------------------------------------------------------------------------


def network(backbone: Backbone, *, in_channels: int, out_channels: int, image_size: int) -> nn.Module:
    """Build a backbone's network, whose every output is checked: floating, on the device, (B, out_channels, H, W).

    Raises:
        DdpmkitError: when it is no module, or has no parameter, or one that is not finite. Calling it raises the same
            for an output that does not fit.
    """
    import torch
    from torch import nn

    told = f"backbone '{backbone.name}'"
    with blame("backbone", backbone.name):
        net = backbone.build(
            in_channels=in_channels, out_channels=out_channels, image_size=image_size, num_classes=None
        )
    if not isinstance(net, nn.Module):
        _refuse(backbone, f"{told}: build gives a {type(net).__name__} and no torch module")
    parameters = dict(net.named_parameters())
    if not parameters:
        _refuse(backbone, f"{told}: its network has no parameters, so there is nothing to train")
    buffers = dict(net.named_buffers())
    for path, p in (*parameters.items(), *buffers.items()):
        if nn.parameter.is_lazy(p):
            _refuse(backbone, f"{told}: '{path}' of its network has no shape yet", "give the layer its sizes")
        if not p.is_floating_point() or p.device.type == "meta":
            continue
        # A buffer may be infinite, as the mask of an attention is; a number that is none is wrong in either.
        if bool(torch.isnan(p).any()) or (path in parameters and bool(torch.isinf(p).any())):
            _refuse(backbone, f"{told}: '{path}' of its network starts with values that are not finite")

    def checked(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        x = given[0] if given else None
        if isinstance(x, torch.Tensor):
            _tensor(backbone, f"{told}: its network", out, (len(x), out_channels, *x.shape[2:]), x.device)
            if module.training and torch.is_grad_enabled() and not out.requires_grad:
                _refuse(backbone, f"{told}: the output of its network has no gradient, so it can't be trained")

    net.register_forward_hook(checked)
    return net


def dropout_layers(net: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return every layer of a network that drops out, with the name of the attribute that holds its rate."""
    from torch import nn

    kinds = (
        nn.Dropout,
        nn.Dropout1d,
        nn.Dropout2d,
        nn.Dropout3d,
        nn.AlphaDropout,
        nn.FeatureAlphaDropout,
    )
    found: list[tuple[nn.Module, str]] = []
    for layer in net.modules():
        if isinstance(layer, kinds):
            found.append((layer, "p"))
        elif isinstance(layer, (nn.MultiheadAttention, nn.RNNBase)):  # they drop out by a number of their own
            found.append((layer, "dropout"))
    return found


# --- prediction ---------------------------------------------------------------------------------------------------


def impossible(prediction: Prediction, tables: Tables) -> str | None:
    """Return why a prediction can't be learned on a chain, one line of text; None where it can.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    told = f"prediction '{prediction.name}'"
    with blame("prediction", prediction.name):
        first, again = prediction.impossible(_own(tables)), prediction.impossible(_own(tables))
    if first is not None and not (isinstance(first, str) and first.strip() and first.isprintable()):
        _refuse(prediction, f"{told}: why it is impossible is {_shown(first)}, not a line of text and not None")
    if first != again:
        _refuse(prediction, f"{told} gives another reason why it is impossible when asked again")
    return first


def divisor(prediction: Prediction, tables: Tables) -> Array:
    """Return what turns weights on the x0-error into weights on a prediction's error, float64 (T,), each above 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    told = f"prediction '{prediction.name}'"

    def ask() -> tuple[Array, ...]:
        with blame("prediction", prediction.name):
            found = prediction.divisor(_own(tables))
        return (_numbers(told, "divisors", found, (tables.T,)),)

    values: Array
    (values,) = _twice(told, "other divisors", ask)
    if (values <= 0).any():
        t = int(np.argmax(values <= 0))
        _refuse(prediction, f"{told} gives a divisor of {_exact(values[t])} at step {t}, and each must be above 0")
    return values


def target(prediction: Prediction, at: Factors, x0: Tensor, eps: Tensor, xt: Tensor) -> Tensor:
    """Return what the network is asked for, like ``x0`` in shape and device, and floating.

    Raises:
        DdpmkitError: when it gives something else.
    """
    found = prediction.target(at, x0, eps, xt)
    _tensor(prediction, f"prediction '{prediction.name}': target", found, tuple(x0.shape), x0.device)
    return found


def x0hat(prediction: Prediction, at: Factors, xt: Tensor, out: Tensor) -> Tensor:
    """Return the estimate of x0 that a network's answer means, like ``xt`` in shape and device, and floating.

    Raises:
        DdpmkitError: when it gives something else.
    """
    found = prediction.x0hat(at, xt, out)
    _tensor(prediction, f"prediction '{prediction.name}': x0hat", found, tuple(xt.shape), xt.device)
    return found


@dataclass(frozen=True, eq=False)
class _Exact:
    """The factors of some steps in float64: a formula is asked for, not its rounding."""

    signal: Tensor
    noise: Tensor
    mean_x0: Tensor
    mean_xt: Tensor


def declared_divisor(prediction: Prediction, tables: Tables) -> Array:
    """Return the divisor, if target, x0hat and divisor agree: else a weighting would weigh what it does not mean.

    The target must mean x0 itself, and an answer that is off by d an x0hat that is off by d / sqrt(divisor). Asked at
    up to 32 steps in float64.

    Raises:
        DdpmkitError: with the step at which they do not.
    """
    import numpy as np
    import torch

    told = f"prediction '{prediction.name}'"
    found = divisor(prediction, tables)
    t = np.unique(np.linspace(0, tables.T - 1, 32).round().astype(int))
    shape = (len(t), 1, 2, 2)

    def at_steps(table: Array) -> Tensor:
        return torch.from_numpy(table[t]).reshape(-1, 1, 1, 1)

    at = _Exact(*map(at_steps, (tables.signal, tables.noise2**0.5, tables.mean_x0, tables.mean_xt)))
    rng = np.random.default_rng(0)
    x0, eps, off = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(3))
    xt, slope = at.signal * x0 + at.noise * eps, at_steps(found**0.5)
    with blame("prediction", prediction.name):
        asked, again = target(prediction, at, x0, eps, xt), target(prediction, at, x0, eps, xt)
        back, wrong = x0hat(prediction, at, xt, asked), x0hat(prediction, at, xt, asked + off)
    if not torch.equal(asked, again):
        _refuse(prediction, f"{told} gives another target when asked again", "it must not draw random numbers")
    misses = {  # in the answer's units, in which rounding is alike at all steps
        "x0hat of its own target is not x0": (back - x0) * slope,
        "its divisor is not (answer's error / x0-error)^2": ((wrong - back) * slope).abs() - off.abs(),
    }
    for problem, miss in misses.items():
        rows = (~(miss.abs() < EXACT * (1 + asked.abs()))).flatten(1).any(1)
        if bool(rows.any()):
            _refuse(prediction, f"{told}: at step {t[int(rows.int().argmax())]} {problem}")
    return found


# --- sampler ------------------------------------------------------------------------------------------------------


def timesteps(sampler: Sampler, T: int, count: int) -> list[int]:
    """Return the steps that a sampler visits: ``count`` integers that rise within 0 .. T-1, the last one T-1.

    A walk that started elsewhere would take pure noise for a less noisy image.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    import numpy as np

    told = f"sampler '{sampler.name}' for {count} of {T} steps"

    def ask() -> tuple[Any, ...]:
        with blame("sampler", sampler.name):
            found = sampler.timesteps(T, count)
        array = _array(told, "timesteps", found)
        if array.shape == (0,):
            _refuse(sampler, f"{told} gives no timesteps")
        if array.dtype.kind not in "iu" or array.ndim != 1:
            _refuse(
                sampler,
                f"{told} gives timesteps of dtype {array.dtype} and shape {array.shape}, not a list of int",
                ROUND,
            )
        return (array.astype(np.int64),)

    (found,) = _twice(told, "other timesteps", ask)
    times: list[int] = found.tolist()
    if len(times) != count:
        _refuse(sampler, f"{told} gives {len(times)} timestep{'s' * (len(times) != 1)}")
    for before, after in itertools.pairwise(times):
        if after <= before:
            _refuse(sampler, f"{told} gives timesteps that do not rise: {after} follows {before}")
    if times[0] < 0 or times[-1] >= T:
        wrong = times[0] if times[0] < 0 else times[-1]
        _refuse(sampler, f"{told} gives the timestep {wrong}, outside of 0 .. {T - 1}")
    if times[-1] != T - 1:
        _refuse(
            sampler,
            f"{told} ends its timesteps at {times[-1]}: the walk starts from pure noise, and that is step {T - 1}",
        )
    return times


ROUND = "give int(t) of each, rounded where that is meant"


def kernel(sampler: Sampler, tables: Tables) -> tuple[Array, Array]:
    """Return a sampler's (lambda_t^2, kappa_t), each float64 (T,), the first at least 0.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    told = f"sampler '{sampler.name}'"

    def ask() -> tuple[Array, ...]:
        with blame("sampler", sampler.name):
            pair = sampler.kernel(_own(tables))
        return _pair(told, ("variances", "factors"), pair, (tables.T,))

    variance, factor = _twice(told, "another kernel", ask)
    return _not_negative(sampler, told, "variance", variance), factor


def walk(sampler: Sampler, denoise: Denoise, tables: Tables, noise: Noise) -> Tensor:
    """Return what a sampler draws: like ``noise(0)`` in shape and device, floating, in C order.

    Raises:
        DdpmkitError: when it gives something else, or asks about a step or a batch that is not there.
    """
    told = f"sampler '{sampler.name}'"
    start = noise(0)
    shape, T = tuple(start.shape), tables.T

    def asked(x: Tensor, t: int) -> Denoised:
        step = operator.index(t) if hasattr(t, "__index__") and not isinstance(t, float) else -1
        if not 0 <= step < T:
            _refuse(sampler, f"{told} asks for step {_shown(t)}; the steps of its walk are the integers 0 .. {T - 1}")
        _tensor(sampler, f"{told}, asking for step {t},", x, shape, start.device)
        if x.dtype != start.dtype:
            _refuse(sampler, f"{told}, asking for step {t}, gives {_dtype(x)}, not {_dtype(start)}")
        return denoise(x, step)

    drawn = sampler.sample(asked, _own(tables), noise)
    _tensor(sampler, told, drawn, shape, start.device)
    return drawn.contiguous()


# --- data set -----------------------------------------------------------------------------------------------------


def images(dataset: Dataset, *, again: bool = False) -> Images:
    """Return a data set's images, in C order: uint8 (N, C, H, W), square, below K levels, no split empty.

    Args:
        dataset: The component.
        again: Load them a second time, and compare.

    Raises:
        DdpmkitError: when it gives something else, or other images the second time.
    """
    import numpy as np

    told = f"dataset '{dataset.name}'"
    found = _images(dataset, told)
    if again:
        other = _images(dataset, told)
        same = found.levels == other.levels and found.labels.keys() == other.labels.keys()
        for split in SPLITS:
            same = same and np.array_equal(getattr(found, split), getattr(other, split))
            same = same and np.array_equal(found.labels.get(split, 0), other.labels.get(split, 0))
        if not same:
            _refuse(dataset, f"{told} gives other images when it is loaded again", "draw the split from a fixed seed")
    return found


def _images(dataset: Dataset, told: str) -> Images:
    import numpy as np

    with blame("dataset", dataset.name):
        found = dataset.load()
    if not isinstance(found, Images):
        _refuse(dataset, f"{told}: load gives a {type(found).__name__} and no Images")
    levels = found.levels
    if not isinstance(levels, (int, np.integer)) or isinstance(levels, bool) or not 2 <= levels <= 256:
        _refuse(dataset, f"{told}: its number of grey levels is {_shown(levels)}, and uint8 holds 2 to 256")
    splits: dict[str, Any] = {}
    for split in SPLITS:
        array = getattr(found, split)
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4:
            shape = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            _refuse(dataset, f"{told}: its {split} split is {shape}, not an array of uint8 (N, C, H, W)")
        least = 2 if split == "test" else 1
        if len(array) < least:
            count = "is empty" if not len(array) else f"has {len(array)} image"
            _refuse(dataset, f"{told}: its {split} split {count}, and it needs at least {least}", USE[split])
        if array[0].size == 0 or array.shape[2] != array.shape[3]:
            _refuse(dataset, f"{told}: its images are {array.shape[1:]} (C, H, W), and must be square")
        if array.shape[1:] != found.train.shape[1:]:
            _refuse(
                dataset,
                f"{told}: its {split} images are {array.shape[1:]} (C, H, W), those of train {found.train.shape[1:]}",
            )
        if int(array.max()) >= levels:
            _refuse(dataset, f"{told}: its {split} split holds the level {array.max()}, and K = {levels}")
        splits[split] = np.ascontiguousarray(array)
    return dataclasses.replace(found, **splits, levels=int(levels), labels=_labels(dataset, told, found.labels, splits))


USE = {
    "train": "give it images to learn from",
    "validation": "set images aside: the likelihood's draws are planned on them",
    "test": "give it images to compare with",
}


def _labels(dataset: Dataset, told: str, labels: Any, splits: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    if not isinstance(labels, dict) or not (labels.keys() == set(SPLITS) or not labels):
        _refuse(dataset, f"{told}: its labels are no dict of {', '.join(SPLITS)}, and not empty either")
    for split, array in labels.items():
        count = len(splits[split])
        if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.shape != (count,):
            shape = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            _refuse(dataset, f"{told}: the labels of its {split} split are {shape}, not int64 ({count},)")
        if (array < 0).any():
            _refuse(dataset, f"{told}: the labels of its {split} split go down to {array.min()}; classes count from 0")
    return {split: np.ascontiguousarray(array) for split, array in labels.items()}


# --- features -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Extractor:
    """A loaded extractor whose every answer is checked: uint8 levels (N, C, H, W) -> finite float64 (N, D)."""

    features: Features
    extract: Callable[[Levels], Array]

    def __call__(self, levels: Levels, what: str = "the features hold values") -> Array:
        """Return the features of images; ``what`` says in an error what they are.

        Raises:
            DdpmkitError: when it gives something else.
        """
        import numpy as np

        found = self._rows(levels)
        bad = int((~np.isfinite(found)).any(axis=1).sum())
        if bad:
            told = f"features '{self.features.name}': {what}"
            _refuse(self.features, f"{told} that are not finite, in {bad} of {len(found)} rows", "look at those images")
        return found

    def agrees(self, levels: Levels, known: Array) -> None:
        """Refuse an extractor that gives other features of the first images than it gave before, (N, D).

        Raises:
            DdpmkitError: when they differ by more than rounding.
        """
        import numpy as np

        first = self._rows(levels[:PROBE])
        again = np.asarray(known[: len(first)], dtype=np.float64)
        scale = CLOSE * np.abs(again[np.isfinite(again)]).max(initial=0.0)
        if first.shape != again.shape or not np.allclose(first, again, rtol=CLOSE, atol=scale, equal_nan=True):
            _refuse(
                self.features,
                f"features '{self.features.name}' gives other features of the same images when asked again",
                "it must not draw random numbers, and not look at the batch that an image comes in",
            )

    def _rows(self, levels: Levels) -> Array:
        import numpy as np

        told = f"features '{self.features.name}'"
        with blame("features", self.features.name):
            found = _array(told, "features", self.extract(levels))
        if found.dtype.kind not in "iuf" or found.ndim != 2 or found.shape[-1] == 0:
            _refuse(self.features, f"{told} gave {found.dtype} {found.shape}, not real numbers of shape (N, D)")
        if len(found) != len(levels):
            _refuse(self.features, f"{told} gave {len(found)} rows for {len(levels)} images", "one row an image")
        return np.array(found, dtype=np.float64, order="C")


def extractor(features: Features, data: Images) -> Extractor:
    """Load an extractor; its every answer is then checked.

    Raises:
        DdpmkitError: when it can't be loaded, or is nothing to call.
    """
    with blame("features", features.name):
        found = features.load(data)
    if not callable(found):
        _refuse(features, f"features '{features.name}': load gives a {type(found).__name__}, which can't be called")
    return Extractor(features, found)


def label(features: Features) -> str:
    """Return the name of an extractor in tables: one line of text.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    return _text(features, "label", features.label)


def fingerprint(features: Features) -> str:
    """Return the hash of an extractor: one line of text.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    return _text(features, "fingerprint", features.fingerprint)


def _text(features: Features, what: str, ask: Callable[[], Any]) -> str:
    told = f"features '{features.name}'"
    with blame("features", features.name):
        first, again = ask(), ask()
    if not isinstance(first, str) or not first.strip() or not first.isprintable():
        _refuse(features, f"{told}: its {what} is {_shown(first)}, not a line of text")
    if first != again:
        _refuse(features, f"{told} gives another {what} when asked again")
    return first


# --- executor -----------------------------------------------------------------------------------------------------

STATES = ("done", "failed", "diverged", "interrupted")
ABOUT_A_STAGE = ("start", "attempt", "progress", "requeued", "end")


def event(executor: Executor, found: Any, stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event that an executor reports, if it is one: a dict that names a stage of the run.

    Raises:
        DdpmkitError: when it is something else, or an end in no known state.
    """
    told = f"executor '{executor.name}'"
    if problem := event_problem(found, stages):
        _refuse(executor, f"{told} {problem}")
    if not isinstance(found.get("worker", 0), int):
        _refuse(executor, f"{told} reports {_shown(found['worker'])} as a worker, and that is a number")
    out: dict[str, Any] = found
    return out


def event_problem(found: Any, stages: Container[str]) -> str:
    """Say what is wrong with an event of an executor or a worker about one of the stages; nothing if nothing is."""
    if not isinstance(found, dict) or not isinstance(found.get("event"), str):
        return f"reports {_shown(found)}, and an event is a dict with the key 'event'"
    kind, stage = found["event"], found.get("stage")
    if kind == "log":
        return "" if isinstance(found.get("text"), str) else "reports a line of the log without its 'text'"
    if kind in ABOUT_A_STAGE and not (isinstance(stage, str) and stage in stages):
        return f"reports the {kind} of {_shown(stage)}, which is no stage of this run"
    if kind == "end" and found.get("state") not in STATES:
        return f"reports an end as {_shown(found.get('state'))}, not as {', '.join(STATES)}"
    if kind == "progress" and not isinstance(found.get("done"), (int, float)):
        return f"reports progress as {_shown(found.get('done'))}; 'done' is a number from 0 to 1"
    return ""


# --- what all of them share ---------------------------------------------------------------------------------------


def _refuse(component: Any, problem: str, hint: str | None = None) -> NoReturn:
    raise DdpmkitError(problem, hint or f"ddpmkit show {component.name}")


def _own(tables: Tables) -> Tables:
    """A copy for one component: what it writes into an array of it, nobody else sees."""
    import numpy as np

    held = {f.name: getattr(tables, f.name) for f in dataclasses.fields(tables)}
    copies: dict[str, Any] = {name: value.copy() for name, value in held.items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(tables, **copies)


def _exact(value: Any) -> str:
    """A number in as few digits as tell it from its neighbours: 1.0000000000000002 is not 1."""
    return repr(float(value)).removesuffix(".0")


def _shown(value: Any) -> str:
    """Whatever it is, in a line that is not too long."""
    text = one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _array(told: str, what: str, value: Any) -> Any:
    import numpy as np

    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # a ragged list; a tensor on a device, or with a gradient
        raise DdpmkitError(f"{told} gives {what} that are no array", "give a numpy array") from None


def _numbers(told: str, what: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A copy as float64 in C order, so that nobody else holds it; real numbers of any precision are welcome."""
    import numpy as np

    array = _array(told, what, value)
    wanted = f"({shape[0]},)" if len(shape) == 1 else str(shape)
    if array.dtype.kind not in "iuf":
        found = type(value).__name__ if array.dtype.kind == "O" else array.dtype
        raise DdpmkitError(f"{told} gives {what} of type {found}, not real numbers", "give float64")
    if array.shape != shape:
        raise DdpmkitError(f"{told} gives {what} of shape {array.shape}, not {wanted}", "one number a step")
    out: Array = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(out).all():
        t = int(np.argmax(~np.isfinite(out)))
        raise DdpmkitError(f"{told} gives {what} that are not finite: step {t} is {out[t]}", "look at that step")
    return out


def _pair(told: str, names: tuple[str, str], value: Any, shape: tuple[int, ...]) -> tuple[Array, ...]:
    parts = tuple(value) if hasattr(value, "__iter__") and getattr(value, "ndim", 1) != 0 else ()
    if len(parts) != 2:
        raise DdpmkitError(
            f"{told} gives a {type(value).__name__}, not the pair of {names[0]} and {names[1]}", "give two arrays"
        )
    shapes = [_array(told, name, v).shape for name, v in zip(names, parts, strict=True)]
    if any(s != shape for s in shapes):
        raise DdpmkitError(f"{told} gives shapes {shapes[0]} and {shapes[1]}, not ({shape[0]},)", "one number a step")
    return tuple(_numbers(told, name, v, shape) for name, v in zip(names, parts, strict=True))


def _twice(told: str, what: str, ask: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """What is given, if it is given again; else training, sampling and likelihood would each see another one."""
    import numpy as np

    first, again = ask(), ask()
    if not all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)):
        raise DdpmkitError(
            f"{told} gives {what} when asked again",
            "it must not draw random numbers, nor remember its last call",
        )
    return first


def _number(
    told: str,
    what: str,
    kind: str,
    component: Any,
    ask: Callable[[], Any],
    *,
    above: bool = False,
    infinite: bool = False,
) -> float:
    with blame(kind, component.name):
        given = ask(), ask()
    values = []
    for value in given:
        array = _array(told, what, value)
        if array.ndim or array.dtype.kind not in "iuf":
            _refuse(component, f"{told}: its {what} is {_shown(value)}, not a number")
        number = float(array)
        fits = number > 0 if above else number >= 0
        if not fits or not (math.isfinite(number) or infinite):
            _refuse(component, f"{told}: its {what} is {_exact(number)}, not a number {'above' if above else 'from'} 0")
        values.append(number)
    if values[0] != values[1]:
        _refuse(component, f"{told} gives another {what} when asked again")
    return values[0]


def _not_negative(component: Any, told: str, what: str, values: Array) -> Array:
    import numpy as np

    if (values < 0).any():
        t = int(np.argmax(values < 0))
        _refuse(component, f"{told} gives a {what} of {_exact(values[t])} at step {t}, and none may be below 0")
    return values


def _tensor(component: Any, told: str, found: Any, shape: tuple[int, ...], device: torch.device) -> None:
    """Shape, dtype and device of a tensor; no value, since that would wait for the device."""
    import torch

    if not isinstance(found, torch.Tensor):
        _refuse(component, f"{told} gives a {type(found).__name__} and no tensor", "give the tensor itself")
    if tuple(found.shape) != shape:
        _refuse(component, f"{told} gives shape {tuple(found.shape)}, not {shape}")
    if not found.is_floating_point():
        _refuse(component, f"{told} gives {_dtype(found)}, not floating point")
    if found.device != device:
        _refuse(component, f"{told} gives a tensor on {found.device}, not on {device}")
