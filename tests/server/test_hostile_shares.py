"""What one caller may have of what all share, without tokens as with them: of calls, analyses, and
the memory for what uploads have been sent.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import grpc
import tokens as token_files
import wire
from certificates import Authority, Files
from conftest import WIDTH, eventually
from raw_http2 import Peer
from refusals import refused
from wire import Problem, analysis, cache, classify

MIB = 1 << 20
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INFO = classify.GetServerInfoRequest()


class Elsewhere:
    """Passes connections on to a server, from another address."""

    def __init__(self, address: str, source: str) -> None:
        host, port = address.rsplit(":", 1)
        self.to, self.source = (host, int(port)), source
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.to, source_address=(self.source, 0))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def silent(api):
    """A stream that says nothing, for as long as the test lasts."""
    done = threading.Event()

    def nothing():
        done.wait(120)
        yield from ()

    call = api.classifying.ClassifyStream(nothing())
    call.add_callback(done.set)
    return call


def test_one_address_cannot_take_all_calls(serve, features_bundle):
    server = serve(features_bundle, "--max-streams", "30", "--max-peer-streams", "20")
    greedy = [Peer(server.address, source="127.0.0.2") for _ in range(3)]
    for peer in greedy:
        for stream in range(1, 61, 2):
            peer.open(stream, "/tipserve.v1.ClassifyService/ClassifyStream")
    # However many connections it has.
    eventually(lambda: sum(len(peer.ended) for peer in greedy) == 90 - 20)
    assert server.api.classifying.GetServerInfo(INFO, timeout=60).version
    elsewhere = wire.Api(Elsewhere(server.address, "127.0.0.2").address)
    problem = refused(elsewhere.classifying.GetServerInfo, INFO)
    assert (problem.code, problem.reason) == (EXHAUSTED, "TOO_MANY_STREAMS")
    assert problem.metadata == {"limit": "max_peer_streams", "maximum": "20"}
    assert "address 127.0.0.2" in problem.message and problem.retry
    for peer in greedy:
        peer.close()
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 0)
    assert elsewhere.classifying.GetServerInfo(INFO, timeout=60).version
    elsewhere.close()


def test_one_certificate_cannot_take_all_calls(serve, features_bundle, tmp_path):
    """Two of one address are two, and two with one subject are one."""
    authority = Authority()
    files = Files(tmp_path, authority)
    limits = ("--max-streams", "30", "--max-peer-streams", "10")
    server = serve(features_bundle, *files.flags(clients=True), *limits)

    def caller(name: str):
        chain, key = authority.issue(name)
        credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
        return token_files.api(server.address, credentials=credentials)

    greedy, also_greedy, other = caller("greedy"), caller("greedy"), caller("other")
    held = [silent(greedy) for _ in range(10)]
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 10)
    for one in (greedy, also_greedy):
        problem = refused(one.classifying.GetServerInfo, INFO)
        assert (problem.code, problem.reason) == (EXHAUSTED, "TOO_MANY_STREAMS")
        assert "CN=greedy" in problem.message
    assert other.classifying.GetServerInfo(INFO, timeout=60).version
    for call in held:
        call.cancel()
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 0)
    assert greedy.classifying.GetServerInfo(INFO, timeout=60).version


def test_analyses_of_one_address_leave_places_for_another(serve, features_bundle, chance):
    server = serve(features_bundle)
    count, classes = 4000, 40
    labels = [index % classes for index in range(count)]
    spec = cache.CacheSpec(
        cache_id="large",
        classes=wire.classes([f"class {index}" for index in range(classes)]),
        method=cache.METHOD_CLASS_MEAN,
        without_text=True,
    )
    server.api.create(spec, examples(chance, labels))
    spec = cache.CacheSpec(cache_id="small", classes=wire.classes("ab"), without_text=True)
    server.api.create(spec, examples(chance, [0, 1] * 4))
    greedy = wire.Api(Elsewhere(server.address, "127.0.0.2").address)
    asked = analysis.AnalyzeVersionRequest(cache="large", draws=50)
    calls = [greedy.analysing.AnalyzeVersion.future(asked) for _ in range(40)]
    eventually(lambda: sum(call.done() for call in calls) >= 36, 120)
    errors = [call.exception() for call in calls if call.done()]
    assert {Problem.of_call(error).reason for error in errors if error} == {"BUSY"}
    asked = analysis.AnalyzeVersionRequest(cache="small")
    assert server.api.analysing.AnalyzeVersion(asked, timeout=300).example_count == 8
    for call in calls:
        call.cancel()
    greedy.close()


def examples(chance, labels) -> list:
    return wire.examples_of(chance.normal(size=(len(labels), WIDTH)), labels)
