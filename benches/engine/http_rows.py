"""What HTTP costs the server beside gRPC: processor time per item, in turns in the same run. Both
clients are Python threads with a connection each, one item a request; what they cost is not
counted."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import tritonclient.http as triton
from measure import Row, make_caches, say
from tipserve._proto import classify_pb2, classify_pb2_grpc, input_pb2

CACHE = "load-00000"
THREADS = 8
GOAL = 1.25


class Grpc:
    """Classify over a channel of its own."""

    def __init__(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(address, options)
        self.stub = classify_pb2_grpc.ClassifyServiceStub(self.channel)

    def send(self, content: input_pb2.Input) -> None:
        request = classify_pb2.ClassifyRequest(cache=CACHE, input=content)
        assert self.stub.Classify(request).classification.top

    def close(self) -> None:
        self.channel.close()


class Http:
    """The same over a connection that stays."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address)

    def send(self, content: input_pb2.Input) -> None:
        if content.WhichOneof("content") == "encoded_image":
            body, kind = content.encoded_image, "image/jpeg"
        else:
            values = list(content.embedding.values)
            body = json.dumps({"input": {"embedding": {"values": values}}})
            kind = "application/json"
        path = f"/v1/caches/{CACHE}:classify"
        self.connection.request("POST", path, body, {"content-type": kind})
        response = self.connection.getresponse()
        assert b'"top"' in response.read() and response.status == 200

    def close(self) -> None:
        self.connection.close()


class Tensors:
    """Embeddings as binary tensors."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)
        self.outputs = [triton.InferRequestedOutput("classification", binary_data=True)]

    def send(self, content: input_pb2.Input) -> None:
        point = np.array([content.embedding.values], np.float32)
        tensor = triton.InferInput("embedding", list(point.shape), "FP32")
        self.client.infer(CACHE, [tensor.set_data_from_numpy(point)], outputs=self.outputs)

    def close(self) -> None:
        self.client.close()


def cost(running, make: Callable, contents: list, count: int) -> float:
    """Core seconds of the server per item."""

    def run(thread: int) -> None:
        client = make(running.address)
        for i in range(count // THREADS):
            client.send(contents[(i + thread) % len(contents)])
        client.close()

    before = running.cpu_seconds()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    return (running.cpu_seconds() - before) / (count // THREADS * THREADS)


def over_http(bench) -> list[Row]:
    """Server cores per item over HTTP, over those of gRPC."""
    files = [path.read_bytes() for path in sorted(bench.pictures.iterdir())]
    pictures = [input_pb2.Input(encoded_image=file) for file in files]
    rows = []
    with bench.server() as running:
        make_caches(running.address, [CACHE])
        stub = classify_pb2_grpc.ClassifyServiceStub(grpc.insecure_channel(running.address))
        width = stub.GetServerInfo(classify_pb2.GetServerInfoRequest()).bundle.width
        points = np.random.default_rng(1).standard_normal((64, width)).astype(np.float32)
        embeddings = [
            input_pb2.Input(embedding=input_pb2.Embedding(values=point)) for point in points
        ]
        few, many = (200, 2000) if bench.quick else (800, 16_000)
        for what, client, contents, count in (
            ("pictures, the file as the body", Http, pictures, few),
            ("embeddings, JSON", Http, embeddings, many),
            ("embeddings, binary tensors", Tensors, embeddings, many),
        ):
            ratios, spent = [], {"grpc": [], "http": []}
            for turn in range(bench.rounds):
                say(f"over HTTP, {what}, round {turn + 1}")
                for make, into in (Grpc, "grpc"), (client, "http"):
                    spent[into].append(cost(running, make, contents, count))
                ratios.append(spent["http"][-1] / spent["grpc"][-1])
            rows.append(
                Row.of(
                    f"server cores per item over HTTP, over gRPC: {what}",
                    ratios,
                    f"<= {GOAL}",
                    lambda value: value <= GOAL,
                    core_seconds_per_item=spent,
                )
            )
    return rows
