"""The bundle folder: ``bundle.toml`` and the files that it names.

The format is described in ``export/README.md``.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from tipserve_export.errors import OutputError, SourceError

FORMAT = 1
MANIFEST = "bundle.toml"
DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the image encoder's input.

    ``size`` is the side of the square that the encoder sees and ``resize_to`` the length
    that the shorter side is resized to before the centre crop, both in pixels. ``mean`` and
    ``std`` are per channel (RGB), for values in [0, 1].
    """

    size: int
    resize_to: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize: str = "shortest-side"


@dataclass(frozen=True)
class TextRules:
    """How a text becomes the text encoder's input; ``rules`` is ``clip`` or ``plain``."""

    rules: str
    context_length: int
    pad_id: int


@dataclass(frozen=True)
class BundleInfo:
    """What ``bundle.toml`` says beside the checksums."""

    name: str
    width: int
    logit_scale: float
    templates: tuple[str, ...]
    source: str
    licence: str | None = None
    image: Preprocessing | None = None
    text: TextRules | None = None

    def manifest(self, checksums: dict[str, str]) -> dict[str, Any]:
        """The content of ``bundle.toml``, keys in the order in which they are written."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "width": self.width,
            "logit_scale": self.logit_scale,
            "templates": list(self.templates),
            "source": self.source,
        }
        if self.licence is not None:
            content["licence"] = self.licence
        if self.image is not None:
            content["image"] = {
                "file": "image.pt",
                "size": self.image.size,
                "mean": list(self.image.mean),
                "std": list(self.image.std),
                "resize": self.image.resize,
                "resize_to": self.image.resize_to,
                "interpolation": self.image.interpolation,
                "batch_dynamic": True,
            }
        if self.text is not None:
            content["text"] = {
                "file": "text.pt",
                "tokenizer": "tokenizer.json",
                "rules": self.text.rules,
                "context_length": self.text.context_length,
                "pad_id": self.text.pad_id,
            }
        content["files"] = checksums
        return content


def check_info(info: BundleInfo) -> None:
    """Refuses values that no server could use."""
    if info.width < 1:
        raise SourceError(f"the embedding width must be at least 1, not {info.width}")
    if not (math.isfinite(info.logit_scale) and info.logit_scale > 0):
        raise SourceError(f"the logit scale must be positive and finite, not {info.logit_scale}")
    if not info.name or info.name != info.name.strip() or "\n" in info.name:
        raise SourceError(f"{info.name!r} is no bundle name: one line, without spaces around it")
    if not info.templates:
        raise SourceError("a bundle needs at least one prompt template")
    for template in info.templates:
        if template.count("{}") != 1:
            raise SourceError(f"the template {template!r} must hold {{}} exactly once")


def write_bundle(
    out: Path,
    info: BundleInfo,
    files: dict[str, Callable[[Path], None]],
    *,
    force: bool,
) -> None:
    """Writes a bundle to ``out``; ``files`` maps each file's name to what writes it.

    Everything is written beside ``out`` first and then renamed, so that a bundle is either
    whole or absent. Without ``force`` an existing ``out`` is an error; with it only an empty
    folder or an earlier bundle is replaced, never a folder that holds something else.
    """
    check_info(info)
    check_output(out, force=force)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name, write in sorted(files.items()):
            write(staging / name)
        checksums = {name: sha256_of(staging / name) for name in sorted(files)}
        manifest = tomli_w.dumps(info.manifest(checksums))
        (staging / MANIFEST).write_text(manifest, encoding="utf-8")
        # mkdtemp makes a folder that its owner alone can open; a bundle has no secrets.
        umask = os.umask(0)
        os.umask(umask)
        staging.chmod(0o777 & ~umask)
        if out.exists():
            shutil.rmtree(out)
        staging.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write the bundle {out}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_output(out: Path, *, force: bool) -> None:
    """Refuses an output folder that exists (without ``force``) or is not a bundle's."""
    if out.exists():
        if not out.is_dir():
            raise OutputError(f"{out} exists and is not a folder")
        if not force:
            raise OutputError(f"{out} exists: pass --force to replace the bundle in it")
        if any(out.iterdir()) and not (out / MANIFEST).is_file():
            raise OutputError(f"{out} holds something other than a bundle: it is not replaced")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out.parent}: {error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
