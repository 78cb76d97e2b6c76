"""The same classifier in plain Python, which every alternative serves and the script runs."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from plain_head import Head

TOP_K = 5


class Classifier:
    """A bundle's TorchScript encoder and a head of Tip-Adapter, written with care.

    Pillow decodes and resizes, pixels travel as bytes and are normalised as a batch on the device.
    """

    def __init__(self, bundle: Path, cache: Path, device: str, dtype: str, threads: int) -> None:
        """`threads` are torch's, for one call; `cache` is the .npz that Head reads."""
        torch.set_num_threads(threads)
        told = tomllib.loads((bundle / "bundle.toml").read_text("utf-8"))["image"]
        self.size, self.resize_to = told["size"], told.get("resize_to", told["size"])
        self.device, self.dtype = device, getattr(torch, dtype)
        encoder = torch.jit.load(str(bundle / told["file"]), map_location=device).eval()
        # As the documentation of every one of these servers advises for inference.
        self.encoder = torch.jit.freeze(encoder.to(self.dtype))
        self.mean = torch.tensor(told["mean"], device=device).mul(255).view(1, 3, 1, 1)
        self.std = torch.tensor(told["std"], device=device).mul(255).view(1, 3, 1, 1)
        self.head = Head(cache, device)

    def pixels(self, file: bytes) -> np.ndarray:
        """A picture's pixels, [size, size, 3]: shortest side resized, the centre cropped."""
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        # To the pixel as torchvision's Resize and CenterCrop do it.
        shortest = min(picture.size)
        wide, high = (self.resize_to * side // shortest for side in picture.size)
        picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = round((wide - self.size) / 2), round((high - self.size) / 2)
        return np.asarray(picture.crop((left, top, left + self.size, top + self.size)))

    @torch.inference_mode()
    def __call__(self, pixels: list[np.ndarray]) -> list[list[tuple[str, float]]]:
        """The best classes of each picture with their logits."""
        batch = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2).float()
        batch = batch.sub_(self.mean).div_(self.std).to(self.dtype, copy=False).contiguous()
        index, logits, _ = self.head(self.encoder(batch).float(), TOP_K)
        names = self.head.names
        return [
            [(names[i], logit) for i, logit in zip(row, best, strict=True)]
            for row, best in zip(index, logits, strict=True)
        ]
