"""Metrics, probes, health and reflection."""

from __future__ import annotations

import re

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH, eventually
from pictures import photo, png
from wire import cache, classify, finetune

COUNTERS = [
    "tipserve_requests_total",
    "tipserve_items_total",
    "tipserve_refused_items_total",
    "tipserve_batches_total",
    "tipserve_cache_hits_total",
    "tipserve_cache_loads_total",
    "tipserve_cache_evictions_total",
    "tipserve_embedding_cache_hits_total",
    "tipserve_embedding_cache_misses_total",
    "tipserve_embedding_cache_coalesced_total",
    "tipserve_versions_created_total",
    "tipserve_finetune_epochs_total",
]
GAUGES = [
    "tipserve_in_flight_items",
    "tipserve_in_flight_bytes",
    "tipserve_queue_depth_items",
    "tipserve_resident_caches",
    "tipserve_resident_cache_bytes",
    "tipserve_embedding_cache_bytes",
    "tipserve_embedding_cache_entries",
]
HISTOGRAMS = [
    "tipserve_batch_size_pictures",
    "tipserve_decode_queue_seconds",
    "tipserve_decode_seconds",
    "tipserve_queue_seconds",
    "tipserve_encode_seconds",
    "tipserve_head_seconds",
    "tipserve_item_seconds",
    "tipserve_cache_load_seconds",
]
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[^"]*",?)*)\})? (\S+)')


@pytest.fixture
def fresh(serve, features_bundle):
    return serve(features_bundle)


def families(text):
    """Type and sample count of each family; every line must be of the text format."""
    types, counts = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} twice"
            types[name] = kind
        elif line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            float(match[3])
            name = match[1]
            if name not in types:
                name = re.sub("_(bucket|sum|count)$", "", name)
            assert name in types, line
            counts[name] = counts.get(name, 0) + 1
    return types, counts


def test_every_series_is_there_at_the_start(fresh):
    status, text = fresh.http("/metrics")
    assert status == 200
    types, counts = families(text)
    for names, kind in ((COUNTERS, "counter"), (GAUGES, "gauge"), (HISTOGRAMS, "histogram")):
        for name in names:
            assert types.get(name) == kind, name
            assert counts.get(name), f"{name} has no sample"
    for name in types:
        assert f"# HELP {name} " in text
    assert all(value == 0 for name, value in fresh.metrics().items() if "_total" in name)


def test_prometheus_own_parser_takes_it(fresh):
    parser = pytest.importorskip("prometheus_client.parser")
    names = {
        family.name for family in parser.text_string_to_metric_families(fresh.http("/metrics")[1])
    }
    assert {name.removesuffix("_total") for name in COUNTERS} | set(GAUGES) | set(
        HISTOGRAMS
    ) <= names


def moved(server, before):
    after = server.metrics()
    return {
        k: v - before.get(k, 0)
        for k, v in after.items()
        if v != before.get(k, 0) and "_seconds" not in k and "_bytes" not in k
    }


def requests(method, code="OK"):
    return f'tipserve_requests_total{{method="{method}",code="{code}"}}'


def labelled(counts):
    """The same, whatever the order of the labels."""
    return {
        re.sub(r"\{(.*)\}", lambda m: "{" + ",".join(sorted(m[1].split(","))) + "}", k): v
        for k, v in counts.items()
    }


def test_counters_move_by_what_was_done(fresh, chance):
    before = fresh.metrics()
    points = chance.normal(size=(10, WIDTH))
    spec = cache.CacheSpec(
        cache_id="c", classes=wire.classes("ab"), method=cache.METHOD_TIP_ADAPTER
    )
    fresh.api.create(spec, wire.examples_of(points, [0, 1] * 5))
    items = [wire.item(str(i), wire.embedding(p)) for i, p in enumerate(points)]
    items += [wire.item("bad", wire.embedding([1.0]))] * 3
    assert len(list(fresh.api.stream("c", items))) == 13
    for _ in range(4):
        fresh.api.one("c", wire.embedding(points[0]))
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            fresh.api.one("nobody", wire.embedding(points[0]))
    fresh.api.ids()
    list(fresh.api.tuning.FineTune(finetune.FineTuneRequest(cache="c", epochs=3)))
    counts = labelled(moved(fresh, before))
    expected = {
        requests("CreateCache"): 1,
        requests("ClassifyStream"): 1,
        requests("Classify"): 4,
        requests("Classify", "NOT_FOUND"): 2,
        requests("ListCaches"): 1,
        requests("FineTune"): 1,
        'tipserve_items_total{outcome="ok"}': 14,
        "tipserve_versions_created_total": 2,
        "tipserve_finetune_epochs_total": 3,
    }
    print(counts)
    for name, value in labelled(expected).items():
        assert counts.get(name) == value, name
    assert counts['tipserve_items_total{outcome="error"}'] in (3, 5)
    assert counts["tipserve_cache_loads_total"] >= 1
    assert fresh.metrics()["tipserve_resident_caches"] >= 1
    assert fresh.metrics()["tipserve_in_flight_items"] == 0


