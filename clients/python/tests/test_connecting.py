"""Where a server is, and what is said if there is none."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest
from conftest import Flavour
from fake_server import FakeServer

import tipserve
from tipserve._address import parse
from tipserve._channel import connection


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Nothing of the machine's own settings."""
    for name in list(os.environ):
        if name.startswith("TIPSERVE_") and name != "TIPSERVE_BINARY":
            monkeypatch.delenv(name)


@pytest.fixture(params=["sync", "asyncio"])
def kind(request):
    return request.param


def given(target=None, **options):
    defaults = {
        **{"token": None, "credentials": None, "metadata": None, "retry": None, "timeout": 60.0},
        **{"connect_timeout": 5.0, "wait": 0.0, "resize": "server"},
    }
    return connection(target, **{**defaults, **options})


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1", "127.0.0.1:50051"),
        ("shop.example", "shop.example:50051"),
        ("shop.example:7", "shop.example:7"),
        (":7", "127.0.0.1:7"),
        ("[::1]", "[::1]:50051"),
        ("::1", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("http://a/", "a:50051"),
        ("https://a", "a:50051"),
        ("https://a:443", "a:443"),
        (" a:1/ ", "a:1"),
        ("unix:/run/tipserve.sock", "unix:/run/tipserve.sock"),
        ("dns:///a:1", "dns:///a:1"),
        ("dns:///a", "dns:///a:50051"),
        ("dns:a", "dns:a:50051"),
        ("dns:7", "dns:///dns:7"),
        ("HTTPS://a", "a:50051"),
        ("ipv4:127.0.0.1:5,127.0.0.1:6", "ipv4:127.0.0.1:5,127.0.0.1:6"),
    ],
)
def test_addresses_are_those_of_the_command_line(address, target):
    assert parse(address).target == target


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://",
        "ftp://a",
        "a:99999",
        "a b:1",
        "a:1/x",
        "a:x",
        "a:0",
        "a:+1",
        "a:\u0665",
        "a:1?x",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="address"):
        tipserve.Client(address)


def test_what_is_not_given_comes_from_the_environment(monkeypatch, tmp_path):
    assert given().target == "127.0.0.1:50051"
    monkeypatch.setenv("TIPSERVE_SERVER", "shop.example")
    monkeypatch.setenv("TIPSERVE_TOKEN", " secret\n")
    assert given().target == "shop.example:50051"
    assert given().metadata == (("authorization", "Bearer secret"),)
    assert given("other:1", token="mine").target == "other:1"
    assert given(token="mine").metadata == (("authorization", "Bearer mine"),)
    assert given(metadata={"Authorization": "x"}).metadata == (("authorization", "x"),)
    # Compose writes ${X:-} as an empty variable.
    for name in ("SERVER", "TOKEN", "CA", "CERT", "KEY", "TOKEN_FILE"):
        monkeypatch.setenv(f"TIPSERVE_{name}", " ")
    assert (given().target, given().metadata) == ("127.0.0.1:50051", ())
    assert given().credentials is None
    (tmp_path / "token").write_text("\ufefffrom-a-file\r\n", encoding="utf-8")
    monkeypatch.setenv("TIPSERVE_TOKEN_FILE", str(tmp_path / "token"))
    assert given().metadata == (("authorization", "Bearer from-a-file"),)
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nnobody looks yet\n")
    monkeypatch.setenv("TIPSERVE_CA", str(tmp_path / "ca.pem"))
    assert given().credentials is not None
    assert given("http://a").credentials is None
    monkeypatch.setenv("TIPSERVE_CERT", str(tmp_path / "ca.pem"))
    with pytest.raises(ValueError, match="TIPSERVE_KEY"):
        given()


