"""The loads of probes.py, each a process of its own that goes on until it is ended.

python benches/latency/hostile_loads.py LOAD ADDRESS
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/server"))

import wire  # noqa: E402
from raw_http2 import (  # noqa: E402
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    Peer,
    frame,
    headers,
)
from wire import cache, classify  # noqa: E402

MIB = 1 << 20
# Peers come from another address than the probes, which are connected from 127.0.0.1.
ELSEWHERE = "127.0.0.2"
EMBED = "/tipserve.v1.ClassifyService/Embed"
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
LIST = "/tipserve.v1.CacheService/ListCaches"


def again(count: int, work: Callable[[], object]) -> None:
    """Does it in many threads, for ever; what the server refuses is asked for again."""

    def go() -> None:
        while True:
            with contextlib.suppress(grpc.RpcError, OSError):
                work()

    threads = [threading.Thread(target=go) for _ in range(count)]
    for thread in threads:
        thread.start()
    threads[0].join()


def busy_cores(address: str) -> None:
    """Nothing of the server's: as many processes as there are cores, which only count."""
    for _ in os.sched_getaffinity(0):
        if os.fork() == 0:
            while True:
                pass
    time.sleep(3600)


def connections(address: str) -> None:
    """As many as one address may have, and ever more."""
    host, port = address.rsplit(":", 1)
    held: list[socket.socket] = []

    def more() -> None:
        held.append(socket.create_connection((host, int(port)), 10, (ELSEWHERE, 0)))
        if len(held) > 700:
            held.pop(0).close()

    again(1, more)


