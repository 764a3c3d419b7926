"""What a study is: settings, axes, seeds and names, from flags, keywords or a TOML file."""

import hashlib
import json
import tomllib

import pytest

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study, stated_grid
from ddpmkit.study.values import read_toml


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


@pytest.fixture
def study(registry):
    return lambda **options: make_study(options, registry)


def test_a_comma_list_is_an_axis_and_its_order_is_kept(study):
    s = study(schedules="cosine,linear")
    assert s.axes["schedule"] == ("cosine", "linear")
    assert [c.settings.schedule for c in s.cells()] == ["cosine", "linear"]


def test_the_cells_are_the_product_of_the_axes_the_last_one_running_fastest(study):
    s = study(weightings="simple,vlb", schedules="linear,cosine", timesteps="50")
    # The order is that of the settings, whatever the order of the flags.
    assert [c.label for c in s.cells()] == ["linear simple", "linear vlb", "cosine simple", "cosine vlb"]
    assert all(c.settings.timesteps == 50 for c in s.cells())


def test_any_setting_is_an_axis_by_name(study):
    s = study(axis=["learning-rate=1e-3,2e-3", "ema=0.5"])
    assert s.axes["learning_rate"] == (1e-3, 2e-3)
    assert s.base.ema == 0.5
    assert [c.label for c in s.cells()] == ["learning_rate=0.001", "learning_rate=0.002"]


def test_lists_and_comma_text_are_one_study(study):
    assert study(schedules=["linear", "cosine"], train_seeds=[0, 1]) == study(
        schedules="linear, cosine", train_seeds="0-1"
    )


@pytest.mark.parametrize(
    "spelling",
    ["cosine:s=0.008", "cosine:s=8e-3", "cosine:max_beta=0.999", " cosine ", "cosine:max_beta=0.999:s=0.008"],
)
def test_spellings_of_one_component_are_one_value(study, spelling):
    assert study(schedules=["cosine", spelling]) == study(schedules="cosine")


def test_a_built_in_by_its_full_name_is_the_same_value(study):
    # A built-in can't be shadowed, so both names mean one class; two cells of it would be compared with each other.
    assert study(schedules="cosine,ddpmkit/cosine").axes["schedule"] == ("cosine",)


def test_numbers_that_are_equal_are_one_value(study):
    assert study(axis=["learning_rate=1e-3,0.001"]).axes["learning_rate"] == (0.001,)


def test_parameters_that_differ_are_two_values(study):
    assert study(schedules="cosine,cosine:s=0.01").axes["schedule"] == ("cosine", "cosine:s=0.01")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", (0,)),
        ("0-2", (0, 1, 2)),
        ("0,3,5", (0, 3, 5)),
        ("7,0-2", (7, 0, 1, 2)),
        ("0-2,1,2-3", (0, 1, 2, 3)),
        ([4, 2], (4, 2)),
        (5, (5,)),
        (range(2), (0, 1)),
    ],
)
def test_the_grammar_of_seeds(study, text, seeds):
    assert study(train_seeds=text).train_seeds == seeds
    assert study(sample_seeds=text).sample_seeds == seeds


@pytest.mark.parametrize("text", ["x", "", "-1", "2-0", "0-", "0,", "0-2-3", "1.5", "0-99999", "٣", [], [0.5]])
def test_what_is_no_seed_is_refused_by_the_name_of_its_flag(study, text):
    with pytest.raises(DdpmkitError, match="--train-seeds"):
        study(train_seeds=text)


def test_a_preset_fills_in_and_what_is_given_wins(study):
    plain, over = study(preset="quick"), study(preset="quick", samples=7)
    assert plain.base.train_steps == 400
    assert (over.base.samples, over.base.train_steps) == (7, 400)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "quik"}, "unknown preset 'quik'; did you mean 'quick'"),
        ({"metrics": "FID"}, "unknown metric 'FID'"),
        ({"metrics": "fdd"}, "unknown metric 'fdd'; did you mean 'fd'"),
        ({"schedules": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"train_step": 5}, "unknown setting 'train_step'; did you mean 'train_steps'"),
        ({"axis": ["learning_rat=1"]}, "unknown setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"axis": ["learning_rate"]}, "expected name=value"),
        ({"axis": ["learning_rate="]}, "expected name=value"),
        ({"train_steps": "0"}, "train_steps must be an int >= 1, got '0'"),
        ({"train_steps": "1.5"}, "train_steps must be an int >= 1, got '1.5'"),
        ({"learning_rate": "nan"}, "learning_rate must be a float > 0, got 'nan'"),
        ({"prediction": "noise"}, "unknown prediction 'noise'"),
        ({"schedules": []}, "is given no value"),
        ({"metrics": []}, "a list is empty"),
        ({"schedules": "linear,,cosine"}, "has an empty entry"),
        ({"dataset": "digits,npz"}, "one data set"),
        ({"train_seeds": "0-9999", "sample_seeds": "0,1"}, "20000 results, more than 10000"),
    ],
)
def test_a_wrong_option_is_named_with_what_to_do(study, options, message):
    with pytest.raises(DdpmkitError) as caught:
        study(**options)
    assert message in caught.value.message
    assert caught.value.hint, "every error tells what to do next"


