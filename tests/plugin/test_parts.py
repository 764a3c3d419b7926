"""A component as a parameter of another: text, errors, records, identity, and what zero-snr makes of its base."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmkit import Backbone, DdpmkitError, Schedule, build, param, tables_for
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear
from ddpmkit.builtin.schedules.rescaled import Rescaled
from ddpmkit.builtin.schedules.zero_snr import ZeroSnr
from ddpmkit.cli import main
from ddpmkit.plugin import spec
from ddpmkit.plugin.contract import class_problem
from ddpmkit.plugin.interfaces import KINDS, Component
from ddpmkit.plugin.loader import load_builtin
from ddpmkit.plugin.registry import Registry

PLUGIN = '''
from dataclasses import dataclass
from ddpmkit import Schedule, build, hookimpl, param

@dataclass(frozen=True)
class Flat(Schedule):
    """The same beta at every step, as a list."""
    name = "{name}"
    beta: float = param({beta}, "beta", gt=0, lt=1)

    def betas(self, T):
        return [self.beta] * T

@dataclass(frozen=True)
class Halved(Schedule):
    """Half of another schedule's betas."""
    name = "{name}-halved"
    of: Schedule = param(build("schedule", "linear"), "what is halved")

    def betas(self, T):
        return self.of.betas(T) / 2

@hookimpl
def ddpmkit_register_schedules():
    return [Flat, Halved]
