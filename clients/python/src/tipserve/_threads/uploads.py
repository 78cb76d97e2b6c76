"""Calls that stream messages up, over grpc's own threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tipserve._threads.calls import Stream
from tipserve._uploads import upload_failure
from tipserve.errors import from_rpc_error


class _Requests:
    """Requests on their way; keeps what their iterator raised, which grpc would swallow."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self._call: Any = None
        self._started = threading.Event()
        self.raised: BaseException | None = None

    def started(self, call: Any) -> None:
        """Says which call the requests belong to."""
        self._call = call
        self._started.set()

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except BaseException as error:
            self.raised = error
            # Cancelled, not half-closed: the server must not take what it has
            # for the whole. (Raising in here would do as much, and log it.)
            self._started.wait()
            self._call.cancel()
            raise StopIteration from None


@contextlib.contextmanager
def uploading(
    start: Callable[[Iterator[Any]], Any], messages: Iterator[Any], *, one_response: bool = False
) -> Iterator[Stream]:
    """Sends messages while the body takes answers; turns failures into ours.

    Args:
        start: Makes grpc's call, given the requests.
        messages: The requests; read in grpc's thread.
        one_response: The call is a future of its only response.
    """
    requests = _Requests(messages)
    call = Stream(lambda _: start(requests), one_response=one_response)
    requests.started(call)
    try:
        yield call
    except grpc.RpcError as error:
        if requests.raised is not None:
            raise requests.raised from None
        raise upload_failure(from_rpc_error(error)) from None
    finally:
        call.cancel()
