"""Whether a server has been reached, and what to say if it has not."""

from __future__ import annotations

import re
import time
from typing import Any

from tipserve._channel import Connection
from tipserve._handshake import failed_handshake, is_handshake_failure
from tipserve.errors import Code, DeadlineExceeded, TipserveError, Unavailable, from_rpc_error

# What grpc's core says if there was no connection at all, or none that speaks HTTP/2.
_NO_CONNECTION = re.compile(
    r"failed to connect|connection attempt timed out|connect failed|errors? resolving"
    r"|name resolution|DNS resolution|Failed to connect to remote host"
    r"|connections to all backends failing",
    re.IGNORECASE,
)
_PAUSE_SECONDS = 0.1


class Contact:
    """What one client knows of its server's being there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._target = connection.target
        self._wait = connection.wait
        self._gives_up: float | None = None
        self._reached = False
        self._failed_handshake: str | None = None
        self.closed = False

    def reached(self) -> None:
        """The server has answered."""
        self._reached = True
        self._failed_handshake = None

    def failure(self, error: Any, timeout: float | None = None) -> TipserveError:
        """The exception for what grpc raised; says how to start a server if there is none.

        `timeout` is how many seconds the call was given.
        """
        made = from_rpc_error(error)
        if made.reason:
            self.reached()  # a status of the server's own
        elif made.code is Code.UNAVAILABLE and _NO_CONNECTION.search(made.message):
            return self._unreachable(made.message)
        elif made.code is Code.DEADLINE_EXCEEDED and timeout is not None:
            return DeadlineExceeded(
                f"no answer from {self._target} within {timeout:g} s",
                reason="TIMEOUT",
                metadata={"server": self._target, "timeout_seconds": f"{timeout:g}"},
            )
        return made

    def _unreachable(self, cause: str) -> Unavailable:
        # A name may have several addresses, and grpc tells of the last alone: a
        # handshake that failed at one says more than that nothing is at another.
        if is_handshake_failure(cause):
            self._failed_handshake = cause
        cause = self._failed_handshake or cause
        message = f"cannot speak TLS with the server at {self._target}: {cause}"
        if not self._failed_handshake:
            message = (
                f"no tipserve server answers at {self._target} ({_cause(cause)}). Start one with\n"
                f"  tipserve serve --bundle DIR --store DIR --listen {self._target}\n"
                "or name another: tipserve.Client('host:port'), or TIPSERVE_SERVER"
            )
        return Unavailable(
            message,
            reason="SERVER_UNREACHABLE",
            metadata={"server": self._target, "cause": cause},
        )

    def pause(self, error: TipserveError) -> float | None:
        """Seconds to wait for a server that was never there.

        None where it was, and the retry policy decides. Raises once the time is over
        that the client waits for a server: `error`, or what is wrong with TLS, for which
        it may ask the name's addresses (so not to be called on an event loop).
        """
        if self._reached or error.reason != "SERVER_UNREACHABLE":
            return None
        now = time.monotonic()
        if self._gives_up is None:
            self._gives_up = now + self._wait
        if now + _PAUSE_SECONDS > self._gives_up:
            cause = None if self._failed_handshake else failed_handshake(self._connection)
            raise error if cause is None else self._unreachable(cause)
        return _PAUSE_SECONDS


def _cause(message: str) -> str:
    """The last and shortest of grpc's nested reasons."""
    found = re.findall(
        r"Connection refused|timed out before receiving SETTINGS|timed out|Connection reset"
        r"|No such file or directory|Domain name not found|Network is unreachable|No route to host"
        r"|Socket closed|Trying to connect an http1.x server",
        message,
    )
    return found[-1] if found else message
