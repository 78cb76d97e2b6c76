"""What the three CLIP sources have in common: encoders in, bundle out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tipserve_export.archive import archive_writer
from tipserve_export.bundle import (
    DEFAULT_TEMPLATES,
    BundleInfo,
    Preprocessing,
    TextRules,
    check_info,
    write_bundle,
)
from tipserve_export.clip_tokenizer import tokenizer_writer
from tipserve_export.clip_weights import Encoders
from tipserve_export.sources.labels import Labels

PAD_ID = 0

# OpenAI's preprocessing. Its checkpoints do not carry it, so it belongs to that source.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Reference:
    """The source model itself, if it can be run: raw features in float32."""

    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]


def write_clip_bundle(
    out: Path,
    encoders: Encoders,
    preprocessing: Preprocessing,
    labels: Labels,
    *,
    default_name: str,
    source: str,
    licence: str | None,
    reference: Reference | None,
    force: bool,
) -> None:
    """Writes the bundle of a CLIP model, checked against the source if that can be run."""
    info = BundleInfo(
        name=labels.name_or(default_name),
        width=encoders.width,
        logit_scale=encoders.logit_scale,
        templates=labels.templates or DEFAULT_TEMPLATES,
        source=source,
        licence=labels.licence or licence,
        image=preprocessing,
        text=TextRules(rules="clip", context_length=encoders.context_length, pad_id=PAD_ID),
    )
    check_info(info)
    generator = torch.Generator().manual_seed(0)
    side = encoders.image_size
    pixels = torch.randn(2, 3, side, side, generator=generator)
    files = {
        "image.pt": archive_writer(encoders.image, pixels, reference and reference.image),
        "text.pt": archive_writer(
            encoders.text, example_ids(encoders, generator), reference and reference.text
        ),
        "tokenizer.json": tokenizer_writer(encoders.vocabulary),
    }
    write_bundle(out, info, files, force=force)


def example_ids(encoders: Encoders, generator: torch.Generator) -> Tensor:
    """Texts of several lengths, the longest possible among them: [4, context_length]."""
    context, end = encoders.context_length, encoders.vocabulary - 1
    ids = torch.full((4, context), PAD_ID, dtype=torch.int64)
    for row, length in enumerate((3, 8, context // 2, context)):
        ids[row, 0] = end - 1
        words = torch.randint(1, end - 1, (length - 2,), generator=generator)
        ids[row, 1 : length - 1] = words
        ids[row, length - 1] = end
    return ids
