"""Decoding on the client: only what is certain to give the server's own pixels.

Pillow is lenient where the server is not: it fills what is missing of a JPEG
with grey and of a PNG with black, cuts 16-bit grey off at white, turns a TIFF.
So a file is decoded here only if nothing about it is unusual; any other goes to
the server as it is, which answers or says what is wrong with it.

* JPEG: baseline or progressive, grey or colour, upright, whole. Decoded by libjpeg-turbo
  (simplejpeg), which is what the server decodes with, its warnings being errors.
* PNG: 8 bits or fewer, not interlaced, upright, every row and checksum there.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

# Of the server's bounds, which grow as pictures become smaller, the least:
# encoders make about ten.
_MAX_SCANS = 20
_PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
_COMPRESSED_XMP = b"XML:com.adobe.xmp\0\1"


@dataclass(frozen=True)
class PictureLimits:
    """What the server refuses by a file's header; 0: it states no limit."""

    side: int = 0
    pixels: int = 0
    decoder_bytes: int = 0

    def allow(self, width: int, height: int) -> bool:
        """Whether it is certain that the server takes a picture of this size."""
        if width < 1 or height < 1 or (self.side and max(width, height) > self.side):
            return False
        if self.pixels and width * height > self.pixels:
            return False
        # What its decoders hold at most: RGB, a JPEG's coefficients in blocks
        # that reach over the edges, and the rows of blocks under way.
        columns, rows = -(-width // 32) * 32, -(-height // 32) * 32
        held = columns * rows * 12 + columns * 300
        return not self.decoder_bytes or held <= self.decoder_bytes


def decoded(data: bytes, limits: PictureLimits) -> Any | None:
    """The picture in RGB, by Pillow's type; None if the server must look at the file."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, limits)
    if data.startswith(_PNG):
        return _png(data, limits)
    return None


# JPEG


_NO_SIMPLEJPEG = (
    "resize='client' decodes JPEGs with simplejpeg, which is not installed, so they are sent as "
    "they are: pip install 'tipserve[all]'"
)
# A marker: neither a stuffed 0xFF, nor a fill byte, a restart or a bare marker.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")


def _jpeg(data: bytes, limits: PictureLimits) -> Any | None:
    size = _jpeg_size(data)
    if size is None or not limits.allow(*size):
        return None
    try:
        import PIL.Image
        import simplejpeg
    except ImportError:
        warnings.warn(_NO_SIMPLEJPEG, stacklevel=2)
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != size or colours not in ("Gray", "YCbCr", "RGB"):
            return None
        return PIL.Image.fromarray(simplejpeg.decode_jpeg(data))
    except ValueError:
        return None  # whatever libjpeg-turbo warns of


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Columns and rows, where all segments to the end mark are there and usual."""
    size = None
    scans = 0
    at = 2
    while marker := _MARKER.search(data, at):
        kind = marker[1][0]
        if kind == 0xD9:
            return size
        start = marker.end()
        if start + 2 > len(data):
            return None
        segment = data[start + 2 : start + max(int.from_bytes(data[start : start + 2], "big"), 2)]
        at = start + 2 + len(segment)
        if kind == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:
                return None
        elif kind == 0xE1 and (_exif_turns(segment) or _xmp_turns(segment)):
            return None
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            # Baseline, extended and progressive; lossless, hierarchical and
            # arithmetic coding are not read, nor are several frames.
            if kind > 0xC2 or size is not None or len(segment) < 6 or segment[0] != 8:
                return None
            size = struct.unpack(">HH", segment[1:5])[::-1]
    return None  # without an end mark


def _exif_turns(segment: bytes) -> bool:
    return segment.startswith(b"Exif\0\0") and orientation(segment) != 1


def _xmp_turns(data: bytes) -> bool:
    """Whether there may be an orientation in XMP, which counts where EXIF has none."""
    return b"tiff:Orientation" in data


def orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1 (upright) to 8; 0 where it cannot be read."""
    import PIL.Image

    found = PIL.Image.Exif()
    try:
        found.load(exif)
        return int(found.get(ORIENTATION, 1))
    except Exception:  # the parser's own mistakes included
        return 0


# PNG


def _png(data: bytes, limits: PictureLimits) -> Any | None:
    chunks = _png_chunks(data)
    if chunks is None:
        return None
    header, palette, rows, exif = chunks
    if len(header) != 13:
        return None
    width, height, depth, colour, compression, filtering, interlacing = struct.unpack(
        ">IIBBBBB", header
    )
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour)
    if channels is None or depth > 8 or (compression, filtering, interlacing) != (0, 0, 0):
        return None
    if not limits.allow(width, height) or (exif and orientation(exif) != 1):
        return None
    stride = 1 + (width * channels * depth + 7) // 8
    if not _whole(rows, stride, height):
        return None
    return _pillow_png(data, len(palette) if colour == 3 else None)


def _png_chunks(data: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """IHDR, PLTE, all IDAT and eXIf, where every chunk to IEND is whole and usual."""
    found = {b"IHDR": b"", b"PLTE": b"", b"IDAT": b"", b"eXIf": b""}
    parts: list[bytes] = []
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        end = at + 12 + length
        if end > len(data) or zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        if kind == b"IEND":
            found[b"IDAT"] = b"".join(parts)
            return found[b"IHDR"], found[b"PLTE"], found[b"IDAT"], found[b"eXIf"]
        if kind == b"IDAT":
            parts.append(body)
        elif kind == b"iTXt" and (_xmp_turns(body) or body.startswith(_COMPRESSED_XMP)):
            return None
        elif kind in (b"tEXt", b"zTXt") and body.startswith(b"Raw profile type exif\0"):
            return None  # EXIF as ImageMagick wrote it before there was a chunk for it
        elif kind in (b"acTL", b"fcTL") or found.get(kind):
            return None  # an animation; a second header
        elif (kind == b"IHDR") != (at == len(_PNG)) or (kind == b"PLTE" and parts):
            return None  # out of order
        elif kind in found:
            found[kind] = body
        elif not kind[0] & 0x20:
            return None  # critical, and unknown here
        at = end
    return None  # without an end mark


def _whole(compressed: bytes, stride: int, height: int) -> bool:
    """Whether the rows are all there, each with a filter that exists."""
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(compressed, stride * height + 1)
        rows += inflate.decompress(inflate.unconsumed_tail, 1)
    except zlib.error:
        return False
    return inflate.eof and len(rows) == stride * height and max(rows[::stride]) <= 4


def _pillow_png(data: bytes, palette_bytes: int | None) -> Any | None:
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
            if palette_bytes is not None:
                lowest_and_highest: Any = opened.getextrema()
                if palette_bytes % 3 or lowest_and_highest[1] >= palette_bytes // 3:
                    return None
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return None
