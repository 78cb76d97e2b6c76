"""Every call that changes a cache, or takes one away, leaves exactly one audit line, however it
ends: a table over the descriptors.
"""

from __future__ import annotations

import json
import secrets
import threading

import grpc
import pytest
import wire
from conftest import WIDTH, Server, eventually
from disks import HangingSync
from tokens import TokensFile, api
from tritonclient.grpc import service_pb2 as inference
from wire import analysis, bundle, cache, classify, finetune

READS = {
    *("GetCache", "ListCaches", "GetVersion", "ListVersions", "ListExamples"),
    "GetExamplePicture",
    *("ListFineTunes", "GetFineTune"),
    *("ClassifyStream", "Classify", "Embed", "Evaluate", "GetServerInfo"),
    *("SuggestExamples", "AnalyzeVersion", "GetDrift"),
    "ListBundles",
}
# They have tests of their own, with bundles to load: test_bundles.py.
ELSEWHERE = {"LoadBundle", "UnloadBundle"}
OTHERS = "zz-others"


@pytest.fixture(scope="module")
def audited(features_bundle, tmp_path_factory):
    """A server whose token "team" may do everything, but with its own caches alone."""
    folder = tmp_path_factory.mktemp("audited")
    file = TokensFile(folder)
    for name, role, prefix in (
        ("admin", "admin", ""),
        ("team", "admin", "team-"),
        ("classify", "classify", ""),
    ):
        file.add(name, role, prefix)
    flags = ("--tokens", str(file.path), "--log-format", "json")
    server = Server(features_bundle, folder / "store", *flags)
    server.file = file
    make(api(server.address, file.tokens["admin"]), OTHERS)
    yield server
    server.close()


def points(count: int = 8):
    return wire.np.random.default_rng().normal(size=(count, WIDTH))


def make(one: wire.Api, name: str) -> cache.Version:
    spec = cache.CacheSpec(cache_id=name, classes=wire.classes("ab"))
    return one.create(spec, wire.examples_of(points(), [0, 1] * 4)).version


def changing_methods() -> set[str]:
    services = (analysis, bundle, cache, classify, finetune)
    return {
        method.name
        for module in services
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    } - (READS | ELSEWHERE)


class Requests:
    """For each method, what it is sent so that it is taken, touches others' caches, is invalid."""

    def __init__(self, one: wire.Api) -> None:
        self.caches, self.tuning = one.caches, one.tuning
        self.exported = one.export(OTHERS)[1]

    def spec(self, name: str, **more) -> list:
        spec = cache.CacheSpec(cache_id=name, classes=wire.classes("ab"), **more)
        return list(wire.requests_of(spec, wire.examples_of(points(), [0, 1] * 4)))

    def added(self, name: str, **more) -> list:
        spec = cache.AddExamplesSpec(base=name, **more)
        examples = [wire.example(0, wire.embedding(points(1)[0]))]
        return list(wire.requests_of(spec, examples, kind=cache.AddExamplesRequest))

    def imported(self, name: str, size: int | None = None) -> list:
        size = len(self.exported) if size is None else size
        spec = cache.ImportSpec(cache_id=name, size_bytes=size)
        return [
            cache.ImportVersionRequest(spec=spec),
            cache.ImportVersionRequest(chunk=self.exported),
        ]

    def of(self, method: str, name: str, *, valid: bool):
        """The request, or those of a stream."""
        if not valid and method not in ("ImportVersion", "AddExamples", "CreateCache"):
            name = f"{name}/x\x1b[2J\n"
        return {
            "CreateCache": lambda: self.spec(name, views=0 if valid else 99),
            "AddExamples": lambda: self.added(name, alpha=None if valid else -1.0),
            "ImportVersion": lambda: self.imported(name, None if valid else 3),
            "ExportVersion": lambda: cache.ExportVersionRequest(name=name),
            "SetAlias": lambda: cache.SetAliasRequest(cache=name, alias="a", version=1),
            "DeleteAlias": lambda: cache.DeleteAliasRequest(cache=name, alias="a"),
            "FineTune": lambda: finetune.FineTuneRequest(cache=name, epochs=1),
            "CancelFineTune": lambda: finetune.CancelFineTuneRequest(name=name),
            "PruneVersions": lambda: cache.PruneVersionsRequest(name=name, keep=1),
            "DeleteVersion": lambda: cache.DeleteVersionRequest(name=f"{name}@1"),
            "DeleteCache": lambda: cache.DeleteCacheRequest(name=name),
        }[method]()

    def call(self, method: str):
        return getattr(self.caches, method, None) or getattr(self.tuning, method)


