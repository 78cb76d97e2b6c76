"""What the rows are held against, in plain PyTorch: the bare encoder, the formula, the card."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def wait(device: torch.device) -> None:
    """For all work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(
    device: torch.device, run: Callable[[], object], budget: float, rounds: int = 7
) -> float:
    """Seconds of one call: the median over rounds of many calls, the device waited for."""

    def timed(calls: int) -> float:
        wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            run()
        wait(device)
        return (time.perf_counter() - started) / calls

    timed(3)
    calls = max(1, int(budget / rounds / max(timed(1), 1e-7)))
    return statistics.median(timed(calls) for _ in range(rounds))


@torch.inference_mode()
def bare_encoder(
    archive: Path, device: torch.device, dtype: str, batches: list[int], size: int, budget: float
) -> dict[int, float]:
    """Pictures a second of the TorchScript forward, input on the device, by batch size."""
    module = torch.jit.load(archive, map_location=device).to(DTYPES[dtype]).eval()
    rates = {}
    for batch in batches:
        pixels = torch.randn(batch, 3, size, size, device=device, dtype=DTYPES[dtype])
        rates[batch] = batch / seconds(device, lambda x=pixels: module(x), budget)
    return rates


@torch.inference_mode()
def bare_latency(archive: Path, device: torch.device, dtype: str, size: int, calls: int) -> float:
    """Median seconds of the TorchScript forward of one picture, waited for each time."""
    module = torch.jit.load(archive, map_location=device).to(DTYPES[dtype]).eval()
    pixels = torch.randn(1, 3, size, size, device=device, dtype=DTYPES[dtype])
    spent = []
    for _ in range(calls + 10):
        wait(device)
        started = time.perf_counter()
        module(pixels)
        wait(device)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[10:])


@torch.inference_mode()
def plain_head(
    device: torch.device, dtype: str, batch: int, classes: int, keys: int, width: int, budget: float
) -> float:
    """Seconds of the formula as Tip-Adapter's authors write it, one-hot values and all."""
    kind = DTYPES[dtype]

    def unit(rows: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(rows, width, device=device), dim=1)

    f, k, w = unit(batch).to(kind), unit(keys).to(kind).T, unit(classes).to(kind).T
    labels = torch.arange(keys, device=device) % classes
    values = torch.zeros(keys, classes, device=device, dtype=kind)
    values.scatter_(1, labels[:, None], 1)

    def logits() -> torch.Tensor:
        affinity = f @ k
        cache = ((-1) * (5.5 - 5.5 * affinity)).exp() @ values
        return 100.0 * f @ w + 1.0 * cache

    spent = seconds(device, logits, budget)
    if device.type == "cuda":
        # What is measured next runs in another process.
        torch.cuda.empty_cache()
    return spent


def copied(device: torch.device, length: int, budget: float) -> float:
    """Bytes a second of a copy of that many float32, read and written."""
    source = torch.randn(length, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * length / seconds(device, lambda: target.copy_(source), budget)


@torch.inference_mode()
def ceilings(device: torch.device, quick: bool, budget: float) -> dict[str, float]:
    """Bytes a second of a copy (read and written), and operations a second of a product."""
    found = {"bytes": copied(device, (1 << 22) if quick else (1 << 30), budget)}
    side = 256 if quick else 8192
    for name, kind in DTYPES.items():
        if device.type == "cpu" and kind != torch.float32:
            continue
        a = torch.randn(side, side, device=device).to(kind)
        b = torch.randn(side, side, device=device).to(kind)
        found[name] = 2 * side**3 / seconds(device, lambda a=a, b=b: a @ b, budget)
    return found


def head_floor(
    ceilings: dict[str, float], dtype: str, batch: int, classes: int, keys: int, width: int
) -> float:
    """The seconds below which no head goes: bytes or operations, the larger.

    Bytes: keys and linear part read once, logits written once. Operations: the two products with
    the features; the sums and exponentials are left out.
    """
    size = 4 if dtype == "float32" else 2
    moved = size * keys * width + 4 * classes * width + 4 * batch * (classes + width)
    products = 2 * batch * keys * width / ceilings.get(dtype, ceilings["float32"])
    linear = 2 * batch * classes * width / ceilings["float32"]
    return max(moved / ceilings["bytes"], products + linear)
