"""tipserve beside what one would use instead: JPEG to label, the same network and the same head.

    python benches/alternatives/run.py [--only NAME ...] [--seconds S] [--rounds N] [--device cuda]

LitServe, Triton (through PyTriton), TorchServe and a plain script each serve the bundle's
TorchScript encoder with a Tip-Adapter head in torch (classifier.py, which all of them share), each
in the layout that was quickest for it in a trial beforehand. tipserve is measured twice: in the
others' number format, where its answers must be theirs, and as it comes. All answer the same HTTP
load (load.py), a picture a request, each started anew for its turn. JSON in
target/bench/alternatives.json.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from load import Target, answers, closed, open_loop
from servers import SERVERS, Classified, Layout, save_cache, script, tipserve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
import measure
from measure import CORES, ROOT, Row, exported, report, say

CONCURRENCY = 64
# Seconds that a caller waits under overload, and how much more than a server can do it is asked.
DEADLINE, OVERLOAD = 1.0, 3.0
SCRIPT, SAME, DEFAULT = "a script", "tipserve in the same format", "tipserve as it comes"
PACKAGES = ("torch", "litserve", "nvidia-pytriton", "torchserve")


@dataclass
class Turn:
    """What one server did in one turn."""

    per_second: float
    # Seconds from request to answer, one caller alone, median.
    single: float
    # Of 64 callers.
    p99: float
    in_time: float
    resident: int
    seconds_to_ready: float
    client_cores: float
    top: list


# A server in a layout, until the block ends; tipserve has none to choose.
Start = Callable[[Layout], contextlib.AbstractContextManager]


def turn(start: Start, layout: Layout, seconds: float) -> Turn:
    """One server, started, loaded and stopped; set up for its callers' deadline under overload."""
    with start(layout) as running:
        target: Target = running.target
        top = answers(target)
        one = closed(target, 1, seconds / 2, warmup=1)
        full = closed(target, CONCURRENCY, seconds, warmup=3)
        resident = running.resident()
        ready = running.seconds_to_ready
    rate = full.steady_per_second
    with start(layout.for_deadline(DEADLINE, rate)) as running:
        over = open_loop(running.target, OVERLOAD * rate, seconds, 4, DEADLINE)
    return Turn(
        per_second=rate,
        single=statistics.median(one.latencies),
        p99=full.percentile(99),
        in_time=over.per_second / rate,
        resident=resident,
        seconds_to_ready=ready,
        client_cores=full.client_cpu_seconds / (seconds + 3),
        top=top,
    )


