"""Pictures in forms, as curl's -F sends them."""

from __future__ import annotations

import json
import subprocess

import pytest
import wire
from over_http import call
from pictures import photo, png, saved

BOUNDARY = "xxBOUNDARYxx"


def form(*parts) -> tuple[bytes, str]:
    """A body of (name, file name or None, data), and its type."""
    body = b""
    for name, file, data in parts:
        file = "" if file is None else f'; filename="{file}"'
        body += (
            f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        )
        body += (data if isinstance(data, bytes) else data.encode()) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def send(server, path: str, *parts):
    body, kind = form(*parts)
    return call(server, "POST", path, body, content_type=kind)


@pytest.fixture
def files(chance):
    return {f"{label}-{i}.png": png(photo(chance, label)) for label in range(2) for i in range(3)}


def test_a_cache_of_named_parts_and_what_it_says(tiny, files, name, tmp_path):
    command = ["curl", "--silent", "--fail-with-body"]
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
        command += ["-F", f"{'cat' if file.startswith('0') else 'dog'}=@{tmp_path / file}"]
    command.append(f"http://{tiny.address}/v1/caches?cacheId={name}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    version = json.loads(done.stdout.splitlines()[-1])["version"]
    names = [(one["displayName"], one["exampleCount"]) for one in version["classes"]]
    assert names == [("cat", 3), ("dog", 3)]
    ids = {one.example_id for one in tiny.api.examples(f"caches/{name}")}
    assert ids == {f"{'cat' if f.startswith('0') else 'dog'}/{f}" for f in files}

    file = files["1-0.png"]
    answer = send(tiny, f"/v1/caches/{name}:classify", ("topK", None, "1"), ("x", "a.png", file))
    [top] = answer.json["classification"]["top"]
    assert top["displayName"] == tiny.api.one(name, wire.encoded(file)).top[0].display_name
    path = f"/v1/caches/{name}:classifyStream?ordered=true"
    lines = send(tiny, path, *(("x", f, data) for f, data in files.items())).lines
    assert [one["id"] for line in lines for one in line["results"]] == list(files)
    added = send(tiny, f"/v1/caches/{name}:addExamples", ("dog", "new.png", file)).lines[-1]
    assert added["version"]["classes"][1]["exampleCount"] == 4
    judged = send(
        tiny,
        f"/v1/caches:evaluate?config.caches={name}",
        *(("cat" if f.startswith("0") else "dog", f, data) for f, data in files.items()),
        ("elk", "elk.png", file),
    ).json
    assert judged["evaluations"][0]["count"] == str(len(files))
    assert [one["exampleId"] for one in judged["rejected"]] == ["elk/elk.png"]


def test_a_specification_comes_first(tiny, files, name):
    spec = {"cacheId": name, "classes": [{"displayName": c} for c in ("dog", "cat")]}
    parts = [("cat" if f.startswith("0") else "dog", f, data) for f, data in files.items()]
    lines = send(tiny, "/v1/caches", ("spec", None, json.dumps(spec)), *parts).lines
    assert [c["displayName"] for c in lines[-1]["version"]["classes"]] == ["dog", "cat"]
    wrong = send(
        tiny, "/v1/caches", ("spec", None, json.dumps(spec)), parts[0], ("elk", "e.png", b"")
    )
    problem = wrong.problem if wrong.status != 200 else None
    if problem is None:
        from over_http import problem_of

        problem = problem_of(wrong.lines[-1]["error"])
    assert problem.reason == "FIELD_INVALID" and problem.fields == ["elk"]


def test_embed_takes_many(tiny, files):
    answer = send(
        tiny, "/v1/inputs:embed", ("texts", None, "a cat"), *(("x", *f) for f in files.items())
    )
    assert len(answer.json["inputs"]) == len(files) and len(answer.json["texts"]) == 1


def test_what_is_wrong_with_a_form_is_said(tiny, name):
    for body, kind, reason in [
        (b"", "multipart/form-data", "CONTENT_TYPE_UNKNOWN"),
        (b"nothing", f"multipart/form-data; boundary={BOUNDARY}", "FORM_INVALID"),
        (form(("nothing", None, "x"))[0], form()[1], "FIELD_INVALID"),
        (form(("topK", None, "x"))[0], form()[1], "FIELD_INVALID"),
        (form(("topK", None, "1"), ("options.top_k", None, "2"))[0], form()[1], "FIELD_INVALID"),
        (form(("x", "a.png", "x"), ("y", "b.png", "y"))[0], form()[1], "FORM_INVALID"),
    ]:
        answer = call(tiny, "POST", "/v1/caches/any:classify", body, content_type=kind)
        assert answer.problem.reason == reason, (body, answer.problem)
    # `curl -F x=a.jpg` where `x=@a.jpg` was meant.
    body, kind = form(("x", None, "a.jpg"))
    answer = call(tiny, "POST", "/v1/caches/any:classify", body, content_type=kind)
    assert "-F NAME=@FILE" in answer.problem.message


def test_a_picture_that_curl_has_stripped_is_told_apart(tiny, chance):
    picture = saved(photo(chance, 0, (300, 400)), "JPEG", quality=95)
    assert len(picture) > 8 << 10
    stripped = bytes(byte for byte in picture if byte not in b"\r\n\0")
    for kind in ("application/x-www-form-urlencoded", "image/jpeg"):
        answer = call(tiny, "POST", "/v1/caches/any:classify", stripped, content_type=kind)
        assert answer.problem.reason == "PICTURE_TRUNCATED"
        assert "--data-binary" in answer.problem.message
