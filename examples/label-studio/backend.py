"""A machine-learning backend for Label Studio: tipserve predicts, and learns what people correct.

    pip install ./clients/python
    python examples/label-studio/backend.py --classifier pets --port 9090

Label Studio asks it for predictions, and tells it of every annotation (a webhook):
the picture is added to its class as a new version, which predicts from then on. An
annotation that is changed takes the place of what was learned before; one that is
deleted is unlearned.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import threading
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree

import tipserve

_MOST_BODY_BYTES = 64 * 1024 * 1024
_MOST_PICTURE_BYTES = 32 * 1024 * 1024
_FETCH_SECONDS = 30
_LEARNED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
_UNLEARNED = ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED")


@dataclass(frozen=True)
class Labels:
    """Where a project's labelling configuration has its pictures and classes."""

    choices: str
    picture: str
    data: str
    """The key of a task's data that holds the picture."""

    @classmethod
    def of(cls, configuration: str) -> Labels:
        """The first <Choices> that is about an <Image>; ValueError if there is none."""
        view = ElementTree.fromstring(configuration)
        images = {one.get("name"): one.get("value", "") for one in view.iter("Image")}
        for choices in view.iter("Choices"):
            about = choices.get("toName", "")
            if about in images and choices.get("name"):
                return cls(str(choices.get("name")), about, images[about].lstrip("$"))
        raise ValueError("the labelling configuration has no <Choices> of an <Image>")


class Backend:
    """What Label Studio's calls do."""

    def __init__(self, client: tipserve.Client, classifier: str, host: str, token: str) -> None:
        self._client = client
        self._classifier = classifier
        self._host = host
        self._token = token
        # Two corrections at once would start from the same version.
        self._learning = threading.Lock()

    def predict(self, call: dict[str, Any]) -> dict[str, Any]:
        """Predictions for tasks, in their order; an empty one for a picture that fails."""
        labels = Labels.of(call["label_config"])
        pictures = (self._picture(task, labels) for task in call["tasks"])
        results = self._client.classify(self._classifier, pictures)
        return {"results": [self._prediction(result, labels) for result in results]}

    def _prediction(self, result: tipserve.Result, labels: Labels) -> dict[str, Any]:
        if result.error is not None:
            return {"result": [], "score": 0.0, "model_version": str(result.error.reason)}
        best = result.best
        choice = {
            "from_name": labels.choices,
            "to_name": labels.picture,
            "type": "choices",
            "value": {"choices": [best.display_name]},
            "score": best.probability,
        }
        return {"result": [choice], "score": best.probability, "model_version": result.version}

    def learn(self, call: dict[str, Any]) -> str:
        """Takes in an event; says what was done."""
        action = call.get("action", "")
        if action in _UNLEARNED:
            gone = [f"{one['id']}" for one in call.get("annotations", [call.get("annotation")])]
            return self._replace([], gone, [])
        if action not in _LEARNED:
            return "nothing to do"
        labels = Labels.of(call["project"]["label_config"])
        task = call["task"]
        annotation = call["annotation"]
        chosen = [
            choice
            for part in annotation["result"]
            if part.get("from_name") == labels.choices
            for choice in part["value"].get("choices", [])
        ]
        if len(chosen) != 1:
            return f"annotation {annotation['id']} names {len(chosen)} classes: not learned"
        # A new id each time: what was learned before is removed by the same call.
        id = f"label-studio/{annotation['id']}/{annotation.get('updated_at', '')}"
        example = tipserve.Example(chosen[0], self._picture(task, labels), id=id)
        return self._replace([example], [str(annotation["id"])], [id])

    def _replace(self, new: list[tipserve.Example], gone: list[str], same: list[str]) -> str:
        prefixes = tuple(f"label-studio/{one}/" for one in gone)
        with self._learning:
            there = [
                one.id
                for one in self._client.examples(self._classifier)
                if one.id.startswith(prefixes)
            ]
            if same and same[0] in there:
                return "known already"  # Label Studio repeats what it had no answer to
            if not new and not there:
                return "nothing to do"
            made = self._client.add_examples(
                self._classifier, new or None, remove=there, created_by="label-studio"
            )
        if made.rejected:
            return f"rejected: {made.rejected[0].error}"
        return f"made {made.name}"

    def _picture(self, task: dict[str, Any], labels: Labels) -> bytes:
        """A task's picture. Only Label Studio itself is shown the token."""
        url = urljoin(self._host, str(task["data"][labels.data]))
        if not url.startswith(("http://", "https://")):
            return b""  # which the server refuses by its own words
        request = urllib.request.Request(url)
        if self._token and url.startswith(self._host.rstrip("/") + "/"):
            request.add_header("Authorization", f"Token {self._token}")
        with urllib.request.urlopen(request, timeout=_FETCH_SECONDS) as answer:
            return bytes(answer.read(_MOST_PICTURE_BYTES))


def handler(backend: Backend, password: str) -> type[BaseHTTPRequestHandler]:
    """The HTTP side."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, {"status": "UP", "model_class": "tipserve"})

        def do_POST(self) -> None:
            if not self._allowed():
                return self._answer(401, {"error": "the password is wrong"})
            try:
                length = int(self.headers.get("Content-Length") or 0)
                if length > _MOST_BODY_BYTES:
                    return self._answer(413, {"error": f"over {_MOST_BODY_BYTES} bytes"})
                call = json.loads(self.rfile.read(length) or b"{}")
                path = self.path.split("?")[0].rstrip("/")
                if path == "/setup":
                    return self._answer(200, {"model_version": "tipserve"})
                if path == "/predict":
                    return self._answer(200, backend.predict(call))
                if path in ("/webhook", "/train"):
                    return self._answer(200, {"detail": backend.learn(call)})
                return self._answer(404, {"error": "unknown path"})
            except tipserve.TipserveError as error:
                return self._answer(502, {"error": str(error)})
            except (ValueError, KeyError, TypeError, ElementTree.ParseError, OSError) as error:
                return self._answer(400, {"error": f"{type(error).__name__}: {error}"})

        def _allowed(self) -> bool:
            given = self.headers.get("Authorization", "")
            return not password or hmac.compare_digest(given, f"Bearer {password}")

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classifier", required=True, help="which one: pets")
    parser.add_argument("--server", help="host:port of the tipserve; default: TIPSERVE_SERVER")
    parser.add_argument("--label-studio", default="http://127.0.0.1:8080", help="its address")
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9090)
    given = parser.parse_args()
    token = os.environ.get("LABEL_STUDIO_API_KEY", "")
    password = os.environ.get("BACKEND_PASSWORD", "")
    with tipserve.Client(given.server) as client:
        backend = Backend(client, given.classifier, given.label_studio, token)
        address = (given.listen, given.port)
        with ThreadingHTTPServer(address, handler(backend, password)) as server:
            print(f"serving {given.classifier} on http://{given.listen}:{given.port}", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main()
