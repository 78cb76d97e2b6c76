"""The encoder against the runtimes that people would take instead.

    .venv-bench/bin/python benches/encoders/run.py [--bundle DIR] [--batches 1,8,32] [--quick]

One process, one thread, and processor time, because wall-clock time says little on a machine that
others use; all take turns, the least of the rounds counts. Ours is the bundle's archive as the
server runs it, in 8 bits and in bfloat16; OpenVINO's 8 bits are NNCF's post-training quantisation
of the same network, ONNX Runtime's its dynamic quantisation, both with a scale for each channel.
The rows go to target/bench/encoders.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from runtimes import Runtime, onnx_int8, openvino_int8, torch_archive

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from measure import ROOT, Row, machine, say
from run import exported, table

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


def seconds_a_picture(run: Callable[[Pixels], np.ndarray], x: Pixels) -> float:
    """Processor time of one call, over its pictures."""
    started = time.process_time()
    run(x)
    return (time.process_time() - started) / len(x)


def cosine(got: np.ndarray, want: np.ndarray) -> float:
    """The least of the rows'."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    return float(((got * want).sum(axis=1) / lengths).min())


def measured(
    runtimes: list[Runtime], batches: list[Pixels], rounds: int
) -> dict[str, dict[int, float]]:
    """Seconds of a core for a picture, by runtime and batch size."""
    least = {runtime.name: {} for runtime in runtimes}
    for x in batches:
        for runtime in runtimes:
            runtime.run(x)
        for _ in range(rounds):
            for runtime in runtimes:
                took = seconds_a_picture(runtime.run, x)
                of = least[runtime.name]
                of[len(x)] = min(took, of.get(len(x), took))
        say(
            f"batch {len(x)}: "
            + ", ".join(f"{n} {1e3 * it[len(x)]:.1f}" for n, it in least.items())
        )
    return least


def rows(
    ours: str, runtimes: list[Runtime], least: dict[str, dict[int, float]], agreement: dict
) -> list[Row]:
    """Ours over each peer's, for every batch size."""
    found = []
    for runtime in runtimes:
        if not runtime.peer:
            continue
        for batch, seconds in least[runtime.name].items():
            found.append(
                Row.of(
                    f"{ours} over {runtime.name}, batch {batch}, pictures a core second",
                    [seconds / least[ours][batch]],
                    ">= 1.0",
                    lambda value: value >= 1.0,
                    ours_ms=1e3 * least[ours][batch],
                    peer_ms=1e3 * seconds,
                    ours_cosine=agreement[ours],
                    peer_cosine=agreement[runtime.name],
                )
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="default: ViT-B/32's shape, random weights")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="batches of 1, one round")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/encoders.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    bundle = (arguments.bundle or exported()).resolve()
    with tempfile.TemporaryDirectory() as folder:
        archive = bundle / "image.pt"
        int8 = bundle / "image.int8.pt"
        if not int8.is_file():
            parser.error(f"{bundle} has no 8-bit archive: python -m tipserve_export int8 {bundle}")
        manifest = (bundle / "bundle.toml").read_text()
        side = int(manifest.split("\nsize = ")[1].split("\n")[0])
        calibration = pictures(64, side, 1)
        say("preparing the runtimes")
        runtimes = [
            torch_archive("tipserve int8", int8, torch.float32),
            torch_archive("tipserve bfloat16", archive, torch.bfloat16),
            openvino_int8(archive, calibration),
            onnx_int8(archive, calibration[:1], Path(folder)),
        ]
        checked = pictures(8, side, 2)
        want = torch_archive("float32", archive, torch.float32).run(checked)
        agreement = {it.name: cosine(it.run(checked), want) for it in runtimes}
        sizes = [1] if arguments.quick else [int(n) for n in arguments.batches.split(",")]
        batches = [pictures(size, side, 3) for size in sizes]
        least = measured(runtimes, batches, 1 if arguments.quick else arguments.rounds)
    found = rows("tipserve int8", runtimes, least, agreement)

    print(f"machine: {machine()}; load: {os.getloadavg()[0]:.1f}; {time.strftime('%Y-%m-%d')}")
    print(f"bundle:  {bundle.name}; one thread, milliseconds of a core a picture")
    for runtime in runtimes:
        figures = "  ".join(f"{1e3 * it:6.1f}" for it in least[runtime.name].values())
        print(f"{runtime.name:<28} {figures}   cosine {agreement[runtime.name]:.5f}")
    print()
    print(table(found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    common = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "bundle": bundle.name}
    documents = [dataclasses.asdict(row) | common for row in found]
    arguments.out.write_text(json.dumps(documents, indent=2) + "\n")
    return 0 if all(row.ok for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
