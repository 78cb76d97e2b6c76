"""Pictures without labels: what AUTO learns from them, and what becomes of them."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from wire import Problem, cache

COUNT = 200


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def points(chance):
    """Draws points around the centre of a class; there are five, and they overlap."""
    centres = unit(chance.standard_normal((5, WIDTH)))

    def draw(labels):
        labels = np.asarray(labels)
        away = chance.standard_normal((len(labels), WIDTH)) * 1.5 / WIDTH**0.5
        return unit(centres[labels] + away)

    return draw


def batches(rows, labels, pool, **fields):
    """Labelled rows, then the pool."""
    examples = [
        cache.Example(example_id=f"pool/{i}", input=wire.embedding(row), unlabelled=True, **fields)
        for i, row in enumerate(pool)
    ]
    return [*wire.examples_of(rows, labels), *examples]


def make(server, name, rows, labels, pool, **fields):
    names = [f"class {i}" for i in range(max(labels) + 1)]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(names), **fields)
    return server.api.create(spec, batches(rows, labels, pool)).version


def accuracy(server, version, points):
    truth = np.arange(200) % 5
    items = [wire.item(str(i), wire.embedding(row)) for i, row in enumerate(points(truth))]
    answers = server.api.stream(version, items, ordered=True)
    return np.mean([a.classification.top[0].index for a in answers] == truth)


def test_a_pool_is_learnt_from_where_it_helps(features, name, points):
    labels = (np.arange(10) % 5).tolist()
    rows, pool = points(labels), points(np.arange(COUNT) % 5)
    version = make(features, name, rows, labels, pool)
    # With two shots any gain counts.
    found = version.head.unlabelled
    assert (found.count, found.example_count) == (COUNT, 10)
    assert found.used == (found.cross_entropy_after < found.cross_entropy_before)
    assert "unlabelled pictures" in found.reason
    assert version.key_count == 10, "they are no keys"
    assert not any("pool" in one.example_id for one in features.api.examples(name))
    plain = make(features, f"{name}-plain", rows, labels, [])
    assert not plain.head.HasField("unlabelled")


def test_one_shot_says_that_nothing_could_be_checked(features, name, points):
    labels = list(range(5))
    version = make(features, name, points(labels), labels, points(np.arange(COUNT) % 5))
    found = version.head.unlabelled
    assert found.used and found.example_count == 0
    assert "could not be checked" in found.reason


def test_what_is_made_of_a_version_keeps_its_pool(features, name, points):
    labels = (np.arange(20) % 5).tolist()
    make(features, name, points(labels), labels, points(np.arange(COUNT) % 5))
    more = wire.examples_of(points(range(5)), list(range(5)), prefix="more/")
    added = features.api.add(cache.AddExamplesSpec(base=name), more).version
    assert added.head.unlabelled.count == COUNT
    pool = batches([], [], points(range(5)))
    twice = features.api.add(cache.AddExamplesSpec(base=name), pool).version
    assert twice.head.unlabelled.count == COUNT + 5
    dropped = features.api.add(cache.AddExamplesSpec(base=name, drop_unlabelled=True), []).version
    assert not dropped.head.HasField("unlabelled")
    named = features.api.add(
        cache.AddExamplesSpec(base=f"{name}@1", method=cache.METHOD_GDA), []
    ).version
    assert not named.head.unlabelled.used and "only AUTO" in named.head.unlabelled.reason


def test_an_example_is_one_thing_only(features, name, points):
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes(["a", "b"]),
        on_rejected=cache.CacheSpec.ON_REJECTED_FAIL,
    )
    rows = points([0, 1, 0])
    for fields in ({"validation": True}, {"unknown": True}):
        with pytest.raises(grpc.RpcError) as raised:
            features.api.create(spec, batches(rows[:2], [0, 1], rows[2:], **fields))
        problem = Problem.of_call(raised.value)
        assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "without a label" in problem.message
