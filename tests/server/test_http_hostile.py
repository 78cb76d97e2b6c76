"""Bodies over HTTP that are there to fill the memory, or to take for ever."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading

import pytest
from conftest import WIDTH, Server
from over_http import call
from test_hostile_messages import MIB, peak, reset_peak


@pytest.fixture(scope="module")
def bounded(features_bundle, tmp_path_factory):
    store = tmp_path_factory.mktemp("bounded") / "store"
    flags = ("--max-message-bytes", str(4 * MIB), "--message-seconds", "2")
    server = Server(features_bundle, store, *flags)
    yield server
    server.close()


EMBED = "/v1/inputs:embed"
HOSTILE = {
    "deep": '{"inputs":' + "[" * 1_000_000,
    "deep objects": '{"inputs":' + '[{"a":' * 500_000,
    "elements": '{"inputs":[' + "{}," * 1_300_000 + "{}]}",
    "strings": '{"texts":[' + '"",' * 1_300_000 + '""]}',
    "numbers": '{"inputs":[{"embedding":{"values":[' + "1," * 2_000_000 + "1]}}]}",
    "keys": "{" + ",".join(f'"k{i}":1' for i in range(300_000)) + "}",
    "the same key": '{"raw":true,' * 1 + '"raw":true,' * 300_000 + '"raw":true}',
    "a huge number": '{"inputs":[{"embedding":{"values":[' + "9" * 3_000_000 + "]}}]}",
    "a long name": '{"' + "a" * 3_000_000 + '":1}',
    "no text": b'{"texts":["\xff\xfe"]}',
    "a lone surrogate": '{"texts":["\\ud800"]}',
    "spaces": " " * (4 * MIB - 10) + "{",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_body_is_refused_and_takes_no_memory(bounded, name):
    before = reset_peak(bounded)
    answer = call(bounded, "POST", EMBED, HOSTILE[name], content_type="application/json")
    assert answer.status in (400, 413), answer.body[:500]
    assert answer.problem.reason in (
        *("JSON_INVALID", "FIELD_INVALID", "MESSAGE_TOO_LARGE", "LIMIT_EXCEEDED", "RATE_LIMITED"),
    ), answer.problem
    assert len(answer.body) < 8192 and answer.problem.message.isprintable()
    assert peak(bounded) - before < 96 * MIB
    assert call(bounded, "GET", "/v1/serverInfo").status == 200


def test_lengths(bounded):
    """What a request says is enough to refuse it; what it does not say is counted."""
    connection = http.client.HTTPConnection(bounded.address, timeout=30)
    connection.putrequest("POST", EMBED)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(31 * MIB))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413 and b"MESSAGE_TOO_LARGE" in response.read()
    connection.close()
    pieces = (b" " * 65536 for _ in range(128))
    connection = http.client.HTTPConnection(bounded.address, timeout=30)
    try:
        connection.request(
            "POST", EMBED, pieces, {"content-type": "application/json"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before it was sent
    connection.close()
    small = {"keep": 1, "etag": "x" * 70_000}
    answer = call(bounded, "POST", "/v1/caches/any:pruneVersions", small)
    assert answer.problem.metadata["limit"] == "max_control_message_bytes"


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-ndjson", "multipart/form-data; boundary=x"]
)
def test_a_body_that_does_not_come_is_not_waited_for(bounded, kind):
    path = EMBED if kind != "application/x-ndjson" else "/v1/caches"
    host, port = bounded.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as one:
        one.sendall(
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
            "content-length: 1000\r\n\r\n{".encode()
        )
        said = one.recv(65536)
    assert b"408" in said.split(b"\r\n")[0] and b"MESSAGE_TIMEOUT" in said, said


def test_unfinished_bodies_stay_within_the_budget(serve, features_bundle):
    server = serve(features_bundle, "--max-unfinished-bytes", str(64 * MIB))
    before = reset_peak(server)
    host, port = server.address.rsplit(":", 1)
    sockets = []
    head = f"POST {EMBED} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for i in range(24):
        one = socket.create_connection((host, int(port)), timeout=60)
        length = (
            f"content-length: {16 * MIB}\r\n\r\n" if i % 2 else "transfer-encoding: chunked\r\n\r\n"
        )
        one.sendall((head + length).encode())
        one.settimeout(0.3)
        data = b" " * MIB
        try:
            for _ in range(15):
                one.sendall(data if i % 2 else b"100000\r\n" + data + b"\r\n")
        except TimeoutError:
            pass
        sockets.append(one)
    grown = peak(server) - before
    print(f"{grown >> 20} MiB")
    assert grown < 160 * MIB
    assert call(server, "GET", "/v1/serverInfo").status == 200
    for one in sockets:
        one.close()


FORM = "multipart/form-data; boundary=x"
ENDLESS = {
    "no boundary": b"",
    "a header": b"--x\r\nx-a: ",
    "a name": b'--x\r\ncontent-disposition: form-data; name="',
    "headers": b'--x\r\ncontent-disposition: form-data; name="a"\r\n',
}


@pytest.mark.parametrize("path", ["/v1/caches", EMBED])
@pytest.mark.parametrize("name", ENDLESS)
def test_what_a_forms_parser_keeps_is_bounded(features, name, path):
    """Until a part begins, its bytes are no message of which the size would be known."""
    before = reset_peak(features)
    host, port = features.address.rsplit(":", 1)
    data = b"x: y\r\n" * 8192
    sockets = [socket.create_connection((host, int(port)), timeout=60) for _ in range(12)]
    for one in sockets:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\n"
        one.sendall(f"{head}content-length: {31 * MIB}\r\n\r\n".encode() + ENDLESS[name])
        with contextlib.suppress(OSError):  # refused before it was sent
            for _ in range(16 * MIB // len(data)):
                one.sendall(data if name == "headers" else b"a" * len(data))
    grown = peak(features) - before
    print(f"{grown >> 20} MiB")
    assert grown < 64 * MIB
    for one in sockets:
        with contextlib.suppress(OSError):
            said = one.recv(65536)
            assert b"400" in said.split(b"\r\n")[0] and b"FORM_INVALID" in said, said
        one.close()
    assert features.http("/healthz")[0] == 200
    assert call(features, "GET", "/v1/serverInfo").status == 200


def declared(header: bytes) -> bytes:
    """A safetensors file that is nothing but its header."""
    return len(header).to_bytes(8, "little") + header


TENSOR = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
IMPORTS = {
    "a header over the file": (1 << 62).to_bytes(8, "little") + b"{}",
    "spaces": declared(b" " * 20_000_000),
    "deep": declared(b'{"a":' + b"[" * 20_000_000),
    "tensors": declared(f"{{{','.join(TENSOR % i for i in range(400_000))}}}".encode()),
    "a shape": declared(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_an_import_takes_no_memory_for_what_it_declares(features, name):
    before = reset_peak(features)
    answer = call(
        *(features, "POST", "/v1/caches/declared/versions:import", IMPORTS[name]),
        content_type="application/octet-stream",
        timeout=300,
    )
    assert answer.status == 400 and "no whole safetensors file" in answer.problem.message
    assert len(answer.body) < 8192
    assert peak(features) - before < 96 * MIB


def part(name: str) -> bytes:
    return (
        f'--x\r\ncontent-disposition: form-data; name="{name}"; filename="p"\r\n\r\n\r\n'.encode()
    )


SPEC = b'--x\r\ncontent-disposition: form-data; name="spec"\r\n\r\n{"cacheId":"parts"}\r\n'
PARTS = {
    "long names": [part(f"{i}" + "n" * 500_000) for i in range(200)],
    "many names": [part(str(i)) for i in range(60_000)],
}


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_a_form_are_bounded_by_their_names_too(bounded, name):
    """Classes that are named by parts: all of these are held until the last is known."""
    body = SPEC + b"".join(PARTS[name]) + b"--x--\r\n"
    before = reset_peak(bounded)
    try:
        answer = call(
            *(bounded, "POST", "/v1/caches", body),
            content_type="multipart/form-data; boundary=x",
            timeout=120,
        )
        assert answer.status in (400, 413), answer.body[:300]
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before all of it was sent
    assert peak(bounded) - before < 96 * MIB
    assert call(bounded, "GET", "/v1/serverInfo").status == 200


def test_a_line_after_the_other_is_freed(bounded):
    """A stream of many lines takes no more memory than a few."""
    item = {"input": {"embedding": {"values": [1.0] * WIDTH}}}
    from wire import cache, classes, examples_of, np

    points = np.random.default_rng(5).normal(size=(8, WIDTH))
    bounded.api.create(
        cache.CacheSpec(cache_id="lines", classes=classes("ab")), examples_of(points, [0, 1] * 4)
    )
    before = reset_peak(bounded)
    line = (json.dumps({"items": {"items": [item] * 200}}) + "\n").encode()
    connection = http.client.HTTPConnection(bounded.address, timeout=300)
    connection.putrequest("POST", "/v1/caches/lines:classifyStream?topK=1")
    connection.putheader("content-type", "application/x-ndjson")
    connection.putheader("content-length", str(100 * len(line)))
    connection.endheaders()
    # Answers are read while items are sent, as a stream's window wants it.
    sending = threading.Thread(target=connection.sock.sendall, args=(line * 100,))
    sending.start()
    response = connection.getresponse()
    count = sum(len(json.loads(one)["results"]) for one in response)
    sending.join()
    connection.close()
    assert count == 20_000
    assert peak(bounded) - before < 96 * MIB
