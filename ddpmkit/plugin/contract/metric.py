"""What a metric must declare and give."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import NAME, as_array, refuse, shown
from ddpmkit.plugin.interfaces import Measurement
from ddpmkit.text import one_line

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array, Levels, Metric, Sets

RESERVED = "and the word FID is that of ddpmkit's own distance over the verified 2015 Inception file"
BETTER = ("lower", "higher", "none")
NEEDS = ("statistics", "features", "pixels", "training")
FID = re.compile(r"(?<![^\W_])fid(?![^\W_])", re.IGNORECASE)  # as a word, within FID-x and my_fid too
OURS = ("value", "se", "better")  # what a record says of every measurement


def column(metric: Metric, protocol: Mapping[str, Any]) -> str:
    """Return the column of a metric, if all that it declares is sound: one line of text.

    Args:
        metric: The component.
        protocol: How the distances are taken: ``label``, as ``FD-digits``, and ``features``, as ``digits``.

    Raises:
        DdpmkitError: with what is wrong.
    """
    told = f"metric '{metric.name}'"
    for what, given in (("title", metric.title), ("unit", metric.unit)):
        if not isinstance(given, str) or not (given.isprintable() and given == given.strip()):
            refuse(metric, f"{told}: its {what} is {shown(given)}, not a line of text")
    if metric.better not in BETTER:
        refuse(metric, f"{told}: better is {', '.join(BETTER)}, not {shown(metric.better)}")
    if not isinstance(metric.needs, tuple) or not metric.needs or not all(need in NEEDS for need in metric.needs):
        refuse(metric, f"{told}: needs is a tuple of {', '.join(NEEDS)}, not {shown(metric.needs)}")
    with blame("metric", metric.name):
        found = metric.column(protocol)
    if not isinstance(found, str) or not found.strip() or not found.isprintable() or "," in found or "=" in found:
        refuse(metric, f"{told}: its column is {shown(found)}, not a line of text without ',' and '='")
    if found.startswith("NLL"):
        refuse(metric, f"{told}: its column is {found}, and that is a bound's")
    if _says_fid(metric, found):
        refuse(metric, f"{told}: its column is {shown(found)}, {RESERVED}", "call it FD, or what it is")
    return found


def _says_fid(metric: Metric, text: str) -> bool:
    return bool(FID.search(text)) and type(metric).__module__.partition(".")[0] != "ddpmkit"


def why_not(metric: Metric, n: int, n_reference: int, train: Levels | None, heldout: Levels | None) -> str | None:
    """Return why a metric can't be taken of so many images, a line of text; None when it can.

    Raises:
        DdpmkitError: when it gives something else.
    """
    with blame("metric", metric.name):
        found = metric.why_not(n, n_reference, train, heldout)
    if found is not None and (not isinstance(found, str) or not found.strip() or not found.isprintable()):
        refuse(metric, f"metric '{metric.name}': why_not gives {shown(found)}, not a line of text or None")
    return found


def remark(metric: Metric, details: Mapping[str, Any]) -> str:
    """Return what a metric says of a value with these details, a line of text.

    Raises:
        DdpmkitError: when it gives something else.
    """
    with blame("metric", metric.name):
        found = metric.remark(details)
    if not isinstance(found, str):
        refuse(metric, f"metric '{metric.name}': its remark is {shown(found)}, not a line of text")
    return one_line(found)


def measured(metric: Metric, sets: Sets) -> Measurement:
    """Return what a metric measures, what stands beside it included: finite, influences (N,), details JSON values.

    Raises:
        DdpmkitError: when it gives something else.
        Exception: whatever it raises; an exit is an error that names it.
    """
    raised: Exception | None = None
    with blame("metric", metric.name):
        try:
            found = metric.value(sets)
        except Exception as err:  # another metric may stand: the caller decides
            raised = err
    if raised is not None:
        raise raised
    return _measurement(metric, found, len(sets.x))


def _measurement(metric: Metric, found: Any, n: int) -> Measurement:
    import numpy as np

    told = f"metric '{metric.name}'"
    if not isinstance(found, Measurement):
        found = Measurement(found)
    value = as_array(told, "a value", found.value)
    if value.ndim or value.dtype.kind not in "iuf":
        refuse(
            metric,
            f"{told} gives {shown(found.value)}, not a number or a Measurement",
            "return a float, or Measurement(value, influence=..), which gives it an error",
        )
    if not np.isfinite(value):
        raise DdpmkitError(f"it came out as {float(value)}", "look at the samples")
    influence = None if found.influence is None else _influence(metric, told, found.influence, n)
    details, beside = found.details, found.beside
    if not isinstance(details, dict) or not _is_json(details):
        refuse(metric, f"{told}: its details are {shown(details)}, not a dict of JSON values")
    if taken := [key for key in OURS if key in details]:
        refuse(metric, f"{told}: its details hold '{taken[0]}', which the record says by itself")
    if not isinstance(beside, Mapping) or not all(isinstance(k, str) and NAME.fullmatch(k) for k in beside):
        refuse(metric, f"{told}: what stands beside is {shown(beside)}, not a dict of names and measurements")
    if fid := next((key for key in beside if _says_fid(metric, key)), None):
        refuse(metric, f"{told}: what stands beside is called {shown(fid)}, {RESERVED}", "call it FD, or what it is")
    others = {name: _measurement(metric, other, n) for name, other in beside.items()}
    return Measurement(float(value), influence, details, others, found.rows)


def _influence(metric: Metric, told: str, given: Any, n: int) -> Array:
    import numpy as np

    array = as_array(told, "influences", given)
    if array.dtype.kind not in "iuf" or array.shape != (n,) or not np.isfinite(array).all():
        refuse(metric, f"{told} gives influences that are not {n} finite numbers", "one for each sample, or None")
    return np.array(array, dtype=np.float64, order="C")


def _is_json(value: Any) -> bool:
    """Whether a value is made of what JSON has a word for, a number that is none excepted."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_json(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_json(v) for v in value)
    return value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
