"""Floods of what HTTP/2 itself offers: each ends the connection or waits, and takes no memory."""

from __future__ import annotations

import struct
import time

import pytest
from raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    frame,
    headers,
)
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


def requests(verb: str, path: str):
    """Plain HTTP over HTTP/2, whose answers are never read."""
    asked = headers(path, verb=verb)
    for stream in range(1, 200_001, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, asked)


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
    "HEAD": lambda: requests("HEAD", "/v1/caches"),
    "OPTIONS": lambda: requests("OPTIONS", "/v1/caches"),
    "empty data": lambda: repeated(
        frame(DATA, 0, 1),
        frame(HEADERS, END_HEADERS, 1, headers("/tipserve.v1.ClassifyService/ClassifyStream")),
    ),
}


HTTP1 = {
    "HEAD": b"HEAD /v1/caches HTTP/1.1\r\nhost: x\r\n\r\n",
    "OPTIONS": b"OPTIONS /v1/caches HTTP/1.1\r\nhost: x\r\n\r\n",
    "files": b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
    "no such path": b"GET /v1/" + b"x" * 4096 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", HTTP1)
def test_a_flood_over_http1_takes_no_memory_and_holds_nobody_up(features, kind):
    keep_sending(features, repeated(HTTP1[kind]))


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_takes_no_memory_and_holds_nobody_up(features, kind):
    keep_sending(features, FLOODS[kind](), PREFACE + frame(SETTINGS, 0, 0))


def keep_sending(features, data, first: bytes = b"") -> None:
    before = reset_peak(features)
    flood = connect(features.address)
    flood.sendall(first)
    flood.settimeout(1)
    # It never reads: what the server would answer has nowhere to go.
    sent, end = 0, time.monotonic() + 3
    try:
        for some in data:
            flood.sendall(some)
            sent += len(some)
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
