"""Several bundles in one server: versions find theirs, and bundles come and go."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest
import tipserve
import wire
from conftest import eventually
from over_http import call
from pictures import photo, png
from random_bundle import fingerprint, random_bundle
from tokens import TokensFile, api
from wire import Problem, analysis, bundle, cache, classify

pytest.importorskip("torch")

CLASSES = ["ash", "oak", "elm"]
FLOAT = ("--dtype", "float32")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Another bundle than the tiny CLIP, of another size and width, without text."""
    return random_bundle(tmp_path_factory.mktemp("other") / "other", seed=5)


def pictures(chance, count: int = 9) -> list:
    """Pictures, class by class in turn."""
    return [wire.encoded(png(photo(chance, i % len(CLASSES)))) for i in range(count)]


def examples(chance) -> list:
    return [
        wire.example(i % len(CLASSES), content, str(i))
        for i, content in enumerate(pictures(chance))
    ]


def spec(name: str, **more) -> cache.CacheSpec:
    """A small cache whose numbers are given."""
    return cache.CacheSpec(
        cache_id=name,
        classes=wire.classes(CLASSES),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1.0,
        beta=5.0,
        **more,
    )


def refused(run) -> Problem:
    with pytest.raises(grpc.RpcError) as raised:
        run()
    return Problem.of_call(raised.value)


def states_of(one: wire.Api) -> dict[str, int]:
    """State of each bundle by its folder, as the services have it."""
    found = one.bundles.ListBundles(bundle.ListBundlesRequest()).bundles
    return {each.folder: each.state for each in found}


def states(server) -> dict[str, str]:
    """State of each bundle by its folder."""
    found = server.cli("bundles", "list")["bundles"]
    return {one["folder"]: one["state"] for one in found}


def load(server, folder: str, **more):
    request = bundle.LoadBundleRequest(folder=folder, **more)
    return server.api.bundles.LoadBundle(request, timeout=300)


def unload(server, name: str) -> None:
    server.api.bundles.UnloadBundle(bundle.UnloadBundleRequest(bundle=name), timeout=300)


def test_each_version_is_answered_as_by_a_server_of_its_bundle_alone(
    serve, tiny_bundle, other, chance
):
    both = serve(tiny_bundle, "--bundle", str(other), *FLOAT)
    alone = {"first": serve(tiny_bundle, *FLOAT), "second": serve(other, *FLOAT)}
    shown, asked = examples(chance), pictures(chance, 12)
    for name, named in (("first", ""), ("second", "other")):
        made = both.api.create(spec(name, bundle=named), shown).version
        assert alone[name].api.create(spec(name), shown).version.bundle_fingerprint == (
            made.bundle_fingerprint
        )
        np.testing.assert_allclose(
            both.api.logits(name, asked), alone[name].api.logits(name, asked), rtol=1e-5, atol=1e-5
        )
    # Nothing names the bundle of a cache that is there.
    added = cache.AddExamplesSpec(base="second")
    again = [wire.example(0, pictures(chance, 1)[0], "more")]
    assert both.api.add(added, again).version.bundle_fingerprint == fingerprint(other)
    run = both.cli("finetune", "second", "--recipe", "tip-adapter-f", "--epochs", "2")
    assert run["version"]["bundle_fingerprint"] == fingerprint(other)
    # One stream of items to each, side by side.
    answers = {}

    def ask(name: str) -> None:
        items = [wire.item(str(i), one) for i, one in enumerate(asked * 5)]
        answers[name] = [one.WhichOneof("outcome") for one in both.api.stream(name, items)]

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {name: ["classification"] * 60 for name in ("first", "second")}
    # Pictures of both at once; an embedding is one bundle's.
    both.api.create(spec("second", bundle="other"), shown)
    config = classify.EvaluateRequest(config=classify.EvaluateConfig(caches=["first", "second"]))
    labelled = [classify.LabelledItem(id="p", class_index=1, input=asked[1])]
    labelled.append(classify.LabelledItem(id="e", class_index=1, input=wire.embedding([1.0] * 24)))
    batch = classify.EvaluateRequest(items=classify.LabelledBatch(items=labelled))
    judged = both.api.classifying.Evaluate(iter([config, batch]), timeout=60)
    assert [one.count for one in judged.evaluations] == [1, 1]
    assert [one.example_id for one in judged.rejected] == ["e"]


