"""CreateCache: progress, then the version; nothing half-made."""

from __future__ import annotations

import threading

import e2e_formula as formula
import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH, eventually
from pictures import photo, png
from wire import Problem, cache

STAGES = cache.CreateProgress


def test_progress_then_the_version_last(features, clusters, name):
    points, labels = clusters.draw(500)
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("abcde"), description="why", labels={"made": "here"}
    )
    created = features.api.create(spec, wire.examples_of(points, labels))
    assert created.kinds[-1] == "version" and created.kinds.count("version") == 1
    assert "progress" in created.kinds
    stages = [progress.stage for progress in created.progress]
    assert stages == sorted(stages)
    assert {STAGES.STAGE_SELECTION, STAGES.STAGE_STORING} <= set(stages)
    last = created.progress[-1]
    assert (last.received, last.encoded, last.rejected) == (500, 500, 0)
    version = created.version
    assert version.name == f"caches/{name}/versions/1"
    assert (version.version, version.width, version.key_count, version.views) == (1, WIDTH, 500, 1)
    assert (version.description, dict(version.labels), version.parent) == (
        "why",
        {"made": "here"},
        "",
    )
    assert [c.example_count for c in version.classes] == np.bincount(labels).tolist()
    assert version.size_bytes > 500 * WIDTH * 2
    assert len(version.bundle_fingerprint) == 64
    read = features.api.caches.GetVersion(cache.GetVersionRequest(name=name))
    assert read == version


def test_the_counts_of_progress_include_what_was_rejected(features, clusters, name):
    points, labels = clusters.draw(50)
    examples = wire.examples_of(points, labels)
    examples += [wire.example(0, wire.embedding([1.0]), f"bad {i}") for i in range(7)]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcde"))
    created = features.api.create(spec, examples)
    last = created.progress[-1]
    assert (last.received, last.encoded, last.rejected) == (57, 50, 7)


def test_rejected_examples_by_id_and_the_rest_go_on(features, clusters, name):
    points, labels = clusters.draw(40)
    examples = wire.examples_of(points, labels, prefix="row ")
    examples[3].input.CopyFrom(wire.embedding(points[3][:-1]))
    examples[20].class_index = 5
    examples[21].class_index = -1
    examples[30].example_id = "row 29"
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("abcde"),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1,
        beta=5,
    )
    created = features.api.create(spec, examples, batch=6)
    assert created.rejected.keys() == {"row 3", "row 20", "row 21", "row 29"}
    for rejected in created.rejected.values():
        assert rejected.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert rejected.reason and rejected.message
    assert "5" in created.rejected["row 20"].message
    left = np.setdiff1d(np.arange(40), [3, 20, 21, 30])
    queries, _ = clusters.draw(20)
    expected = formula.tip_adapter(
        formula.unit(queries), formula.unit(points[left]), labels[left], 5, alpha=1, beta=5
    )
    got = features.api.logits(name, map(wire.embedding, queries))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


def test_one_bad_example_fails_the_whole_where_asked(features, clusters, name):
    points, labels = clusters.draw(40)
    examples = wire.examples_of(points, labels)
    examples[33].input.CopyFrom(wire.embedding([0.0] * WIDTH))
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("abcde"), on_rejected=cache.CacheSpec.ON_REJECTED_FAIL
    )
    with pytest.raises(grpc.RpcError) as caught:
        features.api.create(spec, examples)
    problem = Problem.of_call(caught.value)
    assert problem.code == grpc.StatusCode.INVALID_ARGUMENT
    assert '"33"' in problem.message and problem.metadata["example_id"] == "33"
    assert f"caches/{name}" not in features.api.ids()
    features.cli("caches", "show", name, code=3)


@pytest.mark.parametrize("kind", ["embeddings", "pictures"])
def test_cancelled_half_way_leaves_nothing(
    serve, features_bundle, tiny_bundle, clusters, chance, kind
):
    server = serve(features_bundle if kind == "embeddings" else tiny_bundle)
    points, labels = clusters.draw(50)
    if kind == "embeddings":
        part = wire.examples_of(points, labels)
    else:
        picture = wire.encoded(png(photo(chance)))
        part = [wire.example(label, picture) for label in labels]
    for example in part:
        example.example_id = ""
    spec = cache.CacheSpec(cache_id="half", classes=wire.classes("abcde"))
    sent = threading.Semaphore(0)
    stop = threading.Event()

    def requests():
        yield cache.CreateCacheRequest(spec=spec)
        for _ in range(4):
            yield cache.CreateCacheRequest(examples=cache.ExampleBatch(examples=part))
            sent.release()
        stop.wait(60)

    call = server.api.caches.CreateCache(requests())
    next(call)
    for _ in range(4):
        sent.acquire()
    call.cancel()
    stop.set()
    eventually(lambda: server.metrics()["tipserve_in_flight_items"] == 0)
    assert server.api.ids() == []
    # Nor after the calls' deadline.
    again = server.api.caches.CreateCache(requests_that_stay_open(spec, part), timeout=1)
    with pytest.raises(grpc.RpcError):
        list(again)
    assert server.api.ids() == []
    # And the id is free.
    assert server.api.create(spec, part).version.version == 1


