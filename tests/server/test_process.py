"""Starting, refusing to start, and stopping."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import nullcontext

import grpc
import pytest
import tipserve
import wire
from conftest import BINARY, WIDTH
from pictures import photo, png
from wire import Problem, cache, classify


def refusal(*flags, code=1, env=None):
    """Standard error of a `serve` that must not start."""
    done = subprocess.run(
        [BINARY, "serve", *map(str, flags)], capture_output=True, text=True, timeout=300, env=env
    )
    print(done.stderr)
    assert done.returncode == code, done
    assert "panicked" not in done.stderr
    assert "serving on" not in done.stdout
    return done.stderr


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_port_in_use(features_bundle, tmp_path, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"--listen": "127.0.0.1:0", "--metrics-listen": "127.0.0.1:0"} | {flag: address}
        said = refusal(
            "--bundle",
            features_bundle,
            "--store",
            tmp_path / "s",
            *[f for pair in flags.items() for f in pair],
        )
    assert address in said and flag in said


def start(bundle, store):
    return (
        "--bundle",
        bundle,
        "--store",
        store,
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
    )


def test_bundles_that_are_not_there(tmp_path):
    assert "no-such-bundle" in refusal(*start(tmp_path / "no-such-bundle", tmp_path / "s"))
    (tmp_path / "empty").mkdir()
    said = refusal(*start(tmp_path / "empty", tmp_path / "s"))
    assert "empty" in said and "bundle.toml" in said
    (tmp_path / "file").write_text("no folder")
    assert "file" in refusal(*start(tmp_path / "file", tmp_path / "s"))
    (tmp_path / "empty" / "bundle.toml").write_text("width = [")
    assert "bundle.toml" in refusal(*start(tmp_path / "empty", tmp_path / "s"))
    for flags in ((), ("--bundle",)):
        assert refusal(*flags, code=2)


@pytest.mark.parametrize("file", ["image.pt", "text.pt", "tokenizer.json"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_bundle_whose_file_was_changed(tiny_bundle, tmp_path, file, how):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    victim = bundle / file
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        victim.unlink()
    else:
        victim.write_bytes(data if how == "changed" else data[:1000])
    assert file in refusal(*start(bundle, tmp_path / "s"))


def test_settings_out_of_range(features_bundle, tmp_path):
    for flag, value in (
        ("--max-batch", "0"),
        ("--listen", "nowhere"),
        ("--queue-items", "-1"),
        ("--dtype", "float8"),
        ("--device", "abacus"),
        ("--max-message-bytes", "0"),
    ):
        said = subprocess.run(
            [BINARY, "serve", *start(features_bundle, tmp_path / "s"), flag, value],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert said.returncode == 2 or said.returncode == 1, said
        assert flag in said.stderr or value in said.stderr, said.stderr
        assert "panicked" not in said.stderr


def test_a_store_that_cannot_be(features_bundle, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    said = refusal(*start(features_bundle, tmp_path / "file"))
    assert str(tmp_path / "file") in said


def test_another_bundles_caches_are_not_served(serve, bundles, features_bundle, chance):
    server = serve(features_bundle)
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("a"))
    server.api.create(spec, [wire.example(0, wire.embedding(chance.normal(size=WIDTH)))])
    server.terminate()
    other = bundles("features-65", "features", "--width", str(WIDTH + 1))
    again = serve(other, store=server.store)
    with pytest.raises(grpc.RpcError) as caught:
        again.api.one("c", wire.embedding(chance.normal(size=WIDTH + 1)))
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_BUNDLE")
    assert "caches/c/versions/1" in problem.message
    assert again.api.ids() == ["caches/c"]


def test_fail_points_in_the_environment_are_not_the_servers(serve, features_bundle, chance):
    server = serve(features_bundle, env={"FAILPOINTS": "store::version::encoded=return"})
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("a"))
    server.api.create(spec, [wire.example(0, wire.embedding(chance.normal(size=WIDTH)))])
    assert server.api.ids() == ["caches/c"]


@pytest.mark.parametrize("name", ["manifest.json", "*.safetensors"])
def test_a_damaged_version_fails_alone(serve, features_bundle, chance, name):
    server = serve(features_bundle)
    for cache_id in ("good", "bad"):
        spec = cache.CacheSpec(cache_id=cache_id, classes=wire.classes("a"))
        server.api.create(spec, [wire.example(0, wire.embedding(chance.normal(size=WIDTH)))])
    server.terminate()
    (victim,) = server.store.glob(f"caches/bad/versions/*/{name}")
    data = bytearray(victim.read_bytes())
    data[-20] ^= 4
    victim.chmod(0o644)
    victim.write_bytes(data)
    again = serve(features_bundle, store=server.store)
    content = wire.embedding(chance.normal(size=WIDTH))
    assert again.api.one("good", content).top
    with pytest.raises(grpc.RpcError) as caught:
        again.api.one("bad", content)
    problem = Problem.of_call(caught.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED")
    assert "bad" in problem.message


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopping_answers_what_was_accepted(serve, tiny_bundle, chance, how):
    server = serve(tiny_bundle, "--shutdown-seconds", "60")
    pictures = [wire.encoded(png(photo(chance, k))) for k in range(4)]
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"))
    server.api.create(spec, [wire.example(k % 2, p) for k, p in enumerate(pictures)])
    stop, sent, answered, ends = threading.Event(), [], [], []

    def requests():
        yield classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache="c"))
        while not stop.is_set():
            number = len(sent)
            sent.append(number)
            yield classify.ClassifyStreamRequest(
                items=classify.ItemBatch(items=[wire.item(str(number), pictures[number % 4])])
            )

    call = server.api.classifying.ClassifyStream(requests(), timeout=120)
    halfway = threading.Event()

    def read():
        try:
            for response in call:
                answered.extend(response.results)
                if len(answered) > 20:
                    halfway.set()
        except grpc.RpcError as error:
            ends.append(Problem.of_call(error))

    reader = threading.Thread(target=read)
    reader.start()
    assert halfway.wait(120)
    server.process.send_signal(how)
    reader.join(120)
    stop.set()
    assert server.process.wait(120) == 0
    # The accepted ones are the first ones sent, each answered once, none with an error.
    assert sorted(r.sequence for r in answered) == list(range(len(answered)))
    assert all(r.WhichOneof("outcome") == "classification" for r in answered)
    (end,) = ends
    assert (end.code, end.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert end.retry is not None


@pytest.mark.parametrize("silent_socket", [False, True])
def test_stopping_with_idle_clients_and_open_streams(serve, features_bundle, chance, silent_socket):
    # Neither is waited for, not even a connection that never speaks: terminate() would time out.
    server = serve(features_bundle, "--shutdown-seconds", "600")
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("a"))
    server.api.create(spec, [wire.example(0, wire.embedding(chance.normal(size=WIDTH)))])
    host, port = server.address.split(":")
    release = threading.Event()

    def silent():
        yield classify.ClassifyStreamRequest(config=classify.ClassifyStreamConfig(cache="c"))
        release.wait(100)

    with socket.create_connection((host, int(port))) if silent_socket else nullcontext():
        calls = [server.api.classifying.ClassifyStream(silent(), timeout=100) for _ in range(3)]
        clients = [wire.Api(server.address) for _ in range(5)]
        for client in clients:
            assert client.ids() == ["caches/c"]
        assert server.terminate() == 0
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        release.set()
        for client in clients:
            client.close()


def test_the_command_line_says_when_nobody_is_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [BINARY, "--server", f"127.0.0.1:{port}", "caches", "list"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 5
    assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_it_listens_on_localhost(serve, features_bundle, tmp_path, how):
    """By name; the address is 127.0.0.1, whatever the name stands for elsewhere."""
    config = tmp_path / "tipserve.toml"
    config.write_text("listen = 'localhost:0'\nmetrics_listen = 'localhost:0'\n")
    variables = {"TIPSERVE_LISTEN": "localhost:0", "TIPSERVE_METRICS_LISTEN": "localhost:0"}
    command = [BINARY, "serve", "--bundle", features_bundle, "--store", tmp_path / "store"]
    command += {
        "flag": ["--listen", "localhost:0", "--metrics-listen", "localhost:0"],
        "variable": [],
        "file": ["--config", config],
    }[how]
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | (variables if how == "variable" else {}),
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(
                r"serving on (127\.0\.0\.1:\d+) \(metrics on (127\.0\.0\.1:\d+)\)", line
            )
            assert found, line
            port = found[1].rpartition(":")[2]
            for name in ("localhost", "127.0.0.1"):
                for call in (said_by_command_line, said_by_python):
                    assert call(f"{name}:{port}"), (name, call)
        finally:
            process.terminate()
            assert process.wait(120) == 0


def said_by_command_line(address: str) -> str:
    done = subprocess.run(
        [BINARY, "--json", "--server", address, "info"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["version"]


def said_by_python(address: str) -> str:
    with tipserve.Client(address) as client:
        return client.server_info().version


@pytest.mark.parametrize("address", ["example.org:0", "localhost", "localhost:", "50051", ":0"])
def test_other_names_are_refused_with_what_is_taken(features_bundle, tmp_path, address):
    said = refusal(
        "--bundle", features_bundle, "--store", tmp_path / "s", "--listen", address, code=2
    )
    assert "localhost:PORT" in said and "unix:/path" in said


def test_the_environment_and_a_file_configure_it(features_bundle, tmp_path, serve):
    config = tmp_path / "tipserve.toml"
    config.write_text("max_classes = 7\nstream_window = 33\n")
    server = serve(features_bundle, "--config", str(config), env={"TIPSERVE_MAX_CLASSES": "9"})
    limits = server.api.classifying.GetServerInfo(classify.GetServerInfoRequest()).limits
    assert (limits["max_classes"], limits["stream_window"]) == (9, 33)
    config.write_text("max_clases = 7\n")
    assert "max_clases" in refusal(
        "--config", config, *start(features_bundle, tmp_path / "s"), code=2
    )