def test_a_bundle_is_named_where_no_version_says_it(serve, tiny_bundle, other, chance):
    server = serve(tiny_bundle, "--bundle", str(other), *FLOAT)
    info = server.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    assert [one.name for one in info.bundles] == [info.bundle.name, "other"]
    # Clients that resize cannot know whose sizes a cache takes.
    assert (info.bundle.resize, info.bundles[0].resize) == ("server", "shortest-side")
    [content] = pictures(chance, 1)

    def embed(named: str = "", **more):
        request = classify.EmbedRequest(bundle=named, **({"inputs": [content]} | more))
        return server.api.classifying.Embed(request, timeout=60)

    width = {
        named: len(embed(named).inputs[0].embedding.values)
        for named in (
            "",
            info.bundle.name,
            info.bundle.fingerprint,
            "other",
            fingerprint(other)[:12],
        )
    }
    assert list(width.values()) == [48, 48, 48, 24, 24]
    assert embed(texts=["a dog"]).texts[0].HasField("embedding")
    problem = refused(lambda: embed("other", inputs=[], texts=["a dog"]))
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_TEXT_ENCODER",
    )
    config = analysis.SuggestExamplesConfig(bundle="nobody's")
    for run, field in (
        (lambda: embed("nobody's"), "bundle"),
        (lambda: server.api.create(spec("x", bundle="nobody's")), "spec.bundle"),
        (
            lambda: server.api.analysing.SuggestExamples(
                iter([analysis.SuggestExamplesRequest(config=config)])
            ),
            "config.bundle",
        ),
    ):
        problem = refused(run)
        assert (problem.code, problem.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "BUNDLE_NOT_FOUND",
        )
        assert problem.fields == [field]
        assert problem.metadata["bundle"] == "nobody's"
        assert fingerprint(other)[:12] in problem.message


def test_a_folder_of_bundles_is_served_by_name_and_the_same_one_twice_is_not(
    serve, tmp_path, chance
):
    folder = tmp_path / "models"
    for seed, name in enumerate(["b", "a"]):
        random_bundle(folder / name, name="twins", seed=seed)
    (folder / "notes").mkdir()
    server = serve(folder, *FLOAT)
    assert states(server) == {"a": "ready", "b": "ready"}
    info = server.api.classifying.GetServerInfo(classify.GetServerInfoRequest())
    assert info.bundle.fingerprint == fingerprint(folder / "a")
    # Both are called alike: only the fingerprint says which.
    request = classify.EmbedRequest(bundle="twins", inputs=pictures(chance, 1))
    problem = refused(lambda: server.api.classifying.Embed(request, timeout=60))
    assert (problem.reason, "fingerprint" in problem.message) == ("BUNDLE_NOT_FOUND", True)
    shutil.copytree(folder / "a", folder / "c")
    server.terminate()
    with pytest.raises(pytest.fail.Exception):
        serve(folder, *FLOAT)


