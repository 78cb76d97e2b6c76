"""`classify` over threads: one reads items, one talks to the server, the caller's takes results."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import grpc

from tipserve._ledger import Ledger
from tipserve._proto import classify_pb2
from tipserve._requests import prepare
from tipserve._retry import RetryPolicy, allowed_seconds, is_transient
from tipserve.errors import DeadlineExceeded, TipserveError, Unavailable, from_rpc_error
from tipserve.types import Result

Open = Callable[[Iterator[classify_pb2.ClassifyStreamRequest], "float | None"], Any]
"""Opens the stream, given its requests and the seconds that are left."""


# Streams whose results somebody may still read, with their talking threads.
_OPEN: weakref.WeakKeyDictionary[ClassifyStream, threading.Thread] = weakref.WeakKeyDictionary()


@atexit.register
def _close_all() -> None:
    """Ends the streams that a program leaves open. Later, when the interpreter
    collects their generators, daemon threads no longer run, and closing would
    wait for them for ever."""
    for stream, talking in list(_OPEN.items()):
        stream._close()
        talking.join(timeout=5)


class ClassifyStream:
    """One `classify` call, over as many connections as it takes."""

    def __init__(
        self,
        open_stream: Open,
        config: classify_pb2.ClassifyStreamConfig,
        source: Iterable[Any],
        encode: Callable[[Any], Any],
        ledger: Ledger,
        policy: RetryPolicy,
        *,
        time_limit: float | None,
        timeout: float | None,
    ) -> None:
        self._open = open_stream
        self._config = config
        self._source = source
        self._encode = encode
        self._ledger = ledger
        self._policy = policy
        self._time_limit = time_limit
        limit = allowed_seconds(timeout)
        self._expires = None if limit is None else ledger.clock() + limit
        # Guards everything below, and the ledger.
        self._changed = threading.Condition()
        self._closed = False
        self._finished = False
        self._source_error: BaseException | None = None
        self._stream_error: BaseException | None = None
        self._call: Any = None

    def results(self) -> Generator[Result, None, None]:
        """Starts the call and yields its results; closing it cancels the call."""
        threads = [
            threading.Thread(target=self._read, name="tipserve-read", daemon=True),
            threading.Thread(target=self._talk, name="tipserve-talk", daemon=True),
        ]
        for thread in threads:
            thread.start()
        _OPEN[self] = threads[1]
        try:
            while (result := self._next()) is not None:
                yield result
        finally:
            _OPEN.pop(self, None)
            self._close()
            # The reading thread may be inside the caller's iterable, for as
            # long as that takes: it ends by itself. This one ends now.
            threads[1].join(timeout=5)

    def _next(self) -> Result | None:
        with self._changed:
            while True:
                result = self._ledger.take()
                if result is not None:
                    self._changed.notify_all()  # room for another item
                    return result
                if self._stream_error is not None:
                    raise self._stream_error
                if self._finished:
                    if self._source_error is not None:
                        raise self._source_error
                    return None
                self._changed.wait()

    def _close(self) -> None:
        if self._closed:
            # Perhaps at the interpreter's exit, when another thread may have
            # been stopped with the lock in its hands.
            return
        with self._changed:
            self._closed = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()

    # The reading thread.

    def _read(self) -> None:
        try:
            iterator = iter(self._source)
            while self._wait_for_room():
                try:
                    thing = next(iterator)
                except StopIteration:
                    break
                position = self._ledger.next_position  # only this thread moves it
                id, made, limit = prepare(thing, position, self._time_limit, self._encode)
                with self._changed:
                    if isinstance(made, TipserveError):
                        self._ledger.add_failed(id, made)
                    else:
                        self._ledger.add(id, made, limit)
                    self._changed.notify_all()
        except BaseException as error:  # the caller's own; raised in the caller's thread
            self._source_error = error
        finally:
            with self._changed:
                self._ledger.end()
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._stream_error or self._ledger.has_room()
            )
            return not (self._closed or self._stream_error)

    # The talking thread.

    def _talk(self) -> None:
        try:
            self._keep_connected()
        except BaseException as error:
            with self._changed:
                if not self._closed:
                    self._stream_error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _keep_connected(self) -> None:
        failures = 0
        while True:
            with self._changed:
                before = self._ledger.answered
            error = self._one_connection()
            with self._changed:
                if self._closed or (error is None and self._ledger.all_answered):
                    return
                progress = self._ledger.answered > before
                if progress and self._ledger.all_answered:
                    return  # It broke after its last answer: nothing is lost.
                # A stream that the server ends early, without an error, is
                # one to open again: there are items left.
                cause = error or Unavailable("the server ended the stream before its last answer")
                if not is_transient(cause):
                    raise cause
                failures = 1 if progress else failures + 1
                delay = self._policy.delay(failures, error)
                if delay is None:
                    raise cause
                self._changed.wait_for(lambda: self._closed, timeout=delay)
                if self._closed:
                    return

    def _one_connection(self) -> TipserveError | None:
        """Talks until the stream ends; returns why it ended, None where in order."""
        left = None if self._expires is None else self._expires - self._ledger.clock()
        if left is not None and left <= 0:
            raise DeadlineExceeded("the call's timeout has passed")
        requests = _Requests(self)
        with self._changed:
            if self._closed:
                return None
            self._ledger.reconnected()
            self._call = call = self._open(requests, left)
        try:
            for response in call:
                with self._changed:
                    for result in response.results:
                        self._ledger.answer(result)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            return from_rpc_error(error)
        finally:
            requests.stop()
            with contextlib.suppress(Exception):
                call.cancel()
        return None


class _Requests:
    """The requests of one connection; grpc's own thread iterates over them."""

    def __init__(self, stream: ClassifyStream) -> None:
        self._stream = stream
        self._stopped = False
        self._configured = False

    def __iter__(self) -> _Requests:
        return self

    def stop(self) -> None:
        """Ends the iteration, so that grpc's thread does not wait for ever."""
        with self._stream._changed:
            self._stopped = True
            self._stream._changed.notify_all()

    def __next__(self) -> classify_pb2.ClassifyStreamRequest:
        stream = self._stream
        if not self._configured:
            self._configured = True
            return classify_pb2.ClassifyStreamRequest(config=stream._config)
        with stream._changed:
            while not (self._stopped or stream._closed):
                batch = stream._ledger.next_batch()
                if batch:
                    return classify_pb2.ClassifyStreamRequest(
                        items=classify_pb2.ItemBatch(items=batch)
                    )
                # Looking for a batch may have settled expired items.
                stream._changed.notify_all()
                if stream._ledger.all_answered:
                    break
                stream._changed.wait(timeout=stream._ledger.seconds_until_due())
        raise StopIteration
