"""What can't be taken is known before anything runs, and no metric costs another one its value."""

import json

import numpy as np
import pytest
from PIL import Image

import ddpmkit
from ddpmkit import Images, Measurement, build, load_results
from ddpmkit.cli import main
from ddpmkit.distances import prepare, prepare_features, score, two_sample
from ddpmkit.distances.copies import copy_check, no_yardstick
from ddpmkit.distances.feasible import why_not
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import prepare as preparing
from ddpmkit.study import runner
from ddpmkit.study.prepare import RunOptions

TINY = {
    "backbones": "unet:channels=8:mults=1", "train_steps": "2", "batch_size": "4", "samples": "12", "nll_evals": "32",
    "sampling_steps": "2", "timesteps": "40", "train_seeds": "0", "eval_batch": "12",
}  # fmt: skip
NEIGHBOURS = ("precision", "recall", "density", "coverage")
DISTANCES = ("fd", "kid", "precision", "recall", "density", "coverage", "sw", "c2st")


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(two_sample, "TREES", 3)


@pytest.fixture(scope="module")
def digits():
    return build("dataset", "digits").load()


def plan(tmp_path, digits, train=None, test=None, **options):
    """A study of digits cut to size, planned and no more."""
    data = tmp_path / "a.npz"
    np.savez(
        data,
        train_images=digits.train[:60, 0] if train is None else train[:, 0],
        test_images=digits.test[:30, 0] if test is None else test[:, 0],
    )
    how = RunOptions(device="cpu", executor="inline")
    options = {**TINY, "dataset": f"npz:path={data}:levels=17:validation=20", **options}
    return preparing.prepare(options, out=tmp_path / "out", registry=Registry(installed=False), run_options=how)


def metrics_of(prepared):
    return [
        [m["name"].rpartition("/")[2] for m in s.spec.metrics]
        for s in prepared.plan.stages.values()
        if s.kind == "score"
    ]


# --- the one rule -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_rule_says_no_exactly_where_a_metric_raises():
    """Random sizes, k and repeats: what is called feasible gives a number, what is not raises the same reason."""
    rng = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(250):
        n, m, k = rng.integers(1, 14, 3)
        x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
        metric = str(rng.choice(DISTANCES))
        reason = why_not(build("metric", metric if metric not in NEIGHBOURS else f"{metric}:k={k}"), n, m)
        seen[reason is None] += 1
        if reason is None:
            got = score(x, prepare_features(y), metrics=[metric], k=k)
            assert np.isfinite(got[metric].value), (metric, n, m, k)
        elif min(n, m) > 1:
            with pytest.raises(DdpmkitError) as caught:
                score(x, prepare_features(y), metrics=[metric], k=k)
            assert caught.value.message == reason
    assert min(seen.values()) > 50


