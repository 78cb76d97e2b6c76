"""Latency of classification with and without a fine-tuning run beside it.

    python benches/latency/finetune.py [--bundle DIR] [--seconds S]

A server of its own classifies pictures one after another (closed loop, one
client), in turns with and without a fine-tuning run of ImageNet-16's size
(N = 1,000, M = 16,000) on the same device. Prints p50 and p99 of both, and
their ratio; the same as JSON in target/bench/finetune_latency.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tipserve import Client, Example

ROOT = Path(__file__).resolve().parents[2]
CLASSES, SHOTS = 1000, 16
ROUNDS = 3


@contextlib.contextmanager
def server(bundle: Path):
    """The address of a server that ends with the block."""
    with tempfile.TemporaryDirectory() as store:
        process = subprocess.Popen(
            [
                ROOT / "target/release/tipserve",
                "serve",
                *("--bundle", bundle, "--store", store),
                *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield process.stdout.readline().split("serving on ")[1].split()[0]
        finally:
            process.terminate()
            process.wait(timeout=60)


def pictures(rng: np.random.Generator, count: int) -> list[bytes]:
    """JPEG files of 400 × 300 pixels."""
    files = []
    for _ in range(count):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((400, 300), Image.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def latencies(client: Client, files: list[bytes], seconds: float) -> list[float]:
    """Seconds that each picture took, one after another."""
    took = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        client.classify_one("pictures", files[len(took) % len(files)])
        took.append(time.perf_counter() - started)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles/demo")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()

    rng = np.random.default_rng()
    files = pictures(rng, 32)
    quiet: list[float] = []
    busy: list[float] = []
    with server(arguments.bundle) as address, Client(address) as client:
        width = client.server_info().bundle.width
        centres = rng.standard_normal((CLASSES, width))
        client.create_cache(
            "pictures",
            [Example(i % 4, file, id=str(i)) for i, file in enumerate(files)],
            classes=[f"class {i}" for i in range(4)],
            method="tip_adapter",
            alpha=1,
            beta=5.5,
        )
        client.create_cache(
            "large",
            (
                Example(
                    class_=c,
                    picture=(centres[c] + rng.standard_normal(width)).astype(np.float32),
                    id=f"{c}/{k}",
                )
                for c in range(CLASSES)
                for k in range(SHOTS)
            ),
            classes=[f"class {i}" for i in range(CLASSES)],
            without_text=True,
            method="tip_adapter",
            alpha=1,
            beta=5.5,
        )
        for _ in range(ROUNDS):
            quiet += latencies(client, files, arguments.seconds)
            run = client.finetune("large@1", epochs=1000, detached=True)
            time.sleep(1)
            busy += latencies(client, files, arguments.seconds)
            run.cancel()

    rows = []
    print(f"machine: {platform.processor() or platform.machine()}, {platform.node()}")
    for name, share in (("p50", 50), ("p99", 99)):
        alone, beside = np.percentile(quiet, share), np.percentile(busy, share)
        print(f"{name}: {alone * 1e3:8.1f} ms alone, {beside * 1e3:8.1f} ms beside training")
        rows.append(
            {
                "row": f"{name} of classification beside training over alone",
                "value": beside / alone,
                "goal": "shown",
                "ok": True,
            }
        )
    out = ROOT / "target/bench/finetune_latency.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2))
    print(f"{len(quiet)} and {len(busy)} pictures; rows in {out}")


if __name__ == "__main__":
    main()
