"""What a class must be to be a component: asked when it is registered."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import NAME
from ddpmkit.plugin.interfaces import kind_of
from ddpmkit.plugin.parameters import parameters

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Kind

# What a class may say of itself, and the method that it must then give; it would be missed after a training only.
SAID = (("learned", "from_network"), ("fitted", "x0_variance"))


def class_problem(kind: Kind, cls: Any) -> str:
    """Return what makes a class unusable as a component of a kind, or an empty string."""
    if not (isinstance(cls, type) and issubclass(cls, kind.interface)):
        return f"{cls!r} is no subclass of {kind.interface.__name__}"
    label = f"class {cls.__name__} is not usable:"
    if dataclasses.is_dataclass(cls) and (attribute := _annotated(cls)):
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
    for attribute, method in SAID:
        inherited = getattr(kind.interface, method, None)
        if inherited and getattr(cls, attribute, None) is True and getattr(cls, method) is inherited:
            return f"{label} it says {attribute} = True and lacks {method}"
    if not isinstance(cls.version, int):
        return f"{label} its version must be an integer"
    try:
        with blame(kind.name, name):  # the author's own __post_init__ may raise anything
            try:
                for p in parameters(cls):
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


def _annotated(cls: type) -> str:
    """A field that is meant to be what its kind declares, as the unit of a metric, and no parameter; or empty."""
    own = {f.name for f in dataclasses.fields(cls)}
    for base in cls.__mro__:
        for name, declared in inspect.get_annotations(base).items():
            if name in own and "ClassVar" in str(declared):  # text, or typing's own
                return name
    return ""
