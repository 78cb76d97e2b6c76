"""CLIP's causal text transformer (Radford et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tipserve_export.models.transformer import Block


class TextTransformer(nn.Module):
    """Token ids [n, T] to raw text features [n, out_width], read at the first largest id.

    The largest id is the end token. Attention is causal, so nothing behind the end token can
    reach the feature: the padding behind the longest text of a batch is never computed.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        out_width: int,
        quick_gelu: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        blocks = [
            Block(width, heads, mlp_width, quick_gelu=quick_gelu, eps=eps) for _ in range(layers)
        ]
        self.blocks = nn.ModuleList(blocks[:-1])
        self.last = blocks[-1]
        self.norm_final = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, out_width, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """The projected output at each text's end token, not normalised."""
        end = ids.argmax(dim=1)
        length = int(end.max()) + 1
        x = self.tokens(ids[:, :length]) + self.positions[:length]
        for block in self.blocks:
            x = block(x, True)
        places = torch.arange(length, device=ids.device)
        visible = (places.unsqueeze(0) <= end.unsqueeze(1)).reshape(-1, 1, 1, length)
        x = self.last.one_row(x, end, visible)
        return self.projection(self.norm_final(x))
