"""What the command line, Python and Go say first without a server, or with something else on its port."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from certificates import Authority, Files
from conftest import BINARY, ROOT
from test_three_clients import go  # noqa: F401

tipserve = pytest.importorskip("tipserve")

PYTHON = """
import sys, tipserve
try:
    tipserve.Client(sys.argv[1] if len(sys.argv) > 1 else None).server_info()
except (tipserve.TipserveError, ValueError, OSError) as error:
    sys.exit(str(error))
"""


@contextlib.contextmanager
def peer(speak: Callable[[socket.socket], None] | None) -> Iterator[str]:
    """The address of a port that speaks like this to each that connects, or not at all."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    asker = listening.accept()[0]
                    with contextlib.suppress(OSError), asker:
                        speak(asker)

        if speak is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def closes(asker: socket.socket) -> None:
    asker.recv(1)


def http_1(asker: socket.socket) -> None:
    asker.recv(24)
    asker.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")


@pytest.fixture
def said(go) -> Callable[..., dict[str, str]]:  # noqa: F811
    """What each client says of an address; none: of what its environment names."""

    def run(address: str | None = None, **variables: str) -> dict[str, str]:
        bare = {name: value for name, value in os.environ.items() if "TIPSERVE_" not in name}
        clients = str(ROOT / "clients/python/src")
        env = bare | {"PYTHONPATH": os.pathsep.join([clients, *sys.path])} | variables
        server = [] if address is None else ["--server", address]
        named = [] if address is None else [address]
        commands = {
            "command line": [BINARY, *server, "caches", "list"],
            "Python": [sys.executable, "-c", PYTHON, *named],
            "Go": [go, *(flag.removeprefix("-") for flag in server), "-cache", "c", ROOT / "docs"],
        }
        found = {}
        for who, command in commands.items():
            done = subprocess.run(
                [*map(str, command)], capture_output=True, text=True, env=env, timeout=30
            )
            assert done.returncode != 0, who
            found[who] = done.stderr
        return found

    return run


@pytest.mark.parametrize("speak", [None, closes, http_1], ids=["silent", "closes", "HTTP/1"])
def test_a_peer_that_is_no_server_is_said_to_be_none(said, speak):
    with peer(speak) as address:
        for who, text in said(address).items():
            assert "no tipserve server answers at" in text and address in text, (who, text)
            assert f"tipserve serve --bundle DIR --store DIR --listen {address}" in text, who


