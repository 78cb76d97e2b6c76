"""`kill -9` of whole servers in the middle of everything: what was acknowledged is there.

Short here; for SOAK_MINUTES minutes each in `make soak`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import history
import pytest
import reader
import wire
from conftest import soak_seconds
from contents import Content
from wire import cache

CLIENTS = 4


def has_new_calls(api) -> bool:
    """Whether the server has AddExamples, DeleteVersion and the like."""
    try:
        api.caches.DeleteVersion(cache.DeleteVersionRequest(name="caches/none/versions/1"))
    except grpc.RpcError as error:
        return error.code() != grpc.StatusCode.UNIMPLEMENTED
    raise AssertionError("deleted what is not there")


def restart(server) -> None:
    server.api.close()
    server.process.stdout.close()
    server.start()


def kill_in_a_stream_of_changes(server, clients, chance, longest: float, then=lambda: None):
    """Runs the clients until a random moment, kills the server, and holds it against them.

    `then` is done to the store before the server starts again; returns what it returns.
    """
    dying = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        runs = [pool.submit(client.run, server.api, dying) for client in clients]
        time.sleep(chance.uniform(0.02, longest))
        dying.set()
        server.kill()
        for run in runs:
            run.result()
    done = then()
    restart(server)
    history.check_shared(server.api, clients)
    for client in clients:
        client.check(server.api)
    # And nothing besides.
    ours = {name for client in clients for name, state in client.caches.items() if state.versions}
    shared = {"shared"} if any(client.shared for client in clients) else set()
    assert {name.removeprefix("caches/") for name in server.api.ids()} == ours | shared
    return done


def as_the_reader_sees_it(clients) -> dict:
    found = {n: s.shape() for client in clients for n, s in client.caches.items() if s.versions}
    shared = {n: made.description for client in clients for n, made in client.shared.items()}
    return (found | {"shared": (shared, {})}) if shared else found


def kill_for(server, chance, *, rounds: int, longest: float, seconds: float = 0) -> None:
    new_calls = has_new_calls(server.api)
    seed = int(chance.integers(2**32))
    clients = [history.Client(n, seed, new_calls) for n in range(CLIENTS)]
    end, done = time.monotonic() + seconds, 0
    while done < rounds or time.monotonic() < end:
        kill_in_a_stream_of_changes(server, clients, chance, longest)
        if not isinstance(server.store, str):
            assert reader.store(server.store) == as_the_reader_sees_it(clients)
        if sum(len(client.shared) for client in clients) > 60:  # or checking it takes ever longer
            server.api.caches.DeleteCache(cache.DeleteCacheRequest(name="shared"))
            for client in clients:
                client.shared.clear()
        done += 1
    steps = sum(client.acknowledged for client in clients)
    print(f"{done} deaths, {steps} changes acknowledged, new calls: {new_calls}")
    assert steps > done, "the clients did nothing"


def test_on_a_folder(serve, features_bundle, chance):
    kill_for(serve(features_bundle), chance, rounds=4, longest=0.8)


def test_on_s3(serve, features_bundle, shared_s3, chance, name):
    server = serve(features_bundle, store=shared_s3.url(name), env=shared_s3.environment)
    kill_for(server, chance, rounds=2, longest=1.5)


@pytest.mark.soak
def test_on_a_folder_for_long(serve, features_bundle, chance):
    kill_for(serve(features_bundle), chance, rounds=1, longest=2, seconds=soak_seconds())


@pytest.mark.soak
def test_on_s3_for_long(serve, features_bundle, shared_s3, chance, name):
    server = serve(features_bundle, store=shared_s3.url(name), env=shared_s3.environment)
    kill_for(server, chance, rounds=1, longest=4, seconds=soak_seconds())


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_two_servers_one_of_which_dies(
    request, serve, features_bundle, chance, tmp_path, where, name
):
    """One dies among writers on one id; the other goes on, and agrees with what was acknowledged."""
    store, env = tmp_path / "shared", {}
    if where == "s3":
        s3 = request.getfixturevalue("shared_s3")
        store, env = s3.url(name), s3.environment
    servers = [serve(features_bundle, store=store, env=env) for _ in range(2)]
    dying, stop, made, lock = threading.Event(), threading.Event(), {}, threading.Lock()

    def write(server, own):
        local = own.spawn(1)[0]
        while not stop.is_set():
            content = Content.drawn_by(local)
            try:
                version = content.make(server.api, "raced")
            except grpc.RpcError:
                assert dying.is_set() and server is servers[0]
                return content.description
            with lock:
                assert version.version not in made
                made[version.version] = content

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, servers[n % 2], chance.spawn(1)[0]) for n in range(4)]
        time.sleep(chance.uniform(0.3, 1.0))
        dying.set()
        servers[0].kill()
        time.sleep(0.3)
        stop.set()
        cut_off = {writer.result() for writer in writers} - {None}
    restart(servers[0])
    for server in servers:
        there = {
            v.version: v.description
            for v in server.api.caches.ListVersions(
                cache.ListVersionsRequest(parent="raced", page_size=1000), timeout=wire.LIMIT
            ).versions
        }
        assert sorted(there) == list(range(1, len(there) + 1))
        extra = {n: text for n, text in there.items() if n not in made}
        assert set(extra.values()) <= cut_off and len(extra) <= len(cut_off)
        for number, text in there.items():
            Content.of(int(text.split()[1])).serves_at(server.api, f"raced@{number}")
        assert {n: c.description for n, c in made.items()} | extra == there
