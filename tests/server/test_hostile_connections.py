"""Connections that say nothing, or are too many."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import time
from pathlib import Path

import grpc
import pytest
from conftest import eventually
from raw_http2 import PREFACE, SETTINGS, Peer, frame
from wire import Api, classify


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def answers(server) -> bool:
    api = Api(server.address)
    try:
        info = api.classifying.GetServerInfo(classify.GetServerInfoRequest(), timeout=30)
        return bool(info.version)
    finally:
        api.close()


def closed(sockets: dict[str, socket.socket], seconds: float) -> set[str]:
    """Those that the server closes within a time."""
    gone: set[str] = set()
    with selectors.DefaultSelector() as selector:
        for name, one in sockets.items():
            selector.register(one, selectors.EVENT_READ, name)
        end = time.monotonic() + seconds
        while len(gone) < len(sockets) and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                try:
                    over = not key.fileobj.recv(65536)
                except OSError:
                    over = True
                if over:
                    gone.add(key.data)
                    selector.unregister(key.fileobj)
    return gone


def test_silent_connections_are_closed_on_both_ports(features):
    sent = {
        "silent": b"",
        "half a preface": b"PRI * HT",
        "half an HTTP/1.1 request": b"POST /x HTTP/1.1\r\nHost: x\r\n",
        # It answers no PING.
        "a preface": PREFACE + frame(SETTINGS, 0, 0),
    }
    sockets = {}
    for port, address in (("API", features.address), ("metrics", features.probes)):
        for name, data in sent.items():
            sockets[f"{port}, {name}"] = one = connect(address)
            one.sendall(data)
    assert closed(sockets, 75) == set(sockets)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="no prlimit")
def test_probes_are_answered_when_there_are_no_descriptors(serve, features_bundle):
    server = serve(features_bundle, within=("prlimit", "--nofile=128"))
    held = []
    for _ in range(200):
        try:
            held.append(connect(server.address))
        except OSError:
            break
    assert server.http("/healthz")[0] == 200
    open_now = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    metrics = server.metrics()
    print(f"{open_now} descriptors")
    assert metrics['tipserve_refused_connections_total{reason="max_connections"}'] > 0
    for one in held:
        one.close()
    log = server.log.read_text()
    assert log.count("connections were closed") + log.count("cannot accept") <= 2, log[-2000:]
    assert answers(server)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="no prlimit")
def test_accepting_backs_off_and_says_so_once(serve, features_bundle):
    """The limit is lowered under the running server: there is no descriptor for any accept."""
    import subprocess

    server = serve(features_bundle)
    pid = server.process.pid
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={highest + 2}:"], check=True)
    held = [connect(server.address) for _ in range(20)]
    for _ in range(3):
        assert server.http("/healthz")[0] == 200
    before = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    time.sleep(2)
    after = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = sum(int(after[i]) - int(before[i]) for i in (11, 12))
    # Of 2 seconds; a loop that spins takes nearly all of them.
    assert ticks / os.sysconf("SC_CLK_TCK") < 1
    assert server.log.read_text().count("cannot accept connections") <= 2
    for one in held:
        one.close()
    subprocess.run(["prlimit", "--pid", str(pid), "--nofile=1024:"], check=True)
    assert answers(server)


def test_connections_from_one_address_are_bounded(serve, features_bundle):
    server = serve(features_bundle, "--max-address-connections", "5")
    held = {str(index): connect(server.address) for index in range(20)}
    assert len(closed(held, 5)) >= 15
    other = socket.socket()
    other.bind(("127.0.0.2", 0))
    host, port = server.address.rsplit(":", 1)
    other.connect((host, int(port)))
    other.sendall(PREFACE + frame(SETTINGS, 0, 0))
    assert other.recv(9), "another address has its own"
    other.close()


def test_a_connection_is_asked_to_go_at_its_age(serve, features_bundle):
    server = serve(features_bundle, "--max-connection-age-seconds", "1")
    one = connect(server.address)
    one.sendall(PREFACE + frame(SETTINGS, 0, 0))
    assert closed({"one": one}, 30) == {"one"}
    # Clients come again by themselves.
    for _ in range(3):
        assert answers(server)
        time.sleep(0.7)


def test_a_call_that_says_nothing_ends(serve, features_bundle):
    server = serve(features_bundle, "--message-seconds", "1")
    silent = server.api.classifying.ClassifyStream(_never())
    with pytest.raises(grpc.RpcError) as caught:
        next(silent)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "message_seconds = 1" in caught.value.details()


def _never():
    time.sleep(60)
    yield from ()


def test_health_checks_of_one_address_keep_no_other_out(serve, features_bundle):
    server = serve(features_bundle)
    greedy = [Peer(server.address, source="127.0.0.2") for _ in range(2)]
    for peer in greedy:
        for stream in range(1, 2001, 2):
            peer.message(stream, "/grpc.health.v1.Health/Watch", b"")
    # Each stream beyond those that an address may have ends at once.
    eventually(lambda: sum(len(peer.ended) for peer in greedy) == 2000 - 256)
    api = Api(server.address)
    check = api.channel.unary_unary("/grpc.health.v1.Health/Check")
    for _ in range(10):
        assert check(b"", timeout=60) == b"\x08\x01", "SERVING"
    watch = api.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
    assert next(watch) == b"\x08\x01"
    watch.cancel()
    api.close()
    assert sum(len(peer.ended) for peer in greedy) == 2000 - 256, "the others go on"
    for peer in greedy:
        peer.close()
