"""Plain HTTP as curl and other clients speak it."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass

import grpc
from google.protobuf import json_format
from wire import Problem


@dataclass
class Answer:
    """A response."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        assert self.headers["content-type"] == "application/json", (self.headers, self.body)
        return json.loads(self.body)

    @property
    def lines(self) -> list:
        assert self.headers["content-type"] == "application/x-ndjson", (self.headers, self.body)
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def problem(self) -> Problem:
        """The error that it is."""
        return problem_of(self.json)


def problem_of(status: dict) -> Problem:
    """A google.rpc.Status in JSON taken apart."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status["code"])
    problem = Problem(code, status["message"])
    for detail in status["details"]:
        kind = detail["@type"].rsplit(".", 1)[-1]
        if kind == "ErrorInfo":
            assert detail["domain"] == "tipserve"
            problem.reason, problem.metadata = detail["reason"], detail["metadata"]
        elif kind == "BadRequest":
            problem.fields = [one["field"] for one in detail["fieldViolations"]]
        elif kind == "RetryInfo":
            problem.retry = float(detail["retryDelay"].rstrip("s"))
    return problem


def call(server, method: str, path: str, body=None, token=None, timeout=60, **headers) -> Answer:
    """One request over a connection of its own. A body of lists is sent line by line."""
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    if isinstance(body, dict):
        body = json.dumps(body)
        headers.setdefault("content-type", "application/json")
    elif isinstance(body, list):
        body = "".join(json.dumps(line) + "\n" for line in body)
        headers.setdefault("content-type", "application/x-ndjson")
    if isinstance(body, str):
        body = body.encode()
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(server.address, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        said = {key.lower(): value for key, value in response.getheaders()}
        return Answer(response.status, said, response.read())
    finally:
        connection.close()


def shown(message) -> dict:
    """A message as the server shows it."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
