"""A picture for views, and the check that given views are RandomResizedCrop's.

    python3 clip_views.py OUT SEED          writes OUT/picture.npy
    python3 clip_views.py OUT SEED check    looks at OUT/N.bin, u8 [64,64,3]

The picture's levels say where each pixel lies (red: column, green: row), so
the rectangle that a view came from is read off the view, and Pillow must make
exactly that view of a rectangle nearby. Rectangles must lie in the ranges of
scale and ratio, and about half of the views be mirrored.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

out, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(seed)

if len(sys.argv) == 3:
    width, height = (int(n) for n in rng.integers(100, 250, 2))
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 0] = np.arange(width)
    picture[:, :, 1] = np.arange(height)[:, None]
    picture[:, :, 2] = rng.integers(0, 256, (height, width))
    np.save(out / "picture.npy", picture)
    sys.exit()

picture = np.load(out / "picture.npy")
height, width, _ = picture.shape
image = Image.fromarray(picture)


def rectangle(view):
    """Left, top, width, height, to a pixel or two."""
    columns, rows = view[32, :, 0].astype(float), view[:, 32, 1].astype(float)
    step_x, step_y = (columns[54] - columns[9]) / 45, (rows[54] - rows[9]) / 45
    left = columns[32] - 32.5 * step_x + 0.5
    top = rows[32] - 32.5 * step_y + 0.5
    return left, top, step_x * 64, step_y * 64


def matches(view):
    left, top, w, h = rectangle(view)
    for dw in sorted(range(-4, 5), key=abs):
        for dx in sorted(range(-3, 4), key=abs):
            x, wide = round(left) + dx, round(w) + dw
            if not (x >= 0 and wide > 0 and x + wide <= width):
                continue
            strip = image.crop((x, 0, x + wide, height)).resize((64, height), Image.BICUBIC)
            if not np.array_equal(np.asarray(strip)[height // 2, :, 0], view[32, :, 0]):
                continue
            for dh in sorted(range(-4, 5), key=abs):
                for dy in sorted(range(-3, 4), key=abs):
                    y, high = round(top) + dy, round(h) + dh
                    if not (y >= 0 and high > 0 and y + high <= height):
                        continue
                    box = (x, y, x + wide, y + high)
                    if np.array_equal(
                        np.asarray(image.crop(box).resize((64, 64), Image.BICUBIC)), view
                    ):
                        return wide, high
    return None


mirrored = 0
files = sorted(out.glob("*.bin"))
for file in files:
    view = np.frombuffer(file.read_bytes(), np.uint8).reshape(64, 64, 3)
    if view[32, 9, 0] > view[32, 54, 0]:
        mirrored += 1
        view = view[:, ::-1]
    found = matches(view)
    assert found, f"{file.name}: no rectangle gives this view"
    w, h = found
    scale, ratio = w * h / (width * height), w / h
    assert 0.48 < scale <= 1.001, f"{file.name}: scale {scale}"
    fallback = w == width or h == height
    assert fallback or 0.73 < ratio < 1.36, f"{file.name}: ratio {ratio}"
assert 0 < mirrored < len(files), f"{mirrored} of {len(files)} mirrored"
