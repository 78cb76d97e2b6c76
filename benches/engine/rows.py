"""The rows of the table. Each takes a `Bench` and gives one `Row` or several; two things that are
divided by each other are measured in turns, in the same run."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import measure
import numpy as np
from http_rows import over_http
from measure import (
    CLASSES,
    CORES,
    MAX_BATCH,
    ONE,
    SHOTS,
    Row,
    load,
    make_caches,
    plain_server,
    say,
    server,
)
from process_rows import memory, start


@dataclass
class Bench:
    """What all rows are measured with."""

    bundle: Path
    folder: Path
    rounds: int
    seconds: float
    quick: bool
    dtype: str

    @cached_property
    def pictures(self) -> Path:
        """Pictures, made once."""
        return measure.pictures(self.folder / "pictures")

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of the server: none but the dtype."""
        return ("--dtype", self.dtype)

    def server(self, *flags: str):
        """A server with the bundle and default settings."""
        return server(self.bundle, *self.flags, *flags)

    def closed(self, address: str, *flags, seconds: float | None = None) -> dict:
        """The pictures, closed loop, with more on their way than the engine can hold in batches."""
        on_their_way = MAX_BATCH * CORES * 4
        return load(
            address,
            *(self.pictures, "--concurrency", on_their_way),
            *("--duration", seconds or self.seconds, "--warmup", 2),
            *(flags or ("--cache", ONE)),
        )

    def ceiling(self, batches: list[int]) -> dict:
        """The machine without a server."""
        seconds = 1 if self.quick else 3
        return measure.ceiling(self.bundle, self.pictures, seconds, batches, self.dtype)


def name(layout: dict) -> str:
    """A layout in words."""
    return f"{layout['workers']} workers x {layout['threads']} threads, batch {layout['batch']}"


def speed(bench: Bench) -> list[Row]:
    """JPEG to label over the ceiling."""
    batches = [1, 8, MAX_BATCH] if bench.quick else [1, 2, 4, 8, 16, MAX_BATCH]
    ceilings, loads, server_cpu = [], [], []
    for turn in range(bench.rounds):
        say(f"speed, round {turn + 1}: the ceiling")
        ceilings.append(bench.ceiling(batches))
        say(f"speed, round {turn + 1}: the server")
        # A server for each turn: one that idles takes nothing from the
        # ceiling, but its weights would be in memory twice.
        with bench.server() as running:
            make_caches(running.address, [ONE])
            before = running.cpu_seconds()
            loads.append(bench.closed(running.address, "--cache", ONE, "--timings"))
            spent = running.cpu_seconds() - before
            server_cpu.append(spent / items(loads[-1]))

    encode = {
        name(layout): [
            next(it for it in each["layouts"] if name(it) == name(layout))["pictures_per_second"]
            for each in ceilings
        ]
        for layout in ceilings[0]["layouts"]
    }
    best = max(encode, key=lambda layout: statistics.median(encode[layout]))

    def bound(turn: int, more: float) -> float:
        """Pictures a second if the cores did nothing else (but `more` seconds a picture)."""
        core_time = CORES / encode[best][turn] + ceilings[turn]["decode_core_seconds"] + more
        return CORES / core_time

    rates = [each["answers_per_second"] for each in loads]
    clients = [each["client_cpu_seconds_per_item"] for each in loads]
    turns = range(bench.rounds)
    details = {
        "dtype": ceilings[0]["dtype"],
        "best_layout": best,
        "encoder_alone_per_second": {key: statistics.median(it) for key, it in encode.items()},
        "turbojpeg_core_ms": statistics.median(c["turbojpeg_core_seconds"] for c in ceilings) * 1e3,
        "decode_core_ms": statistics.median(c["decode_core_seconds"] for c in ceilings) * 1e3,
        "ceiling_per_second": [bound(turn, 0) for turn in turns],
        "server_per_second": rates,
        "client_core_ms_per_picture": statistics.median(clients) * 1e3,
        "server_core_ms_per_picture": statistics.median(server_cpu) * 1e3,
        "mean_batch": statistics.median(it["server_seconds"]["batch_size"] for it in loads),
        "p50_seconds": statistics.median(it["latency_seconds"]["p50"] for it in loads),
    }
    return [
        Row.of(
            "JPEG to label over the ceiling, client on the same cores",
            [rates[turn] / bound(turn, 0) for turn in turns],
            ">= 0.95",
            lambda value: value >= 0.95,
            **details,
        ),
        Row.of(
            "JPEG to label over the ceiling less the client's own cost",
            [rates[turn] / bound(turn, clients[turn]) for turn in turns],
            "shown",
            lambda _: True,
        ),
        Row.of(
            "decoding, resizing and cropping over libjpeg-turbo's decoding alone",
            [c["decode_core_seconds"] / c["turbojpeg_core_seconds"] for c in ceilings],
            "shown",
            lambda _: True,
        ),
    ]


