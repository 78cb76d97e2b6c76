"""A token that is removed ends what is under way over HTTP/1.1, too: JSON, lines, events, gRPC-web."""

from __future__ import annotations

import contextlib
import json
import signal
import socket

import pytest
from hostile_peers import ROUTES
from test_revocation import MANY_EPOCHS, make
from tokens import TokensFile, api

LASTING = [route for route in ROUTES if route.streams and route.kind != "application/grpc"]


@pytest.fixture
def guarded(serve, features_bundle, tmp_path):
    file = TokensFile(tmp_path)
    admin, token = file.add("admin", "admin"), file.add("gone", "write")
    server = serve(features_bundle, "--tokens", str(file.path), "--reload-seconds", "1")
    server.file, server.token = file, token
    make(api(server.address, admin), "here", 4000)
    return server


def begun(server, verb: str, path: str, kind: str, first: bytes, accept: str = "*/*"):
    """A call with its first message, whose request does not end."""
    host, port = server.address.rsplit(":", 1)
    one = socket.create_connection((host, int(port)))
    one.settimeout(60)
    head = [
        f"{verb} {path} HTTP/1.1",
        *("host: x", f"authorization: Bearer {server.token}", f"content-type: {kind}"),
        *(f"accept: {accept}", "connection: close", "transfer-encoding: chunked", "", ""),
    ]
    one.sendall("\r\n".join(head).encode() + b"%x\r\n%s\r\n" % (len(first), first))
    return one


def test_it_reaches_every_long_call_over_http(guarded):
    calls = {
        route.name: begun(guarded, route.verb, route.path, route.kind, route.message(route.first))
        for route in LASTING
        # What reflection tells, it tells over gRPC.
        if not route.name.startswith("Reflection")
    }
    assert len(calls) >= 12, sorted(calls)
    body = json.dumps({"epochs": MANY_EPOCHS}).encode()
    for accept in ("application/x-ndjson", "text/event-stream"):
        one = begun(
            *(guarded, "POST", "/v1/caches/here:fineTune", "application/json", body, accept)
        )
        one.sendall(b"0\r\n\r\n")
        assert one.recv(12) == b"HTTP/1.1 200", accept
        calls[accept] = one
    guarded.file.remove("gone")
    guarded.file.write()
    guarded.process.send_signal(signal.SIGHUP)
    for name, one in calls.items():
        answer = b""
        with contextlib.suppress(TimeoutError):
            while some := one.recv(65_536):
                answer += some
        # gRPC-web has UNAUTHENTICATED in its trailers.
        said = b"grpc-status:16" if name.endswith("-web") else b"TOKEN_UNKNOWN"
        assert said in answer.replace(b"grpc-status: ", b"grpc-status:"), (name, answer[-500:])
        one.close()
