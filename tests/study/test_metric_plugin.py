"""A metric is one file: given with -p it is listed, planned, measured, recorded and reported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpmkit import DdpmkitError, Measurement, Metric, Sets, build, load_results
from ddpmkit.cli import main
from ddpmkit.distances import prepare as prepare_reference
from ddpmkit.distances import prepare_features, score
from ddpmkit.plugin import contract
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.write import write_report
from ddpmkit.study import prepare as preparing
from ddpmkit.study import runner
from ddpmkit.study.prepare import Prepared, RunOptions
from ddpmkit.study.records import RefRecord, ScoreRecord
from ddpmkit.study.runner import Outcome

GAP = '''
from dataclasses import dataclass
from ddpmkit import Measurement, Metric, hookimpl, param

@dataclass(frozen=True)
class Gap(Metric):
    """How far the mean pixel of the samples lies from the reference's, to a power."""
    name = "gap"
    reference = "a test"
    title = "Pixel gap"
    unit = "grey levels"
    better = "higher"
    needs = ("pixels",)
    power: float = param(1.0, "of the gap", gt=0)

    def value(self, sets):
        ours = sets.x_levels.mean((1, 2, 3))
        gap = abs(ours.mean() - sets.y_levels.mean())
        return Measurement(gap**self.power, ours - ours.mean(), {"seen": len(ours)}, {"halved": Measurement(gap / 2)})

@dataclass(frozen=True)
class Spread(Metric):
    """How much the features vary, over the reference's."""
    name = "spread"
    reference = "a test"

    def value(self, sets):
        return sets.x.std() / sets.y.std()

@hookimpl
def ddpmkit_register_metrics():
    return [Gap, Spread]
