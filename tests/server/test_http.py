"""HTTP with JSON says what gRPC says: every method, every error, of the same services."""

from __future__ import annotations

import base64
import json
import re
import subprocess

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH
from google.protobuf import json_format
from models import pictures_cache, points_cache
from over_http import call, problem_of, shown
from pictures import photo, png
from rules import METHODS
from wire import Problem, cache, classify, finetune


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def to_json(message) -> dict:
    return json_format.MessageToDict(message)


def test_a_unary_call_says_what_grpc_says(features, clusters, name):
    points_cache(features, name, clusters)
    point = clusters.draw(1)[0][0]
    options = {"topK": 2, "logits": True, "neighbours": 3, "embedding": True}
    body = {"input": {"embedding": {"values": point.tolist()}}, "options": options}
    for path in (f"caches/{name}", f"caches/{name}/versions/1"):
        answer = call(features, "POST", f"/v1/{path}:classify", body)
        assert answer.status == 200
        expected = features.api.one(
            name, wire.embedding(point), top_k=2, logits=True, neighbours=3, embedding=True
        )
        got = json_format.ParseDict(answer.json, classify.ClassifyResponse()).classification
        assert got == expected
        # What has no presence is always there.
        assert answer.json["classification"]["probabilities"] == []
        indices = [one["index"] for one in answer.json["classification"]["top"]]
        assert indices == [one.index for one in expected.top]


def test_names_of_the_protos_and_of_json_are_taken(features, clusters, name):
    points_cache(features, name, clusters)
    point = clusters.draw(1)[0][0].tolist()
    for options in ({"topK": 1}, {"top_k": 1}, {"topK": "1"}, {"topK": 1.0}):
        body = {"input": {"embedding": {"values": point}}, "options": options}
        answer = call(features, "POST", f"/v1/caches/{name}:classify", body)
        assert len(answer.json["classification"]["top"]) == 1, options


def test_query_parameters_are_fields(features, clusters, name):
    points_cache(features, name, clusters)
    body = {"input": {"embedding": {"values": clusters.draw(1)[0][0].tolist()}}}
    for query in ("options.topK=1", "options.top_k=1", "topK=1", "top_k=1"):
        answer = call(features, "POST", f"/v1/caches/{name}:classify?{query}", body)
        assert len(answer.json["classification"]["top"]) == 1, query
    listed = call(
        features, "GET", f"/v1/caches?filter=cache_id%3D{name}&readMask=name,versionCount"
    )
    assert [one["name"] for one in listed.json["caches"]] == [f"caches/{name}"]
    assert listed.json["caches"][0]["versionCount"] == 1
    assert "latest" not in listed.json["caches"][0]
    page = call(features, "GET", f"/v1/caches/{name}/examples?pageSize=7").json
    assert len(page["examples"]) == 7 and page["nextPageToken"]
    for query, field in {
        "nothing=1": "nothing",
        "topK=many": "topK",
        "topK=1&topK=2": "topK",
        "options.nothing=1": "options.nothing",
        "priority=SOON": "priority",
    }.items():
        problem = call(features, "POST", f"/v1/caches/{name}:classify?{query}", body).problem
        assert problem.reason == "FIELD_INVALID" and problem.fields == [field], (query, problem)


@pytest.mark.parametrize(
    "kind",
    [
        *(None, "image/png", "IMAGE/JPG; x=y", "application/octet-stream", "text/plain"),
        # S3's, and what is no type of a picture at all: its first bytes count.
        *("binary/octet-stream", "application/pdf", "nothing"),
    ],
)
def test_a_picture_is_a_body(tiny, chance, name, kind):
    pictures_cache(tiny, name, chance)
    file = png(photo(chance, 1))
    headers = {} if kind is None else {"content_type": kind}
    answer = call(tiny, "POST", f"/v1/caches/{name}:classify?topK=3&logits=true", file, **headers)
    expected = tiny.api.one(name, wire.encoded(file), top_k=3, logits=True)
    got = json_format.ParseDict(answer.json, classify.ClassifyResponse()).classification
    assert got == expected
    embedded = call(tiny, "POST", "/v1/inputs:embed", file, **headers).json["inputs"]
    assert len(embedded) == 1 and len(embedded[0]["embedding"]["values"]) == 48


