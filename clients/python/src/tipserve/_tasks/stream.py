"""`classify` over asyncio tasks: one reads items, one talks to the server, the caller's takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import grpc

from tipserve._ledger import Ledger
from tipserve._proto import classify_pb2
from tipserve._requests import prepare
from tipserve._retry import RetryPolicy, allowed_seconds, is_transient
from tipserve._tasks.bridge import Stream
from tipserve._tasks.sources import iterate
from tipserve.errors import DeadlineExceeded, TipserveError, Unavailable, from_rpc_error
from tipserve.types import Result

Open = Callable[[Iterator[Any], "float | None"], Any]
"""Opens the stream, given its requests and the seconds that are left."""


class ClassifyStream:
    """One `classify` call, over as many connections as it takes.

    All of it runs on one event loop, so nothing needs a lock.
    """

    def __init__(
        self,
        open_stream: Open,
        config: classify_pb2.ClassifyStreamConfig,
        source: Any,
        encode: Callable[[Any], Any],
        ledger: Ledger,
        policy: RetryPolicy,
        *,
        time_limit: float | None,
        timeout: float | None,
    ) -> None:
        self._open = open_stream
        self._config = config
        self._source = iterate(source)
        self._encode = encode
        self._ledger = ledger
        self._policy = policy
        self._time_limit = time_limit
        limit = allowed_seconds(timeout)
        self._expires = None if limit is None else ledger.clock() + limit
        self._event = asyncio.Event()
        self._finished = False
        self._source_error: BaseException | None = None
        self._stream_error: BaseException | None = None

    def _notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def _wait(self, timeout: float | None = None) -> None:
        """Until something changes, or the time is over."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout)

    async def results(self) -> AsyncGenerator[Result, None]:
        """Starts the call and yields its results; closing it cancels the call."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._talk())]
        try:
            while True:
                result = self._ledger.take()
                if result is not None:
                    self._notify()  # room for another item
                    yield result
                elif self._stream_error is not None:
                    raise self._stream_error
                elif self._finished:
                    if self._source_error is not None:
                        raise self._source_error
                    return
                else:
                    await self._wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                while not self._ledger.has_room():
                    await self._wait()
                try:
                    thing = await self._source.__anext__()
                except StopAsyncIteration:
                    break
                # Files are read, and pictures resized, off the event loop.
                id, made, limit = await asyncio.to_thread(
                    prepare, thing, self._ledger.next_position, self._time_limit, self._encode
                )
                if isinstance(made, TipserveError):
                    self._ledger.add_failed(id, made)
                else:
                    self._ledger.add(id, made, limit)
                self._notify()
        except Exception as error:  # the caller's own; raised in the caller's task
            self._source_error = error
        finally:
            self._ledger.end()
            self._notify()

    async def _talk(self) -> None:
        try:
            await self._keep_connected()
        except Exception as error:
            self._stream_error = error
        finally:
            self._finished = True
            self._notify()

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            before = self._ledger.answered
            error = await self._one_connection()
            progress = self._ledger.answered > before
            if self._ledger.all_answered and (error is None or progress):
                return
            cause = error or Unavailable("the server ended the stream before its last answer")
            if not is_transient(cause):
                raise cause
            failures = 1 if progress else failures + 1
            delay = self._policy.delay(failures, error)
            if delay is None:
                raise cause
            await asyncio.sleep(delay)

    async def _one_connection(self) -> TipserveError | None:
        """Talks until the stream ends; returns why it ended, None where in order."""
        left = None if self._expires is None else self._expires - self._ledger.clock()
        if left is not None and left <= 0:
            raise DeadlineExceeded("the call's timeout has passed")
        self._ledger.reconnected()
        call = Stream(lambda messages: self._open(messages, left))
        sender = asyncio.create_task(self._send(call))
        try:
            async for response in call:
                for result in response.results:
                    self._ledger.answer(result)
                self._notify()
        except grpc.RpcError as error:
            return from_rpc_error(error)
        finally:
            sender.cancel()
            call.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return None

    async def _send(self, call: Stream) -> None:
        # A failure to write is a failure to read too, and reported there.
        with contextlib.suppress(asyncio.InvalidStateError):
            await call.write(classify_pb2.ClassifyStreamRequest(config=self._config))
            while True:
                batch = self._ledger.next_batch()
                if batch:
                    items = classify_pb2.ItemBatch(items=batch)
                    await call.write(classify_pb2.ClassifyStreamRequest(items=items))
                    continue
                # Looking for a batch may have settled expired items.
                self._notify()
                if self._ledger.all_answered:
                    break
                await self._wait(self._ledger.seconds_until_due())
            call.done_writing()
