"""ClassifyStream: every item exactly one answer, whatever happens around it."""

from __future__ import annotations

import threading

import e2e_formula as formula
import grpc
import numpy as np
import pytest
import wire
from conftest import Clusters, eventually
from pictures import photo, png
from wire import Problem, cache, classify


def create(server, name, data, count=40, **fields):
    """A Tip-Adapter version of fresh points; returns its formula."""
    points, labels = data.draw(count)
    fields = {"method": cache.METHOD_TIP_ADAPTER, "alpha": 2.0, "beta": 5.0} | fields
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcde", data.weights), **fields)
    version = server.api.create(spec, wire.examples_of(points, labels)).version
    keys, text = formula.unit(points), formula.unit(data.weights)

    def logits(queries):
        head = version.head
        return formula.tip_adapter(
            formula.unit(queries), keys, labels, 5, alpha=head.alpha, beta=head.beta, text=text
        )

    return logits


def items_of(points):
    return [wire.item(f"item {i}", wire.embedding(point)) for i, point in enumerate(points)]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_every_item_has_one_answer(features, clusters, name, ordered, batch):
    logits = create(features, name, clusters)
    points, _ = clusters.draw(1000)
    items = items_of(points)
    bad = set(clusters.chance.choice(1000, 100, replace=False).tolist())
    for i in bad:
        values = [points[i][:5], points[i] * np.nan, points[i] * 0][i % 3]
        items[i].input.CopyFrom(wire.embedding(values))
    results = list(
        features.api.stream(
            name, items, batch=batch, ordered=ordered, logits=True, probabilities=True
        )
    )
    assert sorted(r.sequence for r in results) == list(range(1000))
    if ordered:
        assert [r.sequence for r in results] == list(range(1000))
    expected = logits(points)
    for result in results:
        i = result.sequence
        assert result.id == f"item {i}"
        if i in bad:
            problem = Problem.of_status(result.error)
            assert (problem.code, problem.reason) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "FIELD_INVALID",
            )
            continue
        answer = result.classification
        np.testing.assert_allclose(answer.logits, expected[i], rtol=0, atol=1e-3)
        assert answer.version == f"caches/{name}/versions/1"
        scores = [score.logit for score in answer.top]
        assert scores == sorted(scores, reverse=True) and len(scores) == 5
        assert answer.top[0].index == np.argmax(answer.logits)
        assert answer.top[0].display_name == "abcde"[answer.top[0].index]
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)


def test_what_is_asked_for_is_returned_and_nothing_else(features, clusters, name):
    create(features, name, clusters, 20)
    points, _ = clusters.draw(3)
    for options in (
        {},
        {"top_k": 2},
        {"logits": True},
        {"probabilities": True},
        {"neighbours": 4},
        {"embedding": True},
        {"timings": True},
    ):
        for result in features.api.stream(name, items_of(points), **options):
            answer = result.classification
            assert len(answer.top) == options.get("top_k", 5)
            assert len(answer.logits) == (5 if "logits" in options else 0)
            assert len(answer.probabilities) == (5 if "probabilities" in options else 0)
            assert len(answer.neighbours) == options.get("neighbours", 0)
            assert answer.HasField("embedding") == ("embedding" in options)
            assert answer.HasField("timings") == ("timings" in options)
            if "embedding" in options:
                np.testing.assert_allclose(
                    answer.embedding.values, formula.unit(points[result.sequence]), atol=1e-6
                )
            if "timings" in options:
                assert answer.timings.total_seconds >= answer.timings.head_seconds >= 0


def test_neighbours_are_the_nearest_examples(features, clusters, name):
    points, labels = clusters.draw(60)
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("abcde"),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1,
        beta=3,
    )
    features.api.create(spec, wire.examples_of(points, labels, prefix="ex/"))
    queries, _ = clusters.draw(30)
    cosines = formula.unit(queries) @ formula.unit(points).T
    results = features.api.stream(name, items_of(queries), neighbours=7)
    for result in results:
        row = cosines[result.sequence]
        near = np.argsort(-row)[:7]
        got = result.classification.neighbours
        assert [n.example_id for n in got] == [f"ex/{i}" for i in near]
        assert [n.class_index for n in got] == labels[near].tolist()
        assert [n.display_name for n in got] == ["abcde"[i] for i in labels[near]]
        np.testing.assert_allclose([n.similarity for n in got], row[near], rtol=0, atol=1e-5)


def test_items_too_late_say_so(tiny, chance):
    examples = [wire.example(k, wire.encoded(png(photo(chance, k)))) for k in (0, 1)]
    tiny.api.create(cache.CacheSpec(cache_id="late", classes=wire.classes("ab")), examples)
    picture = wire.encoded(png(photo(chance)))
    items = [
        wire.item(str(i), picture, 1e-6 if i % 3 == 1 else 100 if i % 3 == 2 else None)
        for i in range(90)
    ]
    results = list(tiny.api.stream("late", items))
    assert sorted(r.sequence for r in results) == list(range(90))
    for result in results:
        if result.sequence % 3 != 1:
            assert result.WhichOneof("outcome") == "classification", result
            continue
        problem = Problem.of_status(result.error)
        if problem.code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert problem.reason in ("DEADLINE_UNREACHABLE", "QUEUE_FULL")
            assert problem.retry is not None
        else:
            assert (problem.code, problem.reason) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "DEADLINE_EXCEEDED",
            )


