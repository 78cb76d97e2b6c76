"""Mean and variance of a bundle's embeddings, from any pictures without labels.

CLIP's embeddings have a few dimensions that dwarf the rest. With these figures the server puts
features on one scale (docs/accuracy.md), better than by the few examples of one cache.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from tipserve_export.bundle import MANIFEST, sha256_of
from tipserve_export.errors import MissingPackageError, OutputError, SourceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "statistics.f32"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
BATCH = 16
LEAST_PICTURES = 32


def add_statistics(bundle: Path, pictures: Path) -> int:
    """Embeds every picture under ``pictures`` and writes the figures into the bundle.

    The bundle's fingerprint is that of ``bundle.toml`` and so becomes another: versions made
    with the bundle as it was before are not served by it. Returns the number of pictures.
    """
    import numpy as np  # noqa: PLC0415

    manifest_path = bundle / MANIFEST
    manifest = tomllib.loads(manifest_path.read_text(encoding="utf-8"))
    if "image" not in manifest:
        raise SourceError("statistics need an image encoder, and this bundle has none")
    found = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(found) < LEAST_PICTURES:
        raise SourceError(
            f"{pictures} holds {len(found)} pictures: at least {LEAST_PICTURES} are needed, and "
            "a few hundred of all kinds are better"
        )
    rows = np.concatenate(list(embeddings(bundle, manifest["image"], found)))
    if len(rows) < LEAST_PICTURES:
        raise SourceError(f"only {len(rows)} of {len(found)} pictures could be read")
    figures = np.concatenate([rows.mean(0), rows.var(0)]).astype("<f4")
    if not np.isfinite(figures).all():
        raise SourceError("the encoder's embeddings are not finite")
    manifest["statistics"] = {"file": FILE, "pictures": len(rows)}
    try:
        (bundle / FILE).write_bytes(figures.tobytes())
        manifest["files"][FILE] = sha256_of(bundle / FILE)
        # Files last, as exports write them.
        manifest["files"] = manifest.pop("files")
        with tempfile.NamedTemporaryFile("wb", dir=bundle, delete=False) as file:
            tomli_w.dump(manifest, file)
        shutil.copymode(manifest_path, file.name)
        Path(file.name).replace(manifest_path)
    except OSError as error:
        raise OutputError(f"cannot write the statistics into {bundle}: {error}") from error
    return len(rows)


def embeddings(
    bundle: Path, image: dict[str, object], pictures: list[Path]
) -> Iterator[NDArray[np.float64]]:
    """Unit embeddings of the pictures, some at a time; unreadable ones are left out."""
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError("pillow", "--statistics") from error
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    encoder = torch.jit.load(str(bundle / str(image["file"]))).eval()
    for start in range(0, len(pictures), BATCH):
        batch = []
        for path in pictures[start : start + BATCH]:
            try:
                with Image.open(path) as picture:
                    batch.append(prepared(picture.convert("RGB"), image))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                print(f"left out: {path}: {error}", file=sys.stderr)
        if not batch:
            continue
        with torch.inference_mode():
            out = encoder(torch.from_numpy(np.stack(batch))).double().numpy()
        yield out / np.linalg.norm(out, axis=1, keepdims=True)


def prepared(picture, image) -> NDArray[np.float32]:
    """A picture as the encoder takes it, [3, height, width]: resized, cropped, levels."""
    import numpy as np  # noqa: PLC0415

    parts = image.get("parts") or [image]
    height, width = _sides(image["size"])
    pixels = np.zeros((height, width, 3), np.uint8)
    top = 0
    for part in parts:
        own = _cropped(picture, part)
        pixels[top : top + own.shape[0], : own.shape[1]] = own
        top += own.shape[0]
    levels = pixels.astype(np.float32) / 255
    levels = (levels - np.float32(image["mean"])) / np.float32(image["std"])
    return np.ascontiguousarray(levels.transpose(2, 0, 1), dtype=np.float32)


def _cropped(picture, part) -> NDArray[np.uint8]:
    """What one encoder sees of a picture, [height, width, 3]."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    kernel = {
        "bicubic": Image.Resampling.BICUBIC,
        "bilinear": Image.Resampling.BILINEAR,
    }[part["interpolation"]]
    rows, columns = _sides(part["size"])
    to_height, to_width = _sides(part["resize_to"])
    width, height = picture.size
    if part["resize"] == "shortest-side":
        to = to_width
        if width < height:
            to_width, to_height = to, int(to * height / width)
        else:
            to_width, to_height = int(to * width / height), to
    picture = picture.resize((to_width, to_height), kernel)
    left, top = round((to_width - columns) / 2), round((to_height - rows) / 2)
    return np.asarray(picture.crop((left, top, left + columns, top + rows)))


def _sides(size) -> tuple[int, int]:
    """Height and width of what ``bundle.toml`` states: one number for a square, or both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
