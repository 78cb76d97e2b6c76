"""Tokens: who may call what, which caches, how fast; and what the log says of it."""

from __future__ import annotations

import json
import queue
import re
import secrets
import signal
import subprocess

import grpc
import pytest
import wire
from conftest import BINARY, ROOT, WIDTH, Server, eventually
from tokens import TokensFile, api
from wire import Problem, analysis, bundle, cache, classify, finetune

SERVICES = {
    "tipserve.v1.AnalysisService": analysis.DESCRIPTOR,
    "tipserve.v1.BundleService": bundle.DESCRIPTOR,
    "tipserve.v1.ClassifyService": classify.DESCRIPTOR,
    "tipserve.v1.CacheService": cache.DESCRIPTOR,
    "tipserve.v1.FineTuneService": finetune.DESCRIPTOR,
}
READ = set(
    [
        "ClassifyStream",
        "Classify",
        "Embed",
        "Evaluate",
        "GetServerInfo",
        "GetCache",
        "ListCaches",
        "GetVersion",
        "ListVersions",
        "ListExamples",
        "GetExamplePicture",
        "ListFineTunes",
        "GetFineTune",
        "SuggestExamples",
        "AnalyzeVersion",
        "GetDrift",
        "ListBundles",
    ]
)
WRITE = set(
    [
        "ExportVersion",
        "CreateCache",
        "AddExamples",
        "ImportVersion",
        "SetAlias",
        "DeleteAlias",
        "FineTune",
        "CancelFineTune",
    ]
)
ADMIN = {"DeleteCache", "DeleteVersion", "PruneVersions", "LoadBundle", "UnloadBundle"}
SLOW = "items_per_second = 0.000001\n"


@pytest.fixture(scope="module")
def guarded(features_bundle, tmp_path_factory):
    """A server with tokens; its log is JSON."""
    folder = tmp_path_factory.mktemp("guarded")
    file = TokensFile(folder)
    for role in ("classify", "write", "admin"):
        file.add(role, role)
    file.add("team", "admin", "team-")
    server = Server(
        features_bundle,
        folder / "store",
        *("--tokens", str(file.path), "--log-format", "json", "--reload-seconds", "1"),
    )
    server.file = file
    server.as_ = lambda name, **rest: api(server.address, file.tokens[name], **rest)
    yield server
    server.close()


def make(one: wire.Api, cache_id: str, chance, **more) -> cache.Version:
    spec = cache.CacheSpec(
        cache_id=cache_id, classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN, **more
    )
    return one.create(spec, wire.examples_of(chance.normal(size=(8, WIDTH)), [0, 1] * 4)).version


def outcome(channel, path: str, message: bytes = b"") -> Problem:
    """How a call ends; on the wire every kind of call looks alike."""
    call = channel.stream_stream(path)(iter([message]), timeout=60)
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return Problem.of_call(error)
    return Problem(grpc.StatusCode.OK, "")


def methods():
    for service, file in SERVICES.items():
        for method in file.services_by_name[service.rsplit(".")[-1]].methods:
            yield f"/{service}/{method.name}"


def test_every_method_is_in_this_tests_table():
    names = {path.rsplit("/")[-1] for path in methods()}
    assert names == READ | WRITE | ADMIN


def test_the_documented_table_is_complete():
    text = (ROOT / "docs/security.md").read_text()
    table = {"classify": READ, "write": WRITE, "admin": ADMIN | {"RepositoryModelUnload"}}
    for role, names in table.items():
        row = re.search(rf"^\| {role} \| (.*) \|$", text, re.MULTILINE)[1]
        assert set(re.findall(r"`(\w+)`", row)) == names


