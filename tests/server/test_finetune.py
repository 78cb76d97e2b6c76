"""FineTune: a new version or nothing, and classification goes on."""

from __future__ import annotations

import e2e_formula as formula
import grpc
import numpy as np
import over_http
import pytest
import wire
from conftest import WIDTH, Clusters, eventually
from tuning import LONG, Run, make, runs_of, started, state_of, tune, versions_of
from wire import Problem, cache, finetune


@pytest.mark.parametrize("validation", [0, 40])
def test_a_new_version_with_its_parent(features, chance, name, validation):
    data = Clusters(chance, 6, spread=3.0)
    _, labels = make(features, name, data, validation=validation)
    runs, progress = tune(
        features, name, epochs=7, batch_size=16, seed=3, description="tuned", move_alias="stable"
    )
    states = [run.state for run in runs]
    assert states[-1] == Run.STATE_SUCCEEDED
    assert set(states[:-1]) <= {Run.STATE_QUEUED, Run.STATE_RUNNING} and len(states) >= 2
    assert len({run.name for run in runs}) == 1 and runs[0].name.startswith("fineTunes/")
    assert all(run.parent == f"caches/{name}/versions/1" for run in runs)
    version = runs[-1].version
    assert version.name == f"caches/{name}/versions/2"
    assert version.parent == f"caches/{name}/versions/1"
    assert version.description == "tuned"
    assert version.head.method == cache.METHOD_TIP_ADAPTER_F
    assert version.key_count == 60
    assert [c.example_count for c in version.classes] == np.bincount(labels).tolist()
    assert runs[-1].HasField("end_time") and runs[-1].alias_moved
    record = version.fine_tune
    assert record.epochs == 7 and 0 <= record.best_epoch <= 7 and record.seed == 3
    if validation:
        assert record.source == cache.SELECTION_SOURCE_VALIDATION
        assert 0 < record.accuracy_before <= 1 and 0 < record.accuracy_after <= 1
    last = progress[-1]
    assert (last.epoch, last.epochs, last.step, last.steps) == (7, 7, 28, 28)
    steps = [one.step for one in progress]
    assert steps == sorted(steps)
    assert all(
        one.loss >= 0 and 0 <= one.train_accuracy <= 1 and 0 <= one.learning_rate <= 1e-3
        for one in progress
    )
    rates = [one.learning_rate for one in progress if one.step]
    assert rates == sorted(rates, reverse=True)
    assert last.HasField("validation_accuracy") == bool(validation)
    got = features.api.caches.GetCache(cache.GetCacheRequest(name=name))
    assert dict(got.aliases) == {"stable": 2} and got.latest.version == 2 and got.version_count == 2
    assert (
        features.api.tuning.GetFineTune(finetune.GetFineTuneRequest(name=runs[0].name)) == runs[-1]
    )


def test_its_logits_are_the_formulas_with_the_trained_keys(serve, features_bundle, chance):
    from safetensors.numpy import load_file

    server = serve(features_bundle)
    data = Clusters(chance, 6, spread=3.0)
    points, labels = make(server, "c", data)
    version = tune(server, "c", epochs=10, batch_size=16)[0][-1].version
    (tensors,) = server.store.glob("caches/c/versions/*2/*.safetensors")
    arrays = load_file(tensors)
    # What training moved stands beside the keys that it began with.
    moved = [a for a in arrays.values() if a.shape == points.shape]
    units = formula.unit(points)
    trained = max(
        moved,
        key=lambda a: (
            np.abs(formula.unit(a) @ units.T - formula.unit(units) @ units.T).max()
            if len(moved) > 1
            else 0
        ),
    )
    queries, _ = data.draw(40)
    expected = formula.tip_adapter(
        formula.unit(queries), trained.astype(np.float64), labels, 6,
        alpha=version.head.alpha, beta=version.head.beta, text=formula.unit(data.weights),
    )  # fmt: skip
    got = server.api.logits("c", map(wire.embedding, queries))
    size = max(1.0, np.abs(expected).max() / 100)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * size)


