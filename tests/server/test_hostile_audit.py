"""A change that is cancelled, or whose deadline passes, at any point of its request, leaves one
audit line that says so: over every way there is.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import defaultdict

import pytest
from conftest import Server, eventually
from hostile_peers import ROUTES
from raw_http2 import Peer
from test_audit import ELSEWHERE, changing_methods, make
from tokens import TokensFile, api

CHANGES = [
    route for route in ROUTES if route.name.rsplit("-", 1)[0] in changing_methods() | ELSEWHERE
]
# How much of its request is sent: nothing, a part of its first message, that message, or all of it.
SENT = ("nothing", "a part", "a message", "all")


@pytest.fixture(scope="module")
def guarded(features_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    file = TokensFile(folder)
    token = file.add("admin", "admin")
    flags = ("--tokens", str(file.path), "--log-format", "json")
    server = Server(features_bundle, folder / "store", *flags)
    server.token = token
    make(api(server.address, token), "here")
    yield server
    server.close()


def begin(server, route, peer: Peer, stream: int, sent: str, *extra) -> str:
    """Sends that much of a call: its request id."""
    name = secrets.token_hex(8)
    headers = [("authorization", f"Bearer {server.token}"), ("x-request-id", name), *extra]
    route.open(peer, stream, headers)
    if sent == "a part":
        peer.data(stream, route.unfinished(1000)[:20])
    elif sent != "nothing":
        peer.data(stream, route.message(route.first))
    if sent == "all":
        with contextlib.suppress(OSError):
            peer.end(stream)
    return name


def lines(server) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in server.log.read_text().splitlines():
        if "tipserve::audit" in line:
            fields = json.loads(line)["fields"]
            if fields["action"] != "end_finetune":
                found[fields["request_id"]].append(fields["result"])
    return found


def test_a_change_that_is_cancelled_has_one_line(guarded):
    calls = {}
    for route in CHANGES:
        peer = Peer(guarded.address)
        for stream, sent in zip(range(1, 9, 2), SENT, strict=True):
            calls[begin(guarded, route, peer, stream, sent)] = (route, sent)
        # Once the server has seen all of them: it answers in the order of what it reads.
        peer.get(9, "/v1/serverInfo")
        assert peer.wait_ended([9], 60)
        for stream in range(1, 9, 2):
            peer.reset(stream)
        peer.get(11, "/v1/serverInfo")
        assert peer.wait_ended([11], 60)
        peer.close()
    eventually(lambda: lines(guarded).keys() >= calls.keys())
    found = lines(guarded)
    assert {name: found[name] for name in calls if len(found[name]) != 1} == {}
    # What has not all of its request is cancelled. (Over HTTP some need no more than the path.)
    wrong = {
        (route.name, sent): found[name]
        for name, (route, sent) in calls.items()
        if route.framed and sent in SENT[:2] and found[name] != ["Cancelled"]
    }
    assert not wrong


def test_a_change_whose_deadline_passes_has_one_line(guarded):
    calls = {}
    for route in CHANGES:
        if not route.framed:
            continue
        peer = Peer(guarded.address)
        for stream, sent in zip((1, 3), SENT, strict=False):
            name = begin(guarded, route, peer, stream, sent, ("grpc-timeout", "300m"))
            calls[name] = (route.name, sent)
        assert peer.wait_ended([1, 3], 60)
        peer.close()
    eventually(lambda: lines(guarded).keys() >= calls.keys())
    found = lines(guarded)
    assert {calls[name]: found[name] for name in calls if found[name] != ["DeadlineExceeded"]} == {}
