"""A local folder as ``transformers`` saves one: which family it is, and who exports that."""

from __future__ import annotations

from pathlib import Path

from tipserve_export.bundle import check_output
from tipserve_export.errors import SourceError
from tipserve_export.sources.hf_clip import export_clip
from tipserve_export.sources.hf_dino import DINO_TYPES, export_dino
from tipserve_export.sources.hf_folder import read_json
from tipserve_export.sources.hf_siglip import export_siglip
from tipserve_export.sources.hf_timm import WRAPPER, export_timm_folder, is_timm
from tipserve_export.sources.labels import Labels

PARTS = ("", "_encoder")

# Model types that cannot be served, and why.
REFUSED = {
    "siglip2": (
        "a SigLIP 2 of any aspect ratio (naflex): its pictures have any number of patches, and "
        "the server batches pictures of one size only. The fixed-size checkpoints of SigLIP 2 "
        "(such as siglip2-base-patch16-224, of type 'siglip') work"
    ),
    "metaclip_2": "a MetaCLIP 2, whose text tower reads XLM-V's tokens: not supported",
    "dinov3_convnext": (
        "a DINOv3 of ConvNeXt's architecture, which timm has: tipserve-export timm "
        "convnext_tiny.dinov3_lvd1689m --pretrained default (or another size of it)"
    ),
    **dict.fromkeys(
        (f"pe_{what}{part}" for what in ("audio", "video", "audio_video") for part in PARTS),
        "a Perception Encoder for videos or sound, which takes several frames at once: the server "
        "embeds single pictures. Its encoder of pictures comes from open_clip, with texts "
        "(tipserve-export open-clip PE-Core-L-14-336 --pretrained meta), from timm "
        "(tipserve-export timm vit_pe_core_large_patch14_336 --pretrained default), or from a "
        "folder of type 'timm_wrapper'",
    ),
}


def export_huggingface(
    folder: Path,
    out: Path,
    labels: Labels,
    *,
    text_rules: str | None = None,
    force: bool,
) -> None:
    """Exports a folder with ``config.json`` and safetensors or ``pytorch_model.bin`` weights.

    ``text_rules`` replaces what the folder's tokenizer does before its tokens (SigLIP only).
    """
    check_output(out, force=force)
    config = read_json(folder / "config.json", required=True)
    kind = config.get("model_type")
    if text_rules is not None and kind != "siglip":
        raise SourceError(f"--text-rules is for SigLIP, and {folder} holds a {kind!r}")
    if kind == "clip":
        export_clip(folder, config, out, labels, force=force)
    elif kind == "siglip":
        export_siglip(folder, config, out, labels, text_rules=text_rules, force=force)
    elif kind in DINO_TYPES:
        export_dino(folder, config, out, labels, force=force)
    elif is_timm(config):
        export_timm_folder(folder, config, out, labels, force=force)
    else:
        supported = ", ".join(("clip", "siglip", *DINO_TYPES, WRAPPER))
        reason = REFUSED.get(kind, f"a model of type {kind!r}: supported are {supported}")
        raise SourceError(f"{folder} holds {reason}")
