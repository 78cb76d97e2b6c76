"""Exports a small random model of each family and writes its own library's features.

    python3 clip_families.py OUT SEED [FAMILY...]

OUT/N.png are pictures. For each family OUT/FAMILY has `bundle`, `pixels.npy` [n, 3, H, W] and
`image.npy` [n, D] of the library's own preprocessing and model in float32; with texts also
`texts.json`, `ids.npy` and `text.npy`. OUT/families.json lists them; one whose package is
missing is in OUT/skipped.json with the reason.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from clip_texts import TORTURE
from families import FAMILIES
from PIL import Image

out, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(seed)


def picture(number):
    """Photo-like, of a shape of its own; the last ones are extreme."""
    height, width = (
        [(40, 300), (301, 37), (64, 64), (1, 90)][number - 4]
        if number > 3
        else rng.integers(60, 420, 2)
    )
    y, x = np.mgrid[0:height, 0:width] / 100
    planes = [
        127 + 70 * np.sin(rng.uniform(1, 9) * x + rng.uniform(0, 6)) + 50 * np.cos(rng.uniform(1, 9) * y)
        for _ in range(3)
    ]  # fmt: skip
    levels = np.stack(planes, -1) + rng.normal(0, 9, (height, width, 3))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


pictures = [picture(number) for number in range(8)]
for number, image in enumerate(pictures):
    image.save(out / f"{number}.png")
listed, skipped = [], {}
for family in sys.argv[3:] or FAMILIES:
    folder = out / family
    folder.mkdir()
    try:
        reference = FAMILIES[family](folder, seed)
    except ImportError as error:
        skipped[family] = str(error)
        continue
    with torch.inference_mode():
        pixels = torch.stack([reference.prepare(image) for image in pictures])
        np.save(folder / "pixels.npy", pixels.numpy())
        np.save(folder / "image.npy", reference.image(pixels).numpy())
        if reference.tokens:
            ids = torch.cat([reference.tokens([text]) for text in TORTURE])
            np.save(folder / "ids.npy", ids.numpy())
            np.save(folder / "text.npy", reference.text(ids).numpy())
            (folder / "texts.json").write_text(json.dumps(TORTURE))
    listed.append(family)
(out / "families.json").write_text(json.dumps(listed))
(out / "skipped.json").write_text(json.dumps(skipped))
