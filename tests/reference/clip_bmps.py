"""Writes BMPs of the kinds that few programs make, and what is in them.

    python3 clip_bmps.py OUT SEED

OUT/cases.json and OUT/refused.json are as clip_tiffs.py has them. Where Pillow reads a file, what
it reads is compared with what was written.
"""

import io
import itertools
import json
import pathlib
import random
import struct
import sys

import numpy as np
from PIL import Image

out = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
draw = random.Random(int(sys.argv[2]))
cases, refused = [], []
HEADERS = (12, 40, 52, 56, 64, 108, 124)


def pillow(data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        return None


def add(name, data, truth, read_by_pillow=True):
    found = pillow(data)
    if read_by_pillow:
        assert found is not None and (found == truth).all(), f"Pillow differs: {name}"
    number = len(cases)
    (out / f"{number}.bin").write_bytes(data)
    np.save(out / f"{number}.npy", np.ascontiguousarray(truth, np.uint8))
    cases.append(dict(name=name, file=f"{number}.bin", rgb=f"{number}.npy", most=0))


def refuse(name, data, says):
    file = f"refused-{len(refused)}.bin"
    (out / file).write_bytes(data)
    refused.append(dict(name=name, file=file, says=says))


def packed(levels, bits):
    """Rows of whole numbers, each filled up to four bytes; the last row first."""
    rows = []
    for row in levels[::-1]:
        spread = (row[:, None].astype(np.uint32) >> np.arange(bits - 1, -1, -1)) & 1
        data = np.packbits(spread.astype(np.uint8).ravel()).tobytes()
        rows.append(data + b"\0" * (-len(data) % 4))
    return b"".join(rows)


def of_bytes(levels):
    rows = [row.tobytes() for row in levels[::-1]]
    return b"".join(row + b"\0" * (-len(row) % 4) for row in rows)


def bmp(
    size,
    bits,
    data,
    header=40,
    compression=0,
    palette=b"",
    masks=(),
    used=0,
    gap=0,
    offset=None,
    planes=1,
):
    height, width = size
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, planes, bits)
    else:
        fields = (header, width, height, planes, bits, compression, len(data), 1, 1, used, 0)
        head = struct.pack("<IiiHHIIiiII", *fields)
        head += b"".join(struct.pack("<I", mask) for mask in masks)
        head = head.ljust(header, b"\0")
    at = 14 + len(head) + len(palette) + gap
    file = struct.pack("<IHHI", at + len(data), 0, 0, at if offset is None else offset)
    return b"BM" + file + head + palette + b"\7" * gap + data


def colours(count, wide):
    found = rng.integers(0, 256, (count, 3), dtype=np.uint8)
    fill = b"\0" if wide else b""
    return found, b"".join(bytes(one[::-1].tolist()) + fill for one in found)


def some_size():
    return draw.randint(1, 70), draw.randint(1, 70)


for bits in (1, 2, 4, 8):
    for header in HEADERS:
        size = some_size()
        table, palette = colours(1 << bits, header > 12)
        levels = rng.integers(0, 1 << bits, size)
        data = packed(levels, bits)
        known = bits != 2 and header != 64
        add(
            f"{bits} bits, {header}",
            bmp(size, bits, data, header, palette=palette),
            table[levels],
            known,
        )
    table, palette = colours(1 << bits, True)
    levels = rng.integers(0, 1 << bits, size)
    data, truth = packed(levels, bits), table[levels]
    known = bits != 2
    add(f"{bits}, a gap", bmp(size, bits, data, palette=palette, gap=9), truth, known)
    add(f"{bits}, place 0", bmp(size, bits, data, palette=palette, offset=0), truth, known)
    add(f"{bits}, planes 0", bmp(size, bits, data, palette=palette, planes=0), truth, known)
    top = (size[0] * -1, size[1])
    add(
        f"{bits}, from the top",
        bmp(top, bits, packed(levels[::-1], bits), palette=palette),
        truth,
        known,
    )
    few = rng.integers(0, 2, size)
    half, short = colours(2, True)
    add(
        f"{bits}, two colours",
        bmp(size, bits, packed(few, bits), palette=short, used=2),
        half[few],
        known,
    )
    refuse(f"{bits}, cut", bmp(size, bits, data[:-5], palette=palette), "truncated")

