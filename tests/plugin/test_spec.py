"""Components as text: the grammar, the one form of error message, and the exact round trip."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union

import numpy as np
import pytest

from ddpmkit import Dataset, DdpmkitError, Schedule, Sigma, param
from ddpmkit.plugin import spec
from ddpmkit.plugin.interfaces import Component, kind_of
from ddpmkit.plugin.parameters import parameters
from ddpmkit.plugin.registry import Registry

# Everything the grammar gives a meaning to, and what shells, JSON and URLs give one to.
AWKWARD = [
    "",
    "plain",
    "none",
    "true",
    "1/2",
    "a,b",
    "a:b=c",
    "100%",
    "%2C",
    "%252C",
    "%",
    "%%",
    "=",
    "a=b=c",
    "two words",
    "C:\\dir\\file.npz",
    "/dir/file.npz",
    "+",
    "ü€😀",
    "e\u0301",
    "a#b?c&d",
    '"quoted"',
    "[1]",
]


@dataclass(frozen=True)
class Everything(Schedule):
    """One field of each type that a spec can carry."""

    name = "everything"
    reference = "none"
    i: int = param(3, "an int", ge=-5, le=99)
    f: float = param(0.5, "a float", gt=-2, lt=2)
    b: bool = param(False, "a bool")
    s: str = param("text", "a string")
    c: Literal["one", "two:three", "four,five"] = param("one", "a choice")
    n: Literal[1, 2, 4] = param(1, "a choice of numbers")
    oi: int | None = param(None, "an optional int", ge=0)
    of: float | None = param(1.5, "an optional float")
    os: str | None = param(None, "an optional string")
    ti: tuple[int, ...] = param((1, 2), "ints", ge=1)
    tf: tuple[float, ...] = param((), "floats")
    ts: tuple[str, ...] = param((), "strings")
    ot: tuple[int, ...] | None = param(None, "optional ints")

    def betas(self, T: int) -> Any:
        return np.full(T, 0.1)


REGISTRY = Registry(installed=False)
ENTRIES = REGISTRY.entries()


@dataclass(frozen=True)
class Whole(Schedule):
    """Parts of three kinds beside a value of its own."""

    name = "whole"
    reference = "none"
    base: Schedule = param(REGISTRY.build("schedule", "cosine:s=0.01"), "a schedule")
    sigma: Sigma | None = param(None, "a sigma, or none")
    data: Dataset = param(REGISTRY.build("dataset", "npz"), "a data set, whose path may be anything")
    w: float = param(0.5, "a float")

    def betas(self, T: int) -> Any:
        return self.base.betas(T)


def build(tp: type, text: str) -> Any:
    kind = kind_of(tp)
    assert kind is not None
    return REGISTRY.build(kind.name, text)


def read(text: str, cls: type = Everything) -> Any:
    name, raw = spec.parse(text)
    assert name == cls.name
    return spec.construct(cls, raw, kind="schedule", build=build)


def draw(tp: Any, bounds: dict[str, float], rng: random.Random) -> Any:
    """A value of the type within the bounds, by a rule of this test's own."""
    if typing.get_origin(tp) in (Union, types.UnionType):
        inner = next(a for a in typing.get_args(tp) if a is not type(None))
        return None if rng.random() < 0.3 else draw(inner, bounds, rng)
    if typing.get_origin(tp) is Literal:
        return rng.choice(typing.get_args(tp))
    if typing.get_origin(tp) is tuple:
        out = tuple(draw(typing.get_args(tp)[0], bounds, rng) for _ in range(rng.randrange(4)))
        return tuple(v for v in out if v != "")
    if isinstance(tp, type) and issubclass(tp, Component):
        return draw_part(tp, rng)
    if tp is bool:
        return rng.random() < 0.5
    if tp is str:
        return rng.choice(AWKWARD) + rng.choice(["", *AWKWARD])
    low = bounds.get("ge", bounds.get("gt", -1e3))
    high = bounds.get("le", bounds.get("lt", low + 10.0 ** rng.randrange(-3, 6)))
    if tp is int:
        return rng.randint(int(low), int(high))
    value = rng.uniform(low, high)
    return value if low < value < high else (low + high) / 2


def draw_part(interface: type, rng: random.Random) -> Any:
    """Any built-in of the kind, with parameters and parts that are drawn too."""
    while True:
        cls = rng.choice([e.cls for e in ENTRIES if issubclass(e.cls, interface)])
        try:
            return cls(**{p.name: draw(p.type, p.bounds, rng) for p in parameters(cls)})
        except ValueError:
            continue  # a check between fields


