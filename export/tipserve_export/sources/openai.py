"""OpenAI's official checkpoints: TorchScript archives, or the plain state dict of one.

The archives' graphs hard-code ``cuda:0`` and half precision, so only their weights are taken.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from tipserve_export.bundle import Preprocessing, check_output
from tipserve_export.clip_weights import TowerSettings, build_encoders, is_resnet
from tipserve_export.errors import SourceError
from tipserve_export.sources.clip_bundle import (
    OPENAI_MEAN,
    OPENAI_STD,
    write_clip_bundle,
)
from tipserve_export.sources.labels import Labels

HEAD_WIDTH = 64
"""All of OpenAI's towers have heads of this width; no checkpoint states it."""


def export_openai(file: Path, out: Path, labels: Labels, *, force: bool) -> None:
    """Exports an official checkpoint."""
    check_output(out, force=force)
    tensors = _state_dict(file)
    for name in ("visual.conv1.weight", "ln_final.weight", "text_projection"):
        if name not in tensors:
            raise SourceError(f"{file} is no OpenAI CLIP checkpoint: it has no tensor {name!r}")
    if is_resnet(tensors):
        image_width = tensors["visual.attnpool.positional_embedding"].shape[1]
    else:
        image_width = tensors["visual.conv1.weight"].shape[0]
    encoders = build_encoders(
        tensors,
        TowerSettings(heads=image_width // HEAD_WIDTH, quick_gelu=True),
        TowerSettings(heads=tensors["ln_final.weight"].shape[0] // HEAD_WIDTH, quick_gelu=True),
    )
    write_clip_bundle(
        out,
        encoders,
        Preprocessing(
            size=encoders.image_size,
            resize_to=encoders.image_size,
            mean=OPENAI_MEAN,
            std=OPENAI_STD,
        ),
        labels,
        default_name=file.stem,
        source=f"OpenAI checkpoint {file.name}",
        licence="MIT",
        reference=None,
        force=force,
    )


def _state_dict(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise SourceError(f"there is no file {file}")
    if not zipfile.is_zipfile(file):
        raise SourceError(f"{file} is no file that torch.save or torch.jit.save wrote")
    try:
        with zipfile.ZipFile(file) as archive:
            scripted = any(name.endswith("constants.pkl") for name in archive.namelist())
        if scripted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return dict(torch.jit.load(file, map_location="cpu").state_dict())
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"cannot read {file}: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise SourceError(f"{file} holds no state dict")
    return content
