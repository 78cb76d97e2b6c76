"""Writes fresh random pictures and what Pillow and torchvision make of them.

    python3 clip_pictures.py OUT SEED

OUT/cases.json is a list of {name, file, exact, rgb, crop, size, resize_to,
interpolation}: `rgb` is Image.open(file).convert("RGB") as u8 [H,W,3], `crop`
is torchvision's Resize + CenterCrop of it, u8 [size,size,3]. `exact` false: a
lossy format that two decoders may round differently. `refusable` true: a
clear refusal is as good as Pillow's bytes.
"""

import io
import json
import pathlib
import random
import struct
import sys

import numpy as np
import PIL
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 orders the passes otherwise"

out = pathlib.Path(sys.argv[1])
seed = int(sys.argv[2])
rng = np.random.default_rng(seed)
draw = random.Random(seed)
cases = []

MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def noise(height, width, channels=3):
    """Half of them rough, half photo-like (smooth with edges)."""
    if draw.random() < 0.5:
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = []
    for _ in range(channels):
        f = rng.uniform(1, 9, 4)
        plane = 127 + 60 * np.sin(f[0] * x * 6 + f[1]) + 60 * np.cos(f[2] * y * 6 + f[3])
        plane = plane + 40 * ((x * 7).astype(int) % 2) + rng.normal(0, 6, plane.shape)
        planes.append(plane)
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def add(name, data, exact=True, refusable=False, size=None, resize_to=None, kind="bicubic"):
    size = size or draw.choice([224, 32, 97])
    resize_to = resize_to or size + draw.choice([0, 0, 0, 7, 32])
    number = len(cases)
    file = out / f"{number}.bin"
    file.write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
    np.save(out / f"{number}.rgb.npy", np.asarray(rgb))
    crop, rule = None, draw.choice(["shortest-side", "shortest-side", "squash"])
    size, resize_to = (size, size), (resize_to, resize_to)
    if rule == "squash" and draw.random() < 0.5:
        # Pictures that are no squares are made by squashing alone.
        taller = draw.randint(1, 90)
        size, resize_to = (size[0] + taller, size[1]), (resize_to[0] + taller, resize_to[1])
    if rule == "squash" or max(rgb.size) / min(rgb.size) * resize_to[0] < 60_000:
        to = resize_to if rule == "squash" else resize_to[0]
        cropped = CenterCrop(size)(Resize(to, interpolation=MODES[kind])(rgb))
        crop = f"{number}.crop.npy"
        np.save(out / crop, np.asarray(cropped))
    cases.append(
        dict(
            name=name,
            file=file.name,
            exact=exact,
            refusable=refusable,
            rgb=f"{number}.rgb.npy",
            crop=crop,
            size=size,
            resize_to=resize_to,
            resize=rule,
            interpolation=kind,
        )
    )


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# Sizes and aspect ratios, PNG.
sizes = [(1, 1), (1, 300), (300, 1), (2, 3), (224, 224), (224, 500), (500, 224), (225, 224)]
sizes += [(1, 2000), (3000, 2), (640, 480), (223, 223), (1000, 999), (7, 1200)]
while len(sizes) < 80:
    sizes.append(tuple(round(2 ** draw.uniform(0, 10.3)) for _ in range(2)))
for width, height in sizes:
    kind = draw.choice(["bicubic", "bicubic", "bilinear"])
    add(
        f"png {width}x{height} {kind}",
        encode(Image.fromarray(noise(height, width)), "PNG"),
        kind=kind,
    )


def some_size():
    return draw.randint(3, 260), draw.randint(3, 260)


def palette_image(width, height, colours=256):
    image = Image.fromarray(rng.integers(0, colours, (height, width), dtype=np.uint8), "L")
    image = image.copy()
    image.putpalette(rng.integers(0, 256, colours * 3, dtype=np.uint8).tobytes())
    return image


