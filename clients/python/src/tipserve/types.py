"""What the server answers, as plain values."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from tipserve._proto import cache_pb2, classify_pb2, finetune_pb2
from tipserve.errors import TipserveError, error_for, from_status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Name(str, enum.Enum):
    """An enumeration whose values are the names used on the command line too."""

    def __str__(self) -> str:
        return str(self.value)


class Method(_Name):
    """How a classifier's head is made; docs/api.md has the formulas."""

    AUTO = "auto"
    """The best of the others by validation or leave-one-out score."""
    ZERO_SHOT = "zero_shot"
    """CLIP's text classifier alone."""
    TIP_ADAPTER = "tip_adapter"
    """Tip-Adapter (Zhang et al., ECCV 2022)."""
    GDA = "gda"
    """Gaussian discriminant analysis (Wang et al., ICLR 2024)."""
    PROKER = "proker"
    """Kernel ridge regression (ProKeR, CVPR 2025)."""
    CLASS_MEAN = "class_mean"
    """Nearest class mean."""
    TIP_ADAPTER_F = "tip_adapter_f"
    """Fine-tuned keys; only `finetune` makes it."""
    UNKNOWN = "unknown"
    """One that this client does not know; the server is newer."""


class RunState(_Name):
    """Where a fine-tuning run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


def _time(stamp: Timestamp) -> datetime | None:
    if not (stamp.seconds or stamp.nanos):
        return None
    return stamp.ToDatetime(tzinfo=timezone.utc)


def enum_name(kind: Any, number: int, prefix: str) -> str:
    """The lower-case name of a protobuf enumeration's value, without its prefix."""
    try:
        return str(kind.Name(number)).removeprefix(prefix).lower()
    except ValueError:
        return "unknown"


def _method(number: int) -> Method:
    name = enum_name(cache_pb2.Method, number, "METHOD_")
    return Method(name) if name in Method._value2member_map_ else Method.UNKNOWN


def _source(number: int) -> str:
    return enum_name(cache_pb2.SelectionSource, number, "SELECTION_SOURCE_")


@dataclass(frozen=True)
class ClassInfo:
    """One class of a version."""

    index: int
    display_name: str
    example_count: int
    """Training examples (shots)."""
    validation_count: int

    @classmethod
    def _from(cls, m: cache_pb2.ClassInfo) -> ClassInfo:
        return cls(m.index, m.display_name, m.example_count, m.validation_count)


@dataclass(frozen=True)
class Candidate:
    """One method with its best numbers, from the choice of the head."""

    method: Method
    alpha: float
    beta: float
    lambda_: float
    accuracy: float
    """Share classified rightly, 0 to 1."""
    cross_entropy: float
    """Mean, in nats."""
    skipped: str
    """Why it was left out; empty where it was scored."""

    @classmethod
    def _from(cls, m: cache_pb2.Candidate) -> Candidate:
        return cls(
            method=_method(m.method),
            alpha=m.alpha,
            beta=m.beta,
            lambda_=getattr(m, "lambda"),
            accuracy=m.accuracy,
            cross_entropy=m.cross_entropy,
            skipped=m.skipped,
        )


@dataclass(frozen=True)
class Selection:
    """On what, and how, method, α, β and temperature were chosen."""

    source: str
    """One of "validation", "leave_one_out", "default" and so on."""
    example_count: int
    score: str
    grid: str
    candidates: tuple[Candidate, ...]
    """Every candidate, the chosen one first."""
    reason: str
    """Why, in one sentence."""

    @classmethod
    def _from(cls, m: cache_pb2.Selection) -> Selection:
        return cls(
            source=_source(m.source),
            example_count=m.example_count,
            score=m.score,
            grid=m.grid,
            candidates=tuple(Candidate._from(candidate) for candidate in m.candidates),
            reason=m.reason,
        )


@dataclass(frozen=True)
class Head:
    """How logits are computed: f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V."""

    method: Method
    alpha: float
    beta: float
    lambda_: float
    logit_scale: float
    class_balance: str
    """One of "sum" and "mean"."""
    temperature: float
    """Probabilities are softmax(logits / temperature)."""
    selection: Selection
    key_dtype: str
    """Number format of the resident keys: "f32", "bf16", "f16"."""

    @classmethod
    def _from(cls, m: cache_pb2.Head) -> Head:
        return cls(
            method=_method(m.method),
            alpha=m.alpha,
            beta=m.beta,
            lambda_=getattr(m, "lambda"),
            logit_scale=m.logit_scale,
            class_balance=enum_name(cache_pb2.ClassBalance, m.class_balance, "CLASS_BALANCE_"),
            temperature=m.temperature,
            selection=Selection._from(m.selection),
            key_dtype=enum_name(cache_pb2.KeyDtype, m.key_dtype, "KEY_DTYPE_"),
        )


