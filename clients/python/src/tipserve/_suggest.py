"""The requests of SuggestExamples; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tipserve._proto import analysis_pb2
from tipserve._requests import enum_value, grouped, prepare
from tipserve.errors import TipserveError
from tipserve.pictures import Encoder
from tipserve.types import Rejected


@dataclass
class PoolMessages:
    """Unlabelled pictures as the requests of SuggestExamples, read while they are sent.

    What the client itself cannot read or send is `rejected` and left out.
    """

    pictures: Iterable[Any]
    encoder: Encoder
    config: analysis_pb2.SuggestExamplesConfig
    rejected: list[Rejected] = field(default_factory=list)

    def __iter__(self) -> Iterator[analysis_pb2.SuggestExamplesRequest]:
        yield analysis_pb2.SuggestExamplesRequest(config=self.config)
        for group in grouped(
            self._items(), self.encoder.max_message_bytes, analysis_pb2.UnlabelledItem.ByteSize
        ):
            batch = analysis_pb2.UnlabelledBatch(items=group)
            yield analysis_pb2.SuggestExamplesRequest(items=batch)

    def _items(self) -> Iterator[analysis_pb2.UnlabelledItem]:
        for position, picture in enumerate(self.pictures):
            id, made, _ = prepare(picture, position, None, self.encoder.encode)
            if isinstance(made, TipserveError):
                self.rejected.append(Rejected(id, made))
            else:
                yield analysis_pb2.UnlabelledItem(id=id, input=made)


def suggest_config(
    cache: str,
    *,
    count: int,
    strategy: str | None,
    duplicate_similarity: float | None,
    seed: int,
    bundle: str,
) -> analysis_pb2.SuggestExamplesConfig:
    """The first message of SuggestExamples."""
    config = analysis_pb2.SuggestExamplesConfig(
        cache=cache,
        count=count,
        duplicate_similarity=duplicate_similarity,
        seed=seed,
        bundle=bundle,
    )
    config.strategy = enum_value(  # type: ignore[assignment]
        analysis_pb2.SuggestExamplesConfig.Strategy, "STRATEGY_", strategy
    )
    return config
