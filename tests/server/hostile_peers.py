"""Ways to reach every method, and what a hostile peer does with each: a table of attacks."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import struct
import time
from dataclasses import dataclass, field

import wire
from google.protobuf.descriptor import FieldDescriptor
from raw_http2 import WINDOW, Peer, frame
from rules import METHODS as HTTP_METHODS
from rules import as_http
from test_audit import READS
from test_hostile_messages import METHODS, full_of_nothing, repeated_fields
from test_hostile_names import naming
from test_http_layers import request_of
from wire import analysis, cache, classify

MIB = 1 << 20
# The largest message of the server under attack, and of methods that send no content, and probes.
SIZES = (4 * MIB, 64 << 10, 4 << 10)
HOST = "127.0.0.2"
# First messages of streams, after which the server waits for more.
FIRST = {
    "CreateCache": cache.CreateCacheRequest(
        spec=cache.CacheSpec(cache_id="none", classes=wire.classes("ab"))
    ),
    "AddExamples": cache.AddExamplesRequest(spec=cache.AddExamplesSpec(base="caches/here")),
    "ImportVersion": cache.ImportVersionRequest(
        spec=cache.ImportSpec(cache_id="none", size_bytes=SIZES[0])
    ),
    "ClassifyStream": classify.ClassifyStreamRequest(
        config=classify.ClassifyStreamConfig(cache="caches/here")
    ),
    "Evaluate": classify.EvaluateRequest(config=classify.EvaluateConfig(caches=["here"])),
    "SuggestExamples": analysis.SuggestExamplesRequest(
        config=analysis.SuggestExamplesConfig(cache="here")
    ),
}
assert set(FIRST) == {one.name for one in HTTP_METHODS.values() if one.client_streaming}


@dataclass(frozen=True)
class Route:
    """A way to a method."""

    name: str
    path: str
    kind: str
    verb: str = "POST"
    # A whole request; of a stream its first message.
    first: bytes = b""
    # Messages of nothing but elements, or of nothing but depth.
    empty: tuple[bytes, ...] = field(default=(), repr=False)
    streams: bool = False

    @property
    def framed(self) -> bool:
        return self.kind.startswith("application/grpc")

    def message(self, data: bytes) -> bytes:
        if self.framed:
            return struct.pack(">BI", 0, len(data)) + data
        return data

    def unfinished(self, size: int) -> bytes:
        """A message of this size but for its last byte."""
        if self.framed:
            return struct.pack(">BI", 0, size) + bytes(size - 1)
        return b'{"' + b"a" * (size - 3)

    def open(self, peer: Peer, stream: int, extra=()) -> None:
        peer.open(stream, self.path, extra, self.kind, self.verb)


def _grpc(name: str, path: str, first: bytes, **rest) -> list[Route]:
    return [
        Route(f"{name}-gRPC", path, "application/grpc", first=first, **rest),
        Route(f"{name}-web", path, "application/grpc-web+proto", first=first, **rest),
    ]


def _empty_messages(kind) -> tuple[bytes, ...]:
    ways = list(repeated_fields(kind))[:4]
    nested = [field.number for field in kind.fields if field.type == FieldDescriptor.TYPE_MESSAGE]
    groups = b"\x0b" * 60_000
    deep = b""
    while nested and len(deep) < 4000:
        deep = bytes([nested[0] << 3 | 2]) + _varint(len(deep)) + deep
    return (groups, deep, *(full_of_nothing(way, 60_000) for way in ways))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _empty_json(kind) -> tuple[bytes, ...]:
    repeated = [field.json_name for field in kind.fields if field.is_repeated]
    lists = [b'{"%s":[' % name.encode() + b"{}," * 20_000 + b"{}]}" for name in repeated[:4]]
    return (b'{"a":' * 12_000, b"[" * 60_000, b" " * 60_000 + b"{", *lists)


def _first(method):
    """A request of ours; one that changes something names what there is not."""
    given = FIRST.get(method.name)
    return given or request_of(method, "here" if method.name in READS else "none")


def _over_grpc(method) -> list[Route]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    ours = method.name in HTTP_METHODS
    request = _first(method) if ours else naming(method.input_type, "none")
    first = request.SerializeToString().replace(b"/versions/99", b"/versions/1")
    return _grpc(
        method.name,
        path,
        first,
        empty=_empty_messages(method.input_type),
        streams=method.client_streaming,
    )


def _over_http(method) -> Route:
    verb, path, body = as_http(method, _first(method))
    lines = isinstance(body, list)
    first = json.dumps(body[0] if lines else body).encode() + b"\n" if body else b""
    return Route(
        f"{method.name}-HTTP",
        path.replace("/versions/99", "/versions/1"),
        "application/x-ndjson" if lines else "application/json",
        verb.upper(),
        first,
        _empty_json(method.input_type),
        lines,
    )


def _besides() -> list[Route]:
    """What is in no descriptor of ours."""
    probes = [
        _grpc(f"Health{name}", f"/grpc.health.v1.Health/{name}", b"")
        for name in ("Check", "Watch", "List")
    ]
    # ServerReflectionRequest.list_services.
    reflected = [
        _grpc(
            f"Reflection{version}",
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            b"\x3a\x01*",
            streams=True,
        )
        for version in ("v1", "v1alpha")
    ]
    unknown = [
        _grpc("UnknownMethod", "/tipserve.v1.CacheService/Unknown", b""),
        _grpc("UnknownService", "/no.such.Service/Method", b""),
    ]
    tensor = {"name": "embedding", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    plain = [
        ("infer", "POST", "/v2/models/here/infer", {"inputs": [tensor]}),
        ("model", "GET", "/v2/models/here", None),
        ("ready", "GET", "/v2/health/ready", None),
        ("index", "POST", "/v2/repository/index", {}),
        ("embeddings", "POST", "/v1/embeddings", {"model": "m", "input": ["a"]}),
        ("unknown", "POST", "/v1/unknown", {}),
        ("page", "GET", "/", None),
        ("openapi", "GET", "/openapi.json", None),
        ("form", "POST", "/v1/inputs:embed", None),
    ]
    others = [
        Route(
            f"{name}-HTTP",
            path,
            "multipart/form-data; boundary=x" if name == "form" else "application/json",
            verb,
            json.dumps(body).encode() if body is not None else b"",
            (b'{"a":' * 12_000, b'{"inputs":[' + b"{}," * 20_000 + b"{}]}"),
        )
        for name, verb, path, body in plain
    ]
    return [route for pair in (*probes, *reflected, *unknown) for route in pair] + others


ROUTES = [route for method in METHODS for route in _over_grpc(method)]
ROUTES += [_over_http(method) for method in HTTP_METHODS.values()]
ROUTES += _besides()


def connected(address: str, window: int = 1 << 20) -> Peer:
    """A peer that knows how much the server lets it send."""
    peer = Peer(address, window, HOST)
    with peer.changed:
        peer.changed.wait_for(lambda: peer.initial_window > 65_535, timeout=10)
    if window:
        peer.send(frame(WINDOW, 0, 0, struct.pack(">I", 1 << 30)))
    return peer


def pour(peer: Peer, left: dict[int, bytes], patience: float = 0.05) -> None:
    """Sends as much of each stream's bytes as the server takes without a pause."""
    end = time.monotonic() + patience
    while left and not peer.closed and time.monotonic() < end:
        for stream, data in list(left.items()):
            if took := peer.data(stream, data, patience=0):
                end = time.monotonic() + patience
            left[stream] = data[took:]
            if not left[stream] or stream in peer.ended:
                del left[stream]
        with peer.changed:
            peer.changed.wait(patience / 5)


