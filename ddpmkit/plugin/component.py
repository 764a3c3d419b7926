"""What all kinds of component share: a name, a reference, a version, and parameters that check themselves."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

from ddpmkit.plugin import spec
from ddpmkit.plugin.parameters import Spelled


@dataclass(frozen=True)
class Component(Spelled, ABC):
    """What all kinds share: a name, a reference, an integer version, and parameters that check themselves."""

    reference: ClassVar[str] = ""
    used_by: ClassVar[str] = ""  # whose code or papers use it, and under which name
    version: ClassVar[int] = 1  # raise it when the same parameters come to mean other numbers

    def __new__(cls, *args: Any, **given: Any) -> Component:
        """Keep the names of what is given, until it is checked: a name of others fills the rest alone."""
        self = super().__new__(cls)
        fields = dataclasses.fields(cls)
        if (args or given) and any(f.metadata.get("fills") for f in fields):
            names = [f.name for f in fields if f.init and not f.kw_only][: len(args)]
            object.__setattr__(self, spec.GIVEN, (*names, *given))
        return self

    def __post_init__(self) -> None:
        """Check every field against its declaration."""
        spec.validate(self)

    def __str__(self) -> str:
        """The component as spec text, ``cosine:s=0.01``: its name, and the parameters that differ from the defaults."""
        return spec.format(self)

    @classmethod
    def description(cls) -> str:
        """The class's own docstring, or an empty string."""
        doc = cls.__dict__.get("__doc__") or ""
        # dataclass() writes "Name(field: type = ...)" where the author wrote nothing.
        return "" if doc.startswith(f"{cls.__name__}(") else inspect.cleandoc(doc)

    @classmethod
    def summary(cls) -> str:
        """The first line of :meth:`description`."""
        return cls.description().split("\n")[0]
