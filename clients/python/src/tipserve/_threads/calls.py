"""grpc's calls in the form that both clients' methods use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import grpc

P = ParamSpec("P")
R = TypeVar("R")


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def off_loop(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls it: there is no event loop to keep free."""
    return function(*args, **kwargs)


def unary(method: Any, request: Any, **options: Any) -> Any:
    """A unary call."""
    return method(request, **options)


class Stream:
    """A call that streams answers, or that has one that is waited for."""

    def __init__(
        self, start: Callable[[Iterator[Any]], Any], *, one_response: bool = False
    ) -> None:
        """Starts the call.

        Args:
            start: Makes grpc's call, given the requests (none: see `uploading`).
            one_response: The call is a future of its only response.
        """
        self._call = start(iter(()))
        self._one_response = one_response

    def __iter__(self) -> Iterator[Any]:
        if self._one_response:
            yield self.response()
        else:
            # Not `yield from`: leaving this generator must not close the call.
            for response in self._call:  # noqa: UP028
                yield response

    def response(self) -> Any:
        """The only response of a call that has one."""
        try:
            return self._call.result()
        except grpc.FutureCancelledError:
            raise self._call from None  # a grpc.RpcError that says by whom

    def cancel(self) -> None:
        """Ends the call; does nothing to one that has ended."""
        self._call.cancel()