def test_loading_and_unloading_disturb_nobody(serve, tmp_path, chance):
    first = random_bundle(tmp_path / "first", seed=1)
    folder = tmp_path / "models"
    second = random_bundle(folder / "second", seed=2, width=40)
    server = serve(first, "--bundle-folders", str(folder), *FLOAT)
    shown, asked = examples(chance), pictures(chance, 6)
    server.api.create(spec("steady"), shown)
    stop, outcomes = threading.Event(), []

    def steady() -> None:
        while not stop.is_set():
            items = [wire.item(str(i), one) for i, one in enumerate(asked)]
            outcomes.extend(one.WhichOneof("outcome") for one in server.api.stream("steady", items))

    thread = threading.Thread(target=steady)
    thread.start()
    try:
        for _ in range(3):
            assert states(server) == {"first": "ready", "second": "available"}
            loaded = load(server, "second")
            assert (loaded.state, loaded.is_default) == (bundle.Bundle.STATE_READY, False)
            assert (loaded.info.width, loaded.info.fingerprint) == (40, fingerprint(second))
            assert load(server, "second").load_time == loaded.load_time
            server.api.create(spec("guest", bundle="second"), shown)
            guest = server.api.logits("guest", asked)
            assert server.metrics()['tipserve_bundle_loaded{bundle="second"}'] == 1
            unload(server, "second")
            problem = refused(lambda: server.api.one("guest", asked[0]))
            assert (problem.code, problem.reason) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "WRONG_BUNDLE",
            )
            assert fingerprint(second) in problem.message and "LoadBundle" in problem.message
            assert refused(lambda: unload(server, "second")).reason == "BUNDLE_NOT_FOUND"
        load(server, "second")
        np.testing.assert_allclose(server.api.logits("guest", asked), guest, rtol=1e-6, atol=1e-6)
    finally:
        stop.set()
        thread.join()
    assert outcomes and set(outcomes) == {"classification"}
    metrics = server.metrics()
    assert metrics["tipserve_bundles"] == 2
    assert metrics['tipserve_bundle_encoded_pictures_total{bundle="second"}'] > 9


def test_what_was_admitted_is_answered_before_a_bundle_is_gone(serve, tmp_path, chance):
    first = random_bundle(tmp_path / "first", seed=1)
    slow = random_bundle(tmp_path / "slow", seed=2, rounds=120)
    server = serve(first, "--bundle", str(slow), "--max-batch", "1", *FLOAT)
    shown, [content] = examples(chance), pictures(chance, 1)
    server.api.create(spec("guest", bundle="slow"), shown)
    began, answered = threading.Event(), []

    def ask() -> None:
        items = [wire.item(str(i), content) for i in range(40)]
        for one in server.api.stream("guest", items, batch=40):
            answered.append(one.WhichOneof("outcome"))
            began.set()

    def begin_cache():
        """A version whose examples come only once the bundle is being unloaded."""
        yield cache.CreateCacheRequest(spec=spec("late", bundle="slow"))
        eventually(lambda: states(server)["slow"] == "unloading")
        yield cache.CreateCacheRequest(examples=cache.ExampleBatch(examples=shown))

    made = []
    asking = threading.Thread(target=ask)
    making = threading.Thread(
        target=lambda: made.extend(server.api.caches.CreateCache(begin_cache(), timeout=120))
    )
    asking.start()
    making.start()
    assert began.wait(60)
    # The call that makes a version is under way, too.
    calls = "tipserve_in_flight_requests"
    eventually(lambda: server.metrics()[calls] >= 2)
    unload(server, "slow")
    making.join()
    asking.join()
    assert answered == ["classification"] * 40
    assert made[-1].version.bundle_fingerprint == fingerprint(slow)
    assert refused(lambda: server.api.one("late", content)).reason == "WRONG_BUNDLE"
    assert load(server, "slow").in_flight_items == 0
    assert server.api.one("late", content).top


def test_a_restart_without_a_bundle_says_which_one_is_needed(serve, tmp_path, other, chance):
    first = random_bundle(tmp_path / "first", seed=1)
    server = serve(first, "--bundle", str(other), *FLOAT)
    asked, shown = pictures(chance, 3), examples(chance)
    server.api.create(spec("of-first"), shown)
    server.api.create(spec("of-other", bundle="other"), shown)
    before = {name: server.api.logits(name, asked) for name in ("of-first", "of-other")}
    server.terminate()
    server.start()
    for name, logits in before.items():
        np.testing.assert_allclose(server.api.logits(name, asked), logits, rtol=1e-5, atol=1e-5)
    server.terminate()
    server.flags = FLOAT
    server.start()
    assert server.http("/readyz")[0] == 200
    server.api.logits("of-first", asked)
    problem = refused(lambda: server.api.one("of-other", asked[0]))
    assert (problem.reason, problem.metadata["resource"]) == (
        "WRONG_BUNDLE",
        "caches/of-other/versions/1",
    )
    assert fingerprint(other) in problem.message
    version = server.api.caches.GetVersion(cache.GetVersionRequest(name="of-other@1"))
    assert version.bundle_name == "other"


