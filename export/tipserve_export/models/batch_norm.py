"""Folding an evaluation-mode batch norm into the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def load_folded(
    conv: nn.Conv2d, weights: Mapping[str, Tensor], conv_name: str, norm_name: str, eps: float
) -> None:
    """Gives ``conv`` (with a bias) the weights of a convolution followed by a batch norm.

    Computed in float64: y = (w*x − μ)·γ/√(σ²+ε) + β.
    """
    scale = weights[f"{norm_name}.weight"].double() / torch.sqrt(
        weights[f"{norm_name}.running_var"].double() + eps
    )
    weight = weights[f"{conv_name}.weight"].double() * scale.reshape(-1, 1, 1, 1)
    shift = weights[f"{norm_name}.bias"].double()
    bias = shift - weights[f"{norm_name}.running_mean"].double() * scale
    if conv.bias is None:
        raise TypeError("a folded convolution has a bias")
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
