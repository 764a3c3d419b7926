"""Answers of components as clean values, or an error that names the component: what all kinds share."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.blame import blame
from ddpmkit.text import one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ddpmkit.plugin.interfaces import Array
    from ddpmkit.plugin.tables import Tables

NAME = re.compile(r"[a-z][a-z0-9_+-]*")


def refuse(component: Any, problem: str, hint: str | None = None) -> NoReturn:
    """Refuse what a component gives or says.

    Raises:
        DdpmkitError: always.
    """
    raise DdpmkitError(problem, hint or f"ddpmkit show {component.name}")


def own_copy(tables: Tables) -> Tables:
    """A copy for one component: what it writes into an array of it, nobody else sees."""
    import numpy as np

    fields = {f.name: getattr(tables, f.name) for f in dataclasses.fields(tables)}
    copies: dict[str, Any] = {name: value.copy() for name, value in fields.items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(tables, **copies)


def exact(value: Any) -> str:
    """A number in as few digits as tell it from its neighbours: 1.0000000000000002 is not 1."""
    return repr(float(value)).removesuffix(".0")


def shown(value: Any) -> str:
    """Whatever it is, in a line that is not too long."""
    text = one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def dtype_of(x: Tensor) -> str:
    """The type of a tensor's numbers in a word."""
    return str(x.dtype).removeprefix("torch.")


def as_array(subject: str, what: str, value: Any) -> Any:
    """A component's answer as a numpy array.

    Raises:
        DdpmkitError: when it is none.
    """
    import numpy as np

    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # a ragged list; a tensor on a device, or with a gradient
        raise DdpmkitError(f"{subject} gives {what} that are no array", "give a numpy array") from None


def numbers(
    subject: str, what: str, value: Any, shape: tuple[int, ...], *, infinite: str = "look at that step"
) -> Array:
    """A copy as float64 in C order, so that nobody else holds it; real numbers of any precision are welcome.

    ``infinite`` says what to do where one is not finite.
    """
    import numpy as np

    array = as_array(subject, what, value)
    wanted = f"({shape[0]},)" if len(shape) == 1 else str(shape)
    if array.dtype.kind not in "iuf":
        type_name = type(value).__name__ if array.dtype.kind == "O" else array.dtype
        raise DdpmkitError(f"{subject} gives {what} of type {type_name}, not real numbers", "give float64")
    if array.shape != shape:
        raise DdpmkitError(f"{subject} gives {what} of shape {array.shape}, not {wanted}", "one number a step")
    out: Array = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(out).all():
        t = int(np.argmax(~np.isfinite(out)))
        raise DdpmkitError(f"{subject} gives {what} that are not finite: step {t} is {out[t]}", infinite)
    return out


def pair_of(
    subject: str, names: tuple[str, str], value: Any, shape: tuple[int, ...], *, infinite: str = "look at that step"
) -> tuple[Array, ...]:
    """Two arrays of one shape as float64; ``names`` are what each is called.

    Raises:
        DdpmkitError: when they are no such pair.
    """
    parts = tuple(value) if hasattr(value, "__iter__") and getattr(value, "ndim", 1) != 0 else ()
    if len(parts) != 2:
        raise DdpmkitError(
            f"{subject} gives a {type(value).__name__}, not the pair of {names[0]} and {names[1]}", "give two arrays"
        )
    shapes = [as_array(subject, name, v).shape for name, v in zip(names, parts, strict=True)]
    if any(s != shape for s in shapes):
        raise DdpmkitError(
            f"{subject} gives shapes {shapes[0]} and {shapes[1]}, not ({shape[0]},)", "one number a step"
        )
    return tuple(numbers(subject, name, v, shape, infinite=infinite) for name, v in zip(names, parts, strict=True))


def twice(subject: str, what: str, ask: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """What is given, if it is given again; else training, sampling and likelihood would each see another one."""
    import numpy as np

    first, again = ask(), ask()
    if not all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)):
        raise DdpmkitError(
            f"{subject} gives {what} when asked again",
            "it must not draw random numbers, nor remember its last call",
        )
    return first


def a_number(
    subject: str,
    what: str,
    kind: str,
    component: Any,
    ask: Callable[[], Any],
    *,
    above: bool = False,
    infinite: bool = False,
) -> float:
    """A number that is the same when asked again: at least 0, or ``above`` it; ``infinite`` where it may be that.

    Raises:
        DdpmkitError: when it is something else.
    """
    with blame(kind, component.name):
        answers = ask(), ask()
    values = []
    for value in answers:
        array = as_array(subject, what, value)
        if array.ndim or array.dtype.kind not in "iuf":
            refuse(component, f"{subject}: its {what} is {shown(value)}, not a number")
        number = float(array)
        fits = number > 0 if above else number >= 0
        if not fits or not (math.isfinite(number) or infinite):
            refuse(
                component, f"{subject}: its {what} is {exact(number)}, not a number {'above' if above else 'from'} 0"
            )
        values.append(number)
    if values[0] != values[1]:
        refuse(component, f"{subject} gives another {what} when asked again")
    return values[0]


def not_negative(component: Any, subject: str, what: str, values: Array) -> Array:
    """The values, if none is below 0.

    Raises:
        DdpmkitError: with the first step where one is.
    """
    import numpy as np

    if (values < 0).any():
        t = int(np.argmax(values < 0))
        refuse(component, f"{subject} gives a {what} of {exact(values[t])} at step {t}, and none may be below 0")
    return values


def checked_tensor(component: Any, subject: str, tensor: Any, shape: tuple[int, ...], device: torch.device) -> None:
    """Shape, dtype and device of a tensor; no value, since that would wait for the device."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        refuse(component, f"{subject} gives a {type(tensor).__name__} and no tensor", "give the tensor itself")
    if tuple(tensor.shape) != shape:
        refuse(component, f"{subject} gives shape {tuple(tensor.shape)}, not {shape}")
    if not tensor.is_floating_point():
        refuse(component, f"{subject} gives {dtype_of(tensor)}, not floating point")
    if tensor.device != device:
        refuse(component, f"{subject} gives a tensor on {tensor.device}, not on {device}")
