"""Request ids: taken or made, given back, and named by errors and logs."""

from __future__ import annotations

import json
import re

import grpc
import pytest
import tipserve
import wire
from conftest import WIDTH
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from wire import cache, classify

ID = "x-request-id"


def initial(call) -> dict[str, str]:
    """The answer's first metadata; gRPC counts that of an answer without a body as its last."""
    return dict(call.initial_metadata() or call.trailing_metadata())


def id_of(status) -> str:
    """RequestInfo's id in a google.rpc.Status."""
    info = error_details_pb2.RequestInfo()
    [found] = [detail for detail in status.details if detail.Is(info.DESCRIPTOR)]
    found.Unpack(info)
    return info.request_id


def info_call(server, *metadata):
    stub = server.api.classifying.GetServerInfo
    _, call = stub.with_call(classify.GetServerInfoRequest(), metadata=metadata, timeout=60)
    return call


@pytest.fixture
def points(chance):
    return chance.normal(size=(6, WIDTH))


@pytest.fixture
def made(features, name, points):
    """A cache of two classes."""
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("ab"))
    features.api.create(spec, wire.examples_of(points, [0, 1] * 3))
    return name


@pytest.mark.parametrize(
    "given", ["a", "0af7651916cd43dd8448eb211c80319c", "x/y:z=1;2,3~", "q" * 128]
)
def test_an_id_that_is_given_comes_back(features, given):
    assert initial(info_call(features, (ID, given)))[ID] == given


@pytest.mark.parametrize("given", ["", "q" * 129, "two words"])
def test_an_id_that_cannot_be_passed_on_is_replaced(features, given):
    made = initial(info_call(features, (ID, given)))[ID]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_an_id_is_made_for_each_request_without(features):
    ids = [initial(info_call(features))[ID] for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_errors_of_calls_name_it(features, points):
    def failing(metadata):
        request = classify.ClassifyRequest(cache="nobody", input=wire.embedding(points[0]))
        with pytest.raises(grpc.RpcError) as caught:
            features.api.classifying.Classify(request, metadata=metadata, timeout=60)
        return caught.value

    error = failing([(ID, "mine")])
    assert id_of(rpc_status.from_call(error)) == "mine" == initial(error)[ID]
    error = failing([])
    assert id_of(rpc_status.from_call(error)) == initial(error)[ID]


@pytest.mark.parametrize("method", ["ClassifyStream", "CreateCache", "FineTune", "Evaluate"])
def test_errors_of_streams_name_it(features, made, method):
    """Errors that come after the stream began, from whatever task finds them."""
    api, metadata = features.api, [(ID, f"stream-{method}")]
    if method == "ClassifyStream":
        config = classify.ClassifyStreamConfig(cache=made)
        requests = iter([classify.ClassifyStreamRequest(config=config)] * 2)
        call = api.classifying.ClassifyStream(requests, metadata=metadata, timeout=60)
    elif method == "CreateCache":
        spec = cache.CacheSpec(cache_id="unmade", classes=wire.classes("ab"))
        requests = iter([cache.CreateCacheRequest(spec=spec)])
        call = api.caches.CreateCache(requests, metadata=metadata, timeout=60)
    elif method == "FineTune":
        request = wire.finetune.FineTuneRequest(cache=made, epochs=-1)
        call = api.tuning.FineTune(request, metadata=metadata, timeout=60)
    else:
        config = classify.EvaluateConfig(caches=["nobody"])
        requests = iter([classify.EvaluateRequest(config=config)])
        call = api.classifying.Evaluate.future(requests, metadata=metadata, timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        list(call) if method != "Evaluate" else call.result()
    assert id_of(rpc_status.from_call(caught.value)) == f"stream-{method}"


def test_errors_of_items_name_it(features, made, points):
    def requests():
        yield classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache=made))
        items = [
            wire.item("good", wire.embedding(points[0])),
            wire.item("bad", wire.embedding([1])),
        ]
        yield classify.ClassifyStreamRequest(items=classify.ItemBatch(items=items))

    metadata = [(ID, "of-the-stream")]
    call = features.api.classifying.ClassifyStream(requests(), metadata=metadata, timeout=60)
    results = {result.id: result for answer in call for result in answer.results}
    assert initial(call)[ID] == "of-the-stream"
    assert id_of(results["bad"].error) == "of-the-stream"
    embedded = classify.EmbedRequest(inputs=[wire.embedding([1.0])])
    answer = features.api.classifying.Embed(embedded, metadata=[(ID, "embed")], timeout=60)
    assert id_of(answer.inputs[0].error) == "embed"


