"""Picture files of every kind, drawn afresh: plain, unusual, damaged, and none at all."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
ENDINGS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "1", "P", "RGBA", "LA", "I;16"],
    "GIF": ["P", "L"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "L", "1", "P"],
    "TIFF": ["RGB", "L", "1", "P", "RGBA", "CMYK", "I;16", "F"],
    "PPM": ["RGB", "L", "1"],
}


def odd_files(chance: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """So many files, each with the name that it is to have."""
    for number in range(count):
        kind = str(chance.choice(list(MODES)))
        mode = str(chance.choice(MODES[kind]))
        data = _saved(chance, _picture(chance, mode), kind)
        if kind == "PNG" and chance.random() < 0.15:
            data = _with_chunk(chance, data)
        what, data = _damaged(chance, data)
        # Now and then what the name says is not what the file is.
        ending = ENDINGS.get(kind, "ppm")
        if chance.random() < 0.05:
            ending = str(chance.choice(list(ENDINGS.values())))
        yield f"{number:04}-{mode.replace(';', '')}-{what}.{ending}", data


def _picture(chance, mode: str) -> Image.Image:
    longest = int(chance.choice([3, 33, 90, 200]))
    width, height = (int(side) for side in chance.integers(1, longest + 1, 2))
    coarse = chance.integers(0, 256, (3, 4, 4), np.uint8)
    picture = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
    noise = chance.normal(0, 6, (height, width, 4))
    levels = np.clip(np.asarray(picture, float) + noise, 0, 255)
    if mode == "F":
        # From 0 to 1 and, now and then, beyond.
        return Image.fromarray((levels[..., 0] / chance.choice([255, 255, 200])).astype("float32"))
    if mode == "I;16":
        return Image.fromarray((levels[..., 0] * 257).astype(np.uint16))
    picture = Image.fromarray(levels.astype(np.uint8), "RGBA")
    if mode == "P":
        return picture.convert("RGB").quantize(int(chance.integers(2, 257)))
    return picture.convert(mode) if mode in ("RGBA", "LA") else picture.convert("RGB").convert(mode)


def _saved(chance, picture: Image.Image, kind: str) -> bytes:
    options: dict = {}
    if kind == "JPEG":
        options = {"quality": int(chance.integers(5, 101)), "subsampling": int(chance.integers(3))}
        options["progressive"] = bool(chance.random() < 0.3)
        options["restart_marker_rows"] = int(chance.integers(3))
    elif kind == "PNG":
        options = {"compress_level": int(chance.integers(10))}
    elif kind == "WEBP":
        options = {"lossless": bool(chance.random() < 0.5)}
    elif kind == "TIFF":
        ways = ["raw", "tiff_lzw", "tiff_adobe_deflate", "lzma"]
        if picture.mode == "1":
            ways = ["raw", "group3", "group4", "tiff_ccitt"]
        options = {"compression": str(chance.choice(ways))}
    if kind in ("JPEG", "PNG", "WEBP", "TIFF") and chance.random() < 0.4:
        exif = Image.Exif()
        # 0 and 9 are none; libtiff writes neither.
        exif[ORIENTATION] = int(chance.integers(*((1, 9) if kind == "TIFF" else (0, 10))))
        options["exif"] = exif
    if (
        kind in ("GIF", "PNG", "WEBP", "TIFF")
        and picture.mode not in ("I;16", "F")
        and chance.random() < 0.1
    ):
        options |= {"save_all": True, "append_images": [picture]}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _with_chunk(chance, png: bytes) -> bytes:
    """With a chunk after the header that a reader must know, or may pass over, or that turns the
    picture as ImageMagick used to write it."""
    exif = Image.Exif()
    exif[ORIENTATION] = int(chance.integers(1, 9))
    digits = exif.tobytes().hex()
    profile = f"\nexif\n{len(digits) // 2:8}\n{digits}\n".encode()
    kind, data = [
        (b"IDUT", b"what is critical and unknown"),
        (b"idUt", b"what may be passed over"),
        (b"tEXt", b"Raw profile type exif\0" + profile),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
    ][int(chance.integers(4))]
    chunk = struct.pack(">I", len(data)) + kind + data
    return png[:33] + chunk + struct.pack(">I", zlib.crc32(kind + data)) + png[33:]


def _damaged(chance, data: bytes) -> tuple[str, bytes]:
    draw = chance.random()
    if draw < 0.55:
        return "whole", data
    if draw < 0.65:
        return "cut", data[: int(chance.integers(len(data)))]
    if draw < 0.72:
        return "no-end", data[: -int(chance.integers(1, 13))]
    if draw < 0.87:
        changed = bytearray(data)
        for at in chance.integers(0, len(data), int(chance.integers(1, 4))):
            changed[at] = int(chance.integers(256))
        return "flipped", bytes(changed)
    if draw < 0.93:
        return "longer", data + chance.bytes(int(chance.integers(1, 40)))
    if draw < 0.97:
        return "half-ended", data[: len(data) // 2] + data[-2:]
    return str(chance.choice(["noise", "empty"])), chance.bytes(int(chance.choice([0, 5, 300])))