def test_training_learns_and_its_seed_repeats_it(features, chance, name):
    data = Clusters(chance, 8, spread=5.0)
    valid, valid_labels = data.draw(80)
    make(features, name, data, 160, text=False, validation=(valid, valid_labels))
    queries, _ = data.draw(20)
    contents = [wire.embedding(q) for q in queries]
    fields = {"epochs": 30, "batch_size": 32, "alpha": 3.0}
    runs, progress = tune(features, f"{name}@1", seed=9, **fields)
    # A reader that is slow is not told of every epoch.
    first, *_, last = [one for one in progress if one.epoch > 0]
    assert last.epoch == 30 and last.loss < first.loss
    tune(features, f"{name}@1", seed=9, **fields)
    first, again = (features.api.logits(f"{name}@{v}", contents) for v in (2, 3))
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-3 * max(1, np.abs(first).max()))
    # The recorded accuracy is what the new version has on the validation examples.
    logits = features.api.logits(f"{name}@2", map(wire.embedding, valid))
    accuracy = formula.top(logits, valid_labels)
    difference = abs(runs[-1].version.fine_tune.accuracy_after - accuracy) * 80
    assert difference <= formula.undecided(logits) + 1e-6
    # A tuned version can be tuned again.
    runs, _ = tune(features, f"{name}@2", epochs=2)
    assert runs[-1].version.parent == f"caches/{name}/versions/2"


@pytest.mark.parametrize(
    "how", ["cancel call", "lose client", "cancel run", "deadline", "deadline over HTTP"]
)
def test_what_is_stopped_leaves_nothing(features, clusters, name, how):
    make(features, name, clusters, 3000)
    if how == "lose client":
        lost = wire.Api(features.address)
        call = lost.tuning.FineTune(finetune.FineTuneRequest(cache=name, epochs=LONG))
        run = next(call).run.name
        lost.close()
    elif how == "deadline":
        # The server's clock alone.
        request = finetune.FineTuneRequest(cache=name, epochs=LONG)
        call = features.api.tuning.FineTune(request, metadata=[("grpc-timeout", "1500m")])
        run = next(call).run.name
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert Problem.of_call(caught.value).reason == "DEADLINE_EXCEEDED"
    elif how == "deadline over HTTP":
        path, body = f"/v1/caches/{name}:fineTune", {"epochs": LONG}
        lines = over_http.call(features, "POST", path, body, request_timeout="1.5").lines
        run = lines[0]["run"]["name"]
        assert over_http.problem_of(lines[-1]["error"]).reason == "DEADLINE_EXCEEDED"
    else:
        call, run = started(features, name)
        if how == "cancel call":
            call.cancel()
        else:
            ended = features.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=run))
            assert ended.name == run
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() == grpc.StatusCode.CANCELLED
    eventually(lambda: state_of(features, run) == Run.STATE_CANCELLED)
    assert versions_of(features, name) == [1]
    left = list(features.store.glob(f"caches/{name}/versions/*"))
    assert [path.name for path in left if path.is_dir()] == [left[0].name] and len(left) == 1
    # One that has ended is left as it is.
    again = features.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=run))
    assert again.state == Run.STATE_CANCELLED


def test_a_detached_run_goes_on_and_can_be_found(features, clusters, name):
    make(features, name, clusters, 400)
    lost = wire.Api(features.address)
    call = lost.tuning.FineTune(finetune.FineTuneRequest(cache=name, epochs=30, detached=True))
    run = next(call).run.name
    lost.close()
    assert run in [one.name for one in runs_of(features, name)]
    eventually(lambda: state_of(features, run) == Run.STATE_SUCCEEDED)
    assert versions_of(features, name) == [2, 1]
    shown = features.cli("finetunes", "show", run.removeprefix("fineTunes/"))
    assert shown["state"] == "succeeded" and shown["version"]["version"] == 2
    call = features.api.tuning.FineTune(
        finetune.FineTuneRequest(cache=name, epochs=LONG, detached=True)
    )
    run = next(call).run.name
    call.cancel()
    features.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=run))
    eventually(lambda: state_of(features, run) == Run.STATE_CANCELLED)
    assert versions_of(features, name) == [2, 1]


