"""``ddpmkit evaluate`` through main(): what it prints where, in which form, and how bad input ends."""

import json

import numpy as np
import pytest
from PIL import Image

from ddpmkit import build
from ddpmkit.cli import main
from ddpmkit.distances import frechet_distance, two_sample


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(two_sample, "TREES", 5)


@pytest.fixture(scope="module")
def digits():
    return build("dataset", "digits").load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """Two hundred training images as 8-bit PNG files."""
    path = tmp_path_factory.mktemp("samples")
    for i, image in enumerate(digits.train[:200]):
        Image.fromarray(np.rint(image[0] * (255 / 16)).astype(np.uint8)).save(path / f"{i:04}.png")
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory, digits):
    path = tmp_path_factory.mktemp("reference") / "test.npz"
    np.savez(path, images=digits.test)
    return path


@pytest.fixture
def evaluate(capsys):
    """Run the command; return (code, stdout, stderr)."""

    def call(*args):
        code = main(["--no-plugins", "evaluate", *(str(a) for a in args)])
        return code, *capsys.readouterr()

    return call


def is_two_lines(said):
    lines = said.splitlines()
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ") and len(lines[1]) > 6


@pytest.mark.long
def test_a_folder_against_a_data_set(evaluate, folder, digits):
    code, out, err = evaluate("--samples", folder, "--reference", "digits", "--features", "digits")
    assert code == 0
    heads, *rows = [line.split("\t") for line in out.splitlines()]
    assert heads[:5] == ["features", "metric", "value", "se", "floor"]
    table = {r[1]: r for r in rows}
    assert list(table)[:2] == ["FD-digits", "FD-digits-debiased"]
    assert list(table)[2:] == ["kid", "precision", "recall", "density", "coverage", "sw", "c2st", "copy"]
    extract = build("features", "digits").load(digits)
    plain = frechet_distance(extract(digits.train[:200]), extract(digits.test))
    assert table["FD-digits"][2:4] == [f"{plain:.5g}", ""]  # its error is that of the debiased value
    assert float(table["FD-digits-debiased"][2]) < plain
    assert "COPIES of training images; near copies 100.0%" in table["copy"][6]
    assert float(table["coverage"][4]) > 0.4  # the floor, of as few real images
    assert "N = 200 against 797 reference images, split test" in err
    assert "resize none, 17 levels, quantised to the nearest level" in err
    assert "note: FD-digits: fd: N = 200 is below 8 x 64 dimensions" in err
    assert "FID" not in out + err


def test_json_is_the_whole_record_and_nothing_else(evaluate, folder):
    code, out, _ = evaluate(
        "--samples", folder, "--reference", "digits", "--features", "digits,pca:k=8", "--metrics", "coverage,fd",
        "--json",
    )  # fmt: skip
    assert code == 0
    panels = json.loads(out)["panels"]
    assert [p["label"] for p in panels] == ["FD-digits", "FD-pca8"]
    assert list(panels[0]["metrics"]) == ["fd", "fd-debiased", "coverage"]
    assert panels[0]["protocol"]["split"] == "test"
    assert set(panels[0]["floor"]) == {"fd", "fd-debiased", "coverage"}


def test_the_k_that_was_taken_is_the_one_that_is_said(evaluate, folder):
    def asked(*args):
        code, out, _ = evaluate("--samples", folder, "--reference", "digits", "--features", "pca:k=4", "--json", *args)
        assert code == 0
        (panel,) = json.loads(out)["panels"]
        return panel["protocol"]["k"], panel["metrics"]["precision" if "precision:k=5" in args else "precision:k=3"]

    alone = asked("--metrics", "precision:k=3")
    assert alone[0] == 3
    assert asked("--metrics", "precision:k=3", "--k", "9") == alone
    assert asked("--metrics", "precision:k=5", "--k", "9")[0] == 5


