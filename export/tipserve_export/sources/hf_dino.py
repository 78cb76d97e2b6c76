"""Local folders with DINOv2 (with registers or without) or DINOv3: pictures, and no text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tipserve_export.errors import SourceError
from tipserve_export.models.transformer import check_heads
from tipserve_export.sources.hf_folder import loaded, model_card_licence, read_weights
from tipserve_export.sources.hf_preprocessing import DINOV2, DINOV3, preprocessing
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.timm_modules import for_archive, import_timm
from tipserve_export.sources.timm_vit import (
    VitShape,
    copy_block,
    fitting,
    load_exactly,
    taking,
    vision_transformer,
)
from tipserve_export.sources.towers import ImageTower, Origin, write_towers

DINO_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit")

# What Dinov2Config and DINOv3ViTConfig assume where config.json is silent.
DINOV2_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "use_swiglu_ffn": False,
    "hidden_act": "gelu",
}
DINOV3_DEFAULTS = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 16,
    "use_gated_mlp": False,
    "num_register_tokens": 0,
    "rope_theta": 100.0,
    "hidden_act": "gelu",
}


def export_dino(
    folder: Path, config: dict[str, Any], out: Path, labels: Labels, *, force: bool
) -> None:
    """Exports the class token's feature, ``pooler_output`` in transformers."""
    kind = config["model_type"]
    own = dict(read_weights(folder))
    third = kind == "dinov3_vit"
    config = (DINOV3_DEFAULTS if third else DINOV2_DEFAULTS) | config
    for key in ("patch_size", "image_size"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise SourceError(
                f"{folder / 'config.json'} has {key} = {config[key]!r}: only squares, of one "
                "number of pixels, are supported"
            )
    gated = config["use_gated_mlp" if third else "use_swiglu_ffn"]
    if config["hidden_act"] not in (("gelu", "silu") if gated else ("gelu",)):
        raise SourceError(f"the activation {config['hidden_act']!r} is not supported")
    prepared = preprocessing(
        folder, DINOV3 if third else DINOV2, config["image_size"], any_size=True
    )
    for side in prepared.sides:
        if side % config["patch_size"]:
            raise SourceError(
                f"{folder}'s preprocessor makes pictures of {side} pixels, which are no multiple "
                f"of the patches of {config['patch_size']}"
            )
    with fitting(folder):
        module = (_dinov3 if third else _dinov2)(own, config, prepared.sides)
    write_towers(
        out,
        ImageTower(for_archive(module, kind), prepared, _reference(folder)),
        None,
        Origin(
            name=folder.resolve().name,
            source=f"Hugging Face {kind} {folder.resolve().name}",
            licence=model_card_licence(folder),
        ),
        labels,
        force=force,
    )


def _reference(folder: Path) -> Callable[[Tensor], Tensor] | None:
    """The model as transformers runs it, if that is installed."""
    try:
        from transformers import AutoModel  # noqa: PLC0415 (an optional package)
    except ImportError:
        return None
    model = loaded(AutoModel, folder)
    return lambda pixels: model(pixel_values=pixels).pooler_output


def _dinov2(own: dict[str, Tensor], config: Mapping[str, Any], sides: tuple[int, int]) -> nn.Module:
    """As timm's VisionTransformer, the class token's position added to it beforehand."""
    take = taking(own, "DINO")
    packed = "encoder.layer.0.mlp.weights_in.weight" in own
    width, patch = config["hidden_size"], config["patch_size"]
    first = "weights_in" if packed else "fc1"
    registers = own.pop("embeddings.register_tokens", None)
    timm = import_timm("DINOv2")
    options: dict[str, Any] = {}
    if packed:
        options = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    model = vision_transformer(
        VitShape(
            image=sides,
            patch=patch,
            width=width,
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_width=take(f"encoder.layer.0.mlp.{first}.weight", keep=True).shape[0],
            eps=config["layer_norm_eps"],
        ),
        init_values=1.0,
        no_embed_class=True,
        reg_tokens=0 if registers is None else registers.shape[1],
        qkv_bias=config.get("qkv_bias", True),
        **options,
    )
    own.pop("embeddings.mask_token", None)
    positions = take("embeddings.position_embeddings")
    renamed = {
        "cls_token": take("embeddings.cls_token") + positions[:, :1],
        # With registers transformers resizes with antialiasing, without them it does not.
        "pos_embed": _resized(positions[:, 1:], sides, patch, antialias=registers is not None),
        "patch_embed.proj.weight": take("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": take("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": take("layernorm.weight"),
        "norm.bias": take("layernorm.bias"),
    }
    if registers is not None:
        renamed["reg_token"] = registers
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "qkv": tuple(f"attention.attention.{p}" for p in ("query", "key", "value")),
        "proj": "attention.output.dense",
        "fc1": f"mlp.{first}",
        "fc2": "mlp.weights_out" if packed else "mlp.fc2",
    }
    for i in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{i}."
        copy_block(renamed, own, f"blocks.{i}.", prefix, names)
        for n in (1, 2):
            renamed[f"blocks.{i}.ls{n}.gamma"] = take(f"{prefix}layer_scale{n}.lambda1")
    load_exactly(model, renamed, left=own)
    return model


def _resized(positions: Tensor, sides: tuple[int, int], patch: int, *, antialias: bool) -> Tensor:
    """Positions [1, G², width] for another size of picture, as transformers interpolates them."""
    grid = math.isqrt(positions.shape[1])
    to = (sides[0] // patch, sides[1] // patch)
    if to == (grid, grid):
        return positions
    square = positions.float().reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    square = F.interpolate(
        square, size=to, mode="bicubic", align_corners=False, antialias=antialias
    )
    return square.permute(0, 2, 3, 1).reshape(1, to[0] * to[1], -1)


def _dinov3(own: dict[str, Tensor], config: Mapping[str, Any], sides: tuple[int, int]) -> nn.Module:
    """As timm's Eva with DINOv3's rotary positions."""
    take = taking(own, "DINO")
    timm = import_timm("DINOv3")
    gated, width = config["use_gated_mlp"], config["hidden_size"]
    biases = any(f"layer.0.attention.{p}_proj.bias" in own for p in "qkv")
    registers = own.pop("embeddings.register_tokens", None)
    if registers is not None and registers.shape[1] == 0:
        registers = None
    check_heads(config["num_attention_heads"], width)
    model = timm.models.eva.Eva(
        img_size=sides,
        patch_size=config["patch_size"],
        num_classes=0,
        global_pool="token",
        embed_dim=width,
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        qkv_bias=False,
        mlp_ratio=(config["intermediate_size"] + 0.5) / width,
        swiglu_mlp=gated,
        norm_layer=partial(timm.layers.LayerNorm, eps=config["layer_norm_eps"]),
        init_values=1.0,
        num_reg_tokens=0 if registers is None else registers.shape[1],
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        use_fc_norm=False,
        rope_type="dinov3",
        rope_temperature=config["rope_theta"],
        rope_rotate_half=True,
    )
    if biases:
        # timm's own biases have no key's, and are added to a bare layer.
        for block in model.blocks:
            block.attn.qkv = nn.Linear(width, 3 * width)
    for name in ("embeddings.mask_token", "rope_embeddings.inv_freq"):
        own.pop(name, None)
    renamed = {
        "cls_token": take("embeddings.cls_token"),
        "patch_embed.proj.weight": take("embeddings.patch_embeddings.weight"),
        "patch_embed.proj.bias": take("embeddings.patch_embeddings.bias"),
        "norm.weight": take("norm.weight"),
        "norm.bias": take("norm.bias"),
    }
    if registers is not None:
        renamed["reg_token"] = registers
    names: dict[str, Any] = {
        "norm1": "norm1",
        "norm2": "norm2",
        "qkv": tuple(f"attention.{p}_proj" for p in "qkv"),
        "proj": "attention.o_proj",
        "fc1": ("mlp.gate_proj", "mlp.up_proj") if gated else "mlp.up_proj",
        "fc2": "mlp.down_proj",
    }
    for i in range(config["num_hidden_layers"]):
        prefix = f"layer.{i}."
        copy_block(renamed, own, f"blocks.{i}.", prefix, names)
        for n in (1, 2):
            renamed[f"blocks.{i}.gamma_{n}"] = take(f"{prefix}layer_scale{n}.lambda1")
    load_exactly(model, renamed, left=own)
    return model
