"""Lists in pages, field masks, names, aliases, deletion, and what the server says of itself."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from google.protobuf import field_mask_pb2
from wire import Problem, cache, classify


def small(server, name, chance):
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
    )
    return server.api.create(
        spec, wire.examples_of(chance.normal(size=(4, WIDTH)), [0, 1, 0, 1])
    ).version


@pytest.fixture(scope="module")
def listed(features_bundle, tmp_path_factory):
    """A server with 7 caches; the first has 5 versions."""
    from conftest import Server

    server = Server(features_bundle, tmp_path_factory.mktemp("listed") / "store")
    chance = np.random.default_rng(6)
    for name in ["b.2", "a", "b-1", "z_9", "0", "b", "b.10"]:
        small(server, name, chance)
    for _ in range(4):
        small(server, "0", chance)
    yield server
    server.close()


def pages(call, request, field, size):
    """All entries, a page at a time; no page is larger than asked for."""
    got = []
    for _ in range(100):
        page = call(request)
        entries = getattr(page, field)
        assert len(entries) <= size
        got += entries
        if not page.next_page_token:
            return got
        request.page_token = page.next_page_token
    pytest.fail("no end of pages")


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 5000])
def test_caches_in_pages(listed, size):
    request = cache.ListCachesRequest(page_size=size)
    got = [one.name for one in pages(listed.api.caches.ListCaches, request, "caches", size)]
    ids = sorted(["b.2", "a", "b-1", "z_9", "0", "b", "b.10"])
    assert got == [f"caches/{name}" for name in ids]


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
def test_versions_in_pages(listed, size):
    request = cache.ListVersionsRequest(parent="caches/0", page_size=size)
    got = pages(listed.api.caches.ListVersions, request, "versions", size)
    assert [one.version for one in got] == [5, 4, 3, 2, 1]
    assert [one.name for one in got] == [f"caches/0/versions/{n}" for n in (5, 4, 3, 2, 1)]


def test_pages_stay_whole_while_caches_come_and_go(serve, features_bundle, chance):
    server = serve(features_bundle)
    for name in "bdfh":
        small(server, name, chance)
    caches = server.api.caches
    first = caches.ListCaches(cache.ListCachesRequest(page_size=2))
    caches.DeleteCache(cache.DeleteCacheRequest(name="d"))
    small(server, "a", chance)
    small(server, "g", chance)
    rest = caches.ListCaches(cache.ListCachesRequest(page_size=9, page_token=first.next_page_token))
    assert [one.name for one in first.caches] == ["caches/b", "caches/d"]
    assert [one.name for one in rest.caches] == ["caches/f", "caches/g", "caches/h"]


def test_field_masks(listed):
    def mask(*paths):
        return field_mask_pb2.FieldMask(paths=paths)

    caches = listed.api.caches
    whole = caches.GetCache(cache.GetCacheRequest(name="0"))
    assert whole == caches.GetCache(cache.GetCacheRequest(name="caches/0", read_mask=mask("*")))
    part = caches.GetCache(cache.GetCacheRequest(name="0", read_mask=mask("name", "version_count")))
    assert {field.name for field, _ in part.ListFields()} == {"name", "version_count"}
    for one in caches.ListCaches(cache.ListCachesRequest(read_mask=mask("latest"))).caches:
        assert {field.name for field, _ in one.ListFields()} == {"latest"}
    for one in caches.ListVersions(
        cache.ListVersionsRequest(parent="0", read_mask=mask("head", "version"))
    ).versions:
        assert {field.name for field, _ in one.ListFields()} == {"head", "version"}
    one = caches.GetVersion(cache.GetVersionRequest(name="0@2", read_mask=mask("name")))
    assert {field.name for field, _ in one.ListFields()} == {"name"}
    for wrong in ("nothing", "Name", ""):
        with pytest.raises(grpc.RpcError) as caught:
            caches.GetCache(cache.GetCacheRequest(name="0", read_mask=mask(wrong)))
        problem = Problem.of_call(caught.value)
        assert problem.code == grpc.StatusCode.INVALID_ARGUMENT and "read_mask" in problem.fields


@pytest.mark.parametrize(
    "reference", ["0@2", "caches/0/versions/2", "0@second", "caches/0/aliases/second"]
)
def test_every_form_of_a_name(listed, reference):
    caches = listed.api.caches
    caches.SetAlias(cache.SetAliasRequest(cache="caches/0", alias="second", version=2))
    assert caches.GetVersion(cache.GetVersionRequest(name=reference)).version == 2
    answer = listed.api.one(reference, wire.embedding(np.ones(WIDTH)))
    assert answer.version == "caches/0/versions/2"
    for newest in ("0", "caches/0", "0@latest"):
        assert caches.GetVersion(cache.GetVersionRequest(name=newest)).version == 5
        assert (
            listed.api.one(newest, wire.embedding(np.ones(WIDTH))).version == "caches/0/versions/5"
        )


def test_aliases(listed):
    caches = listed.api.caches
    for version in (1, 3, 3):
        got = caches.SetAlias(cache.SetAliasRequest(cache="0", alias="canary", version=version))
        assert got.name == "caches/0" and got.aliases["canary"] == version
    got = caches.DeleteAlias(cache.DeleteAliasRequest(cache="0", alias="canary"))
    assert "canary" not in got.aliases
    assert caches.GetVersion(cache.GetVersionRequest(name="0@3")).version == 3
    with pytest.raises(grpc.RpcError) as caught:
        caches.GetVersion(cache.GetVersionRequest(name="0@canary"))
    problem = Problem.of_call(caught.value)
    assert problem.code == grpc.StatusCode.NOT_FOUND and "canary" in problem.message


def test_a_deleted_cache_is_gone_and_its_numbers_are_not_used_again(features, chance, name):
    small(features, name, chance)
    small(features, name, chance)
    caches = features.api.caches
    caches.SetAlias(cache.SetAliasRequest(cache=name, alias="stable", version=1))
    assert features.api.one(name, wire.embedding(np.ones(WIDTH))).version.endswith("/2")
    caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    assert f"caches/{name}" not in features.api.ids()
    for reference in (name, f"{name}@1", f"{name}@stable"):
        with pytest.raises(grpc.RpcError) as caught:
            features.api.one(reference, wire.embedding(np.ones(WIDTH)))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    again = small(features, name, chance)
    assert again.version > 2
    got = caches.GetCache(cache.GetCacheRequest(name=name))
    assert (dict(got.aliases), got.version_count) == ({}, 1)


def test_the_command_line_lists_shows_and_deletes(listed, chance):
    small(listed, "doomed", chance)
    ids = [one["cache"] for one in listed.cli("caches", "list")["caches"]]
    assert ids == sorted(ids) and "doomed" in ids
    assert listed.cli("caches", "show", "doomed")["latest"]["version"] == 1
    assert [v["version"] for v in listed.cli("caches", "versions", "0")["versions"]] == [
        5,
        4,
        3,
        2,
        1,
    ]
    assert "doomed" in str(listed.cli("caches", "delete", "doomed", "--yes"))
    error = listed.cli("caches", "show", "nobody", code=3)["error"]
    assert error["code"] == "NOT_FOUND" and "nobody" in error["message"]


def test_what_the_server_says_of_itself(features, tiny):
    info = features.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    assert info.version and info.device == "cpu"
    bundle = info.bundle
    assert (bundle.width, bundle.image_size, bundle.logit_scale) == (WIDTH, 0, 100)
    assert (bundle.resize_to, bundle.interpolation) == (0, "")
    assert not bundle.has_image_encoder and not bundle.has_text_encoder
    assert len(bundle.fingerprint) == 64
    assert info.limits["max_message_bytes"] == 32 << 20
    assert info.limits["max_classes"] == 100_000
    assert info.limits["max_pixels"] == 64_000_000
    info = tiny.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    bundle = info.bundle
    assert info.dtype == "float32"
    assert (bundle.width, bundle.image_size) == (48, 96)
    assert (bundle.resize_to, bundle.interpolation) == (96, "bicubic")
    assert bundle.has_image_encoder and bundle.has_text_encoder
    assert list(bundle.templates) == ["a photo of a {}."]
    document = tiny.cli("info")
    assert document["bundle"]["fingerprint"] == bundle.fingerprint
    assert document["bundle"]["resize_to"] == 96
    assert document["bundle"]["interpolation"] == "bicubic"
    assert document["limits"] == dict(info.limits)
