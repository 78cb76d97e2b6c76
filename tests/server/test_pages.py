"""Every list ends its pages by their bytes, so that each fits into what gRPC clients take by
default, 4 MiB, and all pages together have everything: a table over the descriptors.
"""

from __future__ import annotations

import grpc
import pytest
import wire
from conftest import WIDTH, Server
from wire import analysis, bundle, cache, classify, finetune

MOST = 3 << 20
COUNT = 40


def lists() -> set[str]:
    return {
        method.name
        for module in (analysis, bundle, cache, classify, finetune)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if "page_size" in method.input_type.fields_by_name
    }


@pytest.fixture(scope="module")
def large(features_bundle, tmp_path_factory):
    """A server with more than a page of everything."""
    server = Server(features_bundle, tmp_path_factory.mktemp("large") / "store")
    chance = wire.np.random.default_rng(3)
    labels = {f"{n} {'k' * 200}": "x" * 1000 for n in range(64)}
    kind = {"method": cache.METHOD_TIP_ADAPTER, "alpha": 1.0, "beta": 5.0, "labels": labels}
    few = wire.examples_of(chance.normal(size=(4, WIDTH)), [0, 1, 0, 1])
    for number in range(COUNT):
        for name in ("versions", f"c{number:03}"):
            spec = cache.CacheSpec(cache_id=name, classes=wire.classes("ab"), **kind)
            server.api.create(spec, few)
    examples = wire.examples_of(chance.normal(size=(4000, WIDTH)), [0, 1] * 2000)
    for number, example in enumerate(examples):
        example.example_id = f"{number:01000d}"
    spec = cache.CacheSpec(
        cache_id="examples", classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
    )
    server.api.create(spec, examples)
    for _ in range(COUNT):
        request = finetune.FineTuneRequest(cache="versions", epochs=1, recipe=ADAPTER)
        list(server.api.tuning.FineTune(request))
    yield server
    server.close()


ADAPTER = cache.FINE_TUNE_RECIPE_TIP_ADAPTER_F
# For each list: its request, the field with its entries, and how many there must be.
TABLE = {
    "ListCaches": (lambda: cache.ListCachesRequest(page_size=1000), "caches", COUNT + 2),
    "ListVersions": (
        lambda: cache.ListVersionsRequest(parent="versions", page_size=1000),
        "versions",
        COUNT,
    ),
    "ListExamples": (
        lambda: cache.ListExamplesRequest(parent="examples", page_size=10_000),
        "examples",
        4000,
    ),
    "ListFineTunes": (
        lambda: finetune.ListFineTunesRequest(page_size=1000),
        "fine_tunes",
        COUNT,
    ),
}


def test_the_table_is_total():
    assert lists() == set(TABLE)


@pytest.mark.parametrize("method", TABLE)
def test_pages_end_by_their_bytes(large, method):
    make, field, least = TABLE[method]
    plain = grpc.insecure_channel(large.address)
    stubs = (wire.cache_grpc.CacheServiceStub(plain), wire.finetune_grpc.FineTuneServiceStub(plain))
    stub = next(getattr(each, method) for each in stubs if hasattr(each, method))
    request, entries, sizes = make(), 0, []
    while True:
        page = stub(request)
        sizes.append(page.ByteSize())
        entries += len(getattr(page, field))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    plain.close()
    print(f"{entries} entries in pages of {[size >> 10 for size in sizes]} KiB")
    assert entries >= least
    assert max(sizes) < MOST
    assert len(sizes) > 1, "too little for a second page: this shows nothing"