@pytest.mark.parametrize(
    "name",
    ["../x", "", "a/b", "a" * 81, "..", ".", ".hidden", "-flag", "a b", "a\n", "a..b", "c:\\x", "x\0", "ä"],
    ids=repr,
)
def test_a_name_that_can_not_be_a_folders_is_refused(study, name):
    with pytest.raises(DdpmkitError, match="can't be the name"):
        study(name=name)


@pytest.mark.parametrize("name", ["a", "Fig.2_b-1", "0", "a" * 80])
def test_a_name_that_can_be_a_folders_is_kept(study, name):
    assert study(name=name).name == name


def test_the_default_name_is_the_data_set_and_eight_digits_of_the_grids_hash(study):
    s = study(schedules="linear,cosine")
    stated = stated_grid(s.grid())  # without settings that came later and are as they were before
    assert s.grid()["settings"].keys() - stated["settings"].keys() >= {"flip"}
    canonical = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    assert s.name == f"digits-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"
    before = {
        "predictions": "eps", "backbones": "unet", "timestep_sampling": "uniform", "batch_size": 64,
        "learning_rate": 4e-3, "sampling_steps": 100, "train_steps": 1200,
    }  # fmt: skip
    # No setting that was added later has moved it.
    assert study(schedules="linear,cosine", **before).name == "digits-59b08fd6"


def test_the_default_name_depends_on_the_grid_alone(study):
    one = study(schedules="linear,cosine", samples=9)
    assert study(samples="9", schedules=["linear", "cosine:s=0.008"]).name == one.name
    assert study(schedules="linear,cosine", samples=10).name != one.name
    assert study(schedules="cosine,linear", samples=9, train_seeds="0").name != one.name


@pytest.mark.long
@pytest.mark.parametrize("name", ["toy+aug", "d" * 90])
def test_every_data_set_has_a_default_name(tmp_path, name):
    plugin = tmp_path / "data_plugin.py"
    plugin.write_text(f"""
from dataclasses import dataclass
from ddpmkit import Dataset, hookimpl

@dataclass(frozen=True)
class Toy(Dataset):
    name = {name!r}

    def load(self):
        raise NotImplementedError

@hookimpl
def ddpmkit_register_datasets():
    return [Toy]
""")
    made = make_study({"dataset": name}, Registry([str(plugin)], installed=False))
    assert made.base.dataset == name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedules": "linear,cosine:s=0.01", "sigmas": "beta", "train_seeds": "0-2,9", "name": "n"},
        {"axis": ["learning_rate=1e-5,3e16", "dropout=0.1", "lr_decay=cosine,constant"], "metrics": "nll"},
        {"features": "pca:k=4,digits", "preset": "quick", "backbones": "unet:mults=1/2/2,unet:fourier=true"},
        {"dataset": "npz:path=a%2Cb\"'\\%3A\x7f\n.npz:validation=3"},
    ],
    ids=["defaults", "components", "numbers", "lists", "quotes"],
)
def test_a_study_survives_its_own_file(study, tmp_path, options):
    made = study(**options)
    file = tmp_path / "study.toml"
    file.write_text(made.toml(), encoding="utf-8")
    again = study(**read_toml(file))
    assert (again.name, again.grid()) == (made.name, made.grid())
    assert again.cells() == made.cells()


def test_the_file_speaks_the_words_of_the_flags(study):
    read = tomllib.loads(study(schedules="linear,cosine", train_seeds="0-1").toml())
    assert read["schedules"] == ["linear", "cosine"]
    assert read["train_seeds"] == [0, 1]
    assert read["weightings"] == ["simple"]


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"a = 1\na = 2"], ids=["cut", "binary", "twice"])
def test_what_is_no_toml_is_said(tmp_path, content):
    file = tmp_path / "s.toml"
    file.write_bytes(content)
    with pytest.raises(DdpmkitError, match="no valid TOML"):
        read_toml(file)
    with pytest.raises(DdpmkitError, match="can't read"):
        read_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    "line",
    [
        "name = 5",
        "preset = ['quick']",
        "metrics = 5",
        "features = 5",
        "axis = 5",
        "axis = [5]",
        "train_seeds = {a = 1}",
    ],
)
def test_a_value_of_the_wrong_type_in_a_file_is_a_usage_error(study, tmp_path, line):
    file = tmp_path / "s.toml"
    file.write_text(line)
    options = read_toml(file)
    with pytest.raises(DdpmkitError):
        study(**options)


def test_two_cells_never_share_a_slug(study):
    # As file names these labels look alike once everything but letters and digits is gone.
    slugs = [c.slug for c in study(axis=["learning_rate=1e-05,1e05"], schedules="cosine:s=0.1,cosine:s=1.0").cells()]
    assert len(set(slugs)) == 4
    assert all(set(s) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for s in slugs)


@pytest.mark.parametrize("axis", ["schedule=linear", "schedules=linear"])
def test_a_setting_given_by_its_flag_and_by_axis_is_refused(axis):
    """Which of the two was meant is not for us to guess."""
    with pytest.raises(DdpmkitError, match="'schedule' is given twice"):
        make_study({"schedules": "cosine", "axis": [axis]}, Registry(installed=False))