def test_batches_count_pictures(tiny, chance):
    examples = [wire.example(k, wire.encoded(png(photo(chance, k)))) for k in (0, 1)]
    tiny.api.create(cache.CacheSpec(cache_id="counted", classes=wire.classes("ab")), examples)
    before = tiny.metrics()
    picture = wire.encoded(png(photo(chance)))
    assert (
        len(list(tiny.api.stream("counted", [wire.item(str(i), picture) for i in range(40)]))) == 40
    )
    after = tiny.metrics()

    def grew(name):
        return after[name] - before[name]

    assert grew("tipserve_batch_size_pictures_sum") == 40
    assert grew("tipserve_batch_size_pictures_count") == grew("tipserve_batches_total") >= 2
    assert grew("tipserve_decode_seconds_count") == 40
    assert grew("tipserve_item_seconds_count") == 40
    assert grew("tipserve_encode_seconds_count") == grew("tipserve_batches_total")


def test_a_stream_is_counted_by_how_it_ended(fresh, chance):
    points = chance.normal(size=(4, WIDTH))
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"))
    fresh.api.create(spec, wire.examples_of(points, [0, 1] * 2))
    before = fresh.metrics()
    strict = cache.CacheSpec(
        cache_id="c", classes=wire.classes("a"), on_rejected=cache.CacheSpec.ON_REJECTED_FAIL
    )
    config = classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache="c"))
    with pytest.raises(grpc.RpcError):
        fresh.api.create(strict, [wire.example(0, wire.embedding([1.0]))])
    with pytest.raises(grpc.RpcError):
        list(fresh.api.classifying.ClassifyStream(iter([config, config])))
    counts = labelled(moved(fresh, before))
    wanted = labelled(
        {
            requests("CreateCache", "INVALID_ARGUMENT"): 1,
            requests("ClassifyStream", "INVALID_ARGUMENT"): 1,
        }
    )
    assert {name: counts.get(name) for name in wanted} == wanted


def test_caches_make_no_series(fresh, chance):
    def shape():
        return sorted(fresh.metrics())

    spec = cache.CacheSpec(classes=wire.classes("a"), method=cache.METHOD_CLASS_MEAN)
    points = chance.normal(size=(1, WIDTH))
    series = []
    for i in range(12):
        spec.cache_id = f"c{i}"
        fresh.api.create(spec, wire.examples_of(points, [0]))
        fresh.api.one(f"c{i}", wire.embedding(points[0]))
        series.append(shape())
    assert series[-1] == series[1]


def test_probes(fresh):
    assert fresh.http("/healthz") == (200, "ok\n")
    assert fresh.http("/readyz") == (200, "ready\n")
    assert fresh.http("/nothing")[0] == 404


SERVICES = [
    "",
    "tipserve.v1.CacheService",
    "tipserve.v1.ClassifyService",
    "tipserve.v1.FineTuneService",
    "inference.GRPCInferenceService",
]


@pytest.mark.parametrize("service", SERVICES)
def test_grpc_health(features, service):
    # grpc.health.v1 by hand: field 1 of the request is the service, of the answer the status.
    check = features.api.channel.unary_unary("/grpc.health.v1.Health/Check")
    name = service.encode()
    assert check(bytes([10, len(name)]) + name if name else b"", timeout=60) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x0a\x07nothing", timeout=60)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(features):
    reflection = pytest.importorskip("grpc_reflection.v1alpha.proto_reflection_descriptor_database")
    database = reflection.ProtoReflectionDescriptorDatabase(features.api.channel)
    assert set(SERVICES[1:]) <= set(database.get_services())
    assert database.FindFileContainingSymbol("tipserve.v1.CacheSpec").package == "tipserve.v1"
    found = database.FindFileContainingSymbol("inference.ModelConfig")
    assert (found.package, found.name) == ("inference", "inference/model_config.proto")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_answers(features, version):
    # ServerReflectionRequest.list_services (7) = "".
    call = features.api.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    )
    (answer,) = call(iter([b"\x3a\x00"]), timeout=60)
    for service in SERVICES[1:]:
        assert service.encode() in answer


def test_in_flight_goes_back_to_nothing(features, clusters, name):
    points, labels = clusters.draw(20)
    features.api.create(
        cache.CacheSpec(cache_id=name, classes=wire.classes("abcde")),
        wire.examples_of(points, labels),
    )
    contents = [
        wire.item(str(i), wire.embedding(p)) for i, p in enumerate(np.tile(points, (30, 1)))
    ]
    assert len(list(features.api.stream(name, contents))) == 600
    eventually(lambda: features.metrics()["tipserve_in_flight_items"] == 0)
    assert features.metrics()["tipserve_in_flight_bytes"] == 0
