"""The engine's table: what a server makes of the machine.

    python benches/engine/run.py [--bundle DIR] [--only ROW ...] [--quick]

Every row is a ratio of two things measured in this run, in turns and repeated; the median is
shown, with the smallest and largest. Servers are processes of their own on free ports, as they
come; the load is `tipserve bench` through ClassifyStream. The rows as JSON, with what lies behind
them, go to target/bench/engine.json; rows of other runs that this one did not measure are kept out
of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import measure
from measure import ROOT, Row, exported, report
from rows import ROWS, Bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="default: ViT-B/32's shape, random weights")
    parser.add_argument(
        "--only", action="append", choices=ROWS, metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--quick", action="store_true", help="one short round, fewer caches")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/engine.json")
    arguments = parser.parse_args()

    bundle = (arguments.bundle or exported()).resolve()
    date = time.strftime("%Y-%m-%d")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            bundle=bundle,
            folder=Path(folder),
            rounds=1 if arguments.quick else arguments.rounds,
            seconds=5 if arguments.quick else arguments.seconds,
            quick=arguments.quick,
            dtype=arguments.dtype,
        )
        with bench.server() as running, measure.Client(running.address) as client:
            info = client.server_info()
        before = os.getloadavg()[0]
        for name in arguments.only or ROWS:
            rows += ROWS[name](bench)

    print(f"command: python benches/engine/run.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {measure.machine()}; load before: {before:.1f}")
    print(f"date:    {date}")
    print(f"bundle:  {info.bundle.name}, width {info.bundle.width}, {info.device}, {info.dtype}")
    print()

    common = {
        "machine": measure.machine(),
        "date": date,
        "bundle": info.bundle.name,
        "dtype": info.dtype,
        "load_before": before,
    }
    return report(rows, common, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
