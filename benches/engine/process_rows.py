"""The rows about the process: how soon it is ready, and what memory it keeps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from measure import CORES, MAX_BATCH, ONE, Row, load, make_caches, say

if TYPE_CHECKING:
    from rows import Bench

# A server at rest has given what it freed back to the system by then.
REST_SECONDS = 15


def start(bench: Bench) -> list[Row]:
    """Start to ready, with the bundle in the page cache."""
    files = [file for file in bench.bundle.iterdir() if file.suffix in (".pt", ".json")]
    for file in files:
        file.read_bytes()
    took = []
    for turn in range(max(bench.rounds, 3)):
        say(f"start, round {turn + 1}")
        with bench.server() as running:
            took.append(running.seconds_to_ready)
    image = bench.bundle / "image.pt"
    return [
        Row.of(
            "start to ready, page cache warm",
            took,
            "<= 3 s",
            lambda value: value <= 3,
            "s",
            image_bytes=image.stat().st_size if image.exists() else 0,
            bundle_bytes=sum(file.stat().st_size for file in files),
        )
    ]


def memory(bench: Bench) -> list[Row]:
    """Memory after 200,000 items over after 20,000: as the load ends, and at rest."""
    first, last = (2_000, 20_000) if bench.quick else (20_000, 200_000)
    # A fiftieth are pictures.
    with bench.server() as running:
        make_caches(running.address, [ONE])

        def items(count: int) -> tuple[int, int]:
            embeddings = ("--cache", ONE, "--random-embeddings", "--warmup", 0)
            load(running.address, *embeddings, "--count", count - count // 50)
            load(
                running.address,
                *(bench.pictures, "--cache", ONE, "--warmup", 0),
                *("--count", count // 50, "--concurrency", MAX_BATCH * CORES * 4),
            )
            loaded = running.resident()
            time.sleep(REST_SECONDS)
            return loaded, running.resident()

        say(f"memory: {first} items")
        early, early_rest = items(first)
        say(f"memory: {last - first} more")
        late, late_rest = items(last - first)
    name = f"memory after {last:,} items over after {first:,}"
    details = {"bytes_early": early, "bytes_late": late, "pictures": last // 50}
    at_rest = {"bytes_early": early_rest, "bytes_late": late_rest}
    return [
        Row.of(name, [late / early], "<= 1.05", lambda value: value <= 1.05, **details),
        Row.of(f"{name}, at rest", [late_rest / early_rest], "shown", lambda _: True, **at_rest),
    ]
