"""A caller who may no longer make a call does not go on with one that is under way."""

from __future__ import annotations

import queue
import signal
from dataclasses import dataclass

import grpc
import pytest
import wire
from certificates import Authority, Files
from conftest import WIDTH, eventually
from tokens import TokensFile, api
from wire import Problem, analysis, bundle, cache, classify, finetune

MANY_EPOCHS = 1000


def make(one: wire.Api, name: str, count: int = 8) -> cache.Version:
    points = wire.np.random.default_rng().normal(size=(count, WIDTH))
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab"), method=cache.METHOD_TIP_ADAPTER
    )
    return one.create(spec, wire.examples_of(points, [0, 1] * (count // 2))).version


@pytest.fixture
def guarded(serve, features_bundle, tmp_path):
    file = TokensFile(tmp_path)
    admin = file.add("admin", "admin")
    server = serve(
        features_bundle, "--tokens", str(file.path), "--log-format", "json", "--reload-seconds", "1"
    )
    server.file = file
    server.admin = api(server.address, admin)
    # So many that a thousand epochs outlast the test on any machine.
    make(server.admin, "team-c", 4000)
    return server


def silent(items: queue.Queue, first):
    yield first
    yield from iter(items.get, None)


@dataclass
class Unary:
    """A call with one answer."""

    future: grpc.Future


def long_calls(one: wire.Api, items: queue.Queue) -> dict:
    """A call of each method that can last, under way."""
    config = classify.ClassifyStreamConfig(cache="team-c")
    evaluated = classify.EvaluateConfig(caches=["team-c"])
    spec = cache.CacheSpec(cache_id="team-new", classes=wire.classes("ab"))
    added = cache.AddExamplesSpec(base="team-c")
    imported = cache.ImportSpec(cache_id="team-in", size_bytes=100)
    tuned = finetune.FineTuneRequest(cache="team-c", epochs=MANY_EPOCHS)
    return {
        "ClassifyStream": one.classifying.ClassifyStream(
            silent(items, classify.ClassifyStreamRequest(config=config))
        ),
        "Evaluate": Unary(
            one.classifying.Evaluate.future(
                silent(items, classify.EvaluateRequest(config=evaluated))
            )
        ),
        "CreateCache": one.caches.CreateCache(silent(items, cache.CreateCacheRequest(spec=spec))),
        "AddExamples": one.caches.AddExamples(silent(items, cache.AddExamplesRequest(spec=added))),
        "ImportVersion": Unary(
            one.caches.ImportVersion.future(
                silent(items, cache.ImportVersionRequest(spec=imported))
            )
        ),
        "FineTune": one.tuning.FineTune(tuned),
        "SuggestExamples": Unary(
            one.analysing.SuggestExamples.future(
                silent(
                    items,
                    analysis.SuggestExamplesRequest(
                        config=analysis.SuggestExamplesConfig(cache="team-c")
                    ),
                )
            )
        ),
        "ModelStreamInfer": one.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer"
        )(silent(items, INFER)),
        "ServerReflectionInfo": one.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )(silent(items, LIST_SERVICES)),
    }


# What these two are sent first, in wire format: a request for the model "team-c", and one for the
# list of services.
INFER = b"\x0a\x06team-c"
LIST_SERVICES = b"\x3a\x00"
# A role that may only classify keeps these.
READING = {"ClassifyStream", "Evaluate", "SuggestExamples", "ModelStreamInfer"} | {
    "ServerReflectionInfo"
}


def test_the_table_of_long_calls_is_total():
    streams = {
        method.name
        for module in (analysis, bundle, cache, classify, finetune)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.client_streaming or method.server_streaming
    }

    class Any:
        """Takes every call."""

        def __getattr__(self, name):
            return self

        def __call__(self, *_, **__):
            return self

    table = set(long_calls(Any(), queue.Queue()))
    # An export ends by itself; reflection and the inference protocol have descriptors of their own.
    assert table == streams - {"ExportVersion"} | {"ModelStreamInfer", "ServerReflectionInfo"}


def ending(call) -> Problem:
    try:
        if isinstance(call, Unary):
            call.future.result(timeout=60)
        else:
            for _ in call:
                pass
    except grpc.RpcError as error:
        return Problem.of_call(error)
    return Problem(grpc.StatusCode.OK, "")


LAPSES = {
    "removed": ({}, "TOKEN_UNKNOWN"),
    "expired": ({"extra": "expires = 2020-01-31T00:00:00Z\n"}, "TOKEN_EXPIRED"),
    "narrowed": ({"prefix": "other-"}, "CACHE_NOT_ALLOWED"),
    "lowered": ({"role": "classify"}, "ROLE_NOT_ALLOWED"),
}


@pytest.mark.parametrize("lapse", LAPSES)
def test_it_reaches_every_long_call(guarded, lapse):
    change, reason = LAPSES[lapse]
    file = guarded.file
    token = file.add("gone", "write")
    eventually(lambda: guarded.metrics()["tipserve_tokens"] == 2)
    items: queue.Queue = queue.Queue()
    calls = long_calls(api(guarded.address, token), items)
    next(calls["FineTune"])
    # The same secret with less to it.
    entry = file.entries["gone"].replace(
        'role = "write"', f'role = "{change.get("role", "write")}"'
    )
    if "prefix" in change:
        entry += f'prefix = "{change["prefix"]}"\n'
    file.entries["gone"] = entry + change.get("extra", "")
    if lapse == "removed":
        file.remove("gone")
    file.write()
    guarded.process.send_signal(signal.SIGHUP)
    for method, call in calls.items():
        if lapse == "lowered" and method in READING:
            # A token that may still classify goes on.
            continue
        problem = ending(call)
        assert problem.reason == reason, (method, problem)
    for _ in calls:
        items.put(None)
    if lapse == "lowered":
        assert ending(calls["ClassifyStream"]).code is grpc.StatusCode.OK
        assert ending(calls["Evaluate"]).code is grpc.StatusCode.OK
    assert set(guarded.admin.ids()) == {"caches/team-c"}
    runs = guarded.admin.tuning.ListFineTunes(finetune.ListFineTunesRequest()).fine_tunes
    eventually(
        lambda: (
            guarded.admin.tuning.GetFineTune(finetune.GetFineTuneRequest(name=runs[0].name)).state
            == finetune.FineTuneRun.STATE_CANCELLED
        )
    )


@pytest.mark.parametrize("still_may", [False, True])
def test_a_detached_run_stops_unless_its_owner_still_may(guarded, still_may):
    file = guarded.file
    token = file.add("owner", "write")
    eventually(lambda: guarded.metrics()["tipserve_tokens"] == 2)
    request = finetune.FineTuneRequest(cache="team-c", epochs=MANY_EPOCHS, detached=True)
    call = api(guarded.address, token).tuning.FineTune(request)
    name = next(call).run.name
    call.cancel()

    def state():
        return guarded.admin.tuning.GetFineTune(finetune.GetFineTuneRequest(name=name)).state

    running = (finetune.FineTuneRun.STATE_QUEUED, finetune.FineTuneRun.STATE_RUNNING)
    assert state() in running
    # Narrowed to a prefix that has the cache, or does not.
    file.entries["owner"] += f'prefix = "{"team-" if still_may else "other-"}"\n'
    file.write()
    reloads = 'tipserve_guard_reloads_total{kind="tokens",outcome="ok"}'
    before = guarded.metrics()[reloads]
    guarded.process.send_signal(signal.SIGHUP)
    eventually(lambda: guarded.metrics()[reloads] >= before)
    if still_may:
        file.add("later", "classify")
        eventually(lambda: guarded.metrics()["tipserve_tokens"] == 3)
        assert state() in (*running, finetune.FineTuneRun.STATE_SUCCEEDED)
        guarded.admin.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=name))
    else:
        eventually(lambda: state() == finetune.FineTuneRun.STATE_CANCELLED)


