"""Messages and caches over the limits that the server was started with."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from refusals import INVALID, refused, says
from wire import Problem, cache, classify


@pytest.mark.parametrize("rpc", ["Classify", "ClassifyStream", "CreateCache", "Embed", "Evaluate"])
def test_a_message_over_the_limit(serve, features_bundle, rpc, chance):
    limit = 65_536
    server = serve(features_bundle, "--max-message-bytes", str(limit))
    api = server.api
    points = chance.normal(size=(4, WIDTH))
    api.create(
        cache.CacheSpec(cache_id="here", classes=wire.classes("ab")),
        wire.examples_of(points, [0, 1, 0, 1]),
    )
    large = wire.embedding(np.ones(40_000))
    first = wire.item("fine", wire.embedding(points[0]))
    calls = {
        "Classify": lambda: api.one("here", large),
        "ClassifyStream": lambda: list(api.stream("here", [first, wire.item("x", large)], batch=1)),
        "CreateCache": lambda: api.create(
            cache.CacheSpec(cache_id="large", classes=wire.classes("a")), [wire.example(0, large)]
        ),
        "Embed": lambda: api.classifying.Embed(classify.EmbedRequest(texts=["x" * 100_000])),
        "Evaluate": lambda: api.classifying.Evaluate(
            iter(
                [
                    classify.EvaluateRequest(config=classify.EvaluateConfig(caches=["here"])),
                    classify.EvaluateRequest(
                        items=classify.LabelledBatch(items=[classify.LabelledItem(input=large)])
                    ),
                ]
            )
        ),
    }
    with pytest.raises(grpc.RpcError) as caught:
        calls[rpc]()
    problem = Problem.of_call(caught.value)
    print(problem)
    assert problem.code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert str(limit) in problem.message
    assert api.one("here", wire.embedding(points[0])).top
    assert api.ids() == ["caches/here"]


def test_limits_of_a_cache(serve, features_bundle, chance):
    server = serve(
        features_bundle,
        "--max-classes",
        "3",
        "--max-examples",
        "5",
        "--max-create-bytes",
        str(5 * WIDTH * 4),
    )
    points = chance.normal(size=(6, WIDTH))

    def create(classes, examples):
        return refused(
            server.api.caches.CreateCache,
            wire.requests_of(
                cache.CacheSpec(cache_id="c", classes=wire.classes(classes)), examples
            ),
        )

    problem = create("abcd", [])
    says(problem, INVALID, "LIMIT_EXCEEDED", 3, 4, "max_classes")
    problem = create("a", wire.examples_of(points, [0] * 6))
    says(problem, INVALID, "LIMIT_EXCEEDED", 5, 6)
    assert server.api.ids() == []
    server.api.create(
        cache.CacheSpec(cache_id="c", classes=wire.classes("abc")),
        wire.examples_of(points[:5], [0, 1, 2, 0, 1]),
    )