def test_two_streams_keep_theirs_apart(features, made, chance):
    """Interleaved on one connection: each error names its own stream."""

    def stream(number: int):
        config = classify.ClassifyStreamConfig(cache=made)
        yield classify.ClassifyStreamRequest(config=config)
        for _ in range(20):
            item = wire.item(str(number), wire.embedding([1.0]))
            yield classify.ClassifyStreamRequest(items=classify.ItemBatch(items=[item]))

    calls = {
        number: features.api.classifying.ClassifyStream(
            stream(number), metadata=[(ID, f"s{number}")], timeout=60
        )
        for number in range(5)
    }
    for number, call in calls.items():
        results = [result for answer in call for result in answer.results]
        assert len(results) == 20
        assert {id_of(result.error) for result in results} == {f"s{number}"}


def test_clients_show_it(features, made):
    with tipserve.Client(features.address) as client, pytest.raises(tipserve.NotFound) as caught:
        client.cache("nobody")
    error = caught.value
    assert re.fullmatch("[0-9a-f]{32}", error.request_id)
    assert f"request: {error.request_id}" in str(error)
    said = features.cli("caches", "show", "nobody", code=3)
    assert re.fullmatch("[0-9a-f]{32}", said["error"]["request_id"])


@pytest.mark.parametrize("shape", ["human", "json"])
def test_every_log_line_of_a_request_names_it(serve, features_bundle, shape, points):
    server = serve(features_bundle, "--log-format", shape, env={"RUST_LOG": "warn,tipserve=debug"})
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = classify.ClassifyRequest(cache="nobody", input=wire.embedding(points[0]))
    with pytest.raises(grpc.RpcError):
        server.api.classifying.Classify(
            request, metadata=[(ID, "in-the-log"), ("traceparent", parent)], timeout=60
        )
    server.terminate()
    lines = [line for line in server.log.read_text().splitlines() if "in-the-log" in line]
    assert len(lines) >= 2  # the refusal and the end
    trace = "0af7651916cd43dd8448eb211c80319c"
    if shape == "human":
        for word in ('method="Classify"', "cache=nobody", "peer=127.0.0.1", f'trace_id="{trace}"'):
            assert all(word in line for line in lines), (word, lines)
        assert 'code="NOT_FOUND"' in lines[-1] and "seconds=" in lines[-1]
    else:
        ended = [json.loads(line) for line in lines][-1]
        assert ended["span"]["request_id"] == "in-the-log"
        assert ended["span"]["method"] == "Classify"
        assert ended["span"]["cache"] == "nobody"
        assert ended["span"]["code"] == "NOT_FOUND"
        assert ended["span"]["trace_id"] == trace
        assert ended["span"]["peer"].startswith("127.0.0.1:")
        assert ended["fields"]["seconds"] > 0


def test_a_field_is_named_once(features):
    with pytest.raises(grpc.RpcError) as caught:
        features.api.caches.ListCaches(cache.ListCachesRequest(page_size=-1), timeout=60)
    error = tipserve.errors.from_rpc_error(caught.value)
    [violation] = error.violations
    assert (violation.field, violation.description) == ("page_size", "-1 is negative")
    assert str(error).count("page_size") == 2  # the message's and the violation's
