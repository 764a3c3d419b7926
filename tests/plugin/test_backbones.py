"""The built-in networks: published sizes, presets and ids, labels, shapes that are not square, checkpointing."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit import Backbone, param
from ddpmkit import device as devices
from ddpmkit.builtin.backbones._layers import position_embedding
from ddpmkit.builtin.backbones._unet import HoDownsample, ResBlock
from ddpmkit.builtin.backbones.unet import SIZES, UNet
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract, spec
from ddpmkit.plugin.parameters import parameters
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan
from ddpmkit.training.initialise import initialise

REGISTRY = Registry(installed=False)
SMALL = "unet:channels=8:mults=1/2:attention=4:heads=2"
EVERY = [SMALL, f"{SMALL}:time=shift:details=ho", "mlp:width=16:depth=2"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def build(text, channels=1, outputs=None, size=8, classes=None):
    """A network whose zeroed ends are not zero, so that everything behind them is seen."""
    torch.manual_seed(0)
    net = REGISTRY.build("backbone", text).build(
        in_channels=channels, out_channels=outputs or channels, image_size=size, num_classes=classes
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def count(text, outputs=3):
    with torch.device("meta"):
        net = REGISTRY.build("backbone", text).build(in_channels=3, out_channels=outputs, image_size=32)
    return {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}


def batch(channels=1, sides=(8, 8), n=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, *sides, generator=generator), torch.linspace(0, 999, n)


# --- published networks ------------------------------------------------------------------------------------------


def test_the_ho_network_has_the_parameters_of_the_paper():
    # 35.7 million in the paper, appendix B; to the last one those of google/ddpm-cifar10-32.
    parts = count("unet:size=ho-cifar10")
    assert sum(parts.values()) == 35_746_307

    def conv(i, o, k=3):
        return i * o * k * k + o

    def block(i, o):
        return 2 * i + conv(i, o) + (512 * o + o) + 2 * o + conv(o, o) + (conv(i, o, 1) if i != o else 0)

    attention = 2 * 256 + conv(256, 3 * 256, 1) + conv(256, 256, 1)
    down = 2 * block(128, 128) + conv(128, 128)
    down += block(128, 256) + block(256, 256) + 2 * attention + conv(256, 256)
    down += 4 * block(256, 256) + conv(256, 256)
    up = 3 * block(512, 256) + conv(256, 256) + 3 * block(512, 256) + conv(256, 256)
    up += 2 * block(512, 256) + block(384, 256) + 3 * attention + conv(256, 256)
    up += block(384, 128) + 2 * block(256, 128)
    assert parts["down"] == down
    assert parts["up"] == up
    assert parts["middle1"] + parts["middle2"] == 2 * block(256, 256) + attention


def test_the_improved_network_has_the_parameters_of_the_published_code():
    # Counted by openai/improved-diffusion's UNetModel with its CIFAR-10 flags; with --learn_sigma it has 6 outputs.
    assert sum(count("unet:size=improved-cifar10").values()) == 52_542_979
    assert sum(count("unet:size=improved-cifar10", outputs=6).values()) == 52_546_438
    assert UNet(size="improved-cifar10").heads == 4  # which no count shows


def test_a_published_network_has_dropout_in_every_block_and_nowhere_else():
    with torch.device("meta"):
        net = REGISTRY.build("backbone", "unet:size=ho-cifar10").build(in_channels=3, out_channels=3, image_size=32)
    blocks = sum(isinstance(m, ResBlock) for m in net.modules())
    assert blocks == 8 + 2 + 12
    assert [layer.p for layer, _ in contract.dropout_layers(net)] == [0.0] * blocks


@pytest.mark.parametrize("width", [4, 16, 17, 128])
def test_the_embeddings_of_both_codes(width):
    t, half = torch.tensor([0.0, 1.0, 31.5, 999.0]), width // 2
    i = np.arange(half)
    improved, ho = (t.double().numpy()[:, None] * 10000.0 ** (-i / n) for n in (half, half - 1))
    ours = position_embedding(t, width).numpy()
    np.testing.assert_allclose(ours, np.concatenate([np.cos(improved), np.sin(improved)], 1), atol=2e-4)
    ours = position_embedding(t, width, sines_first=True).numpy()
    np.testing.assert_allclose(ours, np.concatenate([np.sin(ho), np.cos(ho)], 1), atol=2e-4)


def test_the_halving_convolution_of_ho_looks_down_and_to_the_right():
    conv = HoDownsample(4)
    x = torch.zeros(1, 4, 6, 8, requires_grad=True)
    out = conv(x)
    assert out.shape == (1, 4, 3, 4)
    out[0, :, 0, 0].sum().backward()
    rows, columns = torch.nonzero(x.grad[0].abs().sum(0), as_tuple=True)
    assert (set(rows.tolist()), set(columns.tolist())) == ({0, 1, 2}, {0, 1, 2})


def test_time_as_a_shift_is_added_before_the_norm():
    block = ResBlock(8, 8, 12, "shift", "ho")
    x, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 12)
    seen = []
    block.norm2.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    block(x, emb)
    still = block.conv1(torch.nn.functional.silu(block.norm1(x)))
    torch.testing.assert_close(seen[0] - still, block.time(emb)[:, :, None, None].expand_as(still))


def test_the_default_network_is_what_it_was():
    net = initialise(lambda: REGISTRY.build("backbone", "unet").build(in_channels=1, out_channels=1, image_size=8), 3)
    weights = net.state_dict()
    assert len(weights) == 110
    assert list(weights)[:6] == ["embed.0.weight", "embed.0.bias", "embed.2.weight", "embed.2.bias",
                                 "conv_in.weight", "conv_in.bias"]  # fmt: skip
    assert {"down.0.block.time.weight", "down.1.weight", "middle1.attention.qkv.weight", "up.2.weight"} <= set(weights)
    assert weights["down.0.block.time.weight"].shape == (32, 64)
    assert sum(float(w.double().square().sum()) for w in weights.values()) == pytest.approx(SQUARES, rel=1e-6)


SQUARES = 898.2134767423366  # of all weights under seed 3, before the network had sizes


# --- sizes by name, and ids --------------------------------------------------------------------------------------


def test_a_size_and_its_numbers_are_one_identity():
    numbers = "unet:channels=128:mults=1/2/2/2:blocks=2:attention=16:time=shift:details=ho"
    named, written = (REGISTRY.build("backbone", text) for text in ("unet:size=ho-cifar10", numbers))
    assert REGISTRY.identity(named) == REGISTRY.identity(written)
    assert "size" not in REGISTRY.identity(named)["params"]
    assert REGISTRY.identity(named)["params"]["channels"] == 128
    assert str(named) == "unet:size=ho-cifar10"
    assert REGISTRY.rebuild(REGISTRY.record(named)) == named


@pytest.mark.parametrize("text", ["unet:size=ho-cifar10:channels=16", "unet:channels=16:size=ho-cifar10"])
def test_what_is_written_beside_a_size_stands_even_where_it_is_the_default(text):
    found = REGISTRY.build("backbone", text)
    assert (found.channels, found.mults, found.time) == (16, (1, 2, 2, 2), "shift")
    assert str(found) == "unet:size=ho-cifar10:channels=16"
    assert REGISTRY.build("backbone", str(found)) == found
    assert REGISTRY.build("backbone", spec.format(found, full=True)) == found


def test_sizes_from_python_are_those_of_the_text():
    assert UNet(size="ho-cifar10") == REGISTRY.build("backbone", "unet:size=ho-cifar10")
    assert UNet(16, size="ho-cifar10") == REGISTRY.build("backbone", "unet:size=ho-cifar10:channels=16")
    other = replace(UNet(size="ho-cifar10"), channels=16, time="scale-shift")
    assert (other.channels, other.blocks, other.time) == (16, 2, "scale-shift")
    twin = copy.copy(other)
    spec.validate(twin)
    assert twin == other == copy.deepcopy(other)
    assert [f.name for f in dataclasses.fields(other)] == list(vars(other))  # nothing is left of what was given


def test_sizes_say_all_that_makes_a_network_but_its_input():
    said = {p.name for p in parameters(UNet)} - {"fourier", "octaves", "size", "checkpoint"}
    assert all(set(filled) == said for filled in SIZES.values())


def test_an_unknown_size_is_refused_with_those_there_are():
    with pytest.raises(DdpmkitError, match="one of ho-cifar10, improved-cifar10 or none, got 'ho'"):
        REGISTRY.build("backbone", "unet:size=ho")


def test_a_plugins_names_fill_its_parameters_too_and_an_unknown_one_is_refused():
    @dataclass(frozen=True)
    class Mine(Backbone):
        name = "mine"
        width: int = param(1, "w")
        kind: Literal["wide"] | None = param(None, "k", fills={"wide": {"width": 9}})

        def build(self, **_): ...

    assert (Mine(kind="wide").width, Mine(kind="wide", width=1).width, Mine(kind=None).width) == (9, 1, 1)

    @dataclass(frozen=True)
    class Wrong(Backbone):
        name = "wrong"
        kind: Literal["wide"] | None = param(None, "k", fills={"wide": {"widht": 9}})

        def build(self, **_): ...

    with pytest.raises(TypeError, match="fills 'widht'"):
        parameters(Wrong)


@pytest.mark.parametrize(
    ("declared", "default", "filled", "reason"),
    [
        (str, "", {"width": 9}, r"must be Literal\['wide'\] \| None = None"),  # any text, and ids would miss it
        (Literal["wide"], "wide", {"width": 9}, r"must be Literal\['wide'\] \| None"),
        (Literal["wide"] | None, "wide", {"width": 9}, "must be Literal"),  # the default would fill nothing
        (Literal["wide", "other"] | None, None, {"width": 9}, "must be Literal"),
        (Literal["wide"] | None, None, {"width": "many"}, "wide fills 'width' with 'many', which must be int >= 1"),
        (Literal["wide"] | None, None, {"width": 0}, "wide fills 'width' with 0, which must be int >= 1"),
        (Literal["wide"] | None, None, {"width": 2.5}, "must be int >= 1"),
    ],
)
def test_names_that_ids_could_miss_or_that_fill_in_what_can_not_be_are_refused_when_a_class_is_looked_at(
    declared, default, filled, reason
):
    made = type("Made", (Backbone,), {
        "name": "made", "width": param(1, "w", ge=1), "kind": param(default, "k", fills={"wide": filled}),
        "__annotations__": {"width": int, "kind": declared}, "build": lambda self, **_: None,
    })  # fmt: skip
    with pytest.raises(TypeError, match=reason):
        parameters(dataclass(frozen=True)(made))


def test_what_an_author_derives_stands_and_names_fill_only_what_is_not_given():
    @dataclass(frozen=True)
    class Derived(Backbone):
        name = "derived"
        width: int = param(8, "w")
        inner: int = param(0, "twice the width where it is not given")

        def __post_init__(self):
            if not self.inner:
                object.__setattr__(self, "inner", 2 * self.width)
            super().__post_init__()

        def build(self, **_): ...

    assert [d.inner for d in (Derived(), Derived(9), Derived(width=9), Derived(width=9, inner=3))] == [16, 18, 18, 3]

    @dataclass(frozen=True)
    class Sized(Derived):
        name = "sized"
        depth: int = param(1, "d")
        size: Literal["deep", "wide"] | None = param(None, "s", fills={"deep": {"depth": 5}, "wide": {"width": 32}})

        def build(self, **_): ...

    deep, wide = Sized(9, size="deep"), Sized(8, 0, 2, size="wide")
    assert (deep.width, deep.inner, deep.depth) == (9, 18, 5)
    assert (wide.width, wide.depth) == (8, 2)  # both were given

    @dataclass(frozen=True)
    class Ahead(Backbone):
        name = "ahead"
        _: KW_ONLY
        width: int = param(8, "w")
        size: Literal["wide"] | None = param(None, "s", fills={"wide": {"width": 32}})

        def build(self, **_): ...

    @dataclass(frozen=True)
    class Behind(Ahead):
        name = "behind"
        depth: int = param(1, "given by place, though it is the last field")

    assert (Behind(3, size="wide").width, Behind(3, size="wide").depth) == (32, 3)


def test_what_came_later_enters_ids_only_where_it_differs():
    old = {"channels": 16, "mults": [1, 2], "blocks": 1, "attention": [], "middle_attention": True, "heads": 1,
           "fourier": False, "octaves": [3, 4]}  # fmt: skip
    assert spec.hashed_values(UNet()) == old
    assert spec.hashed_values(UNet(time="shift")) == {**old, "time": "shift"}
    assert spec.hashed_values(UNet(details="ho")) == {**old, "details": "ho"}
    assert spec.hashed_values(UNet(checkpoint=True)) == old  # it moves no bit: see the tests of it
    assert spec.from_values(UNet, old) == UNet()  # a stage that was planned before


# --- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
def test_no_label_is_the_row_behind_the_classes(text):
    net, plain = build(text, classes=3).eval(), build(text)
    assert net.labels.weight.shape[0] == 4
    assert plain.labels is None
    x, t = batch()
    with torch.inference_mode():
        none, fourth = net(x, t), net(x, t, torch.full((4,), 3))
        assert torch.equal(none, fourth)
        assert not any(torch.allclose(none, net(x, t, torch.full((4,), k)), atol=1e-4) for k in range(3))
        mixed = net(x, t, torch.tensor([0, 3, 1, 3]))
        torch.testing.assert_close(mixed[1], none[1], rtol=0, atol=1e-5)


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("sides", [(8, 8), (8, 16), (12, 4)])
@pytest.mark.parametrize("text", ["unet:channels=8:attention=4/8", "unet:channels=4:mults=1:details=ho", "mlp"])
def test_networks_take_any_channels_and_shapes_that_are_not_square(text, sides, channels):
    text = text if max(sides) < 12 else text.replace("4/8", str(max(sides) // 2))
    size = sides[0] if sides[0] == sides[1] else sides
    x, t = batch(channels, sides)
    assert build(text, channels, 2 * channels, size)(x, t).shape == (4, 2 * channels, *sides)


@pytest.mark.parametrize("text", ["mlp", "unet:mults=1:attention=1"])
def test_a_vector_is_an_image_of_one_pixel(text):
    x, t = batch(7, (1, 1))
    assert build(text, 7, size=1)(x, t).shape == (4, 7, 1, 1)


def test_attention_counts_the_longer_side():
    shape = {"in_channels": 1, "out_channels": 1, "image_size": (8, 16)}
    with pytest.raises(DdpmkitError, match="the resolutions are 16, 8"):
        UNet(attention=(4,)).build(**shape)
    net = UNet(attention=(8,)).build(**shape)
    assert not hasattr(net.down[0].attention, "heads")
    assert net.down[2].attention.heads == 1


@pytest.mark.parametrize(("text", "size"), [("unet:mults=1/2/2", (8, 6)), ("unet:size=ho-cifar10:channels=8", 28),
                                            ("unet:size=ho-cifar10:channels=8", (8, 4)), ("unet", (1, 8))])  # fmt: skip
def test_a_hint_for_images_that_do_not_fit_builds_a_network_that_does(text, size):
    shape = {"in_channels": 1, "out_channels": 1, "image_size": size}
    with pytest.raises(DdpmkitError) as caught:
        ddpmkit.build("backbone", text).build(**shape)
    shown = str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"
    assert f"an image of size {shown} can't be halved" in caught.value.message
    hinted = str(caught.value.hint).rpartition("as in ")[2]
    assert not text.startswith("unet:size") or hinted.startswith("unet:size=ho-cifar10:channels=8:mults=")
    x, t = batch(1, (size, size) if isinstance(size, int) else size)
    assert ddpmkit.build("backbone", hinted).build(**shape)(x, t).shape == x.shape


@pytest.mark.parametrize(("patch", "side", "attention"), [(1, 8, 8), (2, 8, 4), (2, 16, 8), (4, 32, 4), (1, 8, 4)])
def test_attention_of_patches_stands_where_the_resolution_is(patch, side, attention):
    backbone = UNet(channels=8, mults=(1, 2), middle_attention=False, attention=(attention,), patch=patch)
    net = backbone.build(in_channels=1, out_channels=1, image_size=side)
    seen = []
    for module in net.modules():
        if type(module).__name__ == "Attention":
            module.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-1]))
    net(torch.zeros(1, 1, side, side), torch.zeros(1))
    assert seen == [attention] * 3  # one block on the way down, two on the way up


def test_the_ho_network_on_mnist_is_hinted_attention_near_that_of_the_paper():
    with pytest.raises(DdpmkitError) as caught:
        UNet(size="ho-cifar10").build(in_channels=1, out_channels=1, image_size=28)
    assert caught.value.hint == "give fewer mults, as in unet:size=ho-cifar10:mults=1/2/2:attention=14"


@dataclass(frozen=True)
class Square(Backbone):
    """Takes square images alone, as every backbone that says nothing."""

    name = "square-only"

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        assert isinstance(image_size, int)
        return torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)


def test_a_backbone_that_takes_square_images_only_is_asked_for_no_others():
    shape = {"in_channels": 1, "out_channels": 1}
    assert contract.network(Square(), **shape, image_size=8) is not None
    with pytest.raises(DdpmkitError, match="backbone 'square-only' takes square images only"):
        contract.network(Square(), **shape, image_size=(8, 12))
    assert contract.network(UNet(), **shape, image_size=(8, 12)) is not None
    assert contract.image_size((5, 1, 8, 8)) == 8
    assert contract.image_size((5, 1, 8, 12)) == (8, 12)


def test_a_plan_names_the_backbone_and_the_data_set_that_do_not_go_together(monkeypatch):
    from ddpmkit.plugin.interfaces import Images
    from ddpmkit.study import data, planning

    study = make_study({"train_seeds": "0"}, REGISTRY)
    context = make_context(study, monkeypatch, data, planning, Images)
    with pytest.raises(DdpmkitError) as caught:
        planning.Parts.build(study.base, context)
    assert caught.value.message == (
        "backbone 'unet' takes square images only, and those of data set 'digits' are 8x12 (HxW)"
    )


def make_context(study, monkeypatch, data, planning, Images):
    """The context of a plan whose images are not square, for a U-Net that takes no such ones."""
    monkeypatch.setattr(UNet, "non_square", False)
    levels = np.zeros((4, 1, 8, 12), dtype=np.uint8)
    images = Images(levels, levels, levels, 17, {})
    return planning.Context(study, REGISTRY, images, "", {}, (0.99,), (), 1.0, None)


# --- checkpointing -----------------------------------------------------------------------------------------------


def one_step(text, rate, classes=None):
    """A training step as trainings do it, channels last."""
    net = devices.place(build(text, classes=classes), torch.device("cpu"))
    for layer, attribute in contract.dropout_layers(net):
        setattr(layer, attribute, rate)
    x, t = batch()
    torch.manual_seed(7)
    out = net.train()(x, t, None if classes is None else torch.tensor([0, 2, 1, 3]))
    (out * batch()[0].flip(0)).sum().backward()
    return out.detach(), [p.grad for p in net.parameters()], torch.rand(3)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("text", EVERY[:2])
def test_checkpointing_changes_no_bit_with_dropout_or_without(text, rate, classes):
    plain, saved = one_step(text, rate, classes), one_step(f"{text}:checkpoint=true", rate, classes)
    assert torch.equal(plain[0], saved[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], saved[1], strict=True))
    assert torch.equal(plain[2], saved[2])  # and what is drawn afterwards
    assert rate == 0 or not torch.equal(plain[0], one_step(text, 0.0, classes)[0])


def test_checkpointing_changes_no_bit_in_bfloat16():
    def step(text):
        with torch.autocast("cpu", torch.bfloat16):
            return one_step(text, 0.3)

    plain, saved = step(SMALL), step(f"{SMALL}:checkpoint=true")
    assert torch.equal(plain[0], saved[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], saved[1], strict=True))


def test_checkpointing_holds_less_and_computes_again_in_training_alone(monkeypatch):
    calls = []
    forward = ResBlock.forward
    monkeypatch.setattr(ResBlock, "forward", lambda self, *given: calls.append(None) or forward(self, *given))
    x, t = batch()

    def held(text):
        """Bytes that the graph holds between forward and backward."""
        net, sizes = build(text).train(), {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda s: sizes.update({s.data_ptr(): s.nbytes}) or s, lambda s: s
        ):
            calls.clear()
            out = net(x, t)
        before = len(calls)
        out.sum().backward()
        return sum(sizes.values()), len(calls) - before

    (much, none), (little, again) = held(SMALL), held(f"{SMALL}:checkpoint=true")
    assert (none, again) == (0, 8)  # every block
    assert little < 0.5 * much
    calls.clear()
    with torch.inference_mode():
        build(f"{SMALL}:checkpoint=true").eval()(x, t)
    assert len(calls) == 8
    assert little > 0


def test_cells_that_differ_in_checkpointing_share_their_training():
    study = make_study({"backbones": "unet,unet:checkpoint=true", "train_seeds": "0", "metrics": "fd"}, REGISTRY)
    plan = make_plan(study, REGISTRY)
    assert len(plan.cells) == 2
    assert sum(s.kind == "train" for s in plan.stages.values()) == 1


def test_a_patch_is_the_network_on_rearranged_pixels() -> None:
    """unet:patch=2 of an image equals plain unet of its four half-size images of one pixel in four, rearranged."""
    x, t = torch.randn(2, 3, 8, 12), torch.tensor([10.0, 900.0])
    patched = UNet(patch=2).build(in_channels=3, out_channels=3, image_size=(8, 12))
    plain = UNet().build(in_channels=12, out_channels=12, image_size=(4, 6))
    for weight in patched.parameters():  # zeroed ends would make any two networks agree
        torch.nn.init.normal_(weight, std=0.1)
    plain.load_state_dict(patched.state_dict())
    quarters = torch.stack([x[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)], dim=1)
    out, expected = patched(x, t), plain(quarters, t)
    again = torch.stack([out[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)], dim=1)
    assert out.shape == x.shape
    assert torch.equal(again, expected)


@pytest.mark.parametrize(
    ("unet", "size", "message", "hint"),
    [
        (UNet(patch=3), 8, "unet: patch=3 does not divide an image of size 8x8", "as in unet"),
        (UNet(patch=4), 6, "unet: patch=4 does not divide an image of size 6x6", "as in unet:patch=2"),
        (
            UNet(patch=4),
            12,
            "size 12, 4x4 pixels a patch, can't be halved 1 times",
            "mults=1:patch=4",
        ),
    ],
)
def test_a_patch_that_fits_no_image_is_refused_with_one_that_does(
    unet: UNet, size: int, message: str, hint: str
) -> None:
    with pytest.raises(DdpmkitError) as caught:
        unet.build(in_channels=1, out_channels=1, image_size=size)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
