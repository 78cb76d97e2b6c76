"""Traces, received by an OpenTelemetry collector of the test's own (OTLP over gRPC)."""

from __future__ import annotations

import secrets
import socket
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import wire
from conftest import eventually
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1 import trace_pb2 as trace
from pictures import photo, png
from wire import cache, classify

SERVER, INTERNAL = trace.Span.SPAN_KIND_SERVER, trace.Span.SPAN_KIND_INTERNAL
# Sent at once, and not when the default queue thinks fit.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


class Collector(otlp_grpc.TraceServiceServicer):
    """Keeps every span that it is sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.received: list[tuple[dict, trace.Span]] = []
        self.metadata: list[dict] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        otlp_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Export(self, request, context):
        with self.lock:
            self.metadata.append(dict(context.invocation_metadata()))
            for batch in request.resource_spans:
                resource = attributes(batch.resource)
                for scope in batch.scope_spans:
                    self.received += [(resource, span) for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spans(self, name: str) -> list[trace.Span]:
        with self.lock:
            return [span for _, span in self.received if span.name == name]


def attributes(thing) -> dict:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in thing.attributes}


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.server.stop(None)


def parent():
    """A caller's span: trace id, span id, and both as W3C has them."""
    trace_id, span_id = secrets.token_bytes(16), secrets.token_bytes(8)
    return trace_id, span_id, f"00-{trace_id.hex()}-{span_id.hex()}-01"


def two_classes(server, name, chance):
    examples = [wire.example(k, wire.encoded(png(photo(chance, k)))) for k in (0, 1)]
    server.api.create(cache.CacheSpec(cache_id=name, classes=wire.classes("ab")), examples)


CLASSIFY = "tipserve.v1.ClassifyService/Classify"
STREAM = "tipserve.v1.ClassifyService/ClassifyStream"


def test_a_call_is_a_span_of_the_callers_trace(serve, tiny_bundle, collector, chance):
    server = serve(tiny_bundle, "--otlp-endpoint", collector.endpoint, env=SOON)
    two_classes(server, "pets", chance)
    trace_id, span_id, traceparent = parent()
    request = classify.ClassifyRequest(cache="pets", input=wire.encoded(png(photo(chance))))
    metadata = [
        ("traceparent", traceparent),
        ("tracestate", "vendor=1"),
        ("x-request-id", "mine"),
    ]
    server.api.classifying.Classify(request, metadata=metadata, timeout=60)
    [span] = eventually(lambda: collector.spans(CLASSIFY))
    assert (span.trace_id, span.parent_span_id) == (trace_id, span_id)
    assert span.trace_state == "vendor=1"
    assert span.kind == SERVER
    assert span.end_time_unix_nano > span.start_time_unix_nano
    told = attributes(span)
    assert told["request_id"] == "mine"
    assert told["cache"] == "pets"
    assert told["rpc.system"] == "grpc"
    assert told["rpc.service"] == "tipserve.v1.ClassifyService"
    assert told["rpc.method"] == "Classify"
    assert told["rpc.grpc.status_code"] == 0
    assert told["peer"].startswith("127.0.0.1:")
    assert span.status.code == trace.Status.STATUS_CODE_UNSET
    resource, _ = collector.received[0]
    assert resource["service.name"] == "tipserve"
    assert resource["service.version"]

    # The batch: a trace of its own, linked to the call.
    [batch] = [
        one
        for one in eventually(lambda: collector.spans("batch"))
        if any(link.span_id == span.span_id for link in one.links)
    ] or eventually(
        lambda: [
            one
            for one in collector.spans("batch")
            if any(link.span_id == span.span_id for link in one.links)
        ]
    )
    assert batch.kind == INTERNAL and not batch.parent_span_id
    assert batch.trace_id != trace_id
    assert [(link.trace_id, link.span_id) for link in batch.links] == [(trace_id, span.span_id)]
    told = attributes(batch)
    assert (told["pictures"], told["caches"]) == (1, 1)


