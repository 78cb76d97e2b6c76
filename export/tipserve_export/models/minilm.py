"""MiniLM sentence embeddings (Wang et al., 2020; Reimers & Gurevych, 2019): a BERT encoder
(post-norm) with mean pooling over the tokens that are not padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BertLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, width: int, heads: int, mlp_width: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_1 = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, mlp_width)
        self.contract = nn.Linear(mlp_width, width)
        self.norm_2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """``x`` [n, T, width], ``visible`` [n, 1, 1, T] true at each token."""
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        x = self.norm_1(x + self.out(y.transpose(1, 2).reshape(n, length, width)))
        return self.norm_2(x + self.contract(F.gelu(self.expand(x))))

    def load(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        """Takes the layer's weights from a Hugging Face ``BertModel``."""
        attention = f"{prefix}.attention"
        for part in ("weight", "bias"):
            fused = [weights[f"{attention}.self.{n}.{part}"] for n in ("query", "key", "value")]
            getattr(self.qkv, part).copy_(torch.cat(fused))
            for layer, name in (
                (self.out, f"{attention}.output.dense"),
                (self.norm_1, f"{attention}.output.LayerNorm"),
                (self.expand, f"{prefix}.intermediate.dense"),
                (self.contract, f"{prefix}.output.dense"),
                (self.norm_2, f"{prefix}.output.LayerNorm"),
            ):
                getattr(layer, part).copy_(weights[f"{name}.{part}"])


class MiniLM(nn.Module):
    """Token ids [n, T] to unit-norm sentence embeddings [n, width]."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        heads: int,
        eps: float,
        pad_id: int,
    ) -> None:
        super().__init__()
        words = weights["embeddings.word_embeddings.weight"]
        self.pad_id = pad_id
        width = words.shape[1]
        # All of a text is segment 0, whose embedding is added to the positions here.
        positions = weights["embeddings.position_embeddings.weight"]
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        self.words = nn.Parameter(words.clone())
        self.positions = nn.Parameter(positions + segment)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList()
        with torch.no_grad():
            for part in ("weight", "bias"):
                getattr(self.norm, part).copy_(weights[f"embeddings.LayerNorm.{part}"])
            while f"encoder.layer.{len(self.layers)}.output.dense.weight" in weights:
                prefix = f"encoder.layer.{len(self.layers)}"
                mlp_width = weights[f"{prefix}.intermediate.dense.weight"].shape[0]
                layer = BertLayer(width, heads, mlp_width, eps)
                layer.load(weights, prefix)
                self.layers.append(layer)

    def forward(self, ids: Tensor) -> Tensor:
        """Padding behind the longest text of the batch is not computed."""
        present = ids != self.pad_id
        length = max(int(present.sum(dim=1).max()), 1)
        ids, present = ids[:, :length], present[:, :length]
        x = self.norm(F.embedding(ids, self.words) + self.positions[:length])
        visible = present.reshape(-1, 1, 1, length)
        for layer in self.layers:
            x = layer(x, visible)
        kept = present.unsqueeze(2).to(x.dtype)
        mean = (x * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0)
        return F.normalize(mean, dim=1)
