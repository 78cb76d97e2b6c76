"""Other callers' calls, and the probes, beside one who asks for too much."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import grpc
import numpy as np
import pytest
import tokens as token_files
import wire
from conftest import eventually
from test_hostile_messages import MIB, peak, reset_peak
from wire import analysis, cache, classify

WIDTH = 48
# Of the bundle without encoders.
FEATURES = 64


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


@pytest.fixture
def two_tokens(serve, features_bundle, tmp_path):
    """A server with the tokens "greedy" and "other"."""
    file = token_files.TokensFile(tmp_path)
    tokens = [file.add(name, "write") for name in ("greedy", "other")]
    flags = ("--tokens", str(file.path), "--resident-bytes", str(32 * MIB))
    server = serve(features_bundle, *flags)
    server.greedy, server.other = (token_files.api(server.address, one) for one in tokens)
    return server


def test_analyses_of_one_token_leave_places_for_another(two_tokens, chance):
    count, classes = 4000, 40
    examples = wire.examples_of(
        chance.normal(size=(count, FEATURES)), [index % classes for index in range(count)]
    )
    spec = cache.CacheSpec(
        cache_id="large",
        classes=wire.classes([f"class {index}" for index in range(classes)]),
        method=cache.METHOD_CLASS_MEAN,
        without_text=True,
    )
    two_tokens.greedy.create(spec, examples)
    small = cache.CacheSpec(cache_id="small", classes=wire.classes("ab"), without_text=True)
    two_tokens.other.create(small, examples_of_two(chance, 8))
    asked = analysis.AnalyzeVersionRequest(cache="large", draws=50)
    calls = [two_tokens.greedy.analysing.AnalyzeVersion.future(asked) for _ in range(40)]
    eventually(lambda: sum(call.done() for call in calls) >= 36, 120)
    refused = [call.exception() for call in calls if call.done()]
    reasons = {wire.Problem.of_call(error).reason for error in refused if error}
    assert reasons == {"BUSY"}
    # Those that run and wait are before it, and it is served.
    asked = analysis.AnalyzeVersionRequest(cache="small")
    assert two_tokens.other.analysing.AnalyzeVersion(asked, timeout=300).example_count == 8
    for call in calls:
        call.cancel()


def examples_of_two(chance, count: int) -> list:
    return wire.examples_of(chance.normal(size=(count, FEATURES)), [0, 1] * (count // 2))


def test_selections_of_one_token_leave_places_for_another(two_tokens, chance):
    """While many wait for their turn, whatever the machine's speed: each one of the greedy token's
    that ends is followed by another.
    """
    count = 100
    examples = examples_of_two(chance, 1000)
    kind = {"classes": wire.classes("ab"), "method": cache.METHOD_PROKER, "without_text": True}
    names, selecting, ended = itertools.count(), set(), []
    done = threading.Event()

    def create() -> None:
        while not done.is_set():
            spec = cache.CacheSpec(cache_id=f"greedy-{next(names)}", **kind)
            requests = wire.requests_of(spec, examples, 1000)
            with contextlib.suppress(grpc.RpcError):
                for response in two_tokens.greedy.caches.CreateCache(requests):
                    if response.progress.stage == cache.CreateProgress.STAGE_SELECTION:
                        selecting.add(spec.cache_id)
            selecting.discard(spec.cache_id)
            ended.append(spec.cache_id)

    threads = [threading.Thread(target=create) for _ in range(count)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(selecting) > 0.9 * count, 300)
    before = len(ended)
    two_tokens.other.create(cache.CacheSpec(cache_id="other", **kind), examples_of_two(chance, 8))
    between = len(ended) - before
    print(f"{between} ended meanwhile")
    # With a turn among all of them, all but the 32 that may run would have ended before it.
    assert between < 0.9 * count - 32 - 8
    done.set()
    two_tokens.kill()
    for thread in threads:
        thread.join()


def test_versions_that_calls_hold_stay_within_the_budget(two_tokens, chance):
    """A small request makes the server hold a whole version, for as long as its client likes."""
    kind = {"classes": wire.classes("ab"), "method": cache.METHOD_CLASS_MEAN, "without_text": True}
    large = examples_of_two(chance, 20_000)
    two_tokens.greedy.create(cache.CacheSpec(cache_id="large", **kind), large, batch=1000)
    two_tokens.other.create(cache.CacheSpec(cache_id="small", **kind), examples_of_two(chance, 8))
    name = cache.GetVersionRequest(name="large@1")
    size = two_tokens.greedy.caches.GetVersion(name).size_bytes
    before, done = reset_peak(two_tokens), threading.Event()

    def silent(request):
        yield request
        done.wait(120)

    spec = cache.AddExamplesSpec(base="large")
    config = analysis.SuggestExamplesConfig(cache="large")
    calls, begun = [], []
    for _ in range(40):
        adding = two_tokens.greedy.caches.AddExamples(silent(cache.AddExamplesRequest(spec=spec)))
        suggesting = two_tokens.greedy.analysing.SuggestExamples.future(
            silent(analysis.SuggestExamplesRequest(config=config))
        )
        calls += [adding, suggesting]
        threading.Thread(target=first_of, args=(adding, begun), daemon=True).start()
    eventually(lambda: two_tokens.metrics()["tipserve_in_flight_requests"] == 80)
    spec = cache.AddExamplesSpec(base="small")
    for _ in range(5):
        assert two_tokens.other.add(spec, examples_of_two(chance, 2)).version.version > 1
        exported = two_tokens.other.caches.ExportVersion(cache.ExportVersionRequest(name="small"))
        assert len(list(exported)) > 1
    grown = peak(two_tokens) - before
    print(f"{grown >> 20} MiB for {80 * size >> 20} MiB that were asked for; {len(begun)} began")
    assert 80 * size > 4 * 96 * MIB
    assert grown < 96 * MIB
    done.set()
    for call in calls:
        call.cancel()
    eventually(lambda: two_tokens.metrics()["tipserve_in_flight_requests"] == 0)


def first_of(answers, begun: list) -> None:
    with contextlib.suppress(grpc.RpcError):
        begun.append(next(answers))


@pytest.mark.parametrize("labels", [{"k" * 300: "v"}, {"k": "v" * 2000}])
def test_labels_are_bounded(features, name, labels):
    from refusals import INVALID, refused

    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("ab"), labels=labels)
    problem = refused(features.api.caches.CreateCache, iter([cache.CreateCacheRequest(spec=spec)]))
    assert (problem.code, problem.reason) == (INVALID, "LIMIT_EXCEEDED")
    assert problem.metadata["limit"].startswith("max_label_")
