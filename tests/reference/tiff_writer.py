"""Writes TIFF by hand: every layout, and kinds of sample and compression that
Pillow does not write.
"""

import lzma
import random
import struct
import zlib

import numpy as np

# Where lengths are a matter of chance; seeded by who uses this.
draw = random.Random()


def lzw(data):
    """TIFF's LZW: most significant bit first, codes widen one early."""
    bits, count, packed = 0, 0, bytearray()

    def put(code, width):
        nonlocal bits, count
        bits = (bits << width) | code
        count += width
        while count >= 8:
            packed.append((bits >> (count - 8)) & 255)
            count -= 8
        bits &= (1 << count) - 1

    table, width = {bytes([n]): n for n in range(256)}, 9
    following = 258
    put(256, 9)
    prefix = b""
    for byte in data:
        longer = prefix + bytes([byte])
        if longer in table:
            prefix = longer
            continue
        put(table[prefix], width)
        table[longer] = following
        following += 1
        if following == 4095:
            put(256, width)
            table, width = {bytes([n]): n for n in range(256)}, 9
            following = 258
        elif following + 1 > 1 << width:
            width += 1
        prefix = bytes([byte])
    if prefix:
        put(table[prefix], width)
        following += 1
        if following + 1 > 1 << width and width < 12:
            width += 1
    put(257, width)
    put(0, 7)
    return bytes(packed)


def pack_bits(data):
    packed, at = bytearray(), 0
    while at < len(data):
        run = 1
        while run < 128 and at + run < len(data) and data[at + run] == data[at]:
            run += 1
        if run > 2:
            packed += bytes([257 - run, data[at]])
        else:
            run = min(draw.randint(1, 128), len(data) - at)
            packed += bytes([run - 1]) + data[at : at + run]
        at += run
    return bytes(packed)


def old_lzw(data):
    """LZW as TIFF had it until 1988: codes as in GIF, clear codes as often as codes widen late."""
    bits, count, packed = 0, 0, bytearray()
    width, following, table, prefix = 9, 258, {bytes([n]): n for n in range(256)}, b""

    def put(code):
        nonlocal bits, count
        bits |= code << count
        count += width
        while count >= 8:
            packed.append(bits & 255)
            bits >>= 8
            count -= 8

    put(256)
    for byte in data:
        longer = prefix + bytes([byte])
        if longer in table:
            prefix = longer
            continue
        put(table[prefix])
        table[longer] = following
        following += 1
        if following > 1 << width:
            width += 1
        if following == 4094:
            put(256)
            width, following, table = 9, 258, {bytes([n]): n for n in range(256)}
        prefix = bytes([byte])
    if prefix:
        put(table[prefix])
        following += 1
        width += following > 1 << width
    put(257)
    put(0)
    return bytes(packed)


def xz(data):
    """As libtiff writes it: the bytes' differences first."""
    delta = {"id": lzma.FILTER_DELTA, "dist": draw.randint(1, 4)}
    filters = [delta, {"id": lzma.FILTER_LZMA2, "preset": 0}]
    return lzma.compress(data, filters=filters[draw.randint(0, 1) :])


COMPRESSIONS = {
    1: lambda data: data,
    5: lzw,
    8: lambda data: zlib.compress(data, 1),
    32773: pack_bits,
    34925: xz,
}


def samples(part, bits, order):
    """The bytes of whole numbers, or of floats if `part` holds them."""
    if part.dtype.kind == "f":
        if bits != 24:
            return part.astype(f"{order}f{bits // 8}").tobytes()
        # A sign, an exponent of 7 bits, 16 bits of fraction.
        fraction, exponent = np.frexp(part)
        whole = (fraction * (1 << 17)).astype(np.int64) & 0xFFFF
        part = np.where(part > 0, (exponent.astype(np.int64) + 62) << 16 | whole, 0)
    if bits % 8:
        flat = part.reshape(part.shape[0], -1).astype(np.uint32)
        spread = (flat[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        return np.packbits(spread.reshape(flat.shape[0], -1).astype(np.uint8), axis=1).tobytes()
    if bits == 24:
        four = np.frombuffer(part.astype(f"{order}u4").tobytes(), np.uint8).reshape(-1, 4)
        return (four[:, :3] if order == "<" else four[:, 1:]).tobytes()
    return part.astype(f"{order}u{bits // 8}").tobytes()


def float_predictor(part, bits):
    """A row's highest bytes first, then the next ones, all as differences."""
    rows = []
    for row in part:
        count, stride = row.size, row.shape[-1]
        plain = np.frombuffer(samples(row[None], bits, ">"), np.uint8).reshape(count, -1)
        split = plain.T.reshape(-1).copy()
        split[stride:] -= split[:-stride].copy()
        rows.append(split.tobytes())
    return b"".join(rows)


def tiff(
    pixels,
    photometric,
    bits=8,
    compression=1,
    predictor=1,
    order="<",
    big=False,
    chunk=None,
    tiled=False,
    planar=False,
    fill=1,
    extra=(),
    palette=None,
    orientation=None,
    more=(),
):
    """`pixels` is [H, W, C]; `chunk` are rows, or rows and columns of a tile."""
    height, width, channels = pixels.shape
    rows, columns = chunk if tiled else (chunk or height, width)
    chunks = []
    planes = [pixels[:, :, [c]] for c in range(channels)] if planar else [pixels]
    for plane in planes:
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                part = plane[y : y + rows, x : x + columns]
                if tiled:
                    part = np.pad(
                        part,
                        ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)),
                        mode="edge",
                    )
                if predictor == 2:
                    part = part.copy()
                    part[:, 1:] -= part[:, :-1].copy()
                split = predictor == 3
                data = float_predictor(part, bits) if split else samples(part, bits, order)
                data = COMPRESSIONS[compression](data)
                if fill == 2:
                    data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
                chunks.append(data)
    if pixels.dtype.kind == "f":
        more = {339: (3, [3] * channels), **dict(more)}
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [compression]),
        262: (3, [photometric]),
        277: (3, [channels]),
        284: (3, [2 if planar else 1]),
        **dict(more),
    }
    if fill != 1:
        tags[266] = (3, [fill])
    if predictor != 1:
        tags[317] = (3, [predictor])
    if extra:
        tags[338] = (3, list(extra))
    if palette is not None:
        tags[320] = (3, palette)
    if orientation:
        tags[274] = (3, [orientation])
    return assemble(tags, chunks, order, big, (rows, columns), tiled)


