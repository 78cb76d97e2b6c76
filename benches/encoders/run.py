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
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from processor_time import cosine, measured, noise, pictures
from runtimes import Runtime, onnx_int8, openvino_int8, torch_archive

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from measure import ROOT, Row, machine, say
from run import exported, table

# glibc is to keep what a batch frees, as the server's allocator does: otherwise large batches
# measure page faults. It reads this as a process starts.
KEEP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 40)}


def rows(
    ours: str,
    runtimes: list[Runtime],
    least: dict[str, dict[int, float]],
    agreement: dict[str, float],
    noises: dict[str, float],
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
                    ours_noise=noises[ours],
                    peer_noise=noises[runtime.name],
                )
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="default: ViT-B/32's shape, random weights")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calibration", type=int, default=64, help="pictures for NNCF")
    parser.add_argument("--quick", action="store_true", help="batches of 1, one round")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/encoders.json")
    arguments = parser.parse_args()
    if not KEEP.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP)
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
        calibration = pictures(arguments.calibration, side, 1)
        say("preparing the runtimes")
        runtimes = [
            torch_archive("tipserve int8", int8, torch.float32),
            torch_archive("tipserve bfloat16", archive, torch.bfloat16),
            openvino_int8(archive, calibration),
            onnx_int8(archive, calibration[:1], Path(folder)),
        ]
        # A single picture first, as the server warms up: oneDNN keeps the first size's kernels.
        for runtime in runtimes:
            runtime.features(pictures(1, side, 3))
        checked = [pictures(8, side, seed) for seed in range(2, 6)]
        plain = torch_archive("float32", archive, torch.float32)
        want = np.concatenate([plain.features(it) for it in checked])
        found = {it.name: np.concatenate([it.features(x) for x in checked]) for it in runtimes}
        agreement = {name: cosine(rows, want) for name, rows in found.items()}
        noises = {name: noise(rows, want) for name, rows in found.items()}
        sizes = [1] if arguments.quick else [int(n) for n in arguments.batches.split(",")]
        batches = [pictures(size, side, 3) for size in sizes]
        least = measured(runtimes, batches, 1 if arguments.quick else arguments.rounds)
    table_rows = rows("tipserve int8", runtimes, least, agreement, noises)

    print(f"machine: {machine()}; load: {os.getloadavg()[0]:.1f}; {time.strftime('%Y-%m-%d')}")
    print(f"bundle:  {bundle.name}; one thread, milliseconds of a core a picture")
    for runtime in runtimes:
        figures = "  ".join(f"{1e3 * it:6.1f}" for it in least[runtime.name].values())
        print(
            f"{runtime.name:<28} {figures}   cosine {agreement[runtime.name]:.5f}  "
            f"noise {noises[runtime.name]:.4f}"
        )
    print()
    print(table(table_rows))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    common = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "bundle": bundle.name}
    documents = [dataclasses.asdict(row) | common for row in table_rows]
    arguments.out.write_text(json.dumps(documents, indent=2) + "\n")
    return 0 if all(row.ok for row in table_rows) else 1


if __name__ == "__main__":
    sys.exit(main())
