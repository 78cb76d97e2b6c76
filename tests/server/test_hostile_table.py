"""Every method of every service, over gRPC, gRPC-web and HTTP, and what else there is to call: one
server without tokens, whose peers do to each what they can. Its memory stays within what
docs/security.md says, its descriptors come back, its probes answer, and others are served.
"""

from __future__ import annotations

import os
import time

import grpc
import hostile_peers
import numpy as np
import pytest
import wire
from conftest import WIDTH, Server, eventually
from hostile_peers import ATTACKS, MIB, ROUTES, SIZES, all_end, close, connected
from test_hostile_messages import peak, reset_peak

BUDGET = 32 * MIB
WINDOWS = 4 * MIB
# What allocators and 1200 calls take besides.
SLACK = 24 * MIB
# What an attack may make the process grow by.
BOUNDS = {
    # Half of `max_unfinished_bytes` of one caller, and HTTP/2's window of each connection.
    "unfinished": BUDGET // 2 + 2 * WINDOWS + SLACK,
    "streams": SLACK,
    # Eight times its bytes and 1 MiB for each message, of which one caller's take turns.
    "elements": 8 * (512 << 10) + SLACK,
    # Answers that wait, and such that are being made.
    "unread": BUDGET + BUDGET // 2 + SLACK,
    "resets": SLACK,
    "bombs": BUDGET // 2 + SLACK,
    "http1": BUDGET // 2 + SLACK,
}
SECONDS = 2


@pytest.fixture(scope="module")
def attacked(features_bundle, tmp_path_factory):
    store = tmp_path_factory.mktemp("attacked") / "store"
    flags = ("--max-unfinished-bytes", str(BUDGET), "--max-message-bytes", str(SIZES[0]))
    server = Server(features_bundle, store, *flags, "--message-seconds", str(SECONDS))
    spec = wire.cache.CacheSpec(cache_id="here", classes=wire.classes("ab"))
    points = np.random.default_rng(4).normal(size=(8, WIDTH))
    server.api.create(spec, wire.examples_of(points, [0, 1] * 4))
    server.health = server.api.channel.unary_unary("/grpc.health.v1.Health/Check")
    others_are_served(server)
    server.descriptors = descriptors(server)
    yield server
    server.close()


def descriptors(server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def others_are_served(server) -> None:
    """Another address's calls, and the probes."""
    assert server.health(b"", timeout=30) == b"\x08\x01", "SERVING"
    assert server.http("/healthz")[0] == 200
    assert server.api.one("here", wire.embedding(np.ones(WIDTH))).top


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_no_attack_on_a_method_takes_memory_or_others_service(attacked, route):
    grown = {}
    for attack in ATTACKS:
        if attack is hostile_peers.http1 and route.kind == "application/grpc":
            continue
        before = reset_peak(attacked)
        peers = attack(attacked.address, route)
        others_are_served(attacked)
        close(peers)
        grown[attack.__name__] = peak(attacked) - before
    print({name: f"{size >> 20} MiB" for name, size in grown.items()})
    assert {name: size for name, size in grown.items() if size > BOUNDS[name]} == {}
    eventually(lambda: attacked.metrics()["tipserve_in_flight_requests"] == 0)
    eventually(lambda: descriptors(attacked) <= attacked.descriptors)


def test_every_call_that_says_nothing_ends(serve, features_bundle):
    """Silent from the start, or within its first message; over every way there is."""
    server, peers = serve(features_bundle, "--message-seconds", "1"), []
    for route in ROUTES:
        peer = connected(server.address)
        for stream, size in ((1, 0), (3, 3), (5, 100)):
            route.open(peer, stream)
            peer.data(stream, route.unfinished(4 << 10)[:size], patience=0)
        peers.append(peer)
    left = [
        route.name for route, peer in zip(ROUTES, peers, strict=True) if not all_end([peer], 60)
    ]
    assert not left
    close(peers)


def test_what_one_address_holds_keeps_no_other_out(attacked):
    """All attacks at once, on every method."""
    before = reset_peak(attacked)
    peers, end = [], time.monotonic() + 20
    for route in ROUTES[::7]:
        for attack in (hostile_peers.streams, hostile_peers.unfinished, hostile_peers.unread):
            if time.monotonic() < end:
                peers += attack(attacked.address, route)
        others_are_served(attacked)
    with pytest.raises(grpc.RpcError) as caught:
        greedy = grpc.insecure_channel(attacked.address)
        greedy.unary_unary("/tipserve.v1.CacheService/None")(b"", timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    grown = peak(attacked) - before
    print(f"{grown >> 20} MiB of {len(peers)} connections")
    assert grown < BUDGET // 2 + 2 * BUDGET + len(peers) * WINDOWS // 8 + SLACK
    close(peers)
    eventually(lambda: attacked.metrics()["tipserve_in_flight_requests"] == 0)
