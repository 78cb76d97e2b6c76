"""Lists: which caches and which examples, page by page."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from conftest import Clusters, Server
from wire import Problem, cache

METHODS = ["CLASS_MEAN", "TIP_ADAPTER", "GDA"]


@pytest.fixture(scope="module")
def shelf(features_bundle, tmp_path_factory):
    """A server with 30 caches: three teams, three methods, 2 to 6 classes."""
    server = Server(features_bundle, tmp_path_factory.mktemp("shelf") / "store")
    clusters = Clusters(np.random.default_rng(3), 6)
    for i in range(30):
        classes = 2 + i % 5
        points, labels = clusters.draw(labels=np.arange(2 * classes) % classes)
        labelled = {"team": ["weaving", "dyeing", "spin mill"][i % 3]}
        if i % 7 == 0:
            labelled["on hold"] = "yes"
        spec = cache.CacheSpec(
            cache_id=f"{'tex' if i % 2 else 'sign'}-{i:02}",
            classes=wire.classes("abcdef"[:classes]),
            method=getattr(cache, f"METHOD_{METHODS[i % 3]}"),
            labels=labelled,
            description=f"number {i}",
            created_by="Ada" if i < 10 else "Grace *",
        )
        server.api.create(spec, wire.examples_of(points, labels))
    yield server
    server.close()


def listed(server, text, size=0):
    """Every cache that a filter lets through, over all pages."""
    request, names, pages = cache.ListCachesRequest(filter=text, page_size=size), [], 0
    while True:
        page = server.api.caches.ListCaches(request)
        pages += 1
        names += [one.name.removeprefix("caches/") for one in page.caches]
        if size and page.next_page_token:
            assert len(page.caches) == size
        if not page.next_page_token:
            assert page.caches or pages == 1, "no empty page at the end"
            return names
        request.page_token = page.next_page_token


def ids(where):
    return sorted(f"{'tex' if i % 2 else 'sign'}-{i:02}" for i in range(30) if where(i))


FILTERS = {
    "": lambda i: True,
    'cache_id = "tex*"': lambda i: i % 2,
    "cache_id = *-1*": lambda i: 10 <= i < 20,
    'cache_id = "*-2*"': lambda i: i >= 20,
    "cache_id : -1": lambda i: 10 <= i < 20,
    "cache_id != sign*": lambda i: i % 2,
    "cache_id >= tex": lambda i: i % 2,
    "labels.team = weaving": lambda i: i % 3 == 0,
    'labels.team = "spin mill"': lambda i: i % 3 == 2,
    "labels.team : ing": lambda i: i % 3 != 2,
    'labels."on hold" = yes': lambda i: i % 7 == 0,
    'labels:"on hold"': lambda i: i % 7 == 0,
    'labels."on hold" != yes': lambda i: i % 7,
    "labels:none": lambda i: False,
    "class_count > 2": lambda i: i % 5 > 0,
    "class_count <= 3 AND class_count != 2": lambda i: i % 5 == 1,
    "key_count = 8": lambda i: i % 5 == 2,
    "method = gda": lambda i: i % 3 == 2,
    "method != METHOD_CLASS_MEAN": lambda i: i % 3,
    'created_by = Ada AND description : "number"': lambda i: i < 10,
    r'created_by = "Grace \*"': lambda i: i >= 10,
    'labels.team = "weaving" AND cache_id = "tex*" AND class_count > 2': lambda i: i % 3 == 0
    and i % 2
    and i % 5 > 0,
    "create_time > 2020-01-01T00:00:00Z": lambda i: True,
    'create_time < "2020-01-01T00:00:00+01:00"': lambda i: False,
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_lets_through_what_it_says_page_by_page(shelf, text):
    expected = ids(FILTERS[text])
    for size in (0, 1, 3, 7, 30):
        assert listed(shelf, text, size) == expected, size


def test_a_masked_list_is_filtered_all_the_same(shelf):
    request = cache.ListCachesRequest(filter="class_count = 6", read_mask={"paths": ["name"]})
    page = shelf.api.caches.ListCaches(request)
    assert len(page.caches) == 6 and not any(c.HasField("latest") for c in page.caches)
    request.read_mask.paths[:] = ["etag"]
    assert all(c.etag and not c.name for c in shelf.api.caches.ListCaches(request).caches)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = red", ["character 1", '"colour"', "cache_id", "labels.KEY"]),
        ("class_count > many", ["character 15", '"many"', "whole number"]),
        ("cache_id = a OR cache_id = b", ["character 14", '"OR"', "AND"]),
        ("(cache_id = a)", ["character 1"]),
        ("cache_id =", ["the end", "value"]),
        ('cache_id = "a', ["closing"]),
        ("method = best", ['"best"', "TIP_ADAPTER"]),
        ("create_time > now", ['"now"']),
    ],
)
def test_an_error_says_where_and_what(shelf, text, words):
    with pytest.raises(grpc.RpcError) as caught:
        shelf.api.caches.ListCaches(cache.ListCachesRequest(filter=text))
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["filter"])
    for word in words:
        assert word in problem.message, problem.message


def test_examples_page_by_page(features, clusters, name):
    points, labels = clusters.draw(labels=np.arange(50) % 5)
    held, held_labels = clusters.draw(labels=np.arange(20) % 5)
    examples = wire.examples_of(points, labels, prefix="train/") + wire.examples_of(
        held, held_labels, validation=True, prefix="held/"
    )
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes(["a", "b", "a", "d", "e"]))
    features.api.create(spec, examples)
    every = features.api.examples(name)
    assert [e.example_id for e in every] == [e.example_id for e in examples]
    assert [e.class_index for e in every] == [e.class_index for e in examples]
    assert [e.display_name for e in every] == ["abade"[e.class_index] for e in examples]
    assert [e.validation for e in every] == [e.validation for e in examples]
    for text, where in {
        "class_index = 2": lambda e: e.class_index == 2,
        "validation = true": lambda e: e.validation,
        "validation = false AND class_index >= 3": lambda e: not e.validation
        and e.class_index >= 3,
        "display_name = a": lambda e: e.class_index in (0, 2),
        'example_id = "train/1*"': lambda e: e.example_id.startswith("train/1"),
        "example_id : /4": lambda e: "/4" in e.example_id,
        "class_index = 9": lambda e: False,
    }.items():
        expected = [e.example_id for e in examples if where(e)]
        for size in (0, 1, 9, 70):
            found = features.api.examples(name, filter=text, page_size=size)
            assert [e.example_id for e in found] == expected, (text, size)
    # A new version between two pages does not mix two lists.
    request = cache.ListExamplesRequest(parent=name, page_size=40)
    first = features.api.caches.ListExamples(request)
    features.api.add(cache.AddExamplesSpec(base=name, remove_example_ids=["train/0"]))
    request.page_token = first.next_page_token
    rest = features.api.caches.ListExamples(request)
    assert [*first.examples, *rest.examples] == every
    assert len(features.api.examples(name)) == 69
    for token in ("x", "1", "1.x", "-1.2"):
        with pytest.raises(grpc.RpcError) as caught:
            features.api.caches.ListExamples(
                cache.ListExamplesRequest(parent=name, page_token=token)
            )
        assert Problem.of_call(caught.value).fields == ["page_token"]
    with pytest.raises(grpc.RpcError) as caught:
        features.api.caches.ListExamples(cache.ListExamplesRequest(parent=name, page_size=-1))
    assert Problem.of_call(caught.value).fields == ["page_size"]