'''
BUILTINS = Registry(installed=False)


def plugin(name: str = "flat", beta: float = 0.02) -> str:
    return PLUGIN.format(name=name, beta=beta)


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("part_", "ddpmkit_p_")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path, forget: None) -> Callable[..., str]:
    def make(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> Callable[..., None]:
    """Make an installed distribution that is only a folder on sys.path; the same one may be made again."""

    def make(dist: str, text: str, version: str = "0.1") -> None:
        module = "part_" + dist.replace("-", "_")
        folder = tmp_path / f"site-{dist}-{version}"
        info = folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ddpmkit]\n{dist} = {module}\n")
        (folder / f"{module}.py").write_text(text)
        monkeypatch.setattr(sys, "path", [p for p in sys.path if f"site-{dist}-" not in p])
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop(module, None)

    return make


# --- text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zero-snr", ZeroSnr(Linear())),
        ("zero-snr:base=cosine", ZeroSnr(Cosine())),
        ("zero-snr:base=cosine%3As=0.01", ZeroSnr(Cosine(s=0.01))),
        ("zero-snr:base=cosine%3As=0.01%3Amax_beta=0.9", ZeroSnr(Cosine(0.01, 0.9))),
        ("zero-snr:base=zero-snr%3Abase=cosine%253As=0.01", ZeroSnr(ZeroSnr(Cosine(0.01)))),
    ],
)
def test_a_part_is_read_and_written_as_its_spec(text: str, expected: Any) -> None:
    obj = BUILTINS.build("schedule", text)
    assert obj == expected
    assert spec.format(obj) == str(obj) == text
    assert BUILTINS.build("schedule", spec.format(obj, full=True)) == obj
    assert hash(obj) == hash(expected)


def test_parts_differ_by_their_parameters() -> None:
    assert ZeroSnr(Cosine(0.01)) != ZeroSnr(Cosine(0.02))
    assert len({ZeroSnr(Cosine(s)) for s in (0.01, 0.02, 0.01)}) == 2
    assert [str(p) for p in spec.whole(ZeroSnr(ZeroSnr()))] == ["zero-snr:base=zero-snr", "zero-snr", "linear"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("zero-snr:base=cosin", "unknown schedule 'cosin'; did you mean 'cosine'?", "ddpmkit ls schedule"),
        ("zero-snr:base=beta", "unknown schedule 'beta'", "ddpmkit ls schedule"),
        ("zero-snr:base=", "unknown schedule ''", "ddpmkit ls schedule"),
        ("zero-snr:base=cosine%3As=x", "cosine: s must be a float >= 0, got 'x'", "ddpmkit show cosine"),
        (
            "zero-snr:base=cosine:s=0.02",
            "schedule 'zero-snr' has no parameter 's'; it takes base",
            "a parameter of base is written zero-snr:base=cosine%3As=0.02",
        ),
        ("zero-snr:s=0.02", "schedule 'zero-snr' has no parameter 's'; it takes base", "ddpmkit show zero-snr"),
    ],
)
def test_a_part_that_is_none_is_two_lines(text: str, message: str, hint: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        BUILTINS.build("schedule", text)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint


@pytest.mark.parametrize("given", ["linear", 3, None, build("sigma", "beta")])
def test_in_python_a_part_is_a_component(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^zero-snr: base must be a schedule, got '") as caught:
        ZeroSnr(given)
    assert ("build('schedule', 'linear') makes one" in str(caught.value)) == (given == "linear")


def test_a_field_must_name_a_kind() -> None:
    @dataclass(frozen=True)
    class Vague(Schedule):
        name = "vague"
        of: Component = param(Linear(), "anything")

        def betas(self, T: int) -> Any:
            raise NotImplementedError

    @dataclass(frozen=True)
    class Texted(Schedule):
        name = "texted"
        of: Schedule = param("linear", "text")

        def betas(self, T: int) -> Any:
            raise NotImplementedError

    @dataclass(frozen=True)
    class Bare(Schedule):
        name = "bare"
        of: Backbone = field()

        def betas(self, T: int) -> Any:
            raise NotImplementedError

    kind = KINDS["schedule"]
    assert "field 'of' has type Component; name the kind" in class_problem(kind, Vague)
    assert "of must be a schedule, got 'linear'; build('schedule', 'linear') makes one" in class_problem(kind, Texted)
    assert "field 'of' has no default" in class_problem(kind, Bare)
    assert class_problem(kind, ZeroSnr) == ""


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [50, 1000])
@pytest.mark.parametrize("base", ["cosine:s=0.1", "laplace", "jsd", "constant:beta=0.001", "sigmoid-gamma", "zero-snr"])
def test_zero_snr_is_algorithm_1_over_any_base(base: str, T: int) -> None:
    inner = BUILTINS.build("schedule", base)
    root = np.sqrt(np.cumprod(1 - np.asarray(inner.betas(T))))
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    got = tables_for(ZeroSnr(inner), T)
    np.testing.assert_allclose(got.signal, expected, rtol=1e-6, atol=1e-10)
    assert got.b2[-1] == 1
    np.testing.assert_allclose(got.signal[0], root[0], rtol=1e-12)


def test_zero_snr_over_a_plugin_s_schedule(write: Callable[..., str]) -> None:
    obj = build("schedule", "zero-snr:base=flat%3Abeta=0.1", plugins=[write(plugin())])
    root = np.sqrt(0.9 ** np.arange(1, 41))
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    np.testing.assert_allclose(tables_for(obj, 40).signal, expected, rtol=1e-9, atol=1e-12)


def test_a_plugin_s_own_component_takes_parts(write: Callable[..., str]) -> None:
    path = write(plugin())
    obj = build("schedule", "flat-halved:of=cosine", plugins=[path])
    np.testing.assert_array_equal(obj.betas(40), Cosine().betas(40) / 2)
    assert str(build("schedule", "flat-halved", plugins=[path]).of) == "linear"


@pytest.mark.parametrize("base", ["random-walk", "random-walk:step=2.0"])
def test_a_base_that_is_not_variance_preserving_is_refused(base: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        ZeroSnr(BUILTINS.build("schedule", base)).betas(100)
    assert caught.value.message.startswith(f"zero-snr: its base '{base}' is not variance-preserving")
    assert caught.value.hint


def test_a_base_that_breaks_its_contract_is_named(write: Callable[..., str]) -> None:
    text = plugin().replace("[self.beta] * T", "[self.beta] * (T - 1)")
    with pytest.raises(DdpmkitError, match=r"^schedule 'flat' at T=40 gives betas of shape \(39,\)"):
        tables_for(build("schedule", "zero-snr:base=flat", plugins=[write(text)]), 40)
    text = plugin().replace("return [self.beta] * T", "raise RuntimeError('boom')")
    with pytest.raises(DdpmkitError, match=r"^schedule 'flat' failed: RuntimeError: boom"):
        tables_for(build("schedule", "zero-snr:base=flat", plugins=[write(text, "other.py")]), 40)


@pytest.mark.parametrize("T", [21, 100, 1000])
@pytest.mark.parametrize(("base", "like"), [("cosine", "linear"), ("linear", "sigmoid"), ("sigmoid", "cosine:s=0.1")])
def test_rescaled_has_the_shape_of_one_schedule_and_the_sum_of_another(base: str, like: str, T: int) -> None:
    shape, other = BUILTINS.build("schedule", base).betas(T), BUILTINS.build("schedule", like).betas(T)
    got = Rescaled(BUILTINS.build("schedule", base), BUILTINS.build("schedule", like)).betas(T)
    free = got < 0.999
    ratio = got[free] / shape[free]
    np.testing.assert_allclose(ratio, other.sum() / shape.sum(), rtol=1e-12)
    cut = (shape * ratio[0] - 0.999)[~free].sum()
    assert got.sum() == pytest.approx(other.sum() - cut, rel=1e-12)
    if T == 1000:
        assert free.all(), "at the usual length nothing is clipped, and the sums agree"


def test_rescaled_is_named_by_what_it_rescales_and_like_what(write: Callable[..., str]) -> None:
    assert str(BUILTINS.build("schedule", "rescaled:base=cosine:sum_like=linear")) == "rescaled"
    text = "rescaled:base=cosine%3As=0.01:sum_like=flat%3Abeta=0.002:max_beta=0.9"
    obj = build("schedule", text, plugins=[write(plugin())])
    assert str(obj) == text
    assert obj.betas(40).sum() == pytest.approx(40 * 0.002)
    same = Rescaled(Cosine(), Cosine()).betas(100)
    np.testing.assert_allclose(same, Cosine().betas(100), rtol=1e-12)
    assert BUILTINS.identity(Rescaled(Linear()))["params"]["base"] != BUILTINS.identity(Rescaled())["params"]["base"]


@pytest.mark.parametrize("word", ["base", "sum_like"])
def test_what_has_no_betas_has_no_sum_of_them(word: str) -> None:
    with pytest.raises(DdpmkitError) as caught:
        BUILTINS.build("schedule", f"rescaled:{word}=random-walk").betas(100)
    assert caught.value.message.startswith(f"rescaled: its {word} 'random-walk' is not variance-preserving")
    assert caught.value.hint


# --- records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["zero-snr", "zero-snr:base=cosine%3As=0.01", "zero-snr:base=zero-snr%3Abase=laplace", "zero-snr:base=flat"]
)
def test_a_record_holds_the_parts_records(text: str, write: Callable[..., str]) -> None:
    registry = Registry([write(plugin())], installed=False)
    obj = registry.build("schedule", text)
    record = registry.record(obj)
    assert record["parts"] == {"base": registry.record(obj.base)}
    assert record["params"] == {"base": spec.format(obj.base, full=True)}
    assert registry.rebuild(record) == obj


def test_a_record_from_before_parts_had_records_is_read() -> None:
    record = {**BUILTINS.record(ZeroSnr()), "params": {"base": "cosine"}}
    del record["parts"]
    assert BUILTINS.rebuild(record) == ZeroSnr(Cosine())


def test_a_part_whose_plugin_has_changed_or_is_gone_is_named(write: Callable[..., str]) -> None:
    registry = Registry([path := write(plugin())], installed=False)
    record = registry.record(registry.build("schedule", "zero-snr:base=flat"))
    with pytest.raises(DdpmkitError, match=r"schedule 'flat' from mine .* is not here"):
        BUILTINS.rebuild(record)
    write(plugin(beta=0.03))
    with pytest.raises(DdpmkitError, match="schedule 'flat' of mine has changed since the stage was planned"):
        Registry([path], installed=False).rebuild(record)


def test_a_part_is_found_again_where_its_name_alone_would_not_find_it(install: Callable[..., None]) -> None:
    install("dist-a", plugin("twin", 0.02))
    install("dist-b", plugin("twin", 0.03))
    install("dist-c", plugin("linear", 0.04))
    registry = Registry(quiet=True)
    for name, beta in (("dist-a/twin", 0.02), ("dist-b/twin", 0.03), ("dist-c/linear", 0.04)):
        obj = registry.build("schedule", f"zero-snr:base={name}")
        assert obj.base.betas(2) == [beta, beta]
        text = spec.format(obj, called=registry.called)
        assert text == f"zero-snr:base={name}"
        assert registry.rebuild(registry.record(obj)) == obj
        stated = registry.record(obj)["params"]["base"]
        assert registry.build("schedule", stated) == obj.base
    assert spec.format(registry.build("schedule", "zero-snr:base=dist-a/twin-halved"), called=registry.called) == (
        "zero-snr:base=dist-a/twin-halved"
    )
    with pytest.raises(DdpmkitError, match="'twin' is provided by 2 plugins"):
        registry.build("schedule", "zero-snr:base=twin")


# --- identity ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "quadratic"])
def test_the_four_bases_of_old_enter_ids_by_name(name: str) -> None:
    # Stores hold ids that were made so.
    obj = BUILTINS.build("schedule", f"zero-snr:base={name}")
    assert BUILTINS.identity(obj) == {"name": "ddpmkit/zero-snr", "params": {"base": name}, "version": 1}


def test_any_other_part_enters_ids_whole() -> None:
    base = BUILTINS.identity(ZeroSnr(Cosine(s=0.01)))["params"]["base"]
    assert base == {"name": "ddpmkit/cosine", "params": {"s": 0.01, "max_beta": 0.999}, "version": 1}
    nested = BUILTINS.identity(ZeroSnr(ZeroSnr()))["params"]["base"]
    assert nested == {"name": "ddpmkit/zero-snr", "params": {"base": "linear"}, "version": 1}


def test_a_part_of_another_version_or_with_other_defaults_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cosine, "version", 2)
    monkeypatch.setattr("ddpmkit.plugin.registry.load_builtin", load_builtin.__wrapped__)  # as another process would
    registry = Registry(installed=False)
    base = registry.identity(ZeroSnr(Cosine()))["params"]["base"]
    assert base == {"name": "ddpmkit/cosine", "params": {"s": 0.008, "max_beta": 0.999}, "version": 2}
    monkeypatch.undo()
    # What `cosine` would be, had its default changed: its name no longer stands for what it stood for.
    assert BUILTINS.identity(ZeroSnr(Cosine(s=0.009)))["params"]["base"] != "cosine"


def test_a_plugin_s_part_makes_the_whole_a_plugin_s(install: Callable[..., None]) -> None:
    found = []
    for version in ("0.1", "0.2"):
        install("dist-a", plugin(), version)
        registry = Registry()
        obj = registry.build("schedule", "zero-snr:base=flat")
        found.append(registry.identity(obj))
        assert not registry.is_builtin(obj)
        assert registry.is_builtin(ZeroSnr(Cosine()))
    assert found[0] != found[1]
    assert found[0]["params"]["base"]["distribution"] == "0.1"
    assert found[0]["params"]["base"]["name"] == "dist-a/flat"


# --- the command line --------------------------------------------------------------------------------------------


def test_ls_and_show_tell_what_a_part_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-plugins", "ls", "schedule"]) == 0
    assert "\tbase=linear\t" in capsys.readouterr().out
    assert main(["--no-plugins", "show", "zero-snr"]) == 0
    assert "(schedule, with parameters as in base=linear%3Akey=value)" in capsys.readouterr().out
    assert main(["--no-plugins", "show", "cosine"]) == 0
    assert "%3A" not in capsys.readouterr().out


def test_a_study_over_bases_is_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["ablate", "-n", "--out", str(tmp_path), "--schedules", "zero-snr:base=cosine%3As=0.02,zero-snr:base=linear"]
    assert main([*argv, "--predictions", "v", "--train-seeds", "0", "--metrics", "fd"]) == 0
    out = capsys.readouterr().out
    assert "zero-snr:base=cosine%3As=0.02" in out
    assert "train\t2\t" in out
