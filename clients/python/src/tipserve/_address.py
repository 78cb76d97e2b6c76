"""Where a server is: what people write, and what gRPC takes."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DEFAULT = "127.0.0.1:50051"
DEFAULT_PORT = 50051

# gRPC's own names, which are handed on; a host may be called "dns", too.
_SCHEMES = r"dns|unix|unix-abstract|ipv4|ipv6|vsock|xds|passthrough"
_RESOLVERS = re.compile(rf"({_SCHEMES}):(?![0-9]+/?\Z)")
# Of those, the one to which gRPC itself would add the port of https.
_DNS = re.compile(r"dns:(?:/*|//[^/]+/)(?P<host>\[[^\]]*\]|[^:/\[\]]+)\Z")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/@?#]*)(?::(?P<port>[0-9]{1,5}))?\Z")


@dataclass(frozen=True)
class Address:
    """A server's address, checked."""

    target: str
    """As gRPC takes it: "127.0.0.1:50051"."""
    scheme: str
    """ "http", "https" or, if none was given, ""."""

    @property
    def loopback(self) -> bool:
        """Whether it is this machine, to which no proxy leads."""
        target = re.sub(r"^(dns|ipv4|ipv6):/*", "", self.target)
        host = target.rpartition(":")[0].strip("[]").lower().removesuffix(".")
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse(given: str) -> Address:
    """An address as the command line takes it: a host alone means port 50051.

    Raises ValueError if it is none.
    """
    text = given.strip()
    scheme = ""
    if "://" in text and not _RESOLVERS.match(text):
        scheme, text = text.split("://", 1)
        scheme = scheme.lower()
        if scheme not in ("http", "https"):
            raise ValueError(f"the server's address {given!r} begins with neither http nor https")
    text = text.removesuffix("/")
    if not scheme and _RESOLVERS.match(text):
        return Address(f"{text}:{DEFAULT_PORT}" if _DNS.match(text) else text, scheme)
    if text.count(":") > 1 and "[" not in text:
        text = f"[{text}]"  # a bare IPv6 address
    match = _HOST.match(text)
    if match is None or not text:
        raise ValueError(f"the server's address is {given!r}: give 'host:port'")
    host, port = match["host"] or "127.0.0.1", int(match["port"] or DEFAULT_PORT)
    if not 1 <= port <= 65535:
        raise ValueError(f"the server's address {given!r} has a port that is not within 1 to 65535")
    # gRPC would take "dns:7" for a name of its own.
    resolver = "dns:///" if re.fullmatch(_SCHEMES, host) else ""
    return Address(f"{resolver}{host}:{port}", scheme)
