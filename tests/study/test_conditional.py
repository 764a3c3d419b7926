"""A class-conditional study from its plan to its pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.cli import main
from ddpmkit.diffusion.labels import labels_of_samples
from ddpmkit.distances import prepare
from ddpmkit.distances.by_class import heldout_by_class
from ddpmkit.distances.copies import near_copies, shown_mirrored
from ddpmkit.distances.frechet_error import debiased_frechet
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.draw.classes import classes_figure
from ddpmkit.report.draw.save import save
from ddpmkit.report.draw.tiles import as_rgb
from ddpmkit.report.read.classes import the_grid
from ddpmkit.report.read.conditions import select
from ddpmkit.report.read.frames import read_study
from ddpmkit.report.read.samples import samples_of
from ddpmkit.sampling import sample, with_sigma
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan
from ddpmkit.study.planning import network
from ddpmkit.study.records import RefRecord, SampleRecord, ScoreRecord
from ddpmkit.study.reverse_strips import reverse_strips
from ddpmkit.study.stages.fit import Fit
from ddpmkit.study.stages.nll import Nll
from ddpmkit.study.stages.ref import Ref
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.stages.score import Score
from ddpmkit.study.stages.train import Train
from ddpmkit.study.store import Store
from ddpmkit.study.trained import open_training
from ddpmkit.training.initialise import initialise

TINY = {
    "train_steps": 20, "samples": 30, "sampling_steps": 3, "nll_evals": 16, "timesteps": 50, "eval_batch": 16,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "0",
    "metrics": "fd,copy,nll", "warmup": 1, "ema": 0.5, "learning_rate": 2e-2,
}  # fmt: skip
STRENGTHS = (0.0, 1.5, -1.0)

HEEDLESS = """
from dataclasses import dataclass
from ddpmkit import Backbone, hookimpl

@dataclass(frozen=True)
class Heedless(Backbone):
    name = "heedless"

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(in_channels, out_channels, 1)

            def forward(self, x, t, y=None):
                return self.layer(x)

        return Net()

@hookimpl
def ddpmkit_register_backbones():
    return [Heedless]
