"""Compressed requests and answers: by the clients that send them, and by those that send bombs."""

from __future__ import annotations

import gzip
import http.client
import json
import struct
import zlib

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
import wire
from conftest import Server
from models import embedded, points_cache
from over_http import call
from raw_http2 import Peer
from test_hostile_messages import INFERENCE, METHODS, MIB, OPEN, peak, reset_peak
from test_web import Answer
from wire import cache, classify

INFO = "/tipserve.v1.ClassifyService/GetServerInfo"
LIMIT = 8 * MIB


@pytest.fixture(scope="module")
def bounded(features_bundle, tmp_path_factory):
    """A server whose largest message is small enough to tell a bomb from it."""
    store = tmp_path_factory.mktemp("compressed") / "store"
    server = Server(features_bundle, store, "--max-message-bytes", str(LIMIT))
    yield server
    server.close()


def zstd(data: bytes) -> bytes:
    """A frame of uncompressed blocks (RFC 8878), whose window is 128 KiB."""
    blocks = [data[at : at + (1 << 17)] for at in range(0, len(data), 1 << 17)] or [b""]
    out = b"\x28\xb5\x2f\xfd\0" + bytes([7 << 3])
    for number, block in enumerate(blocks, 1):
        out += struct.pack("<I", len(block) << 3 | (number == len(blocks)))[:3] + block
    return out


def zstd_bomb(size: int) -> bytes:
    """Zeros: four bytes for 128 KiB."""
    block = struct.pack("<I", 1 << 17 << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", 1)[:3]
    return b"\x28\xb5\x2f\xfd\0" + bytes([7 << 3]) + block * (size >> 17) + last


def gzip_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()


PACK = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd}
BOMBS = {"gzip": gzip_bomb, "zstd": zstd_bomb}


