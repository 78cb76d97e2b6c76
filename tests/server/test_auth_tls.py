"""TLS and mTLS: with real certificates, renewed while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess

import grpc
import pytest
import tipserve
import wire
from certificates import Authority, Files
from conftest import BINARY, eventually
from cryptography import x509
from test_hostile_connections import closed
from tipserve.aio import AsyncClient
from tokens import TokensFile, api
from wire import Problem, cache

UNREADY = (grpc.StatusCode.UNAVAILABLE,)


def credentials(authority: Authority, client: tuple[bytes, bytes] | None = None):
    chain, key = client or (None, None)
    return grpc.ssl_channel_credentials(authority.pem, key, chain)


def works(address: str, made, token: str | None = None) -> bool:
    """Whether a fresh connection is taken."""
    one = api(address, token, credentials=made)
    try:
        one.ids()
        return True
    except grpc.RpcError as error:
        assert error.code() in UNREADY, error
        return False
    finally:
        one.channel.close()


def served(address: str, offered: tuple[str, ...] = ("h2",)) -> tuple[str, str | None]:
    """The subject of the certificate that a server shows, and which of what is offered it speaks."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(offered)
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), 30) as plain,
        context.wrap_socket(plain) as secure,
    ):
        shown = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
        return shown.subject.rfc4514_string(), secure.selected_alpn_protocol()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path, authority) -> Files:
    return Files(tmp_path, authority)


def test_one_port_speaks_what_alpn_agrees_on(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags())
    for offered, agreed in (
        (("h2",), "h2"),
        (("http/1.1",), "http/1.1"),
        (("http/1.1", "h2"), "h2"),
        (("spdy/3", "http/1.1"), "http/1.1"),
    ):
        assert served(server.address, offered)[1] == agreed, offered
    assert works(server.address, credentials(authority))
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.check_hostname = False
    for offered in (["http/1.1"], None):
        if offered:
            context.set_alpn_protocols(offered)
        connection = http.client.HTTPSConnection(server.address, timeout=30, context=context)
        connection.request("GET", "/v1/serverInfo")
        response = connection.getresponse()
        assert response.status == 200 and json.loads(response.read())["version"]
        connection.close()


def test_tls(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags())
    assert served(server.address) == ("CN=server", "h2")
    assert works(server.address, credentials(authority))
    assert not works(server.address, credentials(Authority("another")))
    assert not works(server.address, None), "served without TLS"
    # Neither probes nor metrics are behind it.
    assert server.http("/readyz")[0] == 200
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    ends = server.metrics()["tipserve_tls_certificate_expiry_timestamp_seconds"]
    assert now < ends <= now + 3600


def test_mutual_tls(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags(clients=True), "--log-format", "json")
    assert not works(server.address, credentials(authority))
    assert not works(server.address, credentials(authority, Authority("x").issue("stranger")))
    client = credentials(authority, authority.issue("a client"))
    assert works(server.address, client)
    one = api(server.address, credentials=client)
    with pytest.raises(grpc.RpcError):
        one.caches.DeleteCache(cache.DeleteCacheRequest(name="nothing"))
    eventually(lambda: '"who":"CN=a client"' in server.log.read_text())
    assert '"known_by":"certificate"' in server.log.read_text()


def test_a_client_with_certificate_and_token(serve, features_bundle, files, authority, tmp_path):
    file = TokensFile(tmp_path)
    token = file.add("t", "classify")
    server = serve(features_bundle, *files.flags(clients=True), "--tokens", str(file.path))
    client = credentials(authority, authority.issue("a client"))
    assert works(server.address, client, token)
    assert not works(server.address, credentials(authority), token)
    with pytest.raises(grpc.RpcError) as caught:
        api(server.address, credentials=client).ids()
    assert Problem.of_call(caught.value).reason == "TOKEN_MISSING"


def hang_up(server) -> None:
    server.process.send_signal(signal.SIGHUP)


