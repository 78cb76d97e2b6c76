"""Messages that are there to fill the memory: unfinished, over-long, or of nothing but elements."""

from __future__ import annotations

import http.client
import importlib
import pkgutil
import struct
from pathlib import Path

import grpc
import pytest
import tokens as token_files
from google.protobuf.descriptor import FieldDescriptor
from raw_http2 import Peer
from tipserve import _proto
from tritonclient.grpc import service_pb2
from wire import classify

MIB = 1 << 20
INFERENCE = "/inference.GRPCInferenceService/"
OPEN = [INFERENCE + name for name in ("ServerLive", "ServerReady", "ServerMetadata")] + [
    f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch", "List")
]
# Every module of the API there is, so that a new service is tested, too.
MODULES = [
    importlib.import_module(f"tipserve._proto.{found.name}")
    for found in pkgutil.iter_modules(_proto.__path__)
    if found.name.endswith("_pb2")
]
METHODS = [
    method
    for module in (*MODULES, service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def peak(server) -> int:
    """The most resident bytes since `reset_peak`."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )


def reset_peak(server) -> int:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return peak(server)


@pytest.fixture(scope="module")
def guarded(features_bundle, tmp_path_factory):
    from conftest import Server

    folder = tmp_path_factory.mktemp("guarded")
    file = token_files.TokensFile(folder)
    file.add("admin", "admin")
    server = Server(
        features_bundle, folder / "store", "--tokens", str(file.path), "--max-streams", "4"
    )
    yield server
    server.close()


@pytest.mark.parametrize("path", OPEN)
def test_unfinished_messages_without_a_token_take_no_memory(guarded, path):
    before = reset_peak(guarded)
    peer = Peer(guarded.address)
    streams = range(1, 81, 2)
    sent = sum(peer.begin_message(stream, path, 31 * MIB) for stream in streams)
    print(f"{sent >> 10} KiB were taken")
    assert peer.wait_ended(streams, 30), "each is refused at its length"
    peer.close()
    assert peak(guarded) - before < 48 * MIB
    assert guarded.http("/healthz")[0] == 200


def test_unfinished_messages_of_callers_stay_within_the_budget(serve, features_bundle):
    server = serve(features_bundle, "--max-unfinished-bytes", str(64 * MIB))
    before = reset_peak(server)
    peers = [Peer(server.address) for _ in range(2)]
    for peer in peers:
        for stream in range(1, 21, 2):
            peer.begin_message(stream, "/tipserve.v1.ClassifyService/Embed", 16 * MIB, patience=0.2)
    grown = peak(server) - before
    print(f"{grown >> 20} MiB")
    # The budget, and what HTTP/2's flow control lets each connection send.
    assert grown < (32 + 2 * 8 + 40) * MIB
    assert server.api.classifying.GetServerInfo(classify.GetServerInfoRequest()).version
    for peer in peers:
        peer.close()


def test_a_grpc_web_message_is_bounded_as_well(guarded):
    connection = http.client.HTTPConnection(guarded.address, timeout=30)
    connection.putrequest("POST", OPEN[0])
    connection.putheader("content-type", "application/grpc-web+proto")
    connection.putheader("content-length", str(31 * MIB + 5))
    connection.endheaders()
    connection.send(b"\0" + struct.pack(">I", 31 * MIB))
    response = connection.getresponse()
    said = dict(response.getheaders()).get("grpc-message", "") + response.read().decode()
    assert "max_probe_message_bytes" in said.replace("%20", " "), said
    connection.close()


def repeated_fields(message, prefix=()):
    """Ways to a repeated message, string or bytes field: numbers of the fields, outermost first."""
    for field in message.fields:
        here = (*prefix, field.number)
        nests = field.type == FieldDescriptor.TYPE_MESSAGE
        if field.is_repeated and field.type in (
            FieldDescriptor.TYPE_MESSAGE,
            FieldDescriptor.TYPE_STRING,
            FieldDescriptor.TYPE_BYTES,
        ):
            yield here
        if nests and not field.message_type.full_name.startswith("google."):
            yield from repeated_fields(field.message_type, here)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def full_of_nothing(way, size: int) -> bytes:
    """A message of about `size` bytes: nothing but empty elements at the end of a way."""
    *outer, last = way
    data = (varint(last << 3 | 2) + b"\0") * (size // 2)
    for number in reversed(outer):
        data = varint(number << 3 | 2) + varint(len(data)) + data
    return data


WAYS = [
    (f"/{method.containing_service.full_name}/{method.name}", way)
    for method in METHODS
    for way in repeated_fields(method.input_type)
]


@pytest.mark.parametrize("path, way", WAYS, ids=lambda value: str(value).rsplit("/")[-1])
def test_memory_of_a_message_is_bounded_by_its_bytes(features, path, way):
    size = MIB
    before = reset_peak(features)
    call = features.api.channel.stream_stream(path)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([full_of_nothing(way, size)]), timeout=60))
    grown = peak(features) - before
    print(f"{grown >> 20} MiB; {caught.value.details()[:150]}")
    assert caught.value.code() != grpc.StatusCode.DEADLINE_EXCEEDED
    assert grown < 8 * size + 16 * MIB


def test_a_product_of_two_limits_is_a_limit(tiny):
    import refusals
    from wire import cache

    spec = cache.CacheSpec(
        cache_id="product",
        classes=[cache.ClassSpec() for _ in range(2000)],
        prompt_templates=["{}"] * 2000,
    )
    before = reset_peak(tiny)
    problem = refusals.refused(
        tiny.api.caches.CreateCache, iter([cache.CreateCacheRequest(spec=spec)])
    )
    refusals.says(
        problem, grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_EXCEEDED", 4_000_000, "max_prompts"
    )
    assert peak(tiny) - before < 64 * MIB


@pytest.mark.parametrize("method", ["METHOD_CLASS_MEAN", "METHOD_PROKER", "METHOD_AUTO"])
def test_the_product_of_examples_and_classes_is_a_limit(features, name, chance, method):
    """A request of 2 MiB would take some 7 GB: what is scored for every class is in memory."""
    import refusals
    import wire
    from wire import cache

    count, classes = 10_000, 30_000
    spec = cache.CacheSpec(
        cache_id=name,
        classes=[cache.ClassSpec(display_name=str(number)) for number in range(classes)],
        method=getattr(cache, method),
        allow_empty_classes=True,
        without_text=True,
    )
    examples = wire.examples_of(chance.normal(size=(count, 64)), range(count))
    before = reset_peak(features)
    problem = refusals.refused(
        features.api.caches.CreateCache, wire.requests_of(spec, examples, 1000)
    )
    limit = "max_selection_labels"
    refusals.says(problem, grpc.StatusCode.INVALID_ARGUMENT, "LIMIT_EXCEEDED", limit)
    assert problem.metadata["value"] == str(count * classes)
    assert peak(features) - before < 128 * MIB


@pytest.mark.parametrize("length", [300, 5000, 60_000])
def test_errors_quote_little_of_what_was_sent(features, length):
    from wire import cache

    name = "é" * (length // 2) + "/"
    calls = {
        "GetCache": lambda: features.api.caches.GetCache(cache.GetCacheRequest(name=name)),
        "ListCaches": lambda: features.api.caches.ListCaches(
            cache.ListCachesRequest(page_token=name)
        ),
        "SetAlias": lambda: features.api.caches.SetAlias(
            cache.SetAliasRequest(cache="a", alias=name, version=1)
        ),
    }
    for method, call in calls.items():
        with pytest.raises(grpc.RpcError) as caught:
            call()
        error = caught.value
        metadata = sum(len(key) + len(value) for key, value in error.trailing_metadata())
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, (method, error.details()[:200])
        assert len(error.details().encode()) <= 500 and metadata < 4096, (method, metadata)
