"""The pre-norm transformer block that CLIP's image and text towers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUICK_GELU_FACTOR = 1.702
"""QuickGELU(x) = x·sigmoid(1.702·x) (OpenAI's CLIP)."""


def check_heads(heads: int, width: int) -> None:
    """Refuses a number of heads that a configuration states and the weights cannot have."""
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} attention heads do not divide the width {width}")


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, width: int, heads: int, out_width: int | None = None) -> None:
        super().__init__()
        check_heads(heads, width)
        self.heads = heads
        self.width = width
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width if out_width is None else out_width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """Attends within ``x`` [B, T, width]; gives [B, T, out_width]."""
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))

    def one_query(self, x: Tensor, row: Tensor, visible: Tensor | None) -> Tensor:
        """Attends from one ``row`` [B, 1, width] to ``x`` [B, T, width].

        ``visible`` [B, 1, 1, T] is true where the row may look. Gives [B, 1, out_width].
        """
        batch, length, width = x.shape
        depth = width // self.heads
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(row, weight[:width], bias[:width])
        q = q.reshape(batch, 1, self.heads, depth).transpose(1, 2)
        kv = F.linear(x, weight[width:], bias[width:])
        k, v = kv.reshape(batch, length, 2, self.heads, depth).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.out(y.transpose(1, 2).reshape(batch, 1, width))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    QuickGELU needs no operator of its own: it is SiLU(1.702·x)/1.702, and the two factors are
    folded into the linear layers around it (:func:`fold_quick_gelu`), so that one fused
    element-wise kernel does what three did.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int,
        *,
        quick_gelu: bool,
        eps: float,
        tanh_gelu: bool = False,
    ) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, mlp_width)
        gelu = nn.GELU(approximate="tanh" if tanh_gelu else "none")
        self.activation: nn.Module = nn.SiLU(inplace=True) if quick_gelu else gelu
        self.contract = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """All rows of ``x`` [B, T, width]."""
        x = x + self.attention(self.norm_1(x), causal)
        return x + self.mlp(x)

    def one_row(self, x: Tensor, position: Tensor, visible: Tensor | None) -> Tensor:
        """The block's output at one ``position`` [B] of each sequence alone: [B, width].

        The last block of a tower is read at a single position, so that the other rows' queries
        and MLP need not be computed.
        """
        index = position.reshape(-1, 1, 1).expand(-1, 1, x.shape[2])
        normed = self.norm_1(x)
        row = x.gather(1, index)
        row = row + self.attention.one_query(normed, normed.gather(1, index), visible)
        row = row + self.mlp(row)
        return row.squeeze(1)

    def mlp(self, x: Tensor) -> Tensor:
        """The position-wise half of the block, without its residual."""
        return self.contract(self.activation(self.expand(self.norm_2(x))))


@torch.no_grad()
def fold_quick_gelu(block: Block) -> None:
    """Turns the MLP's weights for QuickGELU into the equivalent ones for SiLU."""
    block.expand.weight.mul_(QUICK_GELU_FACTOR)
    block.expand.bias.mul_(QUICK_GELU_FACTOR)
    block.contract.weight.div_(QUICK_GELU_FACTOR)
