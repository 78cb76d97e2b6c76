"""timm's modules as archives: any of its architectures, scripted as timm has them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tipserve_export.bundle import Preprocessing
from tipserve_export.errors import MissingPackageError, SourceError


def import_timm(needed_for: str) -> ModuleType:
    """timm, or an error that says how to get it."""
    try:
        import timm  # noqa: PLC0415 (an optional package)
        import timm.data  # noqa: PLC0415
        import timm.utils.model  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError("timm", needed_for) from error
    return timm


def for_archive(module: nn.Module, name: str) -> nn.Module:
    """A copy of ``module`` that can be scripted, its branches merged where it has such.

    MobileCLIP's FastViT and others train with parallel branches that are one convolution each
    at inference.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    if any(hasattr(part, "reparameterize") or hasattr(part, "fuse") for part in module.modules()):
        module = import_timm(name).utils.model.reparameterize_model(module)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.num_batches_tracked = None
        elif type(part).__name__ == "EvaAttention" and part.q_bias is not None:
            _give_bias_to_layer(part)
    _keep_integers_apart(module, name)
    return module


@torch.no_grad()
def _give_bias_to_layer(attention: nn.Module) -> None:
    """Moves EVA's separate biases into its layer, where one operator adds them."""
    if attention.qkv is None or attention.qkv_bias_separate:
        return
    weight = attention.qkv.weight
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(torch.cat((attention.q_bias, attention.k_bias, attention.v_bias)))
    attention.qkv = layer.eval().requires_grad_(False)
    attention.q_bias = attention.v_bias = None
    del attention.k_bias
    attention.k_bias = None


def _keep_integers_apart(module: nn.Module, name: str) -> None:
    """Makes attributes of integer buffers, such as Swin's table of relative positions.

    The server converts all parameters and buffers of an archive to the format that it computes
    in, which would destroy them. An attribute stays what and where it is: an index on the CPU
    selects from tensors on any device.
    """
    for key, parameter in module.named_parameters():
        if not parameter.is_floating_point():
            raise SourceError(
                f"{name} keeps {parameter.dtype} values in {key!r}, which would not survive a "
                "change to the server's number format: this architecture is not supported"
            )
    for part in module.modules():
        for key, buffer in list(part.named_buffers(recurse=False)):
            if not buffer.is_floating_point():
                delattr(part, key)
                setattr(part, key, buffer)


def timm_preprocessing(config: Mapping[str, Any], name: str) -> Preprocessing:
    """That of ``timm.data.resolve_data_config``, as its evaluation transform computes it."""
    _, height, width = config["input_size"]
    fraction = config["crop_pct"] or 0.875
    resized = (math.floor(height / fraction), math.floor(width / fraction))
    mode = config["crop_mode"] or "center"
    if mode == "border":
        raise SourceError(
            f"{name} pads pictures to a square (crop mode 'border'): only 'center' and 'squash' "
            "are supported"
        )
    if mode != "squash" and resized[0] != resized[1]:
        raise SourceError(
            f"{name} crops pictures of {height}×{width} pixels, which is no square: only "
            "squashing to other shapes is supported"
        )
    if config["interpolation"] not in ("bicubic", "bilinear"):
        raise SourceError(f"{name} resizes with {config['interpolation']!r}: not supported")
    square = height == width
    return Preprocessing(
        size=height if square else (height, width),
        resize_to=resized[0] if square else resized,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        resize="squash" if mode == "squash" else "shortest-side",
    )


class TimmTower(nn.Module):
    """A timm trunk and the head that open_clip puts behind it."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raw features of normalised pixels."""
        return self.head(self.trunk(pixels))
