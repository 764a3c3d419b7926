"""GroupNorm, scale, shift and SiLU in one launch forward and one backward, NCHW and NHWC.

Imported only where triton is. A program works on GB groups of one image: it reads them once for the statistics (tiles
merged as Chan, Golub & LeVeque 1983 do, so that no large mean cancels) and again, out of the cache, for what it writes.
Sums are in float32 whatever comes in and goes out, their order is fixed, and nothing is added atomically: the same bits
every time. The twin is ``group_norm._eager``.
Notation: u = x + before, n = (u - mean) rstd weight + bias, z = n (1 + scale) + shift, y = z sigmoid(z).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def group_block(C, G, CG: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr):
    """Which image and which channels a program has: b, g (GB,), c (GB, CB), and which of them are there."""
    across = tl.cdiv(G, GB)
    b = tl.program_id(0) // across
    g = (tl.program_id(0) % across) * GB + tl.arange(0, GB)
    i = tl.arange(0, CB)
    there = (g < G)[:, None] & (i < CG)[None, :]
    return b, g, g[:, None] * CG + i[None, :], there


@triton.jit
def tile_of(b, c, there, first, C, P, NHWC: tl.constexpr, BLOCK: tl.constexpr):
    """Where BLOCK pixels of these channels lie, (BLOCK, GB, CB), and which of them are there."""
    p = first + tl.arange(0, BLOCK)
    start = b.to(tl.int64) * C * P
    of_p, of_c = (C, 1) if NHWC else (1, P)
    at = start + (p * of_p)[:, None, None] + (c * of_c)[None, :, :]
    return at, (p < P)[:, None, None] & there[None, :, :]


@triton.jit
def total(values):
    """Sum (BLOCK, GB, CB) over pixels and channels: (GB,)."""
    return tl.sum(tl.sum(values, axis=0), axis=1)


@triton.jit
def modulated(n, scale, shift, row, there):
    """Apply the scale and the shift of each image's channels, (GB, CB)."""
    factor = 1.0 + tl.load(scale + row, mask=there, other=0.0).to(tl.float32)
    return n * factor[None, :, :] + tl.load(shift + row, mask=there, other=0.0).to(tl.float32)[None, :, :]


@triton.jit
def forward_kernel(
    x, before, weight, bias, scale, shift, y, stats, B, C, P, G, eps,
    CG: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr, BLOCK: tl.constexpr, NHWC: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Write y, and mean and rstd (2, B, G) for the gradient; before, scale and shift (B, C) may be None."""
    b, g, c, there = group_block(C, G, CG, GB, CB)
    row = b * C + c
    added = tl.zeros([GB, CB], tl.float32)
    if before is not None:
        added += tl.load(before + row, mask=there, other=0.0).to(tl.float32)
    mean, m2 = tl.zeros([GB], tl.float32), tl.zeros([GB], tl.float32)
    for first in range(0, P, BLOCK):
        at, inside = tile_of(b, c, there, first, C, P, NHWC, BLOCK)
        u = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + added[None, :, :]
        seen, new = first * (CG * 1.0), tl.minimum(P - first, BLOCK) * (CG * 1.0)
        ahead = total(tl.where(inside, u, 0.0)) / new
        off = tl.where(inside, u - ahead[None, :, None], 0.0)
        delta = ahead - mean
        m2 += total(off * off) + delta * delta * (seen * new / (seen + new))
        mean += delta * (new / (seen + new))
    rstd = 1.0 / tl.sqrt(m2 / (P * (CG * 1.0)) + eps)
    tl.store(stats + b * G + g, mean, mask=g < G)
    tl.store(stats + B * G + b * G + g, rstd, mask=g < G)
    w = tl.load(weight + c, mask=there, other=0.0)
    o = tl.load(bias + c, mask=there, other=0.0)
    for first in range(0, P, BLOCK):
        at, inside = tile_of(b, c, there, first, C, P, NHWC, BLOCK)
        u = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + added[None, :, :]
        z = (u - mean[None, :, None]) * rstd[None, :, None] * w[None, :, :] + o[None, :, :]
        if scale is not None:
            z = modulated(z, scale, shift, row, there)
        if SILU:
            z = z * tl.sigmoid(z)
        tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
def slopes(x, dy, at, inside, added, mean, rstd, w, o, factor, offset, SILU: tl.constexpr):
    """The normalised values and dL/dz of a tile, zero where nothing is."""
    u = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + added[None, :, :]
    normed = tl.where(inside, (u - mean[None, :, None]) * rstd[None, :, None], 0.0)
    dz = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        z = (normed * w[None, :, :] + o[None, :, :]) * factor[None, :, :] + offset[None, :, :]
        s = tl.sigmoid(z)
        dz *= s * (1.0 + z * (1.0 - s))
    return normed, dz


@triton.jit
def backward_kernel(
    dy, x, before, weight, bias, scale, shift, stats, dx, parts, rows, B, C, P, G,
    CG: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr, BLOCK: tl.constexpr, NHWC: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Write dx, the parts of dweight and dbias (2, B, C), and rows (R, B, C): dscale, dshift, dbefore, if given."""
    b, g, c, there = group_block(C, G, CG, GB, CB)
    row = b * C + c
    mean = tl.load(stats + b * G + g, mask=g < G, other=0.0)
    rstd = tl.load(stats + B * G + b * G + g, mask=g < G, other=0.0)
    w = tl.load(weight + c, mask=there, other=0.0)
    o = tl.load(bias + c, mask=there, other=0.0)
    zeros = tl.zeros([GB, CB], tl.float32)
    added, factor, offset = zeros, zeros + 1.0, zeros
    if before is not None:
        added += tl.load(before + row, mask=there, other=0.0).to(tl.float32)
    if scale is not None:
        factor += tl.load(scale + row, mask=there, other=0.0).to(tl.float32)
        offset += tl.load(shift + row, mask=there, other=0.0).to(tl.float32)

    one, by, plain = zeros, zeros, zeros  # sums over pixels of dz, of dz normed, of normed
    for first in range(0, P, BLOCK):
        at, inside = tile_of(b, c, there, first, C, P, NHWC, BLOCK)
        normed, dz = slopes(x, dy, at, inside, added, mean, rstd, w, o, factor, offset, SILU)
        one += tl.sum(dz, axis=0)
        by += tl.sum(dz * normed, axis=0)
        if before is not None:
            plain += tl.sum(normed, axis=0)
    gain = w * factor
    count = P * (CG * 1.0)
    mean_one = tl.sum(gain * one, axis=1) / count  # (GB,): what the mean and the variance hand back
    mean_by = tl.sum(gain * by, axis=1) / count
    for first in range(0, P, BLOCK):
        at, inside = tile_of(b, c, there, first, C, P, NHWC, BLOCK)
        normed, dz = slopes(x, dy, at, inside, added, mean, rstd, w, o, factor, offset, SILU)
        du = rstd[None, :, None] * (dz * gain[None, :, :] - mean_one[None, :, None] - normed * mean_by[None, :, None])
        tl.store(dx + at, du.to(dx.dtype.element_ty), mask=inside)

    tl.store(parts + row, by * factor, mask=there)
    tl.store(parts + B * C + row, one * factor, mask=there)
    if scale is not None:
        tl.store(rows + row, by * w + one * o, mask=there)
        tl.store(rows + B * C + row, one, mask=there)
    if before is not None:
        handed = rstd[:, None] * (gain * one - P * mean_one[:, None] - plain * mean_by[:, None])
        first = 0 if scale is None else 2
        tl.store(rows + first * B * C + row, handed, mask=there)
