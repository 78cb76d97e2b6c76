"""The Label Studio backend: by itself, and under a real Label Studio if one is installed.

LABEL_STUDIO names the program; else `label-studio` on the PATH is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import pytest
from test_examples import example, pets  # noqa: F401

import tipserve
from tipserve._proto import cache_pb2, classify_pb2

CONFIGURATION = """<View><Image name="picture" value="$image"/>
<Choices name="kind" toName="picture"><Choice value="cat"/><Choice value="dog"/></Choices></View>"""
TOKEN = "0123456789abcdef0123456789abcdef01234567"


def call(url, body=None, *, token="", method=None, expect=200):
    """One HTTP call with JSON on both sides."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", token)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    assert status == expect, (url, status, content[:2000])
    return json.loads(content or b"null")


@pytest.fixture
def learned(pets):  # noqa: F811
    """What was added to "pets", and removed from it: it keeps its examples' ids."""
    ids, calls = [], []

    def listed(request, context):
        infos = [cache_pb2.ExampleInfo(example_id=id) for id in ids]
        return cache_pb2.ListExamplesResponse(examples=infos)

    def add(requests, context):
        spec, *rest = list(requests)
        removed = list(spec.spec.remove_example_ids)
        added = [one for message in rest for one in message.examples.examples]
        calls.append((added, removed))
        ids[:] = [id for id in ids if id not in removed] + [one.example_id for one in added]
        version = cache_pb2.Version(name=f"caches/pets/versions/{3 + len(calls)}")
        yield cache_pb2.AddExamplesResponse(version=version)

    def dog(requests, context):
        position = 0
        for request in requests:
            for _ in request.items.items:
                top = [{"index": 1, "display_name": "dog", "probability": 0.75}]
                answer = {"version": "caches/pets/versions/3", "top": top}
                result = {"sequence": position, "classification": answer}
                yield classify_pb2.ClassifyStreamResponse(results=[result])
                position += 1

    pets.unary["ListExamples"] = listed
    pets.add = add
    pets.streams = [dog] * 100
    return calls


@contextlib.contextmanager
def backend(fake, host, token="", password=""):
    """The backend, listening; yields its address."""
    module = example("label-studio/backend.py")
    with tipserve.Client(fake.address) as client:
        made = module.Backend(client, "pets", host, token)
        served = ThreadingHTTPServer(("127.0.0.1", 0), module.handler(made, password))
        threading.Thread(target=served.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            served.server_close()


class Pictures(ThreadingHTTPServer):
    """Serves bytes that name the path and the token."""

    def __init__(self):
        from http.server import BaseHTTPRequestHandler

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = f"{self.path} {self.headers.get('Authorization')}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


def test_it_predicts_learns_and_unlearns(pets, learned):  # noqa: F811
    project = {"label_config": CONFIGURATION}

    def event(action, choice, updated="1", **more):
        part = {"from_name": "kind", "value": {"choices": [choice]}}
        annotation = {"id": 17, "result": [part], "updated_at": updated}
        task = {"id": 5, "data": {"image": "/data/a.jpg"}}
        return {"action": action, "project": project, "task": task, "annotation": annotation}

    with Pictures() as pictures, backend(pets, pictures.url, TOKEN) as url:
        assert call(f"{url}/health")["status"] == "UP"
        tasks = [{"id": 1, "data": {"image": "/data/a.jpg"}}] * 2
        made = call(f"{url}/predict", {"tasks": tasks, **project})["results"]
        assert [one["result"][0]["value"]["choices"] for one in made] == [["dog"], ["dog"]]
        assert made[0]["result"][0]["from_name"] == "kind"
        assert made[0]["model_version"] == "caches/pets/versions/3"
        assert call(f"{url}/webhook", event("ANNOTATION_CREATED", "cat"))["detail"] == (
            "made caches/pets/versions/4"
        )
        # Delivered twice; then changed; then deleted.
        again = call(f"{url}/webhook", event("ANNOTATION_CREATED", "cat"))
        assert again["detail"] == "known already"
        call(f"{url}/webhook", event("ANNOTATION_UPDATED", "dog", "2"))
        call(f"{url}/webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 17}]})
        call(f"{url}/webhook", {"action": "START_TRAINING", "project": project})
        call(f"{url}/predict", {"tasks": tasks}, expect=400)
        pictures.shutdown()
    sent = [
        ([(e.example_id, e.class_index, e.input.encoded_image) for e in added], removed)
        for added, removed in learned
    ]
    picture = f"/data/a.jpg Token {TOKEN}".encode()
    assert sent == [
        ([("label-studio/17/1", 0, picture)], []),
        ([("label-studio/17/2", 1, picture)], ["label-studio/17/1"]),
        ([], ["label-studio/17/2"]),
    ]


def test_the_token_is_shown_to_label_studio_alone(pets, learned):  # noqa: F811
    with Pictures() as pictures, backend(pets, "http://127.0.0.1:1", TOKEN) as url:
        task = {"id": 5, "data": {"image": f"{pictures.url}/a.jpg"}}
        part = {"from_name": "kind", "value": {"choices": ["cat"]}}
        annotation = {"id": 1, "result": [part]}
        project = {"label_config": CONFIGURATION}
        call(
            f"{url}/webhook",
            {"action": "ANNOTATION_CREATED", "project": project, "task": task,
             "annotation": annotation},
        )  # fmt: skip
        pictures.shutdown()
    [([sent], [])] = learned
    assert sent.input.encoded_image == b"/a.jpg None"


def test_a_password_is_asked_for(pets):  # noqa: F811
    with backend(pets, "http://127.0.0.1:1", password="secret") as url:
        call(f"{url}/setup", {}, expect=401)
        call(f"{url}/setup", {}, token="Bearer secret")


# The real one


@pytest.fixture
def label_studio(tmp_path):
    """A real Label Studio with a store of its own; yields its address."""
    program = os.environ.get("LABEL_STUDIO") or shutil.which("label-studio")
    if program is None:
        pytest.skip("Label Studio is not installed: pip install label-studio, or set LABEL_STUDIO")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "data"),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        # The backend is on this machine.
        "SSRF_PROTECTION_ENABLED": "false",
        "USE_DEFAULT_BANNED_SUBNETS": "false",
    }
    environment.pop("PYTHONPATH", None)
    command = [
        *(program, "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"),
        *("--username", "a@example.org", "--password", "example-1234", "--user-token", TOKEN),
    ]
    with open(tmp_path / "log", "w") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            if running.poll() is not None:
                pytest.fail((tmp_path / "log").read_text()[-3000:])
            time.sleep(0.25)
        yield url
    finally:
        running.terminate()
        running.wait(60)