def test_the_default_is_changed_before_it_is_unloaded(serve, tmp_path, chance):
    folder = tmp_path / "models"
    old = random_bundle(folder / "old", seed=1, width=24)
    server = serve(old, "--bundle-folders", str(folder), *FLOAT)
    assert refused(lambda: unload(server, "old")).reason == "BUNDLE_BUSY"
    random_bundle(folder / ".copying", seed=2, width=40)
    (folder / ".copying").rename(folder / "new")
    server.cli("bundles", "load", "new", "--default")
    request = classify.EmbedRequest(inputs=pictures(chance, 1))
    answer = server.api.classifying.Embed(request, timeout=60)
    assert len(answer.inputs[0].embedding.values) == 40
    server.cli("bundles", "unload", fingerprint(old))
    listed = server.cli("bundles", "list")["bundles"]
    assert [(one["folder"], one["state"], one["is_default"]) for one in listed] == [
        ("new", "ready", True),
        ("old", "available", False),
    ]


def test_only_folders_that_the_operator_named_are_loaded(serve, tmp_path):
    first = random_bundle(tmp_path / "first", seed=1)
    outside = random_bundle(tmp_path / "outside", seed=2)
    folder = tmp_path / "models"
    broken = random_bundle(folder / "broken", seed=3)
    (broken / "image.pt").write_bytes(b"something else")
    server = serve(first, "--bundle-folders", str(folder), *FLOAT)
    for name in ("outside", str(outside), "../outside", "..", ".", "broken/..", "first/"):
        problem = refused(lambda name=name: load(server, name))
        assert (problem.code, problem.reason) == (grpc.StatusCode.NOT_FOUND, "BUNDLE_NOT_FOUND")
        assert problem.fields == ["folder"]
    assert refused(lambda: load(server, "")).reason == "FIELD_MISSING"
    problem = refused(lambda: load(server, "broken"))
    assert (problem.code, problem.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "BUNDLE_UNUSABLE",
    )
    assert "sha256" in problem.message
    assert states(server) == {"first": "ready", "broken": "available"}


