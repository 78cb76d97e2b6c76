"""Processor time of encoders on one thread, taking turns on the same pictures."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from runtimes import Runtime

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from measure import say

Pixels = np.ndarray


def pictures(count: int, side: int, seed: int) -> Pixels:
    """Normalised, f32 [count, 3, side, side]: fields whose spectrum falls as a photograph's."""
    rng = np.random.default_rng(seed)
    high, wide = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.sqrt(high**2 + wide**2).clip(1 / side)
    shape = (count, 3, side, side // 2 + 1)
    waves = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency
    field = np.fft.irfft2(waves, s=(side, side))
    return (field / field.std(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


def cosine(got: np.ndarray, want: np.ndarray) -> float:
    """The least of the rows'."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    return float(((got * want).sum(axis=1) / lengths).min())


def noise(got: np.ndarray, want: np.ndarray) -> float:
    """Mean squared difference of unit features over the variance of those that are wanted, as the
    export judges 8-bit archives (tipserve_export/int8/agreement.py).
    """
    got, want = (it.astype(np.float64) for it in (got, want))
    got, want = (it / np.linalg.norm(it, axis=1, keepdims=True) for it in (got, want))
    spread = ((want - want.mean(axis=0)) ** 2).sum(axis=1).mean()
    return float(((got - want) ** 2).sum(axis=1).mean() / spread)


def measured(
    runtimes: list[Runtime], batches: list[Pixels], rounds: int
) -> dict[str, dict[int, float]]:
    """Seconds of a core for a picture, by runtime and batch size."""
    least = {runtime.name: {} for runtime in runtimes}
    for x in batches:
        for runtime in runtimes:
            runtime.features(x)
        for _ in range(rounds):
            for runtime in runtimes:
                laid_out = runtime.lay_out(x)
                started = time.process_time()
                runtime.run(laid_out)
                took = (time.process_time() - started) / len(x)
                of = least[runtime.name]
                of[len(x)] = min(took, of.get(len(x), took))
        say(
            f"batch {len(x)}: "
            + ", ".join(f"{n} {1e3 * it[len(x)]:.1f}" for n, it in least.items())
        )
    return least
