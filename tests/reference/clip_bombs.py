"""Writes PNGs of 3x2 pixels with 1 GiB of packed text, profile or pixels.

python3 clip_bombs.py OUT
"""

import pathlib
import struct
import sys
import zlib

out = pathlib.Path(sys.argv[1])


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


packer = zlib.compressobj(9)
bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0))
pixels = chunk(b"IDAT", zlib.compress(bytes(2 * (1 + 9))))
end = chunk(b"IEND", b"")
(out / "ztxt.png").write_bytes(head + chunk(b"zTXt", b"Comment\0\0" + bomb) + pixels + end)
(out / "itxt.png").write_bytes(head + chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb) + pixels + end)
(out / "iccp.png").write_bytes(head + chunk(b"iCCP", b"profile\0\0" + bomb) + pixels + end)
(out / "idat.png").write_bytes(head + chunk(b"IDAT", bomb) + end)
