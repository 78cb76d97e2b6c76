"""Bad input: each a clear error that names the thing, the limit and the value; the server goes on."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from google.protobuf import field_mask_pb2
from pictures import photo, png
from refusals import INVALID, MISSING, refused, says, still_serves
from wire import Problem, cache, classify, finetune


def test_embeddings_that_are_no_direction(embedding_cache, chance):
    api = embedding_cache.api
    good = chance.normal(size=WIDTH)
    bad = {
        "narrow": (good[:7], ["7", WIDTH]),
        "wide": (np.tile(good, 3), [3 * WIDTH, WIDTH]),
        "none": ([], ["0", WIDTH]),
        "nan": (np.where(np.arange(WIDTH) == 5, np.nan, good), ["value 5", "NaN"]),
        "infinite": (np.where(np.arange(WIDTH) == 9, -np.inf, good), ["value 9", "inf"]),
        "zero": (0 * good, ["0"]),
    }
    for values, words in bad.values():
        request = classify.ClassifyRequest(cache="here", input=wire.embedding(values))
        problem = refused(api.classifying.Classify, request)
        says(problem, INVALID, "FIELD_INVALID", *words)
        assert problem.fields == ["input.embedding"]
    spec = cache.CacheSpec(cache_id="with-bad", classes=wire.classes("a"))
    examples = [wire.example(0, wire.embedding(values), name) for name, (values, _) in bad.items()]
    created = api.create(spec, [*examples, wire.example(0, wire.embedding(good))])
    assert created.rejected.keys() == bad.keys()
    weights = chance.normal(size=(2, WIDTH))
    weights[1, 3] = np.nan
    spec = cache.CacheSpec(cache_id="bad-weights", classes=wire.classes("ab", weights))
    problem = refused(api.caches.CreateCache, wire.requests_of(spec, []))
    says(problem, INVALID, "FIELD_INVALID", "classes[1]", "NaN")
    # Tiny and huge vectors have a direction.
    expected = api.one("here", wire.embedding(good), logits=True).logits
    for factor in (1e-30, 1e30):
        got = api.one("here", wire.embedding(good * factor), logits=True).logits
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_nothing_where_something_must_be(embedding_cache):
    api = embedding_cache.api
    problem = refused(api.classifying.Classify, classify.ClassifyRequest(cache="here"))
    says(problem, INVALID, "FIELD_MISSING", "input")
    problem = refused(api.classifying.Classify, classify.ClassifyRequest())
    assert problem.code == INVALID


def test_a_picture_for_a_bundle_without_encoder(embedding_cache, chance):
    content = wire.encoded(png(photo(chance)))
    request = classify.ClassifyRequest(cache="here", input=content)
    says(
        refused(embedding_cache.api.classifying.Classify, request),
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_IMAGE_ENCODER",
        "embeddings",
    )
    prompts = cache.CacheSpec(
        cache_id="prompted", classes=wire.classes("ab"), prompt_templates=["a {}"]
    )
    problem = refused(embedding_cache.api.caches.CreateCache, wire.requests_of(prompts, []))
    says(problem, grpc.StatusCode.FAILED_PRECONDITION, "NO_TEXT_ENCODER", "text weights")


def test_a_cache_without_classes_and_a_class_without_examples(embedding_cache, chance):
    api = embedding_cache.api
    problem = refused(
        api.caches.CreateCache, wire.requests_of(cache.CacheSpec(cache_id="none"), [])
    )
    assert problem.code == INVALID and "0" in problem.message and "classes" in problem.message
    points = chance.normal(size=(4, WIDTH))
    weights = chance.normal(size=(3, WIDTH))
    for given in (None, weights):
        spec = cache.CacheSpec(cache_id="gap", classes=wire.classes(["ant", "bee", "cow"], given))
        problem = refused(
            api.caches.CreateCache, wire.requests_of(spec, wire.examples_of(points, [0, 2, 2, 0]))
        )
        assert problem.code == INVALID
        assert "bee" in problem.message
        spec.allow_empty_classes = True
        version = api.create(spec, wire.examples_of(points, [0, 2, 2, 0])).version
        assert [c.example_count for c in version.classes] == [2, 0, 2]
        assert len(api.one("gap", wire.embedding(points[0]), logits=True).logits) == 3
    # Validation examples alone are no shots.
    spec = cache.CacheSpec(cache_id="valid", classes=wire.classes("a"))
    problem = refused(
        api.caches.CreateCache,
        wire.requests_of(spec, wire.examples_of(points, [0] * 4, validation=True)),
    )
    assert problem.code == INVALID


def test_specifications_out_of_range(embedding_cache, chance):
    api = embedding_cache.api
    good = wire.examples_of(chance.normal(size=(2, WIDTH)), [0, 0])
    for fields, word in (
        ({"views": -1}, "views"),
        ({"views": 65}, "64"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"beta": 0.0}, "beta"),
        ({"beta": float("inf")}, "beta"),
        ({"lambda": -2.0}, "lambda"),
        ({"method": 99}, "method"),
        ({"method": cache.METHOD_TIP_ADAPTER_F}, "method"),
        ({"method": cache.METHOD_ZERO_SHOT}, "text"),
        ({"class_balance": 9}, "class_balance"),
        ({"key_dtype": 9}, "key_dtype"),
        ({"on_rejected": 9}, "on_rejected"),
        ({"description": "d" * 4097}, "4097"),
        ({"labels": {str(i): "" for i in range(65)}}, "65"),
        ({"grid": cache.SearchGrid(kind=cache.SearchGrid.KIND_OFFICIAL, beta_scale=1001)}, "1001"),
        ({"grid": cache.SearchGrid(kind=7)}, "grid"),
    ):
        spec = cache.CacheSpec(cache_id="never", classes=wire.classes("a"), **fields)
        problem = refused(api.caches.CreateCache, wire.requests_of(spec, good))
        assert problem.code == INVALID, (fields, problem)
        assert word in problem.message or any(word in field for field in problem.fields), (
            fields,
            problem,
        )
    half = wire.classes("ab")
    half[0].text_weight.values.extend([1.0] * WIDTH)
    problem = refused(
        api.caches.CreateCache,
        wire.requests_of(cache.CacheSpec(cache_id="never", classes=half), []),
    )
    assert problem.code == INVALID and "1 of 2" in problem.message
    long = wire.classes(["n" * 1025])
    problem = refused(
        api.caches.CreateCache,
        wire.requests_of(cache.CacheSpec(cache_id="never", classes=long), good),
    )
    says(problem, INVALID, "LIMIT_EXCEEDED", 1024, 1025)
    assert "caches/never" not in api.ids()


def test_a_blank_name_goes_into_no_template(tiny):
    """It would be a class of nothing: "a photo of a ."."""
    for blank in ("", " ", "\u3000"):
        spec = cache.CacheSpec(
            cache_id="never", method=cache.METHOD_ZERO_SHOT, allow_empty_classes=True
        )
        spec.classes.extend(wire.classes(["cat", blank]))
        problem = refused(tiny.api.caches.CreateCache, wire.requests_of(spec, []))
        says(problem, INVALID, "FIELD_INVALID", "classes[1].display_name", "blank")
        spec.classes[1].prompts.append("something else")
    spec.cache_id = "nameless"
    assert tiny.api.create(spec, []).version.classes[1].display_name == blank


def test_ids_of_items_and_examples(embedding_cache, chance):
    api, content = embedding_cache.api, wire.embedding(chance.normal(size=WIDTH))
    longest, over = "é" * 512, "é" * 512 + "x"
    results = list(
        api.stream("here", [wire.item(longest, content), wire.item(over, content)], ordered=True)
    )
    assert results[0].WhichOneof("outcome") == "classification"
    problem = Problem.of_status(results[1].error)
    says(problem, INVALID, "LIMIT_EXCEEDED", 1024, 1025)
    assert problem.metadata["value"] == "1025" and problem.metadata["maximum"] == "1024"
    spec = cache.CacheSpec(cache_id="ids", classes=wire.classes("a"))
    examples = [
        wire.example(0, content, name)
        for name in (longest, over, "same", "same", "a/b", "../x", "")
    ]
    examples += [
        wire.example(-1, content, "below"),
        wire.example(1, content, "beyond"),
        cache.Example(example_id="bare"),
    ]
    created = api.create(spec, examples)
    assert created.rejected.keys() == {over, "same", "below", "beyond", "bare"}
    assert created.version.key_count == 5


def test_messages_in_the_wrong_order(embedding_cache, chance):
    api = embedding_cache.api
    content = wire.embedding(chance.normal(size=WIDTH))
    spec = cache.CreateCacheRequest(
        spec=cache.CacheSpec(cache_id="order", classes=wire.classes("a"))
    )
    examples = cache.CreateCacheRequest(
        examples=cache.ExampleBatch(examples=[wire.example(0, content)])
    )
    config = classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache="here"))
    items = classify.ClassifyStreamRequest(
        items=classify.ItemBatch(items=[wire.item("i", content)])
    )
    labelled = classify.EvaluateRequest(
        items=classify.LabelledBatch(items=[classify.LabelledItem(input=content)])
    )
    evaluate = classify.EvaluateRequest(config=classify.EvaluateConfig(caches=["here"]))
    for call, messages in (
        (api.caches.CreateCache, [examples]),
        (api.caches.CreateCache, [cache.CreateCacheRequest()]),
        (api.caches.CreateCache, []),
        (api.caches.CreateCache, [spec, spec]),
        (api.caches.CreateCache, [spec, cache.CreateCacheRequest()]),
        (api.classifying.ClassifyStream, [items]),
        (api.classifying.ClassifyStream, [classify.ClassifyStreamRequest()]),
        (api.classifying.ClassifyStream, []),
        (api.classifying.ClassifyStream, [config, config]),
        (api.classifying.ClassifyStream, [config, items, classify.ClassifyStreamRequest()]),
        (api.classifying.Evaluate, [labelled]),
        (api.classifying.Evaluate, []),
        (api.classifying.Evaluate, [evaluate, evaluate]),
        (api.classifying.Evaluate, [classify.EvaluateRequest(config=classify.EvaluateConfig())]),
        (
            api.classifying.Evaluate,
            [classify.EvaluateRequest(config=classify.EvaluateConfig(caches=["here"] * 9))],
        ),
    ):
        assert refused(call, iter(messages)).code == INVALID, messages
    assert "caches/order" not in api.ids()


def test_options_out_of_range(embedding_cache, chance):
    api, content = embedding_cache.api, wire.embedding(chance.normal(size=WIDTH))
    for options, value in (
        ({"top_k": -1}, "-1"),
        ({"neighbours": -3}, "-3"),
        ({"neighbours": 101}, "101"),
    ):
        wanted = classify.ClassifyOptions(**options)
        request = classify.ClassifyRequest(cache="here", input=content, options=wanted)
        problem = refused(api.classifying.Classify, request)
        assert problem.code == INVALID and value in problem.message
        config = classify.ClassifyStreamConfig(cache="here", options=wanted)
        assert (
            refused(
                api.classifying.ClassifyStream,
                iter([classify.ClassifyStreamRequest(config=config)]),
            ).code
            == INVALID
        )
    assert len(api.one("here", content, top_k=1000).top) == 2
    assert len(api.one("here", content).top) == 2
    assert len(api.one("here", content, neighbours=100).neighbours) == 8
    for field, request in (
        ("priority", classify.ClassifyRequest(cache="here", input=content, priority=9)),
    ):
        problem = refused(api.classifying.Classify, request)
        assert problem.code == INVALID and field in problem.message
    negative = wire.item("late", content)
    negative.time_limit.seconds = -1
    (result,) = api.stream("here", [negative])
    assert Problem.of_status(result.error).code in (INVALID, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_pages_and_masks_out_of_range(embedding_cache):
    caches = embedding_cache.api.caches
    for call, request in (
        (caches.ListCaches, cache.ListCachesRequest(page_size=-1)),
        (caches.ListVersions, cache.ListVersionsRequest(parent="here", page_size=-1)),
        (caches.ListVersions, cache.ListVersionsRequest(parent="here", page_token="no token")),
        (
            caches.ListCaches,
            cache.ListCachesRequest(read_mask=field_mask_pb2.FieldMask(paths=["nothing"])),
        ),
        (
            caches.GetCache,
            cache.GetCacheRequest(
                name="here", read_mask=field_mask_pb2.FieldMask(paths=["latest.nothing"])
            ),
        ),
        (embedding_cache.api.tuning.ListFineTunes, finetune.ListFineTunesRequest(page_size=-1)),
    ):
        assert refused(call, request).code == INVALID


def test_fine_tuning_out_of_range(embedding_cache):
    for fields in (
        {"epochs": -1},
        {"epochs": 1001},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"batch_size": -1},
        {"patience": -1},
        {"schedule": 7},
        {"weight_decay": -0.1},
        {"alpha": 0.0},
        {"beta": -1.0},
        {"move_alias": "a/b"},
        {"move_alias": "latest"},
        {"description": "d" * 4097},
    ):
        request = finetune.FineTuneRequest(cache="here", **fields)
        assert refused(embedding_cache.api.tuning.FineTune, request).code == INVALID, fields
    versions = embedding_cache.api.caches.ListVersions(
        cache.ListVersionsRequest(parent="here")
    ).versions
    assert [v.version for v in versions] == [1]


def test_random_bytes_are_no_requests(embedding_cache, chance):
    channel = embedding_cache.api.channel
    for method in (
        "ClassifyService/Classify",
        "CacheService/GetCache",
        "FineTuneService/GetFineTune",
    ):
        call = channel.unary_unary(f"/tipserve.v1.{method}")
        for _ in range(20):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff" + chance.bytes(50), timeout=60)
            assert caught.value.code() in (grpc.StatusCode.INTERNAL, INVALID, MISSING)


def test_it_still_serves(embedding_cache, chance):
    still_serves(embedding_cache, "here", wire.embedding(chance.normal(size=WIDTH)))