# PNG modes.
for _ in range(2):
    w, h = some_size()
    add("png L", encode(Image.fromarray(noise(h, w, 1)[:, :, 0]), "PNG"))
    add("png LA", encode(Image.fromarray(noise(h, w, 2), "LA"), "PNG"))
    add("png RGBA", encode(Image.fromarray(noise(h, w, 4), "RGBA"), "PNG"))
    add("png 1", encode(Image.fromarray(noise(h, w, 1)[:, :, 0]).convert("1"), "PNG"))
    add("png P", encode(palette_image(w, h), "PNG"))
    add("png P 4 bits", encode(palette_image(w, h, 16), "PNG", bits=4))
    add("png P 2 bits", encode(palette_image(w, h, 4), "PNG", bits=2))
    add(
        "png P tRNS",
        encode(
            palette_image(w, h),
            "PNG",
            transparency=bytes(rng.integers(0, 256, 256, dtype=np.uint8)),
        ),
    )
    add("png P one transparent", encode(palette_image(w, h), "PNG", transparency=3))
    add("png L tRNS", encode(Image.fromarray(noise(h, w, 1)[:, :, 0]), "PNG", transparency=9))
    add("png RGB tRNS", encode(Image.fromarray(noise(h, w)), "PNG", transparency=(1, 2, 3)))
    grey16 = Image.fromarray(rng.integers(0, 65536, (h, w), dtype=np.uint16))
    add("png I;16", encode(grey16, "PNG"), refusable=True)
    add("tiff I;16", encode(grey16, "TIFF"), refusable=True)

import zlib  # noqa: E402


