"""What HTTP's clients do besides GET and POST of JSON: HEAD, OPTIONS, slashes at the end, old and
chunked HTTP; numbers in base64."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess

import numpy as np
import pytest
import wire
from google.protobuf import json_format
from models import pictures_cache, points_cache
from over_http import call
from pictures import photo, png

PACKED = "application/json;floats=base64"


def packed(values) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_head_says_what_get_says_without_its_body(features, clusters, name):
    points_cache(features, name, clusters)
    for path in (f"/v1/caches/{name}", "/v1/serverInfo", "/openapi.json", "/"):
        head, got = (call(features, verb, path) for verb in ("HEAD", "GET"))
        assert (head.status, head.body) == (got.status, b"") == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert int(call(features, "HEAD", f"/v1/caches/{name}").headers["content-length"]) > 100
    missing = call(features, "HEAD", f"/v1/caches/{name}-none")
    assert (missing.status, missing.body) == (404, b"")
    # Nothing is done for HEAD that only another verb does.
    refused = call(features, "HEAD", f"/v1/caches/{name}:classify")
    assert (refused.status, refused.headers["allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize(
    ("path", "verbs"),
    [
        ("caches", "POST, GET, HEAD, OPTIONS"),
        ("caches/a", "GET, HEAD, DELETE, OPTIONS"),
        ("caches/a:classify", "POST, OPTIONS"),
        ("caches/a/aliases/b", "PUT, DELETE, GET, HEAD, OPTIONS"),
    ],
)
def test_options_says_what_a_path_takes(features, path, verbs):
    answer = call(features, "OPTIONS", f"/v1/{path}")
    assert (answer.status, answer.body) == (204, b"")
    assert set(answer.headers["allow"].split(", ")) == set(verbs.split(", "))
    assert call(features, "OPTIONS", "/v1/nothing").status == 404


@pytest.mark.parametrize("what", ["CreateCache", "AddExamples", "FineTune"])
def test_progress_comes_as_server_sent_events(features, clusters, name, what):
    if what != "CreateCache":
        points_cache(features, name, clusters)
    examples = wire.examples_of(*clusters.draw(20), prefix="new")
    lines = [{"examples": {"examples": [json_format.MessageToDict(one) for one in examples]}}]
    classes = [{"displayName": one} for one in "abcde"]
    path, body = {
        "CreateCache": ("/v1/caches", [{"spec": {"cacheId": name, "classes": classes}}, *lines]),
        "AddExamples": (f"/v1/caches/{name}:addExamples", lines),
        "FineTune": (f"/v1/caches/{name}:fineTune", {"epochs": 3}),
    }[what]
    events = call(features, "POST", path, body, accept="text/event-stream")
    assert (events.status, events.headers["content-type"]) == (200, "text/event-stream")
    *data, end = events.body.decode().removesuffix("\n\n").split("\n\n")
    assert end == "event: end\ndata: {}"
    told = [json.loads(event.removeprefix("data: ")) for event in data]
    assert any("progress" in one for one in told[:-1])
    version = told[-1].get("version") or told[-1]["run"]["version"]
    assert version["name"] == f"caches/{name}/versions/{1 + (what != 'CreateCache')}"


def test_the_metrics_have_a_port_of_their_own(features):
    for path in ("/metrics", "/healthz", "/readyz"):
        assert features.http(path)[0] == 200, path
        answer = call(features, "GET", path)
        assert (answer.status, answer.problem.reason) == (404, "PATH_UNKNOWN"), path
    for path in ("/v1/caches", "/v2", "/openapi.json", "/"):
        assert call(features, "GET", path).status == 200, path
        assert features.http(path)[0] == 404, path


def test_a_slash_at_the_end_means_nothing(features, clusters, name):
    points_cache(features, name, clusters)
    for path in ("/v1/caches", f"/v1/caches/{name}", f"/v1/caches/{name}/versions", "/v2"):
        assert call(features, "GET", f"{path}/").json == call(features, "GET", path).json, path
    assert call(features, "GET", "/v1/caches//").status == 404


def test_lists_of_floats_go_in_and_out_as_base64(features, clusters, name):
    points_cache(features, name, clusters)
    point = clusters.draw(1)[0][0].astype(np.float32)
    options = {"logits": True, "embedding": True}
    path = f"/v1/caches/{name}:classify"
    answers = [
        call(
            features,
            "POST",
            path,
            {"input": {"embedding": {"values": values}}, "options": options},
            accept=accept,
        ).json["classification"]
        for values in (point.tolist(), packed(point))
        for accept in ("application/json", PACKED)
    ]
    wanted = features.api.one(name, wire.embedding(point), logits=True, embedding=True)
    for at, answer in enumerate(answers):
        lists = answer["logits"], answer["embedding"]["values"]
        logits, values = map(unpacked, lists) if at % 2 else map(np.float32, lists)
        assert np.array_equal(logits, np.float32(wanted.logits))
        assert np.array_equal(values, np.float32(wanted.embedding.values))
    # Lines and events, too.
    line = {"items": {"items": [{"id": "1", "input": {"embedding": {"values": packed(point)}}}]}}
    path = f"/v1/caches/{name}:classifyStream?config.options.logits=true"
    accept = "application/x-ndjson;floats=base64"
    [answer] = call(features, "POST", path, [line], accept=accept).lines
    logits = unpacked(answer["results"][0]["classification"]["logits"])
    assert np.array_equal(logits, np.float32(wanted.logits))
    for bad in ("@@", base64.b64encode(b"12345").decode(), packed([np.nan] * len(point))):
        body = {"input": {"embedding": {"values": bad}}}
        problem = call(features, "POST", f"/v1/caches/{name}:classify", body).problem
        assert problem.reason == "FIELD_INVALID", (bad, problem)
        assert problem.fields[0].startswith("input.embedding"), problem


def test_a_picture_comes_by_old_and_chunked_http(tiny, chance, name, tmp_path):
    pictures_cache(tiny, name, chance)
    file = tmp_path / "picture.png"
    file.write_bytes(png(photo(chance, 1)))
    wanted = tiny.api.one(name, wire.encoded(file.read_bytes())).top[0]
    path = f"/v1/caches/{name}:classify"
    for flags in (
        ["--http1.0"],
        ["--http2-prior-knowledge"],
        ["--header", "transfer-encoding: chunked"],
        ["--header", "expect: 100-continue"],
    ):
        command = ["curl", "--silent", "--fail-with-body", *flags, "--data-binary", f"@{file}"]
        command.append(f"http://{tiny.address}{path}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (flags, done)
        [best, *_] = json.loads(done.stdout)["classification"]["top"]
        assert best["displayName"] == wanted.display_name, flags
    # A body whose length nobody says, in pieces.
    connection = http.client.HTTPConnection(tiny.address, timeout=60)
    data = file.read_bytes()
    pieces = (data[at : at + 1000] for at in range(0, len(data), 1000))
    connection.request("POST", path, pieces, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