@pytest.mark.parametrize("role", ["classify", "write", "admin"])
def test_every_role_on_every_method(guarded, role):
    allowed = (
        READ | (WRITE if role != "classify" else set()) | (ADMIN if role == "admin" else set())
    )
    one = guarded.as_(role)
    reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    for path in [*methods(), reflection, reflection.replace(".v1.", ".v1alpha.")]:
        method = path.rsplit("/")[-1]
        problem = outcome(one.channel, path)
        if method in allowed or method == "ServerReflectionInfo":
            assert problem.code is not grpc.StatusCode.PERMISSION_DENIED, (path, problem)
            assert problem.code is not grpc.StatusCode.UNAUTHENTICATED, (path, problem)
        else:
            assert problem.code is grpc.StatusCode.PERMISSION_DENIED, (path, problem)
            assert problem.reason == "ROLE_NOT_ALLOWED"
            assert problem.metadata["role"] == role
            assert problem.metadata["needed"] == ("admin" if method in ADMIN else "write")
            assert method in problem.message and role in problem.message


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "TOKEN_MISSING"),
        ("Basic abc", "TOKEN_MALFORMED"),
        ("Bearer wrong", "TOKEN_UNKNOWN"),
        ("Bearer ", "TOKEN_MALFORMED"),
        ("Bearer tipserve_" + "0" * 64, "TOKEN_UNKNOWN"),
    ],
)
def test_without_a_good_token_nothing_but_health(guarded, header, reason):
    headers = {} if header is None else {"authorization": header}
    one = api(guarded.address, **headers)
    for path in [*methods(), "/no.such.Service/Method"]:
        problem = outcome(one.channel, path)
        assert problem.code is grpc.StatusCode.UNAUTHENTICATED, (path, problem)
        assert problem.reason in (reason, "TOKEN_UNKNOWN"), problem
    assert outcome(one.channel, "/grpc.health.v1.Health/Check").code is grpc.StatusCode.OK


def test_methods_that_are_not_there(guarded):
    problem = outcome(guarded.as_("admin").channel, "/no.such.Service/Method")
    assert problem.code is grpc.StatusCode.UNIMPLEMENTED


def named(cache_id: str, run: str) -> dict[str, bytes]:
    """A first message of every method that names a cache."""
    spec = cache.CacheSpec(cache_id=cache_id, classes=wire.classes("ab"))
    given = {
        "Classify": classify.ClassifyRequest(cache=cache_id),
        "ClassifyStream": classify.ClassifyStreamRequest(
            config=classify.ClassifyStreamConfig(cache=f"{cache_id}@1")
        ),
        "Evaluate": classify.EvaluateRequest(config=classify.EvaluateConfig(caches=[cache_id])),
        "CreateCache": cache.CreateCacheRequest(spec=spec),
        "AddExamples": cache.AddExamplesRequest(spec=cache.AddExamplesSpec(base=cache_id)),
        "GetCache": cache.GetCacheRequest(name=f"caches/{cache_id}"),
        "DeleteCache": cache.DeleteCacheRequest(name=cache_id),
        "GetVersion": cache.GetVersionRequest(name=f"caches/{cache_id}/versions/1"),
        "ListVersions": cache.ListVersionsRequest(parent=cache_id),
        "ListExamples": cache.ListExamplesRequest(parent=cache_id),
        "GetExamplePicture": cache.GetExamplePictureRequest(parent=cache_id, example_id="0"),
        "DeleteVersion": cache.DeleteVersionRequest(name=f"{cache_id}@1"),
        "PruneVersions": cache.PruneVersionsRequest(name=cache_id, keep=1),
        "ExportVersion": cache.ExportVersionRequest(name=cache_id),
        "ImportVersion": cache.ImportVersionRequest(
            spec=cache.ImportSpec(cache_id=cache_id, size_bytes=100)
        ),
        "SetAlias": cache.SetAliasRequest(cache=cache_id, alias="a", version=1),
        "DeleteAlias": cache.DeleteAliasRequest(cache=cache_id, alias="a"),
        "FineTune": finetune.FineTuneRequest(cache=cache_id),
        "ListFineTunes": finetune.ListFineTunesRequest(cache=cache_id),
        "GetFineTune": finetune.GetFineTuneRequest(name=run),
        "CancelFineTune": finetune.CancelFineTuneRequest(name=run),
        "AnalyzeVersion": analysis.AnalyzeVersionRequest(cache=cache_id),
        "GetDrift": analysis.GetDriftRequest(cache=cache_id),
        "SuggestExamples": analysis.SuggestExamplesRequest(
            config=analysis.SuggestExamplesConfig(cache=cache_id)
        ),
    }
    return {name: message.SerializeToString() for name, message in given.items()}


