"""Calls that stream examples up, and when they may be made again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from tipserve._retry import is_broken_connection
from tipserve.errors import Code, TipserveError, from_rpc_error


class Broken(Exception):
    """An upload failed in a way that another try may mend."""

    def __init__(self, error: TipserveError, sent_all: bool) -> None:
        super().__init__(str(error))
        self.error = error
        # A refusal is proof that nothing was made. A connection that broke
        # after the last example proves nothing: the answer may be what was lost.
        self.nothing_made = error.code is Code.RESOURCE_EXHAUSTED or not sent_all


def upload_failure(error: TipserveError, sent_all: bool) -> Exception:
    """What to raise for a failed upload: `Broken` where another try may mend it."""
    refused = error.code is Code.RESOURCE_EXHAUSTED and error.retry_delay is not None
    return Broken(error, sent_all) if refused or is_broken_connection(error) else error


class Uploading:
    """Requests on their way; keeps what their iterator raised, which grpc would swallow."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self._sent_all = False
        self._raised: BaseException | None = None
        self._call: Any = None
        self._started = threading.Event()

    def started(self, call: Any) -> None:
        """Says which call the requests belong to."""
        self._call = call
        self._started.set()

    def __iter__(self) -> Uploading:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._messages)
        except StopIteration:
            self._sent_all = True
            raise
        except BaseException as error:
            self._raised = error
            # Cancelled, not half-closed: the server must not take what it has
            # for the whole. (Raising in here would do as much, and log it.)
            self._started.wait()
            self._call.cancel()
            raise StopIteration from None

    def failure(self, error: Any) -> BaseException:
        """What to raise for the call's failure."""
        if self._raised is not None:
            return self._raised
        return upload_failure(from_rpc_error(error), self._sent_all)
