from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tipserve._proto import cache_pb2 as _cache_pb2
from tipserve._proto import classify_pb2 as _classify_pb2
from tipserve._proto import input_pb2 as _input_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetDriftRequest(_message.Message):
    __slots__ = ("cache",)
    CACHE_FIELD_NUMBER: _ClassVar[int]
    cache: str
    def __init__(self, cache: _Optional[str] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("version", "since", "item_count", "compared_count", "similarity_deciles", "similarity_shares", "similarity_index", "class_index", "classes", "recognised_count", "rejected_share", "summary")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPARED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_DECILES_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_SHARES_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_INDEX_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    RECOGNISED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SHARE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    version: str
    since: _timestamp_pb2.Timestamp
    item_count: int
    compared_count: int
    similarity_deciles: _containers.RepeatedScalarFieldContainer[float]
    similarity_shares: _containers.RepeatedScalarFieldContainer[float]
    similarity_index: float
    class_index: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassTraffic]
    recognised_count: int
    rejected_share: float
    summary: str
    def __init__(self, version: _Optional[str] = ..., since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., item_count: _Optional[int] = ..., compared_count: _Optional[int] = ..., similarity_deciles: _Optional[_Iterable[float]] = ..., similarity_shares: _Optional[_Iterable[float]] = ..., similarity_index: _Optional[float] = ..., class_index: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassTraffic, _Mapping]]] = ..., recognised_count: _Optional[int] = ..., rejected_share: _Optional[float] = ..., summary: _Optional[str] = ...) -> None: ...

class ClassTraffic(_message.Message):
    __slots__ = ("index", "display_name", "expected_share", "share")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SHARE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    expected_share: float
    share: float
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., expected_share: _Optional[float] = ..., share: _Optional[float] = ...) -> None: ...

class SuggestExamplesConfig(_message.Message):
    __slots__ = ("cache", "count", "strategy", "duplicate_similarity", "seed", "bundle")
    class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STRATEGY_UNSPECIFIED: _ClassVar[SuggestExamplesConfig.Strategy]
        STRATEGY_TYPICAL: _ClassVar[SuggestExamplesConfig.Strategy]
        STRATEGY_MARGIN: _ClassVar[SuggestExamplesConfig.Strategy]
    STRATEGY_UNSPECIFIED: SuggestExamplesConfig.Strategy
    STRATEGY_TYPICAL: SuggestExamplesConfig.Strategy
    STRATEGY_MARGIN: SuggestExamplesConfig.Strategy
    CACHE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    cache: str
    count: int
    strategy: SuggestExamplesConfig.Strategy
    duplicate_similarity: float
    seed: int
    bundle: str
    def __init__(self, cache: _Optional[str] = ..., count: _Optional[int] = ..., strategy: _Optional[_Union[SuggestExamplesConfig.Strategy, str]] = ..., duplicate_similarity: _Optional[float] = ..., seed: _Optional[int] = ..., bundle: _Optional[str] = ...) -> None: ...

class SuggestExamplesRequest(_message.Message):
    __slots__ = ("config", "items")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    config: SuggestExamplesConfig
    items: UnlabelledBatch
    def __init__(self, config: _Optional[_Union[SuggestExamplesConfig, _Mapping]] = ..., items: _Optional[_Union[UnlabelledBatch, _Mapping]] = ...) -> None: ...

class UnlabelledBatch(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[UnlabelledItem]
    def __init__(self, items: _Optional[_Iterable[_Union[UnlabelledItem, _Mapping]]] = ...) -> None: ...

class UnlabelledItem(_message.Message):
    __slots__ = ("id", "input")
    ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    input: _input_pb2.Input
    def __init__(self, id: _Optional[str] = ..., input: _Optional[_Union[_input_pb2.Input, _Mapping]] = ...) -> None: ...

class SuggestExamplesResponse(_message.Message):
    __slots__ = ("suggestions", "strategy", "reason", "version", "received", "already_labelled", "already_labelled_count", "rejected", "rejected_count", "duplicate_similarity", "distinct_count")
    SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_LABELLED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_LABELLED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_COUNT_FIELD_NUMBER: _ClassVar[int]
    suggestions: _containers.RepeatedCompositeFieldContainer[Suggestion]
    strategy: SuggestExamplesConfig.Strategy
    reason: str
    version: str
    received: int
    already_labelled: _containers.RepeatedCompositeFieldContainer[LabelledDuplicate]
    already_labelled_count: int
    rejected: _containers.RepeatedCompositeFieldContainer[_cache_pb2.RejectedExample]
    rejected_count: int
    duplicate_similarity: float
    distinct_count: int
    def __init__(self, suggestions: _Optional[_Iterable[_Union[Suggestion, _Mapping]]] = ..., strategy: _Optional[_Union[SuggestExamplesConfig.Strategy, str]] = ..., reason: _Optional[str] = ..., version: _Optional[str] = ..., received: _Optional[int] = ..., already_labelled: _Optional[_Iterable[_Union[LabelledDuplicate, _Mapping]]] = ..., already_labelled_count: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[_cache_pb2.RejectedExample, _Mapping]]] = ..., rejected_count: _Optional[int] = ..., duplicate_similarity: _Optional[float] = ..., distinct_count: _Optional[int] = ...) -> None: ...

