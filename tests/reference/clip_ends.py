"""Writes small whole JPEGs and a PNG, for tests that cut them.

python3 clip_ends.py OUT SEED
"""

import pathlib
import sys

import numpy as np
from PIL import Image

out = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
image = Image.fromarray(rng.integers(0, 256, (24, 19, 3), dtype=np.uint8))
image.save(out / "baseline.jpg", quality=70)
image.save(out / "progressive.jpg", quality=70, progressive=True)
image.convert("L").save(out / "grey.jpg", quality=70)
image.save(out / "plain.png")
