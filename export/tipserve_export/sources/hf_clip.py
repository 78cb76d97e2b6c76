"""A local folder with a Hugging Face ``CLIPModel``. The ``transformers`` package is not needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tipserve_export.clip_tokenizer import END, merges, vocabulary
from tipserve_export.clip_weights import TowerSettings, build_encoders
from tipserve_export.errors import SourceError
from tipserve_export.sources.clip_bundle import write_clip_bundle
from tipserve_export.sources.hf_folder import model_card_licence, read_json, read_weights
from tipserve_export.sources.hf_preprocessing import clip_preprocessing
from tipserve_export.sources.labels import Labels

# What CLIPConfig assumes where config.json is silent.
VISION_DEFAULTS = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT_DEFAULTS = VISION_DEFAULTS | {"num_attention_heads": 8, "eos_token_id": 49407}

# config.json of CLIP models older than transformers 4.31 says 2, and means the largest id.
LEGACY_EOS_ID = 2

BLOCK_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OTHER_NAMES = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}
NORM_NAMES = {
    "vision_model.pre_layrnorm": "visual.ln_pre",  # transformers' own spelling
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
}


def export_clip(
    folder: Path, config: dict[str, Any], out: Path, labels: Labels, *, force: bool
) -> None:
    """Exports a ``CLIPModel``."""
    architectures = config.get("architectures") or ["CLIPModel"]
    if "CLIPModel" not in architectures:
        raise SourceError(f"{folder} holds a {architectures[0]}, not a CLIPModel")
    vision = VISION_DEFAULTS | _tower_config(config, "vision_config")
    text = TEXT_DEFAULTS | _tower_config(config, "text_config")
    encoders = build_encoders(
        openai_layout(read_weights(folder)), _settings(vision), _settings(text)
    )
    if text["eos_token_id"] not in (LEGACY_EOS_ID, encoders.vocabulary - 1):
        raise SourceError(
            f"the text feature is read at token {text['eos_token_id']}, which is not the largest "
            f"id ({encoders.vocabulary - 1}): this variant is not supported"
        )
    _check_vocabulary(folder)
    write_clip_bundle(
        out,
        encoders,
        clip_preprocessing(folder, encoders.image_size),
        labels,
        default_name=folder.resolve().name,
        source=f"Hugging Face CLIPModel {folder.resolve().name}",
        licence=model_card_licence(folder),
        reference=None,
        force=force,
    )


def openai_layout(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames a CLIPModel's tensors as OpenAI's checkpoints name them, queries to values fused."""
    renamed: dict[str, Tensor] = {}
    projections: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        stem, _, part = name.rpartition(".")
        block = re.match(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)$", stem)
        if block:
            tower = "visual.transformer" if block[1] == "vision" else "transformer"
            prefix = f"{tower}.resblocks.{block[2]}"
            if fused := re.match(r"self_attn\.([qkv])_proj$", block[3]):
                projections.setdefault(f"{prefix}.attn.in_proj_{part}", {})[fused[1]] = tensor
            else:
                renamed[f"{prefix}.{BLOCK_NAMES.get(block[3], block[3])}.{part}"] = tensor
        elif name == "visual_projection.weight":
            renamed["visual.proj"] = tensor.t()
        elif name == "text_projection.weight":
            renamed["text_projection"] = tensor.t()
        elif stem in NORM_NAMES:
            renamed[f"{NORM_NAMES[stem]}.{part}"] = tensor
        else:
            renamed[OTHER_NAMES.get(name, name)] = tensor
    for name, parts in projections.items():
        if set(parts) != {"q", "k", "v"}:
            raise SourceError(f"the checkpoint lacks a part of {name}: only {sorted(parts)} there")
        renamed[name] = torch.cat([parts[p] for p in "qkv"])
    return renamed


def _tower_config(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A tower's part of config.json; files of old releases have a second one that overrules."""
    return (config.get(name) or {}) | (config.get(f"{name}_dict") or {})


def _settings(config: dict[str, Any]) -> TowerSettings:
    activation = config["hidden_act"]
    if activation not in ("quick_gelu", "gelu"):
        raise SourceError(f"the activation {activation!r} is not supported")
    return TowerSettings(
        heads=config["num_attention_heads"],
        quick_gelu=activation == "quick_gelu",
        eps=config["layer_norm_eps"],
    )


def _check_vocabulary(folder: Path) -> None:
    """Refuses a folder whose own vocabulary is not CLIP's, which the bundle carries."""
    own = read_json(folder / "vocab.json", required=False)
    if own and own != vocabulary(merges()):
        raise SourceError(
            f"{folder / 'vocab.json'} is not CLIP's vocabulary ({END!r} is {own.get(END)}): "
            "this variant is not supported"
        )