def test_several_queue_up(features, clusters, name):
    make(features, name, clusters, 3000)
    first, running = started(features, name)
    waiting = []
    for _ in range(3):
        call = features.api.tuning.FineTune(finetune.FineTuneRequest(cache=f"{name}@1", epochs=1))
        waiting.append((call, next(call).run))
    assert [run.state for _, run in waiting] == [Run.STATE_QUEUED] * 3
    listed = runs_of(features, name)
    assert [run.name for run in listed] == [run.name for _, run in reversed(waiting)] + [running]
    # One that waits can be cancelled.
    features.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=waiting[1][1].name))
    eventually(lambda: state_of(features, waiting[1][1].name) == Run.STATE_CANCELLED)
    assert state_of(features, waiting[2][1].name) == Run.STATE_QUEUED
    first.cancel()
    for number in (0, 2):
        call, _run = waiting[number]
        assert list(call)[-1].run.state == Run.STATE_SUCCEEDED
    assert versions_of(features, name) == [3, 2, 1]
    page = features.api.tuning.ListFineTunes(finetune.ListFineTunesRequest(cache=name, page_size=3))
    rest = features.api.tuning.ListFineTunes(
        finetune.ListFineTunesRequest(cache=name, page_size=3, page_token=page.next_page_token)
    )
    got = [run.name for run in [*page.fine_tunes, *rest.fine_tunes]]
    assert got == [run.name for run in runs_of(features, name)]
    assert rest.next_page_token == ""
    assert runs_of(features, "another-cache") == []


def test_classification_goes_on_meanwhile(features, clusters, name):
    make(features, name, clusters, 3000)
    call, run = started(features, name)
    points, _ = clusters.draw(300)
    items = [wire.item(str(i), wire.embedding(p)) for i, p in enumerate(points)]
    results = list(features.api.stream(name, items))
    assert len(results) == 300
    assert all(r.classification.version == f"caches/{name}/versions/1" for r in results)
    assert (
        features.api.create(
            cache.CacheSpec(
                cache_id=name, classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
            ),
            wire.examples_of(points[:2], [0, 1]),
        ).version.version
        == 2
    )
    assert state_of(features, run) == Run.STATE_RUNNING
    call.cancel()


def test_the_alias_moves_only_if_training_improved(features, chance, name):
    data = Clusters(chance, 6, spread=0.01)
    # All is right before training: nothing can improve.
    make(features, name, data, 60, validation=60)
    fields = {"epochs": 2, "move_alias": "stable"}
    runs, _ = tune(features, f"{name}@1", only_if_improved=True, **fields)
    assert runs[-1].state == Run.STATE_SUCCEEDED and not runs[-1].alias_moved
    assert runs[-1].version.version == 2
    assert dict(features.api.caches.GetCache(cache.GetCacheRequest(name=name)).aliases) == {}
    # Without any score to tell, it is not moved either.
    make(features, f"{name}-n", data, 60)
    runs, _ = tune(features, f"{name}-n", only_if_improved=True, **fields)
    assert not runs[-1].alias_moved
    runs, _ = tune(features, f"{name}@1", **fields)
    assert runs[-1].alias_moved
    assert dict(features.api.caches.GetCache(cache.GetCacheRequest(name=name)).aliases) == {
        "stable": 3
    }


