"""CLIP's Vision Transformer (Dosovitskiy et al., 2021; Radford et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tipserve_export.models.transformer import Block


class VisionTransformer(nn.Module):
    """Normalised pixels [B, 3, S, S] to raw picture features [B, out_width]."""

    def __init__(
        self,
        *,
        patch: int,
        grid: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        out_width: int,
        quick_gelu: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        # The class embedding with its position already added, and the patches' positions.
        self.class_row = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, grid * grid, width))
        self.norm_pre = nn.LayerNorm(width, eps=eps)
        blocks = [
            Block(width, heads, mlp_width, quick_gelu=quick_gelu, eps=eps) for _ in range(layers)
        ]
        self.blocks = nn.ModuleList(blocks[:-1])
        self.last = blocks[-1]
        self.norm_post = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, out_width, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The class token's projected output, not normalised."""
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([self.class_row.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm_pre(x)
        for block in self.blocks:
            x = block(x, False)
        first = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        x = self.last.one_row(x, first, None)
        return self.projection(self.norm_post(x))
