"""Makes resize.zip: pictures, and what Pillow makes of them.

python clients/go/testdata/make.py    (wants Pillow, numpy and the Python client)

cases.json in it has a line for each case: the file, the sides and the
interpolation that a server would state (resize_to, image_size), and the PNG with
the pixels that the client must send; null where it must send the file as it is.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tipserve import resize_and_crop

FILE = Path(__file__).parent / "resize.zip"


def photo(width: int, height: int) -> Image.Image:
    """Smooth light, coloured edges, some grain."""
    coarse = chance.integers(0, 256, (3, 4, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        size = chance.uniform(0.1, 0.3) * min(width, height)
        colour = tuple(int(v) for v in chance.integers(0, 256, 3))
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
    grain = np.asarray(picture, np.float64) + chance.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png16(levels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width, channels = levels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def blocks(width: int, height: int) -> Image.Image:
    """Plain squares of 16 pixels: of these every decoder's inverse DCT is exact."""
    colours = chance.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    whole = colours.repeat(16, 0).repeat(16, 1)
    return Image.fromarray(np.ascontiguousarray(whole[:height, :width]))


def halved_rows(picture: Image.Image) -> bytes:
    """A JPEG of 4:4:0, which Pillow does not write: one of 4:2:2 that calls its
    blocks those of another shape. As a picture it is a heap of blocks."""
    file = bytearray(saved(picture, "JPEG", quality=90, subsampling="4:2:2"))
    frame = file.index(b"\xff\xc0") + 5
    assert file[frame + 6] == 0x21
    file[frame : frame + 4] = struct.pack(">HH", 61, 46)
    file[frame + 6] = 0x12
    return bytes(file)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


chance = np.random.default_rng(7)
FILES = {
    "420.jpg": saved(photo(61, 45), "JPEG", quality=90),
    "422.jpg": saved(photo(45, 61), "JPEG", quality=85, subsampling="4:2:2"),
    "444.jpg": saved(photo(52, 40), "JPEG", quality=95, subsampling="4:4:4"),
    "440.jpg": halved_rows(photo(64, 48)),
    "progressive.jpg": saved(photo(47, 47), "JPEG", quality=80, progressive=True),
    "grey.jpg": saved(photo(40, 33).convert("L"), "JPEG"),
    "narrow.jpg": saved(photo(3, 17), "JPEG"),
    "exif.jpg": saved(photo(50, 37), "JPEG", exif=turned(6)),
    "blocks-420.jpg": saved(blocks(61, 43), "JPEG", quality=90),
    "blocks-422.jpg": saved(blocks(46, 53), "JPEG", quality=90, subsampling="4:2:2"),
    "blocks-444.jpg": saved(blocks(37, 50), "JPEG", quality=90, subsampling="4:4:4"),
    "blocks-440.jpg": halved_rows(blocks(64, 48)),
    "rgb.png": saved(photo(57, 38), "PNG"),
    "grey.png": saved(photo(30, 41).convert("L"), "PNG"),
    "bits.png": saved(photo(33, 30).convert("1"), "PNG"),
    "palette.png": saved(photo(36, 31).quantize(60), "PNG"),
    "palette-transparent.png": saved(photo(36, 31).quantize(60), "PNG", transparency=3),
    "colour-transparent.png": saved(photo(20, 31), "PNG", transparency=(0, 0, 0)),
    "grey-alpha.png": saved(
        Image.fromarray(chance.integers(0, 256, (25, 31, 2), np.uint8), "LA"), "PNG"
    ),
    "alpha.png": saved(
        Image.fromarray(chance.integers(0, 256, (29, 35, 4), np.uint8), "RGBA"), "PNG"
    ),
    "16-bit.png": png16(chance.integers(0, 1 << 16, (21, 26, 3))),
    "16-bit-alpha.png": png16(chance.integers(0, 1 << 16, (22, 19, 4))),
    "tiny.png": saved(photo(5, 2), "PNG"),
    "thin.png": saved(photo(200, 2), "PNG"),
    "plain.gif": saved(photo(34, 40).quantize(64), "GIF"),
    "animated.gif": saved(
        photo(30, 22).quantize(32),
        "GIF",
        save_all=True,
        append_images=[photo(30, 22).quantize(32) for _ in range(2)],
    ),
}
AS_THEY_ARE = {
    "cmyk.jpg": saved(photo(24, 20).convert("CMYK"), "JPEG"),
    "rgb-components.jpg": saved(photo(24, 20), "JPEG", keep_rgb=True),
    "truncated.jpg": FILES["420.jpg"][:-40],
    "damaged.png": FILES["rgb.png"][:200] + b"?" + FILES["rgb.png"][201:],
    "16-bit-grey.png": png16(chance.integers(0, 1 << 16, (12, 9, 1))),
    "transparent.gif": saved(photo(20, 24).quantize(16), "GIF", transparency=2),
    "other.webp": saved(photo(24, 20), "WEBP"),
    "other.bmp": saved(photo(8, 6), "BMP"),
    "no-picture.jpg": b"\xff\xd8\xff no picture",
    "huge.png": png16(np.zeros((1, 1, 3)))[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff",
}


def main() -> None:
    cases = []
    with zipfile.ZipFile(FILE, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, data: bytes | str) -> None:
            # With a fixed date: the same pictures make the same archive.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

        for name, data in FILES.items():
            add(name, data)
            with Image.open(io.BytesIO(data)) as opened:
                picture = opened.convert("RGB")
            # Decoded alone; smaller; larger, with a margin of odd width.
            short = min(picture.size)
            sides = {(short, short), (short * 2 // 3 + 1, short // 2 + 1), (short + 7, short)}
            for (side, crop), by in itertools.product(sorted(sides), ("bicubic", "bilinear")):
                # Not resized, it is the same by both.
                if side == short and by == "bilinear":
                    continue
                sent = f"{name}.{side}-{crop}-{by}.png"
                made = resize_and_crop(picture, side, crop, by)
                add(sent, saved(made, "PNG", optimize=True))
                sides_stated = {"side": side, "crop": crop, "interpolation": by}
                cases.append({"file": name, **sides_stated, "sent": sent})
        for name, data in AS_THEY_ARE.items():
            add(name, data)
            case = {"file": name, "side": 16, "crop": 16, "interpolation": "bicubic"}
            cases.append({**case, "sent": None})
        lines = ",\n".join("  " + json.dumps(case) for case in cases)
        add("cases.json", f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