def test_an_alias_moves_where_training_did_improve(features, chance, name):
    # Keys with many wrong labels: training unlearns some of them.
    data = Clusters(chance, 5, spread=2.5)
    points, labels = data.draw(300)
    wrong = chance.random(300) < 0.45
    labels[wrong] = chance.integers(0, 5, wrong.sum())
    examples = wire.examples_of(points, labels) + wire.examples_of(
        *data.draw(400), validation=True, prefix="v"
    )
    features.api.create(
        cache.CacheSpec(
            cache_id=name, classes=wire.classes("abcde"), method=cache.METHOD_TIP_ADAPTER
        ),
        examples,
    )
    runs, _ = tune(
        features,
        name,
        epochs=20,
        batch_size=32,
        alpha=3.0,
        move_alias="stable",
        only_if_improved=True,
    )
    record = runs[-1].version.fine_tune
    print(record)
    # Where both accuracies are equal, what breaks the tie decides.
    if record.accuracy_after != record.accuracy_before:
        assert runs[-1].alias_moved == (record.accuracy_after > record.accuracy_before)


def test_versions_without_keys_to_train(features, clusters, name):
    points, labels = clusters.draw(20)
    for method in (cache.METHOD_ZERO_SHOT, cache.METHOD_GDA, cache.METHOD_CLASS_MEAN):
        spec = cache.CacheSpec(
            cache_id=name, classes=wire.classes("abcde", clusters.weights), method=method
        )
        version = features.api.create(spec, wire.examples_of(points, labels)).version
        runs, _ = tune(features, f"{name}@{version.version}", epochs=1)
        # Every version keeps its examples, so every one can be trained from.
        assert runs[-1].state == Run.STATE_SUCCEEDED
        assert runs[-1].version.head.method == cache.METHOD_TIP_ADAPTER_F


def test_killed_in_the_middle(serve, features_bundle, clusters):
    server = serve(features_bundle)
    make(server, "c", clusters, 2000)
    query = wire.embedding(clusters.draw(1)[0][0])
    before = server.api.logits("c", [query])
    for broken in range(1, 4):
        started(server, "c", detached=True)
        server.kill()
        server = serve(features_bundle, store=server.store)
        assert server.api.ids() == ["caches/c"]
        assert versions_of(server, "c") == [1]
        assert [run.state for run in runs_of(server)] == [Run.STATE_FAILED] * broken
        np.testing.assert_allclose(server.api.logits("c", [query]), before, rtol=0, atol=1e-5)
    runs, _ = tune(server, "c", epochs=1)
    assert runs[-1].state == Run.STATE_SUCCEEDED


def test_the_command_line(features, clusters, name):
    make(features, name, clusters, 100, validation=20)
    document = features.cli("finetune", name, "--epochs", 3)
    assert document["state"] == "succeeded"
    assert document["version"]["parent"] == f"caches/{name}/versions/1"
    assert document["version"]["fine_tune"]["source"] == "validation"
    assert document["progress"]["epochs"] == 3
    error = features.cli("finetune", f"{name}@44", code=3)["error"]
    assert error["code"] == "NOT_FOUND" and error["reason"] == "NOT_FOUND"


def test_cancelled_with_the_cache_deleted(features, clusters, name):
    make(features, name, clusters, 2000)
    call, run = started(features, name)
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    call.cancel()
    eventually(lambda: state_of(features, run) in (Run.STATE_CANCELLED, Run.STATE_FAILED))
    assert f"caches/{name}" not in features.api.ids()
    # A run whose cache is gone when its turn comes fails, and says of what.
    make(features, name, clusters, 2000)
    make(features, f"{name}-2", clusters, 100)
    first, _ = started(features, name)
    call = features.api.tuning.FineTune(finetune.FineTuneRequest(cache=f"{name}-2", epochs=1))
    assert next(call).run.state == Run.STATE_QUEUED
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=f"{name}-2"))
    first.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    problem = Problem.of_call(caught.value)
    assert problem.code == grpc.StatusCode.NOT_FOUND and f"{name}-2" in problem.message
    assert f"caches/{name}-2" not in features.api.ids()


