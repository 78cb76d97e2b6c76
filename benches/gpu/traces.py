"""Where the time goes on the card: torch's profiler around the engine and around the head.

A row that misses its goal is explained by these: a card that is idle waits for the host, and one
that is busy spends its time in the kernels and copies that are listed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from processes import Row, Setup

# Kineto's categories: what runs on a GPU; where there is none, operators on the host.
ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
ON_HOST = {"cpu_op"}
MOST = 12


def summary(file: Path) -> dict:
    """How much of the recorded time something ran, and what: milliseconds and calls by name."""
    events = [it for it in json.loads(file.read_text())["traceEvents"] if it.get("ph") == "X"]
    found = [it for it in events if it.get("cat") in ON_DEVICE]
    found = found or [it for it in events if it.get("cat") in ON_HOST]
    if not found:
        raise RuntimeError(f"{file} has nothing that ran")
    spent: dict[str, list[float]] = defaultdict(list)
    busy, end = 0.0, float("-inf")
    for event in sorted(found, key=lambda it: it["ts"]):
        spent[event["name"]].append(event["dur"])
        until = event["ts"] + event["dur"]
        # Events overlap where several streams run at once.
        busy += max(0.0, until - max(end, event["ts"]))
        end = max(end, until)
    total = end - min(it["ts"] for it in found)
    largest = sorted(spent, key=lambda name: -sum(spent[name]))[:MOST]
    return {
        "busy": busy / total if total else 1.0,
        "recorded_ms": total / 1e3,
        "by_name": {
            name[:120]: {"ms": sum(spent[name]) / 1e3, "calls": len(spent[name])}
            for name in largest
        },
    }


def profile(setup: Setup) -> list[Row]:
    """Profiles of the engine at its default batch and of the head in each format of keys."""
    file = setup.folder / "profile.json"
    to = ("--profile", file)

    def row(what: str) -> Row:
        told = summary(file)
        name = f"profile, {what}: share of the time in which the device computes or copies"
        return Row(name, told["busy"], "shown", None, told)

    setup.measure("engine", *setup.encoding(), "--seconds", setup.seconds / 4, *to)
    rows = [row("engine")]
    sizes = [(20, 320, 64, 16)] if setup.quick else [(1000, 16_000, 512, 256)]
    if setup.cuda and not setup.quick:
        sizes.append((1000, 1_000_000, 512, 256))
    for classes, keys, width, batch in sizes:
        for dtype in ("float32", "float16") if setup.cuda else ("float32",):
            setup.measure(
                *("head", "--keys-dtype", dtype, "--classes", classes, "--keys", keys),
                *("--width", width, "--batch", batch, "--rounds", 1, *to),
            )
            rows.append(row(f"head, M={keys:,}, {dtype} keys, ten calls"))
    return rows


PROFILES = {"profile": profile}
