"""A `classify` before it runs: its arguments checked, its stream's first message, its books."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tipserve import _requests as requests
from tipserve._ledger import Ledger
from tipserve._proto import classify_pb2
from tipserve._retry import RetryPolicy
from tipserve._sources import items_of
from tipserve.pictures import Encoder


@dataclass(frozen=True)
class ClassifyPlan:
    """What both clients' streams begin with."""

    source: Any
    """What to iterate over for items."""
    config: classify_pb2.ClassifyStreamConfig
    ordered: bool
    window: int
    window_bytes: int
    item_policy: RetryPolicy
    """How an item that is refused for now is sent again."""

    def ledger(self, encoder: Encoder) -> Ledger:
        """The books of one run."""
        return Ledger(
            ordered=self.ordered,
            window=self.window,
            window_bytes=self.window_bytes,
            max_batch_bytes=requests.batch_bytes(encoder.max_message_bytes),
            max_batch_items=requests.BATCH_ITEMS,
            item_policy=self.item_policy,
        )


def classify_plan(
    cache: str,
    items: Any,
    options: classify_pb2.ClassifyOptions,
    policy: RetryPolicy,
    *,
    ordered: bool,
    priority: str,
    window: int,
    window_bytes: int,
    resend: int | None,
) -> ClassifyPlan:
    """A `classify`, its arguments checked."""
    if window < 1 or window_bytes < 1:
        raise ValueError("window and window_bytes must be at least 1")
    return ClassifyPlan(
        source=items_of(items),
        config=classify_pb2.ClassifyStreamConfig(
            cache=cache,
            options=options,
            # The order is put right here, across connections and resends; the
            # server need hold nothing back.
            ordered=False,
            priority=requests.priority(priority),
        ),
        ordered=ordered,
        window=window,
        window_bytes=window_bytes,
        item_policy=policy if resend is None else requests.with_attempts(policy, resend),
    )
