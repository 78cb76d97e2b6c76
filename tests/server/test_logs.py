"""With --log-format json every line of standard error is one JSON object, whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

import grpc
import pytest
import wire
from conftest import BINARY, ROOT, WIDTH
from odd_files import odd_files
from pictures import photo, png
from wire import cache, classify

KEPT = ROOT.parent / "shared/cases/pictures"
JSON = ("--log-format", "json")
ANYWHERE = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")


def parsed(text: str) -> list[dict]:
    """The lines as logs, each with what collectors look for."""
    assert not text or text.endswith("\n")
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    for one in found:
        assert one.keys() >= {"timestamp", "level", "target", "fields"}, one
        # Other people's crates log fields alone, at their finest levels.
        if one["target"].startswith("tipserve"):
            assert isinstance(one["fields"].get("message"), str), one
    return found


@pytest.mark.parametrize("level", ["info", "trace"])
def test_a_servers_life(serve, tiny_bundle, chance, level):
    server = serve(tiny_bundle, *JSON, env={"RUST_LOG": level})
    pictures = [png(photo(chance, kind)) for kind in range(4)]
    spec = cache.CacheSpec(cache_id="c", classes=wire.classes("ab"))
    server.api.create(
        spec, [wire.example(k % 2, wire.encoded(one)) for k, one in enumerate(pictures)]
    )
    files = [data for _, data in odd_files(chance, 200)]
    if KEPT.is_dir():
        files += [path.read_bytes() for path in KEPT.iterdir()]
    items = [wire.item(str(i), wire.encoded(data)) for i, data in enumerate(files)]
    answers = list(server.api.stream("c", items))
    assert len(answers) == len(items)
    for reference in ("c", "none", "a\nb", "caches/c/versions/9", "\x1b[31m", "é" * 5000):
        with contextlib.suppress(grpc.RpcError):
            server.api.one(reference, wire.encoded(b"no picture\n{"))
    # Not HTTP, a call that is left, a file of the store that is damaged.
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as one:
        one.sendall(b"GET / HTTP/1.0\r\nx: \n\n\0\xff\r\n\r\n")
        one.recv(100)
    call = server.api.classifying.ClassifyStream(
        iter([classify.ClassifyStreamRequest()]), timeout=60
    )
    call.cancel()
    for signalled in (signal.SIGHUP, signal.SIGTERM):
        server.process.send_signal(signalled)
    assert server.process.wait(120) == 0
    lines = parsed(server.log.read_text())
    # Of too many lines some are dropped.
    assert level != "info" or "shutting down" in [said(lines, at) for at in range(len(lines))]


def test_a_damaged_store(serve, features_bundle, chance):
    server = serve(features_bundle, *JSON)
    spec = cache.CacheSpec(cache_id="bad", classes=wire.classes("a"))
    content = wire.embedding(chance.normal(size=WIDTH))
    server.api.create(spec, [wire.example(0, content)])
    server.terminate()
    for manifest in server.store.glob("caches/bad/versions/*/manifest.json"):
        manifest.chmod(0o644)
        manifest.write_bytes(b'{"a": "\xff\n')
    again = serve(features_bundle, *JSON, store=server.store)
    with pytest.raises(grpc.RpcError):
        again.api.one("bad", content)
    again.terminate()
    assert "ERROR" in [one["level"] for one in parsed(again.log.read_text())]


def failing(*arguments: object, env: dict | None = None) -> list[dict]:
    """What a server logs that cannot start."""
    command = [BINARY, "serve", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "RUST_LOG"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment | (env or {})
    )
    assert done.returncode in (1, 2) and not done.stdout, done
    lines = parsed(done.stderr)
    assert lines and lines[-1]["level"] == "ERROR", done.stderr
    return lines


def said(lines: list[dict], at: int = -1) -> str:
    return lines[at]["fields"].get("message", "")


@pytest.mark.parametrize("loudness", ["info", "off"])
def test_why_a_server_does_not_start(features_bundle, tmp_path, loudness):
    store = ("--store", tmp_path / "store")
    bundle = ("--bundle", features_bundle)
    env = {"RUST_LOG": loudness}
    assert "nowhere" in said(
        failing("--bundle", tmp_path / "nowhere", *store, *ANYWHERE, *JSON, env=env)
    )
    assert "--bundle" in said(failing(*store, *ANYWHERE, *JSON, env=env))
    assert "max_batch" in said(failing(*bundle, *store, *JSON, "--max-batch", 0, env=env))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        lines = failing(*bundle, *store, *JSON, "--listen", address, *ANYWHERE[2:], env=env)
        assert address in said(lines)
    (tmp_path / "file").write_text("no folder")
    assert "file" in said(failing(*bundle, "--store", tmp_path / "file", *ANYWHERE, *JSON, env=env))


@pytest.mark.parametrize("where", ["variable", "file"])
def test_the_format_is_known_wherever_it_is_set(features_bundle, tmp_path, where):
    config = tmp_path / "tipserve.toml"
    config.write_text("log_format = 'json'\nqueue_items = 0\n")
    given = {
        "variable": (("--queue-items", "0"), {"TIPSERVE_LOG_FORMAT": "json"}),
        "file": (("--config", config), {}),
    }
    flags, env = given[where]
    lines = failing("--bundle", features_bundle, "--store", tmp_path / "s", *flags, env=env)
    assert "queue_items" in said(lines)
    # A file that is none of ours, several lines long.
    config.write_text("log_format = 'json'\nquue_items = 0\n")
    assert "quue_items" in said(failing("--config", config, env={"TIPSERVE_LOG_FORMAT": "json"}))


def test_people_get_text(features_bundle, tmp_path):
    done = subprocess.run(
        [BINARY, "serve", "--bundle", tmp_path / "nowhere", *ANYWHERE],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "error: " in done.stderr and "{" not in done.stderr


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_filter_is_none(serve, features_bundle, blank):
    """As Compose writes ${RUST_LOG:-}."""
    server = serve(features_bundle, *JSON, env={"RUST_LOG": blank})
    server.terminate()
    lines = parsed(server.log.read_text())
    assert "shutting down" in [said(lines, at) for at in range(len(lines))]
