"""ModelStreamInfer, by NVIDIA's own client: every request one answer, in order."""

from __future__ import annotations

import queue
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import wire
from conftest import WIDTH, eventually
from models import embedded, pictured, pictures_cache, points_cache, same
from pictures import photo, png
from tritonclient.grpc import service_pb2 as v2
from tritonclient.grpc import service_pb2_grpc as v2_grpc
from wire import Problem

PATIENCE = 120


class Stream:
    """A stream of the real client; its answers and errors in a queue."""

    def __init__(self, address: str, **options) -> None:
        self.client = triton.InferenceServerClient(address)
        self.events = queue.Queue()
        self.client.start_stream(lambda result, error: self.events.put((result, error)), **options)

    def send(self, *arguments, **options) -> None:
        self.client.async_stream_infer(*arguments, **options)

    def next(self):
        return self.events.get(timeout=PATIENCE)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()


def test_many_requests_in_flight_are_answered_in_order(features, clusters, name):
    points_cache(features, name, clusters)
    points_cache(features, f"{name}-two", clusters)
    points = clusters.draw(900)[0].reshape(300, 3, WIDTH)
    caches = [name, f"{name}-two"]
    with Stream(features.address) as stream:
        for i, batch in enumerate(points):
            stream.send(caches[i % 2], [embedded(batch)], request_id=str(i))
        for i, batch in enumerate(points):
            result, error = stream.next()
            assert error is None
            response = result.get_response()
            assert (response.id, response.model_name) == (str(i), caches[i % 2])
            assert response.parameters["triton_final_response"].bool_param
            if i % 30 == 0:
                expected = [
                    features.api.one(caches[i % 2], wire.embedding(p), logits=True) for p in batch
                ]
                same(result, expected)


def test_a_request_that_fails_does_not_end_the_stream(tiny, chance, name):
    pictures_cache(tiny, name, chance)
    good = [png(photo(chance, i)) for i in range(3)]
    requests = [
        (name, good, None),
        (name, [*good, b"no picture"], "[PICTURE_UNRECOGNISED] inputs.image[3]: "),
        ("there-is-none", good, "[NOT_FOUND]"),
        ("No Name", good, "[NAME_INVALID]"),
        (name, good[:1], None),
    ]
    with Stream(tiny.address) as stream:
        for i, (model, files, _) in enumerate(requests):
            stream.send(model, [pictured(files)], request_id=f"r{i}", priority=1 + i % 2)
        for i, (model, files, words) in enumerate(requests):
            result, error = stream.next()
            if words is None:
                assert error is None, error
                assert result.get_response().id == f"r{i}"
                assert result.as_numpy("label").shape == (len(files),)
            else:
                assert words in error.message(), (i, model)


def test_errors_have_their_requests_id(features, name):
    stub = v2_grpc.GRPCInferenceServiceStub(features.api.channel)
    request = v2.ModelInferRequest(model_name=name, id="mine")
    (answer,) = stub.ModelStreamInfer(iter([request]), timeout=PATIENCE)
    assert answer.error_message.startswith("[NOT_FOUND]")
    assert (answer.infer_response.id, answer.infer_response.model_name) == ("mine", name)


def test_errors_end_the_stream_where_the_client_asks_for_that(features, clusters, name):
    points_cache(features, name, clusters)
    stub = v2_grpc.GRPCInferenceServiceStub(features.api.channel)
    tensor = embedded(clusters.draw(1)[0])
    good = v2.ModelInferRequest(
        model_name=name, inputs=[tensor._get_tensor()], raw_input_contents=[tensor._raw_content]
    )
    bad = v2.ModelInferRequest(model_name=name, id="bad")
    call = stub.ModelStreamInfer(
        iter([good, good, bad, good]),
        metadata=[("triton_grpc_error", "true")],
        timeout=PATIENCE,
    )
    taken = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in call:
            taken.append(answer)
    assert len(taken) == 2
    assert not any(answer.error_message for answer in taken)
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_MISSING",
    )


