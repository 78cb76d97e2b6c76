"""When to try again, and after how long. No input, no output: both clients use it."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

from tipserve.errors import Code, TipserveError

# What grpc's core says when a connection or a proxy, not the server, ended a
# stream. The wire has no code for that, so it comes as one of these.
_TRANSPORT_CODES = (Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN)
_TRANSPORT_WORDS = ("RST_STREAM", "Stream removed", "GOAWAY", "Socket closed", "connection")
_CLOSED_BY_US = "Channel closed"


@dataclass(frozen=True)
class RetryPolicy:
    """How calls that are safe to repeat are repeated.

    Before attempt n (from 1 for the first repetition) the client waits
    `first_delay * factor ** (n - 1)` seconds, at most `max_delay`, less up to
    `jitter` of it by chance; never less than the server asked for.
    """

    attempts: int = 8
    """Repetitions after the first try; 0 turns them off. On a stream the count
    begins anew with every answer."""
    first_delay: float = 0.1
    """Seconds before the first repetition."""
    factor: float = 2.0
    """Growth of the delay."""
    max_delay: float = 5.0
    """Seconds that the delay does not grow beyond."""
    jitter: float = 0.3
    """Share of the delay that chance may take off, 0 to 1."""
    max_server_delay: float = 60.0
    """If the server asks to wait for more seconds than this, the error is
    handed on instead."""

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ValueError(f"attempts is {self.attempts}, must be 0 or more")
        delays = (self.first_delay, self.max_delay, self.max_server_delay)
        # Written so that NaN is refused, too.
        if not (all(delay >= 0 for delay in delays) and self.factor >= 1):
            raise ValueError("delays must be 0 or more, and factor 1 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}, must be from 0 to 1")

    def delay(self, attempt: int, error: TipserveError | None = None) -> float | None:
        """Seconds to wait before repetition `attempt`, or None not to repeat."""
        if attempt > self.attempts:
            return None
        asked = error.retry_delay if error is not None else None
        if asked is not None and asked > self.max_server_delay:
            return None
        # The exponent is bounded so that a large `attempts` cannot overflow.
        own = min(self.first_delay * self.factor ** min(attempt - 1, 64), self.max_delay)
        own *= 1 - self.jitter * random.random()
        return max(own, asked or 0.0)


NO_RETRIES = RetryPolicy(attempts=0)
"""Every failure is handed on at once."""


# So many seconds, 31 years, are as good as no bound; larger ones gRPC cannot count.
_UNBOUNDED = 1e9


def allowed_seconds(seconds: float | None) -> float | None:
    """The seconds that a call may take; None, 0 and what is as good as that: without bound.

    Raises ValueError for what is no number of seconds.
    """
    if seconds is None:
        return None
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(
            f"the timeout is {seconds}, must be a number of seconds, or None (or 0) for no bound"
        )
    return None if seconds == 0 or seconds > _UNBOUNDED else float(seconds)


class Tries:
    """The tries of one call, and the time that they have together."""

    def __init__(self, policy: RetryPolicy, timeout: float | None) -> None:
        self._policy = policy
        limit = allowed_seconds(timeout)
        self._expires = None if limit is None else time.monotonic() + limit
        self._failures = 0

    def left(self) -> float | None:
        """Seconds that the next try may take; None: without bound."""
        return None if self._expires is None else max(self._expires - time.monotonic(), 0.001)

    def pause(self, error: TipserveError, repeatable: bool) -> float:
        """Seconds to wait before the next try; raises `error` if there is to be none."""
        self._failures += 1
        delay = self._policy.delay(self._failures, error)
        if not repeatable or delay is None:
            raise error
        if self._expires is not None and time.monotonic() + delay >= self._expires:
            raise error
        return delay


def is_transient(error: TipserveError) -> bool:
    """Whether a call that only reads may succeed if it is repeated."""
    if error.code is Code.UNAVAILABLE:
        return True
    if error.code is Code.RESOURCE_EXHAUSTED:
        return error.retry_delay is not None
    return is_broken_connection(error)


def is_broken_connection(error: TipserveError) -> bool:
    """Whether the way to the server broke, as opposed to the server answering.

    A status of the server's own carries an ErrorInfo; one that grpc's core
    made up for a reset stream does not, and names the reset.
    """
    if error.code is Code.UNAVAILABLE:
        return True
    return (
        error.code in _TRANSPORT_CODES
        and not error.reason
        and _CLOSED_BY_US not in error.message
        and any(word in error.message for word in _TRANSPORT_WORDS)
    )


def is_retryable_item(error: TipserveError) -> bool:
    """Whether an item of a stream was refused only for now."""
    return (
        error.code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE) and error.retry_delay is not None
    )