def test_only_admins_of_all_caches_change_what_is_loaded(serve, tmp_path):
    folder = tmp_path / "models"
    first = random_bundle(tmp_path / "first", seed=1)
    second = random_bundle(folder / "second", seed=2)
    file = TokensFile(tmp_path)
    for name, role, prefix in (
        ("reader", "classify", ""),
        ("writer", "write", ""),
        ("team", "admin", "team-"),
        ("admin", "admin", ""),
    ):
        file.add(name, role, prefix)
    flags = ("--tokens", str(file.path), "--log-format", "json", "--bundle-folders", str(folder))
    server = serve(first, *flags, *FLOAT)
    loading = bundle.LoadBundleRequest(folder="second")
    unloading = bundle.UnloadBundleRequest(bundle="second")
    for name, reason in (
        ("reader", "ROLE_NOT_ALLOWED"),
        ("writer", "ROLE_NOT_ALLOWED"),
        ("team", "CACHE_NOT_ALLOWED"),
    ):
        one = api(server.address, file.tokens[name])
        assert len(one.bundles.ListBundles(bundle.ListBundlesRequest()).bundles) == 2
        for run in (
            lambda one=one: one.bundles.LoadBundle(loading),
            lambda one=one: one.bundles.UnloadBundle(unloading),
        ):
            problem = refused(run)
            assert (problem.code, problem.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)
    admin = api(server.address, file.tokens["admin"])
    assert admin.bundles.LoadBundle(loading).info.fingerprint == fingerprint(second)
    admin.bundles.UnloadBundle(unloading)
    for run in (
        lambda: admin.bundles.LoadBundle(bundle.LoadBundleRequest(folder="../second")),
        lambda: admin.bundles.UnloadBundle(bundle.UnloadBundleRequest(bundle="")),
    ):
        assert refused(run).code is not grpc.StatusCode.OK
    # Cancelled, it goes on to its end, which its one line says.
    cancelled = admin.bundles.LoadBundle.future(loading)
    eventually(lambda: states_of(admin)["second"] != bundle.Bundle.STATE_AVAILABLE)
    cancelled.cancel()
    eventually(lambda: states_of(admin)["second"] == bundle.Bundle.STATE_READY)

    def audited() -> list:
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        fields = [line["fields"] for line in lines if line["target"] == "tipserve::audit"]
        return [(one["who"], one["action"], one["result"]) for one in fields]

    eventually(lambda: len(audited()) == 11)
    lines = Counter(audited())
    # Refused by its role, before the service knows of it, a call is named by its RPC.
    rpcs, actions = ("LoadBundle", "UnloadBundle"), ("load_bundle", "unload_bundle")
    for who, named in (("reader", rpcs), ("writer", rpcs), ("team", actions)):
        assert [lines.pop((who, name, "PermissionDenied")) for name in named] == [1, 1]
    assert lines.pop(("admin", "load_bundle", "Ok")) == 2
    assert lines.pop(("admin", "unload_bundle", "Ok")) == 1
    assert sorted(action for _, action, _ in lines) == ["load_bundle", "unload_bundle"], lines


def test_over_http(serve, tmp_path):
    folder = tmp_path / "models"
    first = random_bundle(tmp_path / "first", seed=1)
    second = random_bundle(folder / "second", seed=2)
    server = serve(first, "--bundle-folders", str(folder), *FLOAT)
    loaded = call(server, "POST", "/v1/bundles:load", {"folder": "second"})
    assert (loaded.status, loaded.json["state"]) == (200, "STATE_READY")
    listed = call(server, "GET", "/v1/bundles").json["bundles"]
    assert [one["info"]["fingerprint"] for one in listed] == [
        fingerprint(first),
        fingerprint(second),
    ]
    assert call(server, "POST", "/v1/bundles:unload", {"bundle": "second"}).status == 200
    again = call(server, "POST", "/v1/bundles:unload", {"bundle": "second"})
    assert (again.status, again.problem.reason) == (404, "BUNDLE_NOT_FOUND")


def test_from_python(serve, tmp_path, chance):
    folder = tmp_path / "models"
    first = random_bundle(tmp_path / "first", seed=1)
    second = random_bundle(folder / "second", seed=2, size=48, width=40)
    server = serve(first, "--bundle-folders", str(folder), *FLOAT)
    shown = {name: [photo(chance, kind) for _ in range(3)] for kind, name in enumerate(CLASSES)}
    with tipserve.Client(server.address, resize="client") as client:
        assert client.embed([photo(chance)]).pictures.shape == (1, 24)
        loaded = client.load_bundle("second")
        assert (loaded.state, loaded.info.fingerprint) == ("ready", fingerprint(second))
        # It asks anew which sizes are taken, and leaves resizing to the server.
        assert client.embed([photo(chance)], bundle="second").pictures.shape == (1, 40)
        made = client.create_cache("trees", shown, bundle="second")
        assert made.bundle_fingerprint == fingerprint(second)
        names = [one.name for one in client.server_info().bundles]
        assert names == ["first", "second"]
        with pytest.raises(tipserve.NotFound, match="nobody's"):
            client.create_cache("x", shown, bundle="nobody's")
        client.unload_bundle("second")
        assert [one.state for one in client.bundles()] == ["ready", "available"]
        with pytest.raises(tipserve.FailedPrecondition, match=fingerprint(second)):
            client.classify_one("trees", shown["oak"][0])
