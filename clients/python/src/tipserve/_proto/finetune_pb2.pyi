from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from tipserve._proto import cache_pb2 as _cache_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FineTuneRequest(_message.Message):
    __slots__ = ("cache", "epochs", "learning_rate", "batch_size", "schedule", "weight_decay", "seed", "patience", "move_alias", "only_if_improved", "detached", "alpha", "beta", "grid", "description", "recipe", "request_id")
    class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SCHEDULE_UNSPECIFIED: _ClassVar[FineTuneRequest.Schedule]
        SCHEDULE_COSINE: _ClassVar[FineTuneRequest.Schedule]
        SCHEDULE_CONSTANT: _ClassVar[FineTuneRequest.Schedule]
    SCHEDULE_UNSPECIFIED: FineTuneRequest.Schedule
    SCHEDULE_COSINE: FineTuneRequest.Schedule
    SCHEDULE_CONSTANT: FineTuneRequest.Schedule
    CACHE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MOVE_ALIAS_FIELD_NUMBER: _ClassVar[int]
    ONLY_IF_IMPROVED_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    cache: str
    epochs: int
    learning_rate: float
    batch_size: int
    schedule: FineTuneRequest.Schedule
    weight_decay: float
    seed: int
    patience: int
    move_alias: str
    only_if_improved: bool
    detached: bool
    alpha: float
    beta: float
    grid: _cache_pb2.SearchGrid
    description: str
    recipe: _cache_pb2.FineTuneRecipe
    request_id: str
    def __init__(self, cache: _Optional[str] = ..., epochs: _Optional[int] = ..., learning_rate: _Optional[float] = ..., batch_size: _Optional[int] = ..., schedule: _Optional[_Union[FineTuneRequest.Schedule, str]] = ..., weight_decay: _Optional[float] = ..., seed: _Optional[int] = ..., patience: _Optional[int] = ..., move_alias: _Optional[str] = ..., only_if_improved: bool = ..., detached: bool = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., grid: _Optional[_Union[_cache_pb2.SearchGrid, _Mapping]] = ..., description: _Optional[str] = ..., recipe: _Optional[_Union[_cache_pb2.FineTuneRecipe, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class FineTuneResponse(_message.Message):
    __slots__ = ("run", "progress")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    run: FineTuneRun
    progress: FineTuneProgress
    def __init__(self, run: _Optional[_Union[FineTuneRun, _Mapping]] = ..., progress: _Optional[_Union[FineTuneProgress, _Mapping]] = ...) -> None: ...

class FineTuneProgress(_message.Message):
    __slots__ = ("epoch", "epochs", "step", "steps", "loss", "train_accuracy", "validation_accuracy", "learning_rate", "time_left")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    learning_rate: float
    time_left: _duration_pb2.Duration
    def __init__(self, epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., train_accuracy: _Optional[float] = ..., validation_accuracy: _Optional[float] = ..., learning_rate: _Optional[float] = ..., time_left: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FineTuneRun(_message.Message):
    __slots__ = ("name", "state", "parent", "version", "progress", "error", "create_time", "end_time", "alias_moved", "unchanged", "outcome")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[FineTuneRun.State]
        STATE_QUEUED: _ClassVar[FineTuneRun.State]
        STATE_RUNNING: _ClassVar[FineTuneRun.State]
        STATE_SUCCEEDED: _ClassVar[FineTuneRun.State]
        STATE_FAILED: _ClassVar[FineTuneRun.State]
        STATE_CANCELLED: _ClassVar[FineTuneRun.State]
    STATE_UNSPECIFIED: FineTuneRun.State
    STATE_QUEUED: FineTuneRun.State
    STATE_RUNNING: FineTuneRun.State
    STATE_SUCCEEDED: FineTuneRun.State
    STATE_FAILED: FineTuneRun.State
    STATE_CANCELLED: FineTuneRun.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_MOVED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: FineTuneRun.State
    parent: str
    version: _cache_pb2.Version
    progress: FineTuneProgress
    error: _status_pb2.Status
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    alias_moved: bool
    unchanged: bool
    outcome: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[FineTuneRun.State, str]] = ..., parent: _Optional[str] = ..., version: _Optional[_Union[_cache_pb2.Version, _Mapping]] = ..., progress: _Optional[_Union[FineTuneProgress, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., alias_moved: bool = ..., unchanged: bool = ..., outcome: _Optional[str] = ...) -> None: ...

class ListFineTunesRequest(_message.Message):
    __slots__ = ("cache", "page_size", "page_token")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    cache: str
    page_size: int
    page_token: str
    def __init__(self, cache: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFineTunesResponse(_message.Message):
    __slots__ = ("fine_tunes", "next_page_token")
    FINE_TUNES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    fine_tunes: _containers.RepeatedCompositeFieldContainer[FineTuneRun]
    next_page_token: str
    def __init__(self, fine_tunes: _Optional[_Iterable[_Union[FineTuneRun, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetFineTuneRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelFineTuneRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...