def finish(method, sent) -> grpc.StatusCode:
    """Calls, and waits for the end."""
    sent = iter(sent) if isinstance(sent, list) else sent
    try:
        if hasattr(method, "future"):
            method(sent, timeout=60)
        else:
            for _ in method(sent, timeout=60):
                pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def lines(server, request_id: str) -> list[dict]:
    text = server.log.read_text().splitlines()
    found = (json.loads(line) for line in text if "tipserve::audit" in line)
    found = [line["fields"] for line in found]
    # The end of a fine-tuning run is an event of its own.
    return [
        line
        for line in found
        if line["request_id"] == request_id and line["action"] != "end_finetune"
    ]


def one_line(server, request_id: str) -> dict:
    eventually(lambda: lines(server, request_id))
    [line] = lines(server, request_id)
    return line


def as_(server, who: str) -> tuple[wire.Api, str]:
    request_id = secrets.token_hex(8)
    return api(server.address, server.file.tokens[who], x_request_id=request_id), request_id


def camel(code: grpc.StatusCode) -> str:
    return "".join(part.capitalize() for part in code.name.split("_"))


def test_the_table_is_total():
    known = Requests.__new__(Requests)
    known.exported = b"x"
    for method in changing_methods():
        known.of(method, "x", valid=True)


@pytest.mark.parametrize("method", sorted(changing_methods()))
def test_one_line_for_each_outcome(audited, method):
    admin, _ = as_(audited, "admin")
    name = f"team-{secrets.token_hex(4)}"
    if method != "CreateCache":
        make(admin, name)
    target = name
    if method == "DeleteVersion":
        make(admin, name)
    if method == "DeleteAlias":
        admin.caches.SetAlias(cache.SetAliasRequest(cache=name, alias="a", version=1))
    if method == "CancelFineTune":
        request = finetune.FineTuneRequest(cache=name, epochs=1)
        target = next(iter(admin.tuning.FineTune(request))).run.name
    others = target if method == "CancelFineTune" else OTHERS
    for who, where, valid, expected in (
        ("classify", target, True, {grpc.StatusCode.PERMISSION_DENIED}),
        # A run of another prefix is not there, for who asks.
        ("team", others, True, {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK}),
        (
            "team",
            target,
            False,
            {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND},
        ),
        ("team", target, True, {grpc.StatusCode.OK}),
    ):
        one, request_id = as_(audited, who)
        requests = Requests(admin) if method == "ImportVersion" else Requests.__new__(Requests)
        requests.caches, requests.tuning = one.caches, one.tuning
        code = finish(requests.call(method), requests.of(method, where, valid=valid))
        assert code in expected, (method, who, where, valid, code)
        line = one_line(audited, request_id)
        assert (line["who"], line["result"]) == (who, camel(code)), line
        assert line["resource"].isprintable(), line


@pytest.mark.parametrize("method", ["CreateCache", "AddExamples", "ImportVersion", "FineTune"])
def test_one_line_if_it_is_cancelled(audited, method):
    admin, _ = as_(audited, "admin")
    name = f"team-{secrets.token_hex(4)}"
    if method != "CreateCache":
        make(admin, name)
    one, request_id = as_(audited, "team")
    requests = Requests(admin)
    requests.caches, requests.tuning = one.caches, one.tuning
    stop = threading.Event()
    sent = requests.of(method, name, valid=True)

    def unfinished(first):
        yield first
        stop.wait(60)

    stub, sent = requests.call(method), unfinished(sent[0]) if isinstance(sent, list) else sent
    if hasattr(stub, "future"):
        call = stub.future(sent, timeout=60)
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=1)
    else:
        call = stub(sent, timeout=60)
        next(call)
    call.cancel()
    stop.set()
    line = one_line(audited, request_id)
    # Of a run that is under way the start was a success; its end has its own line.
    assert line["result"] == ("Ok" if method == "FineTune" else "Cancelled"), line


@pytest.fixture(scope="module")
def hanging(features_bundle, tmp_path_factory):
    """A server over a disk whose fsync can be made to hang."""
    folder = tmp_path_factory.mktemp("hanging")
    file, sync = TokensFile(folder), HangingSync(folder)
    for name, role in (("admin", "admin"), ("team", "admin")):
        file.add(name, role)
    flags = ("--tokens", str(file.path), "--log-format", "json")
    server = Server(features_bundle, folder / "store", *flags, env=sync.environment)
    server.file, server.sync = file, sync
    yield server
    sync.release()
    server.close()