def test_a_renewed_certificate_needs_no_restart(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags(), "--reload-seconds", "3600")
    old = api(server.address, credentials=credentials(authority))
    old.ids()
    cert, key = authority.issue("renewed")
    files.write(cert=cert)
    hang_up(server)
    # The key is not there yet: the old pair stays, and the log says why.
    eventually(lambda: "is not the key of" in server.log.read_text())
    assert served(server.address)[0] == "CN=server"
    files.write(key=key)
    hang_up(server)
    eventually(lambda: served(server.address)[0] == "CN=renewed")
    assert works(server.address, credentials(authority))
    old.ids()  # a connection from before goes on
    for bad in (b"no certificate", authority.issue("late", datetime.timedelta(hours=-1))[0]):
        said = server.log.read_text().count("what was in force before stays")
        files.write(cert=bad)
        for _ in range(2):
            hang_up(server)
        eventually(
            lambda n=said: server.log.read_text().count("what was in force before stays") > n
        )
        assert served(server.address)[0] == "CN=renewed"
    files.cert.unlink()
    hang_up(server)
    eventually(lambda: "cannot read the certificate" in server.log.read_text())
    assert works(server.address, credentials(authority))
    counts = server.metrics()
    assert counts['tipserve_guard_reloads_total{kind="tls",outcome="ok"}'] == 1
    assert counts['tipserve_guard_reloads_total{kind="tls",outcome="error"}'] == 4


def test_it_is_found_without_a_signal_too(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags(), "--reload-seconds", "1")
    cert, key = authority.issue("renewed")
    files.write(cert=cert, key=key)
    eventually(lambda: served(server.address)[0] == "CN=renewed")


def test_the_clients_authority_changes_too(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags(clients=True), "--reload-seconds", "3600")
    other = Authority("other")
    ours = credentials(authority, authority.issue("a"))
    theirs = credentials(authority, other.issue("b"))
    assert works(server.address, ours) and not works(server.address, theirs)
    files.write(ca=other.pem)
    hang_up(server)
    eventually(lambda: works(server.address, theirs))
    assert not works(server.address, ours)
    files.write(ca=authority.pem + other.pem)
    hang_up(server)
    eventually(lambda: works(server.address, ours))
    assert works(server.address, theirs)


def hello() -> bytes:
    """A ClientHello."""
    context = ssl.create_default_context()
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


def test_handshakes_that_stop_are_closed_in_time(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags())
    whole = hello()
    # A record may say that it has 16 KiB.
    parts = (b"", whole[:1], whole[: len(whole) // 2], whole, b"\x16\x03\x01\x40\0\1\0\x3f\xfc")
    host, port = server.address.split(":")
    stuck = {}
    for index in range(100):
        stuck[str(index)] = one = socket.create_connection((host, int(port)), 30)
        one.sendall(parts[index % len(parts)])
    assert works(server.address, credentials(authority))
    assert server.http("/healthz")[0] == 200
    # 10 s, and what a busy machine takes to see it.
    assert closed(stuck, 60) == set(stuck)
    assert works(server.address, credentials(authority))


def test_handshakes_that_never_end_hold_nobody_up(serve, features_bundle, files, authority):
    server = serve(features_bundle, *files.flags(), "--shutdown-seconds", "600")
    host, port = server.address.split(":")
    stuck = [socket.create_connection((host, int(port)), 30) for _ in range(50)]
    try:
        for index, one in enumerate(stuck):
            if index % 2:
                one.sendall(b"\x16\x03\x01")  # the beginning of a ClientHello
        assert works(server.address, credentials(authority))
        idle = api(server.address, credentials=credentials(authority))
        idle.ids()  # and a connection that goes on saying nothing
        # Out long before the bound: `terminate` waits for two minutes at most.
        assert server.terminate() == 0
    finally:
        for one in stuck:
            one.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cert": b""}, ("cert.pem", "BEGIN CERTIFICATE")),
        ({"key": b""}, ("key.pem", "BEGIN PRIVATE KEY")),
        ({"key": None}, ("key.pem", "No such file")),
        ({"ca": b"nothing"}, ("ca.pem", "BEGIN CERTIFICATE")),
    ],
)
def test_what_is_wrong_is_said_at_the_start(features_bundle, tmp_path, files, change, words):
    for name, data in change.items():
        path = getattr(files, name)
        path.unlink() if data is None else path.write_bytes(data)
    said = refusal(features_bundle, tmp_path, *files.flags(clients=True), code=1)
    assert all(word in said for word in words), said


def test_anothers_key_is_said_at_the_start(features_bundle, tmp_path, files, authority):
    files.write(key=authority.issue("another")[1])
    said = refusal(features_bundle, tmp_path, *files.flags(), code=1)
    assert "key.pem" in said and "is not the key of" in said and "cert.pem" in said


