"""CLIP's ModifiedResNet (Radford et al., 2021, section 2.4), batch norms folded away.

It differs from the usual ResNet in a stem of three convolutions with average pooling, an
average pool in front of strided convolutions, and an attention pool at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tipserve_export.models.batch_norm import load_folded
from tipserve_export.models.transformer import Attention

EXPANSION = 4
BATCH_NORM_EPS = 1e-5


class Bottleneck(nn.Module):
    """1×1, 3×3, average pool where strided, 1×1; plus the (projected) input."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 1)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.conv3 = nn.Conv2d(planes, planes * EXPANSION, 1)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_planes != planes * EXPANSION:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                nn.Conv2d(in_planes, planes * EXPANSION, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.conv1(x))
        y = self.pool(F.relu_(self.conv2(y)))
        return F.relu_(self.conv3(y).add_(self.shortcut(x)))

    def load(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        """Takes the block's weights from an OpenAI state dict."""
        for i, conv in enumerate((self.conv1, self.conv2, self.conv3), start=1):
            load_folded(conv, weights, f"{prefix}.conv{i}", f"{prefix}.bn{i}", BATCH_NORM_EPS)
        if isinstance(self.shortcut, nn.Sequential):
            conv = self.shortcut[1]
            names = (f"{prefix}.downsample.0", f"{prefix}.downsample.1")
            load_folded(conv, weights, *names, BATCH_NORM_EPS)


class ModifiedResNet(nn.Module):
    """Normalised pixels [B, 3, S, S] to raw picture features [B, out_width]."""

    def __init__(
        self, *, layers: Sequence[int], width: int, heads: int, grid: int, out_width: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1)
        self.stages = nn.ModuleList()
        in_planes = width
        for i, count in enumerate(layers):
            planes = width * 2**i
            blocks = [Bottleneck(in_planes, planes, 1 if i == 0 else 2)]
            in_planes = planes * EXPANSION
            blocks += [Bottleneck(in_planes, planes, 1) for _ in range(1, count)]
            self.stages.append(nn.Sequential(*blocks))
        self.positions = nn.Parameter(torch.empty(grid * grid + 1, in_planes))
        self.pool = Attention(in_planes, heads, out_width)

    def forward(self, pixels: Tensor) -> Tensor:
        """The attention pool's output for the mean row, not normalised."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = F.relu_(self.conv1(x))
        x = F.relu_(self.conv2(x))
        x = F.avg_pool2d(F.relu_(self.conv3(x)), 2)
        for stage in self.stages:
            x = stage(x)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positions
        return self.pool.one_query(x, x[:, :1], None).squeeze(1)

    def load(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        """Takes all weights from an OpenAI state dict, whose names start with ``prefix``."""
        for i, conv in enumerate((self.conv1, self.conv2, self.conv3), start=1):
            load_folded(conv, weights, f"{prefix}conv{i}", f"{prefix}bn{i}", BATCH_NORM_EPS)
        for i, stage in enumerate(self.stages, start=1):
            for j, block in enumerate(stage):
                block.load(weights, f"{prefix}layer{i}.{j}")
        pool = f"{prefix}attnpool."
        with torch.no_grad():
            self.positions.copy_(weights[f"{pool}positional_embedding"])
            for part in ("weight", "bias"):
                fused = [weights[f"{pool}{name}_proj.{part}"] for name in "qkv"]
                getattr(self.pool.qkv, part).copy_(torch.cat(fused))
                getattr(self.pool.out, part).copy_(weights[f"{pool}c_proj.{part}"])