def test_a_prefix_shuts_out_all_others_and_tells_nothing_of_them(guarded, chance):
    there, absent = "other-there", "other-empty"
    make(guarded.as_("admin"), there, chance)
    (last,) = (
        response.run
        for response in list(
            guarded.as_("admin").tuning.FineTune(finetune.FineTuneRequest(cache=there, epochs=1))
        )[-1:]
    )
    unknown = last.name.rsplit("-", 1)[0] + "-99999999"
    team = guarded.as_("team")
    by_name = {path.rsplit("/")[-1]: path for path in methods()}
    of_there, of_absent = named(there, last.name), named(absent, unknown)
    nameless = {"Embed", "GetServerInfo", "ListCaches", "ListBundles", "LoadBundle", "UnloadBundle"}
    assert set(of_there) | nameless == set(by_name), "a method names a cache and is not tested"
    for method, message in of_there.items():
        known = outcome(team.channel, by_name[method], message)
        other = outcome(team.channel, by_name[method], of_absent[method])
        assert known.code is not grpc.StatusCode.OK, method
        same = [
            (p.code, p.reason, p.message.replace(a, "X").replace(b, "R"), p.fields)
            for p, a, b in ((known, there, last.name), (other, absent, unknown))
        ]
        assert same[0] == same[1], method
        if "FineTune" in method and method not in ("FineTune", "ListFineTunes"):
            assert known.code is grpc.StatusCode.NOT_FOUND
        else:
            assert known.code is grpc.StatusCode.PERMISSION_DENIED, (method, known)
            assert known.reason == "CACHE_NOT_ALLOWED"
    # Nothing happened to it.
    assert guarded.as_("admin").caches.GetCache(cache.GetCacheRequest(name=there)).version_count


def test_lists_show_what_a_token_may_see(guarded, chance):
    admin, team = guarded.as_("admin"), guarded.as_("team")
    own = f"team-{secrets.token_hex(4)}"
    for name in ("a-before", own, "team", "z-after"):
        make(admin, name, chance)
    seen, page = [], cache.ListCachesRequest(page_size=1)
    while True:
        answer = team.caches.ListCaches(page)
        seen += [one.name for one in answer.caches]
        assert not answer.next_page_token or answer.next_page_token.startswith("team-")
        if not answer.next_page_token:
            break
        page.page_token = answer.next_page_token
    assert f"caches/{own}" in seen
    assert all(name.startswith("caches/team-") for name in seen)
    filtered = cache.ListCachesRequest(filter='cache_id != "x"', page_size=1000)
    assert {c.name for c in team.caches.ListCaches(filtered).caches} == set(seen)
    for name in ("z-after", own):
        list(admin.tuning.FineTune(finetune.FineTuneRequest(cache=name, epochs=1)))
    runs = team.tuning.ListFineTunes(finetune.ListFineTunesRequest()).fine_tunes
    assert {run.parent.split("/")[1] for run in runs} == {own}
    assert make(team, own, chance).version == 3