def test_nothing_listens(said):
    with peer(None) as address:
        pass
    for variables in (
        {},
        {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"},
    ):
        for who, text in said(address, **variables).items():
            assert f"{address} (" in text and "refused" in text, (who, text)
    # As Compose writes ${X:-}, and with spaces around.
    blank = dict.fromkeys(("TIPSERVE_TOKEN", "TIPSERVE_CA", "TIPSERVE_CERT", "TIPSERVE_KEY"), "")
    for who, text in said(TIPSERVE_SERVER=f" {address} ", **blank).items():
        assert f"{address} (" in text and "refused" in text, (who, text)


@pytest.fixture
def another_authority(tmp_path) -> Path:
    """The certificate of one that has issued nothing here."""
    file = tmp_path / "another.pem"
    file.write_bytes(Authority("another").pem)
    return file


@pytest.fixture
def tls_port(tmp_path) -> Iterator[int]:
    """A port of 127.0.0.1 that speaks TLS, as localhost, and nothing within."""
    ours = Files(tmp_path, Authority(), "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.cert, ours.key)
    context.set_alpn_protocols(["h2"])

    def tls(asker: socket.socket) -> None:
        with context.wrap_socket(asker, server_side=True) as spoken:
            spoken.recv(1)

    with peer(tls) as address:
        yield int(address.rpartition(":")[2])


def test_tls_that_cannot_be_spoken(said, tls_port, another_authority):
    ca = {"TIPSERVE_CA": str(another_authority)}
    for who, text in said(f"https://localhost:{tls_port}", **ca).items():
        assert "cannot speak TLS with the server at" in text, (who, text)
    for who, text in said(f"127.0.0.1:{tls_port}").items():
        assert "no tipserve server answers at" in text, (who, text)


class Refused(grpc.RpcError):
    """What grpc tells where localhost's last address to fail was ::1."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "failed to connect to all addresses; last error: ipv6:[::1]:1: Connection refused"

    def trailing_metadata(self) -> None:
        return None


def test_tls_that_failed_at_one_address_is_said_where_grpc_tells_of_another(
    tls_port, another_authority
):
    client = tipserve.Client(f"https://localhost:{tls_port}", root_certificates=another_authority)
    with client, pytest.raises(tipserve.Unavailable, match=r"cannot speak TLS.*CERTIFICATE_VERIFY"):
        client._contact.pause(client._contact.failure(Refused()))
    # Where no address speaks TLS, none is said to.
    with peer(None) as closed:
        pass
    client = tipserve.Client(
        f"https://localhost:{closed.rpartition(':')[2]}", root_certificates=another_authority
    )
    with client, pytest.raises(tipserve.Unavailable, match="no tipserve server answers"):
        client._contact.pause(client._contact.failure(Refused()))


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TIPSERVE_TOKEN": "a\nb"}, "has characters that no token has"),
        ({"TIPSERVE_SERVER": "a", "TIPSERVE_CA": "/etc/hostname"}, "no PEM certificate"),
        ({"TIPSERVE_SERVER": "a", "TIPSERVE_CA": "/nowhere.pem"}, "/nowhere.pem"),
        ({"TIPSERVE_TOKEN_FILE": "/nowhere"}, "/nowhere"),
        ({"TIPSERVE_SERVER": "a:99999"}, "port"),
        ({"TIPSERVE_SERVER": "ftp://a"}, "ftp"),
        ({"TIPSERVE_SERVER": "[::1:7"}, "[::1:7"),
        ({"TIPSERVE_SERVER": "http://a:7/v1"}, "http://a:7/v1"),
        ({"TIPSERVE_SERVER": "user:word@a:7"}, "user:word@a:7"),
        ({"TIPSERVE_SERVER": "a:0"}, "not within 1 to 65535"),
        ({"TIPSERVE_SERVER": "a:+7"}, "a:+7"),
        ({"TIPSERVE_SERVER": "a:\u0667"}, "a:\u0667"),
        ({"TIPSERVE_SERVER": "a:7?x"}, "a:7?x"),
        ({"TIPSERVE_SERVER": "~/x"}, "~/x"),
        ({"TIPSERVE_TOKEN_FILE": "/dev/null"}, "is empty"),
        ({"TIPSERVE_SERVER": "a", "TIPSERVE_CA": " /nowhere.pem\n"}, "/nowhere.pem"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_sent(said, variables, says):
    for who, text in said(**variables).items():
        assert says in text and "answers at" not in text, (who, text)


def test_what_is_said_nearer_counts_first(said, tmp_path):
    """An address, a flag or an argument before the environment; a token before its file."""
    with peer(None) as address:
        pass
    nowhere = {"TIPSERVE_CA": "/nowhere.pem", "TIPSERVE_CERT": "/nowhere", "TIPSERVE_KEY": "/no"}
    both = {"TIPSERVE_TOKEN": "secret", "TIPSERVE_TOKEN_FILE": "/nowhere"}
    for given, variables in (
        (f"http://{address}", nowhere),
        (f"unix:{tmp_path}/none.sock", nowhere),
        (address, both),
    ):
        for who, text in said(given, **variables).items():
            assert "no tipserve server answers at" in text, (who, text)
    for flag, variables in (
        (["--token", "mine"], {"TIPSERVE_TOKEN_FILE": "/nowhere"}),
        (["--token-file", "/etc/hostname"], {"TIPSERVE_TOKEN": "a b"}),
    ):
        command = [BINARY, "--server", address, *flag, "caches", "list"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | variables, timeout=30
        )
        assert "no tipserve server answers at" in done.stderr
    command = [BINARY, "--server", address, "--token", "a", "--token-file", "b", "caches", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "do not go together" in done.stderr
