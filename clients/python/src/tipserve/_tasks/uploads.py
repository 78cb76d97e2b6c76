"""Calls that stream messages up, over asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

from tipserve._tasks.bridge import Stream
from tipserve._uploads import upload_failure
from tipserve.errors import from_rpc_error


@contextlib.asynccontextmanager
async def uploading(
    start: Callable[[Iterator[Any]], Any], messages: Iterator[Any], *, one_response: bool = False
) -> AsyncIterator[Stream]:
    """Sends messages while the body takes answers; turns failures into ours.

    Args:
        start: Makes grpc's call, given the requests.
        messages: The requests; read off the event loop.
        one_response: The call is a future of its only response.
    """
    call = Stream(start, one_response=one_response)

    async def send() -> None:
        # A failure to write is a failure to read too, and reported there.
        with contextlib.suppress(asyncio.InvalidStateError):
            try:
                while (message := await asyncio.to_thread(next, messages, None)) is not None:
                    await call.write(message)
            except Exception:
                # Cancelled, not half-closed: the server must not take what it
                # has for the whole.
                call.cancel()
                raise
            call.done_writing()

    sender = asyncio.create_task(send())
    try:
        yield call
    except grpc.RpcError as error:
        if sender.done() and not sender.cancelled() and (raised := sender.exception()):
            raise raised from None
        raise upload_failure(from_rpc_error(error)) from None
    finally:
        sender.cancel()
        call.cancel()
        await asyncio.gather(sender, return_exceptions=True)
