"""The books of one `classify` call: what was read, sent, answered and handed out.

No threads, no sockets, no waiting: the sync and the asyncio client drive the
same ledger, each with its own locks. It holds the promises of the stream:

* every item that was read is handed out exactly once, as an answer or an error;
* after a broken connection the unanswered items, and no others, are sent again;
* an item refused for now is sent again after the delay that the server named;
* at most `window` items, and about `window_bytes` of pictures, are held.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from tipserve._proto import classify_pb2, input_pb2
from tipserve._retry import RetryPolicy, is_retryable_item
from tipserve.errors import DeadlineExceeded, TipserveError, from_status
from tipserve.types import Result

# The proto's bound on an id. Answers are matched by their sequence, so an id
# over it need not travel at all.
_MAX_ID_BYTES = 1024


@dataclass(eq=False)
class _Pending:
    """An item without an answer yet."""

    position: int
    id: str
    input: input_pb2.Input
    size: int
    time_limit: float | None
    expires: float | None = None
    refusals: int = 0


@dataclass
class Ledger:
    """See the module."""

    ordered: bool
    window: int
    window_bytes: int
    max_batch_bytes: int
    max_batch_items: int
    item_policy: RetryPolicy
    clock: Callable[[], float] = time.monotonic

    answered: int = 0
    """Answers of the server so far, of whatever kind: the measure of progress."""
    _read: int = 0
    _handed_out: int = 0
    _bytes: int = 0
    _ended: bool = False
    _to_send: deque[_Pending] = field(default_factory=deque)
    _later: list[tuple[float, int, _Pending]] = field(default_factory=list)
    _tickets: itertools.count[int] = field(default_factory=itertools.count)
    _sent: dict[int, _Pending] = field(default_factory=dict)
    _next_sequence: int = 0
    _ready: deque[Result] = field(default_factory=deque)
    _held_back: dict[int, Result] = field(default_factory=dict)

    # Reading.

    def has_room(self) -> bool:
        """Whether another item may be read."""
        return self._read - self._handed_out < self.window and self._bytes < self.window_bytes

    @property
    def next_position(self) -> int:
        """The position of the item that is read next."""
        return self._read

    def add(self, id: str, input: input_pb2.Input, time_limit: float | None) -> None:
        """Takes in an item to send."""
        item = _Pending(self._read, id, input, input.ByteSize(), time_limit)
        self._read += 1
        self._bytes += item.size
        self._to_send.append(item)

    def add_failed(self, id: str, error: TipserveError) -> None:
        """Takes in an item that cannot even be sent."""
        position = self._read
        self._read += 1
        self._put(Result(id, position, error=error))

    def end(self) -> None:
        """Nothing more will be read."""
        self._ended = True

    # Sending.

    def reconnected(self) -> None:
        """A new connection: sequences begin at 0, all unanswered items are to be sent."""
        unanswered = [*self._sent.values(), *self._to_send]
        self._sent.clear()
        self._next_sequence = 0
        self._to_send = deque(sorted(unanswered, key=lambda item: item.position))

    def next_batch(self) -> list[classify_pb2.Item]:
        """The items of the next message; empty if there are none to send now."""
        now = self.clock()
        while self._later and self._later[0][0] <= now:
            self._to_send.append(heapq.heappop(self._later)[2])
        batch: list[classify_pb2.Item] = []
        size = 0
        while self._to_send and len(batch) < self.max_batch_items:
            item = self._to_send[0]
            if item.expires is not None and item.expires <= now:
                self._to_send.popleft()
                self._settle(item, Result(item.id, item.position, error=_expired(item)))
                continue
            # 2 KiB an item cover its id and lengths.
            if batch and size + item.size + 2048 > self.max_batch_bytes:
                break
            size += item.size + 2048
            batch.append(self._message(self._to_send.popleft(), now))
        return batch

    def _message(self, item: _Pending, now: float) -> classify_pb2.Item:
        self._sent[self._next_sequence] = item
        self._next_sequence += 1
        message = classify_pb2.Item(input=item.input)
        if len(item.id) <= _MAX_ID_BYTES and len(item.id.encode("utf-8", "replace")) <= (
            _MAX_ID_BYTES
        ):
            message.id = item.id.encode("utf-8", "replace").decode()
        if item.time_limit is not None:
            if item.expires is None:
                item.expires = now + item.time_limit
            left = Duration()
            # A duration of the wire has an end, too.
            left.FromNanoseconds(int(min(item.expires - now, 1e9) * 1e9))
            message.time_limit.CopyFrom(left)
        return message

    def seconds_until_due(self) -> float | None:
        """How long until a refused item is to be sent again; None if there is none."""
        return max(self._later[0][0] - self.clock(), 0.0) if self._later else None

    @property
    def all_answered(self) -> bool:
        """Whether everything is read and answered, so that the stream may be closed."""
        return self._ended and not (self._to_send or self._later or self._sent)

    # Receiving.

    def answer(self, result: classify_pb2.ItemResult) -> None:
        """Takes in one answer of the current connection."""
        item = self._sent.pop(result.sequence, None)
        if item is None:
            return  # A second answer to one item; the first one counts.
        self.answered += 1
        outcome = result.WhichOneof("outcome")
        if outcome == "classification":
            made = Result._from(item.id, item.position, result.classification)
        else:
            error = (
                from_status(result.error)
                if outcome == "error"
                else TipserveError("the server's result has no outcome")
            )
            if self._put_off(item, error):
                return
            made = Result(item.id, item.position, error=error)
        self._settle(item, made)

    def _put_off(self, item: _Pending, error: TipserveError) -> bool:
        """Plans to send a refused item again, unless it was refused too often."""
        if not is_retryable_item(error):
            return False
        item.refusals += 1
        delay = self.item_policy.delay(item.refusals, error)
        if delay is None:
            return False
        heapq.heappush(self._later, (self.clock() + delay, next(self._tickets), item))
        return True

    def _settle(self, item: _Pending, result: Result) -> None:
        self._bytes -= item.size
        self._put(result)

    # Handing out.

    def _put(self, result: Result) -> None:
        if not self.ordered:
            self._ready.append(result)
            return
        self._held_back[result.position] = result
        expected = self._handed_out + len(self._ready)
        while (ready := self._held_back.pop(expected, None)) is not None:
            self._ready.append(ready)
            expected += 1

    def take(self) -> Result | None:
        """The next result to hand out, if there is one now."""
        if not self._ready:
            return None
        self._handed_out += 1
        return self._ready.popleft()


def _expired(item: _Pending) -> TipserveError:
    return DeadlineExceeded(
        f"no answer within the item's time limit of {item.time_limit} s",
        reason="TIME_LIMIT_EXCEEDED",
        metadata={"time_limit_seconds": str(item.time_limit)},
    )