def layouts(device: str) -> list[Layout]:
    """What is tried for each alternative."""
    if device == "cpu":
        shapes = {(CORES, 1), (1, CORES), (max(1, CORES // 2), 2)}
        shapes = {shape for shape in shapes if shape[0] * shape[1] <= CORES}
        return [Layout(*shape, batch) for shape in sorted(shapes) for batch in (8, 32)]
    return [Layout(workers, 1, batch) for workers in (1, 3) for batch in (32, 128)]


def best_layout(name: str, of: Classified, pictures: Path, seconds: float) -> Layout:
    """The layout in which an alternative classifies the most pictures a second."""
    rates = {}
    for layout in layouts(of.device):
        if name == SCRIPT:
            if layout.workers == 1:
                rates[layout] = script(of, layout, pictures, seconds)
            continue
        with SERVERS[name](of, layout) as running:
            rates[layout] = closed(running.target, CONCURRENCY, seconds, 2).steady_per_second
    for layout, rate in rates.items():
        say(f"{name}: {layout}: {rate:.1f} pictures a second")
    return max(rates, key=rates.__getitem__)


def largest_difference(ours: list, theirs: list) -> float:
    """Of a class's logit, over all pictures and their best classes."""
    return max(
        abs(logit - dict(other).get(name, float("inf")))
        for mine, other in zip(ours, theirs, strict=True)
        for name, logit in mine[:3]
    )


def judged(goal: float | None) -> tuple[str, Callable[[float], bool]]:
    """A goal in words, and whether a value reaches it; no goal: shown."""
    if goal is None:
        return "shown", lambda _: True
    return f">= {goal:g}", lambda value: value >= goal


def facts(turns: list[Turn]) -> dict:
    """What lies behind a server's rows."""
    return {
        "pictures_per_second": [it.per_second for it in turns],
        "single_ms": [it.single * 1e3 for it in turns],
        "p99_ms": [it.p99 * 1e3 for it in turns],
        "resident_mb": [it.resident / 1e6 for it in turns],
        "seconds_to_ready": [it.seconds_to_ready for it in turns],
        "client_cores": [it.client_cores for it in turns],
    }


def beside(name: str, turns: dict[str, list[Turn]], layout: Layout, dtype: str) -> list[Row]:
    """The rows that hold tipserve against one server."""
    others = turns[name]
    difference = max(
        largest_difference(mine.top, other.top)
        for mine, other in zip(turns[SAME], others, strict=True)
    )
    # In float16 two ways to sum differ by as much as the format's last digit, times β and a logit.
    bound = 1e-3 if dtype == "float32" else 0.5
    words = f"answers: {name}, largest difference of a logit"
    rows = [Row.of(words, [difference], f"<= {bound:g}", lambda value: value <= bound)]
    for us, goal in ((SAME, 1.0), (DEFAULT, None)):
        pairs = list(zip(turns[us], others, strict=True))
        speed = [mine.per_second / other.per_second for mine, other in pairs]
        latency = [other.single / mine.single for mine, other in pairs]
        rows += [
            Row.of(f"pictures a second: {us} over {name}", speed, *judged(goal)),
            Row.of(f"latency of one picture: {name} over {us}", latency, *judged(goal)),
        ]
    in_time = [it.in_time for it in others]
    words = f"in time at {OVERLOAD:g} x the load: {name}"
    rows.append(Row.of(words, in_time, *judged(None), layout=str(layout), **facts(others)))
    return rows


def measured(of: Classified, pictures: Path, arguments: argparse.Namespace) -> list[Row]:
    """Every alternative's rows: the layouts first, then all in turns."""
    names = arguments.only or [*SERVERS, SCRIPT]
    if shutil.which("java") is None and "TorchServe" in names:
        say("TorchServe is left out: it wants Java 17")
        names.remove("TorchServe")
    chosen = {name: best_layout(name, of, pictures, arguments.seconds / 2) for name in names}
    starts: dict[str, Start] = {
        SAME: lambda _: tipserve(of, "--dtype", of.dtype),
        DEFAULT: lambda _: tipserve(of),
    }
    for name in names:
        if name != SCRIPT:
            starts[name] = partial(SERVERS[name], of)
    turns: dict[str, list[Turn]] = {name: [] for name in starts}
    scripts = []
    for number in range(arguments.rounds):
        for name, start in starts.items():
            done = turn(start, chosen.get(name, Layout(1, 1)), arguments.seconds)
            turns[name].append(done)
            say(
                f"round {number + 1}: {name}: {done.per_second:.1f} a second, one in "
                f"{done.single * 1e3:.1f} ms, p99 {done.p99 * 1e3:.0f} ms, in time at "
                f"{OVERLOAD:g} x {done.in_time:.3f}, {done.resident / 1e6:.0f} MB, ready in "
                f"{done.seconds_to_ready:.1f} s, client {done.client_cores:.2f} cores"
            )
        if SCRIPT in names:
            scripts.append(script(of, chosen[SCRIPT], pictures, arguments.seconds))
            say(f"round {number + 1}: {SCRIPT}: {scripts[-1]:.1f} a second")

    rows = []
    for name in names:
        if name != SCRIPT:
            rows += beside(name, turns, chosen[name], of.dtype)
    if SCRIPT in names:
        for us, goal in ((SAME, 1.0), (DEFAULT, None)):
            ratios = [mine.per_second / its for mine, its in zip(turns[us], scripts, strict=True)]
            words = f"pictures a second: {us} over {SCRIPT}"
            rows.append(Row.of(words, ratios, *judged(goal), script_per_second=scripts))
    for us in (SAME, DEFAULT):
        in_time = [it.in_time for it in turns[us]]
        words = f"in time at {OVERLOAD:g} x the load: {us}"
        rows.append(Row.of(words, in_time, *judged(None), **facts(turns[us])))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="default: ViT-B/32's shape, random weights")
    parser.add_argument("--only", action="append", choices=[*SERVERS, SCRIPT])
    parser.add_argument("--device", default="cpu", help="as tipserve serve takes it: cpu, cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/alternatives.json")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = measure.pictures(folder / "pictures")
        of = Classified(
            bundle=(arguments.bundle or exported()).resolve(),
            cache=folder / "cache.npz",
            folder=folder,
            pictures=[file.read_bytes() for file in sorted(pictures.iterdir())],
            device=arguments.device,
            dtype="float32" if arguments.device == "cpu" else "float16",
        )
        save_cache(of)
        rows = measured(of, pictures, arguments)

    common = {
        "machine": measure.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(f"machine: {common['machine']}\ndate:    {common['date']}")
    print(", ".join(f"{name} {number}" for name, number in common["versions"].items()) + "\n")
    return report(rows, common, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
