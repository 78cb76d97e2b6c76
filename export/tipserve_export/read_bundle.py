"""Bundles that are there: what ``bundle.toml`` says, its files, and their archives."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipserve_export.bundle import FORMAT, MANIFEST, sha256_of
from tipserve_export.errors import SourceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import torch

KEYS = ("name", "width", "logit_scale", "files")
IMAGE_KEYS = ("file", "size", "resize", "resize_to", "interpolation", "mean", "std")
TEXT_KEYS = ("file", "tokenizer", "rules", "context_length", "pad_id")


def read_manifest(folder: Path) -> str:
    """The text of a bundle's ``bundle.toml``."""
    try:
        return (folder / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"there is no bundle at {folder}: cannot read {folder / MANIFEST}: {error}"
        ) from error


def checked_manifest(folder: Path, text: str) -> dict[str, Any]:
    """What ``text``, a bundle's manifest, says; each file that it names is there and unchanged."""
    path = folder / MANIFEST
    try:
        manifest = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    if manifest.get("format") != FORMAT:
        raise SourceError(
            f"{path} has format = {manifest.get('format')!r}: this tool knows {FORMAT} only"
        )
    _require(path, "", manifest, KEYS)
    named = manifest["files"]
    for table, keys in (("image", IMAGE_KEYS), ("text", TEXT_KEYS)):
        if table in manifest:
            _require(path, f"{table}.", manifest[table], keys)
            _require(path, "files.", named, [manifest[table]["file"]])
    for name, checksum in named.items():
        file = folder / name
        if not file.is_file():
            raise SourceError(f"{file} is missing, and {MANIFEST} names it: copy the bundle anew")
        if sha256_of(file) != checksum:
            raise SourceError(
                f"{file} is not what {MANIFEST} says: its SHA-256 differs. Copy the bundle anew"
            )
    return manifest


def load_archive(path: Path) -> torch.jit.ScriptModule:
    """A bundle's encoder, on the CPU."""
    import torch  # noqa: PLC0415 (takes seconds)

    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        # torch's own message goes on with the place in its C++ sources.
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(f"{path} is no TorchScript archive: {said}") from error


def _require(path: Path, place: str, table: Any, keys: Iterable[str]) -> None:
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            raise SourceError(f"{path} has no {place}{key}: it is no bundle's, or was cut off")
