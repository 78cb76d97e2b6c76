"""From a CLIP state dict in OpenAI's layout to the two encoders.

Every source is first brought into this one layout (the names of OpenAI's own checkpoints,
which open_clip kept), and every size is read from the tensors' shapes. Only what shapes
cannot tell (number of heads, activation, layer norm's epsilon) comes with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tipserve_export.errors import SourceError
from tipserve_export.models.modified_resnet import EXPANSION, ModifiedResNet
from tipserve_export.models.text_transformer import PaddedTextTransformer, TextTransformer
from tipserve_export.models.transformer import Block, fold_quick_gelu
from tipserve_export.models.vision_transformer import VisionTransformer

RESNET_REDUCTION = 32
"""A ModifiedResNet's output is this much smaller than its input, a side."""

# Entries of a state dict that are no weights: constants that the source computes itself.
NOT_WEIGHTS = re.compile(
    r"(input_resolution|context_length|vocab_size|logit_bias|.*attn_mask"
    r"|.*num_batches_tracked|.*position_ids)$"
)


@dataclass(frozen=True)
class TowerSettings:
    """What the shapes of a tower's weights do not tell."""

    heads: int
    quick_gelu: bool
    eps: float = 1e-5
    tanh_gelu: bool = False
    causal: bool = True
    """Whether a token sees those before it only; otherwise it sees padding too."""
    read_last: bool = False
    """Whether a text's feature is read at the last position, not at the largest id."""


class Weights(Mapping[str, Tensor]):
    """A state dict that names what is missing and remembers what was read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {
            name: tensor for name, tensor in tensors.items() if not NOT_WEIGHTS.match(name)
        }
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise SourceError(f"the checkpoint has no tensor {name!r}: it is no CLIP model")
        self._read.add(name)
        return self._tensors[name].detach().to("cpu", torch.float32)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def require_all_read(self) -> None:
        """Refuses a checkpoint with tensors that no encoder took: it is another architecture."""
        left = sorted(set(self._tensors) - self._read)
        if left:
            raise SourceError(
                f"the checkpoint has {len(left)} tensors that CLIP's architecture does not know, "
                f"among them {left[0]!r}: this variant is not supported"
            )


@dataclass(frozen=True)
class Encoders:
    """The two encoders in float32 and what their weights say of them."""

    image: nn.Module
    text: nn.Module
    image_size: int
    width: int
    context_length: int
    vocabulary: int
    logit_scale: float


def is_resnet(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict in OpenAI's layout has a ModifiedResNet for pictures."""
    return "visual.attnpool.positional_embedding" in tensors


def build_encoders(
    tensors: Mapping[str, Tensor], image: TowerSettings, text: TowerSettings
) -> Encoders:
    """Builds both encoders; raises :class:`SourceError` where the tensors are no CLIP model."""
    weights = Weights(tensors)
    try:
        if is_resnet(weights):
            image_encoder, size = _resnet(weights, image)
        else:
            image_encoder, size = _vision_transformer(weights, image)
        text_encoder = _text_transformer(weights, text)
        positions = weights["positional_embedding"]
        vocabulary = weights["token_embedding.weight"].shape[0]
        logit_scale = math.exp(float(weights["logit_scale"].double()))
        width = weights["text_projection"].shape[1]
    except (RuntimeError, ValueError, IndexError) as error:
        raise SourceError(f"the checkpoint's tensors do not fit together: {error}") from error
    weights.require_all_read()
    for encoder in (image_encoder, text_encoder):
        encoder.eval().requires_grad_(False)
    return Encoders(
        image=image_encoder,
        text=text_encoder,
        image_size=size,
        width=width,
        context_length=positions.shape[0],
        vocabulary=vocabulary,
        logit_scale=logit_scale,
    )


def _layers(weights: Weights, pattern: str) -> int:
    """One more than the largest number that ``pattern``'s group matches."""
    numbers = [int(m.group(1)) for name in weights if (m := re.match(pattern, name))]
    if not numbers:
        raise SourceError(f"the checkpoint has no tensor like {pattern!r}: it is no CLIP model")
    return max(numbers) + 1


def _square_root(count: int, what: str) -> int:
    side = math.isqrt(count)
    if side * side != count:
        raise SourceError(f"{what}: {count} positions are no square; only square pictures work")
    return side