def unfinished(address: str, route: Route) -> list[Peer]:
    """Messages that lack their last byte, of all sizes; of streams the first or the second."""
    peers = [connected(address) for _ in range(2)]
    for peer in peers:
        left = {}
        for stream, size in zip(range(1, 81, 2), itertools.cycle(SIZES), strict=False):
            begun = route.message(route.first) if route.streams and stream % 3 else b""
            told = not begun and not route.framed and stream % 4 == 1
            route.open(peer, stream, [("content-length", str(size))] if told else ())
            left[stream] = begun + route.unfinished(size)
        pour(peer, left)
    return peers


def streams(address: str, route: Route) -> list[Peer]:
    """As many calls as a connection may have, and more: silent, begun, or open after a message."""
    peer = connected(address)
    begun = [b"", route.unfinished(4 << 10)[:10]] + [route.message(route.first)] * route.streams
    for stream, data in zip(range(1, 801, 2), itertools.cycle(begun), strict=False):
        route.open(peer, stream)
        peer.data(stream, data, patience=0)
    return [peer]


def elements(address: str, route: Route) -> list[Peer]:
    """Messages of nothing but elements or depth, whole."""
    peer = connected(address)
    asked = range(1, 1 + 2 * len(route.empty), 2)
    for stream, data in zip(asked, route.empty, strict=True):
        route.open(peer, stream)
        peer.data(stream, route.message(data), patience=1)
        with contextlib.suppress(OSError):
            peer.end(stream)
    assert peer.wait_ended(asked, 60), "they are not answered"
    return [peer]


