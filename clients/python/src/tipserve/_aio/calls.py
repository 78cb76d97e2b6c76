"""The connection of a client, and how its calls are made and repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc

from tipserve._arrays import Color, check_color
from tipserve._connected import Connected
from tipserve._proto import classify_pb2
from tipserve._retry import Tries, is_transient
from tipserve._tasks import off_loop, sleep, unary
from tipserve._uploads import Broken
from tipserve.pictures import Encoder
from tipserve.types import ServerInfo

T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncCalls")


class AsyncCalls(Connected):
    """What all of a client's methods stand on."""

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls that run are cancelled, and none can begin."""
        self._contact.closed = True
        self._channel.close()

    async def server_info(self) -> ServerInfo:
        """Version, bundle, device and limits of the server."""
        self._info = ServerInfo._from(
            await self._unary(self._classify.GetServerInfo, classify_pb2.GetServerInfoRequest())
        )
        return self._info

    async def _encoder(self, color: Color = "rgb", *, resize: bool = True) -> Encoder:
        check_color(color)
        return self._encoder_for(self._info or await self.server_info(), resize, color)

    async def _upload(
        self,
        attempt: Callable[[float | None], Awaitable[T]],
        timeout: float | None,
        repeatable: bool,
    ) -> T:
        """Runs a call that streams examples up, again where they can be read again.

        What it would make twice has a request id, by which the server knows it.
        """
        tries = Tries(self._connection.retry, timeout)
        while True:
            try:
                return await attempt(tries.left())
            except Broken as broken:
                error = broken.error
            await sleep(tries.pause(error, repeatable))

    async def _unary(
        self, method: Any, request: Any, *, retry: bool = True, timeout: float | None = None
    ) -> Any:
        """A unary call, repeated if that is safe and the time suffices."""
        allowed = self._connection.timeout if timeout is None else timeout
        tries = Tries(self._connection.retry, allowed)
        while True:
            try:
                answer = await unary(method, request, timeout=tries.left(), metadata=self._metadata)
                self._contact.reached()
                return answer
            except grpc.RpcError as raised:
                error = self._contact.failure(raised, allowed)
            pause = await off_loop(self._contact.pause, error)
            if pause is None:
                pause = tries.pause(error, retry and is_transient(error))
            await sleep(pause)

    async def _pages(self, method: Any, request: Any) -> AsyncIterator[Any]:
        while True:
            page = await self._unary(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
