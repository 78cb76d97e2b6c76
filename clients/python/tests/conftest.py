"""Fixtures: a fake server, clients in both flavours, and the real server if it is built."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_server import FakeServer

import tipserve

# Where the tools that tests drive must be there, as in `make test-integrations`.
STRICT = bool(os.environ.get("TIPSERVE_TOOLS_STRICT"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A skipped test is a failed one if nothing may be missing."""
    report = yield
    if STRICT and report.skipped:
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """And so is a skipped file."""
    report = yield
    if STRICT and report.skipped:
        report.outcome = "failed"
    return report


FAST = tipserve.RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.05)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer().start()
    yield server
    server.stop()


class Flavour:
    """The sync and the asyncio client behind one face, so that both run every test.

    What takes a client's method and collects its answers is all that is here;
    early closing and cancelling are tested on each by itself.
    """

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address

    def __call__(self, method: str, /, *args: Any, retry: Any = FAST, **kwargs: Any) -> Any:
        """Calls a method on a fresh client; streams come back as lists."""
        options = {"retry": retry}
        for name in ("resize", "token", "timeout", "connect_timeout", "wait"):
            if f"client_{name}" in kwargs:
                options[name] = kwargs.pop(f"client_{name}")
        if self.kind == "sync":
            with tipserve.Client(self.address, **options) as client:
                made = getattr(client, method)(*args, **kwargs)
                return list(made) if hasattr(made, "__next__") else made
        return asyncio.run(self._asynchronously(method, options, args, kwargs))

    async def _asynchronously(self, method: str, options: Any, args: Any, kwargs: Any) -> Any:
        async with tipserve.AsyncClient(self.address, **options) as client:
            made = getattr(client, method)(*args, **kwargs)
            if hasattr(made, "__anext__"):
                return [one async for one in made]
            return await made


@pytest.fixture(params=["sync", "asyncio"])
def call(request: pytest.FixtureRequest, fake: FakeServer) -> Flavour:
    """Calls methods of either client on the fake server."""
    return Flavour(request.param, fake.address)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of three classes, and what lies beside them."""
    root = tmp_path / "train"
    for name in ("a_dog", "Cat", "bird"):
        (root / name).mkdir(parents=True)
        for i in range(5):
            (root / name / f"{i}.jpg").write_bytes(f"{name} {i}".encode())
    (root / "bird" / ".DS_Store").write_bytes(b"junk")
    (root / "stray.jpg").write_bytes(b"no class")
    return root


# The real server.

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("TIPSERVE_BINARY", ROOT / "target" / "release" / "tipserve"))
WIDTH = 64


class RealServer:
    """A `tipserve serve` with a store of its own."""

    def __init__(self, bundle: Path, folder: Path, listen: str = "127.0.0.1:0") -> None:
        self.bundle = bundle
        self.folder = folder
        self.address = listen
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> RealServer:
        """Starts it and waits until it says where it listens."""
        folder = self.folder
        with open(folder / "log", "a") as log:
            self._process = subprocess.Popen(
                [
                    *(str(BINARY), "serve"),
                    *("--bundle", str(self.bundle), "--store", str(folder / "store")),
                    *("--listen", self.address, "--metrics-listen", "127.0.0.1:0"),
                ],
                stdout=log,
                stderr=log,
                text=True,
            )
        for _ in range(1200):
            text = (folder / "log").read_text()
            started = re.findall(r"serving on (\S+:\d+)", text)
            if len(started) > self._starts:
                self._starts = len(started)
                self.address = started[-1]
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        pytest.fail(f"{BINARY} serve did not start:\n{(folder / 'log').read_text()}")

    _starts = 0

    def stop(self, hard: bool = False) -> None:
        """Ends it: with SIGTERM, or as a crash would."""
        if self._process is not None:
            (self._process.kill if hard else self._process.terminate)()
            self._process.wait(60)


@pytest.fixture(scope="session")
def features_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without encoders, for embeddings of WIDTH."""
    if not _serves():
        pytest.skip(f"no server at {BINARY}: build it, or set TIPSERVE_BINARY")
    out = tmp_path_factory.mktemp("bundle") / "features"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tipserve_export", "features"),
            *("--width", str(WIDTH), "--out", str(out)),
        ],
        cwd=ROOT / "export",
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.skip(f"the exporter does not run here: {done.stderr[-500:]}")
    return out


def _serves() -> bool:
    if not BINARY.is_file():
        return False
    try:
        # A build from before the server existed says nothing about --bundle.
        done = subprocess.run([BINARY, "serve", "--help"], capture_output=True, timeout=60)
    except OSError:
        return False
    return b"--bundle" in done.stdout


@pytest.fixture
def real(features_bundle: Path, tmp_path: Path) -> Iterator[RealServer]:
    """A real server of embeddings."""
    (tmp_path / "server").mkdir()
    server = RealServer(features_bundle, tmp_path / "server").start()
    yield server
    server.stop()


@pytest.fixture(params=["sync", "asyncio"])
def real_call(request: pytest.FixtureRequest, real: RealServer) -> Flavour:
    """Calls methods of either client on the real server."""
    return Flavour(request.param, real.address)
