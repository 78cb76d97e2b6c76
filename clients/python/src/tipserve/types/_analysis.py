"""What a version's own examples say about it, and which pictures to label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tipserve._proto import analysis_pb2, classify_pb2
from tipserve.types._answer import ClassScore
from tipserve.types._cache import Rejected
from tipserve.types._html import bars, heading, heat_map
from tipserve.types._names import Method, enum_name, method_of
from tipserve.types._record import Record, table
from tipserve.types._traffic import ExampleTraffic

if TYPE_CHECKING:
    import pandas as pd


def _score(m: classify_pb2.ClassScore) -> ClassScore:
    return ClassScore(m.index, m.display_name, m.logit, m.probability)


@dataclass(frozen=True)
class CurvePoint(Record):
    """How well a head learned from some examples does on others."""

    shots: int
    """Examples of each class that it learned from."""
    accuracy: float
    low: float
    """Lower end of the band that holds nine draws in ten."""
    high: float
    draws: int


@dataclass(frozen=True)
class Forecast(Record):
    """The accuracy to expect of twice as many examples."""

    shots: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class PrecisionThreshold(Record):
    """From which probability on answers of a class have a precision."""

    threshold: float
    """Over 1 where no answer of the class can be accepted."""
    precision: float
    """Expected at it."""
    precision_low: float
    """Lower bound on left-out examples alone, one-sided at 95 %."""
    borne_out: bool
    """Whether `precision_low` reaches what was asked for; else the examples are too
    few, or not clear enough."""
    recall: float
    """Share of the class's left-out examples that it still finds."""
    count: int
    """Left-out answers that reach it."""


@dataclass(frozen=True)
class ClassAnalysis(Record):
    """How well a class's own examples are recognised when left out."""

    index: int
    display_name: str
    example_count: int
    scored_count: int
    accuracy: float
    precision: float
    expected_gain: float
    """Additional share of its pictures recognised with twice its examples."""
    precision_threshold: PrecisionThreshold | None = None
    """For `analyze(precision=...)`; None if nothing could be left out."""


def _threshold(m: analysis_pb2.PrecisionThreshold) -> PrecisionThreshold:
    return PrecisionThreshold(
        m.threshold, m.precision, m.precision_low, m.borne_out, m.recall, m.count
    )


@dataclass(frozen=True)
class ConfusedClasses(Record):
    """Two classes that are taken for one another."""

    index: int
    display_name: str
    other_index: int
    other_display_name: str
    count: int
    """Examples of the first taken for the other."""
    reverse_count: int


@dataclass(frozen=True)
class SuspectExample(Record):
    """An example whose label is doubtful."""

    example_id: str
    class_index: int
    display_name: str
    probability: float
    """Left-out probability of the class that it is labelled with."""
    suggested: ClassScore
    """The class that it resembles more."""


def _suspect(m: analysis_pb2.SuspectExample) -> SuspectExample:
    return SuspectExample(
        m.example_id, m.class_index, m.display_name, m.probability, _score(m.suggested)
    )


@dataclass(frozen=True)
class DuplicatePair(Record):
    """Two training examples that are the same, or nearly."""

    example_id: str
    class_index: int
    display_name: str
    other_example_id: str
    other_class_index: int
    other_display_name: str
    similarity: float
    exact: bool


@dataclass(frozen=True)
class ReliabilityBin(Record):
    """Answers of about the same claimed probability."""

    low: float
    high: float
    count: int
    probability: float
    accuracy: float


