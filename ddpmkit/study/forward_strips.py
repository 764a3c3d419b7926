"""The forward process: one image dissolving under each schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpmkit.diffusion.tables_for import Tables
from ddpmkit.pixels import quantise, to_pixels
from ddpmkit.randomness import normal, stream_key
from ddpmkit.study.strips import Strips

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Levels

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def forward_strips(image: Levels, levels: int, tables: Mapping[str, Tables], seed: int = 0) -> Strips:
    """Dissolve one image (C, H, W) under each schedule with the same noise, at the same fractions of T.

    x_t = m_t x0 + S_t eps; a chain that explodes is shown divided by sqrt(m_t^2 + S_t^2).
    """
    x0 = to_pixels(torch.from_numpy(image), levels)
    eps = normal(stream_key(seed, "noise"), torch.zeros(1, dtype=torch.int64), tuple(x0.shape))[0]
    rows = {}
    for label, chain in tables.items():
        row = []
        for fraction in FRACTIONS:
            t = round(fraction * chain.T) - 1
            signal, noise = (1.0, 0.0) if t < 0 else (float(chain.signal[t]), float(chain.noise2[t]) ** 0.5)
            scale = 1.0 if t < 0 else float(chain.input_scale[t])
            row.append(quantise(scale * (signal * x0 + noise * eps), levels).numpy())
        rows[label] = np.stack(row)
    return Strips(rows, ("x0", *(f"{f:.2g} T" for f in FRACTIONS[1:])), levels)
