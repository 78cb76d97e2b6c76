"""AnalyzeVersion and SuggestExamples: what to do next with a version."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from wire import Problem, analysis, cache

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Strategy = analysis.SuggestExamplesConfig
Reason = analysis.Suggestion


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def points(chance):
    """Draws points around the centre of a class."""
    centres = unit(chance.standard_normal((6, WIDTH)))

    def draw(labels, noise=0.9):
        labels = np.asarray(labels)
        away = chance.standard_normal((len(labels), WIDTH)) * noise / WIDTH**0.5
        return unit(centres[labels] + away)

    return draw


def make(server, name, rows, labels, ids=None):
    ids = ids or [f"e{i}" for i in range(len(labels))]
    examples = [
        wire.example(label, wire.embedding(row), id)
        for row, label, id in zip(rows, labels, ids, strict=True)
    ]
    names = [f"class {i}" for i in range(max(labels) + 1)]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(names))
    return server.api.create(spec, examples).version


def analyze(server, name, **fields):
    request = analysis.AnalyzeVersionRequest(cache=name, **fields)
    return server.api.analysing.AnalyzeVersion(request, timeout=wire.LIMIT)


def suggest(server, rows, ids=None, **fields):
    ids = ids or [f"p{i}" for i in range(len(rows))]

    def requests():
        yield analysis.SuggestExamplesRequest(config=analysis.SuggestExamplesConfig(**fields))
        items = [
            analysis.UnlabelledItem(id=id, input=wire.embedding(row))
            for id, row in zip(ids, rows, strict=True)
        ]
        for part in wire.batched(items, 30):
            batch = analysis.UnlabelledBatch(items=part)
            yield analysis.SuggestExamplesRequest(items=batch)

    return server.api.analysing.SuggestExamples(requests(), timeout=wire.LIMIT)


def test_a_version_is_examined_by_its_own_examples(features, points):
    labels = [i % 5 for i in range(60)]
    rows = points(labels)
    wrong = 23
    told = list(labels)
    told[wrong] = (labels[wrong] + 1) % 5
    rows[41] = rows[6]  # the same class, as 41 % 5 == 6 % 5
    made = make(features, "examined", rows, told)
    found = analyze(features, "examined")

    assert found.version == made.name == "caches/examined/versions/1"
    assert found.method == cache.METHOD_STACK
    assert found.example_count == 60
    assert found.scored_count == 59, "copies are scored once"
    assert [c.example_count for c in found.classes] == np.bincount(told).tolist()
    assert [c.display_name for c in found.classes] == [f"class {i}" for i in range(5)]
    matrix = np.reshape(found.confusion, (5, 5))
    assert matrix.sum() == 59
    assert found.accuracy == pytest.approx(np.trace(matrix) / 59)
    for one in found.classes:
        assert one.accuracy == pytest.approx(matrix[one.index, one.index] / one.scored_count)
    first = found.suspects[0]
    assert (first.example_id, first.class_index) == (f"e{wrong}", told[wrong])
    assert first.suggested.index == labels[wrong]
    assert first.probability < first.suggested.probability / 9
    (pair,) = (one for one in found.duplicates if one.exact)
    assert {pair.example_id, pair.other_example_id} == {"e6", "e41"}
    shots = [point.shots for point in found.curve]
    assert shots == sorted(set(shots)) and shots[0] == 1
    assert found.curve[-1].accuracy == found.accuracy
    assert found.forecast.shots > shots[-1]
    assert sum(one.count for one in found.reliability) == 59
    assert found.advice and not found.skipped
    assert analyze(features, "examined", list_limit=1) == analyze(
        features, "examined", list_limit=1
    )


def test_one_example_a_class_says_so(features, points):
    make(features, "single", points(range(4)), list(range(4)))
    found = analyze(features, "single")
    assert (found.scored_count, len(found.curve)) == (0, 0)
    assert "second example" in found.advice and found.skipped


@pytest.mark.parametrize(
    "fields",
    [
        {"list_limit": -1},
        {"list_limit": 1001},
        {"draws": 51},
        {"duplicate_similarity": 0.0},
        {"duplicate_similarity": 1.1},
        {"duplicate_similarity": float("nan")},
    ],
)
def test_an_analysis_out_of_range_is_refused(embedding_cache, fields):
    with pytest.raises(grpc.RpcError) as raised:
        analyze(embedding_cache, "here", **fields)
    problem = Problem.of_call(raised.value)
    assert problem.code is INVALID and problem.fields == list(fields)


def test_typical_pictures_of_each_group_come_first(features, points):
    labels = np.repeat([0, 1, 2], [40, 25, 15])
    found = suggest(features, points(labels, 0.3), count=3, duplicate_similarity=1.0)
    picked = [labels[one.sequence] for one in found.suggestions]
    assert picked == [0, 1, 2], "the largest group first"
    assert [one.cluster_size for one in found.suggestions] == [40, 25, 15]
    assert {one.reason for one in found.suggestions} == {Reason.REASON_TYPICAL}
    assert found.strategy == Strategy.STRATEGY_TYPICAL and "nothing is labelled" in found.reason
    assert (found.received, found.distinct_count, found.version) == (80, 80, "")


def test_what_is_labelled_or_repeated_is_not_suggested_again(features, points):
    known = points([0, 1])
    make(features, "known", known, [0, 1], ["cat 1", "dog 1"])
    rows = points([2] * 10 + [3] * 10)
    near = unit(rows[4] + 1e-4)
    pool = np.concatenate([rows, near[None], known[1:]])
    found = suggest(features, pool, cache="known", count=50)
    assert found.version == "caches/known/versions/1"
    assert found.strategy == Strategy.STRATEGY_TYPICAL, "one example a class"
    assert (found.received, found.distinct_count) == (22, 20)
    (again,) = found.already_labelled
    assert (again.id, again.example_id, again.display_name) == ("p21", "dog 1", "class 1")
    (one,) = (one for one in found.suggestions if one.id == "p4")
    assert (list(one.duplicate_ids), one.duplicate_count) == (["p20"], 1)
    assert len(found.suggestions) == 20
    assert all(len(one.top) == 2 for one in found.suggestions)


def test_undecided_pictures_come_first_once_classes_are_known(features, points):
    labels = [0, 1, 2] * 4
    make(features, "taught", points(labels), labels)
    rows = points([0] * 20 + [1] * 20, 0.4)
    between = unit(points([0], 0.1) + points([1], 0.1))
    pool = np.concatenate([rows, between])
    found = suggest(features, pool, cache="taught", count=5)
    assert found.strategy == Strategy.STRATEGY_MARGIN
    first = found.suggestions[0]
    assert (first.id, first.reason) == ("p40", Reason.REASON_UNCERTAIN)
    assert {one.index for one in first.top} == {0, 1}
    margin = first.top[0].probability - first.top[1].probability
    assert first.score == pytest.approx(1 - margin, abs=1e-5)
    scores = [one.score for one in found.suggestions]
    asked = suggest(features, pool, cache="taught", count=5, strategy=Strategy.STRATEGY_TYPICAL)
    assert asked.strategy == Strategy.STRATEGY_TYPICAL
    again = suggest(features, pool, cache="taught", count=5).suggestions
    assert [one.score for one in again] == pytest.approx(scores, abs=1e-6)


def test_pictures_that_cannot_be_used_are_named(features, points):
    def requests():
        yield analysis.SuggestExamplesRequest(config=analysis.SuggestExamplesConfig())
        items = [
            analysis.UnlabelledItem(input=wire.embedding(points([0])[0])),
            analysis.UnlabelledItem(id="narrow", input=wire.embedding([1.0])),
            analysis.UnlabelledItem(id="nothing"),
        ]
        yield analysis.SuggestExamplesRequest(items=analysis.UnlabelledBatch(items=items))

    found = features.api.analysing.SuggestExamples(requests(), timeout=wire.LIMIT)
    assert [one.id for one in found.suggestions] == ["0"]
    assert [one.example_id for one in found.rejected] == ["narrow", "nothing"]
    assert (found.rejected_count, found.received) == (2, 3)


def test_a_pool_out_of_range_is_refused(features, points):
    def code(*messages):
        with pytest.raises(grpc.RpcError) as raised:
            features.api.analysing.SuggestExamples(iter(messages), timeout=wire.LIMIT)
        return Problem.of_call(raised.value)

    def config(**fields):
        config = analysis.SuggestExamplesConfig(**fields)
        return analysis.SuggestExamplesRequest(config=config)

    assert code().code is INVALID
    assert code(config(), config()).code is INVALID
    assert code(config(count=-1)).fields == ["config.count"]
    assert code(config(count=10_001)).code is INVALID
    assert code(config(strategy=Strategy.STRATEGY_MARGIN)).fields == ["config.strategy"]
    assert code(config(duplicate_similarity=2.0)).fields == ["config.duplicate_similarity"]
    assert code(config(cache="nowhere")).code is grpc.StatusCode.NOT_FOUND
    few = [analysis.UnlabelledItem(input=wire.embedding(row)) for row in points([0] * 64)]
    batch = analysis.SuggestExamplesRequest(items=analysis.UnlabelledBatch(items=few))
    over = code(config(), *[batch] * 257)
    assert over.code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED, INVALID)
    assert over.metadata["limit"] == "max_pool"