class Suggestion(_message.Message):
    __slots__ = ("id", "sequence", "score", "reason", "cluster_size", "top", "duplicate_ids", "duplicate_count")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Suggestion.Reason]
        REASON_TYPICAL: _ClassVar[Suggestion.Reason]
        REASON_UNCERTAIN: _ClassVar[Suggestion.Reason]
    REASON_UNSPECIFIED: Suggestion.Reason
    REASON_TYPICAL: Suggestion.Reason
    REASON_UNCERTAIN: Suggestion.Reason
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_SIZE_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_IDS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    sequence: int
    score: float
    reason: Suggestion.Reason
    cluster_size: int
    top: _containers.RepeatedCompositeFieldContainer[_classify_pb2.ClassScore]
    duplicate_ids: _containers.RepeatedScalarFieldContainer[str]
    duplicate_count: int
    def __init__(self, id: _Optional[str] = ..., sequence: _Optional[int] = ..., score: _Optional[float] = ..., reason: _Optional[_Union[Suggestion.Reason, str]] = ..., cluster_size: _Optional[int] = ..., top: _Optional[_Iterable[_Union[_classify_pb2.ClassScore, _Mapping]]] = ..., duplicate_ids: _Optional[_Iterable[str]] = ..., duplicate_count: _Optional[int] = ...) -> None: ...

class LabelledDuplicate(_message.Message):
    __slots__ = ("id", "example_id", "class_index", "display_name", "similarity")
    ID_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    example_id: str
    class_index: int
    display_name: str
    similarity: float
    def __init__(self, id: _Optional[str] = ..., example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., display_name: _Optional[str] = ..., similarity: _Optional[float] = ...) -> None: ...

class AnalyzeVersionRequest(_message.Message):
    __slots__ = ("cache", "list_limit", "duplicate_similarity", "draws", "seed", "precision")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    LIST_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    cache: str
    list_limit: int
    duplicate_similarity: float
    draws: int
    seed: int
    precision: float
    def __init__(self, cache: _Optional[str] = ..., list_limit: _Optional[int] = ..., duplicate_similarity: _Optional[float] = ..., draws: _Optional[int] = ..., seed: _Optional[int] = ..., precision: _Optional[float] = ...) -> None: ...

class AnalyzeVersionResponse(_message.Message):
    __slots__ = ("version", "method", "advice", "example_count", "scored_count", "accuracy", "accuracy_error", "cross_entropy", "expected_calibration_error", "curve", "forecast", "classes", "confusion", "confused", "suspects", "suspect_count", "duplicates", "duplicate_count", "duplicate_similarity", "reliability", "skipped", "misclassified", "traffic")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_ERROR_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    CONFUSED_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    RELIABILITY_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    MISCLASSIFIED_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    version: str
    method: _cache_pb2.Method
    advice: str
    example_count: int
    scored_count: int
    accuracy: float
    accuracy_error: float
    cross_entropy: float
    expected_calibration_error: float
    curve: _containers.RepeatedCompositeFieldContainer[LearningCurvePoint]
    forecast: LearningForecast
    classes: _containers.RepeatedCompositeFieldContainer[ClassAnalysis]
    confusion: _containers.RepeatedScalarFieldContainer[int]
    confused: _containers.RepeatedCompositeFieldContainer[ConfusedClasses]
    suspects: _containers.RepeatedCompositeFieldContainer[SuspectExample]
    suspect_count: int
    duplicates: _containers.RepeatedCompositeFieldContainer[DuplicatePair]
    duplicate_count: int
    duplicate_similarity: float
    reliability: _containers.RepeatedCompositeFieldContainer[ReliabilityBin]
    skipped: _containers.RepeatedScalarFieldContainer[str]
    misclassified: _containers.RepeatedCompositeFieldContainer[SuspectExample]
    traffic: ExampleTraffic
    def __init__(self, version: _Optional[str] = ..., method: _Optional[_Union[_cache_pb2.Method, str]] = ..., advice: _Optional[str] = ..., example_count: _Optional[int] = ..., scored_count: _Optional[int] = ..., accuracy: _Optional[float] = ..., accuracy_error: _Optional[float] = ..., cross_entropy: _Optional[float] = ..., expected_calibration_error: _Optional[float] = ..., curve: _Optional[_Iterable[_Union[LearningCurvePoint, _Mapping]]] = ..., forecast: _Optional[_Union[LearningForecast, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[ClassAnalysis, _Mapping]]] = ..., confusion: _Optional[_Iterable[int]] = ..., confused: _Optional[_Iterable[_Union[ConfusedClasses, _Mapping]]] = ..., suspects: _Optional[_Iterable[_Union[SuspectExample, _Mapping]]] = ..., suspect_count: _Optional[int] = ..., duplicates: _Optional[_Iterable[_Union[DuplicatePair, _Mapping]]] = ..., duplicate_count: _Optional[int] = ..., duplicate_similarity: _Optional[float] = ..., reliability: _Optional[_Iterable[_Union[ReliabilityBin, _Mapping]]] = ..., skipped: _Optional[_Iterable[str]] = ..., misclassified: _Optional[_Iterable[_Union[SuspectExample, _Mapping]]] = ..., traffic: _Optional[_Union[ExampleTraffic, _Mapping]] = ...) -> None: ...

