"""--compile: which ran is in the fingerprint and not in the id, and a training goes on as it began."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.cpp_builder import CppBuilder
from torch._inductor.utils import clear_caches

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.execute import execute
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions
from ddpmkit.study.settings import StageOptions
from ddpmkit.study.store import Store

TINY = {
    "train_steps": 6, "batch_size": 8, "micro_batch": 4, "dropout": 0.2, "backbones": "mlp:width=8:depth=1",
    "train_seeds": "0", "timesteps": 50, "samples": 4, "sampling_steps": 2, "metrics": "fd", "features": "pca:k=2",
    "eval_batch": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


@pytest.fixture(scope="module")
def stages(registry, few_digits):
    plan = make_plan(make_study({**TINY, "dataset": few_digits}, registry), registry)
    return {s.kind: s for s in plan.stages.values()}


@pytest.fixture
def compiled_in(tmp_path, monkeypatch):
    """Return what forgets all that was compiled, as another process would know nothing of it."""

    def anew(name: str) -> None:
        torch._dynamo.reset()
        clear_caches()
        counters.clear()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / name))

    yield anew
    torch._dynamo.reset()


def last(store: Store, stage) -> dict[str, bytes]:
    folder = store.folder(stage.kind, stage.id)
    return {p.name: p.read_bytes() for p in (*(folder / "ckpt" / "00000006").iterdir(), folder / "metrics.jsonl")}


def ran(store: Store, stage) -> str:
    return store.status(stage.kind, stage.id)["fingerprint"]["network"]


@pytest.mark.long
def test_a_compiled_training_that_was_killed_goes_on_compiled_and_equals_a_whole_one(
    registry, stages, tmp_path, compiled_in
):
    train, whole, killed = stages["train"], Store(tmp_path / "whole"), Store(tmp_path / "killed")
    compiled_in("first")
    assert execute(train, whole, registry, StageOptions("cpu", "on"), lambda _: None) == "done"
    assert ran(whole, train) == "compiled"
    assert counters["stats"]["unique_graphs"] == 1  # what was tried is what runs
    looks = iter(range(100))
    options = StageOptions("cpu", "on", checkpoint_every=2)
    assert execute(train, killed, registry, options, lambda _: None, lambda: next(looks) >= 3) == "interrupted"
    compiled_in("second")  # compiled once more, from nothing
    assert execute(train, killed, registry, StageOptions("cpu", "off"), lambda _: None) == "done"
    assert ran(killed, train) == "compiled"  # as it began, whatever is asked for now
    assert last(killed, train) == last(whole, train)
    assert not list(whole.root.rglob("*.cpp"))


@pytest.mark.long
def test_an_eager_training_goes_on_eager_and_sampling_says_how_it_ran(registry, stages, tmp_path, compiled_in):
    store, train, sample = Store(tmp_path), stages["train"], stages["sample"]
    compiled_in("here")
    looks = iter(range(100))
    assert execute(train, store, registry, StageOptions("cpu"), lambda _: None, lambda: next(looks) >= 3) != "done"
    assert execute(train, store, registry, StageOptions("cpu", "on"), lambda _: None) == "done"
    assert ran(store, train) == "eager"
    assert execute(sample, store, registry, StageOptions("cpu", "on"), lambda _: None) == "done"
    assert ran(store, sample) == "compiled"
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.long
def test_a_compiler_that_fails_is_one_line_and_the_training_is_the_eager_one(
    registry, stages, tmp_path, compiled_in, monkeypatch, capsys
):
    train, eager, failed = stages["train"], Store(tmp_path / "eager"), Store(tmp_path / "failed")
    assert execute(train, eager, registry, StageOptions("cpu", "off"), lambda _: None) == "done"
    compiled_in("here")

    def build(builder) -> None:
        raise OSError("no room left")

    monkeypatch.setattr(CppBuilder, "build", build)
    capsys.readouterr()
    assert execute(train, failed, registry, StageOptions("cpu", "on"), lambda _: None) == "done"
    said = capsys.readouterr().err.splitlines()
    assert [line[:9] for line in said] == ["warning: "]
    assert "runs eager" in said[0]
    assert ran(failed, train) == "eager"
    assert last(failed, train) == last(eager, train)


def test_a_choice_that_is_none_is_refused(registry):
    with pytest.raises(DdpmkitError, match="--compile can't be 'yes'"):
        RunOptions(compile="yes").check(registry)


@pytest.mark.parametrize(
    ("prints", "told"),
    [
        ([("train", {"network": "eager"}), ("train", {"network": "compiled"})], "network of train compiled / eager"),
        ([("train", {}), ("train", {"network": "compiled"})], "network of train compiled / eager"),  # an older record
        ([("train", {"network": "compiled"}), ("sample", {"network": "eager"}), ("score", {})], None),
    ],
)
def test_stages_of_one_kind_that_ran_otherwise_are_told(prints, told):
    from ddpmkit.report.read.frames import _mixed

    assert _mixed(prints) == (() if told is None else (told,))
