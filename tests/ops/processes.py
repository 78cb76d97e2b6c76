"""Other projects' servers as child processes: their log kept, ended with the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

START = 120


class Process:
    """A server that logs to a file and is there once `ready()` is true."""

    def __init__(self, log: Path, command: list, ready, *, env: dict | None = None) -> None:
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
            )
        end = time.monotonic() + START
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise RuntimeError(f"{command[0]} does not start:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL: dead at once, as a machine that fails."""
        self.process.kill()
        self.process.wait(60)

    def close(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def absent(what: str) -> None:
    """Something that a test needs is not there: skips, or fails where nothing may be missing."""
    if os.environ.get("TIPSERVE_OPS_STRICT"):
        pytest.fail(what)
    pytest.skip(what)
