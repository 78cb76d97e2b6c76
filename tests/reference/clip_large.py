"""Writes one picture of some megapixels in each kind that decoders hold
differently in memory.

    python3 clip_large.py OUT SEED
"""

import io
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image
from tiff_writer import assemble, tiff

out = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
side = 2200
small = rng.integers(0, 256, (40, 40, 4), dtype=np.uint8)
rgba = Image.fromarray(small, "RGBA").resize((side, side), Image.Resampling.BILINEAR)
rgb, grey, cmyk = rgba.convert("RGB"), rgba.convert("L"), Image.fromarray(np.asarray(rgba), "CMYK")

exif = Image.Exif()
exif[0x0112] = 6
rgb.save(out / "baseline.jpg")
rgb.save(out / "turned.jpg", exif=exif)
rgb.save(out / "progressive.jpg", progressive=True)
rgb.save(out / "progressive-444.jpg", progressive=True, subsampling=0)
grey.save(out / "progressive-grey.jpg", progressive=True)
cmyk.save(out / "cmyk.jpg")
cmyk.save(out / "progressive-cmyk.jpg", progressive=True)
whole = (out / "progressive.jpg").read_bytes()
(out / "no-end-mark.jpg").write_bytes(whole[:-2])
rgb.save(out / "rgb.png", compress_level=1)
rgba.save(out / "rgba.png", compress_level=1)
grey.save(out / "grey.png", compress_level=1)
rgba.convert("LA").save(out / "grey-alpha.png", compress_level=1)
rgb.quantize(64, method=Image.Quantize.FASTOCTREE).save(out / "palette.png", compress_level=1)
rgb.quantize(64, method=Image.Quantize.FASTOCTREE).save(out / "palette.gif")
rgb.save(out / "lossy.webp", method=0)
rgba.save(out / "lossy-alpha.webp", method=0)
rgb.save(out / "lossless.webp", lossless=True, method=0)
rgba.save(out / "lossless-alpha.webp", lossless=True, method=0)
rgba.save(out / "animated.webp", save_all=True, append_images=[rgba.rotate(90)], method=0)
rgb.save(out / "rgb.bmp")
grey.save(out / "grey.bmp")
rgb.save(out / "rgb.ppm")
grey.save(out / "grey.pgm")
for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
    rgb.save(out / f"rgb-{compression}.tiff", compression=compression)
cmyk.save(out / "cmyk-jpeg.tiff", compression="jpeg")
rgba.save(out / "rgba.tiff")
cmyk.save(out / "cmyk.tiff")
grey.save(out / "grey.tiff")
grey.point(lambda level: 255 * (level > 128)).convert("1").save(
    out / "fax.tiff", compression="group4"
)
for compression in ("tiff_ccitt", "group3"):
    grey.point(lambda level: 255 * (level > 128)).convert("1").save(
        out / f"{compression}.tiff", compression=compression
    )
levels = np.asarray(rgb)
floats = (levels / np.float32(255)).astype(np.float16)
written = {
    "float": tiff(floats, 2, bits=16, compression=8, predictor=3),
    "float-grey": tiff(floats[:, :, :1], 1, bits=16, compression=8),
    "lzma-whole": tiff(levels, 2, compression=34925),
    "lab": tiff(levels, 8, compression=8),
    "grey-alpha": tiff(np.asarray(rgba.convert("LA")), 1, extra=(1,), compression=8),
    "ycbcr": tiff(levels, 6, compression=8, more={530: (3, [1, 1])}),
}
# A chroma for each four pixels; what the samples are is no matter.
packed = zlib.compress(levels.reshape(-1)[: side * side * 3 // 2].tobytes(), 1)
tags = {256: (4, [side]), 257: (4, [side]), 258: (3, [8] * 3), 259: (3, [8]), 277: (3, [3])}
of_blocks = tags | {262: (3, [6]), 530: (3, [2, 2])}
written["ycbcr-blocks"] = assemble(of_blocks, [packed], "<", False, (side, side), False)
# A strip of the whole picture, whose decoder holds much.
for name, compression, options in [
    ("webp-lossy", 50001, {"format": "WEBP", "method": 0}),
    ("webp-lossless", 50001, {"format": "WEBP", "lossless": True, "method": 0}),
    ("jpeg-progressive", 7, {"format": "JPEG", "progressive": True}),
    ("jpeg-old", 6, {"format": "JPEG", "progressive": True}),
]:
    strip = io.BytesIO()
    rgb.save(strip, **options)
    photometric = 2 if compression == 50001 else 6
    more = tags | {259: (3, [compression]), 262: (3, [photometric])}
    written[name] = assemble(more, [strip.getvalue()], "<", False, (side, side), False)
for name, data in written.items():
    (out / f"{name}.tiff").write_bytes(data)


def deep_png(interlaced):
    """RGBA of 16 bits, which Pillow does not write."""
    deep = (np.asarray(rgba).astype(np.uint16) * 257).astype(">u2")

    def chunk(kind, data):
        sum_ = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)

    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = (
        b"\0" + row.tobytes() for x, y, across, down in passes for row in deep[y::down, x::across]
    )
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(rows), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


(out / "rgba-16.png").write_bytes(deep_png(False))
(out / "rgba-16-interlaced.png").write_bytes(deep_png(True))
