"""Bodies in frames as small as can be: what the server holds is what they carry, not the buffers
that they were read into.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
import wire
from conftest import WIDTH, Server, eventually
from raw_http2 import Peer
from test_hostile_messages import MIB, peak, reset_peak
from wire import classify

STREAM = "/tipserve.v1.ClassifyService/ClassifyStream"
LINES = "/v1/caches/here:classifyStream"
# A line without items, as long as an HTTP/2 frame, which is read and asks for nothing.
LINE = b'{"items":{"items":[]}}'.ljust(16_383) + b"\n"
# What allocators and a stream's items take besides.
SLACK = 24 * MIB


@pytest.fixture(scope="module")
def here(features_bundle, tmp_path_factory):
    store = tmp_path_factory.mktemp("here") / "store"
    server = Server(features_bundle, store, "--stream-window", "16")
    spec = wire.cache.CacheSpec(cache_id="here", classes=wire.classes("ab"))
    points = np.random.default_rng(4).normal(size=(8, WIDTH))
    server.api.create(spec, wire.examples_of(points, [0, 1] * 4))
    yield server
    server.close()


def framed(message) -> bytes:
    data = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


CONFIG = framed(classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache="here")))
ITEM = framed(
    classify.ClassifyStreamRequest(
        items=classify.ItemBatch(items=[wire.item("x", wire.embedding(np.ones(WIDTH)))])
    )
)


def stalled(server) -> Peer:
    """A connection whose stream 1 is not read on, since its results are not."""
    peer = Peer(server.address, window=0)
    peer.open(1, STREAM)
    assert peer.data(1, CONFIG + ITEM * 100)
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] >= 1)
    return peer


@pytest.mark.parametrize("size, count", [(1, 8000), (300, 3000)])
def test_small_frames_between_large_ones_pin_no_buffers(here, size, count):
    peer = stalled(here)
    peer.open(3, LINES, kind="application/x-ndjson")
    peer.data(3, LINE * 10)
    before = reset_peak(here)
    small, sent = (ITEM * (count * size // len(ITEM) + 1))[: count * size], 0
    for at in range(0, len(small), size):
        sent += peer.data(3, LINE)
        sent += peer.data(1, small[at : at + size])
    grown = peak(here) - before
    print(f"{grown >> 20} MiB for {sent >> 20} MiB, of which {len(small) >> 10} KiB wait")
    assert sent == count * len(LINE) + len(small), "all was taken"
    assert grown < 2 * len(small) + SLACK
    assert here.http("/healthz")[0] == 200
    peer.close()
    eventually(lambda: here.metrics()["tipserve_in_flight_requests"] == 0)


def test_small_frames_of_a_message_are_one_message(here):
    """They are no reason to close a connection, either."""
    peer = Peer(here.address)
    peer.open(1, STREAM)
    whole = CONFIG + ITEM * 16
    for at in range(len(whole)):
        assert peer.data(1, whole[at : at + 1]) == 1
    peer.end(1)
    assert peer.wait_ended([1], 30) and not peer.closed
    peer.close()


def test_what_windows_hold_is_what_they_carry(here):
    """Streams that are not read, each as full as it may be, in small frames."""
    before = reset_peak(here)
    peer = stalled(here)
    filled = 0
    for stream in range(1, 41, 2):
        if stream > 1:
            peer.open(stream, STREAM)
            peer.data(stream, CONFIG + ITEM * 100, patience=1)
        while took := peer.data(stream, ITEM[:90], patience=0.2):
            filled += took
    grown = peak(here) - before
    print(f"{grown >> 20} MiB for {filled >> 20} MiB")
    assert not peer.closed
    assert filled <= 4 * MIB
    assert grown < 2 * filled + SLACK
    peer.close()
    eventually(lambda: here.metrics()["tipserve_in_flight_requests"] == 0)
