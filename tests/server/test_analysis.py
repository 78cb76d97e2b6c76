"""AnalyzeVersion and SuggestExamples: what to do next with a version."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tipserve
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
    wrong_ids = [one.example_id for one in found.misclassified]
    assert len(wrong_ids) == 59 - np.trace(matrix) and f"e{wrong}" in wrong_ids
    assert analyze(features, "examined", list_limit=1) == analyze(
        features, "examined", list_limit=1
    )


def ask(server, name, rows):
    """Asks for neighbours, too: then every item is compared with its nearest example."""
    items = [wire.item(str(i), wire.embedding(row)) for i, row in enumerate(rows)]
    list(server.api.stream(name, items, neighbours=1))


def near(chance, rows, count):
    """Points each of which is nearest to one of the rows, to all of them in turn."""
    picked = rows[np.arange(count) % len(rows)]
    return unit(picked + 0.01 * chance.standard_normal(picked.shape) / WIDTH**0.5)


def test_examples_that_nothing_asked_comes_near_are_named(features, name, points, chance):
    labels = [i % 2 for i in range(24)]
    rows = points(labels)
    make(features, name, rows, labels)
    # All that is asked is like half of the examples of one of the two classes.
    asked = [0, 2, 4, 6, 8, 10]
    assert analyze(features, name).traffic.item_count == 0
    ask(features, name, near(chance, rows[asked], 239))
    found = analyze(features, name).traffic
    assert (found.item_count, found.enough_count) == (239, 240)
    assert not found.HasField("unmatched_count") and not found.unmatched, "too few to tell"

    ask(features, name, near(chance, rows[asked], 1))
    found = analyze(features, name).traffic
    others = [i for i in range(24) if i not in asked]
    assert found.unmatched_count == 18 and found.item_count == 240
    assert [one.example_id for one in found.unmatched] == [f"e{i}" for i in others]
    assert [one.class_index for one in found.unmatched] == [labels[i] for i in others]
    assert {one.display_name for one in found.unmatched} == {"class 0", "class 1"}
    assert found.since.seconds > 0
    listed = analyze(features, name, list_limit=3).traffic
    assert (listed.unmatched_count, len(listed.unmatched)) == (18, 3)

    ask(features, name, near(chance, rows[others], 18))
    found = analyze(features, name).traffic
    assert (found.unmatched_count, len(found.unmatched)) == (0, 0)


def test_what_examples_are_used_for_is_counted_anew_after_a_restart(
    serve, features_bundle, points, chance
):
    server = serve(features_bundle)
    labels = [i % 2 for i in range(12)]
    rows = points(labels)
    make(server, "used", rows, labels)
    ask(server, "used", near(chance, rows[:3], 120))
    before = analyze(server, "used")
    assert before.traffic.unmatched_count == 9
    document = server.cli("analyze", "used")["traffic"]
    assert document["item_count"] == 120 and document["unmatched"][0] == {
        "example_id": "e3",
        "class_index": 1,
        "display_name": "class 1",
    }
    with tipserve.Client(server.address) as client:
        found = client.analyze("used").traffic
    assert found.unmatched_count == len(found.unmatched) == 9 and found.enough_count == 120
    assert found.unmatched[0] == tipserve.UnmatchedExample("e3", 1, "class 1")
    server.terminate()
    server.start()
    assert not analyze(server, "used").HasField("traffic"), "nothing has loaded it yet"
    ask(server, "used", rows[:1])
    after = analyze(server, "used").traffic
    assert (after.item_count, after.HasField("unmatched_count")) == (1, False)
    assert after.since.seconds >= before.traffic.since.seconds


def test_one_example_a_class_says_so(features, points):
    make(features, "single", points(range(4)), list(range(4)))
    found = analyze(features, "single")
    assert (found.scored_count, len(found.curve)) == (0, 0)
    assert "second example" in found.advice and found.skipped
    assert not found.HasField("traffic"), "items are not compared with the examples"


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
