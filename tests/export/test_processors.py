"""A folder's pictures against those of transformers' own image processors, pixel by pixel.

``prepared`` is what the server's own preprocessing is held against elsewhere.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tipserve_export.sources.hf_preprocessing import CLIP, DINOV2, SIGLIP, preprocessing
from tipserve_export.statistics import prepared

transformers = pytest.importorskip("transformers")
pytest.importorskip("torchvision")

KINDS = {
    "clip": (
        CLIP,
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 224},
            "crop_size": {"height": 224, "width": 224},
        },
    ),
    "dinov2": (
        DINOV2,
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 256},
            "crop_size": {"height": 224, "width": 224},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    ),
    "siglip": (
        SIGLIP,
        {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": 224, "width": 224},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    ),
}
WIDTHS = [(240, width) for width in range(300, 340)]
HEIGHTS = [(height, 230) for height in range(300, 340)]
EXTREME = [(1, 90), (40, 300), (301, 37), (64, 64), (224, 224), (900, 1200)]

# docs/bundles.md names them: of the 40 widths, those that transformers cuts a pixel further left.
SHIFTED = {"clip": 9, "dinov2": 8, "siglip": 0}


def picture(height: int, width: int) -> Image.Image:
    """Waves and noise, so that a shift by a pixel shows."""
    chance = np.random.default_rng(height * 10000 + width)
    waves = 127 + 70 * np.sin(np.mgrid[0:height, 0:width].sum(0) / 9)[..., None] * np.ones(3)
    levels = waves + chance.normal(0, 20, (height, width, 3))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def levels(pixels: NDArray[Any], image: dict[str, Any]) -> NDArray[np.int64]:
    """The bytes that were normalised."""
    mean, std = (np.array(image[key])[:, None, None] for key in ("mean", "std"))
    return np.rint((pixels * std + mean) * 255).astype(np.int64)


def both(kind: str, folder: Path, backend: str) -> Any:
    """For a picture: ours, the library's and ours with the library's offset."""
    defaults, config = KINDS[kind]
    (folder / "preprocessor_config.json").write_text(json.dumps(config | {"resample": 3}))
    image = asdict(preprocessing(folder, defaults, 224))
    library = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)

    def of(shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any], bool]:
        given = picture(*shape)
        theirs = library(images=given, return_tensors="np")["pixel_values"][0]
        resized, short = image["resize_to"], min(shape)
        excess = [int(resized * side / short) - 224 for side in shape]
        # Half a pixel remains; torchvision rounds it to even, transformers down.
        shifts = image["resize"] == "shortest-side" and any(it % 4 == 3 for it in excess)
        return levels(prepared(given, image), image), levels(theirs, image), shifts

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_the_librarys_bytes_but_for_the_cut(kind: str, tmp_path: Path) -> None:
    of = both(kind, tmp_path, "pil")
    shifted = 0
    for shape in [*WIDTHS, *HEIGHTS, *EXTREME]:
        ours, theirs, shifts = of(shape)
        if not shifts:
            assert np.array_equal(ours, theirs), shape
            continue
        shifted += shape in WIDTHS
        down, right = int(shape[0] > shape[1]), int(shape[1] > shape[0])
        assert not np.array_equal(ours, theirs), shape
        assert np.array_equal(ours[:, : 224 - down, : 224 - right], theirs[:, down:, right:]), shape
    assert shifted == SHIFTED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_librarys_default_resizes_by_itself(kind: str, tmp_path: Path) -> None:
    """It is torchvision's, on tensors: a level or two apart from Pillow's."""
    of = both(kind, tmp_path, "torchvision")
    for shape in [*WIDTHS[::3], *EXTREME]:
        ours, theirs, shifts = of(shape)
        if not shifts:
            assert np.abs(ours - theirs).max() <= 2, shape
