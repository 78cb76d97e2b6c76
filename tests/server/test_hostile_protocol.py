"""Floods of what HTTP/2 itself offers: each ends the connection or waits, and takes no memory."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time

import pytest
from conftest import eventually
from raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    Peer,
    frame,
    headers,
)
from test_hostile_connections import answers, connect
from test_hostile_messages import MIB, peak, reset_peak
from wire import classify

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


def framed(data: bytes) -> bytes:
    return struct.pack(">BI", 0, len(data)) + data


STREAM = classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache="here"))
# A call of each kind whose messages are all there, but for the end of the request.
WHOLE = {
    "unary": ("/tipserve.v1.CacheService/ListCaches", "application/grpc", framed(b"")),
    "without a token": ("/grpc.health.v1.Health/Watch", "application/grpc", framed(b"")),
    "stream": (
        "/tipserve.v1.ClassifyService/ClassifyStream",
        "application/grpc",
        framed(STREAM.SerializeToString()),
    ),
    "gRPC-web": ("/tipserve.v1.CacheService/ListCaches", "application/grpc-web+proto", framed(b"")),
    "HTTP": (
        "/v1/caches/here:pruneVersions",
        "application/json",
        json.dumps({"keep": 1}).encode(),
    ),
    "HTTP lines": (
        "/v1/caches/here:classifyStream",
        "application/x-ndjson",
        json.dumps({"items": {"items": []}}).encode() + b"\n",
    ),
}


def trickle(peer: Peer, size: int, frames: int, stop: threading.Event) -> None:
    """Trailers of the last stream, a frame a second, that never end."""
    fields = b"\0\x01a\x7e" + b"v" * 126
    block = fields * (size // len(fields))
    with contextlib.suppress(OSError):
        peer.send(frame(HEADERS, END_STREAM, LAST, block))
        for _ in range(frames):
            if peer.closed or stop.wait(1):
                break
            peer.send(frame(CONTINUATION, 0, LAST, block))


LAST = 39


@pytest.mark.parametrize("size, frames", [(0, 1000), (16_000, 1000)])
def test_trailers_of_ever_more_frames_end_with_their_connection(embedding_cache, size, frames):
    """However slowly they come."""
    server, stop = embedding_cache, threading.Event()
    before = reset_peak(server)
    peers, threads = [], []
    for path, kind, data in list(WHOLE.values()) * 5:
        peer = Peer(server.address, window=0)
        # Calls before it, which are there for as long as the connection is.
        for stream in range(1, LAST + 1, 2):
            peer.open(stream, path, kind=kind)
            peer.data(stream, data)
        threads.append(threading.Thread(target=trickle, args=(peer, size, frames, stop)))
        peers.append(peer)
    for thread in threads:
        thread.start()
    assert answers(server) and server.http("/healthz")[0] == 200
    for peer in peers:
        with peer.changed:
            assert peer.changed.wait_for(lambda peer=peer: peer.closed, timeout=90)
    stop.set()
    for thread in threads:
        thread.join()
    grown = peak(server) - before
    print(f"{grown >> 20} MiB")
    assert grown < 48 * MIB
    assert answers(server)
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 0)


def test_trailers_that_trickle_over_http1_are_not_waited_for(serve, features_bundle):
    server = serve(features_bundle, "--message-seconds", "2")
    peers = {}
    for number in range(20):
        peers[str(number)] = one = connect(server.address)
        one.sendall(
            b"POST /v1/caches/here:pruneVersions HTTP/1.1\r\nhost: x\r\n"
            b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b'a\r\n{"keep":1}\r\n0\r\nx-a: 1\r\n'
        )
    gone, end = set(), time.monotonic() + 60
    while len(gone) < len(peers) and time.monotonic() < end:
        for name, one in peers.items():
            try:
                one.sendall(b"x-b: 2\r\n")
            except OSError:
                gone.add(name)
        time.sleep(0.5)
    assert len(gone) == len(peers)
    assert answers(server)
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 0)
