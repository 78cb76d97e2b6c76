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
MOST_PIXELS, MOST_RESIZED = 4096, 8192
"""Of a side: what a server takes at most, as the encoder sees it and as it is resized."""
DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the image encoder's input.

    ``size`` is what the encoder sees, the side of a square or (height, width), and
    ``resize_to`` what the picture is resized to before the centre crop: its shorter side
    (``shortest-side``) or both (``squash``), in pixels. ``mean`` and ``std`` are per channel
    (RGB), for values in [0, 1]. ``parts`` has one entry for each encoder of a bundle with
    several; ``size`` then holds them one below the other. An entry says with ``share`` how many
    of the features are its encoder's, and how much they count.
    """

    size: int | tuple[int, int]
    resize_to: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize: str = "shortest-side"
    parts: tuple[Preprocessing, ...] = ()
    share: tuple[int, float] | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the encoder sees."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def resizing(self) -> dict[str, Any]:
        """The keys of ``bundle.toml`` that say how pixels come about, before their levels."""
        keys: dict[str, Any] = {
            "size": _pixels(self.size),
            "resize": self.resize,
            "resize_to": _pixels(self.resize_to),
            "interpolation": self.interpolation,
        }
        if self.share is not None:
            keys["width"], keys["weight"] = self.share
        return keys


@dataclass(frozen=True)
class TextRules:
    """How a text becomes the text encoder's input.

    ``rules`` is ``clip``, ``plain``, ``canonical`` or ``siglip``.
    """

    rules: str
    context_length: int
    pad_id: int
    pad_side: str = "right"


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
    logit_bias: float | None = None

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
        if self.logit_bias is not None:
            content["logit_bias"] = self.logit_bias
        if self.licence is not None:
            content["licence"] = self.licence
        if self.image is not None:
            resizing = self.image.resizing()
            content["image"] = {
                "file": "image.pt",
                "size": resizing.pop("size"),
                "mean": list(self.image.mean),
                "std": list(self.image.std),
                **resizing,
                "batch_dynamic": True,
            }
            if self.image.parts:
                content["image"]["parts"] = [part.resizing() for part in self.image.parts]
        if self.text is not None:
            content["text"] = {
                "file": "text.pt",
                "tokenizer": "tokenizer.json",
                "rules": self.text.rules,
                "context_length": self.text.context_length,
                "pad_id": self.text.pad_id,
            }
            if self.text.pad_side != "right":
                content["text"]["pad_side"] = self.text.pad_side
        content["files"] = checksums
        return content


def _pixels(size: int | tuple[int, int]) -> int | list[int]:
    """As ``bundle.toml`` has it: one number for a square, else [height, width]."""
    if isinstance(size, int):
        return size
    return size[0] if size[0] == size[1] else list(size)


def check_info(info: BundleInfo) -> None:
    """Refuses values that no server could use."""
    if info.width < 1:
        raise SourceError(f"the embedding width must be at least 1, not {info.width}")
    if not (math.isfinite(info.logit_scale) and info.logit_scale > 0):
        raise SourceError(f"the logit scale must be positive and finite, not {info.logit_scale}")
    if info.logit_bias is not None and not math.isfinite(info.logit_bias):
        raise SourceError(f"the logit bias must be finite, not {info.logit_bias}")
    if not info.name or info.name != info.name.strip() or "\n" in info.name:
        raise SourceError(f"{info.name!r} is no bundle name: one line, without spaces around it")
    if info.image is not None:
        check_preprocessing(info.image)
    if not info.templates:
        raise SourceError("a bundle needs at least one prompt template")
    for template in info.templates:
        if template.count("{}") != 1:
            raise SourceError(f"the template {template!r} must hold {{}} exactly once")


def check_preprocessing(image: Preprocessing) -> None:
    """Refuses a preprocessing that a server refuses, or that makes no picture."""
    for part in image.parts or (image,):
        to = (part.resize_to, part.resize_to) if isinstance(part.resize_to, int) else part.resize_to
        for side, resized in zip(part.sides, to, strict=True):
            if not (isinstance(side, int) and 1 <= side <= MOST_PIXELS):
                raise SourceError(
                    f"the encoder's pictures would have a side of {side!r} pixels: 1 to "
                    f"{MOST_PIXELS} are possible"
                )
            if not (isinstance(resized, int) and side <= resized <= MOST_RESIZED):
                raise SourceError(
                    f"pictures would be resized to {resized!r} pixels and {side} of them cut out: "
                    f"{side} to {MOST_RESIZED} are possible"
                )
        if part.resize == "shortest-side" and to[0] != to[1]:
            raise SourceError(
                f"the shortest side would be resized to {to[0]} or {to[1]} pixels: only one number "
                "is possible, or both sides are squashed"
            )
        if not all(math.isfinite(value) for value in (*part.mean, *part.std)) or min(part.std) <= 0:
            raise SourceError(
                f"levels with the mean {list(part.mean)} and the deviation {list(part.std)} cannot "
                "be normalised: all must be finite, and deviations over 0"
            )


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
