"""From a grid to stages: what can change an output enters its id, what can't does not, and equal work is shared."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.stages import STAGE_KINDS, read_stage

TINY = {
    "train_steps": 6, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 50, "eval_batch": 64,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=4", "train_seeds": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    return Registry(installed=False)


@pytest.fixture(scope="module")
def plan(registry):
    return lambda **options: make_plan(make_study({**TINY, **options}, registry), registry)


def ids(made, kind: str) -> list[str]:
    return [i for i, s in made.stages.items() if s.kind == kind]


def counts(made) -> dict[str, int]:
    """Stages of each kind; bounds and draws per split, of which there are two."""
    found = Counter(s.kind for s in made.stages.values())
    return {kind: n // 2 if kind in ("draw", "nll") else n for kind, n in found.items()}


def test_what_only_sampling_sees_needs_one_training_a_schedule_and_seed(plan):
    made = plan(schedules="linear,cosine", sigmas="beta,beta-tilde", train_seeds="0-2", sample_seeds="0,1")
    assert len(made.results) == 2 * 2 * 3 * 2
    assert counts(made) == {"ref": 1, "train": 6, "sample": 24, "draw": 6, "nll": 12, "score": 24}


def test_the_full_bound_contains_sigma_and_needs_a_training_for_each(plan):
    made = plan(weightings="vlb", schedules="linear,cosine", sigmas="beta,beta-tilde", train_seeds="0-2")
    assert counts(made)["train"] == 12


def test_both_weightings_together_share_what_they_can(plan):
    made = plan(weightings="simple,vlb", sigmas="beta,beta-tilde")
    assert counts(made) == {"ref": 1, "train": 1 + 2, "sample": 4, "draw": 3, "nll": 4, "score": 4}


def test_a_flipped_training_and_another_share_nothing_but_the_reference(plan):
    plain, said, flipped = plan(), plan(axis=["flip=false"]), plan(axis=["flip=true"])
    assert [*plain.stages] == [*said.stages]
    assert all("flip" not in s.spec.json() for s in plain.stages.values())
    assert not plain.stages.keys() & flipped.stages.keys()  # copies are looked for among mirror images too
    plain_fd, flipped_fd = (plan(axis=[f"flip={f}"], metrics="fd,nll") for f in ("false", "true"))
    shared = {plain_fd.stages[i].kind for i in plain_fd.stages.keys() & flipped_fd.stages.keys()}
    assert shared == {"ref"}
    both = plan(axis=["flip=false,true"])
    assert counts(both)["train"] == 2
    assert {c.label for c in both.cells} == {"flip=false", "flip=true"}
    assert plain.study.name == said.study.name
    assert flipped.study.name != plain.study.name


def test_ddim_draws_the_same_images_for_every_sigma(plan):
    made = plan(samplers="ddim", sigmas="beta,beta-tilde")
    assert counts(made) == {"ref": 1, "train": 1, "sample": 1, "draw": 1, "nll": 2, "score": 1}
    assert len({r.sample for r in made.results}) == 1
    assert len({r.nll for r in made.results}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"samplers": "ddim"},
        {"sampling_steps": 3},
        {"metrics": "nll"},
        {"metrics": "fd"},
        {"sample_seeds": "5,6"},
        {"samples": 5},
        {"nll_evals": 32},
        {"eval_batch": 8},
        {"features": "pca:k=5"},
        {"sigmas": "beta"},
        {"axis": ["decoder_variance=beta1"]},
        {"name": "another"},
        {"micro_batch": 9},  # more than a batch is a batch
    ],
    ids=str,
)
def test_what_training_does_not_see_never_changes_a_training(plan, change):
    assert ids(plan(**change), "train") == ids(plan(), "train")


@pytest.mark.parametrize(
    "change",
    [
        {"schedules": "cosine"}, {"schedules": "linear:beta_T=0.03"}, {"weightings": "vlb"},
        {"backbones": "unet:channels=8:mults=1"}, {"timesteps": 51}, {"predictions": "eps"}, {"train_steps": 7},
        {"batch_size": 9}, {"micro_batch": 4}, {"learning_rate": 1e-3}, {"axis": ["lr_decay=constant"]},
        {"timestep_sampling": "uniform"}, {"timestep_sampling": "stratified"},
        {"axis": ["warmup=3"]}, {"axis": ["weight_decay=0.1"]}, {"axis": ["grad_clip=2"]}, {"axis": ["ema=0.5"]},
        {"dropout": 0.1}, {"precision": "bf16"}, {"train_seeds": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_what_training_sees_changes_it_and_all_that_follows(plan, change):
    made, usual = plan(**change), plan()
    for kind in ("train", "sample", "draw", "nll", "score"):
        assert set(ids(made, kind)).isdisjoint(ids(usual, kind)), kind
    assert ids(made, "ref") == ids(usual, "ref")


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"sampling_steps": 3}, {"sample", "score"}),
        ({"sample_seeds": "5"}, {"sample", "score"}),
        ({"sigmas": "beta"}, {"sample", "nll", "score"}),
        ({"nll_evals": 32}, {"draw", "nll"}),
        ({"axis": ["nll_se=0.1"]}, {"draw", "nll"}),
        ({"nll_full": True}, {"draw", "nll"}),
        ({"axis": ["decoder_variance=beta1"]}, {"nll"}),
        ({"features": "pca:k=5"}, {"ref", "score"}),
        ({"eval_batch": 8}, {"sample", "draw", "nll", "score"}),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else " ".join(sorted(v)),  # a set has no order, a name has one,
)
def test_a_change_reaches_the_stages_that_depend_on_it_and_no_others(plan, change, kinds):
    made, usual = plan(**change), plan()
    assert {k for k in counts(usual) if ids(made, k) != ids(usual, k)} == kinds


def test_the_two_fitted_sigmas_share_their_fit_and_need_no_training_of_their_own(plan):
    made = plan(sigmas="beta,analytic,optimal", samplers="ancestral,ddim")
    assert counts(made) == {
        "ref": 1, "train": 1, "fit": 1, "sample": 3 + 3, "draw": 1, "nll": 3, "score": 6,
    }  # fmt: skip
    (fit,) = ids(made, "fit")
    reads = {i for i, s in made.stages.items() if ("fit", fit) in s.needs}
    assert len(reads) == 4 + 2 * 2
    assert ids(plan(), "train") == ids(made, "train")


def test_a_sampler_without_noise_shares_its_samples_among_fixed_sigmas_alone(plan):
    made = plan(sigmas="beta,beta-tilde,analytic", samplers="ddim,dpm-solver++")
    assert len({r.sample for r in made.results if "ddim" in r.cell}) == 2


def test_a_fitted_decoder_variance_needs_a_fit_for_the_likelihood_alone(plan):
    made, usual = plan(axis=["decoder_variance=fitted"]), plan()
    assert len(ids(made, "fit")) == 1
    assert ids(made, "sample") == ids(usual, "sample")
    assert ids(made, "nll") != ids(usual, "nll")


def test_several_rates_of_the_average_need_one_training(plan):
    made = plan(axis=["ema=0.9,0.5,0"])
    assert counts(made) == {"ref": 1, "train": 1, "sample": 3, "draw": 3, "nll": 3, "score": 3}
    (train,) = ids(made, "train")
    assert made.stages[train].spec.emas == (0.0, 0.5, 0.9)


def test_a_learned_sigma_enters_the_training(plan):
    made = plan(weightings="hybrid", sigmas="learned-range,learned")
    assert counts(made) == {"ref": 1, "train": 2, "sample": 2, "draw": 2, "nll": 2, "score": 2}
    assert counts(plan(weightings="hybrid", sigmas="learned-range", samplers="ancestral,ddim"))["train"] == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sigmas": "learned-range"}, "simple has no term that teaches learned-range"),
        ({"sigmas": "learned", "weightings": "min-snr"}, "has no term that teaches learned"),
        ({"sigmas": "beta", "weightings": "hybrid"}, "beta learns nothing from hybrid's share"),
        ({"sigmas": "analytic", "weightings": "hybrid"}, "analytic learns nothing from hybrid's share"),
        ({"sigmas": "analytic", "weightings": "vlb"}, "vlb needs analytic for the training that analytic is fitted to"),
        ({"sigmas": "optimal", "weightings": "vlb"}, "vlb needs optimal"),
        ({"weightings": "vlb", "axis": ["decoder_variance=fitted"]}, "vlb trains on the decoder's variance"),
        (
            {"sigmas": "learned", "weightings": "vlb", "axis": ["decoder_variance=beta1"]},
            "learned gives the decoder its variance too",
        ),
        ({"schedules": "zero-snr", "predictions": "eps"}, "leaves no signal at its last step"),
        ({"schedules": "jsd", "predictions": "eps"}, "leaves no signal at its last step"),
        ({"schedules": "random-walk", "predictions": "v"}, "v-prediction needs a variance-preserving schedule"),
    ],
    ids=str,
)
def test_impossible_pairs_are_excluded_with_the_reason_and_the_rest_of_the_grid_stays(plan, options, reason):
    with pytest.raises(DdpmkitError, match=f"no cell is possible.*{reason}"):
        plan(**options)
    axes = [a.split("=")[0] for a in options.get("axis", ())]
    more = {k: f"{v},{ALSO[k]}" for k, v in options.items() if k in ALSO}
    if "decoder_variance" in axes:
        more["axis"] = ["decoder_variance=tilde2," + options["axis"][0].split("=")[1]]
    made = plan(**{**options, **more})
    assert made.cells
    assert any(reason in why for _, why in made.excluded)


ALSO = {"sigmas": "beta-tilde", "weightings": "simple", "schedules": "linear", "predictions": "x0"}


def test_the_decoder_s_variance_enters_a_training_whose_loss_has_the_decoder(plan):
    assert ids(plan(weightings="vlb", axis=["decoder_variance=beta1"]), "train") != ids(plan(weightings="vlb"), "train")


def test_ids_depend_on_neither_the_device_nor_workers_nor_the_folder(registry, tmp_path):
    here = prepare(
        TINY, out=tmp_path / "a", registry=registry, run_options=RunOptions(jobs=1, device="auto", executor="inline")
    )
    there = prepare(
        TINY, out=tmp_path / "b", registry=registry, run_options=RunOptions(jobs=7, device="cpu", checkpoint_every=3)
    )
    assert list(here.plan.stages) == list(there.plan.stages)
    assert list(tmp_path.iterdir()) == []  # planning writes nothing


def test_ids_depend_on_neither_the_order_of_options_nor_that_of_values(registry, plan):
    options = {
        "schedules": "linear,cosine",
        "train_seeds": "0,1",
        **{k: v for k, v in TINY.items() if k != "train_seeds"},
    }
    turned = dict(reversed([*options.items()])) | {"schedules": "cosine,linear", "train_seeds": "1,0"}
    first, second = (make_plan(make_study(o, registry), registry) for o in (options, turned))
    assert set(first.stages) == set(second.stages)


def images(count: int, seed: int = 0, size: int = 8):
    return np.random.default_rng(seed).integers(0, 17, (count, size, size), dtype=np.uint8)


def test_the_same_images_at_two_paths_give_the_same_ids(plan, tmp_path):
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / "a.npz", tmp_path / "sub" / "b.npz"]
    np.savez(paths[0], train_images=images(30), test_images=images(9, 1))
    # Another file for the same images: compressed, in another order, with an axis for the channel.
    np.savez_compressed(paths[1], test_images=images(9, 1)[..., None], train_images=images(30)[..., None])
    first, second = (plan(dataset=f"npz:path={p}:levels=17:validation=5") for p in paths)
    assert list(first.stages) == list(second.stages)
    assert paths[0].read_bytes() != paths[1].read_bytes()


@pytest.mark.parametrize("change", ["pixel", "levels", "split"])
def test_other_images_give_other_ids(plan, tmp_path, change):
    train = images(30)
    np.savez(tmp_path / "a.npz", train_images=train, test_images=images(9, 1))
    other = train.copy()
    if change == "pixel":
        other[3, 4, 5] = (other[3, 4, 5] + 1) % 17
    np.savez(tmp_path / "b.npz", train_images=other, test_images=images(9, 1))
    levels, validation = (18 if change == "levels" else 17), (6 if change == "split" else 5)
    first = plan(dataset=f"npz:path={tmp_path / 'a.npz'}:levels=17:validation=5")
    second = plan(dataset=f"npz:path={tmp_path / 'b.npz'}:levels={levels}:validation={validation}")
    assert set(first.stages).isdisjoint(second.stages)


def test_no_path_enters_a_spec(plan, tmp_path):
    np.savez(tmp_path / "a.npz", train_images=images(30), test_images=images(9, 1))
    made = plan(dataset=f"npz:path={tmp_path / 'a.npz'}:levels=17:validation=5")
    assert str(tmp_path) not in json.dumps([s.spec.json() for s in made.stages.values()])


def test_an_id_is_the_hash_of_kind_version_and_spec(plan):
    for stage in plan().stages.values():
        whole = {"kind": stage.kind, "version": STAGE_KINDS[stage.kind].version, "spec": stage.spec.json()}
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        assert stage.id == hashlib.sha256(text.encode()).hexdigest()


def test_a_training_s_id_is_the_one_that_stores_hold(registry):
    """The id of the default training at seed 0, pinned.

    When this fails, something that is hashed has changed, and every store that people have is worth nothing to the new
    version. If that was not meant, undo it. If the same spec now gives other numbers, raise the ``version`` of the
    kind in ddpmkit/study/stages (or the component's), say so in the changelog, and only then pin the new id.
    """
    made = make_plan(make_study({"train_seeds": "0"}, registry), registry)
    assert ids(made, "train") == ["0b7fa848504cc8dc7b6beed3d9da999448e1f1710a0f6f5b3a935a3d70ade70a"]
    made = make_plan(make_study({"train_seeds": "0", "train_steps": 1200}, registry), registry)
    assert ids(made, "train") == ["d240f8bb8b53bf2152bc853b022adbff70bb13cd990b2e8ecfb7ec5edb2f8382"]
    before = {  # the defaults of the first stores
        "predictions": "eps", "backbones": "unet", "timestep_sampling": "uniform", "batch_size": 64,
        "learning_rate": 4e-3, "train_steps": 1200, "train_seeds": "0",
    }  # fmt: skip
    made = make_plan(make_study(before, registry), registry)
    assert ids(made, "train") == ["9e7c1da539d068d124f4bdc91dbc91d477cb4cefe159675fd7317340f5b41c16"]


def test_a_plan_is_in_an_order_in_which_it_can_run_and_needs_nothing_else(plan):
    made = plan(schedules="linear,cosine", weightings="simple,vlb")
    seen: set[str] = set()
    for stage in made.stages.values():
        assert {need for _, need in stage.needs} <= seen
        seen.add(stage.id)


def test_a_stage_survives_json(plan):
    for stage in plan().stages.values():
        again = read_stage(json.loads(json.dumps(stage.json())))
        assert again == stage
        assert again.id == stage.id


def test_a_plugin_file_that_changes_gets_new_ids(tmp_path):
    source = """
from dataclasses import dataclass
from ddpmkit import Schedule, hookimpl

@dataclass(frozen=True)
class Flat(Schedule):
    name = "flat"

    def betas(self, T):
        import numpy as np
        return np.full(T, 0.02)

@hookimpl
def ddpmkit_register_schedules():
    return [Flat]
"""
    made = []
    for folder, text in (("a", source), ("b", source), ("c", source.replace("0.02", "0.03"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "flat_plugin.py").write_text(text)
        r = Registry([str(tmp_path / folder / "flat_plugin.py")], installed=False)
        made.append(ids(make_plan(make_study({**TINY, "schedules": "flat"}, r), r), "train"))
    assert made[0] == made[1]  # the folder does not matter
    assert made[0] != made[2]  # what the file says does


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 10}, "every beta must be below 1"),
        ({"sampling_steps": 51}, "51 sampling steps of a chain with T=50"),
    ],
)
def test_what_can_not_be_is_said_while_planning(plan, options, message):
    with pytest.raises(DdpmkitError) as caught:
        plan(**options)
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "label", "training"),
    [
        ({}, "linear", "train linear seed 0"),
        ({"schedules": "cosine", "weightings": "vlb"}, "cosine", "train cosine seed 0"),
        ({"weightings": "p2"}, "p2", "train p2 seed 0"),
        ({"samplers": "ddim"}, "ddim", "train linear seed 0"),  # no training sees the sampler
        ({"sigmas": "beta"}, "beta", "train linear seed 0"),
        ({"sigmas": "beta", "weightings": "vlb"}, "beta", "train beta seed 0"),
    ],
    ids=str,
)
def test_a_study_of_one_cell_is_named_by_what_was_chosen(registry, options, label, training):
    small = {k: v for k, v in TINY.items() if k != "backbones"}
    made = make_plan(make_study({**small, **options}, registry), registry)
    assert [c.label for c in made.cells] == [label]
    assert [s.label for s in made.stages.values() if s.kind == "train"] == [training]
