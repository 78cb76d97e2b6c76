"""The connection of a blocking client, and how its calls are made and repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from tipserve._connected import Connected
from tipserve._proto import classify_pb2
from tipserve._retry import Tries, is_transient
from tipserve._upload import Broken
from tipserve.errors import from_rpc_error
from tipserve.pictures import Encoder
from tipserve.types import ServerInfo

T = TypeVar("T")
Self = TypeVar("Self", bound="Calls")


class Calls(Connected):
    """What all of a client's methods stand on."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls that run are cancelled."""
        self._channel.close()

    def server_info(self) -> ServerInfo:
        """Version, bundle, device and limits of the server."""
        self._info = ServerInfo._from(
            self._unary(self._classify.GetServerInfo, classify_pb2.GetServerInfoRequest())
        )
        return self._info

    def _encoder(self, *, resize: bool = True) -> Encoder:
        return self._encoder_for(self._info or self.server_info(), resize)

    def _upload(
        self,
        attempt: Callable[[float | None], T],
        timeout: float | None,
        repeatable: bool,
        *,
        only_before_end: bool,
    ) -> T:
        """Runs a call that streams examples up, again where that is safe."""
        tries = Tries(self._connection.retry, timeout)
        while True:
            try:
                return attempt(tries.left())
            except Broken as broken:
                error = broken.error
                safe = broken.nothing_made or not only_before_end
            time.sleep(tries.pause(error, repeatable and safe))

    def _unary(
        self, method: Any, request: Any, *, retry: bool = True, timeout: float | None = None
    ) -> Any:
        """A unary call, repeated where that is safe and the time suffices."""
        tries = Tries(
            self._connection.retry, self._connection.timeout if timeout is None else timeout
        )
        while True:
            try:
                return method(request, timeout=tries.left(), metadata=self._connection.metadata)
            except grpc.RpcError as raised:
                error = from_rpc_error(raised)
            time.sleep(tries.pause(error, retry and is_transient(error)))

    def _pages(self, method: Any, request: Any) -> Iterator[Any]:
        while True:
            page = self._unary(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
