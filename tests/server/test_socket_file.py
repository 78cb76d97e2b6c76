"""A server on a socket file: who may connect, what becomes of the file, who speaks there."""

from __future__ import annotations

import json
import socket
import stat
import subprocess

import tipserve
from conftest import BINARY, WIDTH, Server
from models import points_cache
from wire import classify


def listening(bundle, folder, name="api.sock", *flags) -> Server:
    """A server on a socket file in `folder`, with a store of its own."""
    where = (f"unix:{folder / name}", "127.0.0.1:0")
    return Server(bundle, folder / f"{name}.store", *flags, listen=where)


def version_of(server) -> str:
    return server.api.classifying.GetServerInfo(classify.GetServerInfoRequest(), timeout=60).version


def test_every_client_speaks_over_a_socket_file(features_bundle, tmp_path, clusters):
    server = listening(features_bundle, tmp_path)
    path = tmp_path / "api.sock"
    try:
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        points_cache(server, "points", clusters)
        point = clusters.draw(1)[0][0]
        with tipserve.Client(server.address) as client:
            label = client.classify_one("points", point).top[0].display_name
        assert server.cli("info")["version"] == version_of(server)
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
            body = json.dumps({"input": {"embedding": {"values": point.tolist()}}})
            one.sendall(
                "POST /v1/caches/points:classify HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
            )
            said = b"".join(iter(lambda: one.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 200") and label.encode() in said, said
        assert len(point) == WIDTH
        assert server.terminate() == 0
        assert not path.exists(), "it is removed"
    finally:
        server.close()


def test_a_dead_servers_file_is_replaced_and_a_live_ones_is_not(features_bundle, tmp_path):
    server = listening(features_bundle, tmp_path)
    path = tmp_path / "api.sock"
    try:
        command = [BINARY, "serve", "--bundle", features_bundle, "--store", tmp_path / "other"]
        command += ["--listen", f"unix:{path}", "--metrics-listen", "127.0.0.1:0"]
        other = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert other.returncode == 1 and "another server listens there" in other.stderr
        assert version_of(server), "it serves as before"
        server.kill()
        assert path.is_socket(), "nobody has removed it"
        server.flags = ("--listen-mode", "660")
        server.start()
        assert version_of(server)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        server.terminate()
        path.write_text("mine")
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 1 and "no socket" in refused.stderr
        assert path.read_text() == "mine"
    finally:
        server.close()