def assemble(tags, chunks, order, big, chunk, tiled, before=b""):
    """A file of strips of so many rows, or of tiles of so many rows and columns.

    `before` is an even number of bytes between the header and the first of them.
    """
    rows, columns = chunk
    offset = (16 if big else 8) + len(before)
    places = []
    for data in chunks:
        places.append(offset)
        offset += len(data) + len(data) % 2
    if tiled:
        tags = tags | {322: (3, [columns]), 323: (3, [rows])}
        tags = tags | {324: (4, places), 325: (4, [len(data) for data in chunks])}
    else:
        tags = tags | {278: (4, [rows]), 273: (4, places), 279: (4, [len(data) for data in chunks])}
    head = b"II" if order == "<" else b"MM"
    head += (
        struct.pack(order + "HHHQ", 43, 8, 0, offset)
        if big
        else struct.pack(order + "HI", 42, offset)
    )
    file = head + before + b"".join(data + b"\0" * (len(data) % 2) for data in chunks)
    wide = 8 if big else 4
    directory = struct.pack(order + ("Q" if big else "H"), len(tags))
    beyond = offset + len(directory) + len(tags) * (20 if big else 12) + wide
    values = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        letter = {3: "H", 4: "I", 5: "I", 7: "B"}[kind]
        data = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        count = len(numbers) // 2 if kind == 5 else len(numbers)
        directory += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count)
        if len(data) <= wide:
            directory += data.ljust(wide, b"\0")
        else:
            directory += struct.pack(order + ("Q" if big else "I"), beyond + len(values))
            values += data + b"\0" * (len(data) % 2)
    directory += struct.pack(order + ("Q" if big else "I"), 0)
    return file + directory + values


def with_lengths(data, length, count):
    """A little-endian TIFF of so many strips, whose lengths are all stated so."""
    (at,) = struct.unpack("<I", data[4:8])
    data = bytearray(data)
    for entry in range(at + 2, len(data), 12):
        tag, _, _, place = struct.unpack_from("<HHII", data, entry)
        if tag == 279:
            place = entry + 8 if count == 1 else place
            struct.pack_into(f"<{count}I", data, place, *[length] * count)
            return bytes(data)


def taken_apart(stream):
    """Where a JPEG's tables begin in it, by the tags of old-style JPEG, and its coded data."""
    tables, at = {519: [], 520: [], 521: []}, 2
    while stream[at + 1] != 0xDA:
        kind, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        part, end = at + 4, at + 2 + length
        while kind in (0xDB, 0xC4) and part < end:
            tag = 519 if kind == 0xDB else 520 + (stream[part] >> 4)
            tables[tag].append(part + 1)
            part += 65 if kind == 0xDB else 17 + sum(stream[part + 1 : part + 17])
        at = end
    return tables, stream[at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big") : -2]


def pages(*parts, sub=False):
    """A file of several pages, or of one with the others in it."""
    begins, data = [], b"II*\0" + bytes(4)
    ends = []
    for tags, pixels in parts:
        height, width, channels = pixels.shape
        at = len(data)
        data += pixels.tobytes() + b"\0" * (pixels.size % 2)
        shape = {256: width, 257: height, 258: 8, 262: 2 if channels == 3 else 1}
        entries = shape | {259: 1, 273: at, 277: channels, 279: pixels.size} | tags
        if sub and not begins:
            entries |= {330: 0}
        begins.append(len(data))
        data += struct.pack("<H", len(entries))
        for tag, value in sorted(entries.items()):
            if tag == 330:
                ends.append(len(data) + 8)
            data += struct.pack("<HHII", tag, 4, 1, value)
        if not sub:
            ends.append(len(data))
        data += bytes(4)
    where = [4, *ends]
    for place, begin in zip(where, begins, strict=False):
        data = data[:place] + struct.pack("<I", begin) + data[place + 4 :]
    return data
