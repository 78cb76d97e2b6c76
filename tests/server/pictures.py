"""Pictures like photographs, made up afresh."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def photo(chance, kind: int = 0, side: tuple[int, int] = (120, 420)) -> Image.Image:
    """A picture of odd size: smooth light, some shapes in the kind's colours, grain."""
    width, height = (int(n) for n in chance.integers(*side, 2))
    coarse = chance.integers(0, 256, (4, 5, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    hue = np.random.default_rng(kind).integers(0, 256, (2, 3))
    for _ in range(int(chance.integers(4, 12))):
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        size = chance.uniform(0.05, 0.3) * min(width, height)
        colour = tuple(
            int(v) for v in np.clip(hue[chance.integers(2)] + chance.normal(0, 25, 3), 0, 255)
        )
        shape = draw.ellipse if kind % 2 else draw.rectangle
        shape((x - size, y - size, x + size, y + size), fill=colour)
    picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    grain = np.asarray(picture, np.float64) + chance.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


def png(picture: Image.Image) -> bytes:
    """As PNG."""
    return saved(picture, "PNG")


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    """As a file of a kind."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
