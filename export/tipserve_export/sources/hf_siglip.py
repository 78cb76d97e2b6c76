"""A local folder with a Hugging Face ``SiglipModel``: SigLIP, and SigLIP 2 of fixed size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tipserve_export.bundle import TextRules
from tipserve_export.clip_weights import TowerSettings, build_text_encoder
from tipserve_export.errors import SourceError
from tipserve_export.sources.hf_clip import openai_layout
from tipserve_export.sources.hf_folder import loaded, model_card_licence, read_weights
from tipserve_export.sources.hf_preprocessing import SIGLIP, preprocessing
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.timm_modules import for_archive
from tipserve_export.sources.timm_vit import (
    VitShape,
    copy_block,
    fitting,
    load_exactly,
    taking,
    vision_transformer,
)
from tipserve_export.sources.tokenizer_files import read_tokenizer
from tipserve_export.sources.towers import ImageTower, Origin, TextTower, write_towers

# What SiglipVisionConfig and SiglipTextConfig assume where config.json is silent.
DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
VISION_DEFAULTS = DEFAULTS | {"image_size": 224, "patch_size": 16, "vision_use_head": True}
TEXT_DEFAULTS = DEFAULTS | {"max_position_embeddings": 64}

ACTIVATIONS = {"gelu_pytorch_tanh": True, "gelu": False}
"""Whether a name of transformers means the approximation by tanh."""


def export_siglip(
    folder: Path,
    config: dict[str, Any],
    out: Path,
    labels: Labels,
    *,
    text_rules: str | None,
    force: bool,
) -> None:
    """Exports both towers, with the tokenizer of the same folder."""
    vision = VISION_DEFAULTS | (config.get("vision_config") or {})
    text = TEXT_DEFAULTS | (config.get("text_config") or {})
    for tower in (vision, text):
        if tower["hidden_act"] not in ACTIVATIONS:
            raise SourceError(f"the activation {tower['hidden_act']!r} is not supported")
    tensors = read_weights(folder)
    with fitting(folder):
        module = _image_module(tensors, vision)
    reference = _reference(folder)
    image = ImageTower(
        module=module,
        preprocessing=preprocessing(folder, SIGLIP, _side(vision["image_size"])),
        reference=reference and reference[0],
    )
    write_towers(
        out,
        image,
        _text_tower(folder, tensors, text, text_rules, reference and reference[1]),
        Origin(
            name=folder.resolve().name,
            source=f"Hugging Face SiglipModel {folder.resolve().name}",
            licence=model_card_licence(folder),
        ),
        labels,
        logit_scale=math.exp(_scalar(tensors, "logit_scale")),
        logit_bias=_scalar(tensors, "logit_bias"),
        force=force,
    )


def _reference(
    folder: Path,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None:
    """The model as transformers runs it, if that is installed."""
    try:
        from transformers import SiglipModel  # noqa: PLC0415 (an optional package)
    except ImportError:
        return None
    model = loaded(SiglipModel, folder)
    return (
        lambda pixels: model.vision_model(pixel_values=pixels).pooler_output,
        lambda ids: model.text_model(input_ids=ids).pooler_output,
    )


def _image_module(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """The vision tower as timm's VisionTransformer with attention pooling."""
    if not config["vision_use_head"]:
        raise SourceError("a SigLIP without its pooling head gives no single feature: refused")
    model = vision_transformer(
        VitShape(
            image=_side(config["image_size"]),
            patch=_side(config["patch_size"]),
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_width=config["intermediate_size"],
            eps=config["layer_norm_eps"],
        ),
        class_token=False,
        global_pool="map",
        act_layer="gelu_tanh" if ACTIVATIONS[config["hidden_act"]] else "gelu",
    )
    prefix = "vision_model."
    own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    own.pop("embeddings.position_ids", None)
    take = taking(own, "SigLIP")
    renamed: dict[str, Tensor] = {
        "patch_embed.proj.weight": take("embeddings.patch_embedding.weight"),
        "patch_embed.proj.bias": take("embeddings.patch_embedding.bias"),
        "pos_embed": take("embeddings.position_embedding.weight").unsqueeze(0),
        "attn_pool.latent": take("head.probe"),
    }
    for part in ("weight", "bias"):
        renamed[f"norm.{part}"] = take(f"post_layernorm.{part}")
        q, kv = take(f"head.attention.in_proj_{part}").split(
            [config["hidden_size"], 2 * config["hidden_size"]]
        )
        renamed |= {f"attn_pool.q.{part}": q, f"attn_pool.kv.{part}": kv}
        renamed[f"attn_pool.proj.{part}"] = take(f"head.attention.out_proj.{part}")
        renamed[f"attn_pool.norm.{part}"] = take(f"head.layernorm.{part}")
        for layer in ("fc1", "fc2"):
            renamed[f"attn_pool.mlp.{layer}.{part}"] = take(f"head.mlp.{layer}.{part}")
    names = {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "proj": "self_attn.out_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }
    for i in range(config["num_hidden_layers"]):
        copy_block(renamed, own, f"blocks.{i}.", f"encoder.layers.{i}.", names)
    load_exactly(model, renamed, left=own)
    return for_archive(model, "SigLIP's vision tower")


def _text_tower(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    text_rules: str | None,
    reference: Callable[[Tensor], Tensor] | None,
) -> TextTower:
    head = "text_model.head."
    own = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith("text_model.") and not name.startswith(head)
    }
    layout = openai_layout(own) | {
        name.replace(head, "text_projection."): tensor
        for name, tensor in tensors.items()
        if name.startswith(head)
    }
    settings = TowerSettings(
        heads=config["num_attention_heads"],
        quick_gelu=False,
        tanh_gelu=ACTIVATIONS[config["hidden_act"]],
        eps=config["layer_norm_eps"],
        causal=False,
        read_last=True,
    )
    tokenizer = read_tokenizer(folder)
    unigram = tokenizer.content["model"]["type"] == "Unigram"
    if text_rules is None:
        # SiglipTokenizer's own cleaning belongs to its SentencePiece model; Gemma's tokens come
        # with lower case alone.
        text_rules = "siglip" if unigram else "plain"
    tokenizer = tokenizer.for_rules(text_rules)
    if text_rules == "plain":
        tokenizer = tokenizer.in_lower_case()
    elif text_rules == "siglip" and not unigram:
        raise SourceError("the rules 'siglip' go with a SentencePiece unigram model only")
    return TextTower(
        module=build_text_encoder(layout, settings),
        rules=TextRules(
            rules=text_rules,
            context_length=config["max_position_embeddings"],
            pad_id=tokenizer.pad_id,
            pad_side=tokenizer.pad_side,
        ),
        vocabulary=layout["token_embedding.weight"].shape[0],
        write_tokenizer=tokenizer.writer(),
        reference=reference,
    )


def _side(size: Any) -> int:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(set(sides)) != 1:
        raise SourceError(f"a SigLIP of {sides} pixels, which are no square, is not supported")
    return sides[0]


def _scalar(tensors: Mapping[str, Tensor], name: str) -> float:
    if name not in tensors:
        raise SourceError(f"the checkpoint has no tensor {name!r}: it is no SigLIP")
    return float(tensors[name].double().reshape(()))
