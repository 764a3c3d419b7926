"""How likely are the data under the model? Bits/dim with an error bar: what is asked, what came back, the bound."""

from __future__ import annotations

from ddpmkit.likelihood.any_network import bits_per_dim
from ddpmkit.likelihood.ask import draw
from ddpmkit.likelihood.control_variates import LinearGaussian
from ddpmkit.likelihood.draws import Draws
from ddpmkit.likelihood.vlb import Bound, bound, paired

__all__ = ["Bound", "Draws", "LinearGaussian", "bits_per_dim", "bound", "draw", "paired"]