'''
TINY = {
    "backbones": "unet:channels=4:mults=1", "train_steps": "2", "batch_size": "4", "samples": "12", "nll_evals": "32",
    "sampling_steps": "2", "timesteps": "40", "train_seeds": "0", "eval_batch": "12", "features": "pca:k=2,pixels",
}  # fmt: skip


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("ddpmkit_p_"):
            del sys.modules[name]


def written(folder: Path, source: str = GAP, name: str = "gap.py") -> str:
    (folder / name).write_text(source)
    return str(folder / name)


def planned(out: Path, plugin: str, **options: Any) -> Prepared:
    how = RunOptions(device="cpu", executor="inline")
    return preparing.prepare(
        {**TINY, **options}, out=out, registry=Registry([plugin], installed=False, quiet=True), run_options=how
    )


def ran(out: Path, plugin: str, **options: Any) -> tuple[Prepared, Outcome, Any]:
    prepared = planned(out, plugin, **options)
    outcome = runner.run(prepared)
    write_report(prepared.folder)
    return prepared, outcome, load_results(prepared.folder)


def ids(prepared: Prepared) -> dict[str, set[str]]:
    kinds = {s.kind for s in prepared.plan.stages.values()}
    return {kind: {s.id for s in prepared.plan.stages.values() if s.kind == kind} for kind in kinds}


@pytest.mark.long
def test_a_metric_of_one_file_is_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = written(tmp_path)
    assert main(["--no-plugins", "ls", "metrics", "-p", plugin]) == 0
    rows = {row.split("\t")[1]: row.split("\t") for row in capsys.readouterr().out.splitlines()[1:]}
    assert list(rows)[:9] == ["fd", "kid", "precision", "recall", "density", "coverage", "sw", "c2st", "copy"]
    assert rows["gap"] == [
        "metric", "gap", "power=1.0", "How far the mean pixel of the samples lies from the reference's, to a power.",
        "gap",
    ]  # fmt: skip
    assert main(["--no-plugins", "show", "gap", "-p", plugin]) == 0
    said = capsys.readouterr().out
    assert "better     higher, in grey levels; needs pixels" in said
    assert "enters     distances alone" in said
    assert "type       ddpmkit ablate --metrics gap" in said


@pytest.mark.long
def test_its_column_has_title_unit_direction_floor_and_error_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, outcome, results = ran(tmp_path / "out", written(tmp_path), metrics="gap,fd,gap:power=2,spread,kid")
    assert outcome.code == 0
    rows = results.set_index("metric")
    # Of pixels, once and without an extractor's name; of features, once an extractor.
    assert list(results["metric"]) == [
        "Pixel gap", "Pixel gap-halved", "FD-pca2", "FD-pca2-debiased", "Pixel gap-power2.0",
        "Pixel gap-power2.0-halved", "spread-pca2", "KID-pca2", "FD-pixels", "spread-pixels", "KID-pixels",
    ]  # fmt: skip
    gap = rows.loc["Pixel gap"]
    assert (gap["unit"], gap["better"], gap["status"], gap["n"]) == ("grey levels", "higher", "done", 12)
    assert gap["standard_error"] > 0
    assert gap["definition"].startswith("Pixel gap n=12/797 ref=test")
    # Which one it is, since another file may call its own the same.
    assert " by=gap/gap:" in gap["definition"]
    assert gap["definition"][-8:] != rows.loc["Pixel gap-power2.0", "definition"][-8:]
    assert "by=" not in rows.loc["KID-pca2", "definition"]
    assert rows.loc["Pixel gap-power2.0", "value"] == pytest.approx(gap["value"] ** 2)
    assert rows.loc["Pixel gap-halved", "value"] == gap["value"] / 2
    assert rows.loc["Pixel gap-halved", "better"] == "higher"
    # What a name says by itself needs no word.
    assert rows.loc[["FD-pca2", "KID-pca2"], "better"].isna().all()
    assert rows.loc["KID-pca2", "unit"] == "squared distance"
    records = read_study(prepared.folder)
    summary = summarise(records)
    assert summary.directions["Pixel gap"] == "higher"
    assert summary.directions["spread-pixels"] == "lower"
    images = build("dataset", "digits").load()
    real = images.train[np.sort(np.random.default_rng(0).permutation(len(images.train))[:12])]
    assert summary.references["real, train n=12"]["Pixel gap"] == pytest.approx(abs(real.mean() - images.test.mean()))
    page = (prepared.folder / "report.md").read_text(encoding="utf-8")
    assert "| Pixel gap ↑ grey levels |" in page
    assert "| FD-pca2 ↓ |" in page  # of a distance the name says enough
    for form, head in (("latex", "Pixel gap $\\uparrow$ grey levels"), ("html", "Pixel gap ↑ grey levels")):
        assert main(["report", prepared.study.name, "--out", str(tmp_path / "out"), "--format", form]) == 0
        assert head in capsys.readouterr().out
    assert "guessed" not in page
    # A report made later has neither the plugin nor a registry.
    Path(tmp_path / "gap.py").unlink()
    assert main(["--no-plugins", "report", prepared.study.name, "--out", str(tmp_path / "out")]) == 0
    assert "Pixel gap" in capsys.readouterr().out


@pytest.mark.long
def test_its_source_and_parameters_are_in_the_ids_of_the_distances_and_in_no_other(tmp_path: Path) -> None:
    plugin = written(tmp_path)
    first = ids(planned(tmp_path / "out", plugin, metrics="fd,gap"))
    assert ids(planned(tmp_path / "out", plugin, metrics="fd,gap:power=1")) == first
    other = ids(planned(tmp_path / "out", plugin, metrics="fd,gap:power=2"))
    changed = ids(planned(tmp_path / "out", written(tmp_path, GAP + "\n# another\n"), metrics="fd,gap"))
    moved = {kind for kind in first if first[kind] != other[kind]}
    assert moved == {kind for kind in first if first[kind] != changed[kind]} == {"ref", "score"}
    # A built-in metric beside the plugin, and the built-in parameter as it was before there was one.
    registry = Registry(installed=False)
    for entry in registry.entries("metric"):
        version = 2 if entry.name == "kid" else 1  # a constant feature was one whose rounding counted
        assert registry.identity(entry.cls()) == {"name": f"ddpmkit/{entry.name}", "params": {}, "version": version}
    alone = ids(planned(tmp_path / "out", plugin, metrics="fd,precision"))
    assert alone == ids(planned(tmp_path / "out", plugin, metrics="fd,precision:k=5"))
    assert alone["score"] != ids(planned(tmp_path / "out", plugin, metrics="fd,precision:k=3"))["score"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("raise SystemExit(3)", "metric 'gap' failed: SystemExit: 3"),
        ("return float('nan')", "it came out as nan"),
        ("return 'much'", "metric 'gap' gives 'much', not a number or a Measurement"),
        ("sets.x_levels[:] = 0", "ValueError: assignment destination is read-only"),
        ("return Measurement(1.0, details={'a': {1, 2}})", "metric 'gap': its details are {'a': {1, 2}}"),
    ],
)
def test_a_failing_one_costs_its_own_value_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    source = GAP.replace("        ours = sets", f"        {change}\n        ours = sets")
    prepared = planned(tmp_path / "out", written(tmp_path, source), metrics="gap,fd", features="pca:k=2")
    outcome = runner.run(prepared)
    assert outcome.code == 1
    assert outcome.states == {"done": len(prepared.plan.stages)}
    rows = read_study(prepared.folder).results.set_index("metric")
    assert rows["status"].to_dict() == {"Pixel gap": "failed", "FD-pca2": "done", "FD-pca2-debiased": "done"}
    assert np.isfinite(rows.loc["FD-pca2", "value"])
    assert f"gap failed: {said}" in capsys.readouterr().err
    reference = summarise(read_study(prepared.folder)).references["real, train n=12"]
    assert set(reference) == {"FD-pca2"}


@pytest.mark.long
def test_one_that_lacks_a_file_is_named_and_another_try_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = tmp_path / "needed.txt"
    source = GAP.replace("        ours = sets", f"        open({str(needed)!r}).close()\n        ours = sets")
    source = source.replace('    better = "higher"', '    better = "higher"\n    has_floor = False')
    plugin = written(tmp_path, source)
    prepared = planned(tmp_path / "out", plugin, metrics="gap,fd", features="pca:k=2")
    outcome = runner.run(prepared)
    assert outcome.code == 1
    assert outcome.states == {"done": len(prepared.plan.stages) - 1, "failed": 1}
    said = capsys.readouterr().err
    assert "failed: metric 'gap' failed: FileNotFoundError: [Errno 2]" in said
    needed.touch()
    again = runner.run(planned(tmp_path / "out", plugin, metrics="gap,fd", features="pca:k=2"))
    assert (again.code, again.ran) == (0, 1)


@pytest.mark.parametrize(
    ("title", "refused"),
    [("FID", True), ("Fid-x", True), ("x_fid", True), ("clean FID", True), ("FD", False), ("fidelity", False)],
)
def test_the_word_fid_is_kept_for_the_verified_inception_file(title: str, refused: bool) -> None:
    @dataclass(frozen=True)
    class Mine(Metric):
        """What it is called."""

        name = "mine"

        def value(self, sets: Sets) -> Measurement:
            return Measurement(1.0, beside={"fid": Measurement(2.0)})

        def column(self, protocol: Any) -> str:
            return title

    if refused:
        with pytest.raises(DdpmkitError, match="the word FID is that of") as caught:
            contract.column(Mine(), {"label": "FID", "features": "inception"})
        assert caught.value.hint == "call it FD, or what it is"
    else:
        assert contract.column(Mine(), {"label": "FID", "features": "inception"}) == title
    x = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(DdpmkitError, match="what stands beside is called 'fid'"):
        contract.measured(Mine(), prepare_features(x).beside(x))
    assert contract.column(build("metric", "fd"), {"label": "FID", "features": "inception"}) == "FID"


def test_a_metric_that_runs_out_of_memory_is_named() -> None:
    @dataclass(frozen=True)
    class Greedy(Metric):
        """Wants too much."""

        name = "greedy"

        def value(self, sets: Sets) -> float:
            raise MemoryError

    x = np.random.default_rng(0).normal(size=(20, 2))
    for keep in (True, False):
        with pytest.raises(DdpmkitError, match=r"^metric 'greedy' failed: MemoryError$") as caught:
            score(x, prepare_features(x), metrics=[Greedy()], keep=keep)
        assert caught.value.code == 1


@pytest.mark.long
def test_what_a_metric_declares_is_checked_before_anything_runs(tmp_path: Path) -> None:
    for old, new, said in (
        ('better = "higher"', 'better = "up"', "better is lower, higher, none, not 'up'"),
        ('needs = ("pixels",)', 'needs = ("images",)', "needs is a tuple of"),
        ('unit = "grey levels"', "unit = 3", "its unit is 3, not a line of text"),
        ('title = "Pixel gap"', 'title = "a=b"', "its column is 'a=b'"),
        ('title = "Pixel gap"', 'title = "NLL"', "its column is NLL, and that is a bound's"),
        ('title = "Pixel gap"', 'title = "FID"', "its column is 'FID', and the word FID is that of"),
        ('title = "Pixel gap"', 'title = "my fid"', "its column is 'my fid', and the word FID is that of"),
        ('title = "Pixel gap"', 'title = "copy"', "would both be called copy in tables"),
    ):
        with pytest.raises(DdpmkitError, match="metric") as caught:
            planned(
                tmp_path / "out", written(tmp_path, GAP.replace(old, new), f"p{abs(hash(new))}.py"), metrics="copy,gap"
            )
        assert said in caught.value.message
        assert caught.value.hint
    assert not (tmp_path / "out").exists()
    turned = Registry(
        [written(tmp_path, GAP.replace('better = "higher"', 'better = "up"'), "turned.py")], installed=False
    )
    with pytest.raises(DdpmkitError, match="better is lower, higher, none, not 'up'"):
        score(np.eye(4), prepare_features(np.eye(4)), metrics=[turned.build("metric", "gap")])


def test_two_extractors_that_are_called_the_same_share_no_column(tmp_path: Path) -> None:
    source = """
from dataclasses import dataclass
from ddpmkit import Features, hookimpl

@dataclass(frozen=True)
class Other(Features):
    '''Pixels again, under a label that is taken.'''
    name = "other"
    reference = "a test"

    def label(self):
        return "pixels"

    def fingerprint(self):
        return "0a1b"

    def load(self, data):
        return lambda images: images.reshape(len(images), -1) * 1.0

@hookimpl
def ddpmkit_register_features():
    return [Other]
"""
    plugin = written(tmp_path, source, "other.py")
    with pytest.raises(DdpmkitError) as caught:
        planned(tmp_path / "out", plugin, metrics="fd", features="pixels,other")
    both = "'ddpmkit/fd' of features 'pixels' and 'ddpmkit/fd' of features 'other'"
    assert caught.value.message == f"the metrics {both} would both be called FD-pixels in tables"
    assert planned(tmp_path / "out", plugin, metrics="fd", features="other,pca:k=2").plan


@pytest.mark.long
def test_two_plugins_of_one_name_and_two_titles_of_one_column_are_refused(tmp_path: Path) -> None:
    both = [written(tmp_path), written(tmp_path, GAP.replace("Pixel gap", "Other gap"), "other.py")]
    registry = Registry(both, installed=False, quiet=True)
    how = RunOptions(device="cpu", executor="inline")
    with pytest.raises(DdpmkitError, match="metric 'gap' is provided by 2 plugins: gap/gap and other/gap"):
        preparing.prepare({**TINY, "metrics": "gap"}, out=tmp_path / "out", registry=registry, run_options=how)
    with pytest.raises(DdpmkitError, match="the metrics 'gap/gap' and 'other/gap' would both be called"):
        preparing.prepare(
            {**TINY, "metrics": "gap/gap,other/gap"}, out=tmp_path / "out", registry=registry, run_options=how
        )
    made = preparing.prepare({**TINY, "metrics": "other/gap"}, out=tmp_path / "out", registry=registry, run_options=how)
    assert made.study.metrics == ("other/gap",)


@pytest.mark.long
def test_too_few_samples_for_it_are_known_before_anything_runs(tmp_path: Path) -> None:
    few = """
    def why_not(self, n, n_reference, train=None, heldout=None):
        return "a gap of so few" if n < 20 else None

@dataclass(frozen=True)
class Spread"""
    plugin = written(tmp_path, GAP.replace("\n@dataclass(frozen=True)\nclass Spread", few))
    with pytest.raises(DdpmkitError, match="gap can't be taken: a gap of so few"):
        planned(tmp_path / "out", plugin, metrics="fd,gap")
    assert planned(tmp_path / "out", plugin, metrics="fd,gap", samples="20").study.metrics == ("fd", "gap")


@pytest.mark.long
def test_errors_of_names_keep_their_suggestions(tmp_path: Path) -> None:
    plugin = written(tmp_path)
    for text, said in (
        ("gapp", "unknown metric 'gapp'; did you mean 'gap'?"),
        ("nlll", "unknown metric 'nlll'; did you mean 'nll'?"),
        ("precision:kk=3", "metric 'precision' has no parameter 'kk'"),
        ("nll:k=3", "nll takes no parameters"),
    ):
        with pytest.raises(DdpmkitError) as caught:
            planned(tmp_path / "out", plugin, metrics=text)
        assert said in caught.value.message
        assert caught.value.hint


def test_records_that_are_older_than_units_and_directions_are_read_as_before() -> None:
    old = RefRecord.read({"names": {"fd": "FD-x", "c2st": "c2st"}, "floors": {}})
    assert old.units == {"fd": "squared distance", "kid": "squared distance", "sw": "squared distance", "c2st": "AUC"}
    assert old.better == {}
    assert ScoreRecord.read({"n": 3, "metrics": {}}).beside == {"fd": ["fd-debiased"]}


# --- from Python --------------------------------------------------------------------------------------------------


class Odd(Metric):
    """Gives what it is told to."""

    name = "odd"

    def value(self, sets: Sets) -> Any:
        return self.give(sets)  # type: ignore[attr-defined]


def odd(give: Any) -> Odd:
    made = Odd()
    object.__setattr__(made, "give", give)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_random_wrong_values_are_refused_by_name_and_right_ones_pass(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(8, 2))
    sets = prepare_features(y).beside(x)
    number = float(rng.normal())
    for right in (number, np.float32(number), np.array(number), Measurement(number, np.zeros(9, np.float32))):
        assert contract.measured(odd(lambda _, v=right: v), sets).value == pytest.approx(number, rel=1e-6)
    bad = np.zeros(9)
    bad[rng.integers(9)] = np.nan
    for wrong in (
        None, "3", 1j, [number], np.zeros(2), True, Measurement(number, np.zeros(8)), Measurement(number, bad),
        Measurement(number, details={"value": 1}), Measurement(number, details={"x": np.zeros(2)}),
        Measurement(number, beside={"other": None}), Measurement(number, beside={"A b": Measurement(1.0)}),  # type: ignore[dict-item]
    ):  # fmt: skip
        with pytest.raises(DdpmkitError, match="metric 'odd'") as caught:
            contract.measured(odd(lambda _, v=wrong: v), sets)
        assert caught.value.hint
    with pytest.raises(DdpmkitError, match="it came out as"):
        contract.measured(odd(lambda _: rng.choice([np.nan, np.inf])), sets)


def test_what_several_metrics_share_is_computed_once() -> None:
    calls = []

    def shared(x: Any, y: Any, *, k: int) -> float:
        calls.append(k)
        return float(x.sum() + k)

    def both(sets: Sets) -> float:
        return sets.once(shared, k=3) + sets.once(shared, k=4)

    x = np.arange(12.0).reshape(6, 2)
    got = score(x, prepare_features(x), metrics={"one": odd(both), "two": odd(both)})
    assert calls == [3, 4]
    assert got["one"].value == got["two"].value == 2 * 66 + 7


def test_neighbours_are_found_once_for_four_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    import ddpmkit

    asked = []
    honest = ddpmkit.neighbour_metrics

    def counting(x: Any, y: Any, *, k: int) -> Any:
        asked.append(k)
        return honest(x, y, k=k)

    monkeypatch.setattr(ddpmkit, "neighbour_metrics", counting)
    rng = np.random.default_rng(0)
    reference = prepare_features(rng.normal(size=(30, 2)))
    names = ["precision", "recall", "density", "coverage"]
    assert list(score(rng.normal(size=(30, 2)), reference, metrics=names)) == names
    assert asked == [5]
    got = score(rng.normal(size=(30, 2)), reference, metrics=["coverage", "precision:k=3", "precision"], k=7)
    assert list(got) == ["precision:k=3", "precision", "coverage"]
    assert sorted(asked[1:]) == [3, 7]


def test_the_neighbours_of_a_call_are_not_the_k_of_a_plugin() -> None:
    @dataclass(frozen=True)
    class Mine(Metric):
        """Its own k."""

        name = "precision"
        k: int = 5

        def value(self, sets: Sets) -> float:
            return float(self.k)

    x = np.random.default_rng(0).normal(size=(20, 2))
    assert score(x, prepare_features(x), metrics={"mine": Mine()}, k=9)["mine"].value == 5


@pytest.mark.long
def test_metrics_are_given_by_name_as_objects_or_both(tmp_path: Path) -> None:
    metric = Registry([written(tmp_path)], installed=False).build("metric", "gap:power=2")
    digits = build("dataset", "digits").load()
    reference = prepare_reference(digits, build("features", "pca:k=2"))
    got = score(digits.train[:50], reference, metrics=[metric, "fd"])
    assert list(got) == ["fd", "fd-debiased", "gap:power=2.0", "gap:power=2.0-halved"]
    assert got.record()["metrics"]["gap:power=2.0"]["better"] == "higher"
    with pytest.raises(DdpmkitError, match=r"does not allow the metric 'gap:power=2\.0'"):
        score(np.zeros((9, 2)), prepare_features(np.ones((9, 2))), metrics=[metric])
    with pytest.raises(DdpmkitError, match="3 is no metric"):
        score(digits.train[:50], reference, metrics=[3])  # type: ignore[list-item]
