"""Adaptive group normalisation with SiLU behind it, by torch's layers or by one Triton kernel each way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from ddpmkit.errors import DdpmkitError
from ddpmkit.kernels import fused, power_of_two

TILE = {"forward": 4096, "backward": 2048}  # numbers of a tile, by how many of its like a kernel holds at once
SECTOR = 32  # bytes that a GPU reads at least: so many neighbouring channels a program has where they are neighbours


def group_norm_silu(
    norm: nn.GroupNorm,
    x: Tensor,
    *,
    before: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """Return silu(norm(x + before) (1 + scale) + shift), as one kernel where those of Triton run.

    GroupNorm: Wu & He 2018 (arXiv 1803.08494), eq. 1, 2 and 7; scale and shift by time: Nichol & Dhariwal 2021 (arXiv
    2102.09672), section 3; shift before the norm: Ho et al. 2020, appendix B. Hooks of ``norm`` run in torch alone.

    Args:
        norm: The layer, with weight and bias.
        x: (B, C, H, W), float32 or bfloat16, in any memory format, which the result has too.
        before: (B, C), added to every pixel in front of the norm.
        scale: (B, C), together with ``shift``.
        shift: (B, C).
        silu: False leaves out the SiLU.

    Raises:
        DdpmkitError: when one of scale and shift is given without the other.
    """
    if (scale is None) != (shift is None):
        raise DdpmkitError("group_norm_silu takes a scale and a shift together", "give both, or neither")
    if fused(x.device) and _takes(norm, x):
        how = {"groups": norm.num_groups, "eps": norm.eps, "silu": silu}
        found: Tensor = torch.ops.ddpmkit.group_norm.default(x, norm.weight, norm.bias, before, scale, shift, **how)[0]
        return found
    return _eager(norm, x, before, scale, shift, silu)


def _eager(
    norm: nn.GroupNorm, x: Tensor, before: Tensor | None, scale: Tensor | None, shift: Tensor | None, silu: bool
) -> Tensor:
    """The twin: what the kernels must give, up to rounding."""
    h: Tensor = norm(x if before is None else x + before[:, :, None, None])
    if scale is not None and shift is not None:
        h = h * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return F.silu(h) if silu else h


def _takes(norm: nn.GroupNorm, x: Tensor) -> bool:
    known = x.dtype in (torch.float32, torch.bfloat16) and x.dim() == 4 and x.numel() > 0
    return known and norm.affine and norm.weight.dtype is torch.float32


# Not custom_op: an operator of its making imports the whole compiler when it is first called.
_ROWS = "Tensor? before, Tensor? scale, Tensor? shift"
torch.library.define(
    "ddpmkit::group_norm",
    f"(Tensor x, Tensor weight, Tensor bias, {_ROWS}, *, int groups, float eps, bool silu) -> (Tensor, Tensor)",
)
torch.library.define(
    "ddpmkit::group_norm_backward",
    f"(Tensor dy, Tensor x, Tensor weight, Tensor bias, {_ROWS}, Tensor stats, *, int groups, bool silu) "
    "-> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("ddpmkit::group_norm", ("cpu", "cuda"))
def _(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, scale: Tensor | None, shift: Tensor | None,
    *, groups: int, eps: float, silu: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y like x, and for the gradient the mean and 1 / standard deviation of each group, float32 (2, B, G)."""
    from ddpmkit.kernels.group_norm_triton import forward_kernel

    x = _dense(x)
    y = torch.empty_like(x)
    stats = torch.empty(2, len(x), groups, dtype=torch.float32, device=x.device)
    grid, size = _launch(x, groups, TILE["forward"])
    given = _rows(before, scale, shift)
    with torch.cuda.device_of(x):
        forward_kernel[grid](
            x, given[0], weight, bias, *given[1:], y, stats, len(x), x.shape[1], x.shape[2] * x.shape[3], groups, eps,
            SILU=silu, **size,
        )  # fmt: skip
    return y, stats