def test_who_made_a_version_is_the_tokens_name(guarded, chance):
    admin = guarded.as_("admin")
    name = f"made-{secrets.token_hex(4)}"
    version = make(admin, name, chance, created_by="somebody else")
    assert version.created_by == "admin"
    _, data = admin.export(name)
    assert guarded.as_("write").import_(name, data).created_by == "write"
    spec = cache.AddExamplesSpec(base=name, created_by="somebody else")
    added = guarded.as_("write").add(
        spec, [wire.example(0, wire.embedding(chance.normal(size=WIDTH)))]
    )
    assert added.version.created_by == "write"
    *_, last = guarded.as_("write").tuning.FineTune(finetune.FineTuneRequest(cache=name, epochs=1))
    assert last.run.version.created_by == "write"


def audit(server) -> list[dict]:
    lines = (json.loads(line) for line in server.log.read_text().splitlines() if "{" in line)
    return [line["fields"] for line in lines if line["target"] == "tipserve::audit"]


def test_every_change_leaves_one_line(guarded, chance):
    name, request_id = f"aud-{secrets.token_hex(4)}", secrets.token_hex(8)
    admin = guarded.as_("admin", x_request_id=request_id)
    make(admin, name, chance)
    spec = cache.AddExamplesSpec(base=name)
    admin.add(spec, [wire.example(0, wire.embedding(chance.normal(size=WIDTH)))])
    admin.caches.SetAlias(cache.SetAliasRequest(cache=name, alias="stable", version=1))
    admin.caches.DeleteAlias(cache.DeleteAliasRequest(cache=name, alias="stable"))
    admin.import_(name, admin.export(name)[1])
    list(admin.tuning.FineTune(finetune.FineTuneRequest(cache=name, epochs=1)))
    admin.caches.DeleteVersion(cache.DeleteVersionRequest(name=f"{name}@1"))
    admin.caches.PruneVersions(cache.PruneVersionsRequest(name=name, keep=1))
    admin.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    with pytest.raises(grpc.RpcError):
        admin.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    with pytest.raises(grpc.RpcError):
        denied = guarded.as_("classify", x_request_id=request_id)
        denied.caches.DeleteCache(cache.DeleteCacheRequest(name=name))

    def written() -> list[dict]:
        return [line for line in audit(guarded) if line["request_id"] == request_id]

    lines = eventually(lambda: (found := written())[12:] and found)
    assert {line["known_by"] for line in lines} == {"token"}
    said = [(line["action"], line["resource"], line["result"]) for line in lines]
    version = f"caches/{name}/versions/"
    expected = [
        ("create_cache", version + "1", "Ok"),
        ("add_examples", version + "2", "Ok"),
        ("set_alias", f"{name}/aliases/stable", "Ok"),
        ("delete_alias", f"{name}/aliases/stable", "Ok"),
        ("export_version", name, "Ok"),
        ("import_version", version + "3", "Ok"),
        ("start_finetune", version + "3", "Ok"),
        ("end_finetune", version + "4", "Ok"),
        ("delete_version", f"{name}@1", "Ok"),
        ("prune_versions", version + "[3,2]", "Ok"),
        ("delete_cache", name, "Ok"),
        ("delete_cache", name, "NotFound"),
        ("DeleteCache", "", "PermissionDenied"),
    ]
    assert sorted(said) == sorted(expected)
    assert all(line["who"] == "admin" for line in lines[:-1])
    assert lines[-1]["who"] == "classify"


def test_no_token_is_ever_logged(guarded, chance):
    """After the others, whatever they sent; even at the finest level."""
    log = guarded.log.read_text()
    for token in guarded.file.tokens.values():
        assert token.removeprefix("tipserve_") not in log


def test_a_token_is_not_logged_at_trace_level(serve, features_bundle, tmp_path):
    file = TokensFile(tmp_path)
    token = file.add("t", "classify")
    server = serve(features_bundle, "--tokens", str(file.path), env={"RUST_LOG": "trace"})
    assert api(server.address, token).ids() == []
    with pytest.raises(grpc.RpcError):
        api(server.address, token + "x").ids()
    server.terminate()
    log = server.log.read_text()
    assert "TRACE" in log and token not in log


