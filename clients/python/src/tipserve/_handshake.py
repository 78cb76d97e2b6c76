"""Why TLS cannot be spoken at one of the addresses that a name stands for."""

from __future__ import annotations

import re
import socket
from typing import Any

import grpc

from tipserve._channel import Connection

# What grpc's core says if TLS was tried, and in vain.
_FAILED = re.compile(r"certificate|SSL|TLS|handshake|ALPN|check peer", re.IGNORECASE)
_NAME = re.compile(r"(?:dns:/*)?(?P<authority>(?P<host>[^:/\[\]]+):(?P<port>[0-9]+))\Z")
_SECONDS = 2.0


def is_handshake_failure(cause: str) -> bool:
    """Whether these words of grpc's say that TLS could not be spoken."""
    return _FAILED.search(cause) is not None


def failed_handshake(connection: Connection) -> str | None:
    """Asks each of the addresses by itself; grpc's words at the first where TLS failed.

    grpc goes round all addresses of a name and tells of the last failure alone: that
    nothing listens at ::1 hides that the certificate at 127.0.0.1 is another's.
    """
    name = _NAME.match(connection.target)
    if connection.credentials is None or name is None:
        return None
    try:
        found = socket.getaddrinfo(name["host"], int(name["port"]), type=socket.SOCK_STREAM)
    except OSError:
        return None
    for family, *_, where in found:
        address = str(where[0])
        one = f"ipv6:[{address}]" if family == socket.AF_INET6 else f"ipv4:{address}"
        # The certificate is looked at for the name.
        options = [*connection.options, ("grpc.default_authority", name["authority"])]
        with grpc.secure_channel(
            f"{one}:{name['port']}", connection.credentials, options
        ) as channel:
            call: Any = channel.unary_unary("/tipserve.v1.ClassifyService/GetServerInfo")
            try:
                call(b"", timeout=min(connection.connect_timeout, _SECONDS))
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE and is_handshake_failure(
                    cause := error.details() or ""
                ):
                    return cause
    return None
