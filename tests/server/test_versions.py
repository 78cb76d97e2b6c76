"""Versions that go: one by one, by retention, only as expected; and aliases that move meanwhile."""

from __future__ import annotations

import threading

import e2e_formula as formula
import grpc
import numpy as np
import pytest
import wire
from conftest import eventually
from wire import Problem, cache

RESIDENT = "tipserve_resident_caches"


def refused(call) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Problem.of_call(caught.value)


def make(server, name, clusters, count=1, **fields):
    """So many versions, each of its own points; their formulas by number."""
    formulas = {}
    for _ in range(count):
        points, labels = clusters.draw(labels=np.arange(20) % 5)
        fields = {"method": cache.METHOD_TIP_ADAPTER, "alpha": 2.0, "beta": 5.0} | fields
        spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcde"), **fields)
        version = server.api.create(spec, wire.examples_of(points, labels)).version

        def logits(queries, keys=formula.unit(points), labels=labels):
            return formula.tip_adapter(formula.unit(queries), keys, labels, 5, alpha=2, beta=5)

        formulas[version.version] = logits
    return formulas


def get(server, name) -> cache.Cache:
    return server.api.caches.GetCache(cache.GetCacheRequest(name=name))


def numbers(server, name) -> list[int]:
    request = cache.ListVersionsRequest(parent=name, page_size=1000)
    return [v.version for v in server.api.caches.ListVersions(request).versions]


def set_alias(server, name, alias, version, etag=""):
    return server.api.caches.SetAlias(
        cache.SetAliasRequest(cache=name, alias=alias, version=version, etag=etag)
    )


def delete(server, name, etag=""):
    server.api.caches.DeleteVersion(cache.DeleteVersionRequest(name=name, etag=etag))


def prune(server, name, keep, **fields):
    request = cache.PruneVersionsRequest(name=name, keep=keep, **fields)
    return list(server.api.caches.PruneVersions(request).deleted_versions)


def test_a_deleted_version_is_gone_at_once(serve, features_bundle, clusters):
    server = serve(features_bundle)
    make(server, "x", clusters, 3)
    query = wire.embedding(clusters.draw(1)[0][0])
    for number in (1, 2, 3):
        server.api.one(f"x@{number}", query)
    assert server.metrics()[RESIDENT] == 3
    delete(server, "caches/x/versions/2")
    delete(server, "x@3")
    assert server.metrics()[RESIDENT] == 1
    assert numbers(server, "x") == [1]
    assert server.api.one("x", query).version == "caches/x/versions/1"
    for name in ("x@3", "caches/x/versions/2"):
        for call in (
            lambda n=name: server.api.one(n, query),
            lambda n=name: server.api.examples(n),
            lambda n=name: server.api.export(n),
            lambda n=name: delete(server, n),
            lambda n=name: set_alias(server, "x", "stable", int(n[-1])),
        ):
            problem = refused(call)
            assert problem.code == grpc.StatusCode.NOT_FOUND, problem
            assert "deleted" in problem.message
    # Its number is never used again.
    assert list(make(server, "x", clusters)) == [4]
    eventually(lambda: not list(server.store.glob("caches/x/versions/0000000[23]/*")))


