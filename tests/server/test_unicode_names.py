"""Names in any form of Unicode are the same names: kept and compared in NFC."""

from __future__ import annotations

import unicodedata

import grpc
import numpy as np
import pytest
import wire
from old_versions import age
from wire import Problem, cache, classify

FORMS = ["NFC", "NFD"]


def form(kind: str, text: str) -> str:
    return unicodedata.normalize(kind, text)


NAMES = ["café", "Ångström", "한국", "plain"]


@pytest.fixture
def made(features, clusters, name):
    """A version whose ids and classes came in NFD, as macOS has them."""
    points, labels = clusters.draw(labels=np.arange(12) % 4)
    examples = [
        wire.example(label, wire.embedding(point), form("NFD", f"{NAMES[label]}/{n}"))
        for n, (point, label) in enumerate(zip(points, labels, strict=True))
    ]
    spec = cache.CacheSpec(
        cache_id=name,
        classes=wire.classes([form("NFD", one) for one in NAMES], clusters.weights[:4]),
    )
    return features.api.create(spec, examples).version


def test_a_version_keeps_them_in_nfc(features, made):
    assert [one.display_name for one in made.classes] == NAMES
    listed = features.api.examples(made.name)
    assert {one.example_id for one in listed} == {f"{NAMES[n % 4]}/{n}" for n in range(12)}
    assert {one.display_name for one in listed} == set(NAMES)


@pytest.mark.parametrize("kind", FORMS)
def test_either_form_finds_an_example(features, made, clusters, kind):
    again = wire.example(0, wire.embedding(clusters.draw(1)[0][0]), form(kind, "café/0"))
    added = features.api.add(cache.AddExamplesSpec(base=made.name), [again])
    assert "café/0" in added.rejected and added.version.key_count == 12
    gone = cache.AddExamplesSpec(base=made.name, remove_example_ids=[form(kind, "café/0")])
    assert features.api.add(gone).version.key_count == 11
    for field, text, count in [("example_id", "café/*", 3), ("display_name", "한국", 3)]:
        asked = f'{field} = "{form(kind, text)}"'
        assert len(features.api.examples(made.name, filter=asked)) == count


def test_an_old_version_in_nfd_is_found_by_either_form(features_bundle, serve, clusters, name):
    server = serve(features_bundle)
    points, labels = clusters.draw(labels=np.arange(8) % 4)
    examples = [
        wire.example(label, wire.embedding(point), f"{NAMES[label]}/{n}")
        for n, (point, label) in enumerate(zip(points, labels, strict=True))
    ]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(NAMES, clusters.weights[:4]))
    old = server.api.create(spec, examples).version.name
    server.terminate()
    age(server.store, old)
    server.start()
    # Classes are read in NFC; ids are as they were given, and found by either form.
    assert [
        one.display_name
        for one in server.api.caches.GetVersion(cache.GetVersionRequest(name=old)).classes
    ] == NAMES
    assert server.api.examples(old)[0].example_id == form("NFD", "café/0")
    answer = server.api.one(old, wire.embedding(points[0]))
    assert answer.top[0].display_name in NAMES
    for kind in FORMS:
        asked = f'example_id = "{form(kind, "café/0")}"'
        assert len(server.api.examples(old, filter=asked)) == 1
        again = wire.example(0, wire.embedding(points[0]), form(kind, "café/0"))
        assert server.api.add(cache.AddExamplesSpec(base=old), [again]).rejected
        gone = cache.AddExamplesSpec(base=old, remove_example_ids=[form(kind, "café/0")])
        assert server.api.add(gone).version.key_count == 7


def test_two_forms_of_one_id_are_two_examples_of_that_id(features, clusters, name):
    points = clusters.draw(2)[0]
    examples = [
        wire.example(0, wire.embedding(point), form(kind, "é"))
        for kind, point in zip(FORMS, points, strict=True)
    ]
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(["a"]), without_text=True)
    created = features.api.create(spec, examples)
    assert len(created.rejected) == 1 and created.version.key_count == 1
    spec.on_rejected = cache.CacheSpec.ON_REJECTED_FAIL
    with pytest.raises(grpc.RpcError) as caught:
        features.api.create(spec, examples)
    assert "another example has this id" in Problem.of_call(caught.value).message


def test_an_items_own_id_comes_back_as_it_was_sent(features, made, clusters):
    query = wire.embedding(clusters.draw(1)[0][0])
    sent = [form(kind, "é") for kind in FORMS]
    answers = features.api.stream(made.name, [wire.item(one, query) for one in sent], ordered=True)
    assert [answer.id for answer in answers] == sent


def test_prompts_and_texts_are_embedded_in_one_form(tiny, name):
    templates = ["a naïve photo of {}."]
    rows = []
    for kind in FORMS:
        classes = [cache.ClassSpec(display_name=form(kind, one)) for one in ("café", "føhre")]
        classes[1].prompts.append(form(kind, "die Föhre"))
        spec = cache.CacheSpec(
            cache_id=f"{name}-{kind.lower()}",
            classes=classes,
            prompt_templates=[form(kind, one) for one in templates],
            method=cache.METHOD_ZERO_SHOT,
            allow_empty_classes=True,
        )
        tiny.api.create(spec)
        asked = classify.EmbedRequest(texts=[form(kind, "Ångström")])
        (text,) = tiny.api.classifying.Embed(asked).texts
        query = wire.embedding(np.ones(48, np.float32))
        logits = tiny.api.logits(spec.cache_id, [query])
        rows.append([*text.embedding.values, *logits[0]])
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-6)
