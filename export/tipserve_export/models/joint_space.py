"""The demo's shared space of pictures and texts, after ConSE (Norouzi et al., ICLR 2014).

ConSE places a picture at the mean of its possible classes' name embeddings, weighted by the
classifier's probabilities. Here that is the second part of a picture's embedding; the first
is the classifier's own pooled features, which tell far more pictures apart:

    picture = [ p/|p| ; Σ_c softmax(logits)_c · (n_c − μ) ]      text = [ 0 ; n(text) − μ ]

with p the pooled features, n the unit-norm MiniLM embedding, n_c that of class c's name and μ
the mean over the classes. Text therefore meets the second part alone, and a cache uses both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class JointImage(nn.Module):
    """Normalised pixels [B, 3, S, S] to embeddings [B, pooled width + name width].

    The second part is not normalised: its length is the classifier's confidence, so that a
    picture that the classifier cannot name is told by its features.
    """

    def __init__(self, classifier: nn.Module, names: Tensor) -> None:
        super().__init__()
        self.classifier = classifier
        self.names = nn.Parameter(names - names.mean(dim=0))

    def forward(self, pixels: Tensor) -> Tensor:
        """The two parts side by side."""
        pooled, logits = self.classifier(pixels)
        share = torch.softmax(logits, dim=1, dtype=torch.float32).to(self.names.dtype)
        return torch.cat([F.normalize(pooled, dim=1), share @ self.names], dim=1)


class JointText(nn.Module):
    """Token ids [n, T] to embeddings [n, pooled width + name width]."""

    def __init__(self, encoder: nn.Module, names: Tensor, pooled_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean = nn.Parameter(names.mean(dim=0))
        self.pooled_width = pooled_width

    def forward(self, ids: Tensor) -> Tensor:
        """Zeros beside the centred text embedding."""
        return F.pad(self.encoder(ids) - self.mean, (self.pooled_width, 0))