CLASSES = [pytest.param(e.cls, id=f"{e.kind}-{e.name}") for e in ENTRIES] + [
    pytest.param(Everything, id="everything"),
    pytest.param(Whole, id="whole"),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_round_trip_of_the_defaults(cls: type) -> None:
    obj = cls()
    assert spec.format(obj) == cls.name
    assert read(spec.format(obj), cls) == obj
    full = spec.format(obj, full=True)
    assert full.count(":") == len(dataclasses.fields(cls))
    assert read(full, cls) == obj


@pytest.mark.parametrize("cls", CLASSES)
def test_round_trip_of_drawn_values(cls: type) -> None:
    rng = random.Random(cls.__name__)
    declared = parameters(cls)
    objects = []
    for _ in range(80):
        try:
            objects.append(cls(**{p.name: draw(p.type, p.bounds, rng) for p in declared}))
        except ValueError as err:
            # A check between fields may refuse a draw; the declared bounds may not.
            assert not re.match(r".*: \w+ must be (an? |one of)", str(err)), err  # noqa: PT017 - not every draw raises
    assert len(objects) >= 30
    for obj in objects:
        for full in (False, True):
            text = spec.format(obj, full=full)
            back = read(text, cls)
            assert back == obj, text
            # == takes 1 and 1.0 and True for the same; a record does not.
            assert repr(back) == repr(obj), text
        assert spec.from_values(cls, json.loads(json.dumps(spec.values(obj))), build) == obj
    # A comma separates specs wherever it stands.
    texts = [spec.format(obj) for obj in objects]
    assert spec.split(",".join(texts)) == texts


@pytest.mark.parametrize("value", [*AWKWARD, " leading", "trailing ", "\ttab", "line\nbreak\n", "\u3000wide", " "])
@pytest.mark.parametrize("field", ["s", "os", "ts"])
def test_awkward_strings_survive(field: str, value: str) -> None:
    if field == "ts" and value == "":
        # A tuple of one empty string and an empty tuple would be the same text.
        with pytest.raises(ValueError, match=r"^everything: ts must be a tuple of str"):
            Everything(ts=("",))
        return
    obj = Everything(**{field: (value, value) if field == "ts" else value})
    text = spec.format(obj)
    assert spec.split(f"{text},everything") == [text, "everything"]
    assert read(text) == obj


def test_drawn_parts_are_deep() -> None:
    # Or the round trips above would show little.
    rng = random.Random("whole")
    drawn = [draw_part(Schedule, rng) for _ in range(400)]
    assert max(len(list(spec.whole(obj))) for obj in drawn) >= 3
    assert len({type(obj) for obj in drawn}) > 10


def test_the_absent_part_and_a_part_that_is_called_none_differ() -> None:
    @dataclass(frozen=True)
    class Nothing(Sigma):
        name = "none"

        def log_bounds(self, tables: object) -> Any:
            raise NotImplementedError

    assert read("whole:sigma=none", Whole).sigma is None
    assert spec.format(Whole(sigma=Nothing())) == "whole:sigma=%6Eone"


def test_the_absent_value_and_the_word_none_differ() -> None:
    assert read("everything:os=none").os is None
    assert read(spec.format(Everything(os="none"))).os == "none"
    assert read("everything:of=none").of is None


def test_a_choice_is_written_as_it_is_listed() -> None:
    # The error message, ls and show all offer "static" and "none": both words must be accepted, and printed back.
    obj = Registry(installed=False).build("sampler", "ancestral:clip=none")
    assert obj.clip == "none"
    assert spec.format(obj) == "ancestral:clip=none"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (0.1, "0.1"),
        (1e-4, "0.0001"),
        (2e-05, "2e-05"),
        ("a,b:c%d", "a%2Cb%3Ac%25d"),
        ("a/b", "a/b"),
        ((1, 2, 2), "1/2/2"),
        (("a/b", "c"), "a%2Fb/c"),
        ((), ""),
    ],
)
def test_how_values_are_written(value: object, text: str) -> None:
    assert spec.encode(value) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("everything", {}),
        ("  everything  ", {}),
        ("everything:i=+5", {"i": 5}),
        ("everything:f=1", {"f": 1.0}),
        ("everything:f=.5", {"f": 0.5}),
        ("everything:f=1.", {"f": 1.0}),
        ("everything:f=-1e-3:b=true", {"f": -0.001, "b": True}),
        ("everything:s=", {"s": ""}),
        ("everything:s=a=b", {"s": "a=b"}),
        ("everything:s=a%2Cb%3Ac%25", {"s": "a,b:c%"}),
        ("everything:s=a%2cb", {"s": "a,b"}),
        ("everything:s=a+b", {"s": "a+b"}),
        ("everything:ti=1/2/2", {"ti": (1, 2, 2)}),
        ("everything:ti=", {"ti": ()}),
        ("everything:tf=1/2.5", {"tf": (1.0, 2.5)}),
        ("everything:ts=a%2Fb/c", {"ts": ("a/b", "c")}),
        ("everything:n=4", {"n": 4}),
        ("everything:c=two%3Athree", {"c": "two:three"}),
    ],
)
def test_what_is_read(text: str, expected: dict[str, Any]) -> None:
    assert read(text) == Everything(**expected)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("i=abc", "everything: i must be an int >= -5 and <= 99, got 'abc'"),
        ("i=1.0", "everything: i must be an int >= -5 and <= 99, got '1.0'"),
        ("i=1_0", "everything: i must be an int >= -5 and <= 99, got '1_0'"),
        ("i=", "everything: i must be an int >= -5 and <= 99, got ''"),
        ("i=100", "everything: i must be an int >= -5 and <= 99, got '100'"),
        ("i=-6", "everything: i must be an int >= -5 and <= 99, got '-6'"),
        ("i=none", "everything: i must be an int >= -5 and <= 99, got 'none'"),
        ("f=2", "everything: f must be a float > -2 and < 2, got '2.0'"),
        ("f=-2", "everything: f must be a float > -2 and < 2, got '-2.0'"),
        ("f=nan", "everything: f must be a float > -2 and < 2, got 'nan'"),
        ("f=inf", "everything: f must be a float > -2 and < 2, got 'inf'"),
        ("tf=1e999", "everything: tf must be a tuple of float, got 'inf'"),
        ("f=1e", "everything: f must be a float > -2 and < 2, got '1e'"),
        ("f=true", "everything: f must be a float > -2 and < 2, got 'true'"),
        ("b=yes", "everything: b must be a bool, got 'yes'"),
        ("b=1", "everything: b must be a bool, got '1'"),
        ("b=True", "everything: b must be a bool, got 'True'"),
        ("n=3", "everything: n must be one of 1, 2, 4, got '3'"),
        ("c=One", "everything: c must be one of one, two:three, four,five, got 'One'"),
        ("oi=x", "everything: oi must be an int or none >= 0, got 'x'"),
        ("oi=-1", "everything: oi must be an int or none >= 0, got '-1'"),
        ("ti=1//2", "everything: ti must be a tuple of int >= 1, got '1//2'"),
        ("ti=1/0", "everything: ti must be a tuple of int >= 1, got '1/0'"),
        ("ti=[1]", "everything: ti must be a tuple of int >= 1, got '[1]'"),
        ("ts=a//b", "everything: ts must be a tuple of str, got 'a//b'"),
    ],
)
def test_a_bad_value_gives_the_one_form_of_message(raw: str, message: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        read(f"everything:{raw}")
    assert caught.value.message == message
    assert caught.value.hint == "ddpmkit show everything"
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "values",
    [
        {"i": 1.0},
        {"i": True},
        {"f": "0.5"},
        {"f": True},
        {"f": float("nan")},
        {"f": None},
        {"b": 1},
        {"s": 1},
        {"c": "three"},
        {"n": True},
        {"n": 1.0},
        {"oi": "none"},
        {"ti": [1, 2]},
        {"ti": (1, "2")},
        {"ti": (1, True)},
        {"ts": ("a", 1)},
        {"of": float("-inf")},
        {"f": 10**400},
    ],
    ids=lambda v: str(v)[:20],
)
def test_python_values_are_checked_as_text_is(values: dict[str, Any]) -> None:
    (key,) = values
    with pytest.raises(ValueError, match=f"^everything: {key} must be "):
        Everything(**values)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        pytest.param({"f": 1}, {"f": 1.0}, id="int for float"),
        pytest.param({"of": 1}, {"of": 1.0}, id="int for optional float"),
        pytest.param({"tf": (1, 2)}, {"tf": (1.0, 2.0)}, id="ints for floats"),
        pytest.param({"f": -0.0}, {"f": 0.0}, id="negative zero"),
        pytest.param({"f": np.float64(0.1)}, {"f": 0.1}, id="numpy float"),
    ],
)
def test_equal_settings_are_equal_records(given: dict[str, Any], stored: dict[str, Any]) -> None:
    obj, plain = Everything(**given), Everything(**stored)
    assert obj == plain
    # The record decides what is the same work, so its very text must agree.
    assert json.dumps(spec.values(obj)) == json.dumps(spec.values(plain))
    assert spec.format(obj, full=True) == spec.format(plain, full=True)
    assert read(spec.format(obj)) == obj


