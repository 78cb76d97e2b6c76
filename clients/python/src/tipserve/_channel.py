"""Addresses, channel options and metadata; the same for both clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import grpc

from tipserve._retry import RetryPolicy

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
    resize: Resize

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
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]


def connection(
    target: str,
    *,
    token: str | None,
    root_certificates: Pem | None = None,
    client_certificate: tuple[Pem, Pem] | None = None,
    credentials: grpc.ChannelCredentials | None,
    metadata: Mapping[str, str] | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    resize: str,
) -> Connection:
    """Checks the arguments of a client."""
    choices = get_args(Resize)
    if resize not in choices:
        raise ValueError(f"resize is {resize!r}, must be one of {', '.join(map(repr, choices))}")
    if root_certificates is not None or client_certificate is not None:
        if credentials is not None:
            raise ValueError("give credentials, or certificates, not both")
        if target.startswith("http://"):
            raise ValueError(f"{target!r} is without TLS, and certificates ask for it")
        credentials = _tls(root_certificates, client_certificate)
    elif target.startswith("https://"):
        credentials = credentials or grpc.ssl_channel_credentials()
    target = target.removeprefix("http://").removeprefix("https://").rstrip("/")
    if not target:
        raise ValueError("the server's address is empty: give 'host:port'")
    headers = [(key.lower(), value) for key, value in (metadata or {}).items()]
    if token is not None:
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            # Without the text: it may be a token all the same.
            raise ValueError("the token is empty, or has characters that no token has")
        headers.append(("authorization", f"Bearer {token}"))
    return Connection(
        target=target,
        credentials=credentials,
        metadata=tuple(headers),
        retry=retry if retry is not None else RetryPolicy(),
        timeout=timeout,
        resize=cast(Resize, resize),
    )


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
    if given is None or isinstance(given, bytes):
        return given
    return Path(given).read_bytes()
