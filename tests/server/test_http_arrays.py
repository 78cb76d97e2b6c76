"""NumPy's arrays as the bodies of requests: their rows are embeddings."""

from __future__ import annotations

import io
import json
import subprocess

import numpy as np
import pytest
import wire
from conftest import WIDTH
from models import points_cache
from over_http import call, shown
from test_hostile_messages import peak, reset_peak
from wire import classify

NPY = "application/x-npy"


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def one_by_one(server, name: str, points) -> list[dict]:
    """What gRPC answers to each."""
    requests = [
        classify.ClassifyRequest(cache=name, input=wire.embedding(point)) for point in points
    ]
    return [shown(server.api.classifying.Classify(request).classification) for request in requests]


def test_every_row_is_classified(features, clusters, name, tmp_path):
    points_cache(features, name, clusters)
    points = clusters.draw(70)[0].astype(np.float32)
    expected = one_by_one(features, name, points)
    (tmp_path / "features.npy").write_bytes(saved(points))
    url = f"http://{features.address}/v1/caches/{name}:classifyStream?config.ordered=true"
    command = ["curl", "-sS", "--fail-with-body", "-H", f"Content-Type: {NPY}", url]
    command += ["--data-binary", f"@{tmp_path / 'features.npy'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    results = [one for line in lines for one in line["results"]]
    assert [one["id"] for one in results] == [str(at) for at in range(70)]
    assert [one["classification"] for one in results] == expected


@pytest.mark.parametrize("kind", [NPY, "application/octet-stream", None])
def test_unary_methods_take_arrays_too(features, clusters, name, kind):
    points_cache(features, name, clusters)
    points = clusters.draw(5)[0].astype(np.float32)
    said = {"content_type": kind} if kind else {}
    path = f"/v1/caches/{name}:classify?topK=2"
    for one in (points[:1], points[0]):
        answer = call(features, "POST", path, saved(one), **said).json["classification"]
        expected = one_by_one(features, name, points[:1])[0]["top"][:2]
        assert answer["top"] == expected
    embedded = call(features, "POST", "/v1/inputs:embed", saved(points), **said).json
    values = [one["embedding"]["values"] for one in embedded["inputs"]]
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    np.testing.assert_allclose(values, unit, rtol=1e-5, atol=1e-6)


POINTS = np.ones((2, WIDTH), np.float32)
WHOLE = saved(POINTS)
WRONG = {
    "too many rows": (WHOLE, "classifyStream"),
    "another width": (saved(POINTS[:1, :3]), f"the bundle's width is {WIDTH}"),
    "wide floats": (saved(POINTS.astype("<f8")), "32-bit floats"),
    "big-endian": (saved(POINTS.astype(">f4")), "32-bit floats"),
    "integers": (saved(POINTS.astype(int)), "32-bit floats"),
    "Fortran's order": (saved(np.asfortranarray(POINTS)), "C order"),
    "three sides": (saved(POINTS[None]), "not (rows, width)"),
    "a number": (saved(np.float32(1)), "not (rows, width)"),
    "no rows": (saved(POINTS[:0]), "0 rows"),
    "cut off": (WHOLE[:-1], f"2 rows of {WIDTH}"),
    "too long": (WHOLE + b"\0", f"2 rows of {WIDTH}"),
    "no header": (WHOLE[:8], "header"),
    "half a header": (WHOLE[:40], "header"),
    "an endless header": (WHOLE[:6] + b"\2\0\xff\xff\xff\xff" + WHOLE[10:], "header"),
    "no version": (WHOLE[:6] + b"\7" + WHOLE[7:], "header"),
    "many rows": (WHOLE.replace(b"(2,", f"({1 << 62},".encode()), "rows of"),
    "no array": (b"{}", "header"),
    "not finite": (saved(POINTS[:1] * np.nan), "NaN"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_an_array_is_said(embedding_cache, name):
    body, words = WRONG[name]
    answer = call(embedding_cache, "POST", "/v1/caches/here:classify", body, content_type=NPY)
    assert (answer.status, answer.problem.reason) == (400, "FIELD_INVALID"), answer.body
    assert words in answer.problem.message


def test_millions_of_narrow_rows_take_no_memory(embedding_cache):
    """A message is made of each row, and takes more than the row."""
    before = reset_peak(embedding_cache)
    body = saved(np.ones((4 << 20, 1), np.float32))
    path = "/v1/caches/here:classifyStream"
    answer = call(embedding_cache, "POST", path, body, content_type=NPY)
    assert (answer.status, answer.problem.reason) == (400, "FIELD_INVALID"), answer.body
    assert "4194304 rows of 1 floats are too many" in answer.problem.message
    assert peak(embedding_cache) - before < 8 * len(body)


def test_methods_that_need_classes_take_none(embedding_cache):
    for path in ("/v1/caches/here:addExamples", "/v1/caches:evaluate", "/v1/caches/here:fineTune"):
        answer = call(embedding_cache, "POST", path, WHOLE, content_type=NPY)
        assert (answer.status, answer.problem.reason) == (415, "CONTENT_TYPE_UNKNOWN"), path
    # In an array without classes, the most typical rows are told.
    path = "/v1/caches:suggestExamples?config.count=2"
    points = np.random.default_rng().normal(size=(9, WIDTH)).astype(np.float32)
    found = call(embedding_cache, "POST", path, saved(points), content_type=NPY).json
    assert {one["id"] for one in found["suggestions"]} <= {str(at) for at in range(9)}
    assert len(found["suggestions"]) == 2