def test_components_are_frozen_and_hashable() -> None:
    obj = Everything()
    with pytest.raises(dataclasses.FrozenInstanceError):
        obj.f = 1.0  # type: ignore[misc] # that it is refused is the point
    assert hash(obj) == hash(Everything())
    assert len({obj, Everything(), Everything(f=0.25)}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine:s", "'cosine:s': expected key=value after ':', got 's'"),
        ("cosine:", "'cosine:': expected key=value after ':', got ''"),
        ("cosine:=1", "'cosine:=1': expected key=value after ':', got '=1'"),
        ("cosine:s=1:s=2", "'cosine:s=1:s=2': parameter 's' is given twice"),
    ],
)
def test_text_that_is_no_spec(text: str, message: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        spec.parse(text)
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", ",", "a,", ",a", "a,,b", " , a"])
def test_a_list_with_an_empty_entry_is_refused(text: str) -> None:
    with pytest.raises(DdpmkitError, match="has an empty entry"):
        spec.split(text)


def test_a_list_is_split_at_commas_only() -> None:
    assert spec.split("linear, cosine:s=0.01 ,unet:mults=1/2") == ["linear", "cosine:s=0.01", "unet:mults=1/2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine:S=1", "schedule 'cosine' has no parameter 'S'; it takes s, max_beta"),
        (
            "cosine:maxbeta=1",
            "schedule 'cosine' has no parameter 'maxbeta'; it takes s, max_beta; did you mean 'max_beta'?",
        ),
    ],
)
def test_an_unknown_parameter_is_named_with_the_known_ones(text: str, message: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        Registry(installed=False).build("schedule", text)
    assert caught.value.message == message
    assert caught.value.hint == "ddpmkit show cosine"


def test_a_component_without_parameters_says_so() -> None:
    with pytest.raises(DdpmkitError, match=r"^sigma 'beta' has no parameter 'x'; it takes none$"):
        Registry(installed=False).build("sigma", "beta:x=1")


def test_parameters_are_read_with_type_default_help_and_bounds() -> None:
    by_name = {p.name: p for p in parameters(Everything)}
    assert list(by_name) == ["i", "f", "b", "s", "c", "n", "oi", "of", "os", "ti", "tf", "ts", "ot"]
    assert (by_name["i"].type, by_name["i"].default, by_name["i"].help) == (int, 3, "an int")
    assert by_name["i"].allowed == ">= -5 and <= 99"
    assert by_name["s"].allowed == ""
    names = {"oi": "int or none", "c": "one of one, two:three, four,five", "ts": "tuple of str", "b": "bool"}
    assert {k: by_name[k].type_name for k in names} == names


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (dict, "dict"),
        (list[int], "list[int]"),
        (tuple[int, int], "tuple[int, int]"),
        (tuple[tuple[int, ...], ...], "tuple[tuple[int, ...], ...]"),
        (int | str, "int | str"),
        (complex, "complex"),
        (Any, "Any"),
    ],
)
def test_a_field_that_a_spec_cannot_carry_is_named(annotation: Any, shown: str) -> None:
    cls = dataclasses.make_dataclass("Odd", [("w", annotation, dataclasses.field(default=None))], frozen=True)
    with pytest.raises(TypeError) as caught:
        parameters(cls)
    assert str(caught.value) == f"field 'w' has type {shown}, which a spec cannot carry"


def test_a_field_without_a_default_is_named() -> None:
    cls = dataclasses.make_dataclass("Odd", [("w", int)], frozen=True)
    with pytest.raises(TypeError, match=r"^field 'w' has no default$"):
        parameters(cls)


def test_a_check_between_fields_names_the_component() -> None:
    @dataclass(frozen=True)
    class Ends(Schedule):
        name: ClassVar[str] = "ends"
        low: float = param(0.1, "low")
        high: float = param(0.2, "high")

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.low >= self.high:
                raise ValueError("low must be below high")

    with pytest.raises(DdpmkitError) as caught:
        read("ends:low=0.3", Ends)
    assert "low must be below high" in caught.value.message
    assert caught.value.message.startswith("ends: ")


def test_a_check_of_its_own_does_not_switch_the_declared_bounds_off() -> None:
    @dataclass(frozen=True)
    class Forgot(Schedule):
        name: ClassVar[str] = "forgot"
        w: float = param(0.1, "w", ge=0)

        def __post_init__(self) -> None:
            """An author who does not call super()."""

    with pytest.raises(DdpmkitError, match=r"^forgot: w must be a float >= 0, got '-1.0'$"):
        read("forgot:w=-1", Forgot)
