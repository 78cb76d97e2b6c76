"""Writes what Pillow reads from the pictures of a folder.

    python3 clip_kept.py OUT FOLDER

For each NAME that Pillow reads: OUT/NAME.rgb.npy, u8 [H,W,3], and
OUT/NAME.upright.npy, the same after ImageOps.exif_transpose.
"""

import pathlib
import sys

import numpy as np
from PIL import Image, ImageFile, ImageOps

# A missing end mark, or row, is no error here: the test says what is refused.
ImageFile.LOAD_TRUNCATED_IMAGES = True
out, folder = map(pathlib.Path, sys.argv[1:])
for path in sorted(folder.iterdir()):
    try:
        with Image.open(path) as image:
            np.save(out / f"{path.name}.rgb.npy", np.asarray(image.convert("RGB")))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            np.save(out / f"{path.name}.upright.npy", np.asarray(upright))
    except (OSError, SyntaxError) as error:
        print(f"{path.name}: {error}")