@dataclass(frozen=True, repr=False)
class Analysis(Record):
    """What a version's own examples say about it, each left out in turn."""

    version: str
    method: Method
    advice: str
    """What to do next, in one sentence."""
    example_count: int
    scored_count: int
    """Examples that could be left out; 0 at one example a class."""
    accuracy: float
    accuracy_error: float
    """Standard error of `accuracy`."""
    cross_entropy: float
    expected_calibration_error: float
    curve: tuple[CurvePoint, ...]
    forecast: Forecast | None
    classes: tuple[ClassAnalysis, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Row i, column j: left-out examples of class i that were taken for class j.
    Empty if there are over 1,000 classes."""
    confused: tuple[ConfusedClasses, ...]
    suspects: tuple[SuspectExample, ...]
    """Probably mislabelled, the least probable in their own class first."""
    suspect_count: int
    duplicates: tuple[DuplicatePair, ...]
    duplicate_count: int
    duplicate_similarity: float
    reliability: tuple[ReliabilityBin, ...]
    skipped: tuple[str, ...]
    """What was not examined, and why."""
    misclassified: tuple[SuspectExample, ...] = ()
    """What `confusion` counts off its diagonal, in the order of `suspects`."""
    traffic: ExampleTraffic | None = None
    """Which examples the version's items came near; None if it is not in the server's
    memory, or its items are not compared with its examples."""

    def __repr__(self) -> str:
        return (
            f"<Analysis of {self.version!r}: {self.accuracy:.4f} of {self.scored_count} "
            f"left-out examples>"
        )

    def _repr_html_(self) -> str:
        accuracies = (
            (f"{one.display_name} ({one.example_count})", one.accuracy) for one in self.classes[:50]
        )
        names = [one.display_name for one in self.classes]
        title = f"{repr(self).strip('<>')}: {self.advice}"
        return heading(title) + bars(accuracies) + heat_map(names, self.confusion)

    def to_pandas(self) -> pd.DataFrame:
        """The classes, a row each, those that would gain most first."""
        order = sorted(self.classes, key=lambda one: -one.expected_gain)
        columns = [
            "index",
            "display_name",
            "example_count",
            "scored_count",
            "accuracy",
            "precision",
            "expected_gain",
        ]
        return table((one.to_dict() for one in order), columns)

    @classmethod
    def _from(cls, m: analysis_pb2.AnalyzeVersionResponse) -> Analysis:
        n = len(m.classes)
        has_forecast = m.HasField("forecast")
        return cls(
            version=m.version,
            method=method_of(m.method),
            advice=m.advice,
            example_count=m.example_count,
            scored_count=m.scored_count,
            accuracy=m.accuracy,
            accuracy_error=m.accuracy_error,
            cross_entropy=m.cross_entropy,
            expected_calibration_error=m.expected_calibration_error,
            curve=tuple(CurvePoint(p.shots, p.accuracy, p.low, p.high, p.draws) for p in m.curve),
            forecast=Forecast(
                m.forecast.shots, m.forecast.accuracy, m.forecast.low, m.forecast.high
            )
            if has_forecast
            else None,
            classes=tuple(
                ClassAnalysis(
                    c.index,
                    c.display_name,
                    c.example_count,
                    c.scored_count,
                    c.accuracy,
                    c.precision,
                    c.expected_gain,
                    _threshold(c.precision_threshold)
                    if c.HasField("precision_threshold")
                    else None,
                )
                for c in m.classes
            ),
            confusion=tuple(
                tuple(m.confusion[row : row + n]) for row in range(0, len(m.confusion), n or 1)
            ),
            confused=tuple(
                ConfusedClasses(
                    c.index,
                    c.display_name,
                    c.other_index,
                    c.other_display_name,
                    c.count,
                    c.reverse_count,
                )
                for c in m.confused
            ),
            suspects=tuple(map(_suspect, m.suspects)),
            suspect_count=m.suspect_count,
            duplicates=tuple(
                DuplicatePair(
                    d.example_id,
                    d.class_index,
                    d.display_name,
                    d.other_example_id,
                    d.other_class_index,
                    d.other_display_name,
                    d.similarity,
                    d.exact,
                )
                for d in m.duplicates
            ),
            duplicate_count=m.duplicate_count,
            duplicate_similarity=m.duplicate_similarity,
            reliability=tuple(
                ReliabilityBin(b.low, b.high, b.count, b.probability, b.accuracy)
                for b in m.reliability
            ),
            skipped=tuple(m.skipped),
            misclassified=tuple(map(_suspect, m.misclassified)),
            traffic=ExampleTraffic._from(m.traffic) if m.HasField("traffic") else None,
        )


@dataclass(frozen=True)
class Suggestion(Record):
    """A picture that is worth a label."""

    id: str
    sequence: int
    """Its position among the pictures that were sent."""
    score: float
    """How much it is worth, 0 to 1, by its reason."""
    reason: str
    """"typical" of pictures without a label, or "uncertain": the version
    hesitates between its two best classes."""
    cluster_size: int
    """Pictures that it stands for, itself included."""
    top: tuple[ClassScore, ...]
    """The version's two best classes; empty without a version."""
    duplicate_ids: tuple[str, ...]
    """Its near-duplicates among the pictures: its label may stand for them."""
    duplicate_count: int


@dataclass(frozen=True)
class LabelledDuplicate(Record):
    """A picture that nearly repeats a labelled example."""

    id: str
    example_id: str
    class_index: int
    display_name: str
    similarity: float


@dataclass(frozen=True, repr=False)
class Suggestions(Record):
    """Which pictures to label, the most useful first."""

    suggestions: tuple[Suggestion, ...]
    strategy: str
    """"typical" or "margin"."""
    reason: str
    version: str
    received: int
    distinct_count: int
    """Pictures left, near-duplicates counted once."""
    already_labelled: tuple[LabelledDuplicate, ...]
    already_labelled_count: int
    duplicate_similarity: float
    rejected: tuple[Rejected, ...] = ()
    """Pictures that could not be used: those that the client could not read, and
    at most 1000 of the server's."""
    rejected_count: int = 0

    def __repr__(self) -> str:
        return f"<Suggestions: {len(self.suggestions)} of {self.received} pictures>"

    def to_pandas(self) -> pd.DataFrame:
        """The suggestions, a row each."""
        columns = ["id", "sequence", "score", "reason", "cluster_size", "duplicate_count"]
        rows = ({name: getattr(one, name) for name in columns} for one in self.suggestions)
        return table(rows, columns)

    @classmethod
    def _from(
        cls, m: analysis_pb2.SuggestExamplesResponse, local: Sequence[Rejected]
    ) -> Suggestions:
        return cls(
            suggestions=tuple(
                Suggestion(
                    s.id,
                    s.sequence,
                    s.score,
                    enum_name(analysis_pb2.Suggestion.Reason, s.reason, "REASON_"),
                    s.cluster_size,
                    tuple(map(_score, s.top)),
                    tuple(s.duplicate_ids),
                    s.duplicate_count,
                )
                for s in m.suggestions
            ),
            strategy=enum_name(
                analysis_pb2.SuggestExamplesConfig.Strategy, m.strategy, "STRATEGY_"
            ),
            reason=m.reason,
            version=m.version,
            received=m.received + len(local),
            distinct_count=m.distinct_count,
            already_labelled=tuple(
                LabelledDuplicate(d.id, d.example_id, d.class_index, d.display_name, d.similarity)
                for d in m.already_labelled
            ),
            already_labelled_count=m.already_labelled_count,
            duplicate_similarity=m.duplicate_similarity,
            rejected=(*local, *(Rejected._from(one) for one in m.rejected)),
            rejected_count=len(local) + m.rejected_count,
        )
