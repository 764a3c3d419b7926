"""The metrics that a study asks for, by name: of drawn images those that are registered, and ``nll``, a likelihood."""

from __future__ import annotations

from collections.abc import Iterable

from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.settings import NLL
from ddpmkit.study.values import canonical, words


def read_metrics(value: str | Iterable[str], registry: Registry) -> tuple[str, ...]:
    """Read comma text or a list of metrics; each in its one form, without repeats.

    Raises:
        DdpmkitError: for an unknown name or parameter, or a bad value.
    """
    return tuple(dict.fromkeys(_one(text, registry) for text in words(value)))


def of_images(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return those that are taken of drawn images."""
    return tuple(metric for metric in metrics if metric != NLL)


def _one(text: str, registry: Registry) -> str:
    name, raw = spec.parse(text)
    if name != NLL:
        try:
            return canonical("metric", text, registry)
        except DdpmkitError as err:
            meant = did_you_mean(name, (NLL,))
            if meant and err.message == f"unknown metric '{name}'":
                raise DdpmkitError(f"{err.message}{meant}", err.hint) from None
            if name.lower() == "fid" and err.message.startswith("unknown metric"):
                hint = "FID is fd over the features of Inception: --metrics fd --features inception"
                raise DdpmkitError(err.message, hint) from None
            raise
    if raw:
        raise DdpmkitError(f"'{text}': nll takes no parameters", "--nll-evals, --nll-se and --nll-full are settings")
    return NLL
