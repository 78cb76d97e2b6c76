"""Tip-Adapter's head as a user would write it: for the servers that tipserve is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


class Head:
    """logits = scale·f·Wᵀ (absent) + α·exp(−β(1 − f·Kᵀ))·V."""

    def __init__(self, file: Path, device: str = "cpu") -> None:
        arrays = np.load(file)
        keys = torch.from_numpy(arrays["keys"]).float().to(device)
        self.keys = torch.nn.functional.normalize(keys, dim=1).T.contiguous()
        labels = torch.from_numpy(arrays["labels"]).to(device)
        self.names = [str(name) for name in arrays["classes"]]
        self.values = torch.nn.functional.one_hot(labels, len(self.names)).float()
        self.alpha, self.beta = float(arrays["alpha"]), float(arrays["beta"])

    @torch.inference_mode()
    def __call__(self, rows: torch.Tensor, top_k: int) -> tuple[list, list, list]:
        """Of unnormalised rows [B, D]: indices, logits and probabilities of the best, as lists."""
        features = torch.nn.functional.normalize(rows, dim=1)
        affinity = features @ self.keys
        affinity.sub_(1).mul_(self.beta).exp_()
        logits = (affinity @ self.values).mul_(self.alpha)
        probabilities = logits.softmax(1)
        best, index = logits.topk(min(top_k, len(self.names)), dim=1)
        return index.tolist(), best.tolist(), probabilities.gather(1, index).tolist()
