"""Factors that make large channels of activations smaller before they become 8 bits.

Trained transformers have channels whose values are a hundred times the others'. With one scale for
each call these leave the others a few levels of 256. As SmoothQuant does (Xiao et al., ICML 2023,
equation 4), a linear layer's input channel j is divided by s_j = max|x_j|^α / max|W_j|^(1 − α), and
its weights are multiplied by it: the product is the same, and the weights, which have a scale for
each output, take over a part of the range.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

STRENGTHS = (0.5, 0.75)
"""α: SmoothQuant's own, and one that takes more off the activations."""

LEAST_RANGE = 1e-5
"""As in SmoothQuant's code: what is nearly 0 has a factor all the same."""


@dataclass(frozen=True)
class Smoothing:
    """The largest magnitude of each input channel of the linear layers, by :func:`key`."""

    ranges: dict[tuple[int, ...], Tensor]
    strength: float

    def factors(self, weights: list[Tensor]) -> Tensor | None:
        """The input's s, if layers with these weights [out, in] share it; None if it never ran."""
        seen = [self.ranges[key(weight)] for weight in weights if key(weight) in self.ranges]
        if len(seen) != len(weights):
            return None
        largest = torch.stack(seen).amax(dim=0).clamp(min=LEAST_RANGE)
        of_weights = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)
        of_weights = of_weights.clamp(min=LEAST_RANGE)
        s = largest.pow(self.strength) / of_weights.pow(1 - self.strength)
        return s.clamp(min=LEAST_RANGE).float()


def key(weight: Tensor) -> tuple[int, ...]:
    """What tells a layer of a frozen graph from all others: where its weights lie."""
    return (weight.data_ptr(), *weight.shape)


def ranges(module: torch.jit.ScriptModule, batches: Iterable[Tensor]) -> dict[Any, Tensor]:
    """The largest magnitude of each input channel of a frozen module's linear layers."""
    watch = _Watch()
    # In inference mode a linear layer is one operator, not what it is made of.
    with torch.inference_mode():
        for batch in batches:
            with watch:
                module(batch)
    return watch.found


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[int, ...], Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.linear.default:
            x, weight = args[0], args[1]
            largest = x.abs().reshape(-1, x.shape[-1]).amax(dim=0)
            known = self.found.get(key(weight))
            self.found[key(weight)] = largest if known is None else torch.maximum(known, largest)
        return func(*args, **(kwargs or {}))
