"""What the rows share: servers as processes, loads by `tipserve bench`, caches, pictures.

TIPSERVE_BINARY and TIPSERVE_CEILING name the built server and ceiling.rs, for machines without
cargo; by default the one is target/release/tipserve, and cargo builds the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tipserve import Client, Example

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TIPSERVE_BINARY", ROOT / "target/release/tipserve"))
CLASSES, SHOTS = 10, 16
# The cache of the rows with one.
ONE = "load-00000"
MAX_BATCH = 32
CORES = len(os.sched_getaffinity(0))


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """The processor's name, as far as the system tells, its cores and its memory."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*:\s*(.+)", told)
    flags = re.search(r"flags\s*:\s*(.+)", told)
    has = set(flags[1].split()) if flags else set()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if unit in has]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{name[1] if name else platform.machine()}, {CORES} cores "
        f"({', '.join(units) or 'no AVX2'}), {memory:.0f} GiB"
    )


@dataclass
class Row:
    """A figure beside what it must reach."""

    row: str
    value: float
    goal: str
    ok: bool
    unit: str = ""
    repeats: list[float] = field(default_factory=list)
    details: dict = field(default_factory=dict)

    @classmethod
    def of(cls, row: str, repeats: list[float], goal: str, ok, unit: str = "", **details) -> Row:
        """The median of the repeats; `ok` judges it."""
        value = statistics.median(repeats)
        return cls(row, value, goal, bool(ok(value)), unit, repeats, details)


def exported() -> Path:
    """A bundle with the shape of ViT-B/32 and random weights; made where it is absent."""
    for folder in (ROOT / "bundles/vit-b-32-random", ROOT / "target/bench/vit-b-32-random"):
        if (folder / "bundle.toml").is_file():
            return folder
    say("making a ViT-B/32-shaped bundle with random weights")
    export = ["-m", "tipserve_export", "open-clip", "ViT-B-32", "--random-init", "1"]
    subprocess.run(
        [sys.executable, *export, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL
    )
    return folder


def table(rows: list[Row]) -> str:
    """The rows for people."""
    lines = []
    for row in rows:
        spread = f"{min(row.repeats):.3f} to {max(row.repeats):.3f}" if len(row.repeats) > 1 else ""
        mark = "" if row.goal == "shown" else "ok" if row.ok else "MISSED"
        value = f"{row.value:.3f}" if row.value < 1000 else f"{row.value:,.0f}"
        lines.append(f"{row.row:<74} {value:>8} {row.unit:<7}{row.goal:<9}{mark:<7}{spread}")
    return "\n".join(lines)


def report(rows: list[Row], common: dict, out: Path) -> int:
    """Prints the rows, and writes them with what they have in common; the exit code."""
    print(table(rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    documents = [dataclasses.asdict(row) | common for row in rows]
    out.write_text(json.dumps(documents, indent=2) + "\n")
    print(f"\n{len(rows)} rows in {out}")
    return 0 if all(row.ok for row in rows) else 1


class Server:
    """A `tipserve serve` process on ports of its own, with default settings but for `flags`."""

    def __init__(
        self,
        bundle: Path,
        store: Path,
        *flags: str,
        stderr: int | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """`stderr` is a descriptor for the log, otherwise a file beside the store."""
        self.log = store.parent / f"{store.name}.log"
        started = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(BINARY, "serve", "--bundle", bundle, "--store", store),
                    *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
                    *flags,
                ],
                stdout=subprocess.PIPE,
                stderr=log if stderr is None else stderr,
                env=os.environ | (env or {}),
                text=True,
            )
        line = self.process.stdout.readline()
        found = re.match(r"tipserve: serving on (\S+) \(metrics on (\S+)\)", line)
        if found is None:
            self.process.wait(60)
            raise SystemExit(f"the server did not start:\n{self.log.read_text()[-2000:]}")
        self.address, self.probes = found.groups()
        with urllib.request.urlopen(f"http://{self.probes}/readyz", timeout=60) as ready:
            ready.read()
        self.seconds_to_ready = time.perf_counter() - started

    def stop(self) -> None:
        """Ends it and waits."""
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    def resident(self) -> int:
        """Bytes of memory that the process has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def cpu_seconds(self) -> float:
        """Processor time of the process so far."""
        return cpu_seconds(self.process.pid)

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name with labels."""
        with urllib.request.urlopen(f"http://{self.probes}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(bundle: Path, *flags: str, store: Path | None = None) -> Iterator[Server]:
    """A server that ends with the block; its store too, where it is not given."""
    with tempfile.TemporaryDirectory() as folder:
        running = Server(bundle, store or Path(folder) / "store", *flags)
        try:
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def plain_server(cache: Path, threads: int) -> Iterator[str]:
    """The address of the comparison server."""
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / "benches/engine/plain_server.py"),
            *("--cache", cache, "--threads", str(threads)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().split("serving on ")[1].strip()
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def load(address: str, *flags: str | float | Path) -> dict:
    """`tipserve bench` against a server: its document. Lost or failed items end the run."""
    done = subprocess.run(
        [BINARY, "--quiet", "--json", "--server", address, "bench", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if done.returncode != 0:
        raise SystemExit(f"tipserve bench {flags} ended with {done.returncode}:\n{done.stdout}")
    return json.loads(done.stdout)


def pictures(folder: Path, count: int = 64) -> Path:
    """JPEG files of 400 × 300 pixels, smooth as photographs are."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((400, 300), Image.BICUBIC).save(file, "JPEG", quality=90)
        (folder / f"{number:03}.jpg").write_bytes(file.getvalue())
    return folder


def keys(rng: np.random.Generator, width: int) -> np.ndarray:
    """Examples of a cache: CLASSES × SHOTS rows around centres."""
    centres = rng.standard_normal((CLASSES, 1, width))
    rows = centres + rng.standard_normal((CLASSES, SHOTS, width))
    return rows.reshape(-1, width).astype(np.float32)


def make_caches(address: str, ids: list[str]) -> None:
    """Caches of CLASSES × SHOTS random embeddings, Tip-Adapter, no text."""
    with Client(address, timeout=600) as client:
        width = client.server_info().bundle.width

        def make(numbered: tuple[int, str]) -> None:
            number, name = numbered
            rows = keys(np.random.default_rng(number), width)
            client.create_cache(
                name,
                [Example(class_=i // SHOTS, picture=row, id=str(i)) for i, row in enumerate(rows)],
                classes=[f"class {c}" for c in range(CLASSES)],
                without_text=True,
                method="tip_adapter",
                alpha=1,
                beta=5.5,
            )

        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(make, enumerate(ids)):
                pass


def ceiling(bundle: Path, folder: Path, seconds: float, batches: list[int], dtype: str) -> dict:
    """What the machine does without a server; see ceiling.rs."""
    built = os.environ.get("TIPSERVE_CEILING")
    # Of the whole workspace: a build of one crate's own has its dependencies with other features,
    # which compiles them all once more.
    cargo = ("cargo", "bench", "--quiet", "--locked", "--workspace", "--bench", "engine", "--")
    done = subprocess.run(
        [
            *((built,) if built else cargo),
            *("--bundle", bundle, "--pictures", folder, "--seconds", str(seconds)),
            *("--batches", ",".join(map(str, batches)), "--dtype", dtype),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])