def single(bench: Bench) -> list[Row]:
    """One picture at a time over the bare forward on one thread."""
    ratios, details = [], []
    for turn in range(bench.rounds):
        say(f"single, round {turn + 1}")
        ceiling = bench.ceiling([1])
        bare = ceiling["bare_forward_seconds"]
        with bench.server() as running:
            make_caches(running.address, [ONE])
            document = load(
                running.address,
                *(bench.pictures, "--cache", ONE, "--unary", "--concurrency", 1),
                *("--duration", bench.seconds, "--warmup", 2),
            )
        p50 = document["latency_seconds"]["p50"]
        ratios.append(p50 / bare)
        details.append(
            {
                "p50_seconds": p50,
                "bare_forward_seconds": bare,
                "decode_core_seconds": ceiling["decode_core_seconds"],
            }
        )
    return [
        Row.of(
            "one picture's latency, JPEG to label, over the bare forward",
            ratios,
            "<= 1.15",
            lambda value: value <= 1.15,
            rounds=details,
        )
    ]


def thousand(bench: Bench) -> list[Row]:
    """1,000 caches at random over one."""
    count = 100 if bench.quick else 1000
    one, many = [], []
    with bench.server() as running:
        say(f"thousand: making {count} caches")
        make_caches(running.address, [f"load-{i:05}" for i in range(count)])
        for turn in range(bench.rounds):
            say(f"thousand, round {turn + 1}")
            # The order changes from round to round.
            for which in (one, many) if turn % 2 == 0 else (many, one):
                flags = ("--cache", ONE) if which is one else ("--caches", "load-*")
                which.append(bench.closed(running.address, *flags, "--timings"))
    ratios = [
        m["answers_per_second"] / o["answers_per_second"] for o, m in zip(one, many, strict=True)
    ]
    return [
        Row.of(
            f"{count:,} caches at random over one ({CLASSES} classes, {SHOTS} shots each)",
            ratios,
            ">= 0.95",
            lambda value: value >= 0.95,
            one_per_second=[it["answers_per_second"] for it in one],
            many_per_second=[it["answers_per_second"] for it in many],
            caches_used=[it["caches_used"] for it in many],
            head_ms_per_batch=[it["server_seconds"]["head"] * 1e3 for it in many],
            streams=many[0]["streams"],
        )
    ]


