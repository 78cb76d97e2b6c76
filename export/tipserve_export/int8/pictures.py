"""Pictures to compare two encoders on: a folder's, or made-up ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipserve_export.errors import MissingPackageError, SourceError
from tipserve_export.statistics import SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MADE_UP = 96
MOST = 512
LEAST = 32
KINDS = 8
SIDE = 320


def compared(folder: Path | None) -> tuple[list[Any], list[str | None], str]:
    """Pictures, the class of each where a folder of folders tells it, and where they are from."""
    if folder is None:
        return [*made_up(MADE_UP)], [None] * MADE_UP, "made up"
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError("pillow", "--int8-pictures") from error
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    # Evenly over the folder, so that no class is left out.
    files = files[:: max(1, -(-len(files) // MOST))]
    pictures, classes = [], []
    for file in files:
        try:
            with Image.open(file) as picture:
                pictures.append(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            continue
        within = file.relative_to(folder).parts
        classes.append(within[0] if len(within) > 1 else None)
    if len(pictures) < LEAST:
        raise SourceError(
            f"{folder} holds {len(pictures)} pictures that can be read: at least {LEAST} are "
            "needed to tell how well 8 bits agree"
        )
    return pictures, classes, folder.resolve().name


def made_up(count: int) -> Iterator[Image]:
    """Always the same pictures, of several kinds in turns: fields whose spectrum falls as a
    photograph's does (Field, 1987), with and without plain shapes on them.
    """
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    rng = np.random.default_rng(20)
    kinds = [_Kind(rng) for _ in range(KINDS)]
    for number in range(count):
        levels = kinds[number % KINDS].draw(rng)
        yield Image.fromarray((levels * 255).round().astype(np.uint8))


class _Kind:
    """Pictures with a colour, a coarseness and a number of shapes in common."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.fall = rng.uniform(0.8, 1.8)
        self.colour = rng.uniform(0.2, 0.8, 3)
        self.contrast = rng.uniform(0.1, 0.35)
        self.mix = rng.normal(0, 0.35, (3, 3)) + 1
        self.shapes = int(rng.integers(0, 7))

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Levels from 0 to 1, [SIDE, SIDE, 3]."""
        import numpy as np  # noqa: PLC0415

        high, wide = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
        frequency = np.sqrt(high**2 + wide**2).clip(1 / SIDE)
        shape = (3, SIDE, SIDE // 2 + 1)
        waves = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**self.fall
        field = np.fft.irfft2(waves, s=(SIDE, SIDE))
        field = np.einsum("ij,jhw->hwi", self.mix, field / field.std())
        levels = self.colour + rng.normal(0, 0.05, 3) + self.contrast * field
        for _ in range(self.shapes):
            (top, bottom), (left, right) = np.sort(rng.integers(0, SIDE, (2, 2)))
            levels[top:bottom, left:right] *= 0.3
            levels[top:bottom, left:right] += 0.7 * rng.uniform(0, 1, 3)
        return levels.clip(0, 1)
