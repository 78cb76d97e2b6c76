"""How well versions do on labelled pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tipserve._proto import classify_pb2
from tipserve.types._cache import Rejected
from tipserve.types._html import bars, heading, heat_map
from tipserve.types._record import Record, table
from tipserve.types._report import Judged, page

if TYPE_CHECKING:
    import pandas as pd

    from tipserve.types._answer import Result


@dataclass(frozen=True)
class ClassEvaluation(Record):
    """How well one class did."""

    index: int
    display_name: str
    count: int
    accuracy: float


@dataclass(frozen=True)
class UnknownEvaluation(Record):
    """How well pictures of unknown classes are told from the others."""

    count: int
    auroc: float
    """Probability that a picture of a known class scores higher."""
    false_positive_rate: float
    """Share of them accepted at the score that 95 % of the known ones reach."""
    threshold: float | None
    """The version's own threshold, or the one asked for; None if the version has
    none, and with `precision`, where each class has its own."""
    accepted: float
    """Share of the known ones accepted at it."""
    rejected: float
    """Share of the unknown ones rejected at it."""
    accepted_top1: float
    """Share of the accepted known ones classified rightly."""


@dataclass(frozen=True)
class LabelEvaluation(Record):
    """How well one of several independent classes was answered."""

    index: int
    display_name: str
    count: int
    average_precision: float
    precision: float
    """Share of its answers that are right, at its threshold."""
    recall: float
    """Share of its items that were answered."""
    f1: float


@dataclass(frozen=True)
class MultiLabelEvaluation(Record):
    """How well a version with `multi_label` did."""

    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    precision: float
    recall: float
    classes: tuple[LabelEvaluation, ...]


@dataclass(frozen=True, repr=False)
class Evaluation(Record):
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
    """Row i, column j: items of class i that were taken for class j. Empty where
    there are over 1,000 classes."""
    rejected: tuple[Rejected, ...] = ()
    """Items that could not be used: those that the client could not read, and
    at most 1000 of the server's."""
    rejected_count: int = 0
    """How many items could not be used."""
    unknown: UnknownEvaluation | None = None
    """None where neither pictures of unknown classes nor a threshold were given."""
    multi_label: MultiLabelEvaluation | None = None
    """Of a version with `multi_label`: of the figures above only `count` and
    `cross_entropy` hold then."""

    def __repr__(self) -> str:
        rejected = f", {self.rejected_count} rejected" if self.rejected_count else ""
        if self.multi_label is not None:
            value = self.multi_label.mean_average_precision
            return f"<Evaluation of {self.version!r}: mAP {value:.4f} of {self.count}{rejected}>"
        return f"<Evaluation of {self.version!r}: top-1 {self.top1:.4f} of {self.count}{rejected}>"

    def _repr_html_(self) -> str:
        accuracies = (
            (f"{one.display_name} ({one.count})", one.accuracy) for one in self.classes[:50]
        )
        names = [one.display_name for one in self.classes]
        return heading(repr(self).strip("<>")) + bars(accuracies) + heat_map(names, self.confusion)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        answers: Iterable[tuple[int | str, Result]] = (),
    ) -> str:
        """One self-contained page; it is written to `path` if that is given.

        Args:
            path: Where to write it.
            answers: What `classify` said of the same pictures, each after the class
                (its index or name) that it is of; with `probabilities=True` for the best
                page. They show the worst pictures (by a result's id, a path) and
                whether probabilities can be believed. Results that failed are left out.
        """
        index = {one.display_name: one.index for one in self.classes}
        judged = []
        for class_, result in answers:
            if not result.top:
                continue
            if isinstance(class_, str) and class_ not in index:
                raise ValueError(f"{self.version} has no class {class_!r}")
            is_ = index[class_] if isinstance(class_, str) else int(class_)
            shares = result.probabilities
            own = None if shares is None else float(shares[is_])
            best = result.best
            judged.append(Judged(result.id, is_, best.index, best.probability, own))
        text = page(self, judged)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_pandas(self) -> pd.DataFrame:
        """The classes, a row each."""
        return table(
            (one.to_dict() for one in self.classes), ["index", "display_name", "count", "accuracy"]
        )

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
            unknown=_unknown(m.unknown) if m.HasField("unknown") else None,
            multi_label=_labels(m.multi_label) if m.HasField("multi_label") else None,
        )


def _labels(m: classify_pb2.MultiLabelEvaluation) -> MultiLabelEvaluation:
    return MultiLabelEvaluation(
        m.mean_average_precision,
        m.micro_f1,
        m.macro_f1,
        m.precision,
        m.recall,
        tuple(
            LabelEvaluation(
                c.index,
                c.display_name,
                c.count,
                c.average_precision,
                c.precision,
                c.recall,
                c.f1,
            )
            for c in m.classes
        ),
    )


def _unknown(m: classify_pb2.UnknownEvaluation) -> UnknownEvaluation:
    return UnknownEvaluation(
        m.count,
        m.auroc,
        m.false_positive_rate,
        m.threshold if m.HasField("threshold") else None,
        m.accepted,
        m.rejected,
        m.accepted_top1,
    )
