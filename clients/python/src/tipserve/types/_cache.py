"""Caches, their versions, and what these were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tipserve._proto import cache_pb2, input_pb2
from tipserve.errors import TipserveError, error_for
from tipserve.types._head import Head
from tipserve.types._html import bars, heading
from tipserve.types._names import ExifOrientation, enum_name, source_of, time_of
from tipserve.types._record import Record, table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClassInfo(Record):
    """One class of a version."""

    index: int
    display_name: str
    example_count: int
    """Training examples (shots)."""
    validation_count: int
    threshold: float | None = None
    """From which probability it belongs to an answer, of a version with
    `multi_label`."""

    @classmethod
    def _from(cls, m: cache_pb2.ClassInfo) -> ClassInfo:
        return cls(
            m.index,
            m.display_name,
            m.example_count,
            m.validation_count,
            m.threshold if m.HasField("threshold") else None,
        )


@dataclass(frozen=True)
class FineTuneRecord(Record):
    """How a version was fine-tuned."""

    epochs: int
    best_epoch: int
    """The epoch whose keys were kept, from 1; 0 for the keys before training."""
    seed: int
    loss: float
    accuracy_before: float
    accuracy_after: float
    source: str
    seconds: float
    recipe: str = "tip_adapter_f"
    """"residual" or "tip_adapter_f"."""
    strength: float = 0.0
    """Regularisation of a residual."""
    cross_entropy_before: float | None = None
    """On examples that neither head nor residual had seen; None for keys."""
    cross_entropy_after: float | None = None
    example_count: int = 0
    """How many such examples decided."""

    @classmethod
    def _from(cls, m: cache_pb2.FineTuneRecord) -> FineTuneRecord:
        return cls(
            epochs=m.epochs,
            best_epoch=m.best_epoch,
            seed=m.seed,
            loss=m.loss,
            accuracy_before=m.accuracy_before,
            accuracy_after=m.accuracy_after,
            source=source_of(m.source),
            seconds=m.seconds,
            recipe=enum_name(cache_pb2.FineTuneRecipe, m.recipe, "FINE_TUNE_RECIPE_"),
            strength=m.strength,
            cross_entropy_before=(
                m.cross_entropy_before if m.HasField("cross_entropy_before") else None
            ),
            cross_entropy_after=(
                m.cross_entropy_after if m.HasField("cross_entropy_after") else None
            ),
            example_count=m.example_count,
        )


@dataclass(frozen=True, eq=False)
class Rejected(Record):
    """An example that could not be used, and why."""

    id: str
    error: TipserveError

    @classmethod
    def _from(cls, m: cache_pb2.RejectedExample) -> Rejected:
        return cls(m.example_id, error_for(m.code, m.message, reason=m.reason))


@dataclass(frozen=True)
class SourceCounts(Record):
    """What the making of a version took in, in examples."""

    received: int
    """Rejected ones included; 0 for a version that was fine-tuned or imported."""
    rejected: int
    inherited: int
    """Taken over from the parent version."""
    removed: int
    """Of the parent version, left out."""
    without_end_mark: int = 0
    """Received, in a file that has every pixel and lacks its end mark."""

    @classmethod
    def _from(cls, m: cache_pb2.SourceCounts) -> SourceCounts:
        return cls(m.received, m.rejected, m.inherited, m.removed, m.without_end_mark)


@dataclass(frozen=True)
class ExampleInfo(Record):
    """An example that a version holds."""

    id: str
    class_index: int
    display_name: str
    validation: bool
    """Whether it chose numbers, and is no key."""
    unknown: bool = False
    """Whether it is of none of the classes; `class_index` is 0 then."""
    class_indices: tuple[int, ...] = ()
    """Its classes, of a version with `multi_label`."""

    @classmethod
    def _from(cls, m: cache_pb2.ExampleInfo) -> ExampleInfo:
        return cls(
            m.example_id,
            m.class_index,
            m.display_name,
            m.validation,
            m.unknown,
            tuple(m.class_indices),
        )


@dataclass(frozen=True, repr=False)
class Version(Record):
    """One immutable version of a cache."""

    name: str
    """As in "caches/{cache}/versions/{version}"."""
    version: int
    create_time: datetime | None
    parent: str
    """The version that this one was made from; empty if there is none."""
    description: str
    labels: Mapping[str, str]
    classes: tuple[ClassInfo, ...]
    """In the order of their indices."""
    width: int
    """Of the embedding space, D."""
    key_count: int
    """M."""
    views: int
    bundle_fingerprint: str
    head: Head
    size_bytes: int
    fine_tune: FineTuneRecord | None
    created_by: str = ""
    """Who made it, as they said."""
    bundle_name: str = ""
    source: SourceCounts = SourceCounts(0, 0, 0, 0)
    exif_orientation: ExifOrientation = "ignore"
    """What is done with the orientation that cameras write beside the pixels of its
    examples, and of whatever it classifies."""
    rejected: tuple[Rejected, ...] = ()
    """Examples that `create_cache` or `add_examples` could not use; empty on
    every other call."""
    unknown_count: int = 0
    """Examples of none of the classes."""
    multi_label: bool = False
    """Whether its examples carry any number of classes."""
    part_weights: tuple[float, ...] = ()
    """How much each encoder of a joined bundle counts in it; empty of one encoder."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The display names, in the order of the indices."""
        return tuple(info.display_name for info in self.classes)

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes, {self.key_count} keys, {self.head.method}"
        rejected = f", {len(self.rejected)} rejected" if self.rejected else ""
        return f"<Version {self.name!r}: {what}{rejected}>"

    def _repr_html_(self) -> str:
        most = max((info.example_count for info in self.classes), default=0) or 1
        counts = (
            (f"{info.display_name} ({info.example_count})", info.example_count / most)
            for info in self.classes[:50]
        )
        return heading(repr(self).strip("<>")) + bars(counts)

    def to_pandas(self) -> pd.DataFrame:
        """The classes, a row each."""
        return table(
            (info.to_dict() for info in self.classes),
            ["index", "display_name", "example_count", "validation_count"],
        )

    @classmethod
    def _from(cls, m: cache_pb2.Version, rejected: Sequence[Rejected] = ()) -> Version:
        return cls(
            name=m.name,
            version=m.version,
            create_time=time_of(m.create_time),
            parent=m.parent,
            description=m.description,
            labels=dict(m.labels),
            classes=tuple(ClassInfo._from(info) for info in m.classes),
            width=m.width,
            key_count=m.key_count,
            views=m.views,
            bundle_fingerprint=m.bundle_fingerprint,
            head=Head._from(m.head),
            size_bytes=m.size_bytes,
            fine_tune=FineTuneRecord._from(m.fine_tune) if m.HasField("fine_tune") else None,
            created_by=m.created_by,
            bundle_name=m.bundle_name,
            source=SourceCounts._from(m.source),
            # Servers from before it was recorded ignore it.
            exif_orientation=(
                "apply" if m.exif_orientation == input_pb2.EXIF_ORIENTATION_APPLY else "ignore"
            ),
            rejected=tuple(rejected),
            unknown_count=m.unknown_count,
            multi_label=m.multi_label,
            part_weights=tuple(m.part_weights),
        )


