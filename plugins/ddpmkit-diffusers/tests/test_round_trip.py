"""To diffusers and back: the same weights, the same noise, the same output, both ways."""

from __future__ import annotations

import dataclasses
import json
import sys

import ddpmkit
import numpy as np
import pytest
import torch
from ddpmkit import DdpmkitError, Denoised, tables_for
from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.enter import working
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from diffusers import DDPMPipeline, UNet2DModel

from ddpmkit_diffusers import export, read, spec_of
from ddpmkit_diffusers.layout import Told, configuration, from_diffusers, to_diffusers
from ddpmkit_diffusers.model import DdpmkitUNet2DModel
from ddpmkit_diffusers.scheduler import scheduler_of

REGISTRY = Registry()  # one for all: to look for plugins takes a while
build = REGISTRY.build
SAME = 1e-5  # of the largest value


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A study of the digits' own network, trained for two steps; without a report, which takes longer."""
    out = tmp_path_factory.mktemp("out")
    asked = {
        "name": "tiny", "axis": ["warmup=0"], "schedules": "linear", "train_steps": 2, "samples": 8, "metrics": "fd",
        "sampling_steps": 5, "batch_size": 8, "features": "pixels", "train_seeds": "0",
        "backbones": ["unet", "diffusers:block_out_channels=8/16:norm_num_groups=4"],
    }  # fmt: skip
    options = RunOptions(executor="inline", device="cpu")
    with working(prepare(asked, out=out, registry=REGISTRY, run_options=options, probe=False)) as prepared:
        assert run(prepared, lambda _: None).code == 0
    return out


def moved(net):
    """Every weight off where it starts, so that what starts at zero or one is seen."""
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=draws))
    return net.eval()


@pytest.fixture(scope="module")
def digits(out):
    loaded = ddpmkit.load("tiny", "unet", out=out, device="cpu", registry=REGISTRY)
    moved(loaded.network)
    return loaded


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    export(digits, folder)
    return folder


def same(found, expected, most=SAME):
    assert found.shape == expected.shape
    assert float(expected.std()) > 0.05
    assert float((found - expected).abs().max() / expected.abs().max()) <= most


def shown(channels, size):
    draws = torch.Generator().manual_seed(1)
    sides = (size, size) if isinstance(size, int) else size
    return torch.randn((2, channels, *sides), generator=draws), torch.tensor([1, 999])


@torch.inference_mode()
def same_both_ways(network, folder, x, t):
    """The pipeline's network and the one that is read back give what ours gives; returns the pipeline."""
    expected = network(x, t.float())
    pipe, back = DDPMPipeline.from_pretrained(folder), read(folder)
    same(pipe.unet(x, t).sample, expected)
    same(back.network(x, t.float()), expected)
    same(back.predict(x, t), expected)
    ours, theirs = network.state_dict(), back.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    return pipe


def test_the_digits_network_there_and_back(digits, folder):
    pipe = same_both_ways(digits.network, folder, *shown(1, 8))
    # It is a UNet2DModel whose group norms have four channels a group, which no configuration of one says.
    assert isinstance(pipe.unet, UNet2DModel)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["ddpmkit_diffusers", "DdpmkitUNet2DModel"]
    assert read(folder).spec == "unet"