def raw_png(width, height, depth, colour, rows, interlace=False, extra=b""):
    """A PNG written by hand, for kinds that Pillow does not write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlace))
    data = b"".join(b"\0" + row for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def adam7(pixels):
    for x0, y0, dx, dy in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:
        part = pixels[y0::dy, x0::dx]
        if part.shape[0] and part.shape[1]:
            yield from (row.tobytes() for row in part)


for _ in range(2):
    w, h = some_size()
    for name, colour, channels in [("RGB", 2, 3), ("LA", 4, 2), ("RGBA", 6, 4)]:
        deep = rng.integers(0, 65536, (h, w, channels)).astype(">u2")
        add(f"png {name} 16 bits", raw_png(w, h, 16, colour, [row.tobytes() for row in deep]))
        add(f"png {name} 16 bits interlaced", raw_png(w, h, 16, colour, adam7(deep), True))
    add("png RGB interlaced", raw_png(w, h, 8, 2, adam7(noise(h, w)), True))
    for depth in (2, 4):
        bits = rng.integers(0, 256, (h, (w * depth + 7) // 8), dtype=np.uint8)
        add(f"png L {depth} bits", raw_png(w, h, depth, 0, [row.tobytes() for row in bits]))

# JPEG: qualities, subsamplings, colour spaces.
for quality in (draw.randint(1, 49), 50, 75, 85, 95, 100):
    for subsampling in (0, 1, 2):
        w, h = some_size()
        image = Image.fromarray(noise(h, w))
        add(
            f"jpeg q{quality} s{subsampling}",
            encode(image, "JPEG", quality=quality, subsampling=subsampling),
        )
for w in (1, 2, 3, 15, 16, 17):
    h = draw.randint(1, 20)
    add("jpeg narrow", encode(Image.fromarray(noise(h, w)), "JPEG", subsampling=2))
for _ in range(2):
    w, h = some_size()
    image = Image.fromarray(noise(h, w))
    add("jpeg progressive", encode(image, "JPEG", progressive=True))
    add(
        "jpeg optimised, restarts",
        encode(image, "JPEG", optimize=True, restart_marker_blocks=3),
    )
    plain = encode(image, "JPEG")
    add("jpeg with stray bytes", plain[:-2] + rng.bytes(5).replace(b"\xff", b"") + plain[-2:])
    add("jpeg with a tail", plain + rng.bytes(50))
    add("jpeg RGB", encode(image, "JPEG", keep_rgb=True))
    add("jpeg L", encode(image.convert("L"), "JPEG"))
    add("jpeg CMYK", encode(Image.fromarray(noise(h, w, 4), "CMYK"), "JPEG"))
    exif = Image.Exif()
    exif[0x0112] = draw.randint(2, 8)
    add("jpeg turned", encode(image, "JPEG", exif=exif))
    add("png turned", encode(image, "PNG", exif=exif))
    # Adobe's YCCK: CMYK data with the transform flag set to 2.
    cmyk = bytearray(encode(Image.fromarray(noise(h, w, 4), "CMYK"), "JPEG"))
    at = cmyk.find(b"Adobe")
    if at > 0:
        cmyk[at + 11] = 2
        add("jpeg YCCK", bytes(cmyk))
        # No marker at all: CMYK all the same.
        length = struct.unpack(">H", cmyk[at - 2 : at])[0]
        add("jpeg CMYK unmarked", bytes(cmyk[: at - 4] + cmyk[at - 2 + length :]))

# GIF: palettes, transparency, a frame smaller than its screen, animation.


def raw_gif(screen, left, top, pixels, palette, transparent=None, local=False):
    """A GIF written by hand (uncompressed LZW codes), to place its frame."""
    height, width = pixels.shape
    table = palette.tobytes()
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x70 if local else 0xF7, 0, 0)
    data += b"" if local else table
    if transparent is not None:
        data += b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    data += b"," + struct.pack("<HHHHB", left, top, width, height, 0x87 if local else 0)
    data += table if local else b""
    bits, count, codes = 0, 0, bytearray()

    def put(code):
        nonlocal bits, count
        bits |= code << count
        count += 9
        while count >= 8:
            codes.append(bits & 255)
            bits >>= 8
            count -= 8

    for number, pixel in enumerate(pixels.ravel()):
        if number % 200 == 0:
            put(256)
        put(int(pixel))
    put(257)
    codes.append(bits & 255)
    data += b"\x08"
    for start in range(0, len(codes), 255):
        block = codes[start : start + 255]
        data += bytes([len(block)]) + bytes(block)
    return data + b"\0;"


for _ in range(3):
    w, h = some_size()
    pixels = rng.integers(0, 256, (h, w), dtype=np.uint8)
    palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    add("gif", raw_gif((w, h), 0, 0, pixels, palette))
    add("gif local palette", raw_gif((w, h), 0, 0, pixels, palette, local=True))
    add("gif transparent", raw_gif((w, h), 0, 0, pixels, palette, transparent=draw.randint(0, 255)))
    add("gif offset", raw_gif((w + 30, h + 20), 11, 7, pixels, palette))
    add("gif offset local", raw_gif((w + 30, h + 20), 11, 7, pixels, palette, local=True))
    add("gif offset transparent", raw_gif((w + 30, h + 20), 11, 7, pixels, palette, transparent=17))
    add("gif over the screen", raw_gif((w, h), 5, 9, pixels, palette))
    frames = [palette_image(w, h) for _ in range(3)]
    add(
        "gif animated",
        encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50),
    )
    add("gif interlaced", encode(palette_image(w, h, 32), "GIF", interlace=1))
    add("gif L", encode(Image.fromarray(noise(h, w, 1)[:, :, 0]), "GIF"))
    add("gif 2 colours", encode(palette_image(w, h, 2), "GIF"))

# WebP: lossless is exact; lossy decoders agree on the bitstream.
for _ in range(2):
    w, h = some_size()
    rgb, rgba = Image.fromarray(noise(h, w)), Image.fromarray(noise(h, w, 4), "RGBA")
    add("webp lossless", encode(rgb, "WEBP", lossless=True))
    add("webp lossless alpha", encode(rgba, "WEBP", lossless=True, exact=True))
    add("webp lossy", encode(rgb, "WEBP", quality=80), exact=False)
    add("webp lossy alpha", encode(rgba, "WEBP", quality=80), exact=False)
    frames = [Image.fromarray(noise(h, w)) for _ in range(3)]
    add(
        "webp animated",
        encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        refusable=True,
    )
    frames = [Image.fromarray(noise(h, w, 4), "RGBA") for _ in range(3)]
    data = encode(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, exact=True
    )
    add("webp animated alpha", data)
    # Before the first frame there is nothing to blend it with, whatever it says.
    flags = data.index(b"ANMF") + 8 + 15
    add("webp animated, blended", data[:flags] + bytes([data[flags] & ~2]) + data[flags + 1 :])

# BMP, TIFF, PNM.
for _ in range(2):
    w, h = some_size()
    rgb, grey = Image.fromarray(noise(h, w)), Image.fromarray(noise(h, w, 1)[:, :, 0])
    add("bmp", encode(rgb, "BMP"))
    add("bmp L", encode(grey, "BMP"))
    add("bmp P", encode(palette_image(w, h), "BMP"))
    add("bmp 1", encode(grey.convert("1"), "BMP"))
    add("bmp RGBA", encode(Image.fromarray(noise(h, w, 4), "RGBA"), "BMP"))
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        add(f"tiff {compression}", encode(rgb, "TIFF", compression=compression))
        add(f"tiff L {compression}", encode(grey, "TIFF", compression=compression))
    add("tiff 1", encode(grey.convert("1"), "TIFF"), refusable=True)
    add("tiff P", encode(palette_image(w, h), "TIFF"), refusable=True)
    add("tiff RGBA", encode(Image.fromarray(noise(h, w, 4), "RGBA"), "TIFF"))
    add("tiff LA", encode(Image.fromarray(noise(h, w, 2), "LA"), "TIFF"), refusable=True)
    add("tiff CMYK", encode(Image.fromarray(noise(h, w, 4), "CMYK"), "TIFF"), refusable=True)
    add("tiff F", encode(grey.convert("F"), "TIFF"), refusable=True)
    add("tiff I", encode(grey.convert("I"), "TIFF"), refusable=True)
    add("tiff jpeg", encode(rgb, "TIFF", compression="jpeg"), exact=False, refusable=True)
    add("tiff turned", encode(rgb, "TIFF", tiffinfo={274: 6}), refusable=True)
    add("tiff pages", encode(rgb, "TIFF", save_all=True, append_images=[grey]))
    add("ppm", encode(rgb, "PPM"))
    add("pgm", encode(grey, "PPM"))
    add("pbm", encode(grey.convert("1"), "PPM"))
    # White that is not 255: Pillow scales in Python, half to even, and slowly.
    w, h = min(w, 60), min(h, 60)
    for white in (*rng.integers(2, 255, 2), *rng.integers(256, 65535, 2), 65535):
        kind = np.uint8 if white < 256 else ">u2"
        deep = rng.integers(0, white + 1, (h, w, 3)).astype(kind)
        add(f"ppm of {white} levels", f"P6 {w} {h} {white}\n".encode() + deep.tobytes())
        text = " ".join(map(str, deep.ravel()))
        add(f"ppm of {white} levels in text", f"P3\n{w} {h}\n{white}\n{text}\n".encode())
        if white < 256:
            file = f"P5\n# a note\n{w} {h}\n{white}\n".encode() + deep[:, :, 0].tobytes()
            add(f"pgm of {white} levels", file)
    text = " ".join(map(str, noise(h, w).ravel()))
    add("ppm in text", f"P3\n# a comment\n{w} {h}\n255\n{text}\n".encode())
    noted = text.replace(" ", " # a comment\n", 3)
    add("ppm in text with comments", f"P3\n{w} {h}\n255\n# a comment\n{noted}\n".encode())

(out / "cases.json").write_text(json.dumps(cases))