@dataclass(frozen=True)
class FineTuneRecord:
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

    @classmethod
    def _from(cls, m: cache_pb2.FineTuneRecord) -> FineTuneRecord:
        return cls(
            epochs=m.epochs,
            best_epoch=m.best_epoch,
            seed=m.seed,
            loss=m.loss,
            accuracy_before=m.accuracy_before,
            accuracy_after=m.accuracy_after,
            source=_source(m.source),
            seconds=m.seconds,
        )


@dataclass(frozen=True)
class Rejected:
    """An example that could not be used, and why."""

    id: str
    error: TipserveError

    @classmethod
    def _from(cls, m: cache_pb2.RejectedExample) -> Rejected:
        return cls(m.example_id, error_for(m.code, m.message, reason=m.reason))


@dataclass(frozen=True)
class SourceCounts:
    """What the making of a version took in, in examples."""

    received: int
    """Rejected ones included; 0 for a version that was fine-tuned or imported."""
    rejected: int
    inherited: int
    """Taken over from the parent version."""
    removed: int
    """Of the parent version, left out."""

    @classmethod
    def _from(cls, m: cache_pb2.SourceCounts) -> SourceCounts:
        return cls(m.received, m.rejected, m.inherited, m.removed)


@dataclass(frozen=True)
class ExampleInfo:
    """An example that a version holds."""

    id: str
    class_index: int
    display_name: str
    validation: bool
    """Whether it chose numbers, and is no key."""

    @classmethod
    def _from(cls, m: cache_pb2.ExampleInfo) -> ExampleInfo:
        return cls(m.example_id, m.class_index, m.display_name, m.validation)


@dataclass(frozen=True)
class Version:
    """One immutable version of a cache."""

    name: str
    """As in "caches/{cache}/versions/{version}"."""
    version: int
    create_time: datetime | None
    parent: str
    """The version that this one was made from; empty where there is none."""
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
    rejected: tuple[Rejected, ...] = ()
    """Examples that `create_cache` or `add_examples` could not use; empty on
    every other call."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The display names, in the order of the indices."""
        return tuple(info.display_name for info in self.classes)

    @classmethod
    def _from(cls, m: cache_pb2.Version, rejected: Sequence[Rejected] = ()) -> Version:
        return cls(
            name=m.name,
            version=m.version,
            create_time=_time(m.create_time),
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
            rejected=tuple(rejected),
        )


@dataclass(frozen=True)
class Cache:
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

    @classmethod
    def _from(cls, m: cache_pb2.Cache) -> Cache:
        return cls(
            name=m.name,
            create_time=_time(m.create_time),
            latest=Version._from(m.latest) if m.HasField("latest") else None,
            aliases=dict(m.aliases),
            version_count=m.version_count,
            etag=m.etag,
        )


@dataclass(frozen=True)
class CreateProgress:
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


@dataclass(frozen=True)
class ClassScore:
    """A class with its score."""

    index: int
    display_name: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Neighbour:
    """A cached example near a picture."""

    example_id: str
    class_index: int
    display_name: str
    similarity: float
    """Cosine, -1 to 1."""


@dataclass(frozen=True)
class Timings:
    """Seconds that an item spent in each stage."""

    decode_queue_seconds: float
    decode_seconds: float
    queue_seconds: float
    encode_seconds: float
    head_seconds: float
    total_seconds: float
    batch_size: int


def vector(values: Sequence[float]) -> Any:
    """A float32 array where numpy is installed, else a tuple of floats."""
    try:
        import numpy
    except ImportError:
        return tuple(values)
    return numpy.asarray(values, dtype=numpy.float32)


def matrix(rows: Mapping[int, Sequence[float] | TipserveError], width: int) -> Any:
    """A float32 array of [rows, width] where numpy is installed, else a list of tuples.

    Rows that failed are NaN.
    """
    nothing = (math.nan,) * width
    ordered = [rows[i] for i in sorted(rows)]
    values = [nothing if isinstance(row, TipserveError) else row for row in ordered]
    try:
        import numpy
    except ImportError:
        return [tuple(row) for row in values]
    made = numpy.empty((len(values), width), dtype=numpy.float32)
    for i, row in enumerate(values):
        made[i] = row
    return made


