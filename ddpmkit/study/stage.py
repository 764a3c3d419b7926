"""A stage: one unit of work, named by the hash of all that can change its output.

What a kind of stage is (what enters its id, how it is planned from a cell, how it runs, what it leaves) stands in one
file of ``study/stages``; here is what all kinds share.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.records import Record


def upstream(kind: str, **options: Any) -> Any:
    """Declare a field that holds the id of the stage of that kind whose output is read."""
    return field(metadata={"upstream": kind}, **options)


def added(before: Any, **metadata: Any) -> Any:
    """Declare a field that not every spec has: it enters the id only where it differs from ``before``.

    A field that is added to a kind later is declared so, with the value that means how it was before the field existed.
    That value never changes again, whatever becomes of defaults, and so no id moves that need not.
    """
    return field(default=before, metadata={"added": True, **metadata})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What can change a stage's output: its kind, and the fields; the hash of both and of the version is the id."""

    kind: ClassVar[str]
    version: ClassVar[int]  # raise it when the same spec comes to mean other results
    # What plugins replaced in torch, numpy or scipy, for every stage of the process: plugin -> what it was made of.
    changed_by: dict[str, str] | None = added(None)

    def json(self) -> dict[str, Any]:
        """The fields as JSON values, without those that are as they were before they existed."""
        out, own = {}, cast(Any, type(self))  # mypy takes the hash of a class for that of its instances
        for name, before in _stated(own):
            value = getattr(self, name)
            if before is MISSING or value != before:
                out[name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read a spec back.

        Raises:
            DdpmkitError: when the record has other fields: it is another ddpmkit's.
        """
        stated: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        try:
            return cls(**stated)
        except TypeError as err:
            raise DdpmkitError(f"a {cls.kind} stage of another ddpmkit: {err}", "run the study again") from None

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """(kind, id) of the stages whose output is read."""
        ids = ((kind, getattr(self, name)) for name, kind in _upstream(cast(Any, type(self))))
        return tuple((kind, stage) for kind, stage in ids if stage is not None)


# Asked of every stage of a plan, of which there may be tens of thousands; a class answers the same each time.
@functools.cache
def _stated(spec: Any) -> tuple[tuple[str, Any], ...]:
    """The fields of a spec, each with the value that is left out; MISSING where none is."""
    return tuple((f.name, f.default if "added" in f.metadata else MISSING) for f in fields(spec))


@functools.cache
def _upstream(spec: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a spec that are ids of stages, and the kinds of those."""
    return tuple((f.name, f.metadata["upstream"]) for f in fields(spec) if "upstream" in f.metadata)


S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True)
class Stage(Generic[S_co]):
    """One unit of work.

    Attributes:
        spec: what can change the output.
        recipe: how to find the same things again here, a path or a plugin's version; never hashed.
        label: for people.
        work: size in units of its kind, for estimates of time.
        follows: the id of a stage of its kind that is run before it, since what that one leaves spares it work; its own
            output is the same without, and so it is never hashed.
    """

    spec: S_co
    recipe: dict[str, Any]
    label: str
    work: float
    follows: str | None = None

    @property
    def kind(self) -> str:
        """What it does."""
        return self.spec.kind

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """(kind, id) of the stages whose output it reads, and of the one that it follows."""
        return self.spec.needs if self.follows is None else (*self.spec.needs, (self.kind, self.follows))

    def blocked_by(self, other: str, *, diverged: bool) -> bool:
        """Whether it can't run where another stage has no output: it reads that, or would diverge as that one did."""
        return any(need == other for _, need in (self.needs if diverged else self.spec.needs))

    @functools.cached_property
    def id(self) -> str:
        """SHA-256 of the canonical JSON of kind, version and spec."""
        return files.sha256(files.canonical(self.named).encode())

    @property
    def named(self) -> dict[str, Any]:
        """What the id is the hash of: the content of ``spec.json``."""
        return {"kind": self.kind, "version": self.spec.version, "spec": self.spec.json()}

    def json(self) -> dict[str, Any]:
        """The stage as JSON values."""
        return {
            "kind": self.kind,
            "id": self.id,
            "spec": self.spec.json(),
            "needs": [list(n) for n in self.needs],
            "how": self.recipe,
            "label": self.label,
            "work": self.work,
            **({} if self.follows is None else {"follows": self.follows}),
        }


@dataclass(frozen=True)
class Output:
    """What a stage commits: its record, and a .safetensors file for each named group of arrays.

    ``work`` is what of the stage's work was done, where another stage had done some of it.
    """

    record: Record
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    work: float | None = None
