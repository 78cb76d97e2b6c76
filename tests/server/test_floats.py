"""Numbers that are none, infinite, enormous or denormal, in every field that has one: a refusal, or
an answer whose numbers are finite. A table over the descriptors.
"""

from __future__ import annotations

import math
import secrets

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from google.protobuf.descriptor import FieldDescriptor
from wire import analysis, bundle, cache, classify, finetune, inputs

FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
ODD = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "huge": 3e38,
    "-huge": -3e38,
    "denormal": 1e-45,
    "-0": -0.0,
}
# Whoever gets these has met a defect; anything else says what is wrong with the request.
DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}


def float_fields(message, prefix=(), within=()):
    """Paths of all float fields of a message."""
    for field in message.fields:
        path = (*prefix, field.name)
        if field.type in FLOATS:
            yield ".".join(path)
        nested = field.message_type
        if nested is None or nested.full_name in within or nested.full_name.startswith("google."):
            continue
        yield from float_fields(nested, path, (*within, nested.full_name))


CASES = [
    (method.name, path)
    for module in (analysis, bundle, cache, classify, finetune)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    for path in float_fields(method.input_type)
]


def points(count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, WIDTH))


def examples(count: int = 8):
    return cache.ExampleBatch(examples=wire.examples_of(points(count), [0, 1] * (count // 2)))


def items(kind, count: int = 8):
    return [kind(input=wire.embedding(point)) for point in points(count)]


def requests(method: str, base: str, made: str) -> list:
    """What a method is sent so that it is taken: a request, or those of a stream."""
    classes = [
        cache.ClassSpec(display_name=name, text_weight=inputs.Embedding(values=weight))
        for name, weight in zip("ab", points(2), strict=True)
    ]
    spec = cache.CacheSpec(cache_id=made, classes=classes, method=cache.METHOD_TIP_ADAPTER)
    added = cache.AddExamplesSpec(
        base=base,
        allow_empty_classes=True,
        new_classes=[
            cache.ClassSpec(display_name="c", text_weight=inputs.Embedding(values=points(3)[2]))
        ],
    )
    stream, label = classify.ClassifyStreamConfig(cache=base), [0, 1] * 4
    labelled = items(classify.LabelledItem)
    for item, index in zip(labelled, label, strict=True):
        item.class_index = index
    options = classify.ClassifyOptions(logits=True, probabilities=True, neighbours=2)
    stream.options.CopyFrom(options)
    one = wire.embedding(points(1)[0])
    return {
        "SuggestExamples": lambda: [
            analysis.SuggestExamplesRequest(config=analysis.SuggestExamplesConfig(cache=base)),
            analysis.SuggestExamplesRequest(
                items=analysis.UnlabelledBatch(items=items(analysis.UnlabelledItem))
            ),
        ],
        "AnalyzeVersion": lambda: [analysis.AnalyzeVersionRequest(cache=f"{base}@1")],
        "CreateCache": lambda: [
            cache.CreateCacheRequest(spec=spec),
            cache.CreateCacheRequest(examples=examples()),
        ],
        "AddExamples": lambda: [
            cache.AddExamplesRequest(spec=added),
            cache.AddExamplesRequest(examples=examples()),
        ],
        "ClassifyStream": lambda: [
            classify.ClassifyStreamRequest(config=stream),
            classify.ClassifyStreamRequest(items=classify.ItemBatch(items=items(classify.Item))),
        ],
        "Classify": lambda: [classify.ClassifyRequest(cache=base, input=one, options=options)],
        "Embed": lambda: [classify.EmbedRequest(inputs=[one], raw=True)],
        "Evaluate": lambda: [
            classify.EvaluateRequest(config=classify.EvaluateConfig(caches=[base])),
            classify.EvaluateRequest(items=classify.LabelledBatch(items=labelled)),
        ],
        "FineTune": lambda: [finetune.FineTuneRequest(cache=base, epochs=1)],
    }[method]()


def put(messages: list, path: str, value: float) -> None:
    """Sets a field of that message which has its first part."""
    first = path.partition(".")[0]
    held = [one for one in messages if one.DESCRIPTOR.fields_by_name[first].containing_oneof]
    message = next((one for one in held if one.HasField(first)), messages[0])
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
        if hasattr(message, "add"):
            message = message[0]
    if message.DESCRIPTOR.fields_by_name[last].is_repeated:
        getattr(message, last)[0] = value
    else:
        setattr(message, last, value)


def numbers(message):
    """All floats that a message holds."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.type in FLOATS:
            yield from values
        elif field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                continue
            for each in values:
                yield from numbers(each)


def answers(api, method: str, messages: list) -> list:
    stubs = (api.caches, api.classifying, api.tuning, api.analysing)
    stub = next(getattr(each, method) for each in stubs if hasattr(each, method))
    # What is sent by a stream has more than one message.
    got = stub(iter(messages) if len(messages) > 1 else messages[0], timeout=60)
    return [got] if hasattr(got, "DESCRIPTOR") else list(got)


@pytest.fixture(scope="module")
def base(features):
    """A version that the methods are asked about."""
    name = f"floats-{secrets.token_hex(4)}"
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab", points(2)), method=cache.METHOD_TIP_ADAPTER
    )
    made = wire.examples_of(points(40), [0, 1] * 20)
    features.api.create(spec, made)
    yield name
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=name))


def test_the_base_requests_are_taken(features, base):
    for method in {method for method, _ in CASES}:
        made = f"{base}-made"
        assert answers(features.api, method, requests(method, base, made)), method
        if method == "CreateCache":
            features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=made))


@pytest.mark.parametrize("method, path", CASES, ids=lambda value: str(value))
def test_odd_numbers_are_refused_or_answered_with_finite_ones(features, base, method, path):
    for kind, value in ODD.items():
        made = f"floats-{secrets.token_hex(4)}"
        sent = requests(method, base, made)
        put(sent, path, value)
        try:
            got = answers(features.api, method, sent)
        except grpc.RpcError as error:
            assert error.code() not in DEFECTS, (kind, error.details())
            continue
        for message in got:
            found = [one for one in numbers(message) if not math.isfinite(one)]
            assert not found, (kind, found, message)
        if method == "CreateCache":
            point = wire.embedding(points(1)[0])
            for one in numbers(features.api.one(made, point)):
                assert math.isfinite(one), kind
            features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=made))
