"""The handle of a running `AsyncClient.finetune`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from tipserve._runs import take, version_of
from tipserve._tasks import Stream
from tipserve.errors import TipserveError
from tipserve.types import FineTuneProgress, FineTuneRun, Version


class AsyncFineTune:
    """A run: an iterator over its progress, a context manager that cancels on leaving early.

    A run that is not detached ends with its handle: keep it.
    """

    def __init__(
        self,
        call: Stream,
        cancel: Callable[[str], Awaitable[FineTuneRun]],
        failure: Callable[[grpc.RpcError], TipserveError],
    ) -> None:
        self._call = call
        self._cancel = cancel
        self._failure = failure
        self.run: FineTuneRun | None = None
        """The run as the server last described it."""

    async def __aenter__(self) -> AsyncFineTune:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[FineTuneProgress]:
        try:
            async for response in self._call:
                progress = take(self, response)
                if progress is not None:
                    yield progress
        except grpc.RpcError as error:
            raise self._failure(error) from None

    async def result(self) -> Version:
        """Waits for the end; the version that was made.

        Raises `Cancelled` for a cancelled run, and the run's own error for one
        that failed.
        """
        async for _ in self:
            pass
        return version_of(self.run)

    async def cancel(self) -> None:
        """Cancels the run, detached or not."""
        if self.run is None:
            # Its name comes with the first message.
            try:
                async for response in self._call:
                    take(self, response)
                    break
            except grpc.RpcError as error:
                raise self._failure(error) from None
        if self.run is not None and not self.run.state.ended:
            self.run = await self._cancel(self.run.name)
        self.close()

    def close(self) -> None:
        """Stops listening. The run goes on only if it is detached."""
        self._call.cancel()
