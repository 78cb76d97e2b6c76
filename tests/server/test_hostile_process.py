"""What the process itself must survive: nobody who reads its log, signals, work that never ends."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import wire
from conftest import WIDTH, eventually
from disks import HangingSync
from wire import cache, classify

INFO = classify.GetServerInfoRequest()


def small(server, name):
    points = np.random.default_rng(1).normal(size=(4, WIDTH))
    spec = cache.CacheSpec(
        cache_id=name, classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
    )
    server.api.create(spec, wire.examples_of(points, [0, 1, 0, 1]))


def test_a_log_that_nobody_reads_blocks_nothing(serve, features_bundle, tmp_path):
    pipe = tmp_path / "stderr"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    server = serve(
        features_bundle,
        within=("sh", "-c", f'exec "$@" 2>{pipe}', "sh"),
        env={"RUST_LOG": "trace"},
    )
    small(server, "x")
    # The pipe holds some hundred lines, the queue some thousand.
    for _ in range(500):
        assert server.api.classifying.GetServerInfo(INFO, timeout=60).version
        if server.metrics()["tipserve_dropped_log_lines_total"]:
            break
    assert server.metrics()["tipserve_dropped_log_lines_total"] > 0
    assert server.api.one("x", wire.embedding(np.ones(WIDTH))).top
    assert server.terminate() == 0
    os.close(reader)


def test_sighup_is_harmless_without_certificates_and_tokens(serve, features_bundle):
    server = serve(features_bundle)
    for _ in range(3):
        server.process.send_signal(signal.SIGHUP)
        assert server.api.classifying.GetServerInfo(INFO).version
    eventually(lambda: "SIGHUP" in server.log.read_text())
    assert server.terminate() == 0


def test_a_shutdown_ends_in_time_behind_a_computation(serve, features_bundle):
    server = serve(features_bundle, "--shutdown-seconds", "2")
    count = 2500
    points = np.random.default_rng(2).normal(size=(count, WIDTH))
    spec = cache.CacheSpec(
        cache_id="x", classes=wire.classes("ab"), method=cache.METHOD_PROKER, without_text=True
    )
    examples = wire.examples_of(points, [index % 2 for index in range(count)])
    stages, ended = [], threading.Event()

    def create():
        try:
            for response in server.api.caches.CreateCache(wire.requests_of(spec, examples, 250)):
                if response.WhichOneof("event") == "progress":
                    stages.append(response.progress.stage)
        except Exception as error:
            stages.append(str(error)[:200])
        ended.set()

    threading.Thread(target=create, daemon=True).start()
    eventually(lambda: cache.CreateProgress.STAGE_SELECTION in stages)
    assert not ended.is_set(), "too quick: give it more examples"
    server.process.send_signal(signal.SIGTERM)
    # 2 s, and what a busy machine takes to see that it has ended.
    assert server.process.wait(10) == 0


def test_a_shutdown_ends_in_time_behind_a_disk_that_hangs(serve, features_bundle, tmp_path):
    sync = HangingSync(tmp_path)
    server = serve(features_bundle, "--shutdown-seconds", "2", env=sync.environment)
    spec = cache.CacheSpec(cache_id="x", classes=wire.classes("a"))
    sync.hang()
    hanging = server.api.caches.CreateCache(
        wire.requests_of(spec, wire.examples_of(np.ones((1, WIDTH)), [0]))
    )
    next(hanging)
    eventually(sync.waiting)
    server.process.send_signal(signal.SIGTERM)
    # 2 s, and what a busy machine takes to see that it has ended.
    assert server.process.wait(10) == 0
