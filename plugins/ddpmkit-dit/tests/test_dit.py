from __future__ import annotations

import math

import pytest
import torch
from ddpmkit import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing import checks

from ddpmkit_dit.embeddings import position_table

REGISTRY = Registry(strict=True)  # one for all: to look for plugins takes a while
build = REGISTRY.build

# Parameters of the published networks at 32x32x4 latents with 1000 classes and a learned sigma, in millions (Table 1),
# and for DiT-XL/2 as their code prints it, with the table of positions that is no parameter here.
MILLIONS = {"s": 33, "b": 130, "l": 458, "xl": 675}
XL_2 = 675_129_632 - 256 * 1152


def moved(net: torch.nn.Module) -> torch.nn.Module:
    """Off zero, so that all layers are seen."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def test_it_is_found_by_its_name_and_nothing_is_wrong_with_it() -> None:
    entry = REGISTRY.find("backbone", "dit")
    assert (entry.plugin, entry.plugin_version) == ("ddpmkit-dit", "0.1.0")
    # Every module is an installed one's or named: an idea that moves to another module is another id.
    assert set(build("backbone", "dit:size=b").__dict__) == {"patch", "width", "depth", "heads", "mlp", "size"}


@pytest.mark.parametrize("check", checks("backbone"), ids=str)
def test_it_satisfies_its_kind(check) -> None:
    check(build("backbone", "dit:width=16:depth=2"))


@pytest.mark.parametrize("size", MILLIONS)
def test_the_published_sizes_have_as_many_parameters(size: str) -> None:
    with torch.device("meta"):
        net = build("backbone", f"dit:size={size}").build(
            in_channels=4, out_channels=8, image_size=32, num_classes=1000
        )
    count = sum(p.numel() for p in net.parameters())
    assert round(count / 1e6) == MILLIONS[size]
    if size == "xl":
        assert count == XL_2


def test_it_starts_as_zero_and_each_block_as_the_identity() -> None:
    net = build("backbone", "dit").build(in_channels=1, out_channels=1, image_size=8)
    h, told = torch.randn(2, 16, 64), torch.randn(2, 64)
    assert torch.equal(net.blocks[0](h, told), h)
    assert not net(torch.randn(2, 1, 8, 8), torch.tensor([0.0, 500.0])).any()


def test_positions_are_told_apart_by_column_and_row() -> None:
    table = position_table(2, 3, 8)[0].double()
    assert table.shape == (6, 8)
    for token, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        waves = [(p, f(p * w)) for p in (column, row) for f in (math.sin, math.cos) for w in (1.0, 0.01)]
        torch.testing.assert_close(
            table[token], torch.tensor([v for _, v in waves], dtype=torch.float64), rtol=0, atol=1e-7
        )


def test_patches_come_back_to_where_they_were() -> None:
    """With blocks that do nothing, a pixel's answer depends on its own patch alone."""
    net = moved(
        build("backbone", "dit:depth=1:width=16:heads=2").build(in_channels=1, out_channels=2, image_size=(4, 8))
    )
    with torch.no_grad():
        net.blocks[0].modulation.weight.zero_()
        net.blocks[0].modulation.bias.zero_()
        x = torch.randn(1, 1, 4, 8)
        other = x.clone()
        other[0, 0, 2, 5] += 1  # in the patch of rows 2 and 3, columns 4 and 5
        t = torch.tensor([300.0])
        changed = (net(other, t) != net(x, t)).any(1)[0]
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[2:, 4:6] = True
    assert torch.equal(changed, expected)


def test_attention_is_that_of_torch() -> None:
    net = moved(build("backbone", "dit:width=16:heads=2").build(in_channels=1, out_channels=1, image_size=8))
    ours = net.blocks[0].attention
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    theirs.load_state_dict(
        {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias, "out_proj.weight": ours.proj.weight,
         "out_proj.bias": ours.proj.bias}
    )  # fmt: skip
    h = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(h), theirs(h, h, h, need_weights=False)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "size", "said"),
    [
        ("dit:patch=3", 8, "patch=3 does not divide an image of size 8x8"),
        ("dit:patch=2", (8, 5), "does not divide an image of size 8x5"),
        ("dit:heads=3", 8, "width=64 must be a multiple of 4 and of heads=3"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_works(text: str, size: int | tuple[int, int], said: str) -> None:
    with pytest.raises(DdpmkitError, match=said) as refused:
        build("backbone", text).build(in_channels=1, out_channels=1, image_size=size)
    works = str(refused.value.hint).removeprefix("as in ")
    assert build("backbone", works).build(in_channels=1, out_channels=1, image_size=size)