def test_the_split_of_the_reference_is_a_choice(evaluate, folder):
    args = ("--samples", folder, "--reference", "digits", "--features", "pca:k=4", "--metrics", "fd", "--json")
    by_split = {}
    for split in ("test", "train"):
        code, out, _ = evaluate(*args, "--reference-split", split)
        assert code == 0
        by_split[split] = json.loads(out)["panels"][0]["protocol"]
    assert [by_split[s]["n_reference"] for s in ("test", "train")] == [797, 900]


@pytest.mark.long
def test_images_against_images_with_and_without_a_training_set(evaluate, folder, archive):
    """Both with 256 levels; the floor is one half of the reference against the other."""
    code, out, err = evaluate("--samples", archive, "--reference", folder)
    assert code == 0
    table = {line.split("\t")[1]: line.split("\t") for line in out.splitlines()}
    assert "copy" not in table
    assert table["FD-pca16"][4] != ""
    assert "floor: real images, N = 100" in err
    code, out, _ = evaluate(
        "--samples", folder, "--reference", archive, "--train", folder, "--metrics", "copy", "--features", "pixels"
    )
    assert code == 0
    assert "COPIES" in out


@pytest.mark.long
def test_statistics_are_kept_and_used_again(evaluate, folder, archive, tmp_path):
    kept = tmp_path / "kept.safetensors"
    args = ("--samples", folder, "--features", "pixels", "--metrics", "fd", "--json")
    code, out, err = evaluate(*args, "--reference", archive, "--save-statistics", kept)
    assert (code, f"wrote {kept}" in err) == (0, True)
    first = json.loads(out)["panels"][0]
    code, out, err = evaluate("--samples", folder, "--reference", kept, "--features", "pixels", "--json")
    assert code == 0
    again = json.loads(out)["panels"][0]
    assert again["metrics"]["fd"]["plain"] == pytest.approx(first["metrics"]["fd"]["plain"], rel=1e-9)
    assert again["protocol"]["n_reference"] == 797
    assert again["protocol"]["reference"] == first["protocol"]["reference"]
    code, _, err = evaluate("--samples", folder, "--reference", kept, "--features", "digits")
    assert code == 2
    assert "the statistics were made with the extractor" in err


@pytest.mark.long
def test_statistics_of_pytorch_fid(evaluate, folder, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, mu=np.zeros(64), sigma=np.eye(64))
    code, out, err = evaluate("--samples", folder, "--reference", path, "--features", "pixels")
    assert code == 0
    assert [line.split("\t")[1] for line in out.splitlines()[1:]] == ["FD-pixels", "FD-pixels-debiased"]
    assert "warning: the statistics do not say what extractor made them" in err
    np.savez(path, mu=np.zeros(4), sigma=np.eye(4))
    code, _, err = evaluate("--samples", folder, "--reference", path, "--features", "pixels")
    assert code == 2
    assert "features have 64 and 4 dimensions" in err
    # The axes of a fit are not in the file: the same name would be another space.
    code, _, err = evaluate("--samples", folder, "--reference", path, "--features", "pca:k=4")
    assert code == 2
    assert "features 'pca' are fitted on the reference's images" in err


