"""The vision transformer of DINOv2 as a torch module; imported only when features are taken."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

PATCH, HEAD = 14, 64


class Block(nn.Module):
    """x + ls1 Attention(norm1 x), then x + ls2 MLP(norm2 x); Oquab et al. 2023, arXiv 2304.07193."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale1, self.scale2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        h = self.norm1(x)
        split = [f(h).unflatten(-1, (self.heads, HEAD)).transpose(1, 2) for f in (self.query, self.key, self.value)]
        h = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = x + self.scale1 * self.out(h)
        out: Tensor = x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class VisionTransformer(nn.Module):
    """Patches of 14 x 14, a class token, learned positions; the output is the normalised class token."""

    def __init__(self, width: int, depth: int, positions: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, positions, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), H and W multiples of 14, normalised as ImageNet -> (B, width)."""
        h = self.patch(x)
        rows, columns = h.shape[2:]
        h = torch.cat([self.cls.expand(len(x), -1, -1), h.flatten(2).transpose(1, 2)], dim=1)
        h = h + self._positions_for(rows, columns)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.norm(h[:, 0])
        return out

    def _positions_for(self, rows: int, columns: int) -> Tensor:
        """The positions were learned on one square grid; another one gets them by bicubic interpolation."""
        side = round((self.positions.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return self.positions
        grid = self.positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
