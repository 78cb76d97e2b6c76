"""Other callers' calls, and the probes, beside one who asks for too much."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest
import tokens as token_files
import wire
from conftest import eventually
from wire import cache, classify

WIDTH = 48


@pytest.fixture
def small_cache(tiny, name, chance):
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN, without_text=True
    )
    tiny.api.create(spec, wire.examples_of(chance.normal(size=(4, WIDTH)), [0, 1, 0, 1]))
    return name


def test_probes_and_control_calls_go_on_while_many_texts_wait(tiny, small_cache):
    """Overload of the text encoder: more calls than the pool of blocking threads has."""
    texts = ["a photo of a thing " * 3 + str(index) for index in range(100)]
    request = classify.EmbedRequest(texts=texts)
    apis = [wire.Api(tiny.address) for _ in range(4)]
    waiting = [
        apis[index % 4].classifying.Embed.future(request, timeout=300) for index in range(600)
    ]
    eventually(lambda: tiny.metrics()["tipserve_in_flight_requests"] > 500)
    slowest = 0.0
    for _ in range(5):
        start = time.perf_counter()
        assert tiny.http("/healthz")[0] == 200
        slowest = max(slowest, time.perf_counter() - start)
        got = tiny.api.caches.GetCache(cache.GetCacheRequest(name=small_cache), timeout=60)
        assert got.name == f"caches/{small_cache}"
        point = wire.embedding(np.ones(WIDTH))
        assert tiny.api.one(small_cache, point).top
    print(f"slowest probe {1000 * slowest:.0f} ms")
    assert not all(call.done() for call in waiting), "all were answered: this was no overload"
    for call in waiting:
        call.cancel()
    eventually(lambda: tiny.metrics()["tipserve_in_flight_items"] == 0)
    for api in apis:
        api.close()


def test_texts_are_admitted_as_items(serve, tiny_bundle):
    """Backpressure: texts are in the engine's count, and never more than its limit."""
    server = serve(tiny_bundle, "--dtype", "float32", "--queue-items", "8")
    calls = [
        server.api.classifying.Embed.future(
            classify.EmbedRequest(texts=[f"text {index} {n}" for n in range(40)]), timeout=120
        )
        for index in range(4)
    ]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, server.metrics()["tipserve_in_flight_items"])
    assert 0 < most <= 8
    for call in calls:
        assert len(call.result().texts) == 40
        assert all(result.embedding.values for result in call.result().texts)


def test_a_deadline_ends_texts_that_wait(tiny):
    texts = ["a long text " * 50] * 16_000
    with pytest.raises(grpc.RpcError) as caught:
        tiny.api.classifying.Embed(
            classify.EmbedRequest(texts=texts, truncate_texts=True), timeout=1
        )
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: tiny.metrics()["tipserve_in_flight_items"] == 0)


def test_one_token_cannot_lock_an_admin_out(serve, features_bundle, tmp_path):
    file = token_files.TokensFile(tmp_path)
    greedy, admin = file.add("greedy", "classify"), file.add("admin", "admin")
    also = file.add("also", "classify")
    server = serve(
        features_bundle,
        *("--tokens", str(file.path), "--max-streams", "16", "--max-token-streams", "14"),
    )

    def silent(token):
        call = token_files.api(server.address, token).classifying.ClassifyStream(_sleepy())
        return call

    def _sleepy():
        time.sleep(120)
        yield from ()

    held = [silent(greedy) for _ in range(20)]
    eventually(lambda: server.metrics()["tipserve_in_flight_requests"] == 14)
    # The default cap of a token; two places are left, which are kept for admins.
    info = classify.GetServerInfoRequest()
    with pytest.raises(grpc.RpcError) as caught:
        token_files.api(server.address, greedy).classifying.GetServerInfo(info)
    assert "max_streams = 14" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        token_files.api(server.address, also).classifying.GetServerInfo(info)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert token_files.api(server.address, admin).classifying.GetServerInfo(info).version
    for call in held:
        call.cancel()


def test_pages_of_lists_end_by_their_bytes(serve, features_bundle, chance):
    """Every page fits into what gRPC clients take by default, 4 MiB."""
    server = serve(features_bundle)
    count, long = 12, "x" * 1000
    for index in range(count):
        classes = [cache.ClassSpec(display_name=f"{n} {'n' * 90}") for n in range(2000)]
        labels = {f"{n} {'k' * 200}": long for n in range(64)} if index % 2 else {}
        spec = cache.CacheSpec(
            cache_id=f"c{index:02}",
            classes=classes,
            labels=labels,
            method=cache.METHOD_CLASS_MEAN,
            allow_empty_classes=True,
            without_text=True,
        )
        server.api.create(spec, wire.examples_of(chance.normal(size=(1, 64)), [0]))
    plain = wire.cache_grpc.CacheServiceStub(grpc.insecure_channel(server.address))
    request, names = cache.ListCachesRequest(page_size=1000), []
    while True:
        page = plain.ListCaches(request)
        assert page.ByteSize() < 3 << 20
        for one in page.caches:
            names.append(one.name)
            assert one.latest.class_count == 2000
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == [f"caches/c{index:02}" for index in range(count)]


@pytest.mark.parametrize("labels", [{"k" * 300: "v"}, {"k": "v" * 2000}])
def test_labels_are_bounded(features, name, labels):
    from refusals import INVALID, refused

    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("ab"), labels=labels)
    problem = refused(features.api.caches.CreateCache, iter([cache.CreateCacheRequest(spec=spec)]))
    assert (problem.code, problem.reason) == (INVALID, "LIMIT_EXCEEDED")
    assert problem.metadata["limit"].startswith("max_label_")
