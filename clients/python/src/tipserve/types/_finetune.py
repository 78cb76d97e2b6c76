"""Fine-tuning runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tipserve._proto import finetune_pb2
from tipserve.errors import TipserveError, from_status
from tipserve.types._cache import Version
from tipserve.types._names import RunState, enum_name, time_of
from tipserve.types._record import Record


@dataclass(frozen=True)
class FineTuneProgress(Record):
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


@dataclass(frozen=True, eq=False)
class FineTuneRun(Record):
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
    unchanged: bool = False
    """Whether it made no version, as none would have been better: `version` is then
    the one it started from."""
    outcome: str = ""
    """What came of it, in one sentence; empty until it has succeeded."""

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
            create_time=time_of(m.create_time),
            end_time=time_of(m.end_time),
            alias_moved=m.alias_moved,
            unchanged=m.unchanged,
            outcome=m.outcome,
        )
