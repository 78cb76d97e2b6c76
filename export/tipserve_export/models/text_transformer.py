"""The text transformers of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023)."""

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
        tanh_gelu: bool = False,
        projection_bias: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        blocks = [
            Block(width, heads, mlp_width, quick_gelu=quick_gelu, eps=eps, tanh_gelu=tanh_gelu)
            for _ in range(layers)
        ]
        self.blocks = nn.ModuleList(blocks[:-1])
        self.last = blocks[-1]
        self.norm_final = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, out_width, bias=projection_bias)

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


class PaddedTextTransformer(TextTransformer):
    """Token ids [n, context] to raw text features: every token sees every other.

    Padding is seen too, as in training: rows must be filled up to the whole context. The
    feature is read at the last position (SigLIP) or at the largest id (MobileCLIP).
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
        tanh_gelu: bool = False,
        projection_bias: bool = False,
        read_last: bool = True,
    ) -> None:
        super().__init__(
            vocabulary=vocabulary,
            context=context,
            width=width,
            layers=layers,
            heads=heads,
            mlp_width=mlp_width,
            out_width=out_width,
            quick_gelu=quick_gelu,
            eps=eps,
            tanh_gelu=tanh_gelu,
            projection_bias=projection_bias,
        )
        self.read_last = read_last

    def forward(self, ids: Tensor) -> Tensor:
        """The projected output at the position that is read, not normalised."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, False)
        position = ids.argmax(dim=1)
        if self.read_last:
            position = torch.full_like(position, ids.shape[1] - 1)
        x = self.last.one_row(x, position, None)
        return self.projection(self.norm_final(x))