def test_tokens_come_and_go_without_a_restart(serve, features_bundle, tmp_path):
    file = TokensFile(tmp_path)
    first = file.add("first", "classify")
    server = serve(features_bundle, "--tokens", str(file.path), "--reload-seconds", "3600")
    second = file.add("second", "classify")

    def known(token):
        try:
            return api(server.address, token).ids() == []
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

    assert known(first) and not known(second)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: known(second))
    # A file that cannot be read changes nothing, and is said.
    file.path.write_text("[[token]]\nname = 'x'\nhash = 'my secret'\nrole = 'admin'\n")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "cannot be used" in server.log.read_text())
    assert known(first) and known(second)
    assert "my secret" not in server.log.read_text()
    metrics = server.metrics()
    assert metrics['tipserve_guard_reloads_total{kind="tokens",outcome="error"}'] == 1
    assert metrics["tipserve_tokens"] == 2
    file.remove("first")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: not known(first))
    assert known(second)


def test_a_token_that_has_expired(serve, features_bundle, tmp_path):
    file = TokensFile(tmp_path)
    token = file.add("old", "classify", extra="expires = 2020-01-31T00:00:00Z\n")
    server = serve(features_bundle, "--tokens", str(file.path))
    with pytest.raises(grpc.RpcError) as caught:
        api(server.address, token).ids()
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert "2020-01-31" in problem.message


def test_a_stream_does_not_outlive_its_token(serve, features_bundle, tmp_path, chance):
    file = TokensFile(tmp_path)
    admin, gone = file.add("admin", "admin"), file.add("gone", "classify")
    server = serve(features_bundle, "--tokens", str(file.path), "--reload-seconds", "3600")
    make(api(server.address, admin), "c", chance)
    point = wire.embedding(chance.normal(size=WIDTH))
    streams = []
    for token in (gone, admin):
        items: queue.Queue = queue.Queue()
        stream = api(server.address, token).stream("c", iter(items.get, None), batch=1)
        items.put(wire.item("1", point))
        assert next(stream).WhichOneof("outcome") == "classification"
        streams.append((items, stream))
    file.remove("gone")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: server.metrics()["tipserve_tokens"] == 1)
    for (items, stream), reason in zip(streams, ("TOKEN_UNKNOWN", None), strict=True):
        items.put(wire.item("2", point))
        items.put(None)
        [result] = stream
        if reason is None:
            assert result.WhichOneof("outcome") == "classification"
        else:
            assert Problem.of_status(result.error).reason == reason


def test_the_command_line_shows_its_token(guarded, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(guarded.file.tokens["classify"] + "\n")

    def run(*flags, env=None):
        return subprocess.run(
            [BINARY, "--json", "--server", guarded.address, *flags],
            capture_output=True,
            text=True,
            timeout=60,
            env=env,
        )

    for flags, env in (
        (("--token-file", str(secret), "info"), None),
        (("--token", guarded.file.tokens["classify"], "info"), None),
        (("info",), {"TIPSERVE_TOKEN": guarded.file.tokens["classify"]}),
    ):
        done = run(*flags, env=env)
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["version"]
    assert re.search("TOKEN_MISSING|authorization", run("info").stdout)
    denied = run("--token-file", str(secret), "caches", "delete", "x", "--yes")
    assert denied.returncode != 0 and "admin" in denied.stdout + denied.stderr


@pytest.mark.parametrize(
    ("filter_", "there"), [("error", True), ("off", True), ("info,tipserve::audit=off", False)]
)
def test_audit_lines_pass_other_filters(serve, features_bundle, chance, filter_, there):
    server = serve(features_bundle, env={"RUST_LOG": filter_})
    make(server.api, "c", chance)
    server.terminate()
    log = server.log.read_text()
    assert ("create_cache" in log and "anonymous" in log) == there, log