def unfinished(address: str) -> None:
    """Messages that lack their last byte, of methods with tokens and without."""

    def peer() -> None:
        one = Peer(address, source=ELSEWHERE)
        for stream in range(1, 81, 2):
            one.begin_message(stream, (EMBED, LIVE)[stream // 2 % 2], 31 * MIB, patience=0.05)
        one.close()

    again(4, peer)


def silent(address: str) -> None:
    """Thousands of streams that say nothing."""
    peers = [Peer(address, source=ELSEWHERE) for _ in range(5)]
    for peer in peers:
        for stream in range(1, 2001, 2):
            peer.open(stream, "/tipserve.v1.ClassifyService/ClassifyStream")
    time.sleep(3600)


def flood(address: str, frames: Callable[[], Iterator[bytes]]) -> None:
    """Frames as fast as they are taken."""
    host, port = address.rsplit(":", 1)

    def peer() -> None:
        with socket.create_connection((host, int(port)), 10, (ELSEWHERE, 0)) as one:
            one.sendall(PREFACE + frame(SETTINGS, 0, 0))
            for some in frames():
                one.sendall(some)

    again(2, peer)


def resets() -> Iterator[bytes]:
    """Calls that are cancelled at once."""
    cancel = struct.pack(">I", 8)
    for stream in range(1, 100_001, 2):
        yield frame(HEADERS, END_HEADERS, stream, headers(LIST)) + frame(RESET, 0, stream, cancel)


def pings() -> Iterator[bytes]:
    """Pings whose answers are not read."""
    while True:
        yield frame(PING, 0, 0, b"12345678") * 500


def raw(address: str, count: int, path: str, data: bytes) -> None:
    """The same message again and again."""
    channels = [wire.Api(address).channel for _ in range(count)]
    calls = iter([channel.unary_unary(path) for channel in channels])
    own = threading.local()

    def ask() -> None:
        if not hasattr(own, "call"):
            own.call = next(calls)
        own.call(data, timeout=120)

    again(count, ask)


def embed(address: str, count: int, request: classify.EmbedRequest) -> None:
    """Embed again and again, with all of them under way at once."""
    apis = [wire.Api(address) for _ in range(8)]
    turn = iter(range(10**9))
    again(count, lambda: apis[next(turn) % 8].classifying.Embed(request, timeout=300))


def templates(address: str) -> None:
    """Versions of as many prompts as there may be: a thousand classes times a thousand."""
    classes = wire.classes([f"class {number}" for number in range(1000)])
    prompts = [f"{number} of {{}}" for number in range(1000)]
    api = wire.Api(address)

    def create() -> None:
        name = f"t{random.getrandbits(64):x}"
        spec = cache.CacheSpec(cache_id=name, classes=classes, prompt_templates=prompts)
        api.create(spec, timeout=120)

    again(4, create)


def selection(address: str) -> None:
    """Versions whose hyper-parameters take long to choose."""
    api = wire.Api(address)
    width = api.classifying.GetServerInfo(classify.GetServerInfoRequest()).bundle.width
    points = np.random.default_rng().normal(size=(2500, width))
    examples = wire.examples_of(points, [number % 50 for number in range(len(points))])
    classes = wire.classes([f"class {number}" for number in range(50)])

    def create() -> None:
        name = f"s{random.getrandbits(64):x}"
        kind = {"method": cache.METHOD_PROKER, "without_text": True}
        api.create(cache.CacheSpec(cache_id=name, classes=classes, **kind), examples, timeout=120)

    again(3, create)


def imports(address: str) -> None:
    """Files of which every byte is read before they are refused."""
    tensor = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = f"{{{','.join(tensor % number for number in range(200_000))}}}".encode()
    file = struct.pack("<Q", len(header)) + header
    api = wire.Api(address)
    again(4, lambda: api.import_(f"i{random.getrandbits(64):x}", file, chunk=MIB))


def bodies(address: str) -> None:
    """JSON of nothing but elements."""
    import http.client

    body = '{"inputs":[' + "{}," * 1_300_000 + "{}]}"

    def post() -> None:
        one = http.client.HTTPConnection(address, timeout=120)
        one.request("POST", "/v1/inputs:embed", body, {"content-type": "application/json"})
        one.getresponse().read()
        one.close()

    again(4, post)


def unread(address: str) -> None:
    """Pages of 1 MiB that nobody reads."""
    api = wire.Api(address)
    width = api.classifying.GetServerInfo(classify.GetServerInfoRequest()).bundle.width
    name = f"u{random.getrandbits(64):x}"
    points = np.random.default_rng().normal(size=(3000, width))
    examples = wire.examples_of(points, [number % 2 for number in range(len(points))])
    for number, example in enumerate(examples):
        example.example_id = f"{number:0400d}"
    kind = {"method": cache.METHOD_CLASS_MEAN, "without_text": True}
    api.create(cache.CacheSpec(cache_id=name, classes=wire.classes("ab"), **kind), examples)
    page = cache.ListExamplesRequest(parent=f"{name}@1", page_size=3000).SerializeToString()

    def peer() -> None:
        one = Peer(address, window=0, source=ELSEWHERE)
        for stream in range(1, 401, 2):
            one.message(stream, "/tipserve.v1.CacheService/ListExamples", page)
        time.sleep(2)
        one.close()

    again(4, peer)


def pictures(address: str) -> None:
    """Pictures of nearly as many pixels as there may be."""
    small = Image.fromarray(np.random.default_rng().integers(0, 256, (60, 60, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize((7900, 7900)).save(file, "JPEG", progressive=True)
    inputs = [wire.encoded(file.getvalue() + bytes([number])) for number in range(4)]
    embed(address, 8, classify.EmbedRequest(inputs=inputs))


LOADS: dict[str, Callable[[str], None]] = {
    "busy cores": busy_cores,
    "connections": connections,
    "unfinished messages": unfinished,
    "silent streams": silent,
    "resets": lambda address: flood(address, resets),
    "pings": lambda address: flood(address, pings),
    "empty inputs": lambda address: raw(address, 4, EMBED, b"\x0a\0" * (MIB // 2)),
    "empty texts": lambda address: raw(address, 4, EMBED, b"\x12\0" * (MIB // 2)),
    "empty tensors": lambda address: raw(address, 4, INFER, b"\x0a\x01x" + b"\x2a\0" * 8 * MIB),
    "long texts": lambda address: embed(
        address,
        2,
        classify.EmbedRequest(texts=["a long text " * 80] * 16_000, truncate_texts=True),
    ),
    "many texts": lambda address: embed(
        address, 600, classify.EmbedRequest(texts=[f"a photo of thing {i}" for i in range(100)])
    ),
    "classes times templates": templates,
    "selection": selection,
    "imports": imports,
    "JSON bodies": bodies,
    "unread answers": unread,
    "large pictures": pictures,
    # Of a server whose log nobody reads.
    "unread log": lambda address: raw(address, 4, LIST, b""),
}

if __name__ == "__main__":
    LOADS[sys.argv[1]](sys.argv[2])
