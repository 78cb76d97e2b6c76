"""How soon probes are answered while peers do their worst.

    python benches/latency/probes.py [--bundle DIR] [--seconds S] [--only LOAD ...]

A server with default settings is asked for /healthz (a connection each time, as kubelets do it)
and by gRPC's health check (one connection), in turns every few milliseconds: with nothing to do,
then under each load of hostile_loads.py, with nothing to do again, and so on. Prints median, 99th
percentile and greatest of both, and each percentile over that of the idle server. The load "busy
cores" never touches the server: what it does to the probes, the machine does. The same as JSON in
target/bench/probe_latency.json. Fails if a 99th percentile is over 100 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/engine"))

import measure  # noqa: E402
from hostile_loads import LOADS  # noqa: E402

GOAL = 0.1
SERVING = b"\x08\x01"


@dataclass
class Latencies:
    """Seconds that each probe took."""

    healthz: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)

    def measure(self, server: measure.Server, check, seconds: float) -> None:
        """Asks for both in turns."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            one = http.client.HTTPConnection(server.probes, timeout=60)
            one.request("GET", "/healthz")
            assert one.getresponse().read() == b"ok\n"
            one.close()
            self.healthz.append(time.perf_counter() - started)
            started = time.perf_counter()
            assert check(b"", timeout=60) == SERVING
            self.health.append(time.perf_counter() - started)
            time.sleep(0.005)

    def figures(self) -> dict[str, list[float]]:
        """Median, 99th percentile and greatest of each."""
        return {
            name: [*np.percentile(took, [50, 99]).tolist(), max(took)]
            for name, took in (("/healthz", self.healthz), ("gRPC health", self.health))
        }


@contextlib.contextmanager
def load(name: str, address: str) -> Iterator[subprocess.Popen]:
    """A load that ends with the block, its processes too."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("hostile_loads.py"), name, address],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def idle(server: measure.Server) -> None:
    """Waits until the server has nothing to do, and a moment longer."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        before = server.cpu_seconds()
        time.sleep(1)
        busy = server.cpu_seconds() - before
        if server.metrics()["tipserve_in_flight_requests"] == 0 and busy < 0.1:
            return
    measure.say("the server is still busy: its idle figures are not quite idle")


def under_loads(server: measure.Server, names: list[str], seconds: float, idle_too: Latencies):
    """The latencies by load; those of the idle server in between are added to `idle_too`."""
    found: dict[str, Latencies] = {}
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in names:
            idle(server)
            idle_too.measure(server, check, seconds / 2)
            measure.say(name)
            with load(name, server.address) as process:
                # Until it has begun, its own imports included.
                time.sleep(4)
                found[name] = Latencies()
                found[name].measure(server, check, seconds)
                if process.poll() is not None:
                    raise SystemExit(f"the load {name!r} ended by itself")
    return found


def rows_of(found: dict[str, Latencies], alone: dict[str, list[float]]) -> list[dict]:
    """A row for each load and probe."""
    rows = []
    for name, latencies in found.items():
        for probe, (median, late, most) in latencies.figures().items():
            judged = name not in ("nothing", "busy cores")
            ratios = [median / alone[probe][0], late / alone[probe][1]]
            print(
                f"{name:<24} {probe:<12} {1e3 * median:8.2f} {1e3 * late:8.2f} {1e3 * most:8.2f}"
                f"   {ratios[0]:6.2f} {ratios[1]:6.2f}"
                f"  {'MISSED' if judged and late > GOAL else ''}".rstrip()
            )
            rows.append(
                {
                    "row": f"99th percentile of {probe} under {name}",
                    "value": late,
                    "unit": "s",
                    "goal": f"<= {GOAL}" if judged else "shown",
                    "ok": not judged or late <= GOAL,
                    "details": {"median": median, "greatest": most, "over idle": ratios},
                }
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles/demo")
    parser.add_argument("--seconds", type=float, default=8, help="of each load")
    parser.add_argument("--only", action="append", choices=LOADS, metavar="LOAD")
    arguments = parser.parse_args()
    names = arguments.only or list(LOADS)
    before = os.getloadavg()[0]

    alone = Latencies()
    found = {"nothing": alone}
    with measure.server(arguments.bundle) as server:
        others = [name for name in names if name != "unread log"]
        found |= under_loads(server, others, arguments.seconds, alone)
    if "unread log" in names:
        reader, writer = os.pipe()
        with tempfile.TemporaryDirectory() as folder:
            server = measure.Server(
                arguments.bundle,
                Path(folder) / "store",
                stderr=writer,
                env={"RUST_LOG": "trace"},
            )
            try:
                found |= under_loads(server, ["unread log"], arguments.seconds, Latencies())
            finally:
                server.stop()
        for end in (reader, writer):
            os.close(end)

    print(f"machine: {measure.machine()}; load before: {before:.1f}; {time.strftime('%Y-%m-%d')}")
    print(f"{'load':<24} {'probe':<12} {'median':>8} {'p99':>8} {'max':>8}   over idle: p50, p99")
    rows = rows_of(found, alone.figures())
    out = ROOT / "target/bench/probe_latency.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"milliseconds; {len(rows)} rows in {out}")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