def test_the_calls_own_deadline_ends_the_stream(features, clusters, name):
    create(features, name, clusters)
    open_end = threading.Event()

    def requests():
        yield classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache=name))
        open_end.wait(60)

    with pytest.raises(grpc.RpcError) as caught:
        list(features.api.classifying.ClassifyStream(requests(), timeout=1))
    open_end.set()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_cancelled_in_the_middle(features, clusters, name):
    create(features, name, clusters)
    points, _ = clusters.draw(50)
    for _ in range(5):
        stop = threading.Event()

        def requests(stop=stop):
            yield classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache=name))
            while not stop.is_set():
                yield classify.ClassifyStreamRequest(
                    items=classify.ItemBatch(items=items_of(points))
                )

        call = features.api.classifying.ClassifyStream(requests(), timeout=60)
        next(call)
        call.cancel()
        stop.set()
    eventually(lambda: features.metrics()["tipserve_in_flight_items"] == 0)
    eventually(lambda: features.metrics()["tipserve_in_flight_bytes"] == 0)
    assert features.api.one(name, wire.embedding(points[0])).top


def test_a_client_that_does_not_read_holds_nobody_up(features, clusters, name):
    create(features, name, clusters)
    points, _ = clusters.draw(200)
    stop = threading.Event()

    def endless():
        yield classify.ClassifyStreamRequest(
            config=classify.ClassifyStreamConfig(
                cache=name, options=classify.ClassifyOptions(logits=True, embedding=True)
            )
        )
        while not stop.is_set():
            yield classify.ClassifyStreamRequest(items=classify.ItemBatch(items=items_of(points)))

    idle = features.api.classifying.ClassifyStream(endless(), timeout=100)
    next(idle)
    other = wire.Api(features.address)
    assert len(list(other.stream(name, items_of(points)))) == 200
    stop.set()
    idle.cancel()
    other.close()


def test_twenty_thousand_items_in_bounded_memory(serve, bundles, chance):
    server = serve(bundles("features-512", "features", "--width", "512"))
    data = Clusters(chance, 5, width=512)
    create(server, "many", data)
    points, _ = data.draw(256)

    def stream(count):
        contents = [wire.embedding(point) for point in points]
        items = (wire.item(str(i), contents[i % 256]) for i in range(count))
        seen = np.zeros(count, bool)
        for result in server.api.stream("many", items, batch=64, embedding=True):
            assert not seen[result.sequence]
            seen[result.sequence] = result.WhichOneof("outcome") == "classification"
        assert seen.all()

    stream(4000)
    before = server.rss()
    stream(20_000)
    grown = server.rss() - before
    print(f"resident memory grew by {grown / 2**20:.1f} MiB over 20,000 items of 2 KiB")
    # All items' vectors alone are 39 MiB, and so are their answers'.
    assert grown < 24 << 20


def test_an_alias_moves_under_traffic(features, chance, name):
    versions = {}
    for number in (1, 2, 3):
        logits = create(features, name, Clusters(chance, 5))
        versions[f"caches/{name}/versions/{number}"] = logits
    data = Clusters(chance, 5)
    set_alias = features.api.caches.SetAlias
    set_alias(cache.SetAliasRequest(cache=name, alias="stable", version=1))
    points, _ = data.draw(3000)
    expected = {version: logits(points) for version, logits in versions.items()}
    moves = []

    def items():
        for i, one in enumerate(items_of(points)):
            if i % 300 == 299:
                moves.append(1 + len(moves) % 3)
                set_alias(cache.SetAliasRequest(cache=name, alias="stable", version=moves[-1]))
            yield one

    seen = set()
    for result in features.api.stream(f"{name}@stable", items(), batch=10, logits=True):
        assert result.WhichOneof("outcome") == "classification", result
        version = result.classification.version
        seen.add(version)
        np.testing.assert_allclose(
            result.classification.logits, expected[version][result.sequence], rtol=0, atol=1e-3
        )
    assert seen == set(versions)


def test_a_new_version_is_served_at_once_to_an_open_stream(features, clusters, name):
    create(features, name, clusters)
    points, _ = clusters.draw(2)
    ready = threading.Event()

    def items():
        yield wire.item("before", wire.embedding(points[0]))
        assert ready.wait(60)
        yield wire.item("after", wire.embedding(points[1]))

    results = features.api.stream(name, items(), batch=1)
    assert next(results).classification.version.endswith("/versions/1")
    create(features, name, clusters)
    ready.set()
    assert next(results).classification.version.endswith("/versions/2")
    assert next(results, None) is None


def test_many_streams_at_once(features, clusters, name):
    logits = create(features, name, clusters)
    points, _ = clusters.draw(300)
    expected = logits(points)
    wrong = []

    def run(start):
        try:
            for result in features.api.stream(
                name, items_of(np.roll(points, -start, 0)), logits=True
            ):
                want = expected[(result.sequence + start) % 300]
                if np.abs(np.array(result.classification.logits) - want).max() > 1e-3:
                    wrong.append(result)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(17 * i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_deleting_a_cache_under_traffic_fails_items_not_the_stream(features, clusters, name):
    create(features, name, clusters)
    points, _ = clusters.draw(2)
    gone = threading.Event()

    def items():
        yield wire.item("before", wire.embedding(points[0]))
        assert gone.wait(60)
        yield wire.item("after", wire.embedding(points[1]))

    results = features.api.stream(name, items(), batch=1)
    assert next(results).WhichOneof("outcome") == "classification"
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    gone.set()
    problem = Problem.of_status(next(results).error)
    assert problem.code == grpc.StatusCode.NOT_FOUND and name in problem.message
    assert next(results, None) is None
