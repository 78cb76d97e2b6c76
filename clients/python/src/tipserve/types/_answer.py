"""What became of a picture or a text: its classification, its embedding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tipserve._proto import classify_pb2
from tipserve.errors import TipserveError
from tipserve.types._arrays import vector
from tipserve.types._html import bars, heading, thumbnail
from tipserve.types._names import enum_name
from tipserve.types._record import Record, table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore(Record):
    """A class with its score."""

    index: int
    display_name: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Neighbour(Record):
    """A cached example near a picture."""

    example_id: str
    class_index: int
    display_name: str
    similarity: float
    """Cosine, -1 to 1."""
    class_indices: tuple[int, ...] = ()
    """Its classes, of a version with `multi_label`."""


@dataclass(frozen=True)
class Timings(Record):
    """Seconds that an item spent in each stage."""

    decode_queue_seconds: float
    decode_seconds: float
    queue_seconds: float
    encode_seconds: float
    head_seconds: float
    total_seconds: float
    batch_size: int


@dataclass(frozen=True, eq=False, repr=False)
class Result(Record):
    """What became of one item: an answer or an error, never both."""

    id: str
    """The item's id; for a path the path, else its position, "17"."""
    position: int
    """The item's position in what was given, from 0."""
    version: str = ""
    """The version that answered."""
    top: tuple[ClassScore, ...] = ()
    """The best classes, best first."""
    logits: NDArray[np.float32] | None = None
    """All logits, where asked for (a tuple where numpy is not installed)."""
    probabilities: NDArray[np.float32] | None = None
    """All probabilities, where asked for."""
    neighbours: tuple[Neighbour, ...] = ()
    """The nearest cached examples, nearest first, where asked for."""
    embedding: NDArray[np.float32] | None = None
    """The L2-normalised embedding, where asked for."""
    timings: Timings | None = None
    """How long it took, where asked for."""
    notes: tuple[str, ...] = ()
    """What is odd about the picture's file, which was read all the same:
    "no_end_mark" of one that has every pixel and lacks its end mark."""
    score: float | None = None
    """How much of what it knows the version finds in the picture, where `reject`
    asks for it; comparable within a version only."""
    threshold: float | None = None
    """The least score that is accepted."""
    accepted: bool | None = None
    """Whether the picture is of any class that the version knows, where `reject`
    asks for it."""
    prediction_set: tuple[ClassScore, ...] = ()
    """The classes that hold the picture's with the probability that `coverage`
    names."""
    labels: tuple[ClassScore, ...] = ()
    """Every class whose probability reaches its threshold, of a version with
    `multi_label`; may be empty."""
    error: TipserveError | None = None
    """Why there is no answer."""

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.error is None

    @property
    def best(self) -> ClassScore:
        """The best class; raises `error` if there is no answer."""
        if self.error is not None:
            raise self.error
        return self.top[0]

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Result {self.id!r}: {self.error!r}>"
        best = ", ".join(f"{one.display_name} {one.probability:.3f}" for one in self.top[:3])
        more = ", ..." if len(self.top) > 3 else ""
        return f"<Result {self.id!r}: {best or 'no class'}{more}>"

    def _repr_html_(self) -> str:
        if self.error is not None:
            return heading(self.id) + heading(str(self.error))
        scores = bars((one.display_name, one.probability) for one in self.top)
        return heading(self.id) + thumbnail(self.id) + scores

    def to_pandas(self) -> pd.DataFrame:
        """The best classes, best first, a row each."""
        return table(
            (one.to_dict() for one in self.top),
            ["index", "display_name", "logit", "probability"],
        )

    @classmethod
    def _from(cls, id: str, position: int, m: classify_pb2.Classification) -> Result:
        return cls(
            id=id,
            position=position,
            version=m.version,
            top=tuple(map(_score, m.top)),
            logits=vector(m.logits) if m.logits else None,
            probabilities=vector(m.probabilities) if m.probabilities else None,
            neighbours=tuple(
                Neighbour(
                    n.example_id,
                    n.class_index,
                    n.display_name,
                    n.similarity,
                    tuple(n.class_indices),
                )
                for n in m.neighbours
            ),
            embedding=vector(m.embedding.values) if m.HasField("embedding") else None,
            timings=_timings(m.timings) if m.HasField("timings") else None,
            notes=tuple(
                enum_name(classify_pb2.PictureNote, note, "PICTURE_NOTE_") for note in m.notes
            ),
            score=m.score if m.HasField("score") else None,
            threshold=m.threshold if m.HasField("threshold") else None,
            accepted=m.accepted if m.HasField("accepted") else None,
            prediction_set=tuple(map(_score, m.prediction_set)),
            labels=tuple(map(_score, m.labels)),
        )


def _score(m: classify_pb2.ClassScore) -> ClassScore:
    return ClassScore(m.index, m.display_name, m.logit, m.probability)


def _timings(m: classify_pb2.Timings) -> Timings:
    return Timings(
        m.decode_queue_seconds,
        m.decode_seconds,
        m.queue_seconds,
        m.encode_seconds,
        m.head_seconds,
        m.total_seconds,
        m.batch_size,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings(Record):
    """Embeddings of pictures and texts, float32 arrays of [count, D].

    Where numpy is not installed, a list of tuples. A row that failed (only
    with `strict=False`) is all NaN, and its error is in `errors`.
    """

    pictures: NDArray[np.float32]
    texts: NDArray[np.float32]
    picture_errors: Mapping[int, TipserveError] = field(default_factory=dict)
    """By position."""
    text_errors: Mapping[int, TipserveError] = field(default_factory=dict)
    """By position."""

    def __repr__(self) -> str:
        failed = len(self.picture_errors) + len(self.text_errors)
        counts = f"{len(self.pictures)} pictures, {len(self.texts)} texts"
        return f"<Embeddings of {counts}{f', {failed} failed' if failed else ''}>"

    def to_pandas(self) -> pd.DataFrame:
        """A row for each picture, then for each text; a column for each number."""
        rows = [*map(list, self.pictures), *map(list, self.texts)]
        width = len(rows[0]) if rows else 0
        return table((dict(enumerate(row)) for row in rows), range(width))  # type: ignore[arg-type]


def to_pandas(results: Iterable[Result]) -> pd.DataFrame:
    """Results as a table, a row each: what was best, or why there is no answer."""
    columns = ["id", "position", "class", "index", "probability", "logit", "version", "error"]
    rows = []
    for one in results:
        best = one.top[0] if one.top else None
        rows.append(
            {
                "id": one.id,
                "position": one.position,
                "class": best and best.display_name,
                "index": best and best.index,
                "probability": best and best.probability,
                "logit": best and best.logit,
                "version": one.version,
                "error": None if one.error is None else str(one.error),
            }
        )
    return table(rows, columns)