def resident(bench: Bench) -> list[Row]:
    """10,000 caches in memory, all of them answering."""
    count = 1000 if bench.quick else 10_000
    with bench.server("--resident-bytes", str(16 << 30)) as running:
        empty = running.resident()
        say(f"resident: making {count} caches")
        make_caches(running.address, [f"load-{i:05}" for i in range(count)])
        say("resident: all of them, in unary calls, embeddings")
        flags = ("--caches", "load-*", "--random-embeddings", "--warmup", 0)
        # Drawn at random: 12 times as many items as caches miss one in 160,000.
        document = load(
            running.address, *flags, "--unary", "--concurrency", 64, "--count", 12 * count
        )
        say("resident: pictures, over a stream for each cache")
        pictures = bench.closed(running.address, "--caches", "load-*")
        metrics = running.metrics()
        memory = running.resident()
    loaded = metrics["tipserve_resident_caches"]
    ok = (
        loaded == count
        and document["answered"] == document["sent"]
        and pictures["answered"] == pictures["sent"]
    )
    return [
        Row(
            f"{count:,} caches resident",
            loaded,
            "serves",
            ok,
            "caches",
            [loaded],
            {
                "caches_used": document["caches_used"],
                "resident_cache_bytes": metrics["tipserve_resident_cache_bytes"],
                "bytes_per_cache": metrics["tipserve_resident_cache_bytes"] / count,
                "process_bytes": memory,
                "process_bytes_before": empty,
                "streams": pictures["streams"],
                "pictures_per_second": pictures["answers_per_second"],
            },
        )
    ]


def overload(bench: Bench) -> list[Row]:
    """Goodput at several times the capacity, which is that of 64 in flight; deadline 1 s.

    The capacity is measured before and after, and the mean counts: a shared machine is faster or
    slower by a tenth or more from one minute to the next.
    """
    factors = (1.4, 2.9, 5.0)
    ratios: dict[float, list[float]] = {factor: [] for factor in factors}
    documents: dict[float, list[dict]] = {factor: [] for factor in factors}
    capacities = []
    with bench.server() as running:
        make_caches(running.address, [ONE])

        def capacity() -> float:
            closed = load(
                running.address,
                *(bench.pictures, "--cache", ONE, "--concurrency", 64),
                *("--duration", bench.seconds, "--warmup", 2),
            )
            capacities.append(closed["answers_per_second"])
            return capacities[-1]

        for turn in range(bench.rounds):
            say(f"overload, round {turn + 1}: the capacity")
            before = capacity()
            for factor in factors:
                say(f"overload, round {turn + 1}: {factor} times as much, then the capacity")
                document = load(
                    running.address,
                    *(bench.pictures, "--cache", ONE, "--streams", 4),
                    *("--rate", factor * before, "--deadline", 1, "--seed", turn + 1),
                    *("--duration", bench.seconds, "--warmup", 2),
                )
                after = capacity()
                documents[factor].append(document)
                ratios[factor].append(document["goodput_per_second"] / ((before + after) / 2))
                before = after
    return [
        Row.of(
            f"goodput at {factor} x the capacity, deadline 1 s, over the capacity",
            ratios[factor],
            ">= 0.95",
            lambda value: value >= 0.95,
            capacity_per_second=capacities,
            answered=[it["answered"] for it in documents[factor]],
            in_time=[it["in_time"] for it in documents[factor]],
            refused=[it["refused"] for it in documents[factor]],
            expired=[it["expired"] for it in documents[factor]],
            unsent=[it["unsent"] for it in documents[factor]],
            p99_seconds=[it["latency_seconds"]["p99"] for it in documents[factor]],
        )
        for factor in factors
    ]


