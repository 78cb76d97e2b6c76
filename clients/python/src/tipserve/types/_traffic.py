"""What a version is asked, seen beside its examples."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tipserve._proto import analysis_pb2
from tipserve.types._names import time_of
from tipserve.types._record import Record


@dataclass(frozen=True)
class ClassTraffic(Record):
    """A class's share of the examples and of what a version is asked."""

    index: int
    display_name: str
    expected_share: float
    """Of the examples."""
    share: float
    """Of the items whose best class it was."""


@dataclass(frozen=True)
class Drift(Record):
    """How what a version is asked of late differs from its examples."""

    version: str
    summary: str
    """In one sentence."""
    since: datetime | None
    """When counting began."""
    item_count: int
    compared_count: int
    """Items that were compared with their nearest example."""
    similarity_deciles: tuple[float, ...]
    """Of the examples' own cosines to their nearest neighbours."""
    similarity_shares: tuple[float, ...]
    """Of the compared items between and beyond the deciles; a tenth each where they
    are like the examples."""
    similarity_index: float | None
    """Population stability index of these shares; over 0.25 they differ clearly."""
    class_index: float
    """The same of the best classes against the examples' classes."""
    classes: tuple[ClassTraffic, ...]
    """Those whose share changed most."""
    recognised_count: int
    rejected_share: float

    @classmethod
    def _from(cls, m: analysis_pb2.Drift) -> Drift:
        return cls(
            m.version,
            m.summary,
            time_of(m.since),
            m.item_count,
            m.compared_count,
            tuple(m.similarity_deciles),
            tuple(m.similarity_shares),
            m.similarity_index if m.HasField("similarity_index") else None,
            m.class_index,
            tuple(
                ClassTraffic(c.index, c.display_name, c.expected_share, c.share) for c in m.classes
            ),
            m.recognised_count,
            m.rejected_share,
        )


@dataclass(frozen=True)
class UnmatchedExample(Record):
    """An example that was the nearest one of no item."""

    example_id: str
    class_index: int
    display_name: str


@dataclass(frozen=True)
class ExampleTraffic(Record):
    """Which of its examples a version's items were nearest to.

    Counts begin anew when the server loads the version, as after a restart.
    """

    since: datetime | None
    """When counting began."""
    item_count: int
    """Items whose nearest example was looked at."""
    enough_count: int
    """Items from which on `unmatched` is stated: ten for each example."""
    unmatched_count: int | None
    """Examples that were nearest to none of the items; None before there are enough."""
    unmatched: tuple[UnmatchedExample, ...]
    """These, at most `list_limit`: nothing like them is asked, or another example is
    always nearer."""

    @classmethod
    def _from(cls, m: analysis_pb2.ExampleTraffic) -> ExampleTraffic:
        return cls(
            time_of(m.since),
            m.item_count,
            m.enough_count,
            m.unmatched_count if m.HasField("unmatched_count") else None,
            tuple(
                UnmatchedExample(one.example_id, one.class_index, one.display_name)
                for one in m.unmatched
            ),
        )
