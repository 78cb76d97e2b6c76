"""open_clip's models with a tower of timm's: SigLIP 2, EVA, MobileCLIP, PE, ConvNeXt and others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from tipserve_export.bundle import Preprocessing, TextRules
from tipserve_export.clip_tokenizer import tokenizer_writer
from tipserve_export.clip_weights import TowerSettings, build_text_encoder
from tipserve_export.errors import MissingPackageError, SourceError
from tipserve_export.sources.clip_bundle import PAD_ID
from tipserve_export.sources.timm_modules import TimmTower, for_archive
from tipserve_export.sources.tokenizer_files import read_tokenizer
from tipserve_export.sources.towers import ImageTower, TextTower

# open_clip's ways to clean a text, as the server's rules name them.
CLEANING = {"canonicalize": "canonical"}

TOKENIZER_FILES = ["tokenizer*", "special_tokens_map.json", "*.model"]

# Options of text towers whose other values compute something else with the same weights.
PLAIN_TEXT = {"use_pad_mask": False, "cls_emb": None}


def image_tower(model: Any, name: str, preprocessing: Preprocessing) -> ImageTower:
    """The picture tower, timm's trunk and open_clip's head."""
    visual = model.visual
    if type(visual).__name__ != "TimmModel":
        raise SourceError(
            f"open_clip's {name} has pictures read by a {type(visual).__name__}: not supported "
            "with this kind of text tower"
        )
    module = for_archive(TimmTower(visual.trunk, visual.head), name)
    return ImageTower(module, preprocessing, model.encode_image)


def text_tower(model: Any, name: str, config: dict[str, Any], tokenizer: str | None) -> TextTower:
    """The text tower; ``tokenizer`` is a folder or a Hugging Face repository in place of its own.

    ``config`` is open_clip's of the model.
    """
    tower = model.text if hasattr(model, "text") else model
    if not hasattr(tower, "token_embedding"):
        raise SourceError(
            f"open_clip's {name} has texts read by a {type(tower).__name__}: only open_clip's own "
            "text transformer is supported"
        )
    for option, plain in PLAIN_TEXT.items():
        if getattr(tower, option, plain) != plain:
            raise SourceError(f"open_clip's {name} has a text tower with {option}: not supported")
    pool = getattr(tower, "pool_type", None) or getattr(model, "text_pool_type", "argmax")
    if pool not in ("argmax", "last"):
        raise SourceError(f"open_clip's {name} pools texts by {pool!r}: not supported")
    activation = tower.transformer.resblocks[0].mlp.gelu
    settings = TowerSettings(
        heads=tower.transformer.resblocks[0].attn.num_heads,
        quick_gelu=type(activation).__name__ == "QuickGELU",
        tanh_gelu=_is_tanh(activation),
        eps=tower.ln_final.eps,
        causal=getattr(tower, "attn_mask", None) is not None,
        read_last=pool == "last",
    )
    prefix = "text." if tower is not model else ""
    tensors = {
        key.removeprefix(prefix): tensor
        for key, tensor in model.state_dict().items()
        if key.startswith(prefix) and not key.startswith(("visual.", "logit_"))
    }
    rules, writer = _tokens(name, config.get("text_cfg") or {}, tower, tokenizer)
    return TextTower(
        module=build_text_encoder(tensors, settings),
        rules=rules,
        vocabulary=tower.token_embedding.weight.shape[0],
        write_tokenizer=writer,
        reference=model.encode_text,
    )


def logit_scale_and_bias(model: Any) -> tuple[float, float | None]:
    """S and b of the model's logits s·cosine + b."""
    scale = math.exp(float(model.logit_scale.detach().double().reshape(())))
    bias = getattr(model, "logit_bias", None)
    return scale, None if bias is None else float(bias.detach().double().reshape(()))


def _tokens(
    name: str, config: dict[str, Any], tower: Any, given: str | None
) -> tuple[TextRules, Any]:
    context = tower.positional_embedding.shape[0]
    own = config.get("hf_tokenizer_name")
    if own is None:
        if given is not None:
            raise SourceError(f"open_clip's {name} has CLIP's own tokens: --tokenizer is not taken")
        writer = tokenizer_writer(tower.token_embedding.weight.shape[0])
        return TextRules(rules="clip", context_length=context, pad_id=PAD_ID), writer
    options = config.get("tokenizer_kwargs") or {}
    cleaning = options.get("clean", "whitespace")
    unknown = {key for key in options if key != "clean" and options[key]}
    if cleaning not in CLEANING or unknown:
        raise SourceError(
            f"open_clip's {name} cleans texts by {cleaning!r}"
            f"{f' and {sorted(unknown)}' if unknown else ''}: not supported"
        )
    file = read_tokenizer(_folder(given or own)).for_rules(CLEANING[cleaning])
    rules = TextRules(
        rules=CLEANING[cleaning],
        context_length=context,
        pad_id=file.pad_id,
        pad_side=file.pad_side,
    )
    return rules, file.writer()


def _folder(tokenizer: str) -> Path:
    """A folder with the tokenizer's files, downloaded where it names a repository."""
    if Path(tokenizer).is_dir():
        return Path(tokenizer)
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 (an optional package)
    except ImportError as error:
        raise MissingPackageError("huggingface_hub", f"the tokenizer {tokenizer}") from error
    try:
        return Path(snapshot_download(tokenizer, allow_patterns=TOKENIZER_FILES))
    except Exception as error:  # the hub's client raises many kinds
        raise SourceError(
            f"cannot download the tokenizer {tokenizer} (is there a network?); a folder with its "
            f"tokenizer.json is taken by --tokenizer: {error}"
        ) from error


def _is_tanh(activation: nn.Module) -> bool:
    if type(activation).__name__ == "QuickGELU":
        return False
    if isinstance(activation, nn.GELU):
        return activation.approximate == "tanh"
    raise SourceError(f"the activation {activation} is not supported")
