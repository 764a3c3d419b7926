"""UNet2DModel as a backbone."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import torch
from ddpmkit import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing import checks
from diffusers import UNet2DModel

from ddpmkit_diffusers import Diffusers, spec_of
from ddpmkit_diffusers.backbone import DEFAULTS, TOLD

REGISTRY = Registry(strict=True)  # one for all: to look for plugins takes a while
build = REGISTRY.build

# config.json of google/ddpm-cifar10-32, the published weights of Ho et al. in diffusers' form.
HO = {
    "_class_name": "UNet2DModel", "sample_size": 32, "in_channels": 3, "out_channels": 3, "center_input_sample": False,
    "time_embedding_type": "positional", "flip_sin_to_cos": False, "freq_shift": 1, "act_fn": "silu",
    "block_out_channels": [128, 256, 256, 256], "layers_per_block": 2, "attention_head_dim": None,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "downsample_padding": 0, "mid_block_scale_factor": 1, "norm_eps": 1e-6, "norm_num_groups": 32,
}  # fmt: skip


def test_it_is_found_by_its_name_and_loads_nothing_heavy():
    entry = REGISTRY.find("backbone", "diffusers")
    assert (entry.plugin, entry.plugin_version) == ("ddpmkit-diffusers", "0.1.0")
    code = "import sys, ddpmkit_diffusers; print(sorted({'torch', 'numpy', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("check", checks("backbone"), ids=str)
def test_it_satisfies_its_kind(check):
    check(build("backbone", "diffusers:block_out_channels=8/8:norm_num_groups=4:attention_head_dim=4"))


def test_every_entry_of_the_configuration_is_a_parameter_or_told():
    theirs = {k: p.default for k, p in inspect.signature(UNet2DModel.__init__).parameters.items() if k != "self"}
    ours = {k: p.default for k, p in inspect.signature(Diffusers).parameters.items()}
    assert set(ours) | TOLD == set(theirs)
    # Where the small defaults differ from theirs, spec_of writes theirs.
    assert {k: theirs[k] for k in ours if ours[k] != theirs[k]} == DEFAULTS


def test_a_published_configuration_is_a_spec(tmp_path):
    place = tmp_path / "config.json"
    place.write_text(json.dumps(HO))
    assert spec_of(place) == spec_of(tmp_path)
    with torch.device("meta"):
        net = build("backbone", spec_of(place)).build(in_channels=3, out_channels=3, image_size=32)
    assert sum(p.numel() for p in net.parameters()) == 35_746_307
    for key in set(HO) - TOLD - {"_class_name"}:
        assert net.unet.config[key] == (tuple(HO[key]) if isinstance(HO[key], list) else HO[key]), key


@pytest.mark.parametrize(
    ("change", "said"),
    [({"act": "silu"}, "says act, which UNet2DModel does not know"), ({"time_embedding_type": "fourier"}, "'fourier'"),
     ({"mid_block_type": "Other"}, "mid_block_type")],
)  # fmt: skip
def test_another_configuration_is_refused(tmp_path, change, said):
    (tmp_path / "config.json").write_text(json.dumps({**HO, **change}))
    with pytest.raises(DdpmkitError, match=said):
        spec_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("diffusers:norm_num_groups=5", "takes no such configuration: num_channels"),
        ("diffusers:down_block_types=DownBlock2D", "takes no such configuration: Must provide the same number"),
        ("diffusers:down_block_types=Nothing/DownBlock2D", "takes no such configuration: Nothing does not exist"),
        ("diffusers:block_out_channels=8/8/8/8/8", "an image of size 8x8 can't be halved 4 times"),
    ],
)
def test_what_diffusers_refuses_is_told_in_its_words(text, said):
    with pytest.raises(DdpmkitError, match=said):
        build("backbone", text).build(in_channels=1, out_channels=1, image_size=8)


def test_a_label_is_told_and_none_is_the_last():
    net = build("backbone", "diffusers").build(in_channels=1, out_channels=1, image_size=8, num_classes=4).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 20.0])
    with torch.inference_mode():
        assert torch.equal(net(x, t), net(x, t, torch.tensor([4, 4])))
        assert not torch.equal(net(x, t), net(x, t, torch.tensor([0, 0])))