def requests_that_stay_open(spec, part):
    yield cache.CreateCacheRequest(spec=spec)
    yield cache.CreateCacheRequest(examples=cache.ExampleBatch(examples=part))
    threading.Event().wait(5)


def test_validation_examples_choose_and_never_become_keys(features, clusters, name):
    points, labels = clusters.draw(30)
    valid, valid_labels = clusters.draw(45)
    examples = wire.examples_of(points, labels) + wire.examples_of(
        valid, valid_labels, validation=True, prefix="v"
    )
    clusters.chance.shuffle(examples)
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("abcde", clusters.weights))
    for method in (cache.METHOD_AUTO, cache.METHOD_TIP_ADAPTER):
        spec.method = method
        version = features.api.create(spec, examples).version
        assert version.head.selection.source == cache.SELECTION_SOURCE_VALIDATION
        assert version.head.selection.example_count == 45
        assert version.key_count == 30
        assert [c.validation_count for c in version.classes] == np.bincount(valid_labels).tolist()
        assert [c.example_count for c in version.classes] == np.bincount(labels).tolist()
    near = set()
    for result in features.api.stream(
        name, [wire.item("", wire.embedding(p)) for p in valid], neighbours=30
    ):
        near |= {n.example_id for n in result.classification.neighbours}
    assert near == {str(i) for i in range(30)}


def test_given_numbers_are_taken_as_they_are(features, clusters, name):
    points, labels = clusters.draw(30)
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("abcde"),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=0.75,
        beta=33.5,
    )
    head = features.api.create(spec, wire.examples_of(points, labels)).version.head
    assert (head.alpha, head.beta) == (0.75, 33.5)
    assert head.selection.source == cache.SELECTION_SOURCE_GIVEN
    spec.ClearField("alpha")
    head = features.api.create(spec, wire.examples_of(points, labels)).version.head
    assert head.beta == 33.5 and head.alpha > 0
    assert head.selection.source == cache.SELECTION_SOURCE_LEAVE_ONE_OUT


def test_keys_in_half_precision_stay_near(features, clusters, name):
    points, labels = clusters.draw(200)
    queries, _ = clusters.draw(50)
    expected = formula.tip_adapter(
        formula.unit(queries), formula.unit(points), labels, 5, alpha=1, beta=5
    )
    for dtype, bound in (
        (cache.KEY_DTYPE_BF16, 0.05),
        (cache.KEY_DTYPE_F16, 0.01),
        (cache.KEY_DTYPE_F32, 1e-3),
    ):
        spec = cache.CacheSpec(
            cache_id=name,
            classes=wire.classes("abcde"),
            method=cache.METHOD_TIP_ADAPTER,
            alpha=1,
            beta=5,
            key_dtype=dtype,
        )
        version = features.api.create(spec, wire.examples_of(points, labels)).version
        assert version.head.key_dtype == dtype
        got = features.api.logits(f"{name}@{version.version}", map(wire.embedding, queries))
        assert np.abs(got - expected).max() < bound * np.abs(expected).max(), dtype


def views_of(server, name, pictures, seed, views=4, shuffle=None):
    examples = [wire.example(k % 2, wire.encoded(p), f"p{k}") for k, p in enumerate(pictures)]
    if shuffle is not None:
        shuffle.shuffle(examples)
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab"), views=views, seed=seed,
        method=cache.METHOD_TIP_ADAPTER, alpha=50, beta=5, without_text=True,
    )  # fmt: skip
    version = server.api.create(spec, examples).version
    reference = f"{name}@{version.version}"
    logits = server.api.logits(reference, [wire.encoded(p) for p in pictures])
    near = server.api.one(reference, wire.encoded(pictures[0]), neighbours=len(pictures)).neighbours
    return version, logits, {n.example_id: n.similarity for n in near}


def test_views_are_reproducible_by_their_seed(tiny, chance, name):
    pictures = [png(photo(chance, k)) for k in range(6)]
    first, logits, near = views_of(tiny, name, pictures, 5)
    assert first.views == 4 and first.key_count == 6
    _, again, near_again = views_of(tiny, name, pictures, 5, shuffle=chance)
    # Batches may be put together otherwise: equal but for float32's rounding.
    np.testing.assert_allclose(again, logits, rtol=0, atol=1e-3)
    assert near_again == pytest.approx(near, abs=1e-5)
    _, _, other = views_of(tiny, name, pictures, 6)
    assert max(abs(other[i] - near[i]) for i in near) > 1e-4
    one, _, plain = views_of(tiny, name, pictures, 5, views=1)
    assert one.views == 1
    assert plain["p0"] == pytest.approx(1, abs=1e-5)
    assert near["p0"] < 1 - 1e-5


