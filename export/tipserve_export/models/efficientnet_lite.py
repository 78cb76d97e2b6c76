"""EfficientNet-Lite (Google, 2020): EfficientNet (Tan & Le, 2019) with ReLU6 and without
squeeze-and-excitation, batch norms folded away.

The weights were trained with TensorFlow, whose ``SAME`` padding puts the odd pixel of a strided
convolution at the right and the bottom.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tipserve_export.models.batch_norm import load_folded

BATCH_NORM_EPS = 1e-3
STEM_STRIDE = 2


class SameConv(nn.Module):
    """A convolution with TensorFlow's ``SAME`` padding for pictures of one known side."""

    def __init__(
        self, in_planes: int, planes: int, kernel: int, stride: int, side: int, groups: int = 1
    ) -> None:
        super().__init__()
        self.out_side = -(-side // stride)
        total = max((self.out_side - 1) * stride + kernel - side, 0)
        before = total // 2
        after = total - before
        self.pad: nn.Module = nn.Identity()
        if before != after:
            self.pad = nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(
            in_planes,
            planes,
            kernel,
            stride=stride,
            padding=before if before == after else 0,
            groups=groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pad(x))


class InvertedResidual(nn.Module):
    """1×1 expansion (absent in the first block), depthwise, 1×1 projection."""

    def __init__(
        self, in_planes: int, mid: int, planes: int, kernel: int, stride: int, side: int
    ) -> None:
        super().__init__()
        self.expand: nn.Module = nn.Identity()
        if mid != in_planes:
            self.expand = nn.Sequential(nn.Conv2d(in_planes, mid, 1), nn.ReLU6(inplace=True))
        self.depthwise = SameConv(mid, mid, kernel, stride, side, groups=mid)
        self.project = nn.Conv2d(mid, planes, 1)
        self.residual = stride == 1 and in_planes == planes

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.depthwise(self.expand(x)), inplace=True)
        y = self.project(y)
        if self.residual:
            y = y.add_(x)
        return y

    def load(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        """Takes the block's weights from the published state dict."""
        eps = BATCH_NORM_EPS
        if isinstance(self.expand, nn.Sequential):
            conv = self.expand[0]
            load_folded(conv, weights, f"{prefix}._expand_conv", f"{prefix}._bn0", eps)
        conv = self.depthwise.conv
        load_folded(conv, weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1", eps)
        load_folded(self.project, weights, f"{prefix}._project_conv", f"{prefix}._bn2", eps)


class EfficientNetLite(nn.Module):
    """Normalised pixels [B, 3, S, S] to pooled features [B, F] and class logits [B, C].

    ``stage_starts`` are the numbers of the blocks that halve the side; all widths and kernels
    come from the weights.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, side: int, stage_starts: tuple[int, ...]
    ) -> None:
        super().__init__()
        planes = weights["_conv_stem.weight"].shape[0]
        self.stem = SameConv(3, planes, 3, STEM_STRIDE, side)
        side = self.stem.out_side
        self.blocks = nn.ModuleList()
        while f"_blocks.{len(self.blocks)}._project_conv.weight" in weights:
            number = len(self.blocks)
            mid, _, kernel, _ = weights[f"_blocks.{number}._depthwise_conv.weight"].shape
            out = weights[f"_blocks.{number}._project_conv.weight"].shape[0]
            stride = 2 if number in stage_starts else 1
            block = InvertedResidual(planes, mid, out, kernel, stride, side)
            block.load(weights, f"_blocks.{number}")
            self.blocks.append(block)
            planes, side = out, block.depthwise.out_side
        classes, width = weights["_fc.weight"].shape
        self.head = nn.Conv2d(planes, width, 1)
        self.classifier = nn.Linear(width, classes)
        load_folded(self.stem.conv, weights, "_conv_stem", "_bn0", BATCH_NORM_EPS)
        load_folded(self.head, weights, "_conv_head", "_bn1", BATCH_NORM_EPS)
        with torch.no_grad():
            self.classifier.weight.copy_(weights["_fc.weight"])
            self.classifier.bias.copy_(weights["_fc.bias"])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(pooled features, logits)."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem(x), inplace=True)
        for block in self.blocks:
            x = block(x)
        x = F.relu6(self.head(x), inplace=True)
        pooled = x.mean(dim=(2, 3))
        return pooled, self.classifier(pooled)
