"""Answers that nobody reads: a peer that asks for large pages and keeps its window shut."""

from __future__ import annotations

import numpy as np
import pytest
import wire
from conftest import WIDTH, Server
from raw_http2 import Peer
from test_hostile_messages import MIB, peak, reset_peak
from wire import cache, classify

BUDGET = 64 * MIB


@pytest.fixture(scope="module")
def paged(features_bundle, tmp_path_factory):
    """A server with a version whose examples fill pages of 1 MiB and more."""
    store = tmp_path_factory.mktemp("paged") / "store"
    server = Server(features_bundle, store, "--max-unfinished-bytes", str(BUDGET))
    points = np.random.default_rng(7).normal(size=(4000, WIDTH))
    examples = wire.examples_of(points, [i % 2 for i in range(len(points))])
    for number, example in enumerate(examples):
        example.example_id = f"{number:0500d}"
    spec = cache.CacheSpec(
        cache_id="paged", classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
    )
    server.api.create(spec, examples)
    yield server
    server.close()


def asked() -> bytes:
    return cache.ListExamplesRequest(parent="paged@1", page_size=3000).SerializeToString()


def unread(server) -> list[Peer]:
    """Peers that have asked for 200 pages each, and read none."""
    peers = [Peer(server.address, window=0) for _ in range(2)]
    for peer in peers:
        for stream in range(1, 401, 2):
            peer.get(stream, "/v1/caches/paged/versions/1/examples?pageSize=3000")
    return peers


def test_answers_over_http_that_nobody_reads_are_dropped(paged):
    page = paged.api.caches.ListExamples(cache.ListExamplesRequest.FromString(asked()))
    assert page.ByteSize() > MIB // 2
    # What answering takes, besides what is kept, is there after the first of them.
    peers = unread(paged)
    before = reset_peak(paged)
    peers += unread(paged)
    # Whoever reads is answered meanwhile.
    for _ in range(20):
        again = paged.api.caches.ListExamples(cache.ListExamplesRequest.FromString(asked()))
        assert again == page
        assert paged.api.classifying.GetServerInfo(classify.GetServerInfoRequest()).version
    grown = peak(paged) - before
    unread_bytes = 2 * 200 * page.ByteSize()
    print(f"{grown >> 20} MiB more for {unread_bytes >> 20} MiB more of unread answers")
    assert grown < unread_bytes / 2
    assert paged.http("/healthz")[0] == 200
    for peer in peers:
        peer.close()