def test_held_out_images_that_tell_nothing_are_known_without_a_distance():
    rng = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(200):
        pool = rng.integers(0, 3, (rng.integers(1, 6), 2)).astype(np.uint8)
        train, heldout = (pool[rng.integers(0, len(pool), rng.integers(3, 8))] for _ in range(2))
        reason = no_yardstick(train, heldout)
        seen[reason is None] += 1
        x = np.array([[9.0, 9.0], [8.0, 9.0], [9.0, 8.0]])
        if reason is None:
            assert np.isfinite(copy_check(x, train, heldout).value)
        else:
            with pytest.raises(DdpmkitError, match="all copies"):
                copy_check(x, train, heldout)
    assert min(seen.values()) > 30


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: {"test": d.train[:20]}, "all copies of training images"),
        (lambda d: {"test": np.repeat(d.test[:3], 2, axis=0)}, "all copies of each other"),
        (lambda d: {"test": d.test[:2]}, "2 held-out images needs at least 3 of each"),
        (lambda d: {"samples": "2"}, "a copy check of 2 samples"),
        (lambda d: {"train": d.train[:22]}, "2 training and 30 held-out"),
        (lambda d: {"samples": "2,12"}, "a copy check of 2 samples"),
    ],
)
def test_a_default_that_can_not_be_taken_is_left_out_with_a_note(tmp_path, digits, capsys, change, reason):
    changes = {"features": "pca:k=1", **change(digits)}
    prepared = plan(tmp_path, digits, **changes)
    assert {tuple(m) for m in metrics_of(prepared)} == {("fd",)}
    assert prepared.study.metrics == ("fd", "nll")
    assert "note: copy: left out, " in capsys.readouterr().err
    assert reason in prepared.plan.notes[-1]
    with pytest.raises(DdpmkitError, match="copy can't be taken") as caught:
        plan(tmp_path, digits, **changes, metrics="fd,copy")
    assert reason in caught.value.message
    assert caught.value.hint == "leave it out, as in --metrics fd"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"samples": "4", "metrics": "fd,precision"}, "k = 5 nearest neighbours of 4 samples"),
        ({"samples": "5", "metrics": "coverage"}, "k = 5 nearest neighbours of 5 samples"),
        ({"samples": "9", "metrics": "nll,c2st"}, "the two-sample test of 9 against 30 rows"),
        ({"metrics": "kid,recall", "test": 5}, "12 samples and 5 reference points"),
        ({"metrics": "c2st", "test": 9}, "12 against 9 rows"),
        ({"samples": "12,4", "metrics": "density"}, "of 4 samples"),
    ],
)
def test_what_was_asked_for_by_name_is_refused_before_anything_runs(tmp_path, digits, options, reason):
    test = options.pop("test", None)
    with pytest.raises(DdpmkitError) as caught:
        plan(tmp_path, digits, test=None if test is None else digits.test[:test], **options)
    assert reason in caught.value.message
    assert "--metrics" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_study_whose_test_images_are_training_images_has_its_distance(tmp_path, digits, capsys):
    prepared = plan(tmp_path, digits, test=digits.train[:20], features="pca:k=2")
    outcome = runner.run(prepared)
    assert outcome.code == 0
    results = runner_results(prepared)
    assert set(results["metric"]) >= {"FD-pca2", "NLL"}
    assert results["value"].notna().all()
    # The study's own file asks for what was taken, so that it can be run again.
    again = preparing.prepare(
        {"study": str(outcome.folder / "study.toml")}, out=tmp_path / "out", registry=prepared.registry
    )
    assert again.todo == ()
    capsys.readouterr()


def runner_results(prepared):
    from ddpmkit.report.write import write_report

    write_report(prepared.folder)
    return load_results(prepared.folder)


# --- one fails, the others stand ----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "value", [RuntimeError("no luck"), DdpmkitError("says nothing", "x"), float("nan"), float("inf")]
)
def test_a_metric_that_fails_costs_its_own_value_alone(tmp_path, digits, capsys, monkeypatch, value):
    def broken(x, y):
        if isinstance(value, Exception):
            raise value
        return Measurement(value)

    monkeypatch.setattr(ddpmkit, "kernel_distance", broken)
    prepared = plan(tmp_path, digits, metrics="fd,kid,sw", features="pca:k=2")
    outcome = runner.run(prepared)
    assert outcome.code == 1  # something that was asked for is not there
    assert outcome.states == {"done": len(prepared.plan.stages)}
    assert "kid failed: " in capsys.readouterr().err
    results = runner_results(prepared).set_index("metric")
    assert results.loc["KID-pca2", "status"] == "failed"
    assert np.isnan(results.loc["KID-pca2", "value"])
    for name in ("FD-pca2", "SW-pca2"):
        assert results.loc[name, "status"] == "done"
        assert np.isfinite(results.loc[name, "value"])
    assert "kid: " in (prepared.folder / "report.md").read_text()


def test_a_failing_metric_is_raised_where_it_is_alone_or_nobody_keeps_the_rest(digits, monkeypatch):
    def broken(x, y):
        raise ValueError("no luck")

    monkeypatch.setattr(ddpmkit, "kernel_distance", broken)
    reference = prepare(digits, build("features", "pca:k=2"))
    with pytest.raises(DdpmkitError, match="no luck"):
        score(digits.train[:20], reference, metrics=["kid"], keep=True)
    with pytest.raises(ValueError, match="no luck"):
        score(digits.train[:20], reference, metrics=["kid", "fd"])
    kept = score(digits.train[:20], reference, metrics=["kid", "fd"], keep=True)
    assert list(kept.failed) == ["kid"]
    assert kept["fd"].value > 0


