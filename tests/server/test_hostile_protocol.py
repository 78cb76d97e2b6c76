"""Floods of what HTTP/2 itself offers: each ends the connection or waits, and takes no memory."""

from __future__ import annotations

import struct
import time

import pytest
from raw_http2 import DATA, END_HEADERS, HEADERS, PING, PREFACE, RESET, SETTINGS, frame, headers
from test_hostile_connections import connect
from test_hostile_messages import MIB, peak, reset_peak

CONTINUATION = 9
LIST = headers("/tipserve.v1.CacheService/ListCaches")
LONG = b"\0\x01a\x7e" + b"v" * 126
CANCEL = b"\0\0\0\x08"


def resets():
    """Calls that are cancelled at once (CVE-2023-44487)."""
    for stream in range(1, 200_001, 2):
        yield frame(HEADERS, END_HEADERS, stream, LIST) + frame(RESET, 0, stream, CANCEL)


def continuations():
    """Headers without an end (CVE-2024-27316)."""
    yield frame(HEADERS, 0, 1, LIST)
    while True:
        yield frame(CONTINUATION, 0, 1, LONG * 100)


def streams():
    """More streams than the connection allows."""
    for stream in range(1, 200_001, 2):
        yield frame(HEADERS, END_HEADERS, stream, headers("/grpc.health.v1.Health/Watch"))


def repeated(one: bytes, first: bytes = b""):
    yield first
    while True:
        yield one * 500


FLOODS = {
    "resets": resets,
    "continuations": continuations,
    "streams": streams,
    "pings": lambda: repeated(frame(PING, 0, 0, b"12345678")),
    "settings": lambda: repeated(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100))),
    "empty data": lambda: repeated(
        frame(DATA, 0, 1),
        frame(HEADERS, END_HEADERS, 1, headers("/tipserve.v1.ClassifyService/ClassifyStream")),
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_takes_no_memory_and_holds_nobody_up(features, kind):
    before = reset_peak(features)
    flood = connect(features.address)
    flood.sendall(PREFACE + frame(SETTINGS, 0, 0))
    flood.settimeout(1)
    # It never reads: what the server would answer has nowhere to go.
    sent, end = 0, time.monotonic() + 3
    try:
        for data in FLOODS[kind]():
            flood.sendall(data)
            sent += len(data)
            if time.monotonic() > end:
                break
    except (TimeoutError, OSError) as error:
        print(f"after {sent >> 10} KiB: {error!r}")
    grown = peak(features) - before
    print(f"{grown >> 20} MiB for {sent >> 20} MiB")
    assert grown < 48 * MIB
    assert features.http("/healthz")[0] == 200
    assert features.api.ids() is not None
    flood.close()
