"""A bundle with the shape of ViT-B/32 and random weights, from torch alone.

The encoder is the bundle tool's own module (`export/`), of which only what needs nothing beside
torch is used: neither open_clip nor a TOML writer need be there.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))
from tipserve_export.models.vision_transformer import VisionTransformer

SHAPES = {
    "ViT-B/32": {
        "size": 224, "patch": 32, "width": 768, "layers": 12, "heads": 12, "mlp_width": 3072,
        "out_width": 512,
    },
    # For the script's own test: the same code, in a moment on a CPU.
    "tiny": {
        "size": 64, "patch": 16, "width": 64, "layers": 3, "heads": 4, "mlp_width": 128,
        "out_width": 64,
    },
}  # fmt: skip


def encoder(shape: str, seed: int) -> tuple[nn.Module, int, int]:
    """The encoder, the side of its pictures and the width of its features."""
    sizes = dict(SHAPES[shape])
    size = sizes.pop("size")
    torch.manual_seed(seed)
    model = VisionTransformer(grid=size // sizes["patch"], quick_gelu=False, eps=1e-5, **sizes)
    # As OpenAI initialises CLIP, roughly: deviations that keep each layer's output in size.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0) if name.endswith("weight") else weight.zero_()
            elif name in ("class_row", "positions"):
                weight.normal_(std=0.5)
            else:
                fan_in = weight[0].numel()
                weight.normal_(std=fan_in**-0.5)
    return model.eval().requires_grad_(False), size, sizes["out_width"]


def write(folder: Path, shape: str, seed: int = 1) -> Path:
    """Writes the bundle; gives its folder."""
    model, size, width = encoder(shape, seed)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "image.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model), archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (folder / "bundle.toml").write_text(
        f"""format = 1
name = "{shape}, random weights"
width = {width}
logit_scale = 100.0
templates = ["a photo of a {{}}."]
source = "random weights, seed {seed}"

[image]
file = "image.pt"
size = {size}
mean = [0.48145466, 0.4578275, 0.40821073]
std = [0.26862954, 0.26130258, 0.27577711]
resize = "shortest-side"
resize_to = {size}
interpolation = "bicubic"
batch_dynamic = true

[files]
"image.pt" = "{digest}"
""",
        encoding="utf-8",
    )
    return folder
