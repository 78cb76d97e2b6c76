"""Idempotency (AIP-155): a change with a request id is made once, however often it is asked for."""

from __future__ import annotations

import threading
from itertools import islice

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH, eventually
from wire import Problem, cache, finetune

STORING = cache.CreateProgress.STAGE_STORING


@pytest.fixture
def examples(chance):
    return wire.examples_of(chance.normal(size=(8, WIDTH)), np.arange(8) % 2)


def spec(name, **options):
    options = {"classes": wire.classes("ab"), "request_id": "r-1"} | options
    return cache.CacheSpec(cache_id=name, **options)


def create(server, asked, examples=()) -> cache.Version:
    events = server.api.caches.CreateCache(wire.requests_of(asked, examples), timeout=60)
    return list(events)[-1].version


def add(server, asked, examples=()) -> cache.Version:
    requests = wire.requests_of(asked, examples, kind=cache.AddExamplesRequest)
    return list(server.api.caches.AddExamples(requests, timeout=60))[-1].version


def versions(server, name) -> int:
    return server.api.caches.GetCache(cache.GetCacheRequest(name=name), timeout=60).version_count


def refused(call) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Problem.of_call(caught.value)


def test_a_create_that_is_retried_answers_with_the_version_made_before(features, name, examples):
    labels = {f"key-{i}": "x" for i in range(10)}
    asked = spec(name, labels=labels, etag="new")
    first = create(features, asked, examples)
    # The same again, and once more without examples: they are not read.
    assert create(features, asked, examples) == first
    assert create(features, asked) == first
    assert versions(features, name) == 1
    # Another id is another request; no id is a new one each time.
    assert create(features, spec(name, request_id="r-2"), examples).version == 2
    assert create(features, spec(name, request_id=""), examples).version == 3
    assert create(features, spec(name, request_id=""), examples).version == 4


def test_an_id_is_of_one_specification_and_one_cache(features, name, examples):
    first = create(features, spec(name), examples)
    problem = refused(lambda: create(features, spec(name, seed=7), examples))
    assert problem.code == grpc.StatusCode.ALREADY_EXISTS
    assert problem.reason == "REQUEST_ID_REUSED"
    assert problem.metadata["resource"] == first.name
    assert problem.metadata["request_id"] == "r-1"
    other = create(features, spec(f"{name}-b"), examples)
    assert other.name == f"caches/{name}-b/versions/1"
    for odd in ["two words", "x" * 129, "é"]:
        problem = refused(lambda odd=odd: create(features, spec(name, request_id=odd), examples))
        assert problem.code == grpc.StatusCode.INVALID_ARGUMENT
        assert problem.fields == ["spec.request_id"], problem


def test_adding_and_importing_are_made_once(features, name, examples, chance):
    create(features, spec(name), examples)
    etag = features.api.caches.GetCache(cache.GetCacheRequest(name=name)).etag
    more = wire.examples_of(chance.normal(size=(2, WIDTH)), [0, 1], prefix="more")
    # Of the latest version, and on a condition: both have changed by the second.
    asked = cache.AddExamplesSpec(base=name, request_id="add-1", etag=etag)
    added = add(features, asked, more)
    assert added.version == 2 and added.key_count == 10
    assert add(features, asked, more) == added
    assert add(features, asked) == added
    _, data = features.api.export(f"{name}@1")
    options = {"request_id": "import-1"}
    imported = features.api.import_(f"{name}-c", data, **options)
    assert features.api.import_(f"{name}-c", data, **options) == imported
    assert versions(features, f"{name}-c") == 1
    reused = refused(lambda: features.api.import_(f"{name}-c", data + b" ", **options))
    assert reused.reason == "REQUEST_ID_REUSED"


def test_a_call_that_is_lost_while_it_is_stored_can_be_retried(features, name, examples):
    """Whatever the moment, retrying makes one version, and says which."""
    for attempt in range(5):
        asked = spec(name, request_id=f"lost-{attempt}")
        call = features.api.caches.CreateCache(wire.requests_of(asked, examples), timeout=60)
        for event in call:
            if event.WhichOneof("event") == "progress" and event.progress.stage == STORING:
                call.cancel()
                break
        made = create(features, asked, examples)
        assert made == create(features, asked, examples)
        assert versions(features, name) == attempt + 1


def test_one_request_from_many_connections_makes_one_version(features, name, examples):
    made, barrier = [], threading.Barrier(6)

    def ask():
        barrier.wait()
        made.append(create(features, spec(name), examples))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6 and all(one == made[0] for one in made)
    assert versions(features, name) == 1


def test_a_version_that_was_deleted_is_made_again(features, name, examples):
    create(features, spec(name), examples)
    create(features, spec(name, request_id="r-2"), examples)
    features.api.caches.DeleteVersion(cache.DeleteVersionRequest(name=f"{name}@1"), timeout=60)
    assert create(features, spec(name), examples).version == 3


def tune(server, asked) -> list:
    return [
        event.run
        for event in server.api.tuning.FineTune(asked, timeout=60)
        if event.HasField("run")
    ]


def listed(server, name) -> list:
    request = finetune.ListFineTunesRequest(cache=name)
    return list(server.api.tuning.ListFineTunes(request, timeout=60).fine_tunes)


def test_a_fine_tuning_that_is_retried_is_one_run(serve, features_bundle, tmp_path, examples):
    store = tmp_path / "store"
    server = serve(features_bundle, store=store)
    create(server, spec("x"), examples)
    asked = finetune.FineTuneRequest(cache="x", epochs=2, request_id="tune-1")
    first = tune(server, asked)[-1]
    assert first.version.version == 2
    again = tune(server, asked)
    assert [(run.name, run.version.version) for run in again] == [(first.name, 2)]
    problem = refused(
        lambda: tune(server, finetune.FineTuneRequest(cache="x", request_id="tune-1"))
    )
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    # A restarted server knows it by its record.
    server.kill()
    server = serve(features_bundle, store=store)
    assert tune(server, asked)[-1].name == first.name
    assert [run.name for run in listed(server, "x")] == [first.name]
    assert versions(server, "x") == 2


def test_a_fine_tuning_goes_on_while_anybody_follows_it(features, name, examples):
    create(features, spec(name), examples)
    asked = finetune.FineTuneRequest(cache=name, epochs=1000, request_id="tune-1")
    one, other = (features.api.tuning.FineTune(asked, timeout=60) for _ in range(2))
    run = next(one).run.name
    assert next(other).run.name == run
    one.cancel()
    # The other's progress goes on.
    assert sum(event.HasField("progress") for event in islice(other, 3)) >= 2
    other.cancel()
    get = finetune.GetFineTuneRequest(name=run)
    eventually(
        lambda: features.api.tuning.GetFineTune(get).state == finetune.FineTuneRun.STATE_CANCELLED
    )
    # It made nothing, so the request begins a new one.
    anew = finetune.FineTuneRequest(cache=name, epochs=1000, request_id="tune-1")
    call = features.api.tuning.FineTune(anew, timeout=60)
    assert next(call).run.name != run
    call.cancel()
