"""Answers that nobody reads: of peers that keep their window shut, or their socket full."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct

import grpc
import numpy as np
import pytest
import wire
from certificates import Authority, Files
from conftest import WIDTH, Server, eventually
from over_http import call
from raw_http2 import Deaf, Peer
from test_hostile_messages import MIB, peak, reset_peak
from tokens import api
from wire import cache, classify

BUDGET = 64 * MIB
# Answers that nobody reads, and as much for those that are being made.
MOST = 2 * BUDGET
INFO = classify.GetServerInfoRequest()
PAGE = cache.ListExamplesRequest(parent="paged@1", page_size=3000)
CLASSES = 400
# What 3000 streams take themselves.
STATIC_MOST = 64 * MIB


@pytest.fixture(scope="module")
def paged(features_bundle, tmp_path_factory):
    """A server with versions whose answers are large: pages of 1 MiB, 400 classes an item."""
    store = tmp_path_factory.mktemp("paged") / "store"
    flags = ("--max-unfinished-bytes", str(BUDGET), "--queue-items", "512")
    server = Server(features_bundle, store, *flags, "--stream-window", "128")
    create_paged(server.api)
    points = np.random.default_rng(8).normal(size=(2, WIDTH))
    names = wire.classes([f"{number:0200d}" for number in range(CLASSES)])
    many = cache.CacheSpec(cache_id="many", classes=names, allow_empty_classes=True, **KIND)
    server.api.create(many, wire.examples_of(points, [0, 1]))
    yield server
    server.close()


KIND = {"method": cache.METHOD_CLASS_MEAN, "without_text": True}


def create_paged(api) -> None:
    """A version whose examples take 1 MiB a page."""
    points = np.random.default_rng(7).normal(size=(4000, WIDTH))
    examples = wire.examples_of(points, [i % 2 for i in range(len(points))])
    for number, example in enumerate(examples):
        example.example_id = f"{number:0500d}"
    api.create(cache.CacheSpec(cache_id="paged", classes=wire.classes("ab"), **KIND), examples)


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


def test_what_tls_holds_of_unread_answers_is_bounded(serve, features_bundle, tmp_path):
    """Over HTTP/1.1, too, answers are not copied to be encrypted before they can be sent."""
    authority = Authority()
    files = Files(tmp_path, authority)
    budget, count = 16 * MIB, 150
    server = serve(features_bundle, *files.flags(), "--max-unfinished-bytes", str(budget))
    create_paged(api(server.address, credentials=grpc.ssl_channel_credentials(authority.pem)))
    context = ssl.create_default_context(cadata=authority.pem.decode())
    host, port = server.address.rsplit(":", 1)
    before = reset_peak(server)
    unread = []
    for _ in range(count):
        plain = socket.socket()
        # Of what is sent the system takes little.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(60)
        plain.connect((host, int(port)))
        one = context.wrap_socket(plain, server_hostname="localhost")
        path = "/v1/caches/paged/versions/1/examples?pageSize=3000"
        one.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        unread.append(one)
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] < count)
    assert server.http("/healthz")[0] == 200
    grown = peak(server) - before
    print(f"{grown >> 20} MiB")
    # Answers that wait and such that are being made; and of each connection 64 KiB, encrypted.
    assert grown < 2 * budget + count * 64 * 1024 + 16 * MIB
    for one in unread:
        one.close()


@pytest.mark.parametrize("peers", [Peer, Deaf], ids=["window shut", "socket full"])
@pytest.mark.parametrize("path", ["/openapi.json", "script"])
def test_files_that_nobody_reads_take_no_memory(features, path, peers):
    """They are the server's own bytes, however often they are asked for."""
    if path == "script":
        page = call(features, "GET", "/").body.decode()
        path = re.search(r"/assets/[^\"]+\.js", page)[0]
    size = len(call(features, "GET", path).body)
    count, connections = 1000, 3
    assert size * count * connections > 4 * STATIC_MOST
    before = reset_peak(features)
    deaf = [peers(features.address, window=0) for _ in range(connections)]
    for peer in deaf:
        for stream in range(1, 2 * count, 2):
            peer.get(stream, path)
    for _ in range(10):
        assert len(call(features, "GET", path).body) == size
        assert features.api.classifying.GetServerInfo(INFO, timeout=300).version
    grown = peak(features) - before
    print(f"{grown >> 20} MiB for {size * count * connections >> 20} MiB that were asked for")
    assert grown < STATIC_MOST
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
