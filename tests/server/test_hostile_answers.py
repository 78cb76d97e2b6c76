"""Answers that nobody reads: of peers that keep their window shut, or their socket full."""

from __future__ import annotations

import contextlib
import struct

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH, Server, eventually
from raw_http2 import Deaf, Peer
from test_hostile_messages import MIB, peak, reset_peak
from wire import cache, classify

BUDGET = 64 * MIB
# Answers that nobody reads, and as much for those that are being made.
MOST = 2 * BUDGET
INFO = classify.GetServerInfoRequest()
PAGE = cache.ListExamplesRequest(parent="paged@1", page_size=3000)
CLASSES = 400


@pytest.fixture(scope="module")
def paged(features_bundle, tmp_path_factory):
    """A server with versions whose answers are large: pages of 1 MiB, 400 classes an item."""
    store = tmp_path_factory.mktemp("paged") / "store"
    flags = ("--max-unfinished-bytes", str(BUDGET), "--queue-items", "512")
    server = Server(features_bundle, store, *flags, "--stream-window", "128")
    points = np.random.default_rng(7).normal(size=(4000, WIDTH))
    examples = wire.examples_of(points, [i % 2 for i in range(len(points))])
    for number, example in enumerate(examples):
        example.example_id = f"{number:0500d}"
    kind = {"method": cache.METHOD_CLASS_MEAN, "without_text": True}
    server.api.create(
        cache.CacheSpec(cache_id="paged", classes=wire.classes("ab"), **kind), examples
    )
    names = wire.classes([f"{number:0200d}" for number in range(CLASSES)])
    many = cache.CacheSpec(cache_id="many", classes=names, allow_empty_classes=True, **kind)
    server.api.create(many, wire.examples_of(points[:2], [0, 1]))
    yield server
    server.close()


def ask(peer: Peer, kind: str, count: int) -> None:
    """Asks for pages on a connection of its own."""
    for stream in range(1, 2 * count, 2):
        if kind == "http":
            peer.get(stream, "/v1/caches/paged/versions/1/examples?pageSize=3000")
        else:
            peer.message(stream, "/tipserve.v1.CacheService/ListExamples", PAGE.SerializeToString())


def others_are_served(server, page) -> None:
    api = wire.Api(server.address)
    for _ in range(10):
        assert api.caches.ListExamples(PAGE, timeout=300) == page
        assert api.classifying.GetServerInfo(INFO, timeout=300).version
    assert api.one("many", wire.embedding(np.ones(WIDTH))).top
    assert server.http("/healthz")[0] == 200
    api.close()


@pytest.mark.parametrize("peers", [Peer, Deaf], ids=["window shut", "socket full"])
@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_answers_that_nobody_reads_take_no_more_than_the_budget(paged, kind, peers):
    page = paged.api.caches.ListExamples(PAGE)
    unread = 3 * 200 * page.ByteSize()
    assert unread > 4 * MOST
    before = reset_peak(paged)
    deaf = [peers(paged.address, window=0) for _ in range(3)]
    for peer in deaf:
        # The server may close the connection of one that holds too much.
        with contextlib.suppress(OSError):
            ask(peer, kind, 200)
    # Whoever reads is answered meanwhile.
    others_are_served(paged, page)
    eventually(lambda: paged.metrics()["tipserve_in_flight_requests"] == 0)
    grown = peak(paged) - before
    print(f"{grown >> 20} MiB more for {unread >> 20} MiB of unread answers")
    assert grown < MOST
    if peers is Deaf:
        closed = paged.metrics()['tipserve_refused_connections_total{reason="unread"}']
        assert closed > 0, "what the transport holds goes only with its connection"
    for peer in deaf:
        peer.close()


def message(data) -> bytes:
    data = data.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def items(first: int, count: int) -> bytes:
    points = np.random.default_rng(first).normal(size=(count, WIDTH))
    batch = [
        classify.Item(id=str(first + index), input=wire.embedding(point))
        for index, point in enumerate(points)
    ]
    return message(classify.ClassifyStreamRequest(items=classify.ItemBatch(items=batch)))


@pytest.mark.parametrize("peers", [Peer, Deaf], ids=["window shut", "socket full"])
def test_streams_that_nobody_reads_keep_nobody_out(paged, peers):
    """Backpressure is the stream's own: its results hold no place in the engine."""
    options = classify.ClassifyOptions(logits=True, top_k=CLASSES)
    config = classify.ClassifyStreamConfig(cache="many", options=options)
    begin = message(classify.ClassifyStreamRequest(config=config))
    before = reset_peak(paged)
    deaf = [peers(paged.address, window=0) for _ in range(3)]
    for peer in deaf:
        with contextlib.suppress(OSError):
            for stream in range(1, 61, 2):
                peer.open(stream, "/tipserve.v1.ClassifyService/ClassifyStream")
                peer.data(stream, begin + items(stream, 120), patience=0.2)
    page = paged.api.caches.ListExamples(PAGE)
    others_are_served(paged, page)
    with pytest.raises(grpc.RpcError) as caught:
        paged.api.classifying.Classify(classify.ClassifyRequest(cache="none"), timeout=300)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    grown = peak(paged) - before
    print(f"{grown >> 20} MiB more")
    assert grown < MOST
    for peer in deaf:
        peer.close()