def refusal(bundle, folder, *flags, code, listen="127.0.0.1:0", metrics="127.0.0.1:0") -> str:
    """Standard error of a server that must not start."""
    done = subprocess.run(
        [
            *(BINARY, "serve", "--bundle", bundle, "--store", folder / "store"),
            *("--listen", listen, "--metrics-listen", metrics, *flags),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(done.stderr)
    assert done.returncode == code, done
    assert "panicked" not in done.stderr and "serving on" not in done.stdout
    assert not (folder / "store").exists(), "something was opened"
    return done.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_unguarded_servers_stay_on_this_machine(features_bundle, tmp_path, files, address):
    said = refusal(features_bundle, tmp_path, code=2, listen=address)
    for word in ("--tls-cert", "--tokens", "--insecure", address):
        assert word in said
    file = TokensFile(tmp_path)
    file.add("t", "admin")
    said = refusal(features_bundle, tmp_path, "--tokens", str(file.path), code=2, listen=address)
    assert "in the open" in said and "--insecure" in said
    said = refusal(features_bundle, tmp_path, code=2, metrics=address)
    assert "--expose-metrics" in said


@pytest.mark.parametrize(
    ("flag", "missing"),
    [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert"), ("--tls-client-ca", "--tls-cert")],
)
def test_half_of_a_pair_is_said(features_bundle, tmp_path, flag, missing):
    said = refusal(features_bundle, tmp_path, flag, "x.pem", code=2)
    assert flag in said and missing in said


def test_what_may_listen_beyond_this_machine(serve, features_bundle, files, tmp_path, authority):
    wide = ("0.0.0.0:0", "0.0.0.0:0")
    waived = serve(features_bundle, listen=wide, env={"TIPSERVE_INSECURE": "true"})
    assert waived.address.startswith("0.0.0.0:")
    eventually(lambda: "everybody who reaches the port" in waived.log.read_text())
    file = TokensFile(tmp_path)
    token = file.add("t", "admin")
    guarded = serve(
        features_bundle,
        *("--expose-metrics", *files.flags(), "--tokens", str(file.path)),
        listen=wide,
    )
    assert "everybody" not in guarded.log.read_text()
    address = guarded.address.replace("0.0.0.0", "127.0.0.1")
    assert works(address, credentials(authority), token)


def test_clients_of_ours_speak_it(serve, features_bundle, files, authority, tmp_path, chance):
    """The command line and the Python client, with token and certificate."""
    file = TokensFile(tmp_path)
    token = file.add("t", "write", "own-")
    server = serve(features_bundle, *files.flags(clients=True), "--tokens", str(file.path))
    own = tmp_path / "own.pem", tmp_path / "own-key.pem"
    for path, data in zip(own, authority.issue("client"), strict=True):
        path.write_bytes(data)
    spec = cache.CacheSpec(
        cache_id="own-c", classes=wire.classes("ab"), method=cache.METHOD_CLASS_MEAN
    )
    made = credentials(authority, authority.issue("maker"))
    points = chance.normal(size=(4, 64))
    api(server.address, token, credentials=made).create(
        spec, wire.examples_of(points, [0, 1, 0, 1])
    )
    with tipserve.Client(
        f"https://{server.address}",
        token=token,
        root_certificates=files.ca,
        client_certificate=own,
    ) as client:
        assert client.server_info().version
        assert [one.id for one in client.classify("own-c", points)]
    environment = {"TIPSERVE_TOKEN": token, "TIPSERVE_CA": str(files.ca)}
    environment |= {"TIPSERVE_CERT": str(own[0]), "TIPSERVE_KEY": str(own[1])}

    def run(*arguments, server_=f"https://{server.address}"):
        return subprocess.run(
            [BINARY, "--json", "--server", server_, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | environment,
        )

    listed = run("caches", "list")
    assert listed.returncode == 0 and "own-c" in listed.stdout, listed
    bench = run(
        *("bench", "--cache", "own-c", "--random-embeddings", "--count", "20", "--warmup", "0"),
        *("--concurrency", "2", "--connections", "2"),
    )
    assert bench.returncode == 0, bench
    # What the environment says of TLS is for addresses that have it; a flag is for this one.
    plain = run("info", server_=f"http://{server.address}")
    assert plain.returncode == 5 and "without TLS" not in plain.stderr
    asked = run("info", "--ca", str(own[0]), server_=f"http://{server.address}")
    assert asked.returncode == 2 and "without TLS" in asked.stderr
    environment["TIPSERVE_CA"] = str(tmp_path / "nothing.pem")
    assert "nothing.pem" in run("info").stderr


def test_the_asynchronous_client_speaks_it(serve, features_bundle, files):
    server = serve(features_bundle, *files.flags())

    async def ask():
        async with AsyncClient(server.address, root_certificates=files.ca.read_bytes()) as client:
            return (await client.server_info()).version

    assert asyncio.run(ask())