def test_a_batch_links_to_every_call_that_it_served(serve, tiny_bundle, collector, chance):
    server = serve(
        tiny_bundle,
        *("--otlp-endpoint", collector.endpoint, "--workers", "1"),
        *("--max-queue-delay-ms", "200", "--dtype", "float32"),
        env=SOON,
    )
    two_classes(server, "pets", chance)
    two_classes(server, "cars", chance)
    pictures = [wire.encoded(png(photo(chance))) for _ in range(24)]

    def stream(name):
        items = [wire.item(str(i), content) for i, content in enumerate(pictures)]
        assert len(list(server.api.stream(name, items, batch=4))) == len(items)

    threads = [threading.Thread(target=stream, args=(name,)) for name in ("pets", "cars")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batches = server.metrics()["tipserve_batches_total"]
    eventually(lambda: len(collector.spans(STREAM)) == 2)
    eventually(lambda: len(collector.spans("batch")) == batches)
    streams = {span.span_id for span in collector.spans(STREAM)}
    served = [
        span
        for span in collector.spans("batch")
        if any(link.span_id in streams for link in span.links)
    ]
    assert sum(attributes(span)["pictures"] for span in served) == 2 * len(pictures)
    for span in served:
        links = [link.span_id for link in span.links]
        assert len(links) == len(set(links)) <= 2
        # Each stream asks one cache, so that a batch has as many as it serves streams.
        assert attributes(span)["caches"] == len(links)


def test_errors_are_errors_where_the_server_is_to_blame(serve, features_bundle, collector):
    server = serve(features_bundle, "--otlp-endpoint", collector.endpoint, env=SOON)
    request = classify.ClassifyRequest(cache="nobody")
    with pytest.raises(grpc.RpcError):
        server.api.classifying.Classify(request, timeout=60)
    with pytest.raises(grpc.RpcError):
        server.api.channel.unary_unary("/tipserve.v1.CacheService/Unheard")(b"", timeout=60)
    [refused] = eventually(lambda: collector.spans(CLASSIFY))
    assert attributes(refused)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert refused.status.code == trace.Status.STATUS_CODE_UNSET
    [unheard] = eventually(lambda: collector.spans("tipserve.v1.CacheService/Unheard"))
    assert unheard.status.code == trace.Status.STATUS_CODE_ERROR


def test_what_is_left_is_sent_at_shutdown(serve, features_bundle, collector):
    slow = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    server = serve(features_bundle, "--otlp-endpoint", collector.endpoint, env=slow)
    for _ in range(7):
        server.api.ids()
    assert collector.received == []
    assert server.terminate() == 0
    assert len(collector.spans("tipserve.v1.CacheService/ListCaches")) == 7


def test_opentelemetrys_own_variables_work(serve, features_bundle, collector):
    environment = SOON | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "OTEL_SERVICE_NAME": "classifier",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    server = serve(features_bundle, env=environment)
    server.api.ids()
    eventually(lambda: collector.received)
    resource, _ = collector.received[0]
    assert resource["service.name"] == "classifier"
    assert resource["deployment.environment.name"] == "test"
    assert collector.metadata[0]["api-key"] == "secret"
    disabled = serve(features_bundle, env=environment | {"OTEL_SDK_DISABLED": "true"})
    before = len(collector.received)
    disabled.api.ids()
    disabled.terminate()
    assert len(collector.received) == before


@pytest.mark.parametrize("sampled", [False, True])
def test_the_callers_decision_to_sample_is_kept(serve, features_bundle, collector, sampled):
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    server = serve(features_bundle, "--otlp-endpoint", collector.endpoint, env=SOON | sampler)
    server.api.ids()  # no parent: off
    trace_id, _, traceparent = parent()
    if not sampled:
        traceparent = traceparent[:-1] + "0"
    stub = server.api.caches.ListCaches
    stub(cache.ListCachesRequest(), metadata=[("traceparent", traceparent)], timeout=60)
    assert server.terminate() == 0
    assert [span.trace_id for _, span in collector.received] == ([trace_id] if sampled else [])


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_context_is_no_context(serve, features_bundle, collector, traceparent):
    server = serve(features_bundle, "--otlp-endpoint", collector.endpoint, env=SOON)
    stub = server.api.caches.ListCaches
    stub(cache.ListCachesRequest(), metadata=[("traceparent", traceparent)], timeout=60)
    [span] = eventually(lambda: collector.spans("tipserve.v1.CacheService/ListCaches"))
    assert not span.parent_span_id
    assert any(span.trace_id)


def test_a_collector_that_is_gone_or_mute_holds_nothing_up(serve, features_bundle, chance):
    """One that refuses connections, and one that takes them and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        free = socket.create_server(("127.0.0.1", 0))
        gone = free.getsockname()[1]
        free.close()
        for port in (gone, mute.getsockname()[1]):
            small = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
            server = serve(
                features_bundle, "--otlp-endpoint", f"http://127.0.0.1:{port}", env=SOON | small
            )
            points = chance.normal(size=(4, 64))
            spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"))
            server.api.create(spec, wire.examples_of(points, [0, 1] * 2))
            # Far more spans than the queue holds.
            rows = [server.api.one("c", wire.embedding(points[0]), logits=True) for _ in range(300)]
            assert np.ptp([row.logits for row in rows], axis=0).max() == 0
            assert server.terminate() == 0


def test_an_endpoint_that_is_none_is_said_at_the_start(serve, features_bundle):
    with pytest.raises(pytest.fail.Exception, match="cannot export traces to not a url"):
        serve(features_bundle, "--otlp-endpoint", "not a url")