def test_versions_made_at_the_same_time_are_numbered_apart(features, clusters, name):
    points, labels = clusters.draw(20)
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("abcde"), method=cache.METHOD_CLASS_MEAN
    )
    numbers, failed = [], []

    def create():
        try:
            numbers.append(
                features.api.create(spec, wire.examples_of(points, labels)).version.version
            )
        except grpc.RpcError as error:
            failed.append(Problem.of_call(error))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(numbers) == list(range(1, 9))


def test_a_version_is_two_files_that_python_opens(serve, features_bundle, clusters):
    import json

    from safetensors.numpy import load_file

    server = serve(features_bundle)
    points, labels = clusters.draw(25)
    spec = cache.CacheSpec(
        cache_id="open",
        classes=wire.classes("abcde", clusters.weights),
        method=cache.METHOD_TIP_ADAPTER,
    )
    server.api.create(spec, wire.examples_of(points, labels))
    (manifest,) = server.store.glob("caches/open/versions/*/manifest.json")
    (tensors,) = server.store.glob("caches/open/versions/*/*.safetensors")
    assert json.loads(manifest.read_text())
    arrays = load_file(tensors)
    keys = next(a for a in arrays.values() if a.shape == (25, WIDTH))
    order = np.argmax(formula.unit(points) @ keys.astype(np.float64).T, 0)
    assert sorted(order.tolist()) == list(range(25))
    np.testing.assert_allclose(keys, formula.unit(points)[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("resident", [None, 3_000_000])
def test_a_restarted_server_answers_the_same(serve, features_bundle, clusters, resident):
    flags = [] if resident is None else ["--resident-bytes", str(resident)]
    server = serve(features_bundle, *flags)
    points, labels = clusters.draw(30)
    queries = [wire.embedding(q) for q in clusters.draw(10)[0]]
    methods = [
        cache.METHOD_ZERO_SHOT,
        cache.METHOD_TIP_ADAPTER,
        cache.METHOD_GDA,
        cache.METHOD_PROKER,
        cache.METHOD_CLASS_MEAN,
        cache.METHOD_AUTO,
    ]
    for i, method in enumerate(methods):
        spec = cache.CacheSpec(
            cache_id=f"m{i}", classes=wire.classes("abcde", clusters.weights), method=method
        )
        server.api.create(spec, wire.examples_of(points, labels))
    before = [server.api.logits(f"m{i}", queries) for i in range(len(methods))]
    versions = [
        server.api.caches.GetVersion(cache.GetVersionRequest(name=f"m{i}")) for i in range(6)
    ]
    assert server.terminate() == 0
    again = serve(features_bundle, *flags, store=server.store)
    assert [
        again.api.caches.GetVersion(cache.GetVersionRequest(name=f"m{i}")) for i in range(6)
    ] == versions
    for i in range(6):
        np.testing.assert_allclose(again.api.logits(f"m{i}", queries), before[i], rtol=0, atol=1e-4)


def test_killed_while_versions_are_made(serve, features_bundle, clusters):
    server = serve(features_bundle)
    points, labels = clusters.draw(200)
    queries = [wire.embedding(q) for q in clusters.draw(5)[0]]
    spec = cache.CacheSpec(
        cache_id="c",
        classes=wire.classes("abcde"),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1,
        beta=5,
    )
    examples = wire.examples_of(points, labels)
    expected = formula.tip_adapter(
        formula.unit([q.embedding.values for q in queries]),
        formula.unit(points), labels, 5, alpha=1, beta=5,
    )  # fmt: skip
    promised = 0
    for _ in range(4):
        made, stop = [], threading.Event()

        def create(server=server, made=made, stop=stop):
            while not stop.is_set():
                try:
                    made.append(server.api.create(spec, examples).version.version)
                except grpc.RpcError:
                    return

        threads = [threading.Thread(target=create) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda made=made: len(made) >= clusters.chance.integers(2, 6))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        promised = max([promised, *made])
        server = serve(features_bundle, store=server.store)
        listed = server.api.caches.ListVersions(
            cache.ListVersionsRequest(parent="c", page_size=1000)
        ).versions
        numbers = [version.version for version in listed]
        assert set(made) <= set(numbers)
        assert numbers == sorted(set(numbers), reverse=True)
        for number in {numbers[0], numbers[-1], promised}:
            got = server.api.logits(f"c@{number}", queries)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)