def test_a_floor_that_can_not_be_taken_is_not_there(digits):
    few = Images(digits.train[:4], digits.validation, digits.test[:50], 17, {})
    made = prepare(few, build("features", "pca:k=2"), floor=100)
    assert set(made.floor) == {"fd", "kid", "sw"}
    with pytest.raises(DdpmkitError, match="nearest neighbours"):
        score(digits.test[:50], made, k=50)


# --- evaluate -----------------------------------------------------------------------------------------------------


@pytest.fixture
def five(tmp_path, digits):
    path = tmp_path / "five"
    path.mkdir()
    for i, image in enumerate(digits.validation[:5]):
        Image.fromarray(np.rint(image[0] * (255 / 16)).astype(np.uint8)).save(path / f"{i}.png")
    return path


def evaluate(capsys, *args):
    code = main(["--no-plugins", "evaluate", *(str(a) for a in args)])
    return code, *capsys.readouterr()


def test_evaluate_takes_what_five_images_allow(capsys, five):
    args = ("--samples", five, "--reference", "digits", "--features", "pca:k=3", "--json")
    code, out, _ = evaluate(capsys, *args)
    assert code == 0
    found = json.loads(out)["panels"][0]
    assert set(found["metrics"]) == {"fd", "kid", "sw", "copy"}
    notes = "\n".join(found["notes"])
    assert "precision: left out, k = 5 nearest neighbours of 5 samples" in notes
    assert "c2st: left out, the two-sample test of 5 against 797 rows" in notes
    code, out, err = evaluate(capsys, *args, "--metrics", "fd,recall")
    assert (code, out) == (2, "")
    assert err.startswith("error: k = 5 nearest neighbours of 5 samples and 797 reference points\nhint: ")
    assert evaluate(capsys, *args, "--k", "4")[0] == 0


def test_evaluate_keeps_what_the_samples_allow(capsys, five, tmp_path, digits):
    """The samples are held-out images themselves: the copy check says nothing of them, and the distance stands."""
    path = tmp_path / "test.npz"
    np.savez(path, images=digits.test)
    code, out, err = evaluate(
        capsys, "--samples", path, "--reference", "digits", "--features", "pca:k=2", "--metrics", "fd,copy"
    )
    assert code == 1
    assert "FD-pca2" in out
    assert "copy: failed, the samples are the held-out images themselves" in err


@pytest.mark.long
def test_evaluate_counts_what_is_visible_and_asks_for_the_range(capsys, tmp_path, digits):
    """A notebook's copies are no samples; floats in [0, 1] are the same images once the range is said."""
    folder = tmp_path / "samples"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    eight = np.rint(digits.train[:60, 0] * (255 / 16)).astype(np.uint8)
    for i, image in enumerate(eight):
        Image.fromarray(image).save(folder / f"{i:02}.png")
        Image.new("L", (8, 8)).save(folder / ".ipynb_checkpoints" / f"{i:02}.png")
    np.savez(tmp_path / "unit.npz", images=(digits.train[:60, 0] / 16).astype(np.float32))
    np.savez(tmp_path / "plain.npz", images=(digits.train[:60, 0] / 8 - 1).astype(np.float32))
    args = ("--reference", "digits", "--features", "pca:k=2", "--metrics", "fd", "--json")
    code, out, err = evaluate(capsys, "--samples", tmp_path / "unit.npz", *args)
    assert (code, out) == (2, "")
    assert "hint: say which values are black and white: --range 0,1 or --range=-1,1" in err
    found = []
    for samples in (folder, (tmp_path / "unit.npz", "--range", "0,1"), (tmp_path / "plain.npz", "--range", "-1,1")):
        code, out, err = evaluate(capsys, "--samples", *(samples if isinstance(samples, tuple) else (samples,)), *args)
        assert code == 0, err
        found.append(json.loads(out)["panels"][0])
    assert {p["protocol"]["n"] for p in found} == {60}
    assert len({p["metrics"]["fd"]["plain"] for p in found}) == 1
    assert evaluate(capsys, "--samples", folder, *args, "--range", "1,0")[0] == 2
    np.savez(tmp_path / "dark.npz", images=np.linspace(-1, -0.95, 640).reshape(10, 8, 8))
    code, _, err = evaluate(capsys, "--samples", tmp_path / "dark.npz", *args)
    assert code == 0
    assert "warning: " in err
    assert "all pixels lie in -1 .. -0.95, on a scale of -1 .. 1" in err