def test_a_client_that_does_not_read_is_slowed(serve, features_bundle, clusters, name):
    """What is read ahead is bounded by the window, and nothing that was sent is lost."""
    server = serve(features_bundle, "--stream-window", "8")
    # Long names make answers of some 20 KB, so that few of them fill a connection.
    points_cache(server, name, clusters, classes=[letter * 1000 for letter in "abcde"])
    stub = v2_grpc.GRPCInferenceServiceStub(server.api.channel)
    points = clusters.draw(4)[0]
    padding = "x" * (1 << 17)
    count, sent = 400, 0

    def requests():
        nonlocal sent
        for i in range(count):
            request = v2.ModelInferRequest(model_name=name, id=str(i))
            request.parameters["padding"].string_param = padding
            tensor = request.inputs.add(name="embedding", datatype="FP32", shape=points.shape)
            tensor.contents.fp32_contents.extend(points.ravel().tolist())
            sent = i + 1
            yield request

    def stands_still() -> bool:
        before = sent
        time.sleep(1)
        return 0 < before == sent

    call = stub.ModelStreamInfer(requests(), timeout=PATIENCE)
    eventually(stands_still)
    # A slow machine may stand still early; a server that reads on would come to the end.
    assert sent < count
    assert server.metrics()["tipserve_in_flight_items"] <= 8
    answers = list(call)
    assert [answer.infer_response.id for answer in answers] == [str(i) for i in range(count)]
    assert not any(answer.error_message for answer in answers)


def test_a_request_larger_than_the_window_is_refused_by_itself(
    serve, features_bundle, clusters, name
):
    server = serve(features_bundle, "--stream-window", "8")
    points_cache(server, name, clusters)
    points = clusters.draw(9)[0]
    with Stream(server.address) as stream:
        stream.send(name, [embedded(points)])
        stream.send(name, [embedded(points[:8])])
        _, error = stream.next()
        assert "stream_window = 8" in error.message()
        result, error = stream.next()
        assert error is None
        assert result.as_numpy("label").shape == (8,)


def test_more_elements_than_the_queue_holds_take_turns(serve, features_bundle, clusters, name):
    server = serve(features_bundle, "--queue-items", "5")
    points_cache(server, name, clusters)
    points = clusters.draw(60)[0]
    with triton.InferenceServerClient(server.address) as client:
        assert client.infer(name, [embedded(points)]).as_numpy("label").shape == (60,)
    with Stream(server.address) as stream:
        for _ in range(6):
            stream.send(name, [embedded(points)])
        for _ in range(6):
            result, error = stream.next()
            assert error is None
            assert result.as_numpy("score").shape == (60,)


def test_a_client_that_goes_away_leaves_nothing_behind(tiny, chance, name):
    pictures_cache(tiny, name, chance)
    files = [png(photo(chance, i % 3)) for i in range(20)]
    for _ in range(3):
        with Stream(tiny.address) as stream:
            for _ in range(5):
                stream.send(name, [pictured(files)])
            stream.next()
            stream.client.stop_stream(cancel_requests=True)
    eventually(lambda: tiny.metrics()["tipserve_in_flight_items"] == 0)
    assert tiny.metrics()["tipserve_in_flight_bytes"] == 0


def test_a_shutdown_answers_what_it_took_and_says_so(serve, tiny_bundle, chance, name):
    server = serve(tiny_bundle, "--dtype", "float32")
    pictures_cache(server, name, chance)
    stub = v2_grpc.GRPCInferenceServiceStub(server.api.channel)
    tensor = pictured([png(photo(chance, i % 3)) for i in range(8)])
    stop = threading.Event()

    def requests():
        for i in range(5):
            yield v2.ModelInferRequest(
                model_name=name,
                id=str(i),
                inputs=[tensor._get_tensor()],
                raw_input_contents=[tensor._raw_content],
            )
        stop.wait(PATIENCE)

    call = stub.ModelStreamInfer(requests(), timeout=PATIENCE)
    first = next(call)
    assert first.infer_response.id == "0"
    taken = [first]
    terminating = threading.Thread(target=server.terminate)
    terminating.start()
    with pytest.raises(grpc.RpcError) as caught:
        for answer in call:
            taken.append(answer)
    stop.set()
    terminating.join(PATIENCE)
    assert server.process.returncode == 0
    assert not any(answer.error_message for answer in taken)
    assert [answer.infer_response.id for answer in taken] == [str(i) for i in range(len(taken))]
    assert Problem.of_call(caught.value).reason == "SHUTTING_DOWN"


def test_numbers_are_the_same_on_a_stream(features, clusters, name):
    points_cache(features, name, clusters)
    points = clusters.draw(30)[0]
    with triton.InferenceServerClient(features.address) as client:
        unary = client.infer(name, [embedded(points)]).as_numpy("logits")
    with Stream(features.address) as stream:
        stream.send(name, [embedded(points)])
        streamed = stream.next()[0].as_numpy("logits")
    np.testing.assert_array_equal(streamed, unary)
