"""HTTP passes the layers that gRPC passes: roles, prefixes, audit, metrics, traces, limits and
deadlines; by a table over the descriptors.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time

import grpc
import pytest
import wire
from conftest import WIDTH, Server, eventually
from over_http import call, problem_of
from rules import METHODS, as_http, rules_of, variables
from test_audit import READS
from test_traces import SOON, Collector, attributes, parent
from tokens import TokensFile, api
from wire import Problem, cache

CACHE = "layers"
LARGEST = 200_000


@pytest.fixture(scope="module")
def guarded(features_bundle, tmp_path_factory):
    """A server with tokens of each role; its log is JSON, and its spans are received."""
    folder = tmp_path_factory.mktemp("layers")
    file = TokensFile(folder)
    for role in ("classify", "write", "admin"):
        file.add(role, role)
    file.add("team", "admin", "team-")
    spans = Collector()
    flags = ["--tokens", str(file.path), "--log-format", "json"]
    flags += ["--max-message-bytes", str(LARGEST), "--otlp-endpoint", spans.endpoint]
    server = Server(features_bundle, folder / "store", *flags, env=SOON)
    server.file, server.spans = file, spans
    points = wire.np.random.default_rng(3).normal(size=(8, WIDTH))
    spec = cache.CacheSpec(cache_id=CACHE, classes=wire.classes("ab"))
    one = api(server.address, file.tokens["admin"])
    one.create(spec, wire.examples_of(points, [0, 1] * 4))
    yield server
    server.close()
    spans.server.stop(None)


def request_of(method, name: str):
    """A first message that names a cache, and else asks for what there is not."""
    message = method.input_type._concrete_class()
    for field in variables_of(method):
        *way, last = field.split(".")
        within = message
        for part in way:
            within = getattr(within, part)
        value = {"alias": "none", "cache_id": name, "base": name}.get(last, f"caches/{name}")
        if method.name.endswith("Version") and last == "name":
            value += "/versions/99"
        if "FineTune" in method.name and last == "name":
            value = "fineTunes/none-00000001"
        setattr(within, last, value)
    if method.name == "PruneVersions":
        message.keep = 1000
    return message


def variables_of(method) -> list[str]:
    rule = rules_of(method)[0]
    return list(variables(getattr(rule, rule.WhichOneof("pattern"))))


def path_of(method) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


def over_grpc(server, method, message, token, **headers) -> Problem:
    return sent(server, method, iter([message.SerializeToString()]), token, **headers)


def sent(server, method, messages, token, timeout=60, **headers) -> Problem:
    """A call of these bytes, one after the other."""
    one = api(server.address, token, **headers)
    stub = one.channel.stream_stream(f"/{path_of(method)}")
    try:
        for _ in stub(messages, timeout=timeout):
            pass
    except grpc.RpcError as error:
        return Problem.of_call(error)
    finally:
        one.channel.close()
    return Problem(grpc.StatusCode.OK, "")


def over_http(server, method, message, token, **headers) -> Problem:
    verb, path, body = as_http(method, message)
    answer = call(server, verb, path, body, token=token, **headers)
    if answer.status != 200:
        return answer.problem
    if answer.headers["content-type"] == "application/x-ndjson":
        last = answer.lines[-1:] or [{}]
        if "error" in last[0]:
            return problem_of(last[0]["error"])
    return Problem(grpc.StatusCode.OK, "")


def test_every_method_has_a_path_and_no_two_the_same():
    seen = set()
    for method in METHODS.values():
        rules = rules_of(method)
        assert all(rule.WhichOneof("pattern") for rule in rules), method.name
        for rule in rules:
            verb = rule.WhichOneof("pattern")
            assert (verb, getattr(rule, verb)) not in seen
            seen.add((verb, getattr(rule, verb)))
    # A failure in a stream is told from a message by its name.
    for method in METHODS.values():
        assert "error" not in method.output_type.fields_by_name or not method.server_streaming


@pytest.mark.parametrize("who", [None, "wrong", "classify", "write", "admin", "team"])
@pytest.mark.parametrize("name", METHODS)
def test_who_may_call_what(guarded, name, who):
    token = guarded.file.tokens.get(who, "tipserve_" + "0" * 64) if who else None
    message = request_of(METHODS[name], CACHE)
    # What it would do must not be there for the other transport.
    if name in ("DeleteCache", "CreateCache", "FineTune") and who in ("admin", "write"):
        message = request_of(METHODS[name], "there-is-none")
    of_grpc = over_grpc(guarded, METHODS[name], message, token)
    of_http = over_http(guarded, METHODS[name], message, token)
    assert (of_http.code, of_http.reason) == (of_grpc.code, of_grpc.reason), (of_http, of_grpc)
    assert of_http.metadata == of_grpc.metadata
    assert of_http.fields == of_grpc.fields


@pytest.mark.parametrize("name", METHODS)
def test_audit_metrics_and_traces_know_no_difference(guarded, name):
    method = METHODS[name]
    message = request_of(method, "there-is-none")
    token = guarded.file.tokens["team"]
    ids, counts, spans = [], [], []
    for send in (over_grpc, over_http):
        before = guarded.metrics()
        request_id = secrets.token_hex(8)
        trace_id, span_id, traceparent = parent()
        told = {"x_request_id": request_id, "traceparent": traceparent}
        problem = send(guarded, method, message, token, **told)
        code = problem.code.name
        series = f'tipserve_requests_total{{method="{name}",code="{code}"}}'
        eventually(lambda s=series, b=before: guarded.metrics().get(s, 0) == b.get(s, 0) + 1)
        counts.append(series)
        ids.append(request_id)
        [span] = eventually(lambda t=trace_id: spans_of(guarded.spans, method, t))
        assert span.parent_span_id == span_id
        seen = attributes(span)
        assert seen.pop("request_id") == request_id
        assert seen.pop("peer").startswith("127.0.0.1:")
        assert seen.pop("trace_id") == trace_id.hex()
        spans.append((span.kind, span.status.code, seen))
    assert counts[0] == counts[1]
    assert spans[0] == spans[1]
    all_audited(guarded, token)
    lines = [audit(guarded, request_id) for request_id in ids]
    for of_grpc, of_http in zip(*lines, strict=True):
        for key in of_grpc.keys() | of_http.keys():
            # Of one cache both short names are the same, and a path has the long one.
            if key not in ("request_id", "resource"):
                assert of_grpc.get(key) == of_http.get(key), key


def spans_of(collector, method, trace_id: bytes) -> list:
    """A method's spans of one trace."""
    return [span for span in collector.spans(path_of(method)) if span.trace_id == trace_id]


