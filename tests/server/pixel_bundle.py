"""A bundle whose embedding of a picture is its pixels: one level of one pixel shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

SIZE = 32


class Pixels(torch.nn.Module):
    """The encoder."""

    def forward(self, x):
        return x.float().flatten(1)


def pixel_bundle(
    folder: Path, *, resize_to: int = SIZE, interpolation: str = "bicubic", mean: float = 0.5
) -> Path:
    """Writes the bundle into a new folder. A mean below 0 makes no picture all zeros."""
    folder.mkdir()
    torch.jit.script(Pixels().eval()).save(folder / "image.pt")
    digest = hashlib.sha256((folder / "image.pt").read_bytes()).hexdigest()
    (folder / "bundle.toml").write_text(
        f'format = 1\nname = "pixels"\nwidth = {3 * SIZE * SIZE}\nlogit_scale = 100.0\n'
        f'[image]\nfile = "image.pt"\nsize = {SIZE}\nmean = [{mean}, {mean}, {mean}]\n'
        f'std = [1.0, 1.0, 1.0]\nresize = "shortest-side"\nresize_to = {resize_to}\n'
        f'interpolation = "{interpolation}"\n[files]\n"image.pt" = "{digest}"\n'
    )
    return folder