def test_no_server_is_said_at_once_with_how_to_start_one(kind, tmp_path):
    """At the first try: a client that has never had an answer does not repeat."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for call in (
            lambda client: client("server_info"),
            lambda client: client("classify", "pets", [b"x"]),
            lambda client: client("create_cache", "pets", [("a.jpg", "cat")]),
            lambda client: client("export", "pets", tmp_path / "x"),
            lambda client: client("delete_cache", "pets"),
        ):
            patient = Flavour(kind, address)
            with pytest.raises(tipserve.Unavailable) as caught:
                call(patient)
            error = caught.value
            assert error.reason == "SERVER_UNREACHABLE"
            assert f"no tipserve server answers at {address} (Connection refused)" in error.message
            assert f"tipserve serve --bundle DIR --store DIR --listen {address}" in error.message
            assert "TIPSERVE_SERVER" in error.message


def test_a_handle_says_so_too(kind):
    with tipserve.Client("127.0.0.1:1") as client, pytest.raises(tipserve.Unavailable) as caught:
        client.finetune("pets").result()
    assert caught.value.reason == "SERVER_UNREACHABLE"


def test_a_port_that_is_silent_is_left_after_the_connect_timeout(kind):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(tipserve.Unavailable, match="timed out") as caught:
            Flavour(kind, address)("server_info", client_connect_timeout=0.3)
        assert caught.value.reason == "SERVER_UNREACHABLE"


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
        b"\x15\x03\x03\x00\x02\x02\x16",
    ],
    ids=["nothing", "HTTP/1", "a TLS alert"],
)
def test_a_port_that_speaks_something_else_is_no_server_either(kind, says):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    asker = other.accept()[0]
                    asker.recv(24)
                    asker.sendall(says)
                    asker.close()

        threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(tipserve.Unavailable, match="no tipserve server answers") as caught:
            Flavour(kind, address)("server_info")
        assert caught.value.reason == "SERVER_UNREACHABLE"
        other.shutdown(socket.SHUT_RDWR)


def test_a_file_without_certificates_is_named(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    with pytest.raises(ValueError, match=r"ca\.pem: no PEM certificate"):
        tipserve.Client("a", root_certificates=path)


def test_a_server_that_does_not_answer_is_left_after_the_timeout(fake, call):
    released = threading.Event()
    fake.unary["GetServerInfo"] = lambda request, context: released.wait(30)
    with pytest.raises(tipserve.DeadlineExceeded, match=r"no answer from 127.* within 0\.3 s"):
        call("server_info", client_timeout=0.3)
    released.set()


def test_a_server_that_starts_is_waited_for(kind):
    server = FakeServer().start()
    address = server.address
    server.stop()
    server.address = address

    def later():
        time.sleep(0.5)
        server.start()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert Flavour(kind, address)("server_info", client_wait=30.0).bundle.name == "fake"
    finally:
        thread.join()
        server.stop()


def test_a_closed_client_raises_an_error_of_ours(fake):
    client = tipserve.Client(fake.address)
    client.server_info()
    client.close()
    client.close()
    assert "closed" in repr(client)
    for call in (
        client.server_info,
        lambda: list(client.classify("pets", [b"x"])),
        lambda: list(client.caches()),
        lambda: client.create_cache("pets", [("a", "b")]),
        lambda: client.finetune("pets"),
    ):
        with pytest.raises(tipserve.FailedPrecondition, match="closed") as caught:
            call()
        assert caught.value.reason == "CLIENT_CLOSED"


def test_a_proxy_is_not_asked_for_this_machine(fake, call, monkeypatch):
    asked = []
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    asked.append(proxy.accept()[0].close())

        threading.Thread(target=answer, daemon=True).start()
        assert call("server_info").bundle.name == "fake"
        assert asked == []
        proxy.shutdown(socket.SHUT_RDWR)
    for here in (
        *("127.8.8.8", "localhost:1", "LocalHost", "localhost.:7", "a.localhost", "::1", "[::1]:7"),
        *("dns:///localhost:1", "ipv4:127.0.0.1:5", "http://127.0.0.1:8", ":7"),
    ):
        assert given(here).loopback, here
    for elsewhere in ("shop.example", "localhost.example", "dns:///shop.example:1", "10.0.0.1"):
        assert not given(elsewhere).loopback, elsewhere


def test_resizing_without_pillow_is_said_when_the_client_is_made(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"tipserve\[resize\]"):
        tipserve.Client(resize="client")
    tipserve.Client().close()


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), float("inf"), float("-inf")])
def test_a_timeout_that_is_none_is_refused(fake, call, timeout):
    with pytest.raises(ValueError, match="timeout"):
        given(timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        call("server_info", client_timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        call("classify", "pets", [b"picture"], timeout=timeout)
    for name in ("connect_timeout", "wait"):
        with pytest.raises(ValueError, match=name):
            given(**{name: timeout})
    if timeout != float("inf"):
        with pytest.raises(ValueError, match="delays"):
            tipserve.RetryPolicy(first_delay=timeout)


def test_no_timeout_is_none_or_0_or_longer_than_anybody_waits(fake, call):
    for timeout in (None, 0, 0.0, 1e12, 1e300):
        assert given(timeout=timeout).timeout is None
        assert call("server_info", client_timeout=timeout).bundle is not None
        assert len(call("classify", "pets", [b"picture"], timeout=timeout)) == 1
    with pytest.raises(ValueError, match="connect_timeout"):
        given(connect_timeout=0)
    call("server_info", client_connect_timeout=1e9)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_an_items_time_limit_is_a_time(fake, call, limit):
    with pytest.raises(ValueError, match="time_limit"):
        call("classify", "pets", [b"picture"], time_limit=limit)
    (result,) = call("classify", "pets", [tipserve.Item(b"picture", time_limit=limit)])
    assert "time_limit" in str(result.error)
    (result,) = call("classify", "pets", [tipserve.Item(b"picture", time_limit=1e300)])
    assert result.error is None


@pytest.mark.parametrize("token", ["secret\n", " secret\r\n", "\ufeffsecret"])
def test_a_token_may_be_as_it_stands_in_a_file(monkeypatch, tmp_path, token):
    sent = (("authorization", "Bearer secret"),)
    assert given(token=token).metadata == sent
    monkeypatch.setenv("TIPSERVE_TOKEN", token.replace("\ufeff", ""))
    assert given().metadata == sent
    monkeypatch.delenv("TIPSERVE_TOKEN")
    (tmp_path / "token").write_text(token, encoding="utf-8")
    monkeypatch.setenv("TIPSERVE_TOKEN_FILE", str(tmp_path / "token"))
    assert given().metadata == sent
    (tmp_path / "token").write_bytes("secret".encode("utf-16"))
    with pytest.raises(ValueError, match=r"TIPSERVE_TOKEN_FILE .*not UTF-8"):
        given()


def test_what_the_environment_says_of_tls_is_not_for_addresses_without_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TIPSERVE_CA", str(tmp_path / "nowhere.pem"))
    for address in ("http://a", "unix:/run/tipserve.sock"):
        assert given(address).credentials is None
        with pytest.raises(ValueError, match="without TLS"):
            given(address, root_certificates=b"-----BEGIN CERTIFICATE-----")
    for address in ("a", "https://a"):
        with pytest.raises(OSError, match="nowhere"):
            given(address)