def test_a_cache_deleted_while_it_trains_stays_deleted(features, clusters, name):
    make(features, name, clusters, 3000)
    call = features.api.tuning.FineTune(
        finetune.FineTuneRequest(cache=name, epochs=200), timeout=200
    )
    for event in call:
        if event.WhichOneof("event") == "progress" and event.progress.step:
            break
    features.api.caches.DeleteCache(cache.DeleteCacheRequest(name=name))
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert name in Problem.of_call(caught.value).message
    assert f"caches/{name}" not in features.api.ids()


def test_by_default_a_version_is_changed_only_for_the_better(features, chance, name):
    # Class means are poor where the noise has a direction: a residual helps.
    centres = chance.standard_normal((4, WIDTH)) * (np.arange(WIDTH) < 8)
    width = np.where(np.arange(WIDTH) < 8, 0.5, 2.5)

    def draw(count):
        labels = np.arange(count) % 4
        return centres[labels] + chance.standard_normal((count, WIDTH)) * width + 1.0, labels

    points, labels = draw(240)
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("abcd"), method=cache.METHOD_CLASS_MEAN
    )
    features.api.create(spec, wire.examples_of(points, labels))
    queries, truth = draw(400)
    contents = [wire.embedding(query) for query in queries]
    before = formula.top(features.api.logits(f"{name}@1", contents), truth)
    runs, progress = tune(features, name, move_alias="stable", only_if_improved=True)
    run = runs[-1]
    assert run.state == Run.STATE_SUCCEEDED and not run.unchanged and run.alias_moved
    assert "helped" in run.outcome
    version = run.version
    assert version.name == f"caches/{name}/versions/2"
    assert version.head.method == cache.METHOD_CLASS_MEAN
    record = version.fine_tune
    assert record.recipe == cache.FINE_TUNE_RECIPE_RESIDUAL and record.strength > 0
    assert record.cross_entropy_after < record.cross_entropy_before
    assert record.example_count == 240
    assert record.source == cache.SELECTION_SOURCE_LEAVE_ONE_OUT
    after = formula.top(features.api.logits(f"{name}@2", contents), truth)
    assert after > before
    assert progress[-1].step == progress[-1].steps == 17
    # The same examples teach it nothing more.
    runs, _ = tune(features, name)
    assert runs[-1].unchanged and "already" in runs[-1].outcome
    assert runs[-1].version.name == f"caches/{name}/versions/2"
    assert versions_of(features, name) == [2, 1]


def test_what_does_not_help_changes_nothing(features, chance, name):
    points = chance.standard_normal((80, WIDTH))
    labels = np.arange(80) % 4
    for attempt in range(4):
        # Labels that mean nothing: by chance one of four may seem to.
        cache_id = f"{name}-{attempt}"
        spec = cache.CacheSpec(cache_id=cache_id, classes=wire.classes("abcd"))
        features.api.create(spec, wire.examples_of(points, chance.permutation(labels)))
        runs, _ = tune(features, cache_id, move_alias="stable")
        if runs[-1].unchanged:
            break
    run = runs[-1]
    assert run.unchanged and run.state == Run.STATE_SUCCEEDED
    assert "nothing changed" in run.outcome
    assert run.version.name == f"caches/{cache_id}/versions/1" and not run.alias_moved
    assert versions_of(features, cache_id) == [1]
    stored = features.api.tuning.GetFineTune(finetune.GetFineTuneRequest(name=run.name))
    assert (stored.unchanged, stored.outcome) == (True, run.outcome)
    shown = features.cli("finetune", cache_id)
    assert shown["unchanged"] and "nothing changed" in shown["outcome"]


def test_a_residual_has_none_of_the_recipes_numbers(embedding_cache):
    request = finetune.FineTuneRequest(
        cache="here", recipe=cache.FINE_TUNE_RECIPE_RESIDUAL, epochs=3
    )
    with pytest.raises(grpc.RpcError) as raised:
        list(embedding_cache.api.tuning.FineTune(request))
    problem = Problem.of_call(raised.value)
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT and problem.fields == ["epochs"]