def test_the_ho_network_there_and_back_is_diffusers_alone(digits, tmp_path):
    ho = build("backbone", "unet:size=ho-cifar10")
    net = moved(ho.build(in_channels=3, out_channels=3, image_size=32))
    images = dataclasses.replace(digits.images, train=np.zeros((1, 3, 32, 32), np.uint8))
    cell = dataclasses.replace(digits.cell, recipe={**digits.cell.recipe, "backbone": digits.registry.record(ho)})
    loaded = dataclasses.replace(digits, cell=cell, trained=dataclasses.replace(digits.trained, net=net, images=images))
    notes = export(loaded, tmp_path)
    assert not any("DdpmkitUNet2DModel" in note for note in notes)
    assert not any("ddpmkit" in p.read_text() for p in tmp_path.rglob("*.json"))
    pipe = same_both_ways(net, tmp_path, *shown(3, 32))
    assert type(pipe.unet) is UNet2DModel
    assert sum(p.numel() for p in pipe.unet.parameters()) == 35_746_307
    assert read(tmp_path).spec == "unet:size=ho-cifar10" or read(tmp_path).spec.startswith("unet:channels=128:")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("unet:channels=8:mults=1/2/4:blocks=2:attention=4/2:heads=4", Told(1, 2, 8)),
        ("unet:channels=8:fourier=true:octaves=3/4/5", Told(3, 3, 8)),
        ("unet:channels=8:patch=2", Told(1, 1, 8)),
        ("unet:channels=8:time=shift:details=ho", Told(1, 1, (4, 8), T=50)),
        ("unet:channels=8:middle_attention=false", Told(1, 1, 8, classes=3)),
        ("unet:channels=128:mults=1:heads=4", Told(1, 1, 4)),
    ],
)
def test_every_parameter_of_unet_has_a_counterpart(text, told, tmp_path):
    unet = build("backbone", text)
    net = moved(
        unet.build(in_channels=told.channels, out_channels=told.outputs, image_size=told.size, num_classes=told.classes)
    )
    weights, (config, extra) = to_diffusers(net.state_dict(), unet), configuration(unet, net, told)
    theirs = DdpmkitUNet2DModel(**extra, **config) if extra else UNet2DModel(**config)
    theirs.load_state_dict(weights)
    assert bool(extra) == ("channels=128" not in text)
    theirs.save_pretrained(tmp_path)  # and as a file says it
    theirs = type(theirs).from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    x, _ = shown(told.channels, told.size)
    t = torch.tensor([1, told.T - 1])
    with torch.inference_mode():
        for y in (None, torch.tensor([0, 3])) if told.classes else (None,):
            expected = net(x, t * 1000 / told.T, y)
            same(theirs(x, t, class_labels=y).sample, expected)
        back = read(tmp_path)
        same(back.predict(x, t), net(x, t * 1000 / told.T))
    assert set(from_diffusers(weights, unet)) == set(net.state_dict())


@torch.inference_mode()
def test_a_walk_from_the_same_noise_ends_in_the_same_images(digits, folder):
    pipe = DDPMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    # Their table of alpha-bar is float32, which a walk shows in the fourth digit; with ours it is the same walk.
    pipe.scheduler.alphas_cumprod = torch.from_numpy(digits.tables.alpha_bars)
    theirs = pipe(2, generator=torch.Generator().manual_seed(5), num_inference_steps=5, output_type="pt").images
    draws = torch.Generator().manual_seed(5)
    chain = digits.tables.strided(digits.sampler.timesteps(1000, 5))
    sigmas = np.sqrt(digits.sampler.kernel(chain)[0]).tolist()

    def denoise(x, t):
        x0, _ = digits.predict(x, torch.full((2,), int(chain.times[t])))
        return Denoised(x0, sigmas[t])

    ours = digits.sampler.sample(denoise, chain, lambda k: torch.randn((2, 1, 8, 8), generator=draws))
    torch.testing.assert_close(theirs, (ours / 2 + 0.5).clamp(0, 1).to(theirs), rtol=1e-4, atol=1e-5)
    assert float(ours.std()) > 0.1


def test_the_folder_samples_as_it_is(folder):
    pipe = DDPMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(2, num_inference_steps=3).images
    assert [(i.size, i.mode) for i in images] == [((8, 8), "L")] * 2


def test_the_command_exports_and_another_process_imports_the_package_first(out, tmp_path, capsys):
    to = tmp_path / "folder"
    assert main(["export", "tiny/unet", "--out", str(out), "--to", str(to)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{to}\n"
    assert f"DDPMPipeline.from_pretrained('{to}')(num_inference_steps=5)" in told.err
    assert "note: it holds a DdpmkitUNet2DModel: import ddpmkit_diffusers before DDPMPipeline loads it" in told.err
    # diffusers itself imports no module that a folder names, and a process may not have imported this package.
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "ddpmkit_diffusers")
        with pytest.raises(ValueError, match="import ddpmkit_diffusers before calling"):
            DDPMPipeline.from_pretrained(to)
    # Its betas are the study's, rounded as diffusers rounds them.
    betas = DDPMPipeline.from_pretrained(to).scheduler.betas
    np.testing.assert_array_equal(betas.numpy(), build("schedule", "linear").betas(1000).astype(np.float32))


def cell_with(digits, **parts):
    """The cell with another schedule, sigma, prediction or sampler."""
    made = {kind: build(kind, text) for kind, text in parts.items()}
    of_trained = {k: v for k, v in made.items() if k in ("sigma", "prediction")}
    if "schedule" in made:
        of_trained["tables"] = tables_for(made["schedule"], 1000)
    rest = {k: v for k, v in made.items() if k in ("schedule", "sampler")}
    return dataclasses.replace(digits, trained=dataclasses.replace(digits.trained, **of_trained), **rest)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"sigma": "beta", "prediction": "eps"}, {"variance_type": "fixed_large", "prediction_type": "epsilon"}),
        ({"sigma": "learned-range"}, {"variance_type": "learned_range"}),
        ({"prediction": "v", "schedule": "cosine"}, {"prediction_type": "v_prediction"}),
        ({"prediction": "x0"}, {"prediction_type": "sample"}),
        ({"sampler": "ancestral:clip=none:spacing=trailing"}, {"clip_sample": False, "timestep_spacing": "trailing"}),
        ({"sampler": "ancestral:clip=dynamic"}, {"clip_sample": False, "thresholding": True}),
    ],
)
def test_the_scheduler_says_what_the_cell_does(digits, parts, said):
    config, notes = scheduler_of(cell_with(digits, **parts))
    assert {k: config[k] for k in said} == said
    assert notes == []


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"sigma": "analytic"}, "does not know sigma 'analytic'"),
        ({"sampler": "ddim"}, "not as 'ddim'"),
        ({"sampler": "ancestral:spacing=openai"}, "are not the study's"),
    ],
)
def test_what_it_can_not_say_is_told(digits, parts, said):
    _, notes = scheduler_of(cell_with(digits, **parts))
    assert len(notes) == 1
    assert said in notes[0]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"schedule": "random-walk"}, "is not variance-preserving"),
        ({"prediction": "mu"}, "does not know the prediction 'mu'"),
        ({"sigma": "learned"}, "does not know the learned sigma 'learned'"),
    ],
)
def test_what_would_not_work_is_refused(digits, parts, said):
    with pytest.raises(DdpmkitError, match=said):
        scheduler_of(cell_with(digits, **parts))


