"""timm's VisionTransformer for weights that come under other names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tipserve_export.errors import SourceError
from tipserve_export.models.transformer import check_heads
from tipserve_export.sources.timm_modules import import_timm


@dataclass(frozen=True)
class VitShape:
    """The sizes of a vision transformer, in pixels, features and numbers."""

    image: int | tuple[int, int]
    patch: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    eps: float

    @property
    def mlp_ratio(self) -> float:
        """What timm makes ``mlp_width`` of: it rounds the product down."""
        return (self.mlp_width + 0.5) / self.width


def vision_transformer(shape: VitShape, **options: Any) -> nn.Module:
    """An empty VisionTransformer without a classifier."""
    timm = import_timm("a vision transformer")
    check_heads(shape.heads, shape.width)
    return timm.models.VisionTransformer(
        img_size=shape.image,
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.layers,
        num_heads=shape.heads,
        mlp_ratio=shape.mlp_ratio,
        norm_layer=partial(timm.layers.LayerNorm, eps=shape.eps),
        num_classes=0,
        weight_init="skip",
        **options,
    )


def copy_block(
    to: dict[str, Tensor],
    own: dict[str, Tensor],
    prefix: str,
    own_prefix: str,
    names: Mapping[str, str | tuple[str, ...]],
) -> None:
    """Moves a block's tensors from ``own`` to ``to``; several layers become one.

    A layer without a bias gets one of zeros where another that is fused with it has one.
    """
    places = {"norm1": "norm1", "norm2": "norm2", "qkv": "attn.qkv", "proj": "attn.proj"}
    for part in ("weight", "bias"):
        for name, sources in names.items():
            layers = (sources,) if isinstance(sources, str) else sources
            fused = _fused([own.pop(f"{own_prefix}{layer}.{part}", None) for layer in layers])
            if fused is not None:
                to[f"{prefix}{places.get(name, f'mlp.{name}')}.{part}"] = fused


def _fused(parts: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in parts if tensor is not None]
    if not present:
        return None
    return torch.cat([torch.zeros_like(present[0]) if t is None else t for t in parts])


@contextlib.contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """What goes wrong in here is that ``config.json`` and the tensors are not of one model."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, KeyError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else error
        raise SourceError(
            f"the tensors of {folder} and its config.json do not fit together: {said}"
        ) from error


def taking(own: dict[str, Tensor], family: str) -> Callable[..., Tensor]:
    """What takes a tensor out of ``own`` by its name, or says that there is none."""

    def take(name: str, *, keep: bool = False) -> Tensor:
        if name not in own:
            raise SourceError(f"the checkpoint has no tensor {name!r}: it is no {family}")
        return own[name] if keep else own.pop(name)

    return take


@torch.no_grad()
def load_exactly(
    model: nn.Module, tensors: dict[str, Tensor], *, left: Mapping[str, Tensor]
) -> None:
    """Loads every tensor into its place; ``left`` are those that nothing took."""
    if left:
        name = sorted(left)[0]
        raise SourceError(
            f"the checkpoint has {len(left)} tensors that the architecture does not know, among "
            f"them {name!r}: this variant is not supported"
        )
    try:
        model.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=True)
    except RuntimeError as error:
        raise SourceError(f"the checkpoint's tensors do not fit together: {error}") from error
    model.eval().requires_grad_(False)
