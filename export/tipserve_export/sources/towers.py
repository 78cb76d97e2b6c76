"""A bundle of two towers, or of an image tower alone, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tipserve_export.archive import archive_writer
from tipserve_export.bundle import (
    DEFAULT_TEMPLATES,
    BundleInfo,
    Preprocessing,
    TextRules,
    check_info,
    check_preprocessing,
    write_bundle,
)
from tipserve_export.errors import SourceError
from tipserve_export.sources.labels import Labels

IMAGE_ONLY_LOGIT_SCALE = 100.0
"""What cosines are multiplied by where no text tower comes with a learned scale: CLIP's."""


@dataclass(frozen=True)
class ImageTower:
    """An image encoder and what it takes; ``reference`` is the source model, in float32."""

    module: nn.Module
    preprocessing: Preprocessing
    reference: Callable[[Tensor], Tensor] | None = None

    def example(self, generator: torch.Generator) -> Tensor:
        """Two pictures of noise [2, 3, height, width]."""
        height, width = self.preprocessing.sides
        return torch.randn(2, 3, height, width, generator=generator)


@dataclass(frozen=True)
class TextTower:
    """A text encoder and its tokenizer; ``reference`` is the source model, in float32."""

    module: nn.Module
    rules: TextRules
    vocabulary: int
    """Token embeddings; the largest id is the end token where features are read at it."""
    write_tokenizer: Callable[[Path], None]
    reference: Callable[[Tensor], Tensor] | None = None

    def example(self, generator: torch.Generator) -> Tensor:
        """Padded texts of several lengths, the longest possible among them [4, context]."""
        context, end = self.rules.context_length, self.vocabulary - 1
        ids = torch.full((4, context), self.rules.pad_id, dtype=torch.int64)
        lengths = (3, min(8, context), max(3, context // 2), context)
        for row, length in enumerate(lengths):
            words = torch.randint(2, end - 1, (length,), generator=generator)
            words[-1] = end
            if self.rules.pad_side == "left":
                ids[row, context - length :] = words
            else:
                ids[row, :length] = words
        return ids


@dataclass(frozen=True)
class Origin:
    """Where a model is from: ``bundle.toml``'s name, source and licence unless a user says so."""

    name: str
    source: str
    licence: str | None = None


def write_towers(
    out: Path,
    image: ImageTower,
    text: TextTower | None,
    origin: Origin,
    labels: Labels,
    *,
    logit_scale: float = IMAGE_ONLY_LOGIT_SCALE,
    logit_bias: float | None = None,
    force: bool,
) -> None:
    """Writes the bundle, each archive checked against its source."""
    generator = torch.Generator().manual_seed(0)
    check_preprocessing(image.preprocessing)
    pixels = image.example(generator)
    try:
        with torch.inference_mode():
            features = image.module(pixels)
    except (RuntimeError, AssertionError) as error:
        height, width = image.preprocessing.sides
        raise SourceError(
            f"the image model does not take pictures of {height}×{width} pixels, which its "
            f"preprocessing makes: {error}"
        ) from error
    if features.dim() != 2:
        raise SourceError(
            f"the image model gives features of shape {list(features.shape)}, not one vector a "
            "picture: choose a pooling"
        )
    info = BundleInfo(
        name=labels.name_or(origin.name),
        width=features.shape[1],
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        templates=labels.templates or DEFAULT_TEMPLATES,
        source=origin.source,
        licence=labels.licence or origin.licence,
        image=image.preprocessing,
        text=text and text.rules,
    )
    check_info(info)
    files = {"image.pt": archive_writer(image.module, pixels, image.reference)}
    if text is not None:
        ids = text.example(generator)
        files["text.pt"] = archive_writer(text.module, ids, text.reference)
        files["tokenizer.json"] = text.write_tokenizer
    write_bundle(out, info, files, force=force)
