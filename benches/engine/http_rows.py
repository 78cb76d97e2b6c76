"""What HTTP costs the server beside gRPC: processor time per item, in turns in the same run. Both
clients are Python threads with a connection each, one item a request, their bodies made
beforehand; what they cost is not counted."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
import tritonclient.http as triton
from measure import Row, make_caches, say
from tipserve._proto import classify_pb2, classify_pb2_grpc, input_pb2

CACHE = "load-00000"
CLASSIFY = f"/v1/caches/{CACHE}:classify"
EMBED = "/v1/inputs:embed"
SERVICE = "/tipserve.v1.ClassifyService"
PACKED = "application/json;floats=base64"
THREADS = 4
GOAL = 1.25
BOUNDARY = "xxBOUNDARYxx"


@dataclass
class Grpc:
    """A method over a channel of its own; requests are bytes already, and answers stay so."""

    method: str
    bodies: list[bytes]

    def open(self, address: str) -> Callable[[int], None]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(address, options)
        call = channel.unary_unary(f"{SERVICE}/{self.method}")

        def send(turn: int) -> None:
            assert len(call(self.bodies[turn % len(self.bodies)])) > 20

        return send


@dataclass
class Http:
    """The same over a connection that stays."""

    path: str
    bodies: list[bytes]
    kind: str = "application/json"
    accept: str = "application/json"

    def open(self, address: str) -> Callable[[int], None]:
        connection = http.client.HTTPConnection(address)
        headers = {"content-type": self.kind, "accept": self.accept}

        def send(turn: int) -> None:
            body = self.bodies[turn % len(self.bodies)]
            connection.request("POST", self.path, body, headers)
            response = connection.getresponse()
            assert len(response.read()) > 20 and response.status == 200

        return send


@dataclass
class Tensors:
    """Embeddings as binary tensors of the Open Inference Protocol."""

    points: np.ndarray

    def open(self, address: str) -> Callable[[int], None]:
        client = triton.InferenceServerClient(address)
        outputs = [triton.InferRequestedOutput("classification", binary_data=True)]

        def send(turn: int) -> None:
            point = self.points[turn % len(self.points)][None]
            tensor = triton.InferInput("embedding", list(point.shape), "FP32")
            client.infer(CACHE, [tensor.set_data_from_numpy(point)], outputs=outputs)

        return send


def of_pictures(files: list[bytes]) -> dict[str, tuple[Grpc, Http]]:
    """Ways to send pictures, each beside gRPC's."""
    inputs = [input_pb2.Input(encoded_image=file) for file in files]
    requests = [classify_pb2.ClassifyRequest(cache=CACHE, input=one) for one in inputs]
    classify = Grpc("Classify", [one.SerializeToString() for one in requests])
    embeds = [classify_pb2.EmbedRequest(inputs=[one]) for one in inputs]
    embed = Grpc("Embed", [one.SerializeToString() for one in embeds])
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="x"; filename="a.jpg"\r\n\r\n'
    forms = [head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode() for file in files]
    texts = [
        json.dumps({"input": {"encodedImage": base64.b64encode(file).decode()}}).encode()
        for file in files
    ]
    form = f"multipart/form-data; boundary={BOUNDARY}"
    return {
        "pictures, the file as the body": (classify, Http(CLASSIFY, files, "image/jpeg")),
        "pictures, a form": (classify, Http(CLASSIFY, forms, form)),
        "pictures, base64 in JSON": (classify, Http(CLASSIFY, texts)),
        "Embed of pictures, its numbers in JSON": (embed, Http(EMBED, files, "image/jpeg")),
    }


def saved(array: np.ndarray) -> bytes:
    """The file that np.save writes."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def of_embeddings(points: np.ndarray) -> dict[str, tuple[Grpc, Http | Tensors]]:
    """Ways to send embeddings, each beside gRPC's."""

    def over_grpc(**options) -> Grpc:
        asked = classify_pb2.ClassifyOptions(**options)
        inputs = [input_pb2.Input(embedding=input_pb2.Embedding(values=one)) for one in points]
        requests = [
            classify_pb2.ClassifyRequest(cache=CACHE, input=one, options=asked) for one in inputs
        ]
        return Grpc("Classify", [one.SerializeToString() for one in requests])

    def body(values, **rest) -> bytes:
        return json.dumps({"input": {"embedding": {"values": values}}, **rest}).encode()

    floats = [one.astype("<f4") for one in points]
    packed = [base64.b64encode(one.tobytes()).decode() for one in floats]
    arrays = [saved(one) for one in floats]
    # As Python prints a float64 (17 digits), and as few as give the same float32.
    long = [one.tolist() for one in floats]
    short = [[float(str(value)) for value in one] for one in floats]
    answer = {"options": {"embedding": True}}
    plain, echo = over_grpc(), over_grpc(embedding=True)
    return {
        "embeddings, 17 digits in JSON": (plain, Http(CLASSIFY, [body(one) for one in long])),
        "embeddings, 9 digits in JSON": (plain, Http(CLASSIFY, [body(one) for one in short])),
        "embeddings, base64 in JSON": (plain, Http(CLASSIFY, [body(one) for one in packed])),
        "embeddings, NumPy's arrays": (plain, Http(CLASSIFY, arrays, "application/x-npy")),
        "embeddings, binary tensors": (plain, Tensors(points)),
        "embeddings there and back, 9 digits in JSON": (
            echo,
            Http(CLASSIFY, [body(one, **answer) for one in short]),
        ),
        "embeddings there and back, base64 in JSON": (
            echo,
            Http(CLASSIFY, [body(one, **answer) for one in packed], accept=PACKED),
        ),
    }


def cost(running, client: Grpc | Http | Tensors, count: int) -> float:
    """Core seconds of the server per item."""

    def run(thread: int) -> None:
        send = client.open(running.address)
        for turn in range(count // THREADS):
            send(turn + thread)

    before = running.cpu_seconds()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    return (running.cpu_seconds() - before) / (count // THREADS * THREADS)


def over_http(bench) -> list[Row]:
    """Server cores per item over HTTP, over those of gRPC."""
    files = [path.read_bytes() for path in sorted(bench.pictures.iterdir())]
    few, many = (200, 2000) if bench.quick else (600, 16_000)
    rows = []
    with bench.server() as running:
        make_caches(running.address, [CACHE])
        stub = classify_pb2_grpc.ClassifyServiceStub(grpc.insecure_channel(running.address))
        width = stub.GetServerInfo(classify_pb2.GetServerInfoRequest()).bundle.width
        points = np.random.default_rng(1).standard_normal((64, width)).astype(np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        ways = [(what, few, pair) for what, pair in of_pictures(files).items()]
        ways += [(what, many, pair) for what, pair in of_embeddings(points).items()]
        for what, count, (of_grpc, of_http) in ways:
            ratios, spent = [], {"grpc": [], "http": []}
            for turn in range(bench.rounds):
                say(f"over HTTP, {what}, round {turn + 1}")
                for client, into in (of_grpc, "grpc"), (of_http, "http"):
                    spent[into].append(cost(running, client, count))
                ratios.append(spent["http"][-1] / spent["grpc"][-1])
            rows.append(
                Row.of(
                    f"server cores per item over HTTP, over gRPC: {what}",
                    ratios,
                    f"<= {GOAL}",
                    lambda value: value <= GOAL,
                    core_seconds_per_item=spent,
                    width=width,
                )
            )
    return rows
