"""CLIP models by their open_clip name."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tipserve_export.bundle import check_output
from tipserve_export.clip_weights import TowerSettings, build_encoders
from tipserve_export.errors import MissingPackageError, SourceError
from tipserve_export.sources.clip_bundle import Reference, write_clip_bundle
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.open_clip_preprocessing import open_clip_preprocessing, without_tag
from tipserve_export.sources.open_clip_towers import (
    image_tower,
    logit_scale_and_bias,
    text_tower,
)
from tipserve_export.sources.towers import Origin, write_towers

# Licences of the weights behind open_clip's tags, where their publishers state one for all.
TAG_LICENCES = {"openai": "MIT", "laion": "MIT", "datacomp": "MIT", "commonpool": "MIT"}


def export_open_clip(
    model_name: str,
    out: Path,
    labels: Labels,
    *,
    pretrained: str | None,
    seed: int | None,
    tokenizer: str | None = None,
    preprocessing_of: str | None = None,
    force: bool,
) -> None:
    """Exports an open_clip model with the weights of a tag or file, or random ones.

    ``tokenizer`` is a folder or a Hugging Face repository in place of the model's own, and
    ``preprocessing_of`` the tag whose preprocessing weights without a tag were trained with.
    """
    if (pretrained is None) == (seed is None):
        raise SourceError("say either --pretrained TAG or --random-init SEED")
    check_output(out, force=force)
    open_clip = _import()
    has_tag = pretrained is not None and not Path(pretrained).is_file()
    if has_tag and preprocessing_of is not None:
        raise SourceError(
            f"--preprocessing-of is for weights without a tag: the tag {pretrained!r} says how "
            "pictures are prepared"
        )
    model = _create(open_clip, model_name, pretrained, seed)
    if type(model) not in (open_clip.CLIP, open_clip.CustomTextCLIP):
        raise SourceError(
            f"open_clip's {model_name} is a {type(model).__name__}: only models of two towers "
            "with contrastive features are supported"
        )
    weights = f"random init, seed {seed}" if pretrained is None else f"pretrained {pretrained}"
    origin = Origin(
        name=model_name.replace("/", "-"),
        source=f"open_clip {model_name}, {weights}",
        licence=_licence(pretrained),
    )
    stated = model.visual.preprocess_cfg
    if not has_tag:
        stated = without_tag(
            open_clip, origin.name, stated, preprocessing_of, is_trained=pretrained is not None
        )
    if type(model) is open_clip.CustomTextCLIP or type(model.visual).__name__ == "TimmModel":
        config = open_clip.get_model_config(origin.name)
        scale, bias = logit_scale_and_bias(model)
        write_towers(
            out,
            image_tower(model, model_name, open_clip_preprocessing(stated)),
            text_tower(model, model_name, config, tokenizer),
            origin,
            labels,
            logit_scale=scale,
            logit_bias=bias,
            force=force,
        )
        return
    if tokenizer is not None:
        raise SourceError(f"open_clip's {model_name} has CLIP's tokens: --tokenizer is not taken")
    _require_plain(model, model_name)
    quick_gelu, eps = _activation(model.transformer), model.ln_final.eps
    if isinstance(model.visual, open_clip.transformer.VisionTransformer):
        image = TowerSettings(
            heads=model.visual.transformer.resblocks[0].attn.num_heads,
            quick_gelu=_activation(model.visual.transformer),
            eps=model.visual.ln_post.eps,
        )
    else:
        image = TowerSettings(heads=model.visual.attnpool.num_heads, quick_gelu=quick_gelu)
    text = TowerSettings(
        heads=model.transformer.resblocks[0].attn.num_heads, quick_gelu=quick_gelu, eps=eps
    )
    encoders = build_encoders(model.state_dict(), image, text)
    preprocessing = open_clip_preprocessing(stated)
    if preprocessing.size != encoders.image_size:
        raise SourceError(
            f"{model_name} preprocesses to {preprocessing.size} pixels, "
            f"its weights are for {encoders.image_size}"
        )
    write_clip_bundle(
        out,
        encoders,
        preprocessing,
        labels,
        default_name=origin.name,
        source=origin.source,
        licence=origin.licence,
        reference=Reference(image=model.encode_image, text=model.encode_text),
        force=force,
    )


def _import() -> ModuleType:
    try:
        import open_clip  # noqa: PLC0415 (an optional package)
        import open_clip.transformer  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError("open_clip_torch", "an open_clip model") from error
    return open_clip


def _create(
    open_clip: ModuleType, model_name: str, pretrained: str | None, seed: int | None
) -> nn.Module:
    name = model_name.replace("/", "-")
    known = open_clip.list_models()
    if name not in known:
        near = [m for m in known if m.lower().startswith(name.lower()[:4])][:8]
        raise SourceError(f"open_clip has no model {name!r}; it has {', '.join(near or known[:8])}")
    force_quick_gelu = False
    if pretrained is not None:
        tag = open_clip.get_pretrained_cfg(name, pretrained)
        if not tag and not Path(pretrained).is_file():
            tags = open_clip.list_pretrained_tags_by_model(name)
            raise SourceError(
                f"{pretrained!r} is neither a file nor a tag of open_clip's {name}; "
                f"its tags are {', '.join(tags) or 'none'}"
            )
        # open_clip only warns where a tag's weights were trained with QuickGELU and the model
        # of that name has GELU. The weights are right.
        force_quick_gelu = bool(tag and tag.get("quick_gelu"))
        if force_quick_gelu and not open_clip.get_model_config(name).get("quick_gelu", False):
            print(f"{name}: the weights {pretrained!r} need QuickGELU; used", file=sys.stderr)
    torch.manual_seed(seed or 0)
    with _quiet():
        try:
            return open_clip.create_model(
                name,
                pretrained=pretrained,
                force_quick_gelu=force_quick_gelu,
                pretrained_text=False,
                require_pretrained=pretrained is not None,
            ).eval()
        except Exception as error:  # open_clip raises whatever its loaders raise
            hint = ""
            if pretrained is not None and not Path(pretrained).is_file():
                hint = " (a tag's weights are downloaded: is there a network?)"
            raise SourceError(f"open_clip cannot make {name}{hint}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Any:
    """Without open_clip's own log lines: what matters is said by the errors."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _activation(transformer: nn.Module) -> bool:
    """Whether a transformer's MLPs use QuickGELU; only it and exact GELU are known."""
    activation = transformer.resblocks[0].mlp.gelu
    if type(activation).__name__ == "QuickGELU":
        return True
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        return False
    raise SourceError(f"the activation {activation} is not supported")


def _require_plain(model: Any, name: str) -> None:
    """Refuses options of open_clip's towers that change what the same weights compute."""
    visual = model.visual
    wrong = {
        "text pooling": getattr(model, "text_pool_type", "argmax") != "argmax",
        "pooling": getattr(visual, "pool_type", "tok") != "tok",
        "attentional pooling": getattr(visual, "attn_pool", None) is not None,
        "no causal mask": getattr(model, "attn_mask", None) is None,
    }
    for option, present in wrong.items():
        if present:
            raise SourceError(f"open_clip's {name} differs from CLIP in {option}: not supported")


def _licence(pretrained: str | None) -> str | None:
    if pretrained is None:
        return None
    return next((TAG_LICENCES[t] for t in TAG_LICENCES if pretrained.startswith(t)), None)