def all_audited(server, token: str) -> None:
    """Waits for the log: a line of one more call comes after those of the calls before it."""
    last = secrets.token_hex(8)
    method = METHODS["DeleteCache"]
    over_grpc(server, method, request_of(method, "there-is-none"), token, x_request_id=last)
    eventually(lambda: audit(server, last))


def audit(server, request_id: str) -> list[dict]:
    text = server.log.read_text().splitlines()
    found = (json.loads(line)["fields"] for line in text if "tipserve::audit" in line)
    return [line for line in found if line["request_id"] == request_id]


WITH_BODY = [name for name, method in METHODS.items() if rules_of(method)[0].body]


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_message_over_the_limit_is_refused_the_same(guarded, name):
    method = METHODS[name]
    token = guarded.file.tokens["admin"]
    bytes_ = LARGEST + 1
    of_grpc = sent(guarded, method, iter([bytes(bytes_)]), token)
    verb, path, _ = as_http(method, request_of(method, CACHE))
    kind = "application/x-ndjson" if method.client_streaming else "application/json"
    of_http = call(guarded, verb, path, " " * bytes_, token=token, content_type=kind)
    assert (of_grpc.reason, of_http.problem.reason) == ("MESSAGE_TOO_LARGE",) * 2, of_http.body
    assert of_http.status == 413
    for fact in ("limit", "maximum"):
        assert of_http.problem.metadata[fact] == of_grpc.metadata[fact]


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_deadline_ends_a_call_whose_body_does_not_come(guarded, name):
    """By the server's clock, and known as that to metrics and audit too."""
    method = METHODS[name]
    token = guarded.file.tokens["admin"]
    ids = [secrets.token_hex(8) for _ in range(2)]
    series = f'tipserve_requests_total{{method="{name}",code="DEADLINE_EXCEEDED"}}'
    before = guarded.metrics().get(series, 0)
    # A message that is announced, and never sent.
    verb, path, _ = as_http(method, request_of(method, CACHE))
    connection = http.client.HTTPConnection(guarded.address, timeout=60)
    connection.putrequest(verb, path)
    kind = "application/x-ndjson" if method.client_streaming else "application/json"
    said = {"authorization": f"Bearer {token}", "request-timeout": "0.3", "content-type": kind}
    said |= {"x-request-id": ids[0], "content-length": "100"}
    for header, value in said.items():
        connection.putheader(header, value)
    connection.endheaders()
    response = connection.getresponse()
    problem = problem_of(json.loads(response.read()))
    connection.close()
    assert (response.status, problem.reason) == (504, "DEADLINE_EXCEEDED")
    # A client whose own clock would be first says only what it wants.
    told = {"grpc_timeout": "300m", "x_request_id": ids[1]}
    ended = sent(guarded, method, silence(), token, timeout=None, **told)
    assert (ended.code, ended.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    eventually(lambda: guarded.metrics()[series] == before + 2)
    all_audited(guarded, token)
    results = [[line["result"] for line in audit(guarded, one)] for one in ids]
    assert results == [[] if name in READS else ["DeadlineExceeded"]] * 2


def silence():
    """A stream of messages of which none comes for a while."""
    time.sleep(2)
    yield from ()


def test_a_refused_caller_sends_no_body(guarded):
    """Nothing of it is read: it would be over the limit."""
    connection = http.client.HTTPConnection(guarded.address, timeout=30)
    connection.putrequest("POST", f"/v1/caches/{CACHE}:classify")
    connection.putheader("content-length", str(1 << 40))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 401
    assert response.getheader("www-authenticate") == "Bearer"
    status = json.loads(response.read())
    assert problem_of(status).reason == "TOKEN_MISSING"
    connection.close()


def test_rates_and_streams_of_a_token(features_bundle, tmp_path):
    file = TokensFile(tmp_path)
    file.add("slow", "classify", extra="items_per_second = 0.000001\n")
    server = Server(features_bundle, tmp_path / "store", "--tokens", str(file.path))
    try:
        body = {"inputs": [{"embedding": {"values": [1.0] * WIDTH}}]}
        token = file.tokens["slow"]
        answers = [call(server, "POST", "/v1/inputs:embed", body, token=token) for _ in range(3)]
        [*_, last] = answers
        assert last.status == 429 and last.problem.reason == "RATE_LIMITED", last.body
        assert int(last.headers["retry-after"]) > 0
    finally:
        server.close()
