"""What all kinds of component share: a name, a reference, a version, and parameters that check themselves."""

from __future__ import annotations

import inspect
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from ddpmkit.plugin import spec


@dataclass(frozen=True)
class Component(spec.Spelled, ABC):
    """What all kinds share: a name, a reference, an integer version, and parameters that check themselves."""

    reference: ClassVar[str] = ""
    used_by: ClassVar[str] = ""  # whose code or papers use it, and under which name
    version: ClassVar[int] = 1  # raise it when the same parameters come to mean other numbers

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
