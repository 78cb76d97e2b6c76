"""A local folder with a Hugging Face ``CLIPModel``. The ``transformers`` package is not needed."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tipserve_export.bundle import Preprocessing, check_output
from tipserve_export.clip_tokenizer import END, merges, vocabulary
from tipserve_export.clip_weights import TowerSettings, build_encoders
from tipserve_export.errors import MissingPackageError, SourceError
from tipserve_export.sources.clip_bundle import (
    OPENAI_MEAN,
    OPENAI_STD,
    Labels,
    write_clip_bundle,
)

# What CLIPConfig assumes where config.json is silent.
VISION_DEFAULTS = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT_DEFAULTS = VISION_DEFAULTS | {"num_attention_heads": 8, "eos_token_id": 49407}

# config.json of CLIP models older than transformers 4.31 says 2, and means the largest id.
LEGACY_EOS_ID = 2

# Pillow's numbers for resampling filters, which preprocessor_config.json uses.
RESAMPLING = {2: "bilinear", 3: "bicubic"}

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


def export_huggingface(folder: Path, out: Path, labels: Labels, *, force: bool) -> None:
    """Exports a folder with ``config.json`` and safetensors or ``pytorch_model.bin`` weights."""
    check_output(out, force=force)
    config = _read_json(folder / "config.json", required=True)
    if config.get("model_type") != "clip":
        raise SourceError(
            f"{folder} holds a model of type {config.get('model_type')!r}, not a CLIPModel"
        )
    architectures = config.get("architectures") or ["CLIPModel"]
    if "CLIPModel" not in architectures:
        raise SourceError(f"{folder} holds a {architectures[0]}, not a CLIPModel")
    vision = VISION_DEFAULTS | _tower_config(config, "vision_config")
    text = TEXT_DEFAULTS | _tower_config(config, "text_config")
    encoders = build_encoders(
        openai_layout(_read_weights(folder)), _settings(vision), _settings(text)
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
        _preprocessing(folder, encoders.image_size),
        labels,
        default_name=folder.resolve().name,
        source=f"Hugging Face CLIPModel {folder.resolve().name}",
        licence=_model_card_licence(folder),
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


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise SourceError(f"there is no {path}: a folder with a CLIPModel has one") from error
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} is not a JSON object")
    return content


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


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder, from one file or from the shards that an index names."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        file = folder / f"{stem}.{suffix}"
        if file.is_file():
            return _read_file(file)
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            tensors: dict[str, Tensor] = {}
            for shard in sorted(set(_read_json(index, required=True)["weight_map"].values())):
                tensors |= _read_file(folder / shard)
            return tensors
    raise SourceError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file  # noqa: PLC0415 (an optional package)
            except ImportError as error:
                raise MissingPackageError("safetensors", str(file)) from error
            return load_file(file)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except MissingPackageError:
        raise
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise SourceError(f"cannot read {file}: {error}") from error
    except Exception as error:  # safetensors has an error class of its own
        raise SourceError(f"cannot read {file}: {error}") from error


def _check_vocabulary(folder: Path) -> None:
    """Refuses a folder whose own vocabulary is not CLIP's, which the bundle carries."""
    own = _read_json(folder / "vocab.json", required=False)
    if own and own != vocabulary(merges()):
        raise SourceError(
            f"{folder / 'vocab.json'} is not CLIP's vocabulary ({END!r} is {own.get(END)}): "
            "this variant is not supported"
        )


def _preprocessing(folder: Path, image_size: int) -> Preprocessing:
    config = _read_json(folder / "preprocessor_config.json", required=False)
    if not config:  # transformers 5 may keep it inside the processor's file
        config = _read_json(folder / "processor_config.json", required=False)
        config = config.get("image_processor", {})
    for step in ("do_resize", "do_center_crop", "do_normalize", "do_rescale"):
        if not config.get(step, True):
            raise SourceError(f"a preprocessor with {step} = false is not supported")
    size = config.get("size", image_size)
    if isinstance(size, dict) and set(size) != {"shortest_edge"}:
        # transformers then squeezes the whole picture into these sides.
        raise SourceError(
            f"a preprocessor that resizes to {size} is not supported: only to a shortest edge, "
            'which "size": {"shortest_edge": N} in preprocessor_config.json asks for'
        )
    resize_to = _side(size)
    crop = _side(config.get("crop_size", image_size))
    if crop != image_size:
        raise SourceError(f"the preprocessor crops to {crop}, the weights are for {image_size}")
    resample = config.get("resample", 3)
    if resample not in RESAMPLING:
        raise SourceError(f"the resampling filter {resample} is not supported")
    return Preprocessing(
        size=image_size,
        resize_to=resize_to,
        mean=tuple(config.get("image_mean", OPENAI_MEAN)),
        std=tuple(config.get("image_std", OPENAI_STD)),
        interpolation=RESAMPLING[resample],
    )


def _side(size: int | dict[str, int]) -> int:
    """The one length that ``size`` gives, as a number or as transformers' dictionaries."""
    if isinstance(size, int):
        return size
    lengths = set(size.values())
    if len(lengths) != 1:
        raise SourceError(f"only square pictures are supported, not {size}")
    return lengths.pop()


def _model_card_licence(folder: Path) -> str | None:
    """The licence in the front matter of the model card, if there is one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    found = re.search(r"^license:\s*(\S+)\s*$", front[1], re.M) if front else None
    return found[1] if found else None
