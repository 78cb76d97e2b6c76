"""Several encoders' features side by side, each normalised and with a weight of its own.

With unit features f_i and weights w_i that sum to 1 a picture is [√w_1·f_1; √w_2·f_2; …], so
that the cosine of two pictures is Σ w_i·cos_i. A text is [t; 0; …] on the part that has text: its
cosine to a picture is √w_1 times that of the part alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Part(nn.Module):
    """One encoder, on its own rectangle of the canvas of levels from 0 to 1."""

    def __init__(
        self,
        encoder: nn.Module,
        top: int,
        sides: tuple[int, int],
        mean: Tensor,
        std: Tensor,
        weight: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.top = top
        self.height, self.width = sides
        self.scale = nn.Parameter((1 / std.double()).float().reshape(1, 3, 1, 1))
        self.shift = nn.Parameter((mean.double() / std.double()).float().reshape(1, 3, 1, 1))
        self.factor = weight**0.5

    def forward(self, canvas: Tensor) -> Tensor:
        """Weighted unit features of canvas [B, 3, height, width]."""
        own = canvas[:, :, self.top : self.top + self.height, : self.width]
        features = self.encoder(own * self.scale - self.shift)
        return F.normalize(features, dim=1) * self.factor


class SideBySideImage(nn.Module):
    """A canvas with each encoder's picture to all features [B, Σ D_i]."""

    def __init__(self, parts: list[Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, canvas: Tensor) -> Tensor:
        """The parts' features, one behind the other."""
        features: list[Tensor] = []
        for part in self.parts:
            features.append(part(canvas))
        return torch.cat(features, dim=1)


class SideBySideText(nn.Module):
    """Token ids to the text features of one part, zeros in the others' places."""

    def __init__(self, encoder: nn.Module, before: int, behind: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.before = before
        self.behind = behind

    def forward(self, ids: Tensor) -> Tensor:
        """[n, before + D + behind]."""
        return F.pad(self.encoder(ids), (self.before, self.behind))
