"""Progress bars count what is encoded: files are sent long before that."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from conftest import BINARY
from wire import cache, cache_grpc, classify, classify_grpc

COUNT = 40
ENCODED = 7


class Slow(cache_grpc.CacheServiceServicer, classify_grpc.ClassifyServiceServicer):
    """Takes all examples, and has encoded some of them until it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def GetServerInfo(self, request, context):
        return classify.ServerInfo(limits={"max_message_bytes": 1 << 20})

    def GetVersion(self, request, context):
        infos = [cache.ClassInfo(index=i, display_name=name) for i, name in enumerate("ab")]
        return cache.Version(name="caches/c/versions/1", version=1, classes=infos)

    def CreateCache(self, requests, context):
        yield from self.made(requests, cache.CreateCacheResponse)

    def AddExamples(self, requests, context):
        yield from self.made(requests, cache.AddExamplesResponse)

    def made(self, requests, response):
        received = sum(len(one.examples.examples) for one in requests)
        assert received == COUNT
        stage = cache.CreateProgress.STAGE_EXAMPLES
        for encoded in (ENCODED, COUNT):
            progress = cache.CreateProgress(stage=stage, received=received, encoded=encoded)
            yield response(progress=progress)
            assert self.go_on.wait(60)
        yield response(version=cache.Version(name="caches/c/versions/2", version=2))


@pytest.fixture
def slow() -> Iterator[tuple[Slow, str]]:
    service = Slow()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    cache_grpc.add_CacheServiceServicer_to_server(service, server)
    classify_grpc.add_ClassifyServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    service.go_on.set()
    server.stop(None).wait(10)


@pytest.fixture
def folder(tmp_path) -> Path:
    for i in range(COUNT):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"any bytes")
    return tmp_path / "pictures"


def on_a_terminal(command: list, seen: Callable[[str], None]) -> tuple[int, str]:
    """Runs a command whose standard error is a terminal; `seen` gets all that it showed, after
    every piece."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(
        [*map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = ""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # nobody has the other end open
            break
        if not piece:
            break
        shown += piece.decode("utf-8", "replace")
        seen(shown)
    os.close(ours)
    return process.wait(60), shown


@pytest.mark.parametrize("command", ["create", "add"])
def test_the_command_lines_bar_shows_what_is_encoded(slow, folder, command):
    service, address = slow
    counts = []

    def seen(shown: str) -> None:
        counts[:] = [int(count) for count in re.findall(rf"(\d+)/{COUNT}\b", shown)]
        if ENCODED in counts and not service.go_on.is_set():
            # Everything has been sent by now; some time of the bar's goes by, too.
            assert max(counts) == ENCODED, counts
            service.go_on.set()

    line = [BINARY, "--server", address, command, "c", "--from", folder]
    code, shown = on_a_terminal(line, seen)
    assert code == 0, shown
    assert ENCODED in counts, shown


def test_what_evaluate_counts_is_called_sent(slow, folder):
    """It has no answer before all is sent, and says what it counts."""
    _, address = slow
    line = [BINARY, "--server", address, "evaluate", "c", "--from", folder]
    _, shown = on_a_terminal(line, lambda shown: None)
    for count in re.finditer(rf"\d+/{COUNT} *(\w+)", shown):
        assert count[1] == "sent", shown


def test_no_bar_where_nobody_looks(slow, folder):
    service, address = slow
    service.go_on.set()
    for flags in ([], ["--quiet"]):
        done = subprocess.run(
            [BINARY, "--server", address, *flags, "create", "c", "--from", folder],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0 and f"/{COUNT}" not in done.stderr, done
