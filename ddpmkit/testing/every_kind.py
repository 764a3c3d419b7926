"""What is asked of components of every kind: that they explain themselves, and come back from their text."""

from __future__ import annotations

from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.plugin.interfaces import kind_of
from ddpmkit.plugin.parameters import Spelled, parameters
from ddpmkit.testing.check import fail, named


def docstring(component: Any) -> None:
    """The class says in its docstring what it is."""
    cls = type(component)
    if len(cls.summary()) < 3:
        fail(
            f"class {cls.__name__} has no docstring, or none that begins with a sentence",
            "write a docstring of one sentence; ddpmkit ls shows its first line",
        )


def reference(component: Any) -> None:
    """It names the paper and the equation that it is from."""
    cls = type(component)
    if not isinstance(cls.reference, str) or len(cls.reference.strip()) < 3:
        fail(
            f"class {cls.__name__} has {_too_short('reference', cls.reference)}",
            'write reference = "Author YEAR, eq. N"; of an idea of your own, say where it is written down',
        )


def help_texts(component: Any) -> None:
    """Every parameter has a help text."""
    lacking = [p for p in parameters(type(component)) if len(p.help.strip()) < 3]
    if lacking:
        told = ", ".join(f"{p.name} of {component.name} has {_too_short('help text', p.help)}" for p in lacking)
        fail(
            told,
            'write field: float = param(1.0, "what it is")',
        )


def _too_short(what: str, given: Any) -> str:
    """What there is instead of a text that says something: it may be there and say too little."""
    return (
        f"the {what} '{given.strip()}', too short to say" if isinstance(given, str) and given.strip() else f"no {what}"
    )


def text_round_trip(component: Any) -> None:
    """What its spec text builds is the same component again, equal and with the same hash."""
    cls = type(component)
    again = _rebuilt(component)
    if again != component or hash(again) != hash(component):
        fail(
            f"{component.name}: what '{spec.format(component, full=True)}' builds is not equal to it",
            "keep all state in typed fields, leave eq and hash to the dataclass, and change no field in __post_init__",
        )
    if dict(vars(again)).keys() != dict(vars(component)).keys():
        fail(f"{component.name} remembers something beside its fields", f"a {cls.__name__} holds its parameters alone")


def _rebuilt(component: Any) -> Any:
    from ddpmkit.plugin.registry import Registry

    kind = kind_of(type(component))
    parts = spec.parts(component)

    def build(cls: type[Spelled], text: str) -> Any:
        own = next((p for p in parts.values() if spec.format(p, full=True) == text), None)  # of a plugin, perhaps
        part_kind = kind_of(cls)
        return own if own is not None or part_kind is None else Registry(installed=False).build(part_kind.name, text)

    _, raw = spec.parse(spec.format(component, full=True))
    if kind is None:
        raise DdpmkitError(f"{type(component).__name__} is no component")
    return spec.construct(type(component), raw, kind=kind.name, build=build)


CHECKS = named(docstring, reference, help_texts, text_round_trip)