"""


def digits(folder, name: str, *, shuffled: bool = False, labels: bool = True) -> str:
    from sklearn.datasets import load_digits

    found = load_digits()
    images, y = found.images[:180].astype(np.uint8), found.target[:180] % 3  # three classes, so that each has enough
    y = np.random.default_rng(0).permutation(y) if shuffled else y
    told = {"train_labels": y[:120], "test_labels": y[120:]} if labels else {}
    path = folder / f"{name}.npz"
    np.savez(path, train_images=images[:120], test_images=images[120:], **told)
    return f"npz:path={path}:levels=17:validation=20"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return digits(tmp_path_factory.mktemp("data"), "labelled")


@pytest.fixture(scope="module")
def out(tmp_path_factory, data):
    """Two kinds of cells in one study: without labels, and with three guidances."""
    out = tmp_path_factory.mktemp("results")
    ddpmkit.ablate(
        **TINY, dataset=data, axis=["conditional=false,true"], guidances=list(STRENGTHS), name="tiny", out=out,
        executor="inline", on_event=lambda _: None,
    )  # fmt: skip
    return out


def plan(**options):
    registry = Registry(options.pop("plugins", []), installed=False)
    return make_plan(make_study({**TINY, **options}, registry), registry)


def of_kind(found, kind) -> list:
    return [s for s in found.stages.values() if isinstance(s.spec, kind)]


def test_guidance_is_an_axis_of_sampling_and_0_shares_its_stage_with_an_unguided_one(data):
    alone, guided = plan(dataset=data, conditional=True), plan(dataset=data, conditional=True, guidances="0,1,3")
    assert len(of_kind(guided, Train)) == 1
    assert len(of_kind(guided, Sample)) == 3
    assert set(alone.stages) <= set(guided.stages)
    (unguided,) = of_kind(alone, Sample)
    assert {s.id for s in of_kind(guided, Sample) if s.spec.guidance == 0} == {unguided.id}
    assert len({r.nll for r in guided.results}) == 1  # the likelihood knows no guidance
    works = {s.spec.guidance: s.work for s in of_kind(guided, Sample)}
    assert works[3] == works[1] == 2 * works[0]  # and the plan's estimate of time knows that it asks twice


def test_what_a_cell_without_labels_does_not_need_is_left_out_with_the_reason(data):
    found = plan(dataset=data, axis=["conditional=false,true", "sample_labels=data,balanced"], guidances="0,2")
    assert len(found.cells) == 5  # one without labels; two guidances by two ways to draw labels with
    reasons = {reason for _, reason in found.excluded}
    assert reasons == {
        "guidance=2 needs a network that is trained with labels (--conditional)",
        "sample_labels=balanced needs a network that is trained with labels (--conditional)",
    }
    assert len(of_kind(found, Sample)) == 5
    plain = plan(dataset=data)
    assert {s.id for s in of_kind(found, Train) if not s.spec.conditional} == {s.id for s in of_kind(plain, Train)}
    assert set(plain.stages) <= set(found.stages)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"guidances": "1"}, "guidance=1 needs a network that is trained with labels"),
        ({"conditional": True, "guidances": "1", "axis": ["label_dropout=0"]}, "label_dropout=0 never trains that"),
        ({"conditional": True, "backbones": "heedless", "plugins": True}, "the same answer for every label y"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(data, tmp_path, options, reason):
    (tmp_path / "heedless.py").write_text(HEEDLESS)
    if options.get("plugins"):
        options = {**options, "plugins": [str(tmp_path / "heedless.py")]}
    with pytest.raises(DdpmkitError, match=reason) as caught:
        plan(dataset=data, **options)
    assert caught.value.hint
    if "plugins" in options:
        assert plan(dataset=data, **{**options, "conditional": False}).cells  # it is only its labels that it ignores


def test_labels_far_above_the_number_of_classes_are_refused_where_a_network_would_have_a_row_for_each(tmp_path):
    path = tmp_path / "sparse.npz"
    images, y = np.zeros((60, 8, 8), np.uint8), np.arange(60) % 3
    for labels, said in ((10**6 * (y == 2) + (y == 1), "go up to 1000000, and 3 classes occur"), (5 * y, None)):
        np.savez(path, train_images=images[:40], test_images=images[40:], train_labels=labels[:40],
                 test_labels=labels[40:])  # fmt: skip
        dataset = f"npz:path={path}:levels=17:validation=5"
        assert plan(dataset=dataset, metrics="fd").cells  # no network is told them
        if said:
            with pytest.raises(DdpmkitError, match=said) as caught:
                plan(dataset=dataset, conditional=True, metrics="fd")
            assert caught.value.hint == "renumber them 0 .. 2"
        else:
            found = plan(dataset=dataset, conditional=True, metrics="fd")
            assert any("labels go up to 10, and 3 classes occur" in note for note in found.notes)


def test_data_without_labels_are_refused(tmp_path):
    with pytest.raises(DdpmkitError, match=r"needs labels of two classes or more, and npz:.* has none"):
        plan(dataset=digits(tmp_path, "bare", labels=False), conditional=True)


@pytest.mark.parametrize("conditional", [True, False])
def test_two_labellings_of_the_same_pictures_share_no_training(tmp_path, conditional):
    # Without labels the training would be the same; but the data are one thing with one hash, and it holds the labels.
    one, other = (plan(dataset=digits(tmp_path, f"{s}", shuffled=s), conditional=conditional) for s in (False, True))
    assert {s.id for s in of_kind(one, Train)}.isdisjoint({s.id for s in of_kind(other, Train)})


def test_a_training_with_flips_shares_none_without_and_its_copies_are_looked_for_among_mirror_images(data):
    plain, flipped = plan(dataset=data, axis=["flip=false"]), plan(dataset=data, axis=["flip=true"])
    for kind, shared in ((Train, False), (Ref, False), (Score, False)):
        one, other = ({s.id for s in of_kind(p, kind)} for p in (plain, flipped))
        assert (not one.isdisjoint(other)) == shared
    alone, flipped = (plan(dataset=data, axis=[f"flip={f}"], metrics="fd") for f in ("false", "true"))
    assert {s.id for s in of_kind(alone, Ref)} == {s.id for s in of_kind(flipped, Ref)}  # nobody asks for copies


@pytest.mark.long
def test_the_copy_check_of_a_training_with_flips_knows_the_mirror_images(tmp_path, data):
    ddpmkit.ablate(
        **{**TINY, "metrics": "copy"}, dataset=data, axis=["flip=false,true", "conditional=true"], name="flips",
        out=tmp_path, executor="inline", on_event=lambda _: None,
    )  # fmt: skip
    store, records = Store(tmp_path), read_study(tmp_path / "studies" / "flips")
    scored = [store.record(ScoreRecord, score) for r in records.plan["results"] for _, score, _ in r["scores"]]
    assert [s.metrics["copy"]["n_train"] for s in scored] == [100, 200]
    refs = [store.record(RefRecord, ref) for r in records.plan["results"] for *_, ref in r["scores"]]
    images = ddpmkit.build("dataset", data).load()
    for ref, train in zip(refs, (images.train, shown_mirrored(images.train)), strict=True):
        assert ref.heldout_by_class == heldout_by_class(train, images.test, images.labels["test"])


@pytest.mark.parametrize("setting", ["label_dropout=0.2", "label_dropout=0.0"])
def test_the_share_of_labels_that_are_dropped_is_in_the_id_of_a_conditional_training_alone(data, setting):
    one, other = plan(dataset=data, conditional=True), plan(dataset=data, conditional=True, axis=[setting])
    assert {s.id for s in of_kind(one, Train)} != {s.id for s in of_kind(other, Train)}
    with pytest.raises(DdpmkitError, match="needs a network that is trained with labels"):
        plan(dataset=data, axis=[setting])  # two names of one training


def stages(out) -> dict[float | None, tuple[Sample, str, dict]]:
    """Guidance, None of the cell without labels, -> spec, id and arrays of its samples."""
    records, store = read_study(out / "studies" / "tiny"), Store(out)
    cells = {c["label"]: c["settings"] for c in records.plan["cells"]}
    found = {}
    for r in records.plan["results"]:
        s = cells[r["cell"]]
        key = s["guidance"] if s["conditional"] else None
        found[key] = store.read_spec(Sample, r["sample"]), r["sample"], store.arrays("sample", r["sample"], "samples")
    return found


@pytest.mark.long
@pytest.mark.parametrize("strength", [0.0, -1.0])
def test_the_ends_are_the_conditional_and_the_unconditional_model_bit_for_bit(out, strength):
    spec, id, arrays = stages(out)[strength]
    with devices.one_thread():
        trained = open_training(out, spec.train, device="cpu")
        assert trained.classes == 3
        chain = trained.tables.strided(spec.times)
        sampler = ddpmkit.build("sampler", "ancestral")
        from ddpmkit.diffusion.reverse_variance import step_sigmas

        sigmas = step_sigmas(sampler, trained.sigma, trained.tables, chain, 17, None)
        labels = torch.from_numpy(arrays["labels"]) if strength == 0 else torch.zeros(30)
        drawn = sample(
            with_sigma(trained.predict(chain), sigmas), chain, sampler, count=30, shape=(1, 8, 8), levels=17,
            seed=spec.seed, micro_batch=16, device=torch.device("cpu"),
            label_of=lambda i: torch.where(i < 30, labels[i % 30], 0) if strength == 0 else torch.full_like(i, 3),
        )  # fmt: skip
    assert np.array_equal(drawn.numpy(), arrays["levels"])
    assert Store(out).record(SampleRecord, id).evaluations == 30 * 3


def test_without_a_label_there_is_one_unconditional_model(data):
    """At w = -1 it does not matter which labels the others have, and what is fitted is fitted to what is walked."""
    both = plan(
        dataset=data, conditional=True, guidances="0,-1", axis=["sample_labels=data,balanced"], sigmas="analytic"
    )
    assert sorted(s.spec.guidance for s in of_kind(both, Sample)) == [-1.0, 0.0, 0.0]
    fits = {s.id: s.spec for s in of_kind(both, Fit)}
    assert sorted(f.told for f in fits.values()) == [False, True]
    assert all(fits[s.spec.fit].told == (s.spec.guidance == 0) for s in of_kind(both, Sample))
    assert all(fits[s.spec.fit].told for s in of_kind(both, Nll))
    plain = plan(dataset=data, sigmas="analytic")
    assert all("told" not in s.spec.json() for s in of_kind(plain, Fit))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"guidances": "1,3"}, "add --conditional"),
        ({"axis": ["label_dropout=0.2"]}, "add --conditional"),
        ({"conditional": True, "guidances": "1", "axis": ["label_dropout=0"]}, "--axis label_dropout=0.1"),
    ],
    ids=str,
)
def test_where_no_cell_is_possible_the_hint_says_what_to_type(data, options, hint):
    with pytest.raises(DdpmkitError, match="no cell is possible") as caught:
        plan(dataset=data, **options)
    assert caught.value.hint == hint


@pytest.mark.long
def test_a_fit_without_labels_is_that_of_the_network_without_them(data, tmp_path):
    from ddpmkit.likelihood.fit import fit_statistics
    from ddpmkit.pixels import to_pixels
    from ddpmkit.randomness import permutation

    made = ddpmkit.ablate(
        **{**TINY, "metrics": "fd"}, dataset=data, conditional=True, guidances="-1,1", sigmas="optimal", name="fitted",
        out=tmp_path, executor="inline", on_event=lambda _: None,
    )  # fmt: skip
    store, found = Store(tmp_path), {}
    for r in json.loads((made.folder / "plan.json").read_text())["results"]:
        spec = store.read_spec(Sample, r["sample"])
        found[spec.guidance] = spec, store.read_spec(Fit, spec.fit), store.arrays("fit", spec.fit, "statistics")
    assert not np.array_equal(found[-1.0][2]["error"], found[1.0][2]["error"])
    spec, fit, statistics = found[-1.0]
    assert (fit.told, found[1.0][1].told) == (False, True)
    with devices.one_thread():
        trained = open_training(tmp_path, spec.train, device="cpu")
        order = permutation(fit.seed, len(trained.images.train), 0, torch.device("cpu"))
        images = to_pixels(torch.from_numpy(trained.images.train)[order], 17)
        again = fit_statistics(
            trained.predict(trained.tables), trained.tables, images=images, labels=torch.full((len(images),), 3),
            draws=fit.draws, levels=17, seed=fit.seed, micro_batch=fit.batch,
        )  # fmt: skip
    np.testing.assert_allclose(again["error"], statistics["error"], rtol=1e-6)


@pytest.mark.long
def test_labels_are_stored_beside_the_samples_and_keyed_by_seed_and_index(out, data):
    found = stages(out)
    assert "labels" not in found[None][2]
    y = ddpmkit.build("dataset", data).load().labels["train"]
    assert "labels" not in found[-1.0][2]  # nobody was told any
    for strength in (0.0, 1.5):
        spec, _, arrays = found[strength]
        assert np.array_equal(arrays["labels"], labels_of_samples("data", y, 3, spec.seed)(torch.arange(30)).numpy())
    assert Store(out).record(SampleRecord, found[1.5][1]).evaluations == 2 * 30 * 3
    assert len({arrays["levels"].tobytes() for _, _, arrays in found.values()}) == 4


@pytest.mark.long
def test_an_open_training_takes_labels(out):
    trained = open_training(out, stages(out)[0.0][0].train, device="cpu")
    predict, x, t = trained.predict(trained.tables), torch.zeros(2, 1, 8, 8), torch.tensor([10, 40])
    with torch.inference_mode():
        one, other, without, none = (
            predict(x, t, *y)[0]
            for y in ((torch.tensor([0, 0]),), (torch.tensor([1, 1]),), (), (torch.tensor([3, 3]),))
        )
    assert not torch.equal(one, other)
    assert not torch.equal(one, without)
    assert torch.equal(without, none)


@pytest.mark.long
def test_each_label_has_been_trained_and_so_has_the_one_that_says_none(out, data):
    trained = open_training(out, stages(out)[0.0][0].train, device="cpu")
    images, backbone = trained.images, ddpmkit.build("backbone", TINY["backbones"])
    with devices.one_thread():
        fresh = initialise(lambda: network(backbone, images, learned=False, classes=3), 0)
    (name,) = (n for n, _ in fresh.named_parameters() if "label" in n)
    before, after = (net.get_parameter(name).detach() for net in (fresh, trained.net))
    assert len(before) == 4
    assert bool((before != after).any(1).all())  # a row that is never shown keeps its first values


@pytest.mark.long
def test_the_two_likelihoods_never_share_a_column(out):
    frame = ddpmkit.load_results(out / "studies" / "tiny")
    with_labels = frame["conditional"].astype(str) == "True"
    bits = frame["metric"].str.startswith("NLL")
    assert set(frame.loc[with_labels & bits, "metric"]) == {
        "NLL-given-class", "NLL-given-class-unclipped", "NLL-given-class-train",
    }  # fmt: skip
    assert set(frame.loc[~with_labels & bits, "metric"]) == {"NLL", "NLL-unclipped", "NLL-train"}
    report = json.loads((out / "studies" / "tiny" / "report.json").read_text())
    assert {"NLL", "NLL-given-class"} <= set(report["metrics"])
    assert report["differences"]["NLL-given-class"] == {}  # the first cell has none to be compared with
    assert report["references"]["per-pixel categorical, given the class"].keys() == {"NLL-given-class"}
    assert report["references"]["per-pixel categorical"].keys() == {"NLL"}


@pytest.mark.long
def test_each_class_has_its_numbers_in_results_and_report(out, data):
    found, store = stages(out), Store(out)
    records = read_study(out / "studies" / "tiny")
    scores = {r["cell"]: r["scores"][0][1] for r in records.plan["results"]}
    frame = records.results
    for cell, score in scores.items():
        mine = frame[(frame["cell"] == cell) & frame["metric"].str.contains(" class ")]
        scored = store.record(ScoreRecord, score)
        untold = "guidance=-1" in cell  # no label was told, so no class has numbers
        assert len(mine) == (0 if untold else sum(("fd" in row) + ("near" in row) for row in scored.by_class))
        assert (len(mine) == 0) == (not scored.by_class or untold)
    scored = store.record(ScoreRecord, next(s for c, s in scores.items() if "guidance=1.5" in c and "true" in c))
    labels = found[1.5][2]["labels"]
    assert [(r["class"], r["n"]) for r in scored.by_class] == [(c, int((labels == c).sum())) for c in range(3)]
    assert any("fd" in r for r in scored.by_class)
    # The numbers themselves, from the samples and the data again.
    images, levels = ddpmkit.build("dataset", data).load(), found[1.5][2]["levels"]
    made = prepare(images, ddpmkit.build("features", "pca:k=2"), split="test")
    x, y, real = made.beside(made.checked(levels)).x, made.features, images.labels["test"]
    near = near_copies(levels, images.train, images.test)
    report = json.loads((out / "studies" / "tiny" / "report.json").read_text())
    cell = next(c for c in scores if "guidance=1.5" in c and "true" in c)
    values = frame[frame["cell"] == cell].set_index("metric")["value"]
    for c in range(3):
        mine, theirs = x[labels == c], y[real == c]
        assert values[f"near-copies class {c}"] == near[labels == c].mean()
        metric = f"FD-pca2-debiased class {c}"
        assert (metric in values) == (min(len(mine), len(theirs)) >= 6)
        if metric in values:
            own = debiased_frechet(mine, theirs.mean(0), np.cov(theirs.T), n_reference=len(theirs), reference=theirs)
            assert values[metric] == pytest.approx(own.value, rel=1e-6)
            assert report["by_class"]["FD-pca2-debiased"][cell][f"{c}"] == [values[metric], len(mine)]
    assert sum("FD-pca2-debiased" in m for m in values.index) > 1
    assert any(note.startswith("FD-pca2 by class needs 6 images of a class") for note in report["notes"])
    table = next(t for t in report["tables"] if t["title"].startswith("class by class"))
    assert table["columns"][:3] == ["cell", "class", "images"]
    perfect = [row for row in table["rows"] if row[0] == "perfect model"]
    assert len(perfect) == sum((real == c).sum() >= 6 for c in range(3)) > 1
    assert all(float(row[3]) > 0 for row in perfect)
    # Of the two that were told labels, and what a perfect model and held-out images are by chance.
    assert len(table["rows"]) == 3 * 2 + len(perfect) + 3
    assert [row[0] for row in table["rows"][-3:]] == ["real, held out"] * 3
    assert table["references"] == len(perfect) + 3
    assert any("guidance_scale of diffusers is 1 + w" in note for note in report["notes"])


@pytest.mark.long
def test_the_reverse_walk_of_a_conditional_cell_ends_in_its_sample(out):
    strips = reverse_strips(out / "studies" / "tiny", Registry(installed=False))
    cells = {cell.label: cell for cell in samples_of(read_study(out / "studies" / "tiny"))}
    assert len(strips.rows) == 4
    for label, row in strips.rows.items():
        assert np.array_equal(row[-1], cells[label].images[0])


def test_show_says_what_diffusers_call_it(capsys):
    assert main(["show", "guidance"]) == 0
    out = capsys.readouterr().out
    assert "eps = (1 + w) eps(x_t, y) - w eps(x_t); diffusers' guidance_scale is 1 + w" in out
    assert "--guidances 0.0,.." in out
    assert main(["show", "label-dropout", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "label_dropout"
    assert main(["show", "warmup"]) == 0  # a schedule, and a number of steps
    out = capsys.readouterr().out
    assert out.startswith("schedule warmup")
    assert "\nsetting warmup=100" in out
    assert main(["show", "conditional"]) == 0
    assert capsys.readouterr().out.endswith("ddpmkit ablate --conditional\n")


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_classes_are_drawn(out, tmp_path, capsys, suffix):
    path = tmp_path / f"classes{suffix}"
    assert main(["plot", "classes", "tiny", "--where", "conditional=true", "--out", str(out), "--to", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().err
    grid = the_grid(select(read_study(out / "studies" / "tiny"), ["conditional=true"]))
    figure = classes_figure(grid)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    for pixels, images in zip(shown, (images for row in grid.pictures for images in row), strict=True):
        assert np.array_equal(pixels[: images.shape[2], : images.shape[3]], as_rgb(images[:1], 17)[0])
    assert [axis.get_title() for axis in figure.axes[:3]] == ["w = -1, no label", "w = 0", "w = 1.5"]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["0", "1", "2"]
    save(figure, tmp_path / "again", [suffix[1:]])
    if suffix == ".png":  # the ids within an SVG hang on its file's name
        assert path.read_bytes() == (tmp_path / "again.png").read_bytes()
    folder = out / "studies" / "tiny"
    assert 'id="classes"' in (folder / "report.html").read_text()
    assert (folder / "figures" / "classes.png").is_file()


@pytest.mark.long
def test_a_picture_shows_each_class_under_its_own_label(out):
    grid = the_grid(select(read_study(out / "studies" / "tiny"), ["conditional=true"]))
    assert grid.guidances == (-1.0, 0.0, 1.5)
    assert grid.classes == (0, 1, 2)
    found = stages(out)
    for row, label in zip(grid.pictures, grid.classes, strict=True):
        for images, strength in zip(row, grid.guidances, strict=True):
            arrays = found[strength][2]
            mine = arrays["levels"][5 * label :] if strength == -1 else arrays["levels"][arrays["labels"] == label]
            assert np.array_equal(images, mine[:5])


@pytest.mark.long
def test_a_study_without_labels_has_no_such_picture(out, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "classes", "tiny", "--where", "conditional=false", "--out", str(out)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert "no cell of study 'tiny' has samples with labels" in err[0]


@pytest.mark.long
def test_the_likelihood_of_a_conditional_training_says_that_it_is_given_the_class(out, capsys):
    train = stages(out)[0.0][0].train
    assert main(["likelihood", train[:12], "--nll-evals", "16", "--out", str(out)]) == 0
    assert "NLL given the class" in capsys.readouterr().err
    assert main(["likelihood", train[:12], "--ode", "2", "--out", str(out)]) == 2
    assert "trained with labels" in capsys.readouterr().err
