"""The Open Inference Protocol over HTTP, by NVIDIA's client: what its gRPC form says."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import tritonclient.http as triton
import wire
from models import pictures_cache, points_cache, same
from over_http import call
from pictures import photo, png
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(features):
    made = triton.InferenceServerClient(features.address)
    yield made
    made.close()


@pytest.fixture
def points(features, clusters, name):
    """A cache of that name, and fresh points to classify."""
    points_cache(features, name, clusters)
    return clusters.draw(12)[0]


def text(value) -> str:
    """A label: text in JSON, bytes in a tensor."""
    return value if isinstance(value, str) else value.decode()


def embedded(points, *, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("embedding", list(points.shape), "FP32")
    return tensor.set_data_from_numpy(points, binary_data=binary)


@pytest.mark.parametrize("binary", [True, False])
def test_embeddings(features, client, points, name, binary):
    outputs = [
        triton.InferRequestedOutput(one, binary_data=binary)
        for one in ("label", "score", "logits", "classification")
    ]
    result = client.infer(
        name, [embedded(points, binary=binary)], outputs=outputs, request_id="mine"
    )
    expected = [features.api.one(name, wire.embedding(p), logits=True) for p in points]
    said = result.as_numpy
    assert [text(one) for one in said("label")] == [a.top[0].display_name for a in expected]
    logits = np.array([answer.logits for answer in expected], np.float32)
    np.testing.assert_array_equal(said("logits"), logits)
    scores = np.float32([answer.top[0].probability for answer in expected])
    np.testing.assert_array_equal(said("score"), scores)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == (
        "mine",
        name,
        "1",
    )
    if binary:
        same(client.infer(name, [embedded(points, binary=True)], model_version="1"), expected)


def test_pictures(tiny, chance, name):
    pictures_cache(tiny, name, chance)
    files = [png(photo(chance, i % 3)) for i in range(4)]
    expected = [tiny.api.one(name, wire.encoded(file), logits=True) for file in files]
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=np.object_))
    client = triton.InferenceServerClient(tiny.address)
    result = client.infer(name, [tensor])
    # One batch of four, and four of one: rounding differs.
    logits = [answer.logits for answer in expected]
    np.testing.assert_allclose(result.as_numpy("logits"), logits, rtol=1e-5)
    client.close()
    # In JSON a picture is base64.
    data = [base64.b64encode(file).decode() for file in files]
    inputs = [{"name": "image", "shape": [4, 1], "datatype": "BYTES", "data": [[d] for d in data]}]
    body = {"inputs": inputs, "outputs": [{"name": "label"}]}
    answer = call(tiny, "POST", f"/v2/models/{name}/infer", body).json
    [output] = answer["outputs"]
    assert output["data"] == [one.top[0].display_name for one in expected]


def test_what_the_server_and_its_models_are(features, client, points, name):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(name) and not client.is_model_ready("there-is-none")
    assert client.get_server_metadata()["name"] == "tipserve"
    metadata = client.get_model_metadata(name)
    assert metadata["name"] == name
    [embedding] = [one for one in metadata["inputs"] if one["name"] == "embedding"]
    assert embedding["shape"] == [-1, points.shape[1]]
    config = client.get_model_config(name)
    assert config["name"] == name and config["max_batch_size"] > 0
    client.infer(name, [embedded(points, binary=True)])
    [stats] = client.get_inference_statistics(name)["model_stats"]
    assert stats["inference_count"] >= len(points)
    assert name in [one["name"] for one in client.get_model_repository_index()]
    client.load_model(name)


def test_classification_and_parameters(client, points, name):
    output = triton.InferRequestedOutput("logits", binary_data=False, class_count=2)
    result = client.infer(
        name, [embedded(points[:1], binary=True)], outputs=[output], priority=1, timeout=60_000_000
    )
    [[first, second]] = result.as_numpy("logits").tolist()
    assert float(first.split(":")[0]) >= float(second.split(":")[0])


def test_errors_are_as_the_protocol_has_them(features, client, points, name):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("there-is-none", [embedded(points, binary=True)])
    assert "there-is-none" in caught.value.message()
    path = f"/v2/models/{name}/infer"
    value = {"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    for body, headers, words in [
        ("{", {}, "not JSON"),
        ({"inputs": [value | {"data": ["AA=="]}]}, {}, "not of its datatype"),
        ({"inputs": [value | {"data": [{}]}]}, {}, "body"),
        ({"inputs": [{k: v for k, v in value.items() if k != "data"}]}, {}, "no data"),
        ({"inputs": [value | {"parameters": {"binary_data_size": 8}}]}, {}, "both"),
        ({"inputs": [value]}, {"inference_header_content_length": "99999"}, "but the body has"),
        ({"inputs": [value] * 65}, {}, "at most 64"),
        ({"inputs": [value], "parameters": {str(i): 1 for i in range(65)}}, {}, "at most 64"),
        ({"inputs": [value]}, {}, "embedding"),
    ]:
        answer = call(features, "POST", path, body, **headers)
        assert answer.status == 400, (body, answer)
        assert words in answer.json["error"], (body, answer.json)
    assert call(features, "GET", "/v2/nothing").json["error"]
    wrong = call(features, "GET", f"/v2/models/{name}/infer")
    assert wrong.status == 405 and wrong.json["error"] == "the path takes POST, not GET"
