"""Addresses, channel options and metadata; the same for both clients."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import grpc

from tipserve._address import DEFAULT, parse
from tipserve._files import readable
from tipserve._retry import RetryPolicy, allowed_seconds

# gRPC's options are whole numbers of 32 bits.
_MOST_MILLISECONDS = 2**31 - 1

Resize = Literal["server", "client", "client-jpeg"]
"""Who resizes pictures, and how they are sent then."""

Pem = bytes | str | os.PathLike[str]
"""PEM itself, as bytes, or the path of a file that holds it."""


@dataclass(frozen=True)
class Connection:
    """How to reach a server, checked."""

    target: str
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    retry: RetryPolicy
    timeout: float | None
    connect_timeout: float
    wait: float
    resize: Resize
    loopback: bool

    @property
    def options(self) -> list[tuple[str, int | str]]:
        """Channel options: the server's limits rule, not the client's."""
        return [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # Where the name stands for several servers, calls go round them.
            ("grpc.lb_policy_name", "round_robin"),
            # Notices a peer that vanished without a word, while calls run.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # Reconnect as fast as the retries ask; grpc's own first pause is 1 s.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            # How long one attempt to connect may take.
            (
                "grpc.min_reconnect_backoff_ms",
                min(max(int(self.connect_timeout * 1000), 1), _MOST_MILLISECONDS),
            ),
            # http_proxy is meant for other machines.
            ("grpc.enable_http_proxy", 0 if self.loopback else 1),
            # Of a socket file gRPC makes a host's name that HTTP/2 does not allow.
            *([("grpc.default_authority", "localhost")] if self.target.startswith("unix") else []),
        ]


def connection(
    target: str | None,
    *,
    token: str | None,
    root_certificates: Pem | None = None,
    client_certificate: tuple[Pem, Pem] | None = None,
    credentials: grpc.ChannelCredentials | None,
    metadata: Mapping[str, str] | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    connect_timeout: float,
    wait: float,
    resize: str,
) -> Connection:
    """Checks the arguments of a client; what is not given comes from the environment."""
    choices = get_args(Resize)
    if resize not in choices:
        raise ValueError(f"resize is {resize!r}, must be one of {', '.join(map(repr, choices))}")
    if resize != "server" and importlib.util.find_spec("PIL") is None:
        raise ImportError(f"resize={resize!r} needs Pillow: pip install 'tipserve[resize]'")
    if not (connect_timeout > 0 and math.isfinite(connect_timeout)):
        raise ValueError(f"connect_timeout is {connect_timeout}, must be over 0 seconds")
    if not (wait >= 0 and math.isfinite(wait)):
        raise ValueError(f"wait is {wait}, must be 0 or more seconds")
    given = environment("TIPSERVE_SERVER") or DEFAULT if target is None else target
    address = parse(given)
    is_socket = address.target.startswith("unix")
    if credentials is None and address.scheme != "http" and not is_socket:
        # Of this machine's settings, as the command line has them.
        if root_certificates is None:
            root_certificates = environment("TIPSERVE_CA")
        if client_certificate is None:
            client_certificate = _client_certificate()
    if root_certificates is not None or client_certificate is not None:
        if credentials is not None:
            raise ValueError("give credentials, or certificates, not both")
        if address.scheme == "http" or is_socket:
            raise ValueError(f"{given!r} is without TLS, and certificates ask for it")
        credentials = _tls(root_certificates, client_certificate)
    elif address.scheme == "https":
        credentials = credentials or grpc.ssl_channel_credentials()
    headers = [(key.lower(), value) for key, value in (metadata or {}).items()]
    if token is None and not any(key == "authorization" for key, _ in headers):
        token = _token()
    if token is not None:
        # As it stands in a file: with the end of its line, and the mark of Windows's editors.
        token = token.removeprefix("\ufeff").strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            # Without the text: it may be a token all the same.
            raise ValueError("the token is empty, or has characters that no token has")
        headers.append(("authorization", f"Bearer {token}"))
    return Connection(
        target=address.target,
        credentials=credentials,
        metadata=tuple(headers),
        retry=retry if retry is not None else RetryPolicy(),
        timeout=allowed_seconds(timeout),
        connect_timeout=connect_timeout,
        wait=wait,
        resize=cast(Resize, resize),
        loopback=address.loopback,
    )


def environment(name: str) -> str | None:
    """A variable's value; a blank one, as Compose's ${X:-} makes it, is not set."""
    value = os.environ.get(name, "").strip()
    return value or None


def _token() -> str | None:
    token = environment("TIPSERVE_TOKEN")
    file = environment("TIPSERVE_TOKEN_FILE")
    if token is None and file is not None:
        try:
            return Path(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"TIPSERVE_TOKEN_FILE {file}: it is not UTF-8 text") from error
    return token


def _client_certificate() -> tuple[Pem, Pem] | None:
    certificate, key = environment("TIPSERVE_CERT"), environment("TIPSERVE_KEY")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("TIPSERVE_CERT and TIPSERVE_KEY go together, and one is not set")
    return certificate, key


def _tls(
    root_certificates: Pem | None, client_certificate: tuple[Pem, Pem] | None
) -> grpc.ChannelCredentials:
    chain, key = client_certificate or (None, None)
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(root_certificates),
        private_key=_pem(key),
        certificate_chain=_pem(chain),
    )


def _pem(given: Pem | None) -> bytes | None:
    if given is None:
        return None
    pem = given if isinstance(given, bytes) else Path(given).read_bytes()
    if b"-----BEGIN " not in pem:
        # gRPC would say that no server answers.
        what = "the bytes given" if isinstance(given, bytes) else readable(os.fspath(given))
        raise ValueError(f"{what}: no PEM certificate or key in it")
    return pem