def unread(address: str, route: Route) -> list[Peer]:
    """Whole requests whose answers are never read."""
    peer = connected(address, window=0)
    for stream in range(1, 201, 2):
        route.open(peer, stream)
        peer.data(stream, route.message(route.first), patience=0)
        peer.end(stream)
    return [peer]


def resets(address: str, route: Route) -> list[Peer]:
    """Calls that are cancelled as soon as they have been made (CVE-2023-44487)."""
    peer = connected(address)
    with contextlib.suppress(OSError):
        for stream in range(1, 401, 2):
            route.open(peer, stream)
            if stream % 4 == 1:
                peer.data(stream, route.message(route.first), patience=0)
            peer.reset(stream)
    return [peer]


# What inflates to a thousand times its bytes.
BOMBS = [gzip.compress(bytes(size)) for size in (3 * MIB, 40 * MIB)]


def bombs(address: str, route: Route) -> list[Peer]:
    """Compressed messages that are far larger than their bytes."""
    peer = connected(address)
    asked = range(1, 41, 2)
    header = "grpc-encoding" if route.framed else "content-encoding"
    for stream, data in zip(asked, itertools.cycle(BOMBS), strict=False):
        route.open(peer, stream, [(header, "gzip")])
        head = struct.pack(">BI", 1, len(data)) if route.framed else b""
        peer.data(stream, head + data, patience=1)
        with contextlib.suppress(OSError):
            peer.end(stream)
    assert peer.wait_ended(asked, 60), "they are not answered"
    return [peer]


def http1(address: str, route: Route) -> list[socket.socket]:
    """Unfinished bodies over HTTP/1.1, of a stated length or in chunks."""
    host, port = address.rsplit(":", 1)
    sockets = []
    for index in range(10):
        one = socket.create_connection((host, int(port)), source_address=(HOST, 0))
        one.setblocking(False)
        size = SIZES[index % 2]
        head = f"{route.verb} {route.path} HTTP/1.1\r\nhost: x\r\ncontent-type: {route.kind}\r\n"
        data = route.unfinished(size)
        if index % 4 < 2:
            head += f"content-length: {size + 5 * route.framed}\r\n\r\n"
        else:
            head += "transfer-encoding: chunked\r\n\r\n"
            data = f"{len(data):x}\r\n".encode() + data
        # As much as the server and the system take at once.
        with contextlib.suppress(OSError):
            one.send(head.encode() + data)
        sockets.append(one)
    return sockets


ATTACKS = (unfinished, streams, elements, unread, resets, bombs, http1)


def close(peers: list) -> None:
    for peer in peers:
        peer.close()


def all_end(peers: list[Peer], seconds: float) -> bool:
    """Whether the server ends all that was opened."""
    end = time.monotonic() + seconds
    return all(peer.wait_ended(peer.windows, max(0.1, end - time.monotonic())) for peer in peers)
