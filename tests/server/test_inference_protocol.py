"""The Open Inference Protocol, by NVIDIA's own client: the same answers as Classify's."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import wire
from conftest import WIDTH, Clusters, eventually
from models import CLASSES, embedded, pictured, pictures_cache, points_cache, same
from pictures import photo, png
from tritonclient.grpc import service_pb2 as v2
from tritonclient.grpc import service_pb2_grpc as v2_grpc
from tritonclient.utils import InferenceServerException
from wire import Problem, cache


@pytest.fixture
def stub(features):
    return v2_grpc.GRPCInferenceServiceStub(features.api.channel)


def answers(server, reference, contents):
    return [server.api.one(reference, content, logits=True) for content in contents]


# ---- answers -------------------------------------------------------------------


def test_embeddings_are_classified_as_classify_does(features, triton_client, points, name):
    expected = answers(features, name, map(wire.embedding, points))
    same(triton_client.infer(name, [embedded(points)]), expected)
    one = triton_client.infer(name, [embedded(points[:1])], request_id="a request")
    same(one, expected[:1])
    response = one.get_response()
    assert (response.id, response.model_name, response.model_version) == ("a request", name, "1")
    assert [output.name for output in response.outputs] == [
        *("label", "score", "logits", "classification")
    ]


@pytest.mark.parametrize("column", [False, True])
def test_pictures_are_classified_as_classify_does(tiny, chance, name, column):
    pictures_cache(tiny, name, chance)
    files = [png(photo(chance, i % 3)) for i in range(6)]
    # One by one, so that both sides encode batches of one: larger ones differ in the last bits.
    with triton.InferenceServerClient(tiny.address) as client:
        for file in files:
            result = client.infer(name, [pictured([file], column=column)])
            same(result, answers(tiny, name, [wire.encoded(file)]))
        whole = client.infer(name, [pictured(files, column=column)])
    logits = np.array([a.logits for a in answers(tiny, name, map(wire.encoded, files))])
    assert whole.as_numpy("label").shape == (6,)
    np.testing.assert_allclose(whole.as_numpy("logits"), logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("datatype", "digits"), [("FP16", 11), ("BF16", 8)])
def test_half_precision_embeddings_are_read(
    features, triton_client, points, name, datatype, digits
):
    if datatype == "FP16":
        halves = points.astype(np.float16)
        raw, exact = halves.tobytes(), halves.astype(np.float32)
    else:
        words = points.view(np.uint32) >> 16 << 16
        raw, exact = (words >> 16).astype("<u2").tobytes(), words.view(np.float32)
    assert np.abs(exact / points - 1).max() < 2.0 ** -(digits - 1)
    tensor = triton.InferInput("embedding", list(points.shape), datatype)
    tensor._raw_content = raw
    same(triton_client.infer(name, [tensor]), answers(features, name, map(wire.embedding, exact)))


def test_typed_contents_are_answered_in_kind(stub, triton_client, points, name):
    request = v2.ModelInferRequest(model_name=name, id="typed")
    tensor = request.inputs.add(name="embedding", datatype="FP32", shape=points.shape)
    tensor.contents.fp32_contents.extend(points.ravel().tolist())
    response = stub.ModelInfer(request, timeout=60)
    assert not response.raw_output_contents
    raw = triton_client.infer(name, [embedded(points)])
    outputs = {output.name: output for output in response.outputs}
    for output in ("label", "score", "logits", "classification"):
        expected = raw.as_numpy(output)
        assert tuple(outputs[output].shape) == expected.shape
        contents = outputs[output].contents
        values = contents.fp32_contents or contents.bytes_contents
        np.testing.assert_array_equal(np.array(values, expected.dtype), expected.ravel())


def test_only_the_outputs_asked_for_come_back(triton_client, points, name):
    wanted = [triton.InferRequestedOutput(output) for output in ("logits", "label")]
    response = triton_client.infer(name, [embedded(points)], outputs=wanted).get_response()
    assert [output.name for output in response.outputs] == ["logits", "label"]
    assert len(response.raw_output_contents) == 2


def test_elements_of_unknown_classes_are_told(features, triton_client, clusters, name):
    known, labels = clusters.draw(labels=np.arange(60) % 3)
    spec = cache.CacheSpec(cache_id=f"{name}-told", classes=wire.classes("abc"))
    features.api.create(spec, wire.examples_of(known, labels))
    rows, _ = clusters.draw(20)
    expected = [
        features.api.one(f"{name}-told", wire.embedding(row), reject={"accept": 0.9})
        for row in rows
    ]
    told = triton_client.infer(f"{name}-told", [embedded(rows)], parameters={"accept": "0.9"})
    assert [output.name for output in told.get_response().outputs][-2:] == [
        "accepted",
        "known_score",
    ]
    accepted = told.as_numpy("accepted")
    assert accepted.dtype == bool and accepted.tolist() == [one.accepted for one in expected]
    np.testing.assert_allclose(
        told.as_numpy("known_score"), [one.score for one in expected], rtol=1e-5
    )
    wanted = [triton.InferRequestedOutput("accepted")]
    none = triton_client.infer(
        f"{name}-told", [embedded(rows)], outputs=wanted, parameters={"threshold": "1e9"}
    )
    assert not none.as_numpy("accepted").any()
    for parameters, words in (
        ({"accept": "1.5"}, "parameters.accept"),
        ({"accept": "0.5", "threshold": "1"}, "exclude each other"),
        ({"threshold": "high"}, "not a number"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            triton_client.infer(f"{name}-told", [embedded(rows)], parameters=parameters)
        assert words in caught.value.message()


@pytest.mark.parametrize("count", [1, 3, 99])
def test_classification_ranks_classes(features, triton_client, points, name, count):
    wanted = [triton.InferRequestedOutput(o, class_count=count) for o in ("logits", "score")]
    result = triton_client.infer(name, [embedded(points)], outputs=wanted)
    expected = answers(features, name, map(wire.embedding, points))
    for output, value_of in (("logits", "logit"), ("score", "probability")):
        ranked = result.as_numpy(output)
        assert ranked.shape == (len(points), min(count, len(CLASSES)))
        for row, answer in zip(ranked, expected, strict=True):
            for text, best in zip(row, answer.top, strict=False):
                value, index, label = text.decode().split(":", 2)
                assert (int(index), label) == (best.index, best.display_name)
                assert np.float32(value) == np.float32(getattr(best, value_of))


def test_every_form_of_a_version_is_taken(features, triton_client, clusters, name):
    other = Clusters(clusters.chance, 5)
    points_cache(features, name, clusters)
    points_cache(features, name, other)
    alias = cache.SetAliasRequest(cache=name, alias="stable", version=1)
    features.api.caches.SetAlias(alias, timeout=60)
    points = clusters.draw(4)[0]
    for model, version, number in [
        *((name, "", "2"), (name, "1", "1"), (name, "2", "2"), (name, "latest", "2")),
        *((name, "stable", "1"), (f"{name}@stable", "", "1"), (f"{name}@2", "", "2")),
        (f"caches/{name}/versions/1", "", "1"),
    ]:
        result = triton_client.infer(model, [embedded(points)], model_version=version)
        assert result.get_response().model_version == number, (model, version)
        assert result.get_response().model_name == model
        reference = f"caches/{name}/versions/{number}"
        same(result, answers(features, reference, map(wire.embedding, points)))
        assert triton_client.is_model_ready(model, version)
        assert triton_client.get_model_metadata(model, version).versions[-1] == number


# ---- one request among others ---------------------------------------------------


def test_asyncio_calls_side_by_side(features, points, name):
    expected = answers(features, name, map(wire.embedding, points))

    async def all_at_once():
        async with triton_aio.InferenceServerClient(features.address) as client:
            calls = (client.infer(name, [embedded(point[None])]) for point in points)
            return await asyncio.gather(*calls)

    for result, answer in zip(asyncio.run(all_at_once()), expected, strict=True):
        same(result, [answer])


def test_one_bad_element_fails_its_request_by_its_index(tiny, chance, name):
    pictures_cache(tiny, name, chance)
    good = [png(photo(chance, i % 3)) for i in range(4)]
    bad = [*good[:2], b"this is no picture", good[3]]

    async def beside_each_other():
        async with triton_aio.InferenceServerClient(tiny.address) as client:
            batches = [good, bad] * 5
            calls = (client.infer(name, [pictured(files)]) for files in batches)
            return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(beside_each_other())
    for result in outcomes[::2]:
        assert result.as_numpy("label").shape == (4,)
    for error in outcomes[1::2]:
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
        assert "inputs.image[2]" in error.message()
    eventually(lambda: tiny.metrics()["tipserve_in_flight_items"] == 0)


def test_priority_and_timeout_are_taken(triton_client, points, name):
    for priority in (0, 1, 2, 7):
        triton_client.infer(name, [embedded(points)], priority=priority, timeout=60_000_000)
    with pytest.raises(InferenceServerException, match=r"parameters\.timeout: -5 is negative"):
        triton_client.infer(name, [embedded(points)], timeout=-5)
    triton_client.infer(name, [embedded(points)], parameters={"colour": "red", "shade": 3})
    with pytest.raises(InferenceServerException, match="reserved"):
        triton_client.infer(name, [embedded(points)], parameters={"triton_x": True})


def test_a_timeout_that_cannot_be_kept_is_an_error(tiny, chance, name):
    pictures_cache(tiny, name, chance)
    with triton.InferenceServerClient(tiny.address) as client:
        files = [png(photo(chance, i % 3)) for i in range(8)]
        with pytest.raises(InferenceServerException) as caught:
            client.infer(name, [pictured(files)], timeout=1)
        assert caught.value.status() in (
            *("StatusCode.DEADLINE_EXCEEDED", "StatusCode.RESOURCE_EXHAUSTED"),
        )
        assert "inputs.image[" in caught.value.message()
        # And the server goes on.
        client.infer(name, [pictured(files)], timeout=600_000_000)


# ---- refusals --------------------------------------------------------------------


def request_of(model, points, **changes):
    """A request made by hand, so that it can be wrong."""
    request = v2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="embedding", datatype="FP32", shape=points.shape)
    for field in changes.keys() & {"name", "datatype"}:
        setattr(tensor, field, changes[field])
    if "shape" in changes:
        tensor.shape[:] = changes["shape"]
    request.raw_input_contents.append(changes.get("raw", points.tobytes()))
    return request


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"name": "embeddings"}, "FIELD_INVALID", "there is no input"),
        ({"datatype": "FP64"}, "FIELD_INVALID", "it must be FP32, FP16 or BF16"),
        ({"shape": [-1, WIDTH]}, "FIELD_INVALID", "has no elements"),
        ({"shape": [20 * WIDTH]}, "LIMIT_EXCEEDED", "stream_window"),
        ({"shape": [10, 2 * WIDTH]}, "FIELD_INVALID", f"must be [N, {WIDTH}]"),
        ({"shape": [2**40, WIDTH]}, "LIMIT_EXCEEDED", "stream_window = 512"),
        ({"shape": [2**62, WIDTH]}, "LIMIT_EXCEEDED", "stream_window = 512"),
        ({"raw": b"1234"}, "FIELD_INVALID", "it has 4 bytes"),
        ({"raw": b""}, "FIELD_INVALID", "it has 0 bytes"),
        ({"name": "image", "shape": [20]}, "FIELD_INVALID", "it must be BYTES"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(stub, points, name, changes, reason, words):
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_of(name, points, **changes), timeout=60)
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert words in problem.message
    assert problem.fields


def refused(stub, request) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=60)
    return Problem.of_call(caught.value)


def test_raw_and_typed_contents_are_not_mixed(stub, points, name):
    request = request_of(name, points)
    request.inputs[0].contents.fp32_contents.append(1)
    assert "cannot be mixed" in refused(stub, request).message
    request = request_of(name, points)
    request.raw_input_contents.append(b"")
    assert "2 entries for 1 inputs" in refused(stub, request).message
    assert refused(stub, v2.ModelInferRequest(model_name=name)).reason == "FIELD_MISSING"
    request = request_of(name, points)
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    assert "alternatives" in refused(stub, request).message
    request = request_of(name, points)
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"
    assert refused(stub, request).code == grpc.StatusCode.UNIMPLEMENTED


def test_a_value_that_is_no_number_is_named_by_its_element(stub, points, name):
    points[7, 3] = np.inf
    problem = refused(stub, request_of(name, points))
    assert problem.fields == ["inputs.embedding[7]"]
    assert "value 3 is inf" in problem.message


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("nothing-of-that-name", "", "NOT_FOUND"),
        ("{name}", "77", "NOT_FOUND"),
        ("{name}", "unknown", "NOT_FOUND"),
        ("{name}@1", "1", "INVALID_ARGUMENT"),
        ("No Name!", "", "INVALID_ARGUMENT"),
        ("{name}", "-1", "INVALID_ARGUMENT"),
    ],
)
def test_models_that_are_not_there(triton_client, points, name, model, version, code):
    model = model.format(name=name)
    for call in (
        lambda: triton_client.infer(model, [embedded(points)], model_version=version),
        lambda: triton_client.get_model_metadata(model, version),
        lambda: triton_client.get_model_config(model, version),
        lambda: triton_client.get_inference_statistics(model, version),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == f"StatusCode.{code}"
    if code == "NOT_FOUND":
        assert not triton_client.is_model_ready(model, version)


def test_answers_larger_than_a_message_are_refused(serve, features_bundle, clusters, name):
    server = serve(features_bundle, "--max-message-bytes", "20000")
    points_cache(server, name, clusters, count=5, classes=[letter * 800 for letter in "abcde"])
    points = clusters.draw(20)[0]
    with triton.InferenceServerClient(server.address) as client:
        for outputs in (None, [triton.InferRequestedOutput("classification")]):
            with pytest.raises(InferenceServerException, match="max_message_bytes = 20000"):
                client.infer(name, [embedded(points)], outputs=outputs)
        outputs = [triton.InferRequestedOutput("logits")]
        assert client.infer(name, [embedded(points)], outputs=outputs).as_numpy("logits").any()


# ---- what is said of models -------------------------------------------------------
