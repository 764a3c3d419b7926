"""Philox4x32-10 and Box-Muller as Triton kernels: a launch for what takes plain torch some hundred and fifty.

Imported only where triton is. The words are those of ``randomness.philox`` bit for bit: integers alone. The normals do
the same operations in the same precisions in the same order as ``randomness.normal``.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

M0 = tl.constexpr(0xD2511F53)  # multipliers
M1 = tl.constexpr(0xCD9E8D57)
W0 = tl.constexpr(0x9E3779B9)  # key increments
W1 = tl.constexpr(0xBB67AE85)
TURN = tl.constexpr(2.0 * math.pi * 2.0**-32)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four words, uint32, for each counter."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, M0), c0 * M0
        high1, low1 = tl.umulhi(c2, M1), c2 * M1
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 += W0
        k1 += W1
    return c0, c1, c2, c3


@triton.jit
def words_of(index, position, rows, known, block, k0, k1, where):
    """The words of the counters (block, index, position, 0); uint32, of the shape of rows and block together."""
    c1 = tl.load(index + rows, mask=known, other=0).to(tl.uint32)
    if position is None:
        c2 = tl.zeros_like(c1) + where.to(tl.uint32, bitcast=True)
    else:
        c2 = tl.load(position + rows, mask=known, other=0).to(tl.uint32)
    zero = tl.zeros_like(block + c1)
    key0, key1 = k0.to(tl.uint32, bitcast=True), k1.to(tl.uint32, bitcast=True)
    return philox(block + zero, c1 + zero, c2 + zero, zero, zero + key0, zero + key1)


@triton.jit
def pair(radius_word, angle_word):
    """Two unit normals of two words; the logarithm is of a number in (0, 1]."""
    radius = tl.sqrt(tl.log((radius_word.to(tl.float64) + 1.0) * 2.3283064365386963e-10) * -2.0).to(tl.float32)
    angle = (angle_word.to(tl.float64) * TURN).to(tl.float32)
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit(do_not_specialize=["k0", "k1", "where"])
def normal_kernel(index, position, out, k0, k1, where, total, count, blocks, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Fill out (total, count): a program for ROWS rows and BLOCK counters of each."""
    across = tl.cdiv(blocks, BLOCK)
    first = (tl.program_id(0) // across) * ROWS
    begin = (tl.program_id(0) % across) * BLOCK
    rows = (first + tl.arange(0, ROWS))[:, None]
    known = rows < total
    block = (begin + tl.arange(0, BLOCK))[None, :].to(tl.uint32)
    w0, w1, w2, w3 = words_of(index, position, rows, known, block, k0, k1, where)
    v0, v1 = pair(w0, w1)
    v2, v3 = pair(w2, w3)
    values = tl.interleave(tl.interleave(v0, v2), tl.interleave(v1, v3))  # in the order v0, v1, v2, v3
    at = (4 * begin + tl.arange(0, 4 * BLOCK))[None, :]
    tl.store(out + rows.to(tl.int64) * count + at, values, mask=known & (at < count))


@triton.jit(do_not_specialize=["k0", "k1", "where"])
def uniform_kernel(index, out, k0, k1, where, total, ROWS: tl.constexpr):
    """Fill out (total,), float64: 53 bits of the words of the counters (0, index, where, 0)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    known = rows < total
    w0, w1, _, _ = words_of(index, None, rows, known, tl.zeros([ROWS], tl.uint32), k0, k1, where)
    high, low = (w0 >> 5).to(tl.float64), (w1 >> 6).to(tl.float64)
    tl.store(out + rows, (high * 67108864.0 + low) * 1.1102230246251565e-16, mask=known)


@triton.jit(do_not_specialize=["k0", "k1"])
def words_kernel(counters, out, k0, k1, total, ROWS: tl.constexpr):
    """Fill out (4, total) with the words of counters (4, total), int64 both: what tests compare with known answers."""
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    known = at < total
    c0 = tl.load(counters + at, mask=known, other=0).to(tl.uint32)
    c1 = tl.load(counters + total + at, mask=known, other=0).to(tl.uint32)
    c2 = tl.load(counters + 2 * total + at, mask=known, other=0).to(tl.uint32)
    c3 = tl.load(counters + 3 * total + at, mask=known, other=0).to(tl.uint32)
    zero = tl.zeros_like(c0)
    key0, key1 = k0.to(tl.uint32, bitcast=True), k1.to(tl.uint32, bitcast=True)
    w0, w1, w2, w3 = philox(c0, c1, c2, c3, zero + key0, zero + key1)
    tl.store(out + at, w0.to(tl.int64), mask=known)
    tl.store(out + total + at, w1.to(tl.int64), mask=known)
    tl.store(out + 2 * total + at, w2.to(tl.int64), mask=known)
    tl.store(out + 3 * total + at, w3.to(tl.int64), mask=known)
