"""Rates and places: of a token, of an item, of the whole server; and how a limit is named."""

from __future__ import annotations

import queue
import threading

import grpc
import pytest
import wire
from conftest import WIDTH, eventually
from test_auth_tokens import SLOW, make, outcome
from tokens import TokensFile, api
from wire import Problem, cache, classify, finetune


@pytest.fixture
def limited(serve, features_bundle, tmp_path, chance):
    """Starts a server whose token "slow" has limits; "admin" has none."""

    def start(extra: str, *flags):
        file = TokensFile(tmp_path)
        admin, slow = file.add("admin", "admin"), file.add("slow", "write", extra=extra)
        server = serve(features_bundle, "--tokens", str(file.path), *flags)
        make(api(server.address, admin), "c", chance)
        return server, api(server.address, admin), api(server.address, slow)

    return start


def refused(call) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Problem.of_call(caught.value)


def test_calls_over_the_rate_are_refused(limited):
    _, admin, slow = limited("requests_per_second = 0.000001\nrequests_burst = 3\n")
    for _ in range(3):
        slow.ids()
    problem = refused(slow.ids)
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
    )
    assert problem.metadata["limit"] == "requests_per_second" in problem.message
    assert problem.retry > 3600
    admin.ids()


def test_items_over_the_rate_are_refused(limited, chance):
    server, admin, slow = limited(SLOW + "items_burst = 4\n")
    point = wire.embedding(chance.normal(size=WIDTH))
    for _ in range(2):
        slow.one("c", point)
    embed = classify.EmbedRequest(inputs=[point] * 2)
    slow.classifying.Embed(embed)
    for call in (lambda: slow.one("c", point), lambda: slow.classifying.Embed(embed)):
        problem = refused(call)
        assert problem.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert problem.metadata["limit"] == "items_per_second" in problem.message
        assert problem.retry > 3600
    problem = refused(lambda: slow.classifying.Embed(classify.EmbedRequest(inputs=[point] * 5)))
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
    assert problem.metadata == {"limit": "items_burst", "maximum": "4", "value": "5"}
    # Items in a hurry are refused one by one; the call goes on.
    items = [wire.item(str(i), point, limit=30) for i in range(3)]
    for result in slow.stream("c", items):
        problem = Problem.of_status(result.error)
        assert problem.reason == "RATE_LIMITED"
    # A stream's others wait for their turn, which shall not hold up a shutdown.
    left = []

    def wait():
        try:
            left.extend(slow.stream("c", [wire.item("x", point)], timeout=None))
        except grpc.RpcError as error:
            left.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 1)
    assert len(list(admin.stream("c", [wire.item("y", point)]))) == 1
    assert server.metrics()['tipserve_refused_items_total{reason="items_per_second"}'] >= 5
    assert server.terminate() == 0
    waiting.join(60)
    first = left[0]
    problem = (
        Problem.of_call(first)
        if isinstance(first, grpc.RpcError)
        else Problem.of_status(first.error)
    )
    assert problem.reason == "SHUTTING_DOWN"


def test_calls_of_one_token_at_once(limited, chance):
    _, admin, slow = limited("max_streams = 2\n")
    point = wire.embedding(chance.normal(size=WIDTH))
    opened = []
    for _ in range(2):
        items: queue.Queue = queue.Queue()
        stream = slow.stream("c", iter(items.get, None), batch=1)
        items.put(wire.item("1", point))
        assert next(stream).id == "1"
        opened.append((items, stream))
    problem = refused(slow.ids)
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_STREAMS",
    )
    assert problem.metadata == {"limit": "max_streams", "maximum": "2"}
    admin.ids()
    for items, stream in opened:
        items.put(None)
        assert list(stream) == []
    eventually(lambda: ends_well(slow.ids))


def ends_well(call) -> bool:
    try:
        call()
    except grpc.RpcError:
        return False
    return True


def test_calls_of_the_server_at_once(serve, features_bundle, chance):
    server = serve(features_bundle, "--max-streams", "2")
    make(server.api, "c", chance)
    opened = []
    for _ in range(2):
        items: queue.Queue = queue.Queue()
        stream = server.api.stream("c", iter(items.get, None), batch=1)
        items.put(wire.item("1", wire.embedding(chance.normal(size=WIDTH))))
        assert next(stream).id == "1"
        opened.append((items, stream))
    problem = refused(server.api.ids)
    assert problem.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_streams = 2" in problem.message and problem.retry
    # Probes are no load.
    health = "/grpc.health.v1.Health/Check"
    assert outcome(server.api.channel, health).code is grpc.StatusCode.OK
    for items, stream in opened:
        items.put(None)
        assert list(stream) == []
    eventually(lambda: ends_well(server.api.ids))


def test_a_message_over_the_limit_names_it(serve, features_bundle):
    server = serve(features_bundle, "--max-message-bytes", "5000")
    big = wire.embedding([0.5] * 3000)
    calls = (
        lambda: server.api.one("c", big),
        lambda: server.api.create(cache.CacheSpec(cache_id="c", description="x" * 6000)),
        lambda: list(server.api.tuning.FineTune(finetune.FineTuneRequest(description="x" * 6000))),
    )
    for call in calls:
        problem = refused(call)
        assert problem.code is grpc.StatusCode.OUT_OF_RANGE, problem
        assert problem.reason == "MESSAGE_TOO_LARGE"
        assert "max_message_bytes = 5000" in problem.message
        assert problem.metadata["limit"] == "max_message_bytes"
        assert int(problem.metadata["value"]) > 5000 == int(problem.metadata["maximum"])