def test_a_backbone_without_a_counterpart_is_refused(digits, tmp_path):
    mlp = digits.registry.record(build("backbone", "mlp"))
    cell = dataclasses.replace(digits.cell, recipe={**digits.cell.recipe, "backbone": mlp})
    with pytest.raises(DdpmkitError, match="backbone 'mlp' has no counterpart"):
        export(dataclasses.replace(digits, cell=cell), tmp_path)


def test_a_trained_unet_2d_model_is_exported_as_it_is(out, tmp_path):
    loaded = ddpmkit.load(
        "tiny", "diffusers:block_out_channels=8/16:norm_num_groups=4", out=out, device="cpu", registry=REGISTRY
    )
    net, (x, t) = moved(loaded.network), shown(1, 8)
    export(loaded, tmp_path)
    pipe = DDPMPipeline.from_pretrained(tmp_path)
    assert type(pipe.unet) is UNet2DModel
    with torch.inference_mode():
        same(pipe.unet(x, t).sample, net(x, t.float()))
    # The same network again, by its spec: not unet's, whose groups are of four channels.
    assert spec_of(tmp_path) == "diffusers:block_out_channels=8/16:norm_num_groups=4"
    with pytest.raises(DdpmkitError, match=r"unet can't be the network of .*groups"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mid_block_scale_factor": 1.5}, "its mid_block_scale_factor is 1.5, and unet's 1"),
        ({"act_fn": "gelu"}, "its act_fn is gelu, and unet's silu"),
        ({"norm_eps": 1e-6}, "its norm_eps is 1e-06, and unet's 1e-05"),
        ({"attention_head_dim": 8}, r"its heads is \[4\], and unet's \[1\]"),
        ({"downsample_type": "resnet"}, "its downsample_type is resnet"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "its up_block_types is"),
        ({"block_out_channels": [16, 40]}, "its block_out_channels is"),
        ({"sample_size": None}, "says no sample_size"),
        ({"_class_name": "UNet2DConditionModel"}, "is of a UNet2DConditionModel"),
    ],
)
def test_a_network_that_unet_is_not_is_refused_with_what_is_different(folder, tmp_path, change, said):
    config = json.loads((folder / "unet/config.json").read_text())
    if "attention_head_dim" in change:
        config["block_out_channels"] = [16, 32]
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    if change == {"attention_head_dim": 8}:
        assert read_refused_or_heads(tmp_path) == 4
        return
    with pytest.raises(DdpmkitError, match=said):
        read(tmp_path)


def read_refused_or_heads(folder):
    """Heads are unet's too where there is one width of attention; the weights are what is missing then."""
    from ddpmkit_diffusers.backbone import read_config
    from ddpmkit_diffusers.importing import ALWAYS, ELSE, _unet

    with pytest.raises(DdpmkitError, match=r"can't read .*diffusion_pytorch_model.safetensors"):
        read(folder)
    return _unet({**ALWAYS, **ELSE, **read_config(folder)})[0].heads


def test_where_there_is_nothing_or_something_else_it_is_said(tmp_path):
    for place in (tmp_path, tmp_path / "not-there"):
        with pytest.raises(DdpmkitError, match="there is no UNet2DModel at"):
            read(place)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DdpmkitError, match="can't read"):
        read(tmp_path)