@dataclass(frozen=True)
class Result:
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
    error: TipserveError | None = None
    """Why there is no answer."""

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.error is None

    @property
    def best(self) -> ClassScore:
        """The best class; raises `error` where there is no answer."""
        if self.error is not None:
            raise self.error
        return self.top[0]

    @classmethod
    def _from(cls, id: str, position: int, m: classify_pb2.Classification) -> Result:
        return cls(
            id=id,
            position=position,
            version=m.version,
            top=tuple(ClassScore(s.index, s.display_name, s.logit, s.probability) for s in m.top),
            logits=vector(m.logits) if m.logits else None,
            probabilities=vector(m.probabilities) if m.probabilities else None,
            neighbours=tuple(
                Neighbour(n.example_id, n.class_index, n.display_name, n.similarity)
                for n in m.neighbours
            ),
            embedding=vector(m.embedding.values) if m.HasField("embedding") else None,
            timings=_timings(m.timings) if m.HasField("timings") else None,
        )


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


@dataclass(frozen=True)
class Embeddings:
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


@dataclass(frozen=True)
class FineTuneProgress:
    """How far training is."""

    epoch: int
    """The epoch under way, from 1."""
    epochs: int
    step: int
    steps: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    learning_rate: float
    seconds_left: float | None

    @classmethod
    def _from(cls, m: finetune_pb2.FineTuneProgress) -> FineTuneProgress:
        return cls(
            epoch=m.epoch,
            epochs=m.epochs,
            step=m.step,
            steps=m.steps,
            loss=m.loss,
            train_accuracy=m.train_accuracy,
            validation_accuracy=(
                m.validation_accuracy if m.HasField("validation_accuracy") else None
            ),
            learning_rate=m.learning_rate,
            seconds_left=m.time_left.ToNanoseconds() / 1e9 if m.HasField("time_left") else None,
        )


@dataclass(frozen=True)
class FineTuneRun:
    """One fine-tuning run."""

    name: str
    """As in "fineTunes/{id}"."""
    state: RunState
    parent: str
    """The version it started from."""
    version: Version | None
    """The version it made, once it has."""
    progress: FineTuneProgress | None
    error: TipserveError | None
    create_time: datetime | None
    end_time: datetime | None
    alias_moved: bool

    @classmethod
    def _from(cls, m: finetune_pb2.FineTuneRun) -> FineTuneRun:
        state = enum_name(finetune_pb2.FineTuneRun.State, m.state, "STATE_")
        known = state in RunState._value2member_map_
        return cls(
            name=m.name,
            state=RunState(state) if known else RunState.UNKNOWN,
            parent=m.parent,
            version=Version._from(m.version) if m.HasField("version") else None,
            progress=FineTuneProgress._from(m.progress) if m.HasField("progress") else None,
            error=from_status(m.error) if m.HasField("error") else None,
            create_time=_time(m.create_time),
            end_time=_time(m.end_time),
            alias_moved=m.alias_moved,
        )


@dataclass(frozen=True)
class BundleInfo:
    """The model that is served."""

    name: str
    fingerprint: str
    width: int
    image_size: int
    has_image_encoder: bool
    has_text_encoder: bool
    logit_scale: float
    templates: tuple[str, ...]
    resize_to: int = 0
    """What a picture's shorter side is resized to before the crop."""


@dataclass(frozen=True)
class ServerInfo:
    """What is served, and within which limits."""

    version: str
    bundle: BundleInfo
    device: str
    dtype: str
    limits: Mapping[str, int]

    @classmethod
    def _from(cls, m: classify_pb2.ServerInfo) -> ServerInfo:
        b = m.bundle
        return cls(
            version=m.version,
            bundle=BundleInfo(
                name=b.name,
                fingerprint=b.fingerprint,
                width=b.width,
                image_size=b.image_size,
                has_image_encoder=b.has_image_encoder,
                has_text_encoder=b.has_text_encoder,
                logit_scale=b.logit_scale,
                templates=tuple(b.templates),
                resize_to=b.resize_to,
            ),
            device=m.device,
            dtype=m.dtype,
            limits=dict(m.limits),
        )
