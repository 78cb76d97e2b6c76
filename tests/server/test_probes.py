"""Probes, health and reflection."""

from __future__ import annotations

import signal

import grpc
import pytest


@pytest.fixture
def fresh(serve, features_bundle):
    return serve(features_bundle)


def test_probes(fresh):
    assert fresh.http("/healthz") == (200, "ok\n")
    assert fresh.http("/readyz") == (200, "ready\n")
    assert fresh.http("/nothing")[0] == 404


SERVICES = [
    "",
    "tipserve.v1.CacheService",
    "tipserve.v1.ClassifyService",
    "tipserve.v1.AnalysisService",
    "tipserve.v1.FineTuneService",
    "tipserve.v1.BundleService",
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


def varint_field(status: bytes) -> int:
    return status[1] if status else 0


@pytest.mark.parametrize("service", SERVICES)
def test_health_is_watched_through_a_shutdown(serve, features_bundle, service):
    server = serve(features_bundle, "--shutdown-seconds", "5")
    watch = server.api.channel.unary_stream("/grpc.health.v1.Health/Watch")
    name = service.encode()
    updates = watch(bytes([10, len(name)]) + name if name else b"", timeout=120)
    assert varint_field(next(updates)) == 1  # SERVING
    server.process.send_signal(signal.SIGTERM)
    assert varint_field(next(updates)) == 2  # NOT_SERVING
    assert server.process.wait(120) == 0


def test_health_of_a_service_that_is_not_there_is_watched_too(features):
    watch = features.api.channel.unary_stream("/grpc.health.v1.Health/Watch")
    updates = watch(b"\x0a\x07nothing", timeout=60)
    try:
        assert varint_field(next(updates)) == 3  # SERVICE_UNKNOWN
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
    updates.cancel()


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
