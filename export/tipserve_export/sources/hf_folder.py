"""Files of a Hugging Face model folder: configuration, weights, licence."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tipserve_export.errors import MissingPackageError, SourceError


def read_json(path: Path, *, required: bool) -> dict[str, Any]:
    """A JSON object from a file; an empty one where a file that is not required is absent."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise SourceError(f"there is no {path}: a model's folder has one") from error
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} is not a JSON object")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder, from one file or from the shards that an index names."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        file = folder / f"{stem}.{suffix}"
        if file.is_file():
            return _read_file(file)
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            tensors: dict[str, Tensor] = {}
            for shard in sorted(set(read_json(index, required=True)["weight_map"].values())):
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


def loaded(kind: Any, folder: Path) -> Any:
    """The folder's model as ``kind``, a class of ``transformers``, has it, in float32."""
    try:
        return kind.from_pretrained(folder, dtype=torch.float32).eval()
    except Exception as error:  # transformers raises whatever its models and readers raise
        raise SourceError(f"transformers cannot load {folder}: {error}") from error


def model_card_licence(folder: Path) -> str | None:
    """The licence in the front matter of the model card, if there is one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    found = re.search(r"^license:\s*(\S+)\s*$", front[1], re.M) if front else None
    return found[1] if found else None
