"""Caches as the Open Inference Protocol's models, for tests that speak it."""

from __future__ import annotations

import numpy as np
import tritonclient.grpc as triton
import wire
from pictures import photo, png
from wire import cache

CLASSES = ["ash", "oak: red", "elm", "yew", "føhre"]


def embedded(points, kind=np.float32, datatype="FP32") -> triton.InferInput:
    """Embeddings as the input of that name."""
    tensor = triton.InferInput("embedding", list(np.shape(points)), datatype)
    return tensor.set_data_from_numpy(np.asarray(points, kind))


def pictured(files, *, column=False) -> triton.InferInput:
    """Picture files as the input `image`, [N] or [N, 1]."""
    array = np.array(list(files), dtype=np.object_)
    array = array[:, None] if column else array
    return triton.InferInput("image", list(array.shape), "BYTES").set_data_from_numpy(array)


def points_cache(server, name: str, data, count=40, classes=None) -> None:
    """A version learnt from points, one for each of a cluster."""
    points, labels = data.draw(count)
    made = wire.classes(classes or CLASSES, data.weights)
    spec = cache.CacheSpec(
        cache_id=name, classes=made, method=cache.METHOD_TIP_ADAPTER, alpha=2.0, beta=5.0
    )
    server.api.create(spec, wire.examples_of(points, labels))


def pictures_cache(server, name: str, chance, classes=3, shots=3) -> None:
    """A version learnt from pictures."""
    examples = [
        wire.example(label, wire.encoded(png(photo(chance, label))), f"{label}-{shot}")
        for label in range(classes)
        for shot in range(shots)
    ]
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes(CLASSES[:classes]), method=cache.METHOD_CLASS_MEAN
    )
    server.api.create(spec, examples)


def same(result, answers) -> None:
    """A response says what Classify said of the same inputs, to the last bit."""
    count = len(answers)
    logits = np.array([answer.logits for answer in answers], np.float32)
    np.testing.assert_array_equal(result.as_numpy("logits"), logits)
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    assert labels.shape == scores.shape == (count,)
    assert [label.decode() for label in labels] == [a.top[0].display_name for a in answers]
    np.testing.assert_array_equal(scores, np.float32([a.top[0].probability for a in answers]))
    ranked = result.as_numpy("classification")
    for row, answer in zip(ranked, answers, strict=True):
        for text, best in zip(row, answer.top, strict=True):
            value, index, label = text.decode().split(":", 2)
            assert (int(index), label) == (best.index, best.display_name)
            assert np.float32(value) == np.float32(best.probability)