def test_curl_as_the_readme_has_it(tiny, chance, name, tmp_path):
    pictures_cache(tiny, name, chance)
    file = tmp_path / "cat.png"
    file.write_bytes(png(photo(chance, 1)))
    for arguments in (["--data-binary", f"@{file}"], ["-T", str(file), "-X", "POST"]):
        url = f"http://{tiny.address}/v1/caches/{name}:classify"
        command = ["curl", "--silent", "--fail-with-body", *arguments, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["classification"]["top"]
    command = ["curl", "--silent", "--http2-prior-knowledge", f"http://{tiny.address}/v1/caches"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f"caches/{name}" in [one["name"] for one in json.loads(done.stdout)["caches"]]


def test_a_cache_is_made_and_goes_through_its_life(features, clusters, name):
    points, labels = clusters.draw(40)
    spec = {"cacheId": name, "classes": [{"displayName": c} for c in "abcde"]}
    examples = [to_json(one) for one in wire.examples_of(points, labels)]
    lines = [{"spec": spec}] + [
        {"examples": {"examples": part}} for part in wire.batched(examples, 16)
    ]
    answer = call(features, "POST", "/v1/caches", lines)
    assert answer.status == 200, answer.body
    assert answer.lines[-1]["version"]["name"] == f"caches/{name}/versions/1"
    assert any("progress" in line for line in answer.lines[:-1])

    # Path and query are the first message; the first line may be part of it.
    more = [to_json(one) for one in wire.examples_of(*clusters.draw(3), prefix="new")]
    lines = [{"examples": {"examples": more}}]
    path = f"/v1/caches/{name}:addExamples?spec.description=more"
    added = call(features, "POST", path, lines).lines[-1]["version"]
    assert (added["version"], added["description"]) == ("2", "more")
    lines = [{"spec": {"createdBy": "me", "removeExampleIds": ["new0"]}}]
    added = call(features, "POST", f"/v1/caches/{name}/versions/2:addExamples", lines).lines[-1]
    assert added["version"]["parent"] == f"caches/{name}/versions/2"
    assert added["version"]["createdBy"] == "me"

    got = call(features, "GET", f"/v1/caches/{name}/versions/1").json
    assert got == shown(features.api.caches.GetVersion(cache.GetVersionRequest(name=f"{name}@1")))
    alias = call(features, "PUT", f"/v1/caches/{name}/aliases/stable", {"version": 2}).json
    assert alias["aliases"] == {"stable": "2"}
    assert call(features, "GET", f"/v1/caches/{name}/aliases/stable").json["version"] == "2"
    conflict = call(features, "DELETE", f"/v1/caches/{name}/versions/2")
    assert (conflict.status, conflict.problem.reason) == (400, "CONFLICT")
    stale = call(features, "DELETE", f"/v1/caches/{name}/aliases/stable?etag=old")
    assert (stale.status, stale.problem.reason) == (409, "ETAG_MISMATCH")
    assert call(features, "DELETE", f"/v1/caches/{name}/aliases/stable").json["aliases"] == {}
    pruned = call(features, "POST", f"/v1/caches/{name}:pruneVersions", {"keep": 1}).json
    assert pruned == {"deletedVersions": ["2", "1"]}
    assert call(features, "DELETE", f"/v1/caches/{name}").json == {}
    gone = call(features, "GET", f"/v1/caches/{name}")
    assert (gone.status, gone.problem.reason) == (404, "NOT_FOUND")


def test_a_version_goes_out_and_in_as_a_file(features, clusters, name):
    points_cache(features, name, clusters)
    path = f"/v1/caches/{name}/versions/1:export"
    file = call(features, "GET", path, accept="application/octet-stream")
    header, expected = features.api.export(f"caches/{name}/versions/1")
    assert int(file.headers["content-length"]) == header.size_bytes == len(file.body)
    assert file.body[-2000:] == expected[-2000:]
    first, *chunks = call(features, "GET", path).lines
    assert first["header"]["sizeBytes"] == str(len(expected))
    assert sum(len(base64.b64decode(one["chunk"])) for one in chunks) == len(expected)
    copy = call(features, "POST", f"/v1/caches/{name}-copy/versions:import", file.body)
    assert copy.json["name"] == f"caches/{name}-copy/versions/1"
    broken = call(features, "POST", f"/v1/caches/{name}-no/versions:import", file.body[:-9])
    assert (broken.status, broken.problem.reason) == (400, "CACHE_INVALID")


def test_a_stream_of_items(features, clusters, name):
    points_cache(features, name, clusters)
    points, _ = clusters.draw(50)
    items = [to_json(wire.item(str(i), wire.embedding(p))) for i, p in enumerate(points)]
    items.insert(25, {"id": "bad", "input": {"embedding": {"values": [1.0]}}})
    lines = [{"items": {"items": part}} for part in wire.batched(items, 8)]
    path = f"/v1/caches/{name}:classifyStream?config.ordered=true&config.options.topK=1"
    answer = call(features, "POST", path, lines)
    results = [one for line in answer.lines for one in line["results"]]
    assert [one["id"] for one in results] == [one["id"] for one in items]
    error = problem_of(results[25]["error"])
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    expected = features.api.logits(name, map(wire.embedding, points)).argmax(1).tolist()
    found = [one["classification"]["top"][0]["index"] for one in results if one["id"] != "bad"]
    assert found == expected
    events = call(features, "POST", path, lines, accept="text/event-stream")
    assert events.headers["content-type"] == "text/event-stream"
    *data, end = events.body.decode().removesuffix("\n\n").split("\n\n")
    assert end == "event: end\ndata: {}"
    parsed = [json.loads(event.removeprefix("data: ")) for event in data]
    assert [one["id"] for event in parsed for one in event["results"]] == [o["id"] for o in items]


def test_results_come_while_items_are_sent(features, clusters, name):
    """The request is not read to its end first: both directions stream."""
    import http.client

    points_cache(features, name, clusters)
    connection = http.client.HTTPConnection(features.address, timeout=60)
    connection.putrequest("POST", f"/v1/caches/{name}:classifyStream")
    connection.putheader("content-type", "application/x-ndjson")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()

    def send(text: str) -> None:
        connection.send(f"{len(text):x}\r\n{text}\r\n".encode())

    values = clusters.draw(1)[0][0].tolist()
    response = None
    for i in range(3):
        line = json.dumps(
            {"items": {"items": [{"id": f"{i}", "input": {"embedding": {"values": values}}}]}}
        )
        send(line + "\n")
        response = response or connection.getresponse()
        assert json.loads(response.readline())["results"][0]["id"] == f"{i}"
    connection.send(b"0\r\n\r\n")
    assert response.read() == b""
    connection.close()


def test_fine_tuning_is_watched(features, clusters, name):
    points_cache(features, name, clusters)
    lines = call(features, "POST", f"/v1/caches/{name}:fineTune", {"epochs": 2}).lines
    assert lines[0]["run"]["name"].startswith("fineTunes/")
    assert lines[-1]["run"]["state"] == "STATE_SUCCEEDED"
    assert lines[-1]["run"]["version"]["name"] == f"caches/{name}/versions/2"
    run = call(features, "GET", f"/v1/{lines[0]['run']['name']}").json
    assert run == shown(
        features.api.tuning.GetFineTune(finetune.GetFineTuneRequest(name=run["name"]))
    )
    for path in (f"/v1/caches/{name}/fineTunes", f"/v1/fineTunes?cache={name}"):
        assert [one["name"] for one in call(features, "GET", path).json["fineTunes"]] == [
            run["name"]
        ]


def test_evaluation(features, clusters, name):
    points_cache(features, name, clusters)
    points, labels = clusters.draw(20)
    items = [
        {"id": str(i), "classIndex": int(label), "input": to_json(wire.embedding(point))}
        for i, (point, label) in enumerate(zip(points, labels, strict=True))
    ]
    path = f"/v1/caches:evaluate?config.caches={name}&config.caches={name}@1"
    answer = call(features, "POST", path, [{"items": {"items": items}}]).json
    first, second = answer["evaluations"]
    assert first == second and first["count"] == "20"
    assert first["confusion"] == [str(int(value)) for value in first["confusion"]]


ERRORS = {
    "/v1/caches/Not-Good": ("GET", None, 400, "NAME_INVALID"),
    "/v1/caches/there-is-none": ("GET", None, 404, "NOT_FOUND"),
    "/v1/caches/there-is-none:classify": ("POST", {}, 404, "NOT_FOUND"),
    "/v1/caches/a:fineTune": ("POST", {"epochs": -1}, 400, "FIELD_INVALID"),
    "/v1/nothing": ("GET", None, 404, "PATH_UNKNOWN"),
    "/v1/caches/a/b": ("GET", None, 404, "PATH_UNKNOWN"),
    "/v1/caches/a%2Fversions%2F1": ("DELETE", None, 404, "PATH_UNKNOWN"),
    "/v1/serverInfo": ("POST", {}, 405, "VERB_UNKNOWN"),
}


@pytest.mark.parametrize("path", ERRORS)
def test_errors_are_statuses(features, path):
    method, body, status, reason = ERRORS[path]
    answer = call(features, method, path, body)
    assert answer.status == status, answer.body
    assert answer.problem.reason == reason
    assert answer.problem.message.isprintable()
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ("{", "JSON_INVALID", None),
        ("[]", "FIELD_INVALID", "body"),
        ('{"input": {}} x', "JSON_INVALID", None),
        ('{"inptu": {}}', "FIELD_INVALID", "inptu"),
        (
            '{"input": {"embedding": {"values": [1, "x"]}}}',
            "FIELD_INVALID",
            "input.embedding.values[1]",
        ),
        ('{"input": {"embedding": {"values": 1}}}', "FIELD_INVALID", "input.embedding.values"),
        ('{"input": {"encodedImage": "@@@"}}', "FIELD_INVALID", "input.encodedImage"),
        ('{"input": {"encodedImage": "", "embedding": {}}}', "FIELD_INVALID", "input.embedding"),
        ('{"input": {}, "input": {}}', "FIELD_INVALID", "input"),
        ('{"options": {"topK": 1e30}}', "FIELD_INVALID", "options.topK"),
        ('{"options": {"topK": 2147483648}}', "FIELD_INVALID", "options.topK"),
        ('{"options": {"logits": 1}}', "FIELD_INVALID", "options.logits"),
        ('{"priority": "SOON"}', "FIELD_INVALID", "priority"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(features, clusters, name, body, reason, field):
    points_cache(features, name, clusters)
    path = f"/v1/caches/{name}:classify"
    answer = call(features, "POST", path, body, content_type="application/json")
    assert answer.status == 400, answer.body
    assert answer.problem.reason == reason, answer.problem
    assert answer.problem.fields == ([] if field is None else [field]), answer.problem
    [request] = [one for one in answer.json["details"] if one["@type"].endswith("RequestInfo")]
    assert request["requestId"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("kind", ["application/json", "text/json", None])
def test_a_byte_order_mark_is_no_part_of_json(features, clusters, name, kind):
    points_cache(features, name, clusters)
    headers = {} if kind is None else {"content_type": kind}
    one = {"embedding": {"values": clusters.draw(1)[0][0].tolist()}}
    body = b"\xef\xbb\xbf" + json.dumps({"input": one}).encode()
    answer = call(features, "POST", f"/v1/caches/{name}:classify", body, **headers)
    assert answer.status == 200, answer.body
    items = b"\xef\xbb\xbf" + json.dumps({"items": {"items": [{"id": "x", "input": one}]}}).encode()
    path = f"/v1/caches/{name}:classifyStream"
    kind = "application/x-ndjson"
    [line] = call(features, "POST", path, items + b"\r\n\r\n", content_type=kind).lines
    assert line["results"][0]["id"] == "x"


def test_what_is_nearly_base64_is_told_what_is_wrong(tiny):
    for text, word in (
        ("data:image/png;base64,iVBORw0KGgo=", "data: address"),
        ("iVBO\nRw0K", "base64 -w 0"),
    ):
        answer = call(tiny, "POST", "/v1/caches/any:classify", {"input": {"encodedImage": text}})
        assert answer.problem.fields == ["input.encodedImage"]
        assert word in answer.problem.message


def test_an_error_after_the_first_message_is_the_last_line(features, name):
    spec = {"cacheId": name, "classes": [{"displayName": c} for c in "ab"]}
    values = np.ones(WIDTH).tolist()
    one = {"classIndex": 0, "input": {"embedding": {"values": values}}}
    lines = [{"spec": spec}, {"examples": {"examples": [one] * 3}}]
    answer = call(features, "POST", "/v1/caches", lines)
    problem = problem_of(answer.lines[-1]["error"]) if answer.status == 200 else answer.problem
    assert problem.fields == ["spec.classes[1]"], problem
    events = call(features, "POST", "/v1/caches", lines, accept="text/event-stream")
    if events.status == 200:
        *_, last = events.body.decode().removesuffix("\n\n").split("\n\n")
        kind, data = last.split("\n")
        assert kind == "event: error"
        assert problem_of(json.loads(data.removeprefix("data: "))).fields == ["spec.classes[1]"]


def test_content_types(features, clusters, name):
    points_cache(features, name, clusters)
    path = f"/v1/caches/{name}:pruneVersions"
    body = json.dumps({"keep": 5, "validateOnly": True})
    # curl's own type for -d.
    for kind in ("application/json; charset=utf-8", "application/x-www-form-urlencoded"):
        answer = call(features, "POST", path, body, content_type=kind)
        assert answer.json == {"deletedVersions": []}, kind
    for headers in (
        {"content_type": "application/xml"},
        {"content_type": "image/png"},
        {"content_type": "application/json", "content_encoding": "br"},
    ):
        answer = call(features, "POST", path, body, **headers)
        assert (answer.status, answer.problem.reason) == (415, "CONTENT_TYPE_UNKNOWN"), headers
    # It says what is taken, and what gRPC needs.
    assert "JSON" in call(features, "POST", path, body, content_type="text/csv").problem.message
    grpc_path = "/tipserve.v1.CacheService/ListCaches"
    answer = call(features, "POST", grpc_path, b"\0" * 5, content_type="application/grpc")
    assert (answer.status, answer.problem.reason) == (415, "CONTENT_TYPE_UNKNOWN")
    assert "gRPC needs HTTP/2" in answer.problem.message


def test_the_deadline_is_a_header(features, clusters, name):
    points_cache(features, name, clusters)
    body = {"input": {"embedding": {"values": clusters.draw(1)[0][0].tolist()}}}
    path = f"/v1/caches/{name}:classify"
    assert call(features, "POST", path, body, request_timeout="30").status == 200
    late = call(features, "POST", path, body, request_timeout="0.000001")
    assert late.status in (429, 504)
    assert late.problem.reason in ("DEADLINE_EXCEEDED", "DEADLINE_UNREACHABLE")
    for bad in ("0", "-1", "soon", "nan", "1e999"):
        problem = call(features, "POST", path, body, request_timeout=bad).problem
        assert problem.fields == ["request-timeout"], bad
    assert call(features, "POST", path, body, grpc_timeout="1S").problem.fields == ["grpc-timeout"]


def test_request_ids_come_back(features):
    for path in ("/v1/serverInfo", "/v1/caches/there-is-none"):
        answer = call(features, "GET", path, x_request_id="mine-7")
        assert answer.headers["x-request-id"] == "mine-7"
        if answer.status != 200:
            ids = [d["requestId"] for d in answer.json["details"] if "requestId" in d]
            assert ids == ["mine-7"]


def test_who_may_call_from_where(features):
    ok = {"127.0.0.1:1": True, "localhost": True, "gpu-box:80": True, "a.svc": True}
    for host, allowed in (ok | {"example.org": False, "127.0.0.1.nip.io": False}).items():
        answer = call(features, "GET", "/v1/serverInfo", host=host)
        assert (answer.status == 200) == allowed, host
        if not allowed:
            assert (answer.status, answer.problem.reason) == (403, "HOST_NOT_ALLOWED")
    own = f"http://{features.address}"
    assert call(features, "GET", "/v1/serverInfo", origin=own).status == 200
    for origin in ("https://example.org", "null", "http://127.0.0.1:1"):
        answer = call(features, "GET", "/v1/serverInfo", origin=origin)
        assert (answer.status, answer.problem.reason) == (403, "ORIGIN_NOT_ALLOWED")
    rebound = call(features, "GET", "/v1/serverInfo", origin="http://evil.test", host="evil.test")
    assert rebound.status == 403


def test_the_description_and_its_page(features):
    document = call(features, "GET", "/openapi.json")
    paths = document.json["paths"]
    operations = {one["operationId"] for verbs in paths.values() for one in verbs.values()}
    assert {*METHODS, "CreateEmbeddings", "InferenceModelInfer"} <= operations
    again = call(features, "GET", "/openapi.json", if_none_match=document.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    page = call(features, "GET", "/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for path in re.findall(rb'(?:src|href)="(/docs/[^"]+)"', page.body):
        assert call(features, "GET", path.decode()).status == 200, path


def test_grpc_and_web_go_on_beside_it(features):
    assert features.api.classifying.GetServerInfo(classify.GetServerInfoRequest()).version
    problem = None
    try:
        features.api.caches.GetCache(cache.GetCacheRequest(name="there-is-none"))
    except grpc.RpcError as error:
        problem = Problem.of_call(error)
    over_http = call(features, "GET", "/v1/caches/there-is-none").problem
    assert (problem.code, problem.reason, problem.message, problem.metadata) == (
        over_http.code,
        over_http.reason,
        over_http.message,
        over_http.metadata,
    )
