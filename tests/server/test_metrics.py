"""Metrics: every series from the start, and what moves it."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import wire
from conftest import ROOT, WIDTH, eventually
from exposition import families, labelled, moved, requests
from pictures import photo, png
from wire import cache, classify, finetune

COUNTERS = [
    "tipserve_bundle_encoded_pictures_total",
    "tipserve_bundle_batches_total",
    "tipserve_requests_total",
    "tipserve_items_total",
    "tipserve_refused_items_total",
    "tipserve_dropped_items_total",
    "tipserve_batches_total",
    "tipserve_recognised_items_total",
    "tipserve_cache_hits_total",
    "tipserve_cache_loads_total",
    "tipserve_cache_load_failures_total",
    "tipserve_cache_evictions_total",
    "tipserve_embedding_cache_hits_total",
    "tipserve_embedding_cache_misses_total",
    "tipserve_embedding_cache_coalesced_total",
    "tipserve_store_requests_total",
    "tipserve_versions_created_total",
    "tipserve_finetune_epochs_total",
    "tipserve_finetune_runs_started_total",
    "tipserve_finetune_runs_ended_total",
    "process_cpu_seconds_total",
]
GAUGES = [
    "tipserve_bundles",
    "tipserve_bundle_loaded",
    "tipserve_bundle_in_flight_items",
    "tipserve_in_flight_items",
    "tipserve_in_flight_bytes",
    "tipserve_queue_depth_items",
    "tipserve_resident_caches",
    "tipserve_resident_cache_bytes",
    "tipserve_embedding_cache_bytes",
    "tipserve_embedding_cache_entries",
    "tipserve_finetune_runs",
    "tipserve_build_info",
    "tipserve_queue_limit_items",
    "tipserve_queue_limit_bytes",
    "tipserve_resident_cache_limit_bytes",
    "tipserve_embedding_cache_limit_bytes",
    "tipserve_batch_limit_pictures",
    "tipserve_encoder_workers",
    "process_open_fds",
    "process_max_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
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
    "tipserve_request_seconds",
    "tipserve_store_request_seconds",
    "tipserve_finetune_epoch_seconds",
]


@pytest.fixture
def fresh(serve, features_bundle):
    return serve(features_bundle)


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
    ours = {k: v for k, v in fresh.metrics().items() if k.startswith("tipserve_") and "_total" in k}
    assert not any(ours.values())
    # Every label's every value: methods and codes, reasons, outcomes.
    assert counts["tipserve_requests_total"] == len(wire.METHODS) * len(grpc.StatusCode)
    assert {match[1] for match in re.finditer(r'method="(\w+)"', text)} == wire.METHODS
    assert {match[1] for match in re.finditer(r'code="(\w+)"', text)} == {
        code.name for code in grpc.StatusCode
    }
    for name, count in (("refused_items", 4), ("dropped_items", 5), ("items", 2)):
        assert counts[f"tipserve_{name}_total"] == count


def test_nothing_done_adds_a_series(fresh, chance):
    """What a server does changes values, not what there is."""
    before = set(fresh.metrics())
    points = chance.normal(size=(4, WIDTH))
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"))
    fresh.api.create(spec, wire.examples_of(points, [0, 1] * 2))
    fresh.api.one("c", wire.embedding(points[0]))
    with pytest.raises(grpc.RpcError):
        fresh.api.one("nobody", wire.embedding(points[0]))
    list(fresh.api.stream("c", [wire.item("bad", wire.embedding([1.0]))]))
    list(fresh.api.tuning.FineTune(finetune.FineTuneRequest(cache="c", epochs=1)))
    with pytest.raises(grpc.RpcError):
        fresh.api.channel.unary_unary("/tipserve.v1.ClassifyService/Unheard")(b"", timeout=60)
    assert set(fresh.metrics()) == before


def test_the_content_type_is_prometheus_own(fresh):
    with urllib.request.urlopen(f"http://{fresh.probes}/metrics", timeout=60) as page:
        assert page.headers["Content-Type"] == "text/plain; version=0.0.4"


def test_build_and_limits(serve, features_bundle):
    server = serve(
        features_bundle,
        *("--queue-items", "77", "--queue-bytes", "123456", "--resident-bytes", "7654321"),
        *("--embedding-cache-bytes", "2345", "--max-batch", "9", "--workers", "3"),
    )
    metrics = server.metrics()
    info = server.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    [build] = [name for name in metrics if name.startswith("tipserve_build_info")]
    assert dict(re.findall(r'(\w+)="([^"]*)"', build)) == {
        "version": info.version,
        "bundle": info.bundle.name,
        "device": info.device,
        "dtype": info.dtype,
    }
    assert metrics[build] == 1
    for name, value in {
        "queue_limit_items": 77,
        "queue_limit_bytes": 123456,
        "resident_cache_limit_bytes": 7654321,
        "embedding_cache_limit_bytes": 2345,
        "batch_limit_pictures": 9,
        "encoder_workers": 3,
    }.items():
        assert metrics[f"tipserve_{name}"] == value, name
    assert info.limits["queue_items"] == 77
    assert info.limits["resident_bytes"] == 7654321
    stat = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    boot = float(re.search(r"btime (\d+)", Path("/proc/stat").read_text())[1])
    started = boot + int(stat[19]) / os.sysconf("SC_CLK_TCK")
    assert abs(metrics["process_start_time_seconds"] - started) < 5
    assert metrics["process_resident_memory_bytes"] > 10e6
    assert metrics["process_open_fds"] >= 5


def test_every_way_to_answer_an_item_counts_alike(fresh, chance):
    points = chance.normal(size=(6, WIDTH))
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"))
    fresh.api.create(spec, wire.examples_of(points, [0, 1] * 3))
    good, bad = [wire.embedding(p) for p in points], wire.embedding([1.0])

    def counts():
        metrics = fresh.metrics()
        return [metrics[f'tipserve_items_total{{outcome="{one}"}}'] for one in ("ok", "error")]

    def unary():
        for content in good:
            fresh.api.one("c", content)
        with pytest.raises(grpc.RpcError):
            fresh.api.one("c", bad)

    def stream():
        contents = [*good, bad]
        list(fresh.api.stream("c", [wire.item(str(i), c) for i, c in enumerate(contents)]))

    def embed():
        fresh.api.classifying.Embed(classify.EmbedRequest(inputs=[*good, bad]))

    def evaluate():
        items = [
            classify.LabelledItem(id=str(i), class_index=0, input=content)
            for i, content in enumerate([*good, bad])
        ]
        config = classify.EvaluateConfig(caches=["c"])
        requests = [
            classify.EvaluateRequest(config=config),
            classify.EvaluateRequest(items=classify.LabelledBatch(items=items)),
        ]
        fresh.api.classifying.Evaluate(iter(requests))

    for way in (unary, stream, embed, evaluate):
        before = counts()
        way()
        assert np.subtract(counts(), before).tolist() == [len(good), 1], way.__name__


def test_rpcs_are_timed_and_those_without_a_handler_counted(fresh):
    fresh.api.ids()
    metrics = fresh.metrics()
    assert metrics['tipserve_request_seconds_count{method="ListCaches"}'] == 1
    assert metrics['tipserve_request_seconds_sum{method="ListCaches"}'] > 0
    call = fresh.api.channel.unary_unary("/tipserve.v1.CacheService/ListCaches")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff", timeout=60)  # no protobuf
    for path in ("tipserve.v1.CacheService/Unheard", "nobody.Here/Unheard"):
        with pytest.raises(grpc.RpcError):
            fresh.api.channel.unary_unary(f"/{path}")(b"", timeout=60)
    counts = labelled(fresh.metrics())
    code = caught.value.code().name
    assert counts[labelled({requests("ListCaches", code): 0}).popitem()[0]] == 1
    assert counts[labelled({requests("other", "UNIMPLEMENTED"): 0}).popitem()[0]] == 2
    assert counts["tipserve_in_flight_requests"] == 0


def test_fine_tuning_is_counted(fresh, chance):
    points = chance.normal(size=(8, WIDTH))
    spec = cache.CacheSpec(
        cache_id="c", classes=wire.classes("ab"), method=cache.METHOD_TIP_ADAPTER
    )
    fresh.api.create(spec, wire.examples_of(points, [0, 1] * 4))
    list(fresh.api.tuning.FineTune(finetune.FineTuneRequest(cache="c", epochs=4)))
    long = fresh.api.tuning.FineTune(
        finetune.FineTuneRequest(cache="c", epochs=1000, detached=True)
    )
    run = next(iter(long)).run.name
    fresh.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=run))
    metrics = fresh.metrics()
    prefix = "tipserve_finetune_runs"
    assert metrics[f"{prefix}_started_total"] == 2
    assert metrics[f'{prefix}_ended_total{{outcome="succeeded"}}'] == 1
    assert metrics[f'{prefix}_ended_total{{outcome="cancelled"}}'] == 1
    assert metrics[f'{prefix}_ended_total{{outcome="failed"}}'] == 0
    assert metrics[f'{prefix}{{state="queued"}}'] == metrics[f'{prefix}{{state="running"}}'] == 0
    epochs = metrics["tipserve_finetune_epochs_total"]
    assert epochs >= 4
    assert metrics["tipserve_finetune_epoch_seconds_count"] == epochs


def test_items_given_up_are_counted_by_reason(tiny, chance, name):
    examples = [wire.example(k, wire.encoded(png(photo(chance, k)))) for k in (0, 1)]
    tiny.api.create(cache.CacheSpec(cache_id=name, classes=wire.classes("ab")), examples)

    def dropped():
        prefix = "tipserve_dropped_items_total"
        return {k: v for k, v in tiny.metrics().items() if k.startswith(prefix)}

    before = dropped()
    cancelled = 'tipserve_dropped_items_total{reason="cancelled"}'
    # Far more than are encoded before the client goes; a client that is slow to
    # go (a busy machine) tries again.
    items = [wire.item(str(i), wire.encoded(png(photo(chance)))) for i in range(300)]

    def after_leaving():
        call = tiny.api.stream(name, items, batch=16)
        next(call)
        call.close()
        eventually(lambda: tiny.metrics()["tipserve_in_flight_items"] == 0)
        return dropped()

    after = eventually(lambda: (d := after_leaving())[cancelled] > before[cancelled] and d)
    del after[cancelled], before[cancelled]
    assert after == before


def test_prometheus_own_parser_takes_it(fresh):
    parser = pytest.importorskip("prometheus_client.parser")
    names = {
        family.name for family in parser.text_string_to_metric_families(fresh.http("/metrics")[1])
    }
    assert {name.removesuffix("_total") for name in COUNTERS} | set(GAUGES) | set(
        HISTOGRAMS
    ) <= names


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


def test_deploy_asks_for_metrics_that_there_are(features):
    """Every metric that a query of deploy/ or a table of the documents names is exported."""
    exported = set(families(features.http("/metrics")[1])[0])
    dashboard = json.loads((ROOT / "deploy/grafana/tipserve.json").read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    queries.append((ROOT / "deploy/prometheus/alerts.yml").read_text())
    queries.append((ROOT / "docs/operations.md").read_text())
    names = {
        name
        for text in queries
        for name in re.findall(r"\b((?:tipserve|process)_[a-z_]+[a-z])\b", text)
        if not name.startswith("tipserve_export")
    }
    assert len(names) > 20
    unknown = {re.sub("_(bucket|sum|count)$", "", name) for name in names} - exported
    assert unknown == set()
    told = set(re.findall(r"`(tipserve_[a-z_]+)", (ROOT / "docs/operations.md").read_text()))
    assert {name for name in exported if name.startswith("tipserve_")} <= told


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