def test_what_protects_a_version(features, clusters, name):
    make(features, name, clusters, 2)
    set_alias(features, name, "stable", 1)
    aliased = refused(lambda: delete(features, f"{name}@1"))
    assert (aliased.code, aliased.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONFLICT")
    assert "stable" in aliased.message
    delete(features, f"{name}@2")
    features.api.caches.DeleteAlias(cache.DeleteAliasRequest(cache=name, alias="stable"))
    only = refused(lambda: delete(features, f"{name}@1"))
    assert only.reason == "CONFLICT" and "only version" in only.message
    for reference in (name, f"{name}@latest", f"{name}@stable", f"caches/{name}"):
        problem = refused(lambda r=reference: delete(features, r))
        assert problem.code == grpc.StatusCode.INVALID_ARGUMENT and problem.fields == ["name"]


def test_pruning_keeps_the_newest_and_the_aliased(features, clusters, name):
    make(features, name, clusters, 6)
    set_alias(features, name, "stable", 2)
    etag = get(features, name).etag
    assert prune(features, name, 2, validate_only=True) == [4, 3, 1]
    assert get(features, name).etag == etag
    assert prune(features, name, 2, etag=etag) == [4, 3, 1]
    assert numbers(features, name) == [6, 5, 2]
    assert prune(features, name, 2) == []
    stale = refused(lambda: prune(features, name, 1, etag=etag))
    assert stale.reason == "ETAG_MISMATCH"
    stale = refused(lambda: prune(features, name, 1, etag=etag, validate_only=True))
    assert stale.reason == "ETAG_MISMATCH"
    for keep in (0, -1):
        problem = refused(lambda k=keep: prune(features, name, k))
        assert problem.fields == ["keep"]
    assert refused(lambda: prune(features, f"{name}-none", 1)).reason == "NOT_FOUND"
    assert numbers(features, name) == [6, 5, 2]


def test_a_server_keeps_as_many_as_it_is_told(serve, features_bundle, clusters):
    server = serve(features_bundle, "--keep-versions", "2")
    make(server, "x", clusters, 2)
    set_alias(server, "x", "stable", 1)
    make(server, "x", clusters, 3)
    assert numbers(server, "x") == [5, 4, 1]
    server.api.add(cache.AddExamplesSpec(base="x@stable"))
    list(server.api.tuning.FineTune(wire.finetune.FineTuneRequest(cache="x@stable", epochs=1)))
    assert numbers(server, "x") == [7, 6, 1]
    query = wire.embedding(clusters.draw(1)[0][0])
    assert server.api.one("x", query).version == "caches/x/versions/7"
    assert server.metrics()[RESIDENT] <= 3
    # And on a store that had more before.
    server.terminate()
    plain = serve(features_bundle, store=server.store)
    make(plain, "x", clusters, 3)
    plain.terminate()
    again = serve(features_bundle, "--keep-versions", "2", store=server.store)
    eventually(lambda: numbers(again, "x") == [10, 9, 1])


CHANGES = {
    "CreateCache": lambda s, n, etag: make(s, n, s.clusters, etag=etag),
    "AddExamples": lambda s, n, etag: s.api.add(cache.AddExamplesSpec(base=n, etag=etag)),
    "ImportVersion": lambda s, n, etag: s.api.import_(n, s.file, etag=etag),
    "SetAlias": lambda s, n, etag: set_alias(s, n, "canary", 1, etag),
    "DeleteAlias": lambda s, n, etag: s.api.caches.DeleteAlias(
        cache.DeleteAliasRequest(cache=n, alias="stable", etag=etag)
    ),
    "DeleteVersion": lambda s, n, etag: delete(s, f"{n}@2", etag),
    "PruneVersions": lambda s, n, etag: prune(s, n, 1, etag=etag),
    "DeleteCache": lambda s, n, etag: s.api.caches.DeleteCache(
        cache.DeleteCacheRequest(name=n, etag=etag)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("other", ["SetAlias", "CreateCache", "DeleteVersion"])
def test_a_change_happens_only_if_nobody_came_first(features, clusters, name, change, other):
    make(features, name, clusters, 4)
    set_alias(features, name, "stable", 1)
    features.clusters, features.file = clusters, features.api.export(f"{name}@1")[1]
    seen = get(features, name)
    # Somebody else was faster.
    if other == "SetAlias":
        set_alias(features, name, "stable", 3)
    elif other == "CreateCache":
        make(features, name, clusters)
    else:
        delete(features, f"{name}@3")
    now = get(features, name)
    assert now.etag != seen.etag
    problem = refused(lambda: CHANGES[change](features, name, seen.etag))
    assert (problem.code, problem.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert problem.metadata == {
        "resource": f"caches/{name}",
        "expected": seen.etag,
        "etag": now.etag,
    }
    assert get(features, name) == now
    CHANGES[change](features, name, now.etag)


def test_two_editors_take_turns(features, clusters, name):
    make(features, name, clusters)
    points = clusters.draw(labels=np.arange(40) % 5)[0]
    done, lock, lost = [], threading.Lock(), []

    def edit(who):
        for i in range(4):
            example = wire.example(i % 5, wire.embedding(points[who * 4 + i]), f"{who}/{i}")
            while True:
                seen = get(features, name)
                spec = cache.AddExamplesSpec(
                    base=seen.latest.name, etag=seen.etag, method=cache.METHOD_CLASS_MEAN
                )
                try:
                    version = features.api.add(spec, [example]).version
                except grpc.RpcError as error:
                    assert Problem.of_call(error).reason == "ETAG_MISMATCH"
                    lost.append(who)
                    continue
                with lock:
                    done.append(version.version)
                break

    threads = [threading.Thread(target=edit, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Nobody's example was lost, and each version was made from the one before.
    assert sorted(done) == list(range(2, 14))
    ids = {e.example_id for e in features.api.examples(name)}
    assert {f"{who}/{i}" for who in range(3) for i in range(4)} <= ids and len(ids) == 32
    for number in range(2, 14):
        version = features.api.caches.GetVersion(
            cache.GetVersionRequest(name=f"{name}@{number}")
        )
        assert version.parent == f"caches/{name}/versions/{number - 1}"


def test_new_means_that_there_is_none(features, clusters, name):
    made, failed = [], []

    def create():
        try:
            made.extend(make(features, name, clusters, etag="new"))
        except grpc.RpcError as error:
            failed.append(Problem.of_call(error))

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert {p.reason for p in failed} == {"ETAG_MISMATCH"} and len(failed) == 5
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    assert list(make(features, name, clusters, etag="new")) == [2]


def test_a_refused_etag_costs_nothing(features, clusters, name):
    """It is refused before the examples are sent."""
    make(features, name, clusters)
    sent = threading.Event()

    def requests():
        spec = cache.CacheSpec(cache_id=name, classes=wire.classes("a"), etag="new")
        yield cache.CreateCacheRequest(spec=spec)
        sent.wait(60)

    problem = refused(lambda: list(features.api.caches.CreateCache(requests(), timeout=60)))
    sent.set()
    assert problem.reason == "ETAG_MISMATCH"


def test_an_alias_moves_under_full_traffic(features, clusters, name):
    formulas = make(features, name, clusters, 4)
    set_alias(features, name, "stable", 1)
    points, _ = clusters.draw(40)
    expected = {number: logits(points) for number, logits in formulas.items()}
    stop, failed, seen = threading.Event(), [], set()
    counts = [0, 0, 0]

    def classify(stream):
        def items():
            while not stop.is_set():
                i = counts[stream] % len(points)
                counts[stream] += 1
                yield wire.item(str(i), wire.embedding(points[i]))

        try:
            results = features.api.stream(f"{name}@stable", items(), batch=4, logits=True)
            for result in results:
                assert result.WhichOneof("outcome") == "classification", result
                answer = result.classification
                number = int(answer.version.rsplit("/", 1)[1])
                seen.add(number)
                # Every item wholly by the version that it names.
                np.testing.assert_allclose(
                    answer.logits, expected[number][int(result.id)], rtol=0, atol=1e-3
                )
        except (AssertionError, grpc.RpcError) as error:
            failed.append(error)

    threads = [threading.Thread(target=classify, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: min(counts) > 100 or failed)
    moves = 0
    for target in [2, 3, 4, 1, 3, 2, 4, 1] * 4:
        before = min(counts)
        set_alias(features, name, "stable", target)
        # At once on the same server.
        one = features.api.one(f"{name}@stable", wire.embedding(points[0]))
        assert one.version == f"caches/{name}/versions/{target}"
        eventually(lambda b=before: min(counts) > b + 20 or failed)
        moves += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen == {1, 2, 3, 4} and moves == 32
