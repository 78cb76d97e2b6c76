"""What the server sets on its connections, asked of the kernel: nothing here measures time."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

import pytest

PIDFD_OPEN, PIDFD_GETFD = 434, 438
LIBC = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int) -> int:
    """A system call that glibc may not know yet."""
    found = LIBC.syscall(number, *arguments)
    if found < 0:
        pytest.skip(f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return found


def connections_of(pid: int, port: int) -> list[socket.socket]:
    """Copies of a child's connections to its port."""
    process, found = call(PIDFD_OPEN, pid, 0), []
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if not os.readlink(link).startswith("socket:"):
                continue
            one = socket.socket(fileno=call(PIDFD_GETFD, process, int(link.name), 0))
            try:
                if one.getsockname()[1] == port and one.getpeername():
                    found.append(one)
                    continue
            except (OSError, IndexError):
                pass  # no TCP, or listening
            one.close()
    finally:
        os.close(process)
    return found


def test_answers_do_not_wait_for_acknowledgements(features):
    """TCP_NODELAY: without it, many an answer waits for the client's delayed ACK, some 40 ms."""
    features.api.ids()
    connections = connections_of(features.process.pid, int(features.address.split(":")[1]))
    assert connections, "no connection found"
    for one in connections:
        with one:
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
