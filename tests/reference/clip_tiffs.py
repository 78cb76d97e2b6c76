"""Writes TIFFs of the kinds that few programs make, and what is in them.

    python3 clip_tiffs.py OUT SEED

OUT/cases.json is a list of {name, file, rgb, most}: `rgb` is u8 [H,W,3], from
which decoded levels may be `most` off. It is what was written or, where a
decoder comes between, what Pillow (with libtiff) reads. OUT/refused.json is a list of {name, file, says}: what the
error of one that must be refused says.
"""

import io
import json
import pathlib
import random
import re
import struct
import sys
import zlib

import numpy as np
import tiff_writer
from cielab import of_lab
from PIL import Image
from tiff_writer import assemble, lzw, old_lzw, pages, taken_apart, tiff, with_lengths

out = pathlib.Path(sys.argv[1])
seed = int(sys.argv[2])
rng = np.random.default_rng(seed)
draw = random.Random(seed)
tiff_writer.draw.seed(seed)
cases, refused = [], []

STRIPS, LZW, JPEG, OLD_JPEG, ZIP, WEBP, XZ = 1, 5, 7, 6, 8, 50001, 34925
GREY, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 1, 2, 3, 5, 6, 8, 9


def add(name, data, truth, most=0):
    number = len(cases)
    (out / f"{number}.bin").write_bytes(data)
    np.save(out / f"{number}.npy", np.ascontiguousarray(truth, np.uint8))
    cases.append(dict(name=name, file=f"{number}.bin", rgb=f"{number}.npy", most=most))


def refuse(name, data, says):
    file = f"refused-{len(refused)}.bin"
    (out / file).write_bytes(data)
    refused.append(dict(name=name, file=file, says=says))


def pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def some_size():
    return draw.randint(1, 120), draw.randint(1, 120)