class ExampleTraffic(_message.Message):
    __slots__ = ("since", "item_count", "enough_count", "unmatched_count", "unmatched")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENOUGH_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    item_count: int
    enough_count: int
    unmatched_count: int
    unmatched: _containers.RepeatedCompositeFieldContainer[UnmatchedExample]
    def __init__(self, since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., item_count: _Optional[int] = ..., enough_count: _Optional[int] = ..., unmatched_count: _Optional[int] = ..., unmatched: _Optional[_Iterable[_Union[UnmatchedExample, _Mapping]]] = ...) -> None: ...

class UnmatchedExample(_message.Message):
    __slots__ = ("example_id", "class_index", "display_name")
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    display_name: str
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., display_name: _Optional[str] = ...) -> None: ...

class LearningCurvePoint(_message.Message):
    __slots__ = ("shots", "accuracy", "low", "high", "draws")
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    shots: int
    accuracy: float
    low: float
    high: float
    draws: int
    def __init__(self, shots: _Optional[int] = ..., accuracy: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., draws: _Optional[int] = ...) -> None: ...

class LearningForecast(_message.Message):
    __slots__ = ("shots", "accuracy", "low", "high")
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    shots: int
    accuracy: float
    low: float
    high: float
    def __init__(self, shots: _Optional[int] = ..., accuracy: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class ClassAnalysis(_message.Message):
    __slots__ = ("index", "display_name", "example_count", "scored_count", "accuracy", "precision", "expected_gain", "precision_threshold")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GAIN_FIELD_NUMBER: _ClassVar[int]
    PRECISION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    example_count: int
    scored_count: int
    accuracy: float
    precision: float
    expected_gain: float
    precision_threshold: PrecisionThreshold
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., example_count: _Optional[int] = ..., scored_count: _Optional[int] = ..., accuracy: _Optional[float] = ..., precision: _Optional[float] = ..., expected_gain: _Optional[float] = ..., precision_threshold: _Optional[_Union[PrecisionThreshold, _Mapping]] = ...) -> None: ...

class PrecisionThreshold(_message.Message):
    __slots__ = ("threshold", "precision", "precision_low", "borne_out", "recall", "count")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_LOW_FIELD_NUMBER: _ClassVar[int]
    BORNE_OUT_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    precision: float
    precision_low: float
    borne_out: bool
    recall: float
    count: int
    def __init__(self, threshold: _Optional[float] = ..., precision: _Optional[float] = ..., precision_low: _Optional[float] = ..., borne_out: bool = ..., recall: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class ConfusedClasses(_message.Message):
    __slots__ = ("index", "display_name", "other_index", "other_display_name", "count", "reverse_count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    OTHER_INDEX_FIELD_NUMBER: _ClassVar[int]
    OTHER_DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REVERSE_COUNT_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    other_index: int
    other_display_name: str
    count: int
    reverse_count: int
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., other_index: _Optional[int] = ..., other_display_name: _Optional[str] = ..., count: _Optional[int] = ..., reverse_count: _Optional[int] = ...) -> None: ...

class SuspectExample(_message.Message):
    __slots__ = ("example_id", "class_index", "display_name", "probability", "suggested")
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SUGGESTED_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    display_name: str
    probability: float
    suggested: _classify_pb2.ClassScore
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., display_name: _Optional[str] = ..., probability: _Optional[float] = ..., suggested: _Optional[_Union[_classify_pb2.ClassScore, _Mapping]] = ...) -> None: ...

class DuplicatePair(_message.Message):
    __slots__ = ("example_id", "class_index", "display_name", "other_example_id", "other_class_index", "other_display_name", "similarity", "exact")
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    OTHER_EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    OTHER_DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    display_name: str
    other_example_id: str
    other_class_index: int
    other_display_name: str
    similarity: float
    exact: bool
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., display_name: _Optional[str] = ..., other_example_id: _Optional[str] = ..., other_class_index: _Optional[int] = ..., other_display_name: _Optional[str] = ..., similarity: _Optional[float] = ..., exact: bool = ...) -> None: ...

class ReliabilityBin(_message.Message):
    __slots__ = ("low", "high", "count", "probability", "accuracy")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    count: int
    probability: float
    accuracy: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., count: _Optional[int] = ..., probability: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...
