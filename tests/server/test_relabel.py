"""Examples that get another class, and classes that are named instead of counted."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from over_http import call
from pictures import photo, png
from wire import Problem, cache, classify

NAMES = ["ant", "café", "cat"]
DECOMPOSED = "cafe\u0301"


def refused(run) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        run()
    return Problem.of_call(caught.value)


def relabelled(**examples) -> list[cache.Relabelled]:
    """`id=class`, by index or name."""
    return [
        cache.Relabelled(example_id=id_, **{field: label})
        for id_, label in examples.items()
        for field in ["class_name" if isinstance(label, str) else "class_index"]
    ]


@pytest.fixture
def base(features, clusters, name):
    """Points of three classes, the first two of which are the wrong way round."""
    points, labels = clusters.draw(labels=np.arange(18) % 3)
    swapped = np.array([1, 0, *labels[2:]])
    examples = wire.examples_of(points, swapped, prefix="e")
    held = wire.examples_of(*clusters.draw(labels=np.arange(6) % 3), validation=True, prefix="h")
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes(NAMES), method=cache.METHOD_GDA, without_text=True
    )
    features.api.create(spec, examples + held)
    right = spec.__deepcopy__()
    right.cache_id = f"{name}-right"
    features.api.create(right, wire.examples_of(points, labels, prefix="e") + held)
    return name


def test_a_relabelled_version_is_the_one_that_was_right_from_the_beginning(
    features, clusters, base
):
    fixed = features.api.add(
        cache.AddExamplesSpec(base=base, relabel=relabelled(e0=0, e1=DECOMPOSED))
    ).version
    assert fixed.parent == f"caches/{base}/versions/1" and fixed.source.inherited == 24
    one, other = features.api.examples(base), features.api.examples(f"{base}-right")
    assert [(e.example_id, e.class_index) for e in one] == [
        (e.example_id, e.class_index) for e in other
    ]
    queries = [wire.embedding(q) for q in clusters.draw(30)[0]]
    np.testing.assert_allclose(
        features.api.logits(base, queries),
        features.api.logits(f"{base}-right", queries),
        rtol=0,
        atol=1e-4,
    )
    # A validation example, and a class that only this makes.
    spec = cache.AddExamplesSpec(
        base=base, relabel=relabelled(h0="lynx", e2="lynx"), new_classes=wire.classes(["lynx"])
    )
    made = features.api.add(spec).version
    counts = [(c.example_count, c.validation_count) for c in made.classes]
    assert counts == [(6, 1), (6, 2), (5, 2), (1, 1)]


def test_what_cannot_be_relabelled_is_named(features, base):
    for spec, words in [
        ({"relabel": relabelled(nobody=0)}, 'holds no example "nobody"'),
        ({"relabel": relabelled(e0="dog")}, 'no class is called "dog"'),
        ({"relabel": relabelled(e0=3)}, "3 is not in 0..3"),
        ({"relabel": relabelled(e0=-1)}, "-1 is not in 0..3"),
        ({"relabel": relabelled(e0=1) + relabelled(e0=2)}, "twice"),
        ({"relabel": relabelled(e0=1), "remove_example_ids": ["e0"]}, "left out"),
        (
            {"relabel": [cache.Relabelled(example_id="e0", class_index=1, class_name="ant")]},
            "exclude each other",
        ),
    ]:
        problem = refused(
            lambda spec=spec: features.api.add(cache.AddExamplesSpec(base=base, **spec))
        )
        assert problem.code is grpc.StatusCode.INVALID_ARGUMENT, problem
        assert problem.fields == ["spec.relabel"] and words in problem.message, problem
    everything = relabelled(**{f"e{i}": 0 for i in range(18)})
    problem = refused(
        lambda: features.api.add(cache.AddExamplesSpec(base=base, relabel=everything))
    )
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT, problem
    assert features.api.caches.GetCache(cache.GetCacheRequest(name=base)).version_count == 1


def test_a_kept_picture_stays_with_an_example_that_gets_another_class(tiny, chance, name):
    files = [png(photo(chance, i)) for i in range(4)]
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("ab"),
        method=cache.METHOD_CLASS_MEAN,
        keep_pictures=True,
    )
    tiny.api.create(
        spec, [wire.example(i % 2, wire.encoded(f), f"{i}") for i, f in enumerate(files)]
    )
    picture = cache.GetExamplePictureRequest(parent=f"{name}@1", example_id="0")
    before = tiny.api.caches.GetExamplePicture(picture)
    made = tiny.api.add(cache.AddExamplesSpec(base=name, relabel=relabelled(**{"0": "b"}))).version
    assert made.picture_count == 4 and made.classes[1].example_count == 3
    picture.parent = made.name
    assert tiny.api.caches.GetExamplePicture(picture) == before


def test_the_picture_itself_goes_to_who_asks_for_one(tiny, chance, name):
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes("ab"),
        method=cache.METHOD_CLASS_MEAN,
        keep_pictures=True,
    )
    files = [png(photo(chance, i)) for i in range(2)]
    tiny.api.create(spec, [wire.example(i, wire.encoded(f), f"{i}") for i, f in enumerate(files)])
    request = cache.GetExamplePictureRequest(parent=name, example_id="1")
    picture = tiny.api.caches.GetExamplePicture(request)
    path = f"/v1/caches/{name}/examples:picture?exampleId=1"
    browser = "image/avif,image/webp,image/png,*/*;q=0.8"
    for accept in ("image/*", "image/jpeg", "application/octet-stream", browser):
        answer = call(tiny, "GET", path, accept=accept)
        assert answer.headers["content-type"] == "image/jpeg", accept
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.body == picture.data
    for accept in ("application/json", "*/*"):
        assert call(tiny, "GET", path, accept=accept).json["contentType"] == "image/jpeg"
    answer = call(tiny, "GET", path.replace("=1", "=9"), accept="image/*")
    assert (answer.status, answer.problem.reason) == (404, "NOT_FOUND")


def test_examples_name_their_classes(features, clusters, name):
    points, labels = clusters.draw(labels=np.arange(12) % 3)
    examples = wire.examples_of(points, [0] * 12, prefix="e")
    for example, label in zip(examples, labels, strict=True):
        example.class_name = [NAMES[0], DECOMPOSED, NAMES[2]][label]
    bad = wire.example(0, examples[0].input, "unknown")
    bad.class_name = "dog"
    both = wire.example(2, examples[0].input, "both")
    both.class_name = "ant"
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes([*NAMES, "cat"]))
    spec.allow_empty_classes, spec.without_text = True, True
    made = features.api.create(spec, [*examples, bad, both])
    for wrong in ("unknown", "both"):
        assert made.rejected[wrong].reason == "FIELD_INVALID"
    # Two classes are called cat: the name says neither.
    twice = [id_ for id_, one in made.rejected.items() if "several classes" in one.message]
    assert sorted(twice) == sorted(e.example_id for e in examples if e.class_name == "cat")
    assert [c.example_count for c in made.version.classes] == [4, 4, 0, 0]


def test_versions_with_other_orders_of_classes_are_evaluated_by_name(features, clusters, name):
    points, labels = clusters.draw(labels=np.arange(30) % 3)
    for suffix, order in (("", [0, 1, 2]), ("-turned", [2, 0, 1])):
        place = [order.index(label) for label in range(3)]
        spec = cache.CacheSpec(
            cache_id=name + suffix,
            classes=wire.classes(NAMES[label] for label in order),
            method=cache.METHOD_CLASS_MEAN,
            without_text=True,
        )
        features.api.create(spec, wire.examples_of(points, [place[label] for label in labels]))
    queries, truth = clusters.draw(30)
    items = [
        classify.LabelledItem(id=str(i), class_name=NAMES[label % 3], input=wire.embedding(point))
        for i, (point, label) in enumerate(zip(queries, truth, strict=True))
    ]
    items.append(classify.LabelledItem(id="bad", class_name="dog", input=items[0].input))
    config = classify.EvaluateConfig(caches=[name, f"{name}-turned"])
    answer = features.api.classifying.Evaluate(
        iter(
            [
                classify.EvaluateRequest(config=config),
                classify.EvaluateRequest(items=classify.LabelledBatch(items=items)),
            ]
        )
    )
    one, turned = answer.evaluations
    assert (one.count, one.top1) == (turned.count, turned.top1) and one.count == 30
    by_name = [{c.display_name: (c.count, c.accuracy) for c in e.classes} for e in (one, turned)]
    assert by_name[0] == by_name[1]
    [rejected] = answer.rejected
    assert rejected.example_id == "bad" and "dog" in rejected.message
