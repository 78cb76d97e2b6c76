"""What the Open Inference Protocol says of models and the server: metadata, statistics, the repository."""

from __future__ import annotations

import pytest
import tritonclient.grpc as triton
from models import embedded, pictured, pictures_cache, points_cache
from tritonclient.utils import InferenceServerException


def test_metadata_and_configuration_agree(tiny, chance, name):
    pictures_cache(tiny, name, chance)
    with triton.InferenceServerClient(tiny.address) as client:
        metadata = client.get_model_metadata(name)
        config = client.get_model_config(name).config
    assert (metadata.name, list(metadata.versions)) == (name, ["1"])
    assert metadata.platform == config.platform == "pytorch_torchscript"
    shapes = {t.name: (t.datatype, list(t.shape)) for t in [*metadata.inputs, *metadata.outputs]}
    assert shapes == {
        "image": ("BYTES", [-1, 1]),
        "embedding": ("FP32", [-1, 48]),
        "label": ("BYTES", [-1]),
        "score": ("FP32", [-1]),
        "logits": ("FP32", [-1, 3]),
        "classification": ("BYTES", [-1, -1]),
        "accepted": ("BOOL", [-1]),
        "known_score": ("FP32", [-1]),
    }
    assert config.max_batch_size == 512
    assert {t.name: [-1, *t.dims] for t in [*config.input, *config.output]} == {
        tensor: shape for tensor, (_, shape) in shapes.items()
    }
    assert all(tensor.optional for tensor in config.input)
    assert config.dynamic_batching.priority_levels == 2
    assert config.parameters["method"].string_value == "METHOD_CLASS_MEAN"


def test_without_an_encoder_there_are_only_embeddings(triton_client, points, name):
    assert [tensor.name for tensor in triton_client.get_model_metadata(name).inputs] == [
        "embedding"
    ]
    config = triton_client.get_model_config(name).config
    assert [(tensor.name, tensor.optional) for tensor in config.input] == [("embedding", False)]
    with pytest.raises(InferenceServerException, match=r"inputs.image\[0\]"):
        triton_client.infer(name, [pictured([b"x"])])


def test_the_server_says_what_it_is(features, triton_client):
    metadata = triton_client.get_server_metadata()
    assert metadata.name == "tipserve"
    assert set(metadata.extensions) == {
        *("classification", "model_configuration", "model_repository"),
        *("schedule_policy", "statistics"),
    }
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()


def test_statistics_count_what_was_asked(triton_client, points, name):
    before = triton_client.get_inference_statistics(name).model_stats
    assert [(s.name, s.version, s.inference_count) for s in before] == [(name, "1", 0)]
    for _ in range(3):
        triton_client.infer(name, [embedded(points)])
    with pytest.raises(InferenceServerException):
        triton_client.infer(name, [embedded(points * 0)])
    (after,) = triton_client.get_inference_statistics(name, "1").model_stats
    assert after.inference_count == 3 * len(points)
    assert 0 < after.execution_count <= after.inference_count
    stats = after.inference_stats
    assert (stats.success.count, stats.fail.count) == (3, 1)
    for part in (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output):
        assert part.count == 3
        assert part.ns <= stats.success.ns
    assert after.last_inference > 0
    everything = triton_client.get_inference_statistics().model_stats
    assert (name, "1") in {(s.name, s.version) for s in everything}


def test_the_repository_lists_every_version(features, triton_client, clusters, name):
    points_cache(features, name, clusters)
    points_cache(features, name, clusters)
    index = triton_client.get_model_repository_index().models
    assert [(m.version, m.state) for m in index if m.name == name] == [
        ("1", "READY"),
        ("2", "READY"),
    ]
    triton_client.load_model(name)
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        triton_client.unload_model(name)
    with pytest.raises(InferenceServerException, match="no parameters are taken"):
        triton_client.load_model(name, config="{}")


def test_a_damaged_model_is_not_ready_and_listed_as_such(serve, features_bundle, clusters, name):
    server = serve(features_bundle)
    points_cache(server, name, clusters)
    points_cache(server, name, clusters)
    # What is in memory goes on serving: damage is found when it is read.
    assert server.terminate() == 0
    tensors = sorted(server.store.glob(f"**/{name}/**/*.safetensors"))[-1]
    assert "2" in tensors.parent.name
    data = bytearray(tensors.read_bytes())
    data[-3] ^= 1
    tensors.unlink()
    tensors.write_bytes(data)
    server.start()
    with triton.InferenceServerClient(server.address) as client:
        assert not client.is_model_ready(name)
        assert not client.is_model_ready(name, "2")
        assert client.is_model_ready(name, "1")
        states = {m.version: m for m in client.get_model_repository_index().models}
        assert states["1"].state == "READY"
        assert states["2"].state == "UNAVAILABLE"
        assert "2" in states["2"].reason
        with pytest.raises(InferenceServerException, match="DATA_LOSS"):
            client.infer(name, [embedded(clusters.draw(1)[0])])
        client.infer(name, [embedded(clusters.draw(1)[0])], model_version="1")


def test_a_model_of_another_bundle_is_not_ready(serve, bundles, features_bundle, clusters, name):
    server = serve(features_bundle)
    points_cache(server, name, clusters)
    assert server.terminate() == 0
    other = serve(bundles("features-32", "features", "--width", "32"), store=server.store)
    with triton.InferenceServerClient(other.address) as client:
        assert client.is_server_ready()
        assert not client.is_model_ready(name)
        with pytest.raises(InferenceServerException) as caught:
            client.infer(name, [embedded(clusters.draw(1)[0])])
        assert caught.value.status() == "StatusCode.FAILED_PRECONDITION"


def test_what_is_not_offered_says_so(triton_client):
    for call in (
        triton_client.get_system_shared_memory_status,
        triton_client.unregister_system_shared_memory,
        triton_client.get_cuda_shared_memory_status,
        triton_client.unregister_cuda_shared_memory,
        lambda: triton_client.register_system_shared_memory("a", "/a", 1),
        triton_client.get_trace_settings,
        triton_client.get_log_settings,
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        assert "is not offered" in caught.value.message()


def test_requests_and_elements_are_counted(serve, features_bundle, clusters, name):
    server = serve(features_bundle)
    points_cache(server, name, clusters)
    before = server.metrics()
    with triton.InferenceServerClient(server.address) as client:
        for _ in range(4):
            client.infer(name, [embedded(clusters.draw(6)[0])])
    after = server.metrics()
    for series, rise in (
        ('tipserve_requests_total{method="ModelInfer",code="OK"}', 4),
        ('tipserve_items_total{outcome="ok"}', 24),
    ):
        assert after[series] - before[series] == rise