for header in HEADERS:
    size = some_size()
    pixels = rng.integers(0, 256, (*size, 4), dtype=np.uint8)
    data, truth = of_bytes(pixels[:, :, :3]), pixels[:, :, 2::-1]
    known = header != 64
    add(f"24 bits, {header}", bmp(size, 24, data, header), truth, known)
    if header == 12:
        continue
    add(f"32 bits, {header}", bmp(size, 32, of_bytes(pixels), header), truth, known)
    if header == 64:
        continue
    of24 = bmp(size, 24, data, header, 3, masks=(0xFF0000, 0xFF00, 0xFF))
    add(f"24 bits with masks, {header}", of24, truth)
    orders = {(0xFF0000, 0xFF00, 0xFF): [2, 1, 0], (0, 0, 0): [2, 1, 0]}
    orders |= {(0xFF000000, 0xFF0000, 0xFF00): [3, 2, 1], (0xFF, 0xFF00, 0xFF0000): [0, 1, 2]}
    for masks, order in orders.items():
        file = bmp(size, 32, of_bytes(pixels), header, 3, masks=masks)
        add(f"32 bits with {masks}, {header}", file, pixels[:, :, order], order != [0, 1, 2])
    deep = rng.integers(0, 1 << 16, size).astype("<u2")
    # By the lowest bit and the number of bits of each channel; Pillow reads the first two.
    layouts = {
        "555": ((10, 5), (5, 5), (0, 5)),
        "565": ((11, 5), (5, 6), (0, 5)),
        "444": ((8, 4), (4, 4), (0, 4)),
        "BGR": ((0, 5), (5, 6), (11, 5)),
        "4444 and alpha last": ((12, 4), (8, 4), (4, 4)),
        "of many sizes": ((9, 7), (2, 1), (3, 6)),
    }
    for name, channels in layouts.items():
        masks = [(1 << width) - 1 << shift for shift, width in channels]
        parts = [
            (deep.astype(int) >> shift & (1 << width) - 1) * 255 // ((1 << width) - 1)
            for shift, width in channels
        ]
        add(
            f"16 bits, {name}, {header}",
            bmp(size, 16, of_bytes(deep), header, 3, masks=masks),
            np.stack(parts, -1),
            name in ("555", "565"),
        )
for masks in (
    (0xF00, 0xF0, 0),
    (0, 0, 0),
    (0xF0F, 0xF0, 0xF000),
    (0xF00, 0x1F0, 0xF),
    (1 << 16, 2, 1),
):
    file = bmp(size, 16, of_bytes(deep), 40, 3, masks=masks)
    refuse(f"the masks {masks}", file, "colour masks")


def run_lengths(levels, bits, odd=False):
    """Runs and literals by chance, and steps over what is index 0."""
    data = b""
    for number, row in enumerate(levels[::-1]):
        at = 0
        while at < len(row):
            left = len(row) - at
            count = min(draw.randint(1, 9), left)
            part = [int(index) for index in row[at : at + count]]
            literal = count > 2 and (odd or bits == 8 or count % 2 == 0)
            if not any(part) and draw.random() < 0.5:
                data += bytes([0, 2, count, 0])
            elif literal:
                pairs = itertools.zip_longest(part[::2], part[1::2], fillvalue=0)
                put = part if bits == 8 else [a << 4 | b for a, b in pairs]
                data += bytes([0, count, *put]) + b"\0" * (len(put) % 2)
            else:
                count = 1
                data += bytes([1, part[0] if bits == 8 else part[0] << 4])
            at += count
        if number < len(levels) - 1:
            data += b"\0\0"
    return data


for bits, compression in ((8, 1), (4, 2)):
    for _ in range(4):
        size = draw.randint(2, 60), draw.randint(2, 60)
        table, palette = colours(1 << bits, True)
        levels = rng.integers(0, 1 << bits, size) * (rng.random(size) < 0.7)
        levels[0, -1] = 1
        data = run_lengths(levels, bits)
        for end in (b"\0\1", b""):
            file = bmp(size, bits, data + end, compression=compression, palette=palette)
            add(f"run lengths of {bits} bits", file, table[levels])
        # Pillow drops the last of an odd number of literals of four bits.
        whole = bmp(
            size,
            bits,
            run_lengths(levels, bits, odd=True),
            compression=compression,
            palette=palette,
        )
        add(f"run lengths of {bits} bits, odd literals", whole, table[levels], bits == 8)
        short = run_lengths(levels[1:], bits) + b"\0\0\0\1"
        early = bmp(size, bits, short, compression=compression, palette=palette)
        refuse("run lengths without the last row", early, "truncated")

size = (3, 5)
refuse("a JPEG inside", bmp(size, 0, b"\xff\xd8", compression=4), "holds a JPEG")
refuse("a PNG inside", bmp(size, 0, b"\x89PNG", compression=5), "holds a PNG")
refuse("Huffman", bmp(size, 1, b"x" * 90, 64, 3), "compression 3")
refuse("48 bits", bmp(size, 48, b"x" * 900), "48 bits")
refuse("a header of 16 bytes", bmp(size, 24, b"x" * 900, 16), "header of 16 bytes")
refuse("no rows", bmp((0, 5), 24, b""), "side is 0")
refuse("a width below 0", bmp((3, -5), 24, b"x" * 90), "width is -5")
refuse("a palette that is cut", bmp(size, 8, b"", palette=b"abc"), "truncated")

(out / "cases.json").write_text(json.dumps(cases))
(out / "refused.json").write_text(json.dumps(refused))
print(f"{len(cases)} files, {len(refused)} to be refused")
