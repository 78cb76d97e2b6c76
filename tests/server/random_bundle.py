"""Bundles of random weights, small, each with its own features; as slow as is asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch


class Projection(torch.nn.Module):
    """A random projection of the pixels; `rounds` large products before it take time alone."""

    def __init__(self, seed: int, size: int, width: int, rounds: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(3 * size * size, width, generator=generator) / size
        self.weight = torch.nn.Parameter(weight)
        self.ballast = torch.nn.Parameter(torch.eye(512))
        self.rounds = rounds

    def forward(self, x):
        idle = self.ballast
        for _ in range(self.rounds):
            idle = torch.mm(idle, self.ballast)
        return torch.tanh(x.float().flatten(1) @ self.weight) * idle[0, 0]


def random_bundle(
    folder: Path,
    *,
    name: str = "",
    seed: int = 1,
    size: int = 32,
    width: int = 24,
    rounds: int = 0,
    module: torch.nn.Module | None = None,
) -> Path:
    """Writes the bundle into a new folder, of ``module`` if one is given."""
    folder.mkdir(parents=True)
    module = module or Projection(seed, size, width, rounds)
    torch.jit.script(module.eval()).save(folder / "image.pt")
    digest = hashlib.sha256((folder / "image.pt").read_bytes()).hexdigest()
    (folder / "bundle.toml").write_text(
        f'format = 1\nname = "{name or folder.name}"\nwidth = {width}\nlogit_scale = 100.0\n'
        f'[image]\nfile = "image.pt"\nsize = {size}\nmean = [0.5, 0.5, 0.5]\n'
        f'std = [0.25, 0.25, 0.25]\nresize = "shortest-side"\nresize_to = {size}\n'
        f'interpolation = "bicubic"\n[files]\n"image.pt" = "{digest}"\n'
    )
    return folder


def fingerprint(folder: Path) -> str:
    """What versions made with the bundle record."""
    return hashlib.sha256((folder / "bundle.toml").read_bytes()).hexdigest()