def smooth(height, width, channels):
    """From 0 to 1, with some noise."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phases = rng.uniform(0, 9, (channels, 2))
    planes = [0.5 + 0.3 * np.sin(5 * x + a) + 0.3 * np.cos(6 * y + b) for a, b in phases]
    noise = rng.normal(0, 0.02, (height, width, channels))
    return np.clip(np.stack(planes, -1) + noise, 0, 1)


def shown(levels):
    """RGB of grey or of RGB and what is beside it."""
    return levels[:, :, :3] if levels.shape[2] >= 3 else np.repeat(levels[:, :, :1], 3, axis=2)


def layout(bits, predictors=(1,)):
    compression = draw.choice([STRIPS, LZW, ZIP, XZ, 32773])
    tiled = draw.random() < 0.5
    return dict(
        bits=bits,
        compression=compression,
        predictor=draw.choice(predictors) if compression in (LZW, ZIP, XZ) else 1,
        order=draw.choice("<>"),
        big=draw.random() < 0.3,
        tiled=tiled,
        chunk=(16 * draw.randint(1, 4), 16 * draw.randint(1, 4)) if tiled else draw.randint(1, 80),
        planar=draw.random() < 0.4,
    )


# ---- Whole numbers -----------------------------------------------------------

for bits in [*range(1, 17), 24, 32]:
    for channels in (1, 3, 4, 5):
        if channels == 1 and bits >= 16:
            continue
        levels = (smooth(*some_size(), channels) * ((1 << bits) - 1)).astype(np.uint64)
        most = (1 << bits) - 1
        truth = (levels * 255 + most // 2) // most if bits < 8 else levels >> (bits - 8)
        kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
        how = layout(bits, (1, 2) if bits in (8, 16, 32) else (1,))
        extra = (0,) * (channels - 3)
        data = tiff(levels.astype(kind), GREY if channels == 1 else RGB, extra=extra, **how)
        add(f"{channels} of {bits} bits {how}", data, shown(truth))
for bits in (3, 5, 6, 7):
    palette = rng.integers(0, 65536, (3, 1 << bits))
    levels = rng.integers(0, 1 << bits, (*some_size(), 1), dtype=np.uint8)
    truth = np.moveaxis(palette[:, levels[:, :, 0]] >> 8, 0, 2)
    data = tiff(levels, PALETTE, palette=palette.ravel().tolist(), **layout(bits))
    add(f"palette of {bits} bits", data, truth)
for bits in (16, 24, 32):
    grey = (smooth(*some_size(), 1) * ((1 << bits) - 1)).astype(np.uint32)
    refuse(f"{bits}-bit grey", tiff(grey, GREY, bits=bits), f"in {bits}-bit grey")
grey = rng.integers(0, 256, (*some_size(), 2), dtype=np.uint8)
grey[:, :, 0] = np.minimum(grey[:, :, 0], grey[:, :, 1])
level, alpha = grey[:, :, :1].astype(int), grey[:, :, 1:].astype(int)
truth = np.where(alpha > 0, level * 255 // np.maximum(alpha, 1), 0)
add("grey and associated alpha", tiff(grey, GREY, extra=(1,), **layout(8)), shown(truth))
refuse("signed", tiff(grey[:, :, :1], GREY, bits=16, more={339: (3, [2])}), "signed samples of 16")
refuse("complex", tiff(grey[:, :, :1], GREY, bits=32, more={339: (3, [6])}), "complex")
refuse("inks", tiff(np.repeat(grey, 2, axis=2), CMYK, more={332: (3, [2])}), "other inks than CMYK")

# ---- Floating point ----------------------------------------------------------

for bits in (16, 24, 32, 64):
    for channels in (1, 2, 3, 4):
        kind = {16: np.float16, 24: np.float64, 32: np.float32, 64: np.float64}[bits]
        pixels = smooth(*some_size(), channels).astype(kind)
        if bits == 24:
            fraction, exponent = np.frexp(pixels)
            pixels = np.ldexp(np.floor(fraction * (1 << 17)) / (1 << 17), exponent)
        wide = pixels.astype(np.float64 if bits == 64 else np.float32)
        truth = np.rint(wide * wide.dtype.type(255))
        if channels in (2, 4):
            # A depth or a mask, which is not shown and may be anything.
            pixels[:, :, -1] = rng.choice(np.array([np.nan, -7, 9], kind), pixels.shape[:2])
            if bits == 24:
                pixels[:, :, -1] = 9
        how = layout(bits, (1, 3))
        if how["tiled"]:
            how["compression"] = draw.choice([LZW, ZIP])
        extra = (0,) if channels in (2, 4) else ()
        data = tiff(pixels, GREY if channels < 3 else RGB, extra=extra, **how)
        add(f"{channels} floats of {bits} bits {how}", data, shown(truth))
for says, value in [
    ("from 0 to 4095", 4095.0),
    ("from -1.5 to 1", -1.5),
    ("from 0 to inf", np.inf),
    ("no number (NaN)", np.nan),
]:
    pixels = np.array([0, 0.5, 1, value], np.float32).reshape(2, 2, 1)
    refuse(f"float {value}", tiff(pixels, GREY, **layout(32, (1, 3))), says)
refuse("float palette", tiff(pixels, PALETTE, bits=32, palette=[0] * 6), "with a palette")

# ---- Compressions ------------------------------------------------------------

for _ in range(4):
    levels = (smooth(*some_size(), 3) * 255).astype(np.uint8)
    noise = rng.integers(0, 256, (*some_size(), 3), dtype=np.uint8)
    for pixels in (levels, noise):
        height, width, _ = pixels.shape
        strips = [old_lzw(pixels[y : y + 30].tobytes()) for y in range(0, height, 30)]
        tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [LZW])}
        tags |= {262: (3, [RGB]), 277: (3, [3])}
        add("LZW of before 1988", assemble(tags, strips, "<", False, (30, width), False), pixels)

        tiles = [
            encode(
                Image.fromarray(
                    np.pad(tile, ((0, 48 - tile.shape[0]), (0, 32 - tile.shape[1]), (0, 0)))
                ),
                "WEBP",
                lossless=True,
            )
            for y in range(0, height, 48)
            for x in range(0, width, 32)
            for tile in [pixels[y : y + 48, x : x + 32]]
        ]
        tags[259] = (3, [WEBP])
        add("WebP tiles", assemble(tags, tiles, ">", True, (48, 32), True), pixels)
        lossy = encode(Image.fromarray(pixels), "WEBP", quality=80)
        data = assemble(tags, [lossy], "<", False, (height, width), False)
        add("lossy WebP", data, pillow(lossy))
        for alpha in (
            rng.integers(0, 256, (height, width, 1), dtype=np.uint8),
            np.full_like(pixels[:, :, :1], 255),
        ):
            four = Image.fromarray(np.concatenate([pixels, alpha], axis=2), "RGBA")
            strip = encode(four, "WEBP", lossless=True, exact=True)
            tags4 = tags | {258: (3, [8] * 4), 277: (3, [4]), 338: (3, [2])}
            data = assemble(tags4, [strip], "<", False, (height, width), False)
            add("WebP with alpha", data, pixels)


def strips_of(data):
    """The strips of a TIFF, and its tags."""
    with Image.open(io.BytesIO(data)) as image:
        tags = dict(image.tag_v2)
    places = zip(tags[273], tags[279], strict=True)
    return [data[at : at + length] for at, length in places], tags


def fax(bits, compression, **options):
    return encode(
        Image.fromarray(bits * 255).convert("1"), "TIFF", compression=compression, **options
    )


for share in (0.02, 0.5, None, None, None):
    for _ in range(3):
        height, width = some_size()
        if share is None:
            bits = (smooth(height, width, 1)[:, :, 0] > 0.5).astype(np.uint8)
        else:
            bits = (rng.random((height, width)) < share).astype(np.uint8)
        truth = shown(bits[:, :, None] * 255)
        add(f"modified Huffman {width}x{height}", fax(bits, "tiff_ccitt"), truth)
        for options in (1, 4, 5):
            data = fax(bits, "group3", tiffinfo={292: options})
            add(f"T.4, options {options}, {width}x{height}", data, truth)
        # Each row coded alone, and its words filled up.
        rows = [strips_of(fax(row[None], "tiff_ccitt"))[0][0] for row in bits]
        words = b"".join(row + b"\0" * (len(row) % 2) for row in rows)
        tags = {256: (4, [width]), 257: (4, [height]), 259: (3, [32771]), 262: (3, [1])}
        # Where black is 1, Pillow says so.
        with Image.open(io.BytesIO(fax(bits, "tiff_ccitt"))) as image:
            tags[262] = (3, [image.tag_v2[262]])
        data = assemble(tags, [words], "<", False, (height, width), False)
        add(f"modified Huffman in words {width}x{height}", data, truth)
bits = np.zeros((30, 40), np.uint8)
bits[4:9, 3:20] = 1
whole = fax(bits, "group3", tiffinfo={292: 1})
strips, tags = strips_of(whole)
for cut in (3, 20):
    data = whole.replace(strips[0], strips[0][:-cut] + b"\0" * cut)
    refuse(f"T.4 without {cut} bytes", data, "breaks off in row")

# ---- YCbCr and L*a*b* ----------------------------------------------------------


def blocks(pixels, across, down):
    """Luma of blocks, each followed by its chroma."""
    height, width, _ = pixels.shape
    pad = ((0, -height % down), (0, -width % across), (0, 0))
    pixels = np.pad(pixels, pad, mode="edge")
    data = bytearray()
    for y in range(0, pixels.shape[0], down):
        for x in range(0, pixels.shape[1], across):
            block = pixels[y : y + down, x : x + across]
            data += block[:, :, 0].tobytes() + block[0, 0, 1:].tobytes()
    return bytes(data)


for across, down in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (1, 2)]:
    for reference in (None, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]):
        for luma in (None, [2126, 10000, 7152, 10000, 722, 10000]):
            pixels = (smooth(*some_size(), 3) * 255).astype(np.uint8)
            height, width, _ = pixels.shape
            rows = down * draw.randint(1, 30)
            strips = [
                zlib.compress(blocks(pixels[y : y + rows], across, down))
                for y in range(0, height, rows)
            ]
            tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [ZIP])}
            tags |= {262: (3, [YCBCR]), 277: (3, [3]), 530: (3, [across, down])}
            if reference:
                tags[532] = (5, reference)
            if luma:
                tags[529] = (5, luma)
            data = assemble(tags, strips, draw.choice("<>"), False, (rows, width), False)
            # libtiff reads 4x4 wrongly where the last block is not whole: each pixel has its own
            # chroma in what it is given.
            spread = pixels.copy()
            spread[:, :, 1:] = (
                pixels[::down, ::across, 1:].repeat(down, 0).repeat(across, 1)[:height, :width]
            )
            more = {tag: value for tag, value in tags.items() if tag in (529, 532)}
            plain = tiff(spread, YCBCR, compression=ZIP, more={530: (3, [1, 1]), **more})
            add(f"YCbCr {across}x{down} {width}x{height} {reference} {luma}", data, pillow(plain))
planes = (smooth(*some_size(), 3) * 255).astype(np.uint8)
whole = tiff(planes, YCBCR, compression=ZIP, more={530: (3, [1, 1])})
apart = tiff(planes, YCBCR, compression=ZIP, planar=True, more={530: (3, [1, 1])})
add("YCbCr in planes", apart, pillow(whole))
refuse("YCbCr in planes of two sizes", tiff(planes, YCBCR, planar=True), "planes of different")

for _ in range(3):
    lab = rng.integers(0, 256, (*some_size(), 3), dtype=np.uint8)
    lab[:, :, 1:] = (lab[:, :, 1:].astype(int) // 3 - 42).astype(np.uint8)
    truth = of_lab(lab)
    # Pillow's conversion (LittleCMS) looks into a table, and is up to some thirty levels off.
    assert abs(truth - pillow(tiff(lab, CIELAB))).mean() < 2
    add("L*a*b*", tiff(lab, CIELAB, **layout(8)), truth, 1)
    offset = lab ^ np.array([0, 128, 128], np.uint8)
    add("ICC's L*a*b*", tiff(offset, ICCLAB, **layout(8)), truth, 1)
    deep = offset.astype(np.uint16) << 8
    add("ICC's L*a*b* of 16 bits", tiff(deep, ICCLAB, **layout(16)), truth, 1)

# ---- JPEG --------------------------------------------------------------------


def jpeg_tiff(streams, compression, photometric, size, rows, channels, more=(), before=b""):
    tags = {256: (4, [size[1]]), 257: (4, [size[0]]), 258: (3, [8] * channels)}
    tags |= {259: (3, [compression]), 262: (3, [photometric]), 277: (3, [channels]), **dict(more)}
    return assemble(tags, streams, draw.choice("<>"), False, (rows, size[1]), False, before)


for _ in range(3):
    size = height, width = some_size()
    image = Image.fromarray((smooth(height, width, 3) * 255).astype(np.uint8))
    planes = [encode(plane, "JPEG", quality=90) for plane in image.split()]
    truth = np.stack([pillow(plane)[:, :, 0] for plane in planes], -1)
    data = jpeg_tiff(planes, JPEG, RGB, size, height, 3, {284: (3, [2])})
    add("JPEG in planes", data, truth)
    for source in (image, image.convert("L")):
        channels = len(source.mode) if source.mode != "L" else 1
        photometric = YCBCR if channels == 3 else GREY
        for factor in (1, 2)[:channels]:
            options = dict(quality=90, subsampling=factor - 1 and 2, restart_marker_rows=1)
            stream = encode(source, "JPEG", **options)
            factors = {530: (3, [factor, factor])}
            whole = {512: (3, [1]), 513: (4, [8]), 514: (4, [len(stream)]), **factors}
            data = jpeg_tiff([stream], OLD_JPEG, photometric, size, height, channels, whole)
            add("old-style JPEG", data, pillow(stream))
            # Tables and coded data by themselves; each row of blocks is a strip.
            tables, coded = taken_apart(stream)
            tags = {512: (3, [1]), **factors}
            for tag, found in tables.items():
                tags[tag] = (4, [8 + at for at in (found + found[-1:] * 2)[:channels]])
            strips = re.split(rb"\xff[\xd0-\xd7]", coded)
            rows, before = 8 * factor, stream + b"\0" * (len(stream) % 2)
            arguments = (OLD_JPEG, photometric, size, rows, channels, tags, before)
            add("old-style JPEG in pieces", jpeg_tiff(strips, *arguments), pillow(stream))
# ---- What writers leave out, or say wrongly -------------------------------------

for _ in range(3):
    size = height, width = some_size()
    image = Image.fromarray((smooth(height, width, 3) * 255).astype(np.uint8))
    grey = encode(image.convert("L"), "JPEG")
    add(
        "JPEG without its end mark",
        jpeg_tiff([grey[:-2]], JPEG, GREY, size, height, 1),
        pillow(grey),
    )
    refuse("JPEG that is cut", jpeg_tiff([grey[:-9]], JPEG, GREY, size, height, 1), "truncated")
    # libtiff goes by the TIFF's word for the colours, whatever the stream says of itself.
    own = encode(image, "JPEG", keep_rgb=True)
    full = {530: (3, [1, 1])}
    data = jpeg_tiff([own], JPEG, YCBCR, size, height, 3, full)
    add("YCbCr whose JPEG says RGB", data, pillow(data))
    plain = encode(image, "JPEG", subsampling=0)
    data = jpeg_tiff([plain], JPEG, RGB, size, height, 3)
    add("RGB whose JPEG says YCbCr", data, pillow(data))
    inks = encode(image.convert("CMYK"), "JPEG")
    says_ycck = re.sub(rb"(?<=Adobe.{6}).", b"\2", inks, count=1, flags=re.S)
    data = jpeg_tiff([says_ycck], JPEG, CMYK, size, height, 4)
    add("CMYK whose JPEG says YCCK", data, pillow(data))
    half = encode(image, "JPEG", subsampling=2)
    says = "says that its JPEG is RGB"
    refuse("subsampled RGB", jpeg_tiff([half[:2] + half[20:]], JPEG, RGB, size, height, 3), says)
    refuse(
        "tiles",
        tiff(
            np.zeros((16, 16, 3), np.uint8),
            YCBCR,
            compression=1,
            tiled=True,
            chunk=(16, 16),
            more={259: (3, [OLD_JPEG])},
        ),
        "old-style JPEG compression in tiles",
    )

    pixels = np.asarray(image)
    rows = draw.randint(1, height)
    strips = [pixels[y : y + rows].tobytes() for y in range(0, height, rows)]
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 262: (3, [RGB])}
    tags |= {277: (3, [3]), 259: (3, [1])}
    whole = assemble(tags, strips, "<", False, (rows, width), False)
    for length in (0, 1):
        add(f"lengths of {length}", with_lengths(whole, length, len(strips)), pixels)
    one = assemble(
        tags | {259: (3, [LZW])}, [lzw(pixels.tobytes())], "<", False, (height, width), False
    )
    add("LZW of length 0", with_lengths(one, 0, 1), pixels)
    (first,) = struct.unpack("<I", whole[4:8])
    (entries,) = struct.unpack("<H", whole[first : first + 2])
    after = first + 2 + 12 * entries
    ring = whole[:after] + struct.pack("<I", first) + whole[after + 4 :]
    add("a directory that follows itself", ring, pixels)
    formless = assemble(tags | {339: (3, [0] * 3)}, strips, "<", False, (rows, width), False)
    refuse("no format of samples", formless, "of format 0")

refuse("12 bits in JPEG", jpeg_tiff([b""], JPEG, GREY, (8, 8), 8, 1, {258: (3, [12])}), "12 bits")
for number, says in [
    (34887, "LERC"),
    (34933, "PNG"),
    (34712, "JPEG 2000"),
    (50002, "JPEG XL"),
    (34661, "JBIG"),
    (34676, "LogLuv"),
    (32809, "ThunderScan"),
    (65000, "compression 65000"),
]:
    refuse(says, jpeg_tiff([b"x"], number, GREY, (1, 1), 1, 1), says)

small, large = (rng.integers(0, 256, (side, side + 2, 3), dtype=np.uint8) for side in (8, 30))
for sub in (False, True):
    kind = "inside" if sub else "after"
    says = "first page is a thumbnail"
    for thumbnail in ({254: 1}, {254: 5}, {255: 2}):
        refuse(f"a thumbnail, {kind} it", pages((thumbnail, small), ({}, large), sub=sub), says)
    # What is smaller than the first page, or as small, is no reason to refuse it.
    for name, first, second, other in (
        ("a picture and its thumbnail", {}, {254: 1}, small),
        ("a picture and another", {254: 2}, {254: 2}, large),
        ("a thumbnail and a smaller one", {254: 1}, {254: 1}, small),
        ("two thumbnails", {254: 1}, {254: 1}, large),
    ):
        shown_first = small if other is large else large
        file = pages((first, shown_first), (second, other), sub=sub)
        add(f"{name}, {kind} it", file, shown_first)
sensor = large[:, :, :1]
for photometric in (32803, 34892):
    raw = pages(({254: 1}, small), ({262: photometric}, sensor), sub=True)
    refuse(f"raw data inside, {photometric}", raw, "camera's raw file")
    said = pages(({}, large), ({262: photometric}, small[:, :, :1]), sub=True)
    refuse(f"raw data inside a picture, {photometric}", said, "camera's raw file")
    refuse(f"nothing but raw data, {photometric}", pages(({262: photometric}, sensor)), "raw data")
refuse("DNG", pages(({254: 1, 50706: 0x401}, small), ({}, large), sub=True), "camera's raw file")
refuse("DNG of one page", pages(({50706: 0x401}, large)), "camera's raw file")
one = pages(({254: 1}, small))
add("a thumbnail of nothing", one, small)
add("a thumbnail before what is no page", one[:-4] + struct.pack("<I", 1 << 30), small)

(out / "cases.json").write_text(json.dumps(cases))
(out / "refused.json").write_text(json.dumps(refused))
print(f"{len(cases)} files, {len(refused)} to be refused")