def latency(bench: Bench) -> list[Row]:
    """p99 at 80 % Poisson load over the time of one batch of 32."""
    ratios, details = [], []
    with bench.server() as running:
        make_caches(running.address, [ONE])
        for turn in range(bench.rounds):
            say(f"latency, round {turn + 1}: the capacity and a full batch")
            capacity = bench.closed(running.address)["answers_per_second"]
            layouts = bench.ceiling([MAX_BATCH])["layouts"]
            # The quicker layout's, which is the harder goal: the server's own
            # has a core for each batch.
            batch = min(layout["batch_seconds"] for layout in layouts)
            say(f"latency, round {turn + 1}: 80 % of {capacity:.0f} a second")
            document = load(
                running.address,
                *(bench.pictures, "--cache", ONE, "--streams", 4, "--timings"),
                *("--rate", 0.8 * capacity, "--seed", turn + 1),
                *("--duration", 2 * bench.seconds, "--warmup", 2),
            )
            spread = document["latency_seconds"]
            ratios.append(spread["p99"] / batch)
            details.append(
                {
                    "capacity_per_second": capacity,
                    "full_batch_seconds": {name(it): it["batch_seconds"] for it in layouts},
                    "p50_seconds": spread["p50"],
                    "p99_seconds": spread["p99"],
                    "mean_batch": document["server_seconds"]["batch_size"],
                }
            )
    return [
        Row.of(
            f"p99 at 80 % load (Poisson) over the time of one batch of {MAX_BATCH}",
            ratios,
            "<= 3",
            lambda value: value <= 3,
            rounds=details,
        )
    ]


def embeddings(bench: Bench) -> list[Row]:
    """Embeddings in, labels out, against a plain grpc.aio server in Python."""
    seconds = min(bench.seconds, 5)
    rows = []
    with tempfile.TemporaryDirectory() as folder, bench.server() as running:
        make_caches(running.address, [ONE])
        with measure.Client(running.address) as client:
            width = client.server_info().bundle.width
        cache = Path(folder) / "cache.npz"
        np.savez(
            cache,
            keys=keys_of(width),
            labels=np.repeat(np.arange(CLASSES), SHOTS),
            classes=np.array([f"class {c}" for c in range(CLASSES)]),
            alpha=1.0,
            beta=5.5,
        )
        # Over one stream the packed messages are the largest, which is best
        # for the Python server.
        for packing, pack, streams, goal in (
            ("one a message", 1, 4, 10),
            ("packed by the client", 128, 1, None),
        ):
            ours, cost, plain = [], [], {1: [], CORES: []}
            for turn in range(bench.rounds):
                say(f"embeddings, {packing}, round {turn + 1}")
                flags = ("--cache", ONE, "--random-embeddings", "--concurrency", 1024)
                flags += ("--streams", streams, "--pack", pack, "--duration", seconds)
                before = running.cpu_seconds()
                ours.append(load(running.address, *flags))
                cost.append((running.cpu_seconds() - before) / items(ours[-1]))
                for threads, loads in plain.items():
                    with plain_server(cache, threads) as address:
                        loads.append(load(address, *flags))
            rate = {
                threads: statistics.median(it["answers_per_second"] for it in loads)
                for threads, loads in plain.items()
            }
            best = max(rate, key=rate.__getitem__)
            rows.append(
                Row.of(
                    f"embeddings to labels, {packing}: over a plain grpc.aio server",
                    [
                        o["answers_per_second"] / p["answers_per_second"]
                        for o, p in zip(ours, plain[best], strict=True)
                    ],
                    "shown" if goal is None else f">= {goal}",
                    lambda value, goal=goal: goal is None or value >= goal,
                    ours_per_second=[it["answers_per_second"] for it in ours],
                    ours_core_us_per_item=[it * 1e6 for it in cost],
                    plain_per_second_by_torch_threads=rate,
                    client_us_per_item=[it["client_cpu_seconds_per_item"] * 1e6 for it in ours],
                    client_cores=[it["client_cpu_cores"] for it in ours],
                )
            )
    return rows


def items(document: dict) -> float:
    """How many items a load sent, its warm-up's included."""
    return document["client_cpu_seconds"] / document["client_cpu_seconds_per_item"]


def keys_of(width: int) -> np.ndarray:
    """The keys of the cache ONE."""
    return measure.keys(np.random.default_rng(0), width)


ROWS = {
    "speed": speed,
    "single": single,
    "thousand": thousand,
    "resident": resident,
    "overload": overload,
    "latency": latency,
    "embeddings": embeddings,
    "http": over_http,
    "start": start,
    "memory": memory,
}