def web(server, path, frame: bytes, **headers) -> Answer:
    """One frame by gRPC-web, as it is."""
    kind = "application/grpc-web+proto"
    headers = {"content-type": kind, "accept": kind} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    connection = http.client.HTTPConnection(server.address, timeout=120)
    try:
        connection.request("POST", path, frame, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def framed(data: bytes, flag: int = 1) -> bytes:
    return struct.pack(">BI", flag, len(data)) + data


# ---- clients that compress -------------------------------------------------------


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_grpc_clients_may_compress_every_message(features, clusters, name, compression):
    points, labels = clusters.draw(60)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcd"))
    channel = grpc.insecure_channel(features.address, compression=compression)
    caches = wire.cache_grpc.CacheServiceStub(channel)
    classifying = wire.classify_grpc.ClassifyServiceStub(channel)
    try:
        examples = wire.examples_of(points, labels)
        requests = [cache.CreateCacheRequest(spec=spec)]
        requests += [cache.CreateCacheRequest(examples=cache.ExampleBatch(examples=examples))]
        progress = list(caches.CreateCache(iter(requests), timeout=60))
        assert progress[-1].version.key_count > 0
        # An answer of some size, and the same as without compression.
        asked = classify.EmbedRequest(
            inputs=[wire.embedding(point) for point in clusters.draw(200)[0]]
        )
        embedded_points = classifying.Embed(asked, timeout=60)
        assert embedded_points == features.api.classifying.Embed(asked, timeout=60)
        assert classifying.GetServerInfo(classify.GetServerInfoRequest(), timeout=60).version
    finally:
        channel.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_tritonclient_may_compress(features, clusters, name, encoding):
    points_cache(features, name, clusters)
    points = clusters.draw(50)[0]
    with triton.InferenceServerClient(features.address) as client:
        plain = client.infer(name, [embedded(points)])
        packed = client.infer(name, [embedded(points)], compression_algorithm=encoding)
    for output in ("label", "logits"):
        np.testing.assert_array_equal(packed.as_numpy(output), plain.as_numpy(output))
    tensor = triton_http.InferInput("embedding", list(points.shape), "FP32")
    tensor.set_data_from_numpy(points.astype(np.float32))
    with triton_http.InferenceServerClient(features.address) as client:
        result = client.infer(
            name,
            [tensor],
            request_compression_algorithm=encoding,
            response_compression_algorithm=encoding,
        )
    np.testing.assert_array_equal(result.as_numpy("logits"), plain.as_numpy("logits"))


@pytest.mark.parametrize("encoding", PACK)
def test_an_answer_is_compressed_in_kind(features, encoding):
    request = framed(PACK[encoding](b""))
    accepts = {"grpc_encoding": encoding, "grpc_accept_encoding": "identity, gzip,deflate,zstd"}
    answer = web(features, INFO, request, **accepts)
    assert (answer.code, answer.headers["grpc-encoding"]) == ("0", encoding), answer.headers
    info = features.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    # tonic-web keeps the frames: the flag of the first one says that it is compressed.
    [message] = answer.messages
    assert len(message) < info.ByteSize()
    if encoding != "zstd":
        inflated = zlib.decompress(message, 31 if encoding == "gzip" else 15)
        assert classify.ServerInfo.FromString(inflated) == info
    # A client that does not say that it can undo it gets the answer as it is.
    answer = web(features, INFO, request, grpc_encoding=encoding)
    assert (answer.code, answer.headers["grpc-encoding"]) == ("0", None)
    assert classify.ServerInfo.FromString(answer.messages[0]) == info


def test_an_encoding_that_is_unknown_is_refused_with_those_that_are_known(features):
    answer = web(features, INFO, framed(b"?"), grpc_encoding="snappy")
    assert answer.code == "12" and "snappy" in answer.headers["grpc-message"]
    assert answer.headers["grpc-accept-encoding"] == "identity,gzip,deflate,zstd"


@pytest.mark.parametrize("encoding", PACK)
def test_what_is_no_such_message_is_refused(features, encoding):
    whole = PACK[encoding](b"\x08\x01" * 500)
    for data in (b"", b"nothing of the kind", whole[:-5], whole + b"\1"):
        answer = web(features, INFO, framed(data), grpc_encoding=encoding)
        said = answer.headers["grpc-message"]
        assert answer.code == "3" and encoding in said, (data[:20], said)


# ---- bombs ---------------------------------------------------------------------

CONTENT = [
    *(INFERENCE + name for name in ("ModelInfer", "ModelStreamInfer")),
    *(
        f"/{method.containing_service.full_name}/{method.name}"
        for method in METHODS
        if method.name in ("Classify", "Embed", "Evaluate") or method.client_streaming
    ),
]
CONTROL = [
    path
    for method in METHODS
    if method.containing_service.full_name.startswith("tipserve.")
    and (path := f"/{method.containing_service.full_name}/{method.name}") not in CONTENT
]


@pytest.mark.parametrize("encoding", BOMBS)
def test_a_bomb_is_refused_at_the_limit_of_every_method(bounded, encoding):
    """1 GiB, or as much as fits into the largest message that the method takes."""
    pack, grew = BOMBS[encoding], {}
    sizes = {"gzip": (40 * MIB, 3 * MIB), "zstd": (1 << 30, 64 * MIB)}[encoding]
    bombs = [(CONTENT, 1 << 30), (CONTROL, sizes[0]), (OPEN, sizes[1])]
    for paths, size in bombs:
        bomb = pack(size)
        for path in paths:
            before = reset_peak(bounded)
            try:
                answer = web(bounded, path, framed(bomb), grpc_encoding=encoding)
                said = answer.trailers.get("grpc-message") or answer.headers["grpc-message"]
                if not path.endswith("/List"):  # which is not served
                    assert answer.code == "11" and "inflates" in said, (path, answer.code, said)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all of it was sent
            grew[path] = peak(bounded) - before
    worst = max(grew, key=grew.get)
    print(f"most: {grew[worst] >> 20} MiB, {worst}")
    assert grew[worst] < 3 * LIMIT + 16 * MIB
    assert bounded.http("/healthz")[0] == 200


def test_bombs_at_once_stay_within_the_budget(serve, features_bundle):
    server = serve(
        features_bundle,
        *("--max-message-bytes", str(16 * MIB), "--max-unfinished-bytes", str(64 * MIB)),
    )
    before = reset_peak(server)
    # 15 MiB each, unfinished: all but the end of them has been inflated.
    data = framed(zstd_bomb(15 * MIB))[:-3]
    peer = Peer(server.address)
    streams = range(1, 61, 2)
    for stream in streams:
        peer.open(stream, "/tipserve.v1.ClassifyService/Embed", [("grpc-encoding", "zstd")])
        peer.data(stream, data, patience=0.2)
    grown = peak(server) - before
    print(f"{grown >> 20} MiB for {len(streams)} unfinished messages")
    assert grown < 128 * MIB
    assert server.http("/healthz")[0] == 200
    peer.close()


# ---- HTTP ----------------------------------------------------------------------


@pytest.mark.parametrize("encoding", PACK)
def test_bodies_over_http_may_be_compressed(features, clusters, name, encoding):
    points, labels = clusters.draw(40)
    lines = [{"spec": {"cacheId": name, "classes": [{"displayName": one} for one in "abcd"]}}] + [
        {
            "examples": {
                "examples": [
                    {
                        "classIndex": int(label),
                        "input": {"embedding": {"values": point.tolist()}},
                    }
                ]
            }
        }
        for point, label in zip(points, labels, strict=True)
    ]
    body = PACK[encoding]("".join(json.dumps(line) + "\n" for line in lines).encode())
    made = call(
        *(features, "POST", "/v1/caches"),
        body,
        content_type="application/x-ndjson",
        content_encoding=encoding,
    )
    assert made.status == 200 and int(made.lines[-1]["version"]["keyCount"]) > 0, made.body
    asked = json.dumps({"input": {"embedding": {"values": points[0].tolist()}}}).encode()
    path = f"/v1/caches/{name}:classify"
    kind = {"content_type": "application/json"}
    plain = call(features, "POST", path, asked, **kind)
    packed = call(features, "POST", path, PACK[encoding](asked), content_encoding=encoding, **kind)
    assert packed.json["classification"] == plain.json["classification"]
    broken = call(features, "POST", path, asked, content_encoding=encoding, **kind)
    assert (broken.status, broken.problem.reason) == (400, "ENCODING_INVALID")


@pytest.mark.parametrize("encodings", [("gzip", "gzip"), ("gzip", "br"), ("identity", "gzip")])
def test_a_body_is_compressed_once(features, encodings):
    """A second header would be passed over, and the body taken for what it is not."""
    body = gzip.compress(b"{}")
    connection = http.client.HTTPConnection(features.address, timeout=60)
    try:
        connection.putrequest("POST", "/v1/caches/x:pruneVersions")
        for encoding in encodings:
            connection.putheader("content-encoding", encoding)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        assert answer.status == 415 and b"compressed once" in answer.read()
    finally:
        connection.close()


def test_answers_over_http_are_compressed_for_who_asks(features):
    plain = call(features, "GET", "/openapi.json")
    assert "content-encoding" not in plain.headers
    for asked, encoding in [("gzip", "gzip"), ("gzip, deflate, br, zstd", "zstd"), ("br", None)]:
        packed = call(features, "GET", "/openapi.json", accept_encoding=asked)
        assert packed.headers.get("content-encoding") == encoding, asked
        assert "accept-encoding" in packed.headers["vary"]
        if encoding == "gzip":
            assert gzip.decompress(packed.body) == plain.body
        if encoding is not None:
            assert len(packed.body) < len(plain.body) / 3
    # Short ones, and those that come in pieces, are sent as they are.
    small = call(features, "POST", "/v1/caches/none:pruneVersions", {}, accept_encoding="gzip")
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize("encoding", BOMBS)
@pytest.mark.parametrize(
    "path, kind",
    [
        ("/v1/inputs:embed", "application/json"),
        ("/v1/caches", "application/x-ndjson"),
        ("/v1/caches", "multipart/form-data; boundary=x"),
        ("/v1/caches/x:pruneVersions", "application/json"),
        ("/v2/models/x/infer", "application/json"),
        ("/v1/embeddings", "application/json"),
    ],
)
def test_a_bomb_over_http_is_refused_at_the_limit(bounded, encoding, path, kind):
    before = reset_peak(bounded)
    bomb = BOMBS[encoding](1 << 30)
    answer = call(
        bounded, "POST", path, bomb, content_type=kind, content_encoding=encoding, timeout=120
    )
    grown = peak(bounded) - before
    print(f"{grown >> 20} MiB; {answer.status}")
    assert answer.status in (400, 413), answer.body[:300]
    assert grown < 3 * LIMIT + 16 * MIB
    assert bounded.http("/healthz")[0] == 200
