"""What became of fine-tuning runs is known after a restart, and on every replica."""

from __future__ import annotations

import grpc
import pytest
from conftest import Clusters
from tuning import Run, make, runs_of, started, state_of, tune, versions_of
from wire import Problem, finetune


def the_run(server, run):
    return server.api.tuning.GetFineTune(finetune.GetFineTuneRequest(name=run))


def test_a_restarted_server_says_what_became_of_each_run(serve, features_bundle, tmp_path, chance):
    store = tmp_path / "store"
    server = serve(features_bundle, store=store)
    make(server, "kept", Clusters(chance, 4))
    ended = tune(server, "kept", epochs=2)[0][-1]
    _, cancelled = started(server, "kept", detached=True)
    server.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=cancelled))
    call, broken = started(server, "kept", detached=True)
    call.cancel()
    server.kill()

    server = serve(features_bundle, store=store)
    again = the_run(server, ended.name)
    assert again.state == Run.STATE_SUCCEEDED
    assert again.version.name == ended.version.name == "caches/kept/versions/2"
    assert again.progress.epoch == ended.progress.epoch
    assert again.create_time == ended.create_time and again.end_time == ended.end_time
    assert state_of(server, cancelled) == Run.STATE_CANCELLED
    lost = the_run(server, broken)
    assert lost.state == Run.STATE_FAILED and lost.HasField("end_time")
    assert lost.parent.startswith("caches/kept/versions/")
    assert lost.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert "stopped before it ended" in lost.error.message
    listed = [run.name for run in runs_of(server, "kept")]
    assert listed == [broken, cancelled, ended.name]
    assert versions_of(server, "kept") == [2, 1]


def test_a_replica_sees_the_runs_of_another(serve, features_bundle, tmp_path, chance):
    store = tmp_path / "store"
    one, other = (serve(features_bundle, store=store) for _ in range(2))
    make(one, "shared", Clusters(chance, 4), 2000)
    _, run = started(one, "shared", detached=True)
    assert state_of(other, run) == Run.STATE_RUNNING
    assert [seen.name for seen in runs_of(other, "shared")] == [run]
    with pytest.raises(grpc.RpcError) as refused:
        other.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=run))
    problem = Problem.of_call(refused.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_ELSEWHERE")
    one.api.tuning.CancelFineTune(finetune.CancelFineTuneRequest(name=run))
    assert state_of(other, run) == Run.STATE_CANCELLED
