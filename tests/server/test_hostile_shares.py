"""What one caller may have of what all share, without tokens as with them: of calls, analyses, and
the memory for what uploads have been sent.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import grpc
import numpy as np
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


def test_two_addresses_cannot_take_all_that_is_arriving(serve, features_bundle):
    """Nor those whose messages ended before, all that comes free."""
    limits = ("--max-unfinished-bytes", str(64 * MIB), "--max-message-bytes", str(4 * MIB))
    server = serve(features_bundle, *limits)
    greedy = [Peer(server.address, source=f"127.0.0.{last}") for last in (2, 3) * 4]
    for peer in greedy:
        for stream in range(1, 41, 2):
            peer.begin_message(stream, "/tipserve.v1.ClassifyService/Embed", 4 * MIB - 16, 0)
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 160)
    # More than one frame, so that it needs bytes of its own.
    request = classify.EmbedRequest(inputs=[wire.embedding(np.ones(WIDTH))] * 200)
    for _ in range(3):
        # They wait for a minute.
        assert len(server.api.classifying.Embed(request, timeout=20).inputs) == 200
    assert not any(peer.ended for peer in greedy), "they ended before"
    for peer in greedy:
        peer.close()


def test_requests_that_do_not_come_keep_no_answers_space(serve, features_bundle):
    """Two addresses could otherwise keep everyone from reading, for a minute at a time."""
    server = serve(features_bundle, "--max-unfinished-bytes", str(32 * MIB))
    spec = cache.CacheSpec(cache_id="here", classes=wire.classes("ab"))
    server.api.create(spec, wire.examples_of(np.ones((2, WIDTH)), [0, 1]))
    # Of answers that are being made each may have half, which one of these takes.
    silent = [Peer(server.address, source=f"127.0.0.{last}") for last in (2, 3)]
    for peer in silent:
        for stream in range(1, 21, 2):
            peer.open(stream, "/tipserve.v1.CacheService/GetCache")
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 20)
    request = cache.GetCacheRequest(name="here")
    assert server.api.caches.GetCache(request, timeout=30).name == "caches/here"
    assert not any(peer.ended for peer in silent), "they ended before"
    for peer in silent:
        peer.close()


def examples(chance, labels) -> list:
    return wire.examples_of(chance.normal(size=(len(labels), WIDTH)), labels)


class Held:
    """A CreateCache that has been sent its examples, and is not ended."""

    def __init__(self, api, spec, sent) -> None:
        self.received, self.done = threading.Event(), threading.Event()

        def requests():
            # An example that was there already is rejected, when all before it have been taken.
            yield from wire.requests_of(spec, [*sent, sent[0]], 500)
            self.done.wait(120)

        self.call = api.caches.CreateCache(requests())
        threading.Thread(target=self._read, daemon=True).start()
        assert self.received.wait(60)

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for response in self.call:
                if response.WhichOneof("event") == "rejected":
                    self.received.set()

    def cancel(self) -> None:
        self.call.cancel()
        self.done.set()


def test_creates_and_imports_share_one_budget(serve, features_bundle, tmp_path, chance):
    file = token_files.TokensFile(tmp_path)
    tokens = [file.add(name, "write") for name in ("greedy", "other", "third")]
    limits = ("--upload-bytes", str(8 * MIB), "--max-create-bytes", str(4 * MIB))
    limits += ("--max-import-bytes", str(4 * MIB), "--tokens", str(file.path))
    server = serve(features_bundle, *limits)
    greedy, other, third = (token_files.api(server.address, token) for token in tokens)
    # 256 bytes of features each, and as much for what holds them.
    sent = examples(chance, [0, 1] * 3500)
    kind = {"classes": wire.classes("ab"), "method": cache.METHOD_CLASS_MEAN, "without_text": True}
    greedy.create(cache.CacheSpec(cache_id="whole", **kind), sent, batch=500)
    data = greedy.export("whole")[1]
    assert MIB < len(data) < 4 * MIB
    others = examples(chance, [0, 1] * 3500)
    for number, one in enumerate(others):
        one.example_id = f"other {number}"
    held = Held(greedy, cache.CacheSpec(cache_id="held", **kind), sent)
    pool = [analysis.UnlabelledItem(id=str(i), input=one.input) for i, one in enumerate(sent)]
    config = analysis.SuggestExamplesRequest(config=analysis.SuggestExamplesConfig(count=3))
    pooled = analysis.SuggestExamplesRequest(items=analysis.UnlabelledBatch(items=pool))
    again = {
        "CreateCache": lambda **_: greedy.create(cache.CacheSpec(cache_id="more", **kind), sent),
        "AddExamples": lambda **_: greedy.add(cache.AddExamplesSpec(base="whole"), others),
        "ImportVersion": lambda **_: greedy.import_("imported", data),
        "SuggestExamples": lambda **_: greedy.analysing.SuggestExamples(iter([config, pooled])),
    }
    for name, call in again.items():
        problem = refused(call)
        assert (problem.code, problem.reason) == (EXHAUSTED, "BUSY"), (name, problem)
        assert problem.metadata["limit"] == "upload_bytes" and problem.retry, (name, problem)
        assert "one caller" in problem.message
    # Another has its own half, and both together are the whole.
    also = Held(other, cache.CacheSpec(cache_id="also", **kind), sent)
    assert refused(lambda **_: third.import_("imported", data)).reason == "BUSY"
    for one in (held, also):
        one.cancel()

    # What they were sent is given back, as soon as their tasks have seen that they are gone.
    assert eventually(lambda: taken(third.import_, "imported", data)).version == 1
    spec = cache.CacheSpec(cache_id="held", **kind)
    assert eventually(lambda: taken(greedy.create, spec, sent)).version.version == 1


def taken(call, *arguments):
    """What a call answers, if it is not refused."""
    with contextlib.suppress(grpc.RpcError):
        return call(*arguments)


def test_an_upload_that_can_never_fit_is_told_so(serve, features_bundle, chance):
    """Ids count for the memory that they take, though max_create_bytes does not count them."""
    limits = ("--upload-bytes", str(2 * MIB), "--max-create-bytes", str(MIB))
    server = serve(features_bundle, *limits, "--max-import-bytes", str(MIB))
    sent = examples(chance, [0, 1] * 1500)
    for number, one in enumerate(sent):
        one.example_id = f"{number:01000d}"
    spec = cache.CacheSpec(cache_id="x", classes=wire.classes("ab"), without_text=True)
    problem = refused(lambda **_: server.api.create(spec, sent))
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_EXCEEDED")
    assert problem.metadata["limit"] == "upload_bytes"
    assert problem.metadata["maximum"] == str(MIB)
