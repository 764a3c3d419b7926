"""The U-Net of Ho et al. against diffusers' UNet2DModel in the configuration of google/ddpm-cifar10-32."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

import ddpmkit

# config.json of google/ddpm-cifar10-32, the published weights of Ho et al. in diffusers' form.
CONFIG = {
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "center_input_sample": False,
    "time_embedding_type": "positional", "flip_sin_to_cos": False, "freq_shift": 1, "act_fn": "silu",
    "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2, "attention_head_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0, "mid_block_scale_factor": 1, "norm_eps": 1e-6, "norm_num_groups": 32,
}  # fmt: skip
BLOCK = {"norm1": "norm1", "conv1": "conv1", "time_emb_proj": "time", "norm2": "norm2", "conv2": "conv2",
         "conv_shortcut": "skip"}  # fmt: skip
ENDS = {"time_embedding.linear_1": "embed.0", "time_embedding.linear_2": "embed.2", "conv_in": "conv_in",
        "conv_norm_out": "norm_out", "conv_out": "conv_out"}  # fmt: skip


def layers():
    """(theirs, ours) of each ResNet block, of each attention, and of each convolution that changes the resolution."""
    blocks, attentions, resamplers, place = [], [], [], 0
    for level in range(4):
        for i in range(2):
            blocks.append((f"down_blocks.{level}.resnets.{i}", f"down.{place}.block"))
            attentions += [(f"down_blocks.1.attentions.{i}", f"down.{place}.attention")] if level == 1 else []
            place += 1
        if level < 3:
            resamplers.append((f"down_blocks.{level}.downsamplers.0.conv", f"down.{place}"))
            place += 1
    blocks += [("mid_block.resnets.0", "middle1.block"), ("mid_block.resnets.1", "middle2.block")]
    attentions.append(("mid_block.attentions.0", "middle1.attention"))
    place = 0
    for level in range(4):
        for i in range(3):
            blocks.append((f"up_blocks.{level}.resnets.{i}", f"up.{place}.block"))
            attentions += [(f"up_blocks.2.attentions.{i}", f"up.{place}.attention")] if level == 2 else []
            place += 1
        if level < 3:
            resamplers.append((f"up_blocks.{level}.upsamplers.0.conv", f"up.{place}"))
            place += 1
    return blocks, attentions, resamplers


def ours_of(theirs):
    """Their weights under our names; their three linear maps of attention are one 1x1 convolution here."""
    blocks, attentions, resamplers = layers()
    pairs = [*ENDS.items(), *resamplers, *((f"{a}.group_norm", f"{b}.norm") for a, b in attentions)]
    pairs += [(f"{a}.{x}", f"{b}.{y}") for a, b in blocks for x, y in BLOCK.items()]
    out, left = {}, dict(theirs)
    for kind in ("weight", "bias"):
        out |= {f"{b}.{kind}": left.pop(f"{a}.{kind}") for a, b in pairs if f"{a}.{kind}" in left}
        for a, b in attentions:
            made = {"qkv": torch.cat([left.pop(f"{a}.to_{x}.{kind}") for x in "qkv"]),
                    "proj": left.pop(f"{a}.to_out.0.{kind}")}  # fmt: skip
            out |= {f"{b}.{x}.{kind}": w[..., None, None] if kind == "weight" else w for x, w in made.items()}
    assert not left
    return out


@pytest.fixture(scope="module")
def networks():
    """Theirs, with every weight moved so that what starts at zero or one is seen, and ours with the same weights."""
    torch.manual_seed(0)
    theirs = UNet2DModel(**CONFIG).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.02 * torch.randn_like(p))
    ours = ddpmkit.build("backbone", "unet:size=ho-cifar10").build(in_channels=3, out_channels=3, image_size=32).eval()
    ours.load_state_dict(ours_of(theirs.state_dict()))
    return theirs, ours


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_the_ho_network_has_as_many_parameters_as_diffusers(networks):
    counts = [sum(p.numel() for p in net.parameters()) for net in networks]
    assert counts == [35_746_307, 35_746_307]


def test_the_ho_network_is_that_of_diffusers_layer_by_layer(networks):
    theirs, ours = networks
    blocks, attentions, resamplers = layers()
    names = [*ENDS.items(), *blocks, *attentions, *resamplers]
    seen = [{}, {}]
    for net, found, pick in ((theirs, seen[0], 0), (ours, seen[1], 1)):
        for pair in names:
            net.get_submodule(pair[pick]).register_forward_hook(
                lambda _, __, out, found=found, pair=pair: found.__setitem__(pair, out)
            )
    x, t = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 500, 999])
    with torch.inference_mode():
        expected, found = theirs(x, t).sample, ours(x, t.float())
    assert len(seen[0]) == len(seen[1]) == len(names)
    apart = {pair[1]: relative(seen[1][pair], seen[0][pair]) for pair in names}
    worst = max(apart, key=apart.get)
    print(f"output {relative(found, expected):.1e}, worst layer {worst} {apart[worst]:.1e}")
    assert apart[worst] < 1e-5, worst
    assert relative(found, expected) < 1e-5
    assert float(expected.std()) > 0.05


@pytest.mark.parametrize(
    "other", ["time=scale-shift", "details=improved", "heads=4", "blocks=3", "attention=16/8", "middle_attention=false"]
)
def test_another_network_is_not_that_of_diffusers(networks, other):
    theirs, ours = networks
    text = f"unet:size=ho-cifar10:{other}"
    changed = ddpmkit.build("backbone", text).build(in_channels=3, out_channels=3, image_size=32).eval()
    x, t = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([500.0])
    try:
        changed.load_state_dict(ours.state_dict())
    except RuntimeError:
        return  # other layers
    with torch.inference_mode():
        assert relative(changed(x, t), theirs(x, t).sample) > 1e-4


def test_the_gradients_are_those_of_diffusers_with_checkpointing_too(networks):
    theirs, ours = networks
    text = "unet:size=ho-cifar10:checkpoint=true"
    saving = ddpmkit.build("backbone", text).build(in_channels=3, out_channels=3, image_size=32)
    saving.load_state_dict(ours.state_dict())
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)), torch.tensor([3.0, 700.0])
    for net in (theirs, saving):
        net.zero_grad()
        out = net(x, t)
        (out if isinstance(out, torch.Tensor) else out.sample).square().sum().backward()
    expected = ours_of({name: p.grad for name, p in theirs.named_parameters()})
    for name, p in saving.named_parameters():
        assert relative(p.grad, expected[name]) < 1e-3, name
