"""The DiT as a torch module; imported only when a network is built."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from ddpmkit_dit.blocks import Block, Last
from ddpmkit_dit.embeddings import Labels, Time, position_table


class DiTModule(nn.Module):
    """forward(x, t, y=None); the keywords are the parameters of the component ``dit``, see ``ddpmkit show dit``."""

    def __init__(
        self,
        cin: int,
        cout: int,
        grid: tuple[int, int],
        classes: int | None,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp: int,
    ) -> None:
        super().__init__()
        self.patch, self.cout = patch, cout
        self.patches = nn.Conv2d(cin, width, patch, stride=patch)
        nn.init.xavier_uniform_(self.patches.weight.view(width, -1))
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]
        self.register_buffer("positions", position_table(*grid, width))
        self.time = Time(width)
        self.labels = Labels(classes, width) if classes is not None else None
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(depth))
        self.last = Last(width, patch * patch * cout)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """X (B, cin, H, W), t float32 (B,) in [0, 1000), y int64 (B,) or None -> (B, cout, H, W)."""
        told = self.time(t, x.dtype)
        if self.labels is not None:
            told = told + self.labels.of(y, len(x))
        told = F.silu(told)
        h = self.patches(x)
        rows, columns = h.shape[2:]
        h = h.flatten(2).transpose(1, 2) + self.positions.to(h.dtype)
        for block in self.blocks:
            h = block(h, told)
        p = self.patch
        pixels = self.last(h, told).reshape(len(x), rows, columns, p, p, self.cout)
        out: Tensor = pixels.permute(0, 5, 1, 3, 2, 4).reshape(len(x), self.cout, p * rows, p * columns)
        return out.contiguous()
