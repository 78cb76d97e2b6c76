"""How well versions do on labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tipserve._proto import classify_pb2
from tipserve.types._cache import Rejected


@dataclass(frozen=True)
class ClassEvaluation:
    """How well one class did."""

    index: int
    display_name: str
    count: int
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """How well one version did."""

    version: str
    count: int
    top1: float
    top5: float
    zero_shot_top1: float | None
    """None where the version has no text."""
    cross_entropy: float
    expected_calibration_error: float
    classes: tuple[ClassEvaluation, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Row i, column j: items of class i that were taken for class j."""
    rejected: tuple[Rejected, ...] = ()
    """Items that could not be used: those that the client could not read, and
    at most 1000 of the server's."""
    rejected_count: int = 0
    """How many items could not be used."""

    @classmethod
    def _all_from(
        cls, m: classify_pb2.EvaluateResponse, local: Sequence[Rejected]
    ) -> list[Evaluation]:
        rejected = (*local, *(Rejected._from(one) for one in m.rejected))
        count = len(local) + m.rejected_count
        return [
            replace(cls._from(one), rejected=rejected, rejected_count=count)
            for one in m.evaluations
        ]

    @classmethod
    def _from(cls, m: classify_pb2.Evaluation) -> Evaluation:
        n = len(m.classes)
        return cls(
            version=m.version,
            count=m.count,
            top1=m.top1,
            top5=m.top5,
            zero_shot_top1=m.zero_shot_top1 if m.HasField("zero_shot_top1") else None,
            cross_entropy=m.cross_entropy,
            expected_calibration_error=m.expected_calibration_error,
            classes=tuple(
                ClassEvaluation(c.index, c.display_name, c.count, c.accuracy) for c in m.classes
            ),
            confusion=tuple(
                tuple(m.confusion[row : row + n]) for row in range(0, len(m.confusion), n or 1)
            ),
        )
