"""What a version does not know: rejection, prediction sets, their evaluation."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from wire import Problem, cache, classify

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def points(chance):
    """Draws points around the centre of a class; there are ten."""
    centres = unit(chance.standard_normal((10, WIDTH)))

    def draw(labels, noise=1.2):
        labels = np.asarray(labels)
        away = chance.standard_normal((len(labels), WIDTH)) * noise / WIDTH**0.5
        return unit(centres[labels] + away)

    return draw


def make(server, name, rows, labels, **fields):
    names = [f"class {i}" for i in range(max(labels) + 1)]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(names), **fields)
    return server.api.create(spec, wire.examples_of(rows, labels)).version


def answers(server, name, rows, **options):
    items = [wire.item(str(i), wire.embedding(row)) for i, row in enumerate(rows)]
    results = server.api.stream(name, items, ordered=True, **options)
    return [one.classification for one in results]


@pytest.mark.parametrize("method", [cache.METHOD_AUTO, cache.METHOD_PROKER, cache.METHOD_GDA])
def test_the_threshold_accepts_what_it_says_and_rejects_others(features, name, points, method):
    known = np.arange(240) % 6
    make(features, name, points(known), known.tolist(), method=method)
    accept = {0.95: 0.0, 0.8: 0.0}
    test = np.arange(600) % 6
    for share in accept:
        got = answers(features, name, points(test), reject={"accept": share})
        accept[share] = np.mean([one.accepted for one in got])
        assert all(one.accepted == (one.score >= one.threshold) for one in got)
        # Five standard errors of two such shares.
        assert abs(accept[share] - share) < 5 * (share * (1 - share) * (1 / 240 + 1 / 600)) ** 0.5
    assert accept[0.8] < accept[0.95]
    others = answers(features, name, points(6 + np.arange(400) % 4), reject={})
    rejected = np.mean([not one.accepted for one in others])
    assert rejected > 0.3, "far more than of the known"
    assert all(one.top for one in others), "the best classes come all the same"


def test_the_score_is_that_of_the_logits(features, name, points):
    known = np.arange(90) % 3
    version = make(features, name, points(known), known.tolist())
    rows = points(np.arange(20) % 3)
    for one in answers(features, name, rows, reject={"threshold": 1.5}, logits=True):
        logits = np.array(one.logits, np.float64) / version.head.temperature
        most = logits.max()
        assert one.score == pytest.approx(most + np.log(np.exp(logits - most).sum()), abs=1e-4)
        assert one.threshold == 1.5 and one.accepted == (one.score >= 1.5)
    (plain,) = answers(features, name, rows[:1])
    assert not plain.HasField("score") and not plain.HasField("accepted")
    assert not plain.prediction_set


def test_a_prediction_set_covers_what_it_says(features, name, points):
    known = np.arange(300) % 6
    make(features, name, points(known, 2.2), known.tolist())
    test = np.arange(600) % 6
    sizes = {}
    for coverage in (0.7, 0.9):
        got = answers(features, name, points(test, 2.2), coverage=coverage, probabilities=True)
        held = [
            label in [one.index for one in answer.prediction_set]
            for answer, label in zip(got, test, strict=True)
        ]
        error = 5 * (coverage * (1 - coverage) * (1 / 300 + 1 / 600)) ** 0.5
        # Where the best class alone is right more often, a set holds more.
        top1 = np.mean([a.top[0].index == label for a, label in zip(got, test, strict=True)])
        assert coverage - error < np.mean(held) < max(coverage, top1) + error
        sizes[coverage] = np.mean([len(answer.prediction_set) for answer in got])
        for answer in got:
            chosen = [one.index for one in answer.prediction_set]
            order = np.argsort(-np.array(answer.probabilities), kind="stable")
            assert chosen == order[: len(chosen)].tolist(), "the most probable, in their order"
    assert 1 <= sizes[0.7] <= sizes[0.9]


def test_one_example_a_class_has_no_threshold(features, name, points):
    make(features, name, points(range(4)), list(range(4)))
    for options in ({"reject": {}}, {"coverage": 0.9}):
        with pytest.raises(grpc.RpcError) as raised:
            features.api.one(name, wire.embedding(points([0])[0]), **options)
        problem = Problem.of_call(raised.value)
        assert problem.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "one example a class" in problem.message
    given = features.api.one(name, wire.embedding(points([0])[0]), reject={"threshold": -1e9})
    assert given.accepted


@pytest.mark.parametrize(
    "options, field",
    [
        ({"reject": {"accept": 0.0}}, "options.reject.accept"),
        ({"reject": {"accept": 1.0}}, "options.reject.accept"),
        ({"reject": {"threshold": float("nan")}}, "options.reject.threshold"),
        ({"reject": {"accept": 0.5, "threshold": 1.0}}, "options.reject"),
        ({"coverage": 1.5}, "options.coverage"),
    ],
)
def test_options_out_of_range_are_refused(embedding_cache, options, field):
    with pytest.raises(grpc.RpcError) as raised:
        embedding_cache.api.one("here", wire.embedding(np.ones(WIDTH)), **options)
    problem = Problem.of_call(raised.value)
    assert problem.code is INVALID and problem.fields == [field]


def evaluated(server, name, rows, labels, others=(), **reject):
    """An evaluation of labelled rows and of rows of no class."""

    def requests():
        config = classify.EvaluateConfig(caches=[name])
        if reject:
            config.reject.CopyFrom(classify.RejectOptions(**reject))
        yield classify.EvaluateRequest(config=config)
        items = [
            classify.LabelledItem(
                id=str(i),
                input=wire.embedding(row),
                class_index=int(labels[i]) if i < len(labels) else 77,
                unknown=i >= len(labels),
            )
            for i, row in enumerate([*rows, *others])
        ]
        for part in wire.batched(items, 50):
            yield classify.EvaluateRequest(items=classify.LabelledBatch(items=part))

    return server.api.classifying.Evaluate(requests(), timeout=wire.LIMIT)


def test_unknown_items_are_evaluated(features, name, points):
    known = np.arange(240) % 6
    make(features, name, points(known), known.tolist())
    test, others = np.arange(120) % 6, 6 + np.arange(80) % 4
    rows = np.concatenate([points(test), points(others)])
    answer = evaluated(features, name, rows[:120], test, rows[120:])
    (found,) = answer.evaluations
    assert (found.count, answer.rejected_count) == (120, 0)
    got = answers(features, name, rows, reject={})
    scores = np.array([one.score for one in got])
    of_known, of_others = scores[:120], scores[120:]
    higher = (of_known[:, None] > of_others).mean() + 0.5 * (of_known[:, None] == of_others).mean()
    unknown = found.unknown
    assert unknown.count == 80
    assert unknown.auroc == pytest.approx(higher, abs=1e-3)
    reached = np.sort(of_known)[120 - 114]
    assert unknown.false_positive_rate == pytest.approx((of_others >= reached).mean(), abs=0.02)
    assert unknown.threshold == pytest.approx(got[0].threshold)
    accepted = np.array([one.accepted for one in got])
    assert unknown.accepted == pytest.approx(accepted[:120].mean(), abs=0.01)
    assert unknown.rejected == pytest.approx(1 - accepted[120:].mean(), abs=0.02)
    assert unknown.accepted_top1 >= found.top1 - 1e-9


@pytest.mark.parametrize("by", ["accept", "threshold", "precision"])
def test_evaluation_rejects_as_classification_does(features, name, points, by):
    known = np.arange(240) % 6
    make(features, name, points(known), known.tolist())
    test, others = np.arange(120) % 6, points(6 + np.arange(80) % 4)
    rows = points(test)
    scores = [one.score for one in answers(features, name, rows, reject={})]
    reject = {by: float(np.median(scores)) if by == "threshold" else 0.8}
    of_known = answers(features, name, rows, reject=reject)
    accepted = np.array([one.accepted for one in of_known])
    right = np.array([one.top[0].index for one in of_known]) == test
    assert accepted.any() and (by == "precision" or not accepted.all())
    of_others = np.array([one.accepted for one in answers(features, name, others, reject=reject)])
    for added, rejected in ((others, 1 - of_others.mean()), ((), 0)):
        (found,) = evaluated(features, name, rows, test, added, **reject).evaluations
        assert found.unknown.count == len(added)
        assert (found.unknown.auroc > 0.5) == bool(len(added))
        assert found.unknown.accepted == pytest.approx(accepted.mean(), abs=0.01)
        assert found.unknown.rejected == pytest.approx(rejected, abs=0.02)
        assert found.unknown.accepted_top1 == pytest.approx(right[accepted].mean(), abs=0.02)
        # With a precision each class has its own.
        assert found.unknown.HasField("threshold") == (by != "precision")
    (plain,) = evaluated(features, name, rows, test).evaluations
    assert not plain.HasField("unknown")


def test_what_evaluation_rejects_by_is_checked(features, name, points):
    known = np.arange(30) % 3
    make(features, name, points(known), known.tolist())
    with pytest.raises(grpc.RpcError) as raised:
        evaluated(features, name, points([0]), [0], accept=1.0)
    problem = Problem.of_call(raised.value)
    assert problem.code is INVALID and problem.fields == ["config.reject.accept"]
    make(features, f"{name}-once", points(range(3)), list(range(3)))
    with pytest.raises(grpc.RpcError) as raised:
        evaluated(features, f"{name}-once", points([0]), [0], accept=0.9)
    problem = Problem.of_call(raised.value)
    assert problem.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "one example a class" in problem.message


def test_the_command_line_evaluates_a_threshold(features, name, points, tmp_path):
    known = np.arange(240) % 6
    make(features, name, points(known), known.tolist())
    test = np.arange(120) % 6
    rows = points(test).astype(np.float32)
    names = np.array([f"class {i}" for i in range(6)])
    np.savez(tmp_path / "test.npz", features=rows, labels=test, classes=names)
    for flags, reject in (
        (["--reject"], {"accept": 0.95}),
        (["--reject=0.8"], {"accept": 0.8}),
        (["--reject-below", "2"], {"threshold": 2.0}),
        (["--precision", "0.8"], {"precision": 0.8}),
    ):
        got = features.cli("evaluate", name, "--from", tmp_path / "test.npz", *flags)
        (found,) = got["evaluations"]
        (expected,) = evaluated(features, name, rows, test, **reject).evaluations
        assert found["unknown"]["accepted"] == pytest.approx(expected.unknown.accepted, abs=0.01)
        assert found["unknown"]["count"] == 0
    assert (
        "unknown"
        not in features.cli("evaluate", name, "--from", tmp_path / "test.npz")["evaluations"][0]
    )


def test_answers_are_counted_by_whether_they_are_known(serve, features_bundle, points):
    server = serve(features_bundle)
    known = np.arange(60) % 3
    make(server, "c", points(known), known.tolist())
    got = answers(server, "c", points(np.arange(40) % 10), reject={})
    answers(server, "c", points([0, 1]))
    metrics = server.metrics()
    name = 'tipserve_recognised_items_total{outcome="%s"}'
    accepted = sum(one.accepted for one in got)
    assert metrics[name % "accepted"] == accepted
    assert metrics[name % "rejected"] == len(got) - accepted


def of_no_class(rows, prefix="none "):
    return [
        cache.Example(example_id=f"{prefix}{i}", input=wire.embedding(row), unknown=True)
        for i, row in enumerate(rows)
    ]


def make_with(server, name, rows, labels, others, **fields):
    names = [f"class {i}" for i in range(max(labels) + 1)]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(names), **fields)
    return server.api.create(spec, wire.examples_of(rows, labels) + of_no_class(others)).version


def auroc(known, others):
    return np.mean(np.asarray(known)[:, None] > np.asarray(others)[None, :])


def test_examples_of_no_class_sharpen_the_score_and_move_no_logit(features, name, points):
    labels = (np.arange(120) % 6).tolist()
    rows = points(labels, 1.6)
    plain = make(features, f"{name}-plain", rows, labels)
    version = make_with(features, name, rows, labels, points(6 + np.arange(60) % 4, 1.6))
    assert (version.unknown_count, plain.unknown_count) == (60, 0)
    assert version.key_count == plain.key_count == 120
    known, others = points(np.arange(300) % 6, 1.6), points(6 + np.arange(300) % 4, 1.6)
    scores = {}
    for which in (f"{name}-plain", name):
        got = [answers(features, which, part, reject={}, logits=True) for part in (known, others)]
        scores[which] = [[one.score for one in part] for part in got]
        if which == name:
            share = np.mean([one.accepted for one in got[0]])
            # Six standard errors of two such shares: the threshold is of these scores.
            assert abs(share - 0.95) < 6 * (0.95 * 0.05 * (1 / 120 + 1 / 300)) ** 0.5
            logits = np.array([one.logits for one in got[0]])
        else:
            assert not got[0][0].HasField("embedding"), "what it is scored by is not returned"
            expected = np.array([one.logits for one in got[0]])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    with_others, without = (1 - auroc(*scores[it]) for it in (name, f"{name}-plain"))
    # A tenth, usually.
    assert with_others < 0.7 * without


def test_examples_of_no_class_are_kept_listed_added_and_removed(features, name, points):
    labels = (np.arange(30) % 3).tolist()
    make_with(features, name, points(labels), labels, points([7, 8, 9]))
    listed = features.api.examples(name)
    assert [one.unknown for one in listed] == [False] * 30 + [True] * 3
    assert listed[30].example_id == "none 0" and listed[30].display_name == ""
    only = features.api.caches.ListExamples(
        cache.ListExamplesRequest(parent=name, filter="unknown = true")
    ).examples
    assert [one.example_id for one in only] == ["none 0", "none 1", "none 2"]
    of_class = features.api.caches.ListExamples(
        cache.ListExamplesRequest(parent=name, filter="class_index = 0")
    ).examples
    assert len(of_class) == 10, "those of no class are in none"
    spec = cache.AddExamplesSpec(base=name, remove_example_ids=["none 1"])
    added = features.api.add(spec, of_no_class(points([7, 8]), "more ")).version
    assert added.unknown_count == 4 and added.source.inherited == 32
    listed = features.api.examples(f"{name}@2")
    found = [one.example_id for one in listed if one.unknown]
    assert found == ["none 0", "none 2", "more 0", "more 1"]
    both = cache.Example(
        example_id="x", input=wire.embedding(points([1])[0]), unknown=True, validation=True
    )
    made = features.api.add(cache.AddExamplesSpec(base=name), [both])
    assert made.rejected["x"].reason == "FIELD_INVALID"


def test_examples_of_no_class_go_with_exports_and_fine_tuning(features, name, points):
    labels = (np.arange(36) % 3).tolist()
    version = make_with(features, name, points(labels), labels, points(6 + np.arange(20) % 4))
    _, data = features.api.export(name)
    copied = features.api.import_(f"{name}-copy", data)
    assert copied.unknown_count == version.unknown_count == 20
    rows = points(np.arange(30) % 10)
    scores = [
        [one.score for one in answers(features, which, rows, reject={})]
        for which in (name, f"{name}-copy")
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6, atol=1e-6)
    request = wire.finetune.FineTuneRequest(cache=name, epochs=2)
    tuned = list(features.api.tuning.FineTune(request))[-1].run.version
    assert tuned.version == 2 and tuned.unknown_count == 20
    assert sum(one.unknown for one in features.api.examples(f"{name}@2")) == 20
    got = answers(features, f"{name}@2", rows, reject={"threshold": 0.0})
    assert all(np.isfinite(one.score) for one in got)


def test_versions_are_counted_by_what_they_reject(features, name, points):
    labels = (np.arange(60) % 3).tolist()
    make(features, name, points(labels), labels)
    got = answers(features, name, points(np.arange(40) % 10), reject={})
    accepted = sum(one.accepted for one in got)
    metrics = features.metrics()
    of = f'tipserve_version_recognised_items_total{{version="{name}@1",outcome="%s"}}'
    found = {key: value for key, value in metrics.items() if f'version="{name}@1"' in key}
    if found:  # else it is one of the many that are counted together
        assert metrics[of % "accepted"] == accepted
        assert metrics[of % "rejected"] == 40 - accepted


def test_a_deleted_versions_series_end(features, name, points):
    labels = (np.arange(30) % 3).tolist()
    make(features, name, points(labels), labels)
    make(features, f"{name}-other", points(labels), labels)
    for asked in (name, f"{name}-other"):
        answers(features, asked, points(np.arange(300) % 3), reject={})
    series = [f'{{version="{name}@1",', f'{{version="{name}-other@1",']

    def found(of):
        return [key for key in features.metrics() if of in key]

    assert [len(found(of)) for of in series] == [4, 4], "two outcomes and two indices"
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=f"caches/{name}"))
    assert [len(found(of)) for of in series] == [0, 4]
