"""gRPC-web as a browser speaks it: HTTP/1.1, frames in the body, trailers in the last one."""

from __future__ import annotations

import base64
import http.client
import struct

import pytest
import wire
from conftest import WIDTH
from google.protobuf import empty_pb2
from models import points_cache
from tritonclient.grpc import service_pb2 as v2
from wire import cache, classify

PAGE = "https://pages.example.org"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CLASSIFY = "/tipserve.v1.ClassifyService/Classify"
INFO = "/tipserve.v1.ClassifyService/GetServerInfo"
KINDS = ["application/grpc-web+proto", "application/grpc-web-text"]


@pytest.fixture(scope="module")
def web(features_bundle, tmp_path_factory):
    """A server that a page may call."""
    from conftest import Server

    store = tmp_path_factory.mktemp("web") / "store"
    server = Server(features_bundle, store, "--web-origins", f"{PAGE},http://localhost:8080")
    yield server
    server.close()


class Answer:
    """A response taken apart."""

    def __init__(self, response) -> None:
        self.status, self.headers = response.status, response.headers
        body = response.read()
        if self.headers.get("content-type", "").startswith("application/grpc-web-text"):
            # Pieces, each with its own padding.
            ends = [
                i + 1 for i, c in enumerate(body) if c == ord("=") and body[i + 1 : i + 2] != b"="
            ]
            starts = [0, *ends]
            pieces = (body[a:b] for a, b in zip(starts, [*ends, len(body)], strict=True))
            body = b"".join(base64.b64decode(piece) for piece in pieces)
        self.messages, self.trailers = [], {}
        while body and self.headers.get("content-type", "").startswith("application/grpc"):
            flags, length = struct.unpack(">BI", body[:5])
            part, body = body[5 : 5 + length], body[5 + length :]
            if flags & 0x80:
                lines = part.decode().split("\r\n")
                pairs = (line.split(":", 1) for line in lines if line)
                self.trailers = {key: value.strip() for key, value in pairs}
            else:
                self.messages.append(part)

    @property
    def code(self) -> str:
        return self.trailers.get("grpc-status") or self.headers["grpc-status"]


def call(server, path, *messages, kind=KINDS[0], origin=None, **headers) -> Answer:
    """One call over a connection of its own."""
    frames = b"".join(
        struct.pack(">BI", 0, len(data)) + data
        for data in (message.SerializeToString() for message in messages)
    )
    body = base64.b64encode(frames) if "text" in kind else frames
    headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1"} | headers
    if origin is not None:
        headers["origin"] = origin
    connection = http.client.HTTPConnection(server.address, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def preflight(server, origin, path=CLASSIFY):
    """What a browser asks before it calls another origin."""
    connection = http.client.HTTPConnection(server.address, timeout=60)
    try:
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-grpc-web,x-user-agent",
        }
        connection.request("OPTIONS", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("origin", [None, PAGE])
def test_a_unary_call(web, clusters, name, kind, origin):
    points_cache(web, name, clusters)
    point = clusters.draw(1)[0][0]
    request = classify.ClassifyRequest(cache=name, input=wire.embedding(point))
    request.options.logits = True
    answer = call(web, CLASSIFY, request, kind=kind, origin=origin)
    assert (answer.status, answer.code) == (200, "0")
    (message,) = answer.messages
    response = classify.ClassifyResponse.FromString(message)
    expected = web.api.one(name, wire.embedding(point), logits=True)
    assert list(response.classification.logits) == list(expected.logits)
    assert answer.headers.get("access-control-allow-origin") == origin

    infer = v2.ModelInferRequest(model_name=name, raw_input_contents=[point.tobytes()])
    infer.inputs.add(name="embedding", datatype="FP32", shape=[1, WIDTH])
    answer = call(web, INFER, infer, kind=kind, origin=origin)
    assert answer.code == "0"
    outputs = v2.ModelInferResponse.FromString(answer.messages[0]).raw_output_contents
    assert outputs[0][4:].decode() == expected.top[0].display_name


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_with_many_answers(web, clusters, name, kind):
    points_cache(web, name, clusters)
    request = cache.ExportVersionRequest(name=f"caches/{name}/versions/1")
    answer = call(web, "/tipserve.v1.CacheService/ExportVersion", request, kind=kind, origin=PAGE)
    assert answer.code == "0"
    first, *parts = map(cache.ExportVersionResponse.FromString, answer.messages)
    header, data = web.api.export(f"caches/{name}/versions/1")
    assert first.header == header
    # The file begins with JSON, whose keys have no order; the tensors follow.
    got = b"".join(part.chunk for part in parts)
    assert (len(got), got[-2000:]) == (len(data), data[-2000:])


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_with_its_details(web, kind):
    request = classify.ClassifyRequest(cache="there-is-none", input=wire.embedding([1.0]))
    answer = call(web, CLASSIFY, request, kind=kind, origin=PAGE)
    assert (answer.status, answer.code) == (200, "5")
    there = {**dict(answer.headers), **answer.trailers}
    assert "there-is-none" in there["grpc-message"]
    assert b"NOT_FOUND" in base64.b64decode(there["grpc-status-details-bin"] + "==")
    exposed = answer.headers["access-control-expose-headers"]
    assert {"grpc-status", "grpc-message", "grpc-status-details-bin"} <= set(exposed.split(","))


def test_a_browser_is_told_what_it_may_do(web):
    response = preflight(web, PAGE)
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-methods"] == "GET,POST,PUT,DELETE"
    assert "x-grpc-web" in response.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example.org", "http://pages.example.org", "null", f"{PAGE}:444"]
)
def test_a_page_from_elsewhere_is_refused(web, origin):
    assert preflight(web, origin).status == 403
    answer = call(web, INFO, empty_pb2.Empty(), origin=origin)
    assert answer.status == 403
    assert not answer.messages
    assert "access-control-allow-origin" not in answer.headers