def test_a_revoked_certificate_is_refused_also_on_a_connection_that_is_open(
    serve, features_bundle, tmp_path
):
    authority = Authority()
    files = Files(tmp_path, authority)
    gone, stays = (authority.issue(name) for name in ("gone", "stays"))
    revoked = tmp_path / "crl.pem"
    revoked.write_bytes(authority.revocations())
    flags = [*files.flags(clients=True), "--tls-client-crl", str(revoked)]
    server = serve(features_bundle, *flags, "--reload-seconds", "3600")

    def client(pair) -> wire.Api:
        chain, key = pair
        made = grpc.ssl_channel_credentials(authority.pem, key, chain)
        return api(server.address, credentials=made)

    one, other = client(gone), client(stays)
    make(one, "c")
    items: queue.Queue = queue.Queue()
    config = classify.ClassifyStreamConfig(cache="c")
    stream = one.classifying.ClassifyStream(
        silent(items, classify.ClassifyStreamRequest(config=config))
    )
    point = wire.embedding(wire.np.ones(WIDTH))
    items.put(
        classify.ClassifyStreamRequest(items=classify.ItemBatch(items=[wire.item("1", point)]))
    )
    next(stream)
    revoked.write_bytes(authority.revocations(gone))
    server.process.send_signal(signal.SIGHUP)
    assert ending(stream).reason == "CERTIFICATE_REFUSED"
    with pytest.raises(grpc.RpcError) as caught:
        one.ids()
    assert Problem.of_call(caught.value).reason == "CERTIFICATE_REFUSED"
    with pytest.raises(grpc.RpcError) as caught:
        client(gone).ids()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "a handshake was let through"
    assert other.ids() == client(stays).ids() == ["caches/c"]