@torch.library.register_fake("ddpmkit::group_norm")  # type: ignore[untyped-decorator]
def _(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, scale: Tensor | None, shift: Tensor | None,
    *, groups: int, eps: float, silu: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(_dense(x)), x.new_empty((2, x.shape[0], groups), dtype=torch.float32)


@torch.library.impl("ddpmkit::group_norm_backward", ("cpu", "cuda"))
def _(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, scale: Tensor | None,
    shift: Tensor | None, stats: Tensor, *, groups: int, silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return dx like x, float32 (2, C): dweight and dbias, and float32 (R, B, C): dscale, dshift, dbefore, if given."""
    from ddpmkit.kernels.group_norm_triton import backward_kernel

    x = _dense(x)
    nhwc = _nhwc(x)
    dy = dy.contiguous(memory_format=torch.channels_last if nhwc else torch.contiguous_format)
    b, c, h, w = x.shape
    dx = torch.empty_like(x)
    parts = torch.empty(2, b, c, dtype=torch.float32, device=x.device)
    rows = parts.new_empty(_count(before, scale), b, c)
    grid, size = _launch(x, groups, TILE["backward"])
    given = _rows(before, scale, shift)
    with torch.cuda.device_of(x):
        backward_kernel[grid](
            dy, x, given[0], weight, bias, *given[1:], stats, dx, parts, rows, b, c, h * w, groups,
            SILU=silu, **size,
        )  # fmt: skip
    return dx, parts.sum(1), rows  # the sum over images in torch's fixed order: no atomic addition


@torch.library.register_fake("ddpmkit::group_norm_backward")  # type: ignore[untyped-decorator]
def _(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None, scale: Tensor | None,
    shift: Tensor | None, stats: Tensor, *, groups: int, silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b, c = x.shape[:2]
    rows = x.new_empty((_count(before, scale), b, c), dtype=torch.float32)
    return torch.empty_like(_dense(x)), x.new_empty((2, c), dtype=torch.float32), rows


def _remember(
    ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor], keyword_only_inputs: dict[str, Any]
) -> None:
    ctx.how = {name: keyword_only_inputs[name] for name in ("groups", "silu")}
    ctx.save_for_backward(*inputs, output[1])


def _hand_back(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # asked for once: a checkpointed layer hands its tensors out a single time
    before, scale, shift = saved[3:6]
    dx, of_weights, rows = torch.ops.ddpmkit.group_norm_backward.default(dy, *saved, **ctx.how)
    of_rows = [None if of is None else rows[i].to(of.dtype) for i, of in ((-1, before), (0, scale), (1, shift))]
    return dx, of_weights[0], of_weights[1], *of_rows


torch.library.register_autograd("ddpmkit::group_norm", _hand_back, setup_context=_remember)


def _rows(*given: Tensor | None) -> list[Tensor | None]:
    return [None if row is None else row.contiguous() for row in given]


def _count(before: Tensor | None, scale: Tensor | None) -> int:
    return (before is not None) + 2 * (scale is not None)


def _nhwc(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor) -> Tensor:
    return x if _nhwc(x) else x.contiguous()


def _launch(x: Tensor, groups: int, tile: int) -> tuple[tuple[int], dict[str, Any]]:
    """The number of programs, and what each works on."""
    c, pixels = x.shape[1], x.shape[2] * x.shape[3]
    each, nhwc = c // groups, _nhwc(x)
    channels = power_of_two(each)
    together = max(1, min(power_of_two(groups), SECTOR // x.element_size() // channels)) if nhwc else 1
    block = max(1, min(power_of_two(pixels), tile // (together * channels)))
    size = {"CG": each, "GB": together, "CB": channels, "BLOCK": block, "NHWC": nhwc}
    return (len(x) * -(-groups // together),), {**size, "num_warps": 4 if block * together * channels < 2048 else 8}
