"""The panel on scikit-learn's digits: what it must flag, one feature pass, its protocol, and bad input."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ddpmkit import Images, build
from ddpmkit.distances import METRICS, distance_label, frechet_distance, paired_difference, prepare, score, two_sample
from ddpmkit.distances.neighbours import neighbour_metrics
from ddpmkit.distances.reference import differences, prepare_features, statistics
from ddpmkit.errors import DdpmkitError


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return build("dataset", "digits").load()


@pytest.fixture(scope="module")
def reference(digits):
    """The test split in digit features, with the floor of as many training images."""
    with threadpool_limits(1):
        return prepare(digits, build("features", "digits"), floor=797)


@pytest.fixture
def few_trees(monkeypatch):
    """For tests that are not about the strength of the two-sample test."""
    monkeypatch.setattr(two_sample, "TREES", 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_k_in_a_metrics_own_spec_is_the_one_that_is_taken_and_recorded() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    reference = prepare_features(x)
    assert score(x, reference, metrics=["precision:k=3"]).protocol["k"] == 3
    assert score(x, reference, metrics=["precision:k=3"], k=3).protocol["k"] == 3
    assert score(x, reference, metrics=["fd"]).protocol["k"] == 5
    assert score(x, reference, metrics=["recall"], k=7).protocol["k"] == 7
    assert score(x, reference, metrics=["precision:k=3", "recall"]).protocol["k"] == [3, 5]
    assert score(x, reference, metrics=["precision:k=5"], k=3).protocol["k"] == 5
    assert score(x, reference, metrics={"a": build("metric", "precision:k=7")}, k=3).protocol["k"] == 7
    with pytest.raises(DdpmkitError, match="two metrics are called 'precision'"):
        score(x, reference, metrics=["precision", "precision:k=5"], k=3)


@pytest.mark.long
def test_the_floor_is_what_real_images_score(digits, reference):
    assert set(reference.floor) == {*METRICS, "fd-debiased"} - {"copy"}
    assert reference.floor["fd"]["n"] == 797
    assert reference.floor["c2st"]["value"] == pytest.approx(0.5, abs=0.05)
    assert reference.floor["coverage"]["value"] > 0.95
    assert abs(reference.floor["kid"]["value"]) < 3 * reference.floor["kid"]["se"]


@pytest.mark.long
def test_a_copy_of_the_training_set_is_flagged_by_the_copy_check_and_by_nothing_else(digits, reference):
    got = score(digits.train, reference)
    assert got["copy"].details["flag"] is True
    assert got["copy"].value == 0
    assert got["copy"].details["exact"] == 1
    # Every distance finds nothing wrong with it.
    assert got["fd-debiased"].value < reference.floor["fd-debiased"]["value"] + 2 * reference.floor["fd-debiased"]["se"]
    assert got["coverage"].value > 0.95
    assert got["c2st"].details["p"] > 0.1


@pytest.mark.long
def test_new_images_are_not_flagged(digits):
    """Half of the test images against the other half and the training set: real, and no copies."""
    held = Images(digits.train, digits.validation, digits.test[:400], 17, {})
    got = score(digits.test[400:], prepare(held, build("features", "digits")), metrics=["copy", "c2st"])
    assert got["copy"].details["flag"] is False
    assert got["copy"].value == pytest.approx(1, abs=4 * got["copy"].se)
    assert got["c2st"].details["p"] > 0.01


@pytest.mark.long
def test_a_dropped_class_is_found_by_recall_and_coverage(digits, reference):
    kept = digits.train[digits.labels["train"] != 8][:797]
    got = score(kept, reference, metrics=["precision", "recall", "coverage"])
    floor = reference.floor
    missing = np.mean(digits.labels["test"] == 8)  # about a tenth
    for name in ("recall", "coverage"):
        assert got[name].value < floor[name]["value"] - 0.4 * missing, name
    assert got["coverage"].value < floor["coverage"]["value"] - 3 * got["coverage"].se
    # Precision does not see it.
    assert got["precision"].value > floor["precision"]["value"] - 0.03


@pytest.mark.long
def test_noise_of_one_level_is_found_by_the_two_sample_test(digits, reference, rng):
    noisy = np.clip(np.rint(digits.train[:797] + rng.normal(size=(797, 1, 8, 8))), 0, 16).astype(np.uint8)
    got = score(noisy, reference)
    assert got["c2st"].value > 0.98
    assert got["c2st"].details["p"] < 1e-10
    assert got["c2st"].details["space"] == "pixels"
    # Precision and recall see nothing.
    assert got["precision"].value > 0.9
    assert got["recall"].value > 0.9


@pytest.mark.long
def test_one_pass_through_the_extractor_feeds_all_metrics(digits, few_trees):
    passes = []

    class Counting:
        name, version = "counting", 1

        def label(self):
            return "counting"

        def fingerprint(self):
            return "0" * 64

        def load(self, data):
            def extract(levels):
                passes.append(len(levels))
                return levels.reshape(len(levels), -1)[:, 20:28].astype(np.float64)

            return extract

    reference = prepare(digits, Counting())
    got = score(digits.train[:100], reference)
    assert passes == [797, 100]
    assert tuple(got) == (METRICS[0], "fd-debiased", *METRICS[1:])
    # Features that an earlier pass kept are not taken again.
    again = prepare(digits, Counting(), taken=reference.features)
    assert passes == [797, 100]
    assert score(digits.train[:100], again)["fd"].value == got["fd"].value


@pytest.mark.long
def test_the_values_are_those_of_the_metrics_by_themselves(digits, reference, few_trees):
    extract = build("features", "digits").load(digits)
    x, y = extract(digits.train[:300]), extract(digits.test)
    got = score(digits.train[:300], reference, metrics=["coverage", "fd"], k=3)
    assert tuple(got) == ("fd", "fd-debiased", "coverage")
    assert got["fd"].value == pytest.approx(frechet_distance(x, y), rel=1e-9)  # the number that the field computes
    assert got["fd"].se is None
    assert got["fd-debiased"].value < got["fd"].value
    assert got["coverage"].value == neighbour_metrics(x, y, k=3)["coverage"].value
    alone = score(x, prepare_features(y))
    assert alone["fd"].value == pytest.approx(got["fd"].value, rel=1e-12)
    assert "copy" not in alone


@pytest.mark.long
def test_the_order_of_the_samples_and_their_batches_do_not_matter(digits, reference, rng):
    order = rng.permutation(300)
    names = ["kid", "precision", "recall", "density", "coverage", "sw", "copy"]
    one, two = (score(s, reference, metrics=names) for s in (digits.train[:300], digits.train[:300][order]))
    for name in names:
        assert two[name].value == pytest.approx(one[name].value, rel=1e-10, abs=1e-12), name
    fd = [score(s, reference, metrics=["fd"])["fd"] for s in (digits.train[:300], digits.train[:300][order])]
    assert fd[1].details["plain"] == pytest.approx(fd[0].details["plain"], rel=1e-10)


@pytest.mark.long
def test_any_metric_with_an_error_can_be_paired(digits, reference, few_trees):
    """The same images, one level brighter in one set: shared noise."""
    a = score(digits.train[:400], reference)
    b = score(np.minimum(digits.train[:400] + np.uint8(1), 16), reference)
    for name in ("fd-debiased", "kid", "precision", "density", "coverage", "sw"):
        difference, se = paired_difference(a[name], b[name])
        assert difference == a[name].value - b[name].value
        assert 0 < se < 1.2 * np.hypot(a[name].se, b[name].se), name


@pytest.mark.long
def test_the_record_is_json_and_names_everything_that_matters(digits, reference, few_trees):
    import json

    got = score(digits.train[:300], reference).record()
    json.dumps(got, allow_nan=False)
    protocol = got["protocol"]
    assert got["label"] == "FD-digits"
    assert (protocol["n"], protocol["n_reference"], protocol["split"], protocol["dims"]) == (300, 797, "test", 64)
    assert protocol["extractor"] == build("features", "digits").fingerprint()
    assert (protocol["resize"], protocol["quantiser"], protocol["levels"]) == ("none", "nearest level", 17)
    assert all(set(m) >= {"value", "se", "better"} for m in got["metrics"].values())
    assert got["notes"] == ["fd: N = 300 is below 8 x 64 dimensions: the bias is known only roughly"]


@pytest.mark.long
def test_what_differs_between_two_protocols_is_named(digits, reference):
    a = score(digits.train[:300], reference, metrics=["fd"]).protocol
    b = score(digits.train[:200], prepare(digits, build("features", "pca:k=4")), metrics=["fd"]).protocol
    assert differences(a, a) == ()
    assert differences(a, b) == ("dims", "extractor", "features", "label", "n")
    train = prepare(digits, build("features", "digits"), split="train").protocol
    assert {"split", "reference", "n_reference"} <= set(differences(reference.protocol, train))


def test_the_word_fid_is_for_one_file():
    class Inception:
        name = "inception"

        def label(self):
            return "inception"

        def fingerprint(self):
            return "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

    class Other(Inception):
        def fingerprint(self):
            return "0" * 64

    class Named(Inception):
        name = "mine"

    assert [distance_label(f()) for f in (Inception, Other, Named)] == ["FID", "FD-inception", "FD-inception"]
    assert distance_label(build("features", "pca:k=8")) == "FD-pca8"


@pytest.mark.long
def test_stored_statistics_allow_the_frechet_distance_alone(digits, reference, few_trees):
    features = build("features", "digits")
    stored = statistics(reference.mu, reference.cov, digits, features, n=797)
    got = score(digits.train[:300], stored)
    assert tuple(got) == ("fd", "fd-debiased")
    assert got["fd"].value == score(digits.train[:300], reference)["fd"].value
    with pytest.raises(DdpmkitError, match="does not allow the metric 'kid'"):
        score(digits.train[:300], stored, metrics=["kid"])
    with pytest.raises(DdpmkitError, match="64 and 3 dimensions"):
        score(digits.train[:300], statistics(np.zeros(3), np.eye(3), digits, features))
    for mu, cov in ((np.zeros((2, 2)), np.eye(2)), (np.zeros(2), np.eye(3)), (np.full(2, np.nan), np.eye(2))):
        with pytest.raises(DdpmkitError):
            statistics(mu, cov, digits, features)


@pytest.mark.long
def test_images_against_images(digits, few_trees):
    """Without a data set: the extractor is fitted on the reference, and there is no training set to copy from."""
    got = score(digits.train[:100], digits.test, features=build("features", "pca:k=8"))
    assert "copy" not in got
    assert got.protocol["levels"] == 256
    whole = score(digits.train[:100], digits, features=build("features", "pca:k=8"))
    assert "copy" in whole


def test_a_reference_can_be_the_training_split(digits):
    got = score(digits.train, prepare(digits, build("features", "pca:k=8"), split="train"), metrics=["fd", "copy"])
    assert got["fd"].details["plain"] == pytest.approx(0, abs=1e-9)
    assert got["copy"].details["flag"] is True


BAD = {
    "floats": (lambda d: d.train.astype(np.float32), "no images"),
    "one": (lambda d: d.train[:1], "at least 2"),
    "none": (lambda d: d.train[:0], "no images"),
    "size": (lambda d: d.train[:, :, :7], r"the samples are \(1, 7, 8\) and the reference is \(1, 8, 8\)"),
    "level": (lambda d: d.train + np.uint8(1), "hold the level 17"),
    "flat": (lambda d: d.train.reshape(900, -1), "no images"),
}


@pytest.mark.long
@pytest.mark.parametrize("case", BAD)
def test_samples_that_make_no_panel_are_refused(digits, reference, case):
    change, message = BAD[case]
    with pytest.raises(DdpmkitError, match=message) as caught:
        score(change(digits), reference)
    assert caught.value.hint


@pytest.mark.long
def test_requests_that_make_no_panel_are_refused(digits, reference):
    with pytest.raises(DdpmkitError, match="unknown metric 'fdd'; did you mean 'fd'"):
        score(digits.train, reference, metrics=["fdd"])
    with pytest.raises(DdpmkitError, match="unknown reference split 'validation'"):
        prepare(digits, build("features", "digits"), split="validation")
    with pytest.raises(DdpmkitError, match="needs an extractor"):
        score(digits.train, digits)
    with pytest.raises(DdpmkitError, match="there is no extractor"):
        score(digits.train, digits.test)


def test_features_that_are_not_finite_or_too_few_are_refused(digits):
    class Bad:
        name = "bad"

        def __init__(self, make):
            self.make = make

        def label(self):
            return "bad"

        def fingerprint(self):
            return "0" * 64

        def load(self, data):
            return self.make

    with pytest.raises(DdpmkitError, match="the reference holds features that are not finite, in 797 of 797 rows"):
        prepare(digits, Bad(lambda levels: np.full((len(levels), 3), np.nan)))
    for scale in (1e180, 1e-180):  # squares overflow, or vanish: KID was 0, and precision of the same images 1 or 0
        with pytest.raises(DdpmkitError, match=r"the reference holds features of up to .* in size") as caught:
            prepare(digits, Bad(lambda levels, s=scale: levels.reshape(len(levels), -1)[:, :9] * s))
        assert caught.value.hint.startswith("scale the features")
    with pytest.raises(DdpmkitError, match="gave 796 rows for 797 images"):
        prepare(digits, Bad(lambda levels: np.zeros((len(levels) - 1, 3))))
    good = prepare(digits, Bad(lambda levels: levels.reshape(len(levels), -1)[:, :9] / (levels.size > 5 * 64)))
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(DdpmkitError, match="the samples' features"):
        score(digits.train[:4], good)


@pytest.mark.long
def test_a_check_that_says_nothing_here_does_not_cost_the_other_metrics(digits, reference, few_trees):
    got = score(digits.test, reference)
    assert "copy" not in got
    assert got["fd"].value < 1e-9
    assert any("the samples are the held-out images themselves" in n for n in got.notes)
    with pytest.raises(DdpmkitError, match="the samples are the held-out images themselves"):
        score(digits.test, reference, metrics=["copy"])