@dataclass(frozen=True, repr=False)
class Cache(Record):
    """A named classifier."""

    name: str
    """As in "caches/{cache}"."""
    create_time: datetime | None
    latest: Version | None
    """The newest version, what the bare name stands for."""
    aliases: Mapping[str, int]
    version_count: int
    etag: str = ""
    """Changes with every change of the cache; give it back with a change that
    is to happen only if nobody else came first."""

    @property
    def id(self) -> str:
        """The name without "caches/"."""
        return self.name.removeprefix("caches/")

    def __repr__(self) -> str:
        latest = f", latest {self.latest.version}" if self.latest is not None else ""
        aliases = "".join(f", {name} -> {number}" for name, number in self.aliases.items())
        return f"<Cache {self.id!r}: {self.version_count} versions{latest}{aliases}>"

    @classmethod
    def _from(cls, m: cache_pb2.Cache) -> Cache:
        return cls(
            name=m.name,
            create_time=time_of(m.create_time),
            latest=Version._from(m.latest) if m.HasField("latest") else None,
            aliases=dict(m.aliases),
            version_count=m.version_count,
            etag=m.etag,
        )


@dataclass(frozen=True)
class CreateProgress(Record):
    """How far `create_cache` is."""

    stage: str
    """One of "text", "examples", "selection" and "storing"."""
    received: int
    encoded: int
    rejected: int

    @classmethod
    def _from(cls, m: cache_pb2.CreateProgress) -> CreateProgress:
        stage = enum_name(cache_pb2.CreateProgress.Stage, m.stage, "STAGE_")
        return cls(stage, m.received, m.encoded, m.rejected)