@torch.no_grad()
def _vision_transformer(weights: Weights, settings: TowerSettings) -> tuple[nn.Module, int]:
    patches = weights["visual.conv1.weight"]
    positions = weights["visual.positional_embedding"]
    projection = weights["visual.proj"]
    width, _, patch, _ = patches.shape
    grid = _square_root(positions.shape[0] - 1, "visual.positional_embedding")
    model = VisionTransformer(
        patch=patch,
        grid=grid,
        width=width,
        layers=_layers(weights, r"visual\.transformer\.resblocks\.(\d+)\."),
        heads=settings.heads,
        mlp_width=weights["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        out_width=projection.shape[1],
        quick_gelu=settings.quick_gelu,
        eps=settings.eps,
    )
    model.patches.weight.copy_(patches)
    model.class_row.copy_((weights["visual.class_embedding"] + positions[0]).reshape(1, 1, -1))
    model.positions.copy_(positions[1:].unsqueeze(0))
    model.projection.weight.copy_(projection.t())
    _load_norm(model.norm_pre, weights, "visual.ln_pre")
    _load_norm(model.norm_post, weights, "visual.ln_post")
    _load_blocks([*model.blocks, model.last], weights, "visual.transformer.", settings)
    return model, patch * grid


def _resnet(weights: Weights, settings: TowerSettings) -> tuple[nn.Module, int]:
    positions = weights["visual.attnpool.positional_embedding"]
    grid = _square_root(positions.shape[0] - 1, "visual.attnpool.positional_embedding")
    width = positions.shape[1] // (8 * EXPANSION)
    model = ModifiedResNet(
        layers=[_layers(weights, rf"visual\.layer{i}\.(\d+)\.") for i in range(1, 5)],
        width=width,
        heads=settings.heads,
        grid=grid,
        out_width=weights["visual.attnpool.c_proj.weight"].shape[0],
    )
    model.load(weights, "visual.")
    return model, grid * RESNET_REDUCTION


def build_text_encoder(tensors: Mapping[str, Tensor], settings: TowerSettings) -> nn.Module:
    """Builds a text encoder alone, from tensors named as in OpenAI's checkpoints.

    ``text_projection`` may be a matrix [width, out] or a linear layer with a bias.
    """
    weights = Weights(tensors)
    try:
        encoder = _text_transformer(weights, settings)
    except (RuntimeError, ValueError, IndexError) as error:
        raise SourceError(f"the checkpoint's tensors do not fit together: {error}") from error
    weights.require_all_read()
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def _text_transformer(weights: Weights, settings: TowerSettings) -> TextTransformer:
    embedding = weights["token_embedding.weight"]
    positions = weights["positional_embedding"]
    bias = None
    if "text_projection.weight" in weights:
        projection = weights["text_projection.weight"].t()
        if "text_projection.bias" in weights:
            bias = weights["text_projection.bias"]
    else:
        projection = weights["text_projection"]
    make = TextTransformer
    if not settings.causal:
        make = partial(PaddedTextTransformer, read_last=settings.read_last)
    elif settings.read_last:
        raise SourceError("a causal text tower that is read at its last position is not supported")
    model = make(
        vocabulary=embedding.shape[0],
        context=positions.shape[0],
        width=embedding.shape[1],
        layers=_layers(weights, r"transformer\.resblocks\.(\d+)\."),
        heads=settings.heads,
        mlp_width=weights["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        out_width=projection.shape[1],
        quick_gelu=settings.quick_gelu,
        eps=settings.eps,
        tanh_gelu=settings.tanh_gelu,
        projection_bias=bias is not None,
    )
    model.tokens.weight.copy_(embedding)
    model.positions.copy_(positions)
    model.projection.weight.copy_(projection.t())
    if bias is not None:
        model.projection.bias.copy_(bias)
    _load_norm(model.norm_final, weights, "ln_final")
    _load_blocks([*model.blocks, model.last], weights, "transformer.", settings)
    return model


def _load_blocks(
    blocks: list[nn.Module], weights: Weights, prefix: str, settings: TowerSettings
) -> None:
    for i, block in enumerate(blocks):
        assert isinstance(block, Block)
        name = f"{prefix}resblocks.{i}."
        _load_norm(block.norm_1, weights, f"{name}ln_1")
        _load_norm(block.norm_2, weights, f"{name}ln_2")
        block.attention.qkv.weight.copy_(weights[f"{name}attn.in_proj_weight"])
        block.attention.qkv.bias.copy_(weights[f"{name}attn.in_proj_bias"])
        _load_linear(block.attention.out, weights, f"{name}attn.out_proj")
        _load_linear(block.expand, weights, f"{name}mlp.c_fc")
        _load_linear(block.contract, weights, f"{name}mlp.c_proj")
        if settings.quick_gelu:
            fold_quick_gelu(block)


def _load_linear(layer: nn.Linear, weights: Weights, name: str) -> None:
    layer.weight.copy_(weights[f"{name}.weight"])
    layer.bias.copy_(weights[f"{name}.bias"])


def _load_norm(layer: nn.LayerNorm, weights: Weights, name: str) -> None:
    layer.weight.copy_(weights[f"{name}.weight"])
    layer.bias.copy_(weights[f"{name}.bias"])
