"""Writes files of kinds that cameras, scanners and other programs make, and
what Pillow (with libtiff) reads from them.

    python3 clip_files.py OUT SEED

OUT/cases.json is a list of {name, file, rgb, upright}: `rgb` is
Image.open(file).convert("RGB") as u8 [H,W,3], `upright` the same after
ImageOps.exif_transpose.
"""

import io
import json
import pathlib
import random
import struct
import sys
import zlib

import numpy as np
import tiff_writer
from PIL import Image, ImageOps
from tiff_writer import COMPRESSIONS, tiff

out = pathlib.Path(sys.argv[1])
seed = int(sys.argv[2])
rng = np.random.default_rng(seed)
draw = random.Random(seed)
tiff_writer.draw.seed(seed)
cases = []
unread = []


def add(name, data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        # No truth to hold it against.
        unread.append(f"{name}: {error}")
        return
    number = len(cases)
    (out / f"{number}.bin").write_bytes(data)
    np.save(out / f"{number}.rgb.npy", np.asarray(rgb))
    np.save(out / f"{number}.upright.npy", np.asarray(upright))
    cases.append(
        dict(
            name=name,
            file=f"{number}.bin",
            rgb=f"{number}.rgb.npy",
            upright=f"{number}.upright.npy",
        )
    )


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height, width, channels, levels=256):
    """Smooth, so that predictors and dictionaries have something to do, with
    some noise."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = []
    for _ in range(channels):
        f = rng.uniform(1, 9, 4)
        planes.append(0.5 + 0.25 * np.sin(f[0] * x * 6 + f[1]) + 0.25 * np.cos(f[2] * y * 6))
    picture = np.stack(planes, -1) * (levels - 1) + rng.normal(
        0, levels / 60, (*planes[0].shape, 1)
    )
    return np.clip(picture, 0, levels - 1).astype(np.uint16 if levels > 256 else np.uint8)


# ---- TIFF -------------------------------------------------------------------


def some_layout(bits):
    """Whatever all kinds of pixels may be stored in."""
    tiled = draw.random() < 0.5
    order = draw.choice("<>")
    compression = draw.choice(list(COMPRESSIONS))
    return dict(
        bits=bits,
        compression=compression,
        predictor=draw.choice([1, 2]) if compression in (5, 8, 34925) and bits >= 8 else 1,
        order=order,
        # Pillow reads no other BigTIFF.
        big=order == "<" and draw.random() < 0.4,
        tiled=tiled,
        chunk=(16 * draw.randint(1, 4), 16 * draw.randint(1, 4)) if tiled else draw.randint(1, 80),
        # Pillow reads the other bit order of few kinds.
        fill=draw.choice([1, 1, 1, 1, 2]),
    )


def some_size():
    return draw.randint(1, 150), draw.randint(1, 150)


KINDS = [
    # name, photometric, bits, channels, extra samples
    ("grey", 1, 8, 1, ()),
    ("grey, white is 0", 0, 8, 1, ()),
    ("grey and alpha", 1, 8, 2, (2,)),
    ("RGB", 2, 8, 3, ()),
    ("RGB and an unspecified sample", 2, 8, 4, (0,)),
    ("RGB and two unspecified samples", 2, 8, 5, (0, 0)),
    ("RGB and alpha", 2, 8, 4, (2,)),
    ("RGB and associated alpha", 2, 8, 4, (1,)),
    ("RGB, associated alpha and a sample", 2, 8, 5, (1, 0)),
    ("RGB without a word on its fourth sample", 2, 8, 4, ()),
    ("CMYK", 5, 8, 4, ()),
    ("CMYK and a sample", 5, 8, 5, (0,)),
    ("RGB 16 bits", 2, 16, 3, ()),
    ("RGB 16 bits and a sample", 2, 16, 4, (0,)),
    ("RGB 16 bits and alpha", 2, 16, 4, (2,)),
    ("RGB 16 bits and associated alpha", 2, 16, 4, (1,)),
    ("CMYK 16 bits", 5, 16, 4, ()),
    ("bits", 1, 1, 1, ()),
    ("bits, white is 0", 0, 1, 1, ()),
    ("grey 2 bits", 1, 2, 1, ()),
    ("grey 4 bits", 1, 4, 1, ()),
    ("grey 4 bits, white is 0", 0, 4, 1, ()),
    ("palette", 3, 8, 1, ()),
    ("palette 4 bits", 3, 4, 1, ()),
    ("palette 2 bits", 3, 2, 1, ()),
    ("palette 1 bit", 3, 1, 1, ()),
    ("palette and a sample", 3, 8, 2, (0,)),
    ("palette and alpha", 3, 8, 2, (2,)),
]

for name, photometric, bits, channels, extra in KINDS:
    for _ in range(6):
        h, w = some_size()
        layout = some_layout(bits)
        # Four samples in planes, with no word on the fourth: Pillow's red, green
        # and blue are not those that were written.
        told = channels != 4 or extra
        if channels > 1 and photometric == 2 and told and draw.random() < 0.4:
            layout["planar"] = True
        if layout.get("planar") and layout["compression"] == 1:
            # Pillow reads these without libtiff: 16 bits as 8, and tiles
            # at the right edge with a wrong pitch.
            layout["compression"] = 8
        palette = None
        if photometric == 3:
            palette = rng.integers(0, 65536, 3 << bits).tolist()
        pixels = picture(h, w, channels, 1 << bits)
        data = tiff(pixels, photometric, extra=extra, palette=palette, **layout)
        add(f"tiff {name} {w}x{h} {layout}", data)
for orientation in range(1, 9):
    pixels = picture(*some_size(), 3)
    data = tiff(pixels, 2, orientation=orientation, **some_layout(8))
    add(f"tiff of orientation {orientation}", data)

# Those of libtiff itself.
for _ in range(4):
    h, w = some_size()
    rgb, grey = Image.fromarray(picture(h, w, 3)), Image.fromarray(picture(h, w, 1)[:, :, 0])
    line_art = grey.point(lambda level: 255 * (level > 128)).convert("1")
    for compression in ("group3", "group4", "packbits", "tiff_lzw", None):
        add(f"tiff 1 {w}x{h} {compression}", encode(line_art, "TIFF", compression=compression))
        noise = Image.fromarray(rng.integers(0, 2, (h, w), dtype=np.uint8) * 255).convert("1")
        add(f"tiff noise {w}x{h} {compression}", encode(noise, "TIFF", compression=compression))
    for quality in (30, 95):
        add(f"tiff jpeg {w}x{h}", encode(rgb, "TIFF", compression="jpeg", quality=quality))
        add(f"tiff jpeg L {w}x{h}", encode(grey, "TIFF", compression="jpeg", quality=quality))
    for image in (rgb, grey, line_art, Image.fromarray(picture(h, w, 4), "RGBA")):
        add(f"tiff {image.mode} {w}x{h} zstd", encode(image, "TIFF", compression="zstd"))
    inks = Image.fromarray(picture(h, w, 4), "CMYK")
    for quality in (30, 95):
        add(f"tiff jpeg CMYK {w}x{h}", encode(inks, "TIFF", compression="jpeg", quality=quality))
    add(
        f"tiff RGBA lzw {w}x{h}",
        encode(Image.fromarray(picture(h, w, 4), "RGBA"), "TIFF", compression="tiff_lzw"),
    )

# ---- BMP of 16 bits ----------------------------------------------------------


def bmp(pixels, masks=None, from_top=False, header=40):
    height, width = pixels.shape
    rows = pixels if from_top else pixels[::-1]
    rows = [row.astype("<u2").tobytes() + b"\0\0" * (width % 2) for row in rows]
    fields = struct.pack("<IiiHH", header, width, -height if from_top else height, 1, 16)
    fields += struct.pack("<IIiiII", 3 if masks else 0, 0, 2835, 2835, 0, 0)
    fields += struct.pack("<III", *masks) if masks else b""
    fields = fields.ljust(header, b"\0")
    data = b"".join(rows)
    start = 14 + len(fields)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + fields + data


for from_top in (False, True):
    for masks in (None, (0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)):
        for header in (40, 108):
            h, w = some_size()
            pixels = rng.integers(0, 1 << 16, (h, w))
            add(f"bmp 16 bits {masks} {header}", bmp(pixels, masks, from_top, header))


def os2(image):
    """A BMP with the header of OS/2 2: Windows 3's, and 24 bytes more."""
    data = encode(image, "BMP")
    start = struct.unpack_from("<I", data, 10)[0]
    longer = data[:10] + struct.pack("<II", start + 24, 64) + data[18:54]
    return longer + bytes(24) + data[54:]