def test_more_dimensions_than_samples_is_said_aloud(evaluate, folder, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(folder.iterdir())[:30]:
        (few / path.name).write_bytes(path.read_bytes())
    code, out, err = evaluate("--samples", few, "--reference", "digits", "--features", "digits", "--metrics", "fd")
    assert code == 0
    assert "N = 30 is below the 64 dimensions: no debiased value and no standard error" in err
    assert out.splitlines()[1].split("\t")[3] == ""


def test_inception_without_weights_is_two_lines_with_the_places(evaluate, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("DDPMKIT_WEIGHTS", raising=False)
    args = ("--samples", folder, "--reference", "digits", "--features", "inception")
    code, out, err = evaluate(*args)
    assert (code, out) == (2, "")
    assert is_two_lines(err)
    assert str(tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth") in err
    cut = tmp_path / "cut, off:50%.pth"
    cut.write_bytes(b"x")
    code, out, err = evaluate(*args, "--inception-weights", cut)
    assert code == 2
    assert is_two_lines(err)
    assert f"{cut} is cut short: 1 bytes" in err


BAD = {
    "no samples": (["--samples", "/no/such", "--reference", "digits"], "there is no '/no/such'"),
    "no reference": (["--reference", "digitz"], "neither a data set, a folder nor a file; did you mean 'digits'?"),
    "metric": (["--reference", "digits", "--metrics", "fdd"], "unknown metric 'fdd'"),
    "copy of nothing": (["--reference", "{archive}", "--metrics", "copy"], "does not allow the metric 'copy'"),
    "features": (["--reference", "digits", "--features", "digit"], "unknown features 'digit'"),
    "split": (["--reference", "digits", "--reference-split", "x"], "unknown reference split 'x'"),
    "k": (["--reference", "digits", "--k", "500"], "k = 500 nearest neighbours"),
    "levels": (["--reference", "digits", "--levels", "3"], "3 levels end at 2"),
    "statistics of two": (
        ["--reference", "digits", "--save-statistics", "a.safetensors"],
        "--save-statistics is for one extractor",
    ),
    "no option": ([], "--reference"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_ends_as_two_lines(evaluate, folder, archive, case):
    args, message = BAD[case]
    own = [] if "--samples" in args else ["--samples", folder]
    code, out, err = evaluate(*own, *(str(archive) if a == "{archive}" else a for a in args))
    assert (code, out) == (2, "")
    assert is_two_lines(err), err
    assert message in err


def test_a_place_for_statistics_that_is_none_is_told_before_anything_is_scored(evaluate, folder, archive, monkeypatch):
    monkeypatch.setattr("ddpmkit.study.score_images.read_images", lambda *_, **__: pytest.fail("images were read"))
    code, out, err = evaluate("--samples", folder, "--reference", archive, "--save-statistics", "a.npz")
    assert (code, out) == (2, "")
    assert is_two_lines(err)
    assert "can't write statistics as '.npz'" in err


def test_bad_images_end_as_two_lines(evaluate, tmp_path):
    makers = {
        "empty": lambda p: None,
        "text": lambda p: (p / "a.png").write_text("hello"),
        "one": lambda p: Image.new("L", (8, 8)).save(p / "a.png"),
        "size": lambda p: [Image.new("L", (9, 9)).save(p / f"{n}.png") for n in "ab"],
        "mixed": lambda p: [Image.new("L", (8, n)).save(p / f"{n}.png") for n in (8, 9)],
        "colour": lambda p: [Image.new("RGB", (8, 8), (9, 0, 0)).save(p / f"{n}.png") for n in "ab"],
    }
    for name, make in makers.items():
        path = tmp_path / name
        path.mkdir()
        make(path)
        code, out, err = evaluate("--samples", path, "--reference", "digits", "--features", "pca:k=4")
        assert (code, out) == (2, ""), name
        assert is_two_lines(err), name


def test_help_needs_nothing_heavy(capsys):
    assert main(["evaluate", "--help"]) == 0
    assert "--reference" in capsys.readouterr().out


def test_what_a_data_set_says_of_itself_is_said(evaluate, tmp_path, digits, capsys):
    path = tmp_path / "a.npz"
    arrays = {"train_images": digits.train[:60], "test_images": digits.test[:40]}
    np.savez(path, **arrays, train_labels=np.arange(60) % 3)
    np.savez(tmp_path / "drawn.npz", images=digits.test[:30])
    asked = ("--samples", tmp_path / "drawn.npz", "--features", "pixels", "--metrics", "sw", "--levels", 17)
    code, _, err = evaluate("--reference", f"npz:path={path}:levels=17:validation=5", *asked)
    assert code == 0
    assert "a.npz: train_labels were left out, since the other split has none" in err
    assert main(
        ["--no-plugins", "plot", "forward", "--dataset", f"npz:path={path}:levels=17:validation=5", "--timesteps", "50",
         "--to", str(tmp_path / "f.png")]
    ) == 0  # fmt: skip
    assert "note: a.npz: train_labels were left out" in capsys.readouterr().err
