"""Names of nothing, and ids that are none."""

from __future__ import annotations

import pytest
import wire
from conftest import WIDTH
from refusals import INVALID, MISSING, refused, says, still_serves
from wire import cache, classify, finetune

NOT_THERE = [
    "nothing",
    "caches/nothing",
    "here@9",
    "here@nobody",
    "caches/here/versions/77",
    "caches/here/aliases/nobody",
]


@pytest.mark.parametrize("reference", NOT_THERE)
def test_unknown_caches_versions_and_aliases(embedding_cache, reference, chance):
    api, content = embedding_cache.api, wire.embedding(chance.normal(size=WIDTH))
    config = classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache=reference))
    evaluate = classify.EvaluateRequest(config=classify.EvaluateConfig(caches=["here", reference]))
    for call, request in (
        (api.classifying.Classify, classify.ClassifyRequest(cache=reference, input=content)),
        (api.classifying.ClassifyStream, iter([config])),
        (api.classifying.Evaluate, iter([evaluate])),
        (api.caches.GetVersion, cache.GetVersionRequest(name=reference)),
        (api.tuning.FineTune, finetune.FineTuneRequest(cache=reference)),
    ):
        problem = refused(call, request)
        name = reference.replace("caches/", "").split("@")[0].split("/")[0]
        says(problem, MISSING, "NOT_FOUND", name)
        assert name in problem.metadata["resource"]


def test_unknown_names_of_the_other_calls(embedding_cache):
    caches = embedding_cache.api.caches
    for call, request in (
        (caches.GetCache, cache.GetCacheRequest(name="nothing")),
        (caches.ListVersions, cache.ListVersionsRequest(parent="caches/nothing")),
        (caches.DeleteCache, cache.DeleteCacheRequest(name="nothing")),
        (caches.SetAlias, cache.SetAliasRequest(cache="nothing", alias="a", version=1)),
        (caches.SetAlias, cache.SetAliasRequest(cache="here", alias="a", version=99)),
        (caches.DeleteAlias, cache.DeleteAliasRequest(cache="here", alias="nobody")),
        (
            embedding_cache.api.tuning.GetFineTune,
            finetune.GetFineTuneRequest(name="fineTunes/nothing"),
        ),
        (
            embedding_cache.api.tuning.CancelFineTune,
            finetune.CancelFineTuneRequest(name="fineTunes/nothing"),
        ),
    ):
        assert refused(call, request).code == MISSING


BAD_IDS = [
    "a/b",
    "../../etc/passwd",
    "..",
    ".",
    ".hidden",
    "",
    "UPPER",
    "-dash",
    "a b",
    "a@1",
    "a\nb",
    "ü",
    "x" * 64,
    "a\\b",
    "caches/a/b",
    "%2e%2e",
    "a..b",
]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_that_are_none(embedding_cache, bad):
    api = embedding_cache.api
    spec = cache.CacheSpec(cache_id=bad, classes=wire.classes("a"))
    problem = refused(api.caches.CreateCache, wire.requests_of(spec, []))
    assert problem.code == INVALID
    assert any("cache_id" in field for field in problem.fields), problem
    # Control characters reach nobody's terminal raw.
    shown = bad.removeprefix("caches/").replace("\n", "\\n")
    assert problem.metadata["value"] == shown
    for call, request in (
        (api.caches.GetCache, cache.GetCacheRequest(name=bad)),
        (api.caches.DeleteCache, cache.DeleteCacheRequest(name=bad)),
        (api.caches.ListVersions, cache.ListVersionsRequest(parent=bad)),
    ):
        assert refused(call, request).code == INVALID
    for alias in (bad, "latest"):
        request = cache.SetAliasRequest(cache="here", alias=alias, version=1)
        assert refused(api.caches.SetAlias, request).code == INVALID
    assert not list(embedding_cache.store.parent.glob("**/passwd"))


def test_it_still_serves(embedding_cache, chance):
    still_serves(embedding_cache, "here", wire.embedding(chance.normal(size=WIDTH)))