UNARY = ["SetAlias", "DeleteAlias", "DeleteVersion", "PruneVersions", "DeleteCache"]


@pytest.mark.parametrize("method", [*UNARY, "CancelFineTune"])
def test_a_unary_change_that_is_cancelled_is_made_and_has_one_line(hanging, method):
    """It has begun, so it runs to its end: the line says what became of it."""
    admin, _ = as_(hanging, "admin")
    name = target = f"team-{secrets.token_hex(4)}"
    for _ in range(2):
        make(admin, name)
    if method == "DeleteAlias":
        admin.caches.SetAlias(cache.SetAliasRequest(cache=name, alias="a", version=1))
    if method == "CancelFineTune":
        request = finetune.FineTuneRequest(cache=name, epochs=1000, detached=True)
        target = next(iter(admin.tuning.FineTune(request))).run.name
    one, request_id = as_(hanging, "team")
    requests = Requests.__new__(Requests)
    requests.caches, requests.tuning = one.caches, one.tuning
    sent = requests.of(method, target, valid=True)
    hanging.sync.hang()
    call = requests.call(method).future(sent, timeout=60)
    eventually(hanging.sync.waiting)
    call.cancel()
    hanging.sync.release()
    line = one_line(hanging, request_id)
    assert line["result"] == "Ok", line


def test_an_export_that_is_cancelled_has_one_line(audited):
    admin, _ = as_(audited, "admin")
    # More than a connection holds.
    name, count = f"team-{secrets.token_hex(4)}", 40_000
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
    )
    admin.create(spec, wire.examples_of(points(count), [0, 1] * (count // 2)))
    one, request_id = as_(audited, "team")
    call = one.caches.ExportVersion(cache.ExportVersionRequest(name=name), timeout=60)
    next(call)
    call.cancel()
    line = one_line(audited, request_id)
    assert line["result"] == "Cancelled", line


def test_every_change_has_a_test_of_its_cancellation():
    streams = {"CreateCache", "AddExamples", "ImportVersion", "FineTune"}
    assert changing_methods() == streams | {*UNARY, "CancelFineTune", "ExportVersion"}


@pytest.mark.parametrize(
    "who, model",
    [
        ("classify", "bundles/x"),
        ("team", "bundles/x"),
        ("admin", "x\x1b[2J\n"),
        ("admin", "bundles/../x"),
        ("admin", "bundles/x"),
    ],
)
def test_unloading_a_bundle_as_a_model_has_one_line(audited, who, model):
    """The one change of the Open Inference Protocol; that it is done is shown with bundles."""
    one, request_id = as_(audited, who)
    unload = one.channel.unary_unary(
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        inference.RepositoryModelUnloadRequest.SerializeToString,
    )
    with pytest.raises(grpc.RpcError) as caught:
        unload(inference.RepositoryModelUnloadRequest(model_name=model), timeout=60)
    code = caught.value.code()
    assert (code is grpc.StatusCode.PERMISSION_DENIED) == (who != "admin"), caught.value.details()
    line = one_line(audited, request_id)
    assert (line["who"], line["result"]) == (who, camel(code)), line
    assert line["resource"].isprintable(), line


def test_names_are_not_shown_raw(audited):
    admin, request_id = as_(audited, "admin")
    forged = 'x" result=Ok\n2026-01-01 tipserve::audit who="admin"\x1b[2J'
    with pytest.raises(grpc.RpcError) as caught:
        admin.caches.DeleteCache(cache.DeleteCacheRequest(name=forged))
    assert caught.value.details().isprintable()
    assert one_line(audited, request_id)["resource"].isprintable()
    for field, refused in {
        "display_name": cache.CacheSpec(
            cache_id="team-x", classes=[cache.ClassSpec(display_name="a\x1b[2J")]
        ),
        "labels": cache.CacheSpec(
            cache_id="team-x", classes=wire.classes("ab"), labels={"a": "b\r"}
        ),
        "created_by": cache.CacheSpec(
            cache_id="team-x", classes=wire.classes("ab"), created_by="b\n"
        ),
    }.items():
        with pytest.raises(grpc.RpcError) as caught:
            admin.create(refused)
        problem = wire.Problem.of_call(caught.value)
        assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
        assert field in problem.fields[0] and problem.message.isprintable(), problem
    spec = cache.CacheSpec(cache_id="team-x", classes=wire.classes("ab"))
    examples = wire.examples_of(points(), [0, 1] * 4)
    examples[3].example_id = "three\x1b"
    [rejected] = admin.create(spec, examples).rejected.values()
    assert rejected.reason == "FIELD_INVALID" and rejected.message.isprintable()