def test_a_real_label_studio_predicts_and_teaches(pets, learned, label_studio, tmp_path):  # noqa: F811
    Image = pytest.importorskip("PIL.Image")
    token = f"Token {TOKEN}"
    api = f"{label_studio}/api"
    with backend(pets, label_studio, TOKEN) as url:
        project = call(
            f"{api}/projects", {"title": "pets", "label_config": CONFIGURATION},
            token=token, expect=201,
        )["id"]  # fmt: skip
        Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
        boundary = "a-boundary"
        body = (
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
                "Content-Type: image/png\r\n\r\n"
            ).encode()
            + content
            + f"\r\n--{boundary}--\r\n".encode()
        )
        upload = urllib.request.Request(f"{api}/projects/{project}/import", body)
        upload.add_header("Authorization", token)
        upload.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        with urllib.request.urlopen(upload, timeout=60) as answer:
            assert answer.status == 201
        call(
            f"{api}/ml", {"project": project, "url": url, "title": "tipserve"},
            token=token, expect=201,
        )  # fmt: skip
        call(
            f"{api}/webhooks/",
            {"project": project, "url": f"{url}/webhook", "send_payload": True,
             "send_for_all_actions": True},
            token=token, expect=201,
        )  # fmt: skip
        [task] = call(f"{api}/projects/{project}/tasks/?page_size=10", token=token)
        call(
            f"{api}/dm/actions?id=retrieve_tasks_predictions&project={project}",
            {"selectedItems": {"all": False, "included": [task["id"]]}}, token=token,
        )  # fmt: skip
        predictions = call(f"{api}/predictions/?task={task['id']}", token=token)
        assert predictions[0]["result"][0]["value"]["choices"] == ["dog"]
        assert predictions[0]["model_version"] == "caches/pets/versions/3"
        part = {
            "from_name": "kind", "to_name": "picture", "type": "choices",
            "value": {"choices": ["cat"]},
        }  # fmt: skip
        call(f"{api}/tasks/{task['id']}/annotations/", {"result": [part]}, token=token, expect=201)
        for _ in range(400):
            if learned:
                break
            time.sleep(0.05)
    [([sent], removed)] = learned
    assert (sent.class_index, removed) == (0, [])
    assert sent.input.encoded_image == content
