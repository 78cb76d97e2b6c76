"""grpc's calls as awaitables.

This stands on grpc's threaded interface and not on grpc.aio: there, a write
that fails as the server ends the call replaces the server's own status by
"Internal error from Core" (grpc/grpc#36066), and what was wrong is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

# Responses that wait for the event loop; more wait in grpc, and then at the server.
_RESPONSES_AHEAD = 8


async def unary(method: Any, request: Any, **options: Any) -> Any:
    """A unary call. Cancelling the task cancels the call."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    call = method.future(request, **options)
    call.add_done_callback(lambda _: _on(loop, ended.set))
    try:
        await ended.wait()
    finally:
        call.cancel()  # does nothing to a call that has ended
    return call.result()


def _on(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *args: Any) -> None:
    # A loop that is closed has nobody waiting on it.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)


class Stream:
    """A streaming call: written to by one task, read by another."""

    def __init__(
        self, start: Callable[[Iterator[Any]], Any], *, one_response: bool = False
    ) -> None:
        """Starts the call.

        Args:
            start: Makes grpc's call, given the requests.
            one_response: The call is a future of its only response.
        """
        self._loop = asyncio.get_running_loop()
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sent = asyncio.Event()
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self._permits = threading.Semaphore(_RESPONSES_AHEAD)
        self._ended = False
        self._error: grpc.RpcError | None = None
        self._one_response = one_response
        self._call = start(self._requests())
        threading.Thread(target=self._receive, name="tipserve-receive", daemon=True).start()

    # In grpc's thread.

    def _requests(self) -> Iterator[Any]:
        while (message := self._outgoing.get()) is not None:
            yield message
            # grpc asks for another message only once this one is on its way.
            _on(self._loop, self._sent.set)

    # In a thread of its own.

    def _receive(self) -> None:
        error: grpc.RpcError | None = None
        try:
            for response in [self._call.result()] if self._one_response else self._call:
                self._permits.acquire()
                _on(self._loop, self._incoming.put_nowait, response)
        except grpc.RpcError as raised:
            error = raised
        except grpc.FutureCancelledError:
            error = self._call
        finally:
            self._outgoing.put(None)
            _on(self._loop, self._end, error)

    # On the event loop.

    def _end(self, error: grpc.RpcError | None) -> None:
        self._ended = True
        self._error = error
        self._sent.set()
        self._incoming.put_nowait(None)

    async def write(self, message: Any) -> None:
        """Sends a message; returns when the next one may be sent.

        Raises asyncio.InvalidStateError if the call has ended; why, the
        reader is told.
        """
        if not self._ended:
            self._sent.clear()
            self._outgoing.put(message)
            await self._sent.wait()
        if self._ended:
            raise asyncio.InvalidStateError("the call has ended")

    def done_writing(self) -> None:
        """Nothing more will be sent."""
        self._outgoing.put(None)

    def cancel(self) -> None:
        """Ends the call; does nothing to one that has ended."""
        self._call.cancel()
        self._outgoing.put(None)
        self._permits.release()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (response := await self._incoming.get()) is not None:
            self._permits.release()
            yield response
        # A later iteration must end, too.
        self._incoming.put_nowait(None)
        if self._error is not None:
            raise self._error

    async def response(self) -> Any:
        """The only response of a call that has one."""
        async for response in self:
            return response
        raise RuntimeError("a call without an error has a response")