def test_no_page_is_allowed_unless_it_is_named(features):
    assert call(features, INFO, empty_pb2.Empty()).code == "0"
    for origin in (PAGE, "http://127.0.0.1:1"):
        assert call(features, INFO, empty_pb2.Empty(), origin=origin).status == 403
        assert preflight(features, origin).status == 403
    # The server has pages of its own.
    own = f"http://{features.address}"
    assert call(features, INFO, empty_pb2.Empty(), origin=own).code == "0"


def test_every_page_where_that_is_set(serve, features_bundle):
    server = serve(features_bundle, env={"TIPSERVE_WEB_ORIGINS": "*"})
    for origin in (PAGE, "null"):
        answer = call(server, INFO, empty_pb2.Empty(), origin=origin)
        assert answer.code == "0"
        assert answer.headers["access-control-allow-origin"] == "*"


def test_plain_http_is_answered_and_harms_nothing(web):
    connection = http.client.HTTPConnection(web.address, timeout=60)
    connection.request("GET", "/nothing")
    assert connection.getresponse().status == 404
    connection.close()
    connection = http.client.HTTPConnection(web.address, timeout=60)
    connection.request("POST", INFO, b"", {"content-type": "application/grpc"})
    answer = connection.getresponse()
    assert answer.status == 415 and b"gRPC needs HTTP/2" in answer.read()
    connection.close()
    assert call(web, INFO, empty_pb2.Empty()).code == "0"


def test_broken_frames_are_an_error_of_their_call(web):
    for body in (b"\x00\x00\x00", b"\x00\xff\xff\xff\xff", b"\x07\x00\x00\x00\x01a"):
        connection = http.client.HTTPConnection(web.address, timeout=60)
        connection.request("POST", INFO, body, {"content-type": KINDS[0]})
        answer = Answer(connection.getresponse())
        connection.close()
        assert answer.status == 200
        assert answer.code != "0"


def test_a_shutdown_does_not_wait_for_a_browsers_connection(serve, features_bundle):
    server = serve(features_bundle)
    held = [http.client.HTTPConnection(server.address, timeout=60) for _ in range(2)]
    # One that has called and stays, one that has never spoken.
    for connection in held:
        connection.connect()
    headers = {"content-type": KINDS[0]}
    held[0].request("POST", INFO, struct.pack(">BI", 0, 0), headers)
    assert Answer(held[0].getresponse()).code == "0"
    assert server.terminate() == 0
    assert "shutting down was over" not in server.log.read_text()
    for connection in held:
        connection.close()


def test_a_setting_that_is_no_origin_is_refused(features_bundle, tmp_path):
    import subprocess

    from conftest import BINARY

    done = subprocess.run(
        [
            *(BINARY, "serve", "--bundle", features_bundle, "--store", tmp_path / "store"),
            *("--web-origins", "pages.example.org"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "web_origins" in done.stderr
