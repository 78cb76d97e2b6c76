"""AddExamples that are refused, cancelled or too late: named, and nothing is left behind."""

from __future__ import annotations

import threading

import grpc
import pytest
import wire
from conftest import eventually
from pictures import photo, png
from test_add_examples import NAMES, add, drawn, refused
from wire import cache


def test_ids_to_remove_that_are_not_there_are_named(features, clusters, name):
    points, labels = drawn(clusters, 30)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(NAMES[:5]))
    features.api.create(spec, wire.examples_of(points, labels))
    unknown = ["3", "no such", "30"]
    problem = refused(lambda: features.api.add(add(name, remove_example_ids=unknown)))
    assert problem.code == grpc.StatusCode.INVALID_ARGUMENT
    assert problem.fields == ["spec.remove_example_ids"]
    assert '"30", "no such"' in problem.message and '"3"' not in problem.message
    many = [f"x{i:03}" for i in range(50)]
    problem = refused(lambda: features.api.add(add(name, remove_example_ids=many)))
    assert '"x000"' in problem.message and "40 more" in problem.message
    for base in ("", "no-such-cache", f"{name}@7", f"{name}@stable", "../x"):
        problem = refused(lambda base=base: features.api.add(add(base)))
        assert problem.reason in ("FIELD_MISSING", "NOT_FOUND", "NAME_INVALID"), base
    assert (
        len(features.api.caches.ListVersions(cache.ListVersionsRequest(parent=name)).versions) == 1
    )


def test_limits_are_of_the_whole(serve, features_bundle, clusters):
    server = serve(features_bundle, "--max-examples", "40", "--max-classes", "6")
    points, labels = drawn(clusters, 41)
    api = server.api
    spec = cache.CacheSpec(cache_id="small", classes=wire.classes(NAMES[:5]))
    api.create(spec, wire.examples_of(points[:30], labels[:30]))
    problem = refused(lambda: api.add(add("small", new_classes=wire.classes("fg"))))
    assert problem.reason == "LIMIT_EXCEEDED"
    assert (problem.metadata["limit"], problem.metadata["value"]) == ("max_classes", "7")
    more = wire.examples_of(points[30:], labels[30:], prefix="more ")
    problem = refused(lambda: api.add(add("small"), more))
    assert (problem.metadata["limit"], problem.metadata["value"]) == ("max_examples", "41")
    assert api.add(add("small", remove_example_ids=["0"], allow_empty_classes=True), more).version
    long = {"created_by": "x" * 257, "description": "x" * 4097}
    for field, value in long.items():
        problem = refused(lambda f=field, v=value: api.add(add("small", **{f: v})))
        assert problem.reason == "LIMIT_EXCEEDED" and problem.fields == [f"spec.{field}"]


def test_a_base_of_another_bundle_is_refused(serve, features_bundle, tiny_bundle, clusters):
    server = serve(features_bundle)
    points, labels = drawn(clusters, 30)
    spec = cache.CacheSpec(cache_id="other", classes=wire.classes(NAMES[:5]))
    server.api.create(spec, wire.examples_of(points, labels))
    other = serve(tiny_bundle, store=server.store)
    problem = refused(lambda: other.api.add(add("other", remove_example_ids=["0"])))
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_BUNDLE",
    )


def test_messages_in_the_wrong_order(features, clusters, name):
    points, labels = drawn(clusters, 10)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(NAMES[:5]))
    features.api.create(spec, wire.examples_of(points, labels))
    batch = cache.ExampleBatch(examples=wire.examples_of(points, labels, prefix="x"))
    examples, spec = (
        cache.AddExamplesRequest(examples=batch),
        cache.AddExamplesRequest(spec=add(name)),
    )
    for requests, reason in (
        ([examples], "MESSAGE_ORDER"),
        ([spec, spec], "MESSAGE_ORDER"),
        ([spec, cache.AddExamplesRequest()], "MESSAGE_ORDER"),
        ([], "FIELD_MISSING"),
    ):
        problem = refused(lambda r=requests: list(features.api.caches.AddExamples(iter(r))))
        assert problem.reason == reason
    assert features.api.caches.GetCache(cache.GetCacheRequest(name=name)).version_count == 1


def test_cancelled_or_late_leaves_nothing(serve, tiny_bundle, chance):
    server = serve(tiny_bundle)
    picture = wire.encoded(png(photo(chance)))
    spec = cache.CacheSpec(cache_id="half", classes=wire.classes("ab"))
    server.api.create(spec, [wire.example(k % 2, picture, f"p{k}") for k in range(4)])
    part = [wire.example(k % 2, picture) for k in range(20)]
    stop, sent = threading.Event(), threading.Event()

    def requests():
        kind = cache.AddExamplesRequest
        yield kind(spec=add("half"))
        yield kind(examples=cache.ExampleBatch(examples=part))
        sent.set()
        stop.wait(60)

    call = server.api.caches.AddExamples(requests())
    next(call)
    assert sent.wait(60)
    call.cancel()
    stop.set()
    eventually(lambda: server.metrics()["tipserve_in_flight_items"] == 0)
    stop.clear()
    with pytest.raises(grpc.RpcError):
        list(server.api.caches.AddExamples(requests(), timeout=1))
    stop.set()
    problem = refused(lambda: server.api.add(
        add("half", on_rejected=cache.CacheSpec.ON_REJECTED_FAIL),
        [*part, wire.example(0, wire.encoded(b"no picture"), "bad")],
    ))  # fmt: skip
    assert problem.metadata["example_id"] == "bad"
    assert server.api.caches.GetCache(cache.GetCacheRequest(name="half")).version_count == 1
    assert sum(1 for _ in server.store.glob("caches/half/versions/*/*")) == 2
    assert server.api.add(add("half"), part).version.version == 2


def test_a_cache_deleted_meanwhile_stays_deleted(features, clusters, name):
    points, labels = drawn(clusters, 30)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(NAMES[:5]))
    features.api.create(spec, wire.examples_of(points, labels))
    more, go_on = wire.examples_of(points, labels, prefix="more "), threading.Event()

    def requests():
        yield cache.AddExamplesRequest(spec=add(name))
        go_on.wait(60)
        yield cache.AddExamplesRequest(examples=cache.ExampleBatch(examples=more))

    call = features.api.caches.AddExamples(requests(), timeout=wire.LIMIT)
    next(call)
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    go_on.set()
    problem = refused(lambda: list(call))
    assert problem.code == grpc.StatusCode.NOT_FOUND and name in problem.message
    assert f"caches/{name}" not in features.api.ids()
