"""AddExamples: a version made in two steps is the one made in one, and nothing is encoded twice."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
import wire
from pictures import photo, png
from wire import Problem, cache

NAMES = "abcdef"
PICTURES = "tipserve_batch_size_pictures_sum"


def add(base, **fields):
    return cache.AddExamplesSpec(base=base, **fields)


def refused(call) -> Problem:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Problem.of_call(caught.value)


def drawn(clusters, count):
    """Points of every class in turn."""
    return clusters.draw(labels=np.arange(count) % clusters.count)


def fine_print(examples):
    return [(e.example_id, e.class_index, e.display_name, e.validation) for e in examples]


def held_of(clusters, count, prefix):
    points, labels = clusters.draw(count)
    return wire.examples_of(points, labels, validation=True, prefix=prefix)


def tensors_of(server, name, version):
    from safetensors.numpy import load_file

    folder = server.store / f"caches/{name}/versions/{version:08}"
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest, load_file(folder / manifest["tensors"]["name"])


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    "method", ["AUTO", "ZERO_SHOT", "TIP_ADAPTER", "GDA", "PROKER", "CLASS_MEAN"]
)
@pytest.mark.parametrize("balance", [cache.CLASS_BALANCE_SUM, cache.CLASS_BALANCE_MEAN])
def test_two_steps_are_one(features, clusters, name, method, held, balance):
    points, labels = drawn(clusters, 60)
    first = wire.examples_of(points[:25], labels[:25] % 4, prefix="first ")
    second = wire.examples_of(points[25:], labels[25:], prefix="second ")
    if held:
        # Validation and training in any order, in both steps.
        first += held_of(clusters, 20, "held ")
        second += held_of(clusters, 15, "held too ")
        for example in first:
            example.class_index %= 4
        clusters.chance.shuffle(first)
        clusters.chance.shuffle(second)
    method = getattr(cache, f"METHOD_{method}")
    made = {"method": method, "class_balance": balance, "key_dtype": cache.KEY_DTYPE_F32}
    classes = wire.classes(NAMES[:5], clusters.weights)
    whole = features.api.create(
        cache.CacheSpec(cache_id=f"{name}-whole", classes=classes, **made), first + second
    ).version
    base = features.api.create(
        cache.CacheSpec(cache_id=name, classes=classes[:4], **made), first
    ).version
    added = features.api.add(
        add(f"{name}@1", new_classes=classes[4:], method=method), second, batch=7
    )
    version = added.version
    assert added.rejected == {} and added.kinds[-1] == "version"
    assert (version.name, version.parent) == (f"caches/{name}/versions/2", base.name)
    for field in ("classes", "head", "key_count", "width", "views", "bundle_fingerprint"):
        assert getattr(version, field) == getattr(whole, field), field
    assert (version.source.received, version.source.inherited) == (len(second), len(first))
    listed = features.api.examples(f"{name}@2")
    assert fine_print(listed) == fine_print(features.api.examples(f"{name}-whole"))
    assert [e.validation for e in listed] == sorted(e.validation for e in listed)
    queries = [wire.embedding(q) for q in clusters.draw(30)[0]]
    np.testing.assert_allclose(
        features.api.logits(f"{name}@2", queries),
        features.api.logits(f"{name}-whole", queries),
        rtol=0,
        atol=1e-4,
    )
    _, expected = tensors_of(features, f"{name}-whole", 1)
    _, found = tensors_of(features, name, 2)
    assert found.keys() == expected.keys()
    for tensor in expected.keys() - {"head.linear", "head.bias", "head.values"}:
        assert np.array_equal(found[tensor], expected[tensor]), tensor

    # And back: without what was added it is the first again, but for the class.
    gone = [example.example_id for example in second]
    back = features.api.add(
        add(f"{name}@2", remove_example_ids=gone, method=method, allow_empty_classes=True)
    ).version
    assert (back.parent, back.source.removed) == (version.name, len(second))
    assert list(back.classes)[:4] == list(base.classes)
    assert (back.classes[4].example_count, back.classes[4].validation_count) == (0, 0)
    assert fine_print(features.api.examples(back.name)) == fine_print(
        features.api.examples(base.name)
    )


def test_removing_what_was_added_gives_the_first_again(features, clusters, name):
    points, labels = drawn(clusters, 50)
    first, second = (
        wire.examples_of(points[:30], labels[:30], prefix="a"),
        wire.examples_of(points[30:], labels[30:], prefix="b"),
    )
    base = features.api.create(
        cache.CacheSpec(
            cache_id=name,
            classes=wire.classes(NAMES[:5], clusters.weights),
            method=cache.METHOD_TIP_ADAPTER,
        ),
        first,
    ).version
    features.api.add(add(name), second)
    back = features.api.add(
        add(name, remove_example_ids=[example.example_id for example in second])
    ).version
    assert (back.version, back.head, back.classes) == (3, base.head, base.classes)
    queries = [wire.embedding(q) for q in clusters.draw(30)[0]]
    one, three = (features.api.logits(f"{name}@{n}", queries) for n in (1, 3))
    np.testing.assert_allclose(three, one, rtol=0, atol=1e-5)
    first_tensors, last = tensors_of(features, name, 1)[1], tensors_of(features, name, 3)[1]
    assert all(np.array_equal(first_tensors[t], last[t]) for t in first_tensors)


@pytest.mark.parametrize("views", [1, 3])
def test_pictures_are_encoded_once(tiny, chance, name, views):
    pictures = [png(photo(chance, k)) for k in range(9)]
    examples = [
        wire.example(k % 3, wire.encoded(p), f"p{k}", validation=k in (3, 7))
        for k, p in enumerate(pictures)
    ]
    fields = {"seed": 5, "method": cache.METHOD_TIP_ADAPTER, "alpha": 20, "beta": 4}
    spec = cache.CacheSpec(
        cache_id=f"{name}-whole", classes=wire.classes("abc"), views=views, **fields
    )
    whole = tiny.api.create(spec, examples).version
    spec.cache_id = name
    del spec.classes[2:]
    first = [e for e in examples[:6] if e.class_index < 2]
    second = [e for e in examples if e not in first]
    # Keys in the order of the two steps.
    again = cache.CacheSpec(
        cache_id=f"{name}-whole", classes=wire.classes("abc"), views=views, **fields
    )
    whole = tiny.api.create(again, first + second).version
    tiny.api.create(spec, first)
    before = tiny.metrics()[PICTURES]
    made = tiny.api.add(add(name, new_classes=wire.classes("c"), **fields), second).version
    encoded = sum(1 if e.validation else views for e in second)
    assert tiny.metrics()[PICTURES] - before == encoded
    assert (made.views, made.head.alpha, made.head.beta) == (views, 20, 4)
    assert made.classes == whole.classes
    before = tiny.metrics()[PICTURES]
    removed = tiny.api.add(add(name, remove_example_ids=["p0"], **fields)).version
    assert tiny.metrics()[PICTURES] == before
    assert removed.key_count == made.key_count - 1
    expected, found = tensors_of(tiny, f"{name}-whole", 2)[1], tensors_of(tiny, name, 2)[1]
    assert found.keys() == expected.keys()
    assert ("views" in found) == (views > 1)
    for tensor in ("keys", "labels", "text", "validation.features", "validation.labels"):
        # Batches may be put together otherwise: equal but for float32's rounding.
        np.testing.assert_allclose(found[tensor], expected[tensor], rtol=0, atol=1e-5)
    if views > 1:
        assert found["views"].shape == (7, views, 48)
        np.testing.assert_allclose(found["views"], expected["views"], rtol=0, atol=2e-3)
    # What the base held is there to the bit.
    base = tensors_of(tiny, name, 1)[1]
    for tensor in ("keys", "text", "views"):
        if tensor in base:
            assert np.array_equal(found[tensor][: len(base[tensor])], base[tensor]), tensor
    contents = [wire.encoded(p) for p in pictures]
    np.testing.assert_allclose(
        tiny.api.logits(f"{name}@2", contents),
        tiny.api.logits(f"{name}-whole@2", contents),
        rtol=0,
        atol=2e-3,
    )


def test_what_is_kept_and_what_is_said(features, clusters, name):
    points, labels = drawn(clusters, 40)
    features.api.create(
        cache.CacheSpec(
            cache_id=name,
            classes=wire.classes(NAMES[:5]),
            description="first",
            labels={"team": "mill"},
            created_by="Ada",
            method=cache.METHOD_TIP_ADAPTER,
            class_balance=cache.CLASS_BALANCE_MEAN,
            key_dtype=cache.KEY_DTYPE_BF16,
        ),
        wire.examples_of(points[:30], labels[:30]),
    )
    one = features.api.caches.GetVersion(cache.GetVersionRequest(name=name))
    assert (one.created_by, one.bundle_name != "") == ("Ada", True)
    assert (one.source.received, one.source.inherited) == (30, 0)
    bad = wire.example(0, wire.embedding([1.0]), "bad")
    taken = wire.example(0, wire.embedding(points[30]), "7")
    removed = wire.example(1, wire.embedding(points[31]), "8")
    created = features.api.add(
        add(f"{name}@latest", remove_example_ids=["8", "9"], created_by="Grace"),
        [bad, taken, removed],
    )
    assert created.rejected.keys() == {"bad", "7"}
    assert created.rejected["7"].reason == "FIELD_INVALID" and created.rejected["7"].message
    two = created.version
    assert (two.description, dict(two.labels), two.created_by) == (
        "first",
        {"team": "mill"},
        "Grace",
    )
    assert (two.head.class_balance, two.head.key_dtype, two.head.method) == (
        cache.CLASS_BALANCE_MEAN,
        cache.KEY_DTYPE_BF16,
        cache.METHOD_TIP_ADAPTER,
    )
    source = two.source
    assert (source.received, source.rejected, source.inherited, source.removed) == (3, 2, 28, 2)
    assert two.key_count == 29
    three = features.api.add(
        add(
            f"caches/{name}/versions/1",
            description="anew",
            labels={"x": "y"},
            method=cache.METHOD_CLASS_MEAN,
        )
    ).version
    assert (three.description, dict(three.labels)) == ("anew", {"x": "y"})
    assert three.parent == one.name and three.head.method == cache.METHOD_CLASS_MEAN


def test_examples_without_ids_go_on_counting(features, clusters, name):
    points, labels = drawn(clusters, 30)

    def plain(part):
        examples = wire.examples_of(points[part], labels[part])
        for example in examples:
            example.example_id = ""
        return examples

    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(NAMES[:5]))
    spec.allow_empty_classes = True
    spec.method = cache.METHOD_CLASS_MEAN
    features.api.create(spec, plain(slice(0, 20)))
    created = features.api.add(add(name, allow_empty_classes=True), plain(slice(20, 30)))
    assert created.rejected == {}
    assert [e.example_id for e in features.api.examples(name)] == [str(i) for i in range(30)]


def test_a_class_left_without_examples(features, clusters, name):
    points, labels = drawn(clusters, 30)
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes(NAMES[:5], clusters.weights),
        method=cache.METHOD_TIP_ADAPTER,
    )
    features.api.create(spec, wire.examples_of(points, labels))
    gone = [str(i) for i in range(30) if labels[i] == 2]
    problem = refused(lambda: features.api.add(add(name, remove_example_ids=gone)))
    assert problem.code == grpc.StatusCode.INVALID_ARGUMENT
    assert problem.fields == ["spec.remove_example_ids"] and '"c"' in problem.message
    new = wire.classes("f", [np.ones(len(points[0]))])
    problem = refused(lambda: features.api.add(add(name, new_classes=new)))
    assert problem.fields == ["spec.new_classes[0]"]
    made = features.api.add(
        add(name, remove_example_ids=gone, new_classes=new, allow_empty_classes=True)
    ).version
    assert [c.example_count for c in made.classes][2] == 0
    assert [c.display_name for c in made.classes] == list("abcdef")
    # Indices stay, so the empty class can be filled again.
    point = points[np.flatnonzero(labels == 2)[0]]
    made = features.api.add(
        add(name, allow_empty_classes=True), [wire.example(2, wire.embedding(point), "again")]
    ).version
    assert [c.example_count for c in made.classes][2] == 1


def test_text_of_new_classes_is_of_the_bases_kind(features, tiny, clusters, chance, name):
    points, labels = drawn(clusters, 30)
    examples = wire.examples_of(points, labels)
    fresh = [wire.example(5, wire.embedding(points[0]), "new")]
    weighted = wire.classes("f", [points[0]])
    prompted = [cache.ClassSpec(display_name="f", prompts=["an f"])]
    api = features.api
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(NAMES[:5]))
    api.create(spec, examples)
    for classes in (weighted, prompted):
        problem = refused(lambda classes=classes: api.add(add(name, new_classes=classes), fresh))
        assert problem.fields == ["spec.new_classes"] and "without text" in problem.message
    assert api.add(add(name, new_classes=wire.classes("f")), fresh).version.version == 2
    zero_shot = refused(lambda: api.add(add(name, method=cache.METHOD_ZERO_SHOT)))
    assert zero_shot.fields == ["spec.method"]
    spec = cache.CacheSpec(cache_id=f"{name}-w", classes=wire.classes(NAMES[:5], clusters.weights))
    api.create(spec, examples)
    problem = refused(lambda: api.add(add(f"{name}-w", new_classes=wire.classes("f")), fresh))
    assert "text_weight" in problem.message
    wrong = wire.classes("f", [points[0][:-1]])
    problem = refused(lambda: api.add(add(f"{name}-w", new_classes=wrong), fresh))
    assert problem.fields == ["spec.new_classes[0].text_weight"]
    # By prompts: the rows of the new classes are those that a cache made at once has.
    pictures = [wire.encoded(png(photo(chance, k))) for k in range(4)]
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes(["kite", "cat"]), method=cache.METHOD_ZERO_SHOT
    )
    tiny.api.create(spec, [wire.example(k, p, f"{k}") for k, p in enumerate(pictures[:2])])
    refusal = wire.classes(["dog"], [np.ones(48)])
    problem = refused(lambda: tiny.api.add(add(name, new_classes=refusal)))
    assert "prompts" in problem.message
    tiny.api.add(
        add(name, new_classes=wire.classes(["dog", "red kite"])),
        [wire.example(k, p, f"{k}") for k, p in enumerate(pictures) if k > 1],
    )
    spec = cache.CacheSpec(
        cache_id=f"{name}-whole",
        classes=wire.classes(["kite", "cat", "dog", "red kite"]),
        method=cache.METHOD_ZERO_SHOT,
    )
    tiny.api.create(spec, [wire.example(k, p, f"{k}") for k, p in enumerate(pictures)])
    np.testing.assert_allclose(
        tiny.api.logits(name, pictures), tiny.api.logits(f"{name}-whole", pictures), atol=1e-3
    )


def test_a_fine_tuned_base_is_tip_adapter_again(features, clusters, name):
    points, labels = drawn(clusters, 40)
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes(NAMES[:5], clusters.weights),
        method=cache.METHOD_TIP_ADAPTER,
    )
    features.api.create(spec, wire.examples_of(points[:30], labels[:30]))
    events = list(features.api.tuning.FineTune(wire.finetune.FineTuneRequest(cache=name, epochs=2)))
    assert events[-1].run.version.head.method == cache.METHOD_TIP_ADAPTER_F
    more = wire.examples_of(points[30:], labels[30:], prefix="more ")
    made = features.api.add(add(f"{name}@2"), more).version
    plain = features.api.add(add(f"{name}@1"), more).version
    assert made.head == plain.head and made.head.method == cache.METHOD_TIP_ADAPTER
    assert not made.HasField("fine_tune") and made.parent.endswith("/2")
    queries = [wire.embedding(q) for q in clusters.draw(20)[0]]
    three, four = (features.api.logits(f"{name}@{n}", queries) for n in (3, 4))
    np.testing.assert_allclose(three, four, rtol=0, atol=1e-5)