for mode in ("RGB", "L", "1", "P"):
    for _ in range(2):
        image = Image.fromarray(picture(*some_size(), 3))
        add(f"bmp {mode} of OS/2", os2(image.quantize() if mode == "P" else image.convert(mode)))

# Of rows that are not whole words; what fills the last one up is not there.
for mode in ("RGB", "L", "1"):
    image = Image.fromarray(picture(draw.randint(1, 50), 4 * draw.randint(1, 20) + 1, 3))
    whole = encode(image.convert(mode), "BMP")
    missing = {"RGB": 1, "L": 3, "1": 3 - (image.width - 1) // 8 % 4}[mode]
    for cut in range(1, missing + 1):
        add(f"bmp {mode} without its last {cut} bytes", whole[:-cut])

# ---- Orientation -------------------------------------------------------------


def raw_profile(png, exif, compressed):
    """EXIF in a PNG as ImageMagick wrote it before there was a chunk for it."""
    digits = exif.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    text = "\n".join(["", "exif", f"{len(exif):8}", *lines, ""]).encode("latin1")
    kind, text = (b"zTXt", b"\0" + zlib.compress(text)) if compressed else (b"tEXt", text)
    data = b"Raw profile type exif\0" + text
    chunk = struct.pack(">I", len(data)) + kind + data
    chunk += struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


for orientation in range(1, 9):
    h, w = some_size()
    rgb = Image.fromarray(picture(h, w, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    add(f"jpeg of orientation {orientation}", encode(rgb, "JPEG", exif=exif))
    add(
        f"progressive jpeg of orientation {orientation}",
        encode(rgb, "JPEG", exif=exif, progressive=True),
    )
    add(f"png of orientation {orientation}", encode(rgb, "PNG", exif=exif))
    for compressed in (False, True):
        data = raw_profile(encode(rgb, "PNG"), exif.tobytes(), compressed)
        add(f"png of orientation {orientation} in a raw profile", data)
    add(f"webp of orientation {orientation}", encode(rgb, "WEBP", exif=exif, lossless=True))
    add(f"jpeg of orientation {orientation} in XMP", encode(rgb, "JPEG", xmp=xmp))
    add(f"webp of orientation {orientation} in XMP", encode(rgb, "WEBP", xmp=xmp, lossless=True))

(out / "cases.json").write_text(json.dumps(cases))
print(f"{len(cases)} files; {len(unread)} that Pillow does not read")
for line in unread:
    print("  ", line)
