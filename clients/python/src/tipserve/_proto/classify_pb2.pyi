from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from tipserve._proto import cache_pb2 as _cache_pb2
from tipserve._proto import input_pb2 as _input_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BULK: _ClassVar[Priority]

class PictureNote(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PICTURE_NOTE_UNSPECIFIED: _ClassVar[PictureNote]
    PICTURE_NOTE_NO_END_MARK: _ClassVar[PictureNote]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BULK: Priority
PICTURE_NOTE_UNSPECIFIED: PictureNote
PICTURE_NOTE_NO_END_MARK: PictureNote

class ClassifyOptions(_message.Message):
    __slots__ = ("top_k", "logits", "probabilities", "neighbours", "embedding", "timings", "reject", "coverage")
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    top_k: int
    logits: bool
    probabilities: bool
    neighbours: int
    embedding: bool
    timings: bool
    reject: RejectOptions
    coverage: float
    def __init__(self, top_k: _Optional[int] = ..., logits: bool = ..., probabilities: bool = ..., neighbours: _Optional[int] = ..., embedding: bool = ..., timings: bool = ..., reject: _Optional[_Union[RejectOptions, _Mapping]] = ..., coverage: _Optional[float] = ...) -> None: ...

class RejectOptions(_message.Message):
    __slots__ = ("accept", "threshold", "precision")
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    accept: float
    threshold: float
    precision: float
    def __init__(self, accept: _Optional[float] = ..., threshold: _Optional[float] = ..., precision: _Optional[float] = ...) -> None: ...

class ClassifyStreamConfig(_message.Message):
    __slots__ = ("cache", "options", "ordered", "priority")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    cache: str
    options: ClassifyOptions
    ordered: bool
    priority: Priority
    def __init__(self, cache: _Optional[str] = ..., options: _Optional[_Union[ClassifyOptions, _Mapping]] = ..., ordered: bool = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class ClassifyStreamRequest(_message.Message):
    __slots__ = ("config", "items")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    config: ClassifyStreamConfig
    items: ItemBatch
    def __init__(self, config: _Optional[_Union[ClassifyStreamConfig, _Mapping]] = ..., items: _Optional[_Union[ItemBatch, _Mapping]] = ...) -> None: ...

class ItemBatch(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("id", "input", "time_limit")
    ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    id: str
    input: _input_pb2.Input
    time_limit: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., input: _Optional[_Union[_input_pb2.Input, _Mapping]] = ..., time_limit: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("id", "sequence", "classification", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    sequence: int
    classification: Classification
    error: _status_pb2.Status
    def __init__(self, id: _Optional[str] = ..., sequence: _Optional[int] = ..., classification: _Optional[_Union[Classification, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("cache", "input", "options", "priority")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    cache: str
    input: _input_pb2.Input
    options: ClassifyOptions
    priority: Priority
    def __init__(self, cache: _Optional[str] = ..., input: _Optional[_Union[_input_pb2.Input, _Mapping]] = ..., options: _Optional[_Union[ClassifyOptions, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classification",)
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    classification: Classification
    def __init__(self, classification: _Optional[_Union[Classification, _Mapping]] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("version", "top", "logits", "probabilities", "neighbours", "embedding", "timings", "score", "accepted", "threshold", "prediction_set", "labels", "notes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_SET_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    top: _containers.RepeatedCompositeFieldContainer[ClassScore]
    logits: _containers.RepeatedScalarFieldContainer[float]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    neighbours: _containers.RepeatedCompositeFieldContainer[Neighbour]
    embedding: _input_pb2.Embedding
    timings: Timings
    score: float
    accepted: bool
    threshold: float
    prediction_set: _containers.RepeatedCompositeFieldContainer[ClassScore]
    labels: _containers.RepeatedCompositeFieldContainer[ClassScore]
    notes: _containers.RepeatedScalarFieldContainer[PictureNote]
    def __init__(self, version: _Optional[str] = ..., top: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., logits: _Optional[_Iterable[float]] = ..., probabilities: _Optional[_Iterable[float]] = ..., neighbours: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ..., embedding: _Optional[_Union[_input_pb2.Embedding, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., score: _Optional[float] = ..., accepted: bool = ..., threshold: _Optional[float] = ..., prediction_set: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., notes: _Optional[_Iterable[_Union[PictureNote, str]]] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("index", "display_name", "logit", "probability")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    logit: float
    probability: float
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., logit: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("example_id", "class_index", "display_name", "class_indices", "similarity")
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    display_name: str
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    similarity: float
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., display_name: _Optional[str] = ..., class_indices: _Optional[_Iterable[int]] = ..., similarity: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_queue_seconds", "decode_seconds", "queue_seconds", "encode_seconds", "head_seconds", "total_seconds", "batch_size")
    DECODE_QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    decode_queue_seconds: float
    decode_seconds: float
    queue_seconds: float
    encode_seconds: float
    head_seconds: float
    total_seconds: float
    batch_size: int
    def __init__(self, decode_queue_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., queue_seconds: _Optional[float] = ..., encode_seconds: _Optional[float] = ..., head_seconds: _Optional[float] = ..., total_seconds: _Optional[float] = ..., batch_size: _Optional[int] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("inputs", "texts", "truncate_texts", "raw", "exif_orientation", "bundle")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_TEXTS_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    EXIF_ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[_input_pb2.Input]
    texts: _containers.RepeatedScalarFieldContainer[str]
    truncate_texts: bool
    raw: bool
    exif_orientation: _input_pb2.ExifOrientation
    bundle: str
    def __init__(self, inputs: _Optional[_Iterable[_Union[_input_pb2.Input, _Mapping]]] = ..., texts: _Optional[_Iterable[str]] = ..., truncate_texts: bool = ..., raw: bool = ..., exif_orientation: _Optional[_Union[_input_pb2.ExifOrientation, str]] = ..., bundle: _Optional[str] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("inputs", "texts")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[EmbedResult]
    texts: _containers.RepeatedCompositeFieldContainer[EmbedResult]
    def __init__(self, inputs: _Optional[_Iterable[_Union[EmbedResult, _Mapping]]] = ..., texts: _Optional[_Iterable[_Union[EmbedResult, _Mapping]]] = ...) -> None: ...

class EmbedResult(_message.Message):
    __slots__ = ("embedding", "error", "token_count")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    embedding: _input_pb2.Embedding
    error: _status_pb2.Status
    token_count: int
    def __init__(self, embedding: _Optional[_Union[_input_pb2.Embedding, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., token_count: _Optional[int] = ...) -> None: ...

class EvaluateConfig(_message.Message):
    __slots__ = ("caches", "reject")
    CACHES_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    caches: _containers.RepeatedScalarFieldContainer[str]
    reject: RejectOptions
    def __init__(self, caches: _Optional[_Iterable[str]] = ..., reject: _Optional[_Union[RejectOptions, _Mapping]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("config", "items")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    config: EvaluateConfig
    items: LabelledBatch
    def __init__(self, config: _Optional[_Union[EvaluateConfig, _Mapping]] = ..., items: _Optional[_Union[LabelledBatch, _Mapping]] = ...) -> None: ...

class LabelledBatch(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[LabelledItem]
    def __init__(self, items: _Optional[_Iterable[_Union[LabelledItem, _Mapping]]] = ...) -> None: ...

class LabelledItem(_message.Message):
    __slots__ = ("id", "class_index", "input", "unknown", "class_indices", "class_name")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    class_index: int
    input: _input_pb2.Input
    unknown: bool
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    class_name: str
    def __init__(self, id: _Optional[str] = ..., class_index: _Optional[int] = ..., input: _Optional[_Union[_input_pb2.Input, _Mapping]] = ..., unknown: bool = ..., class_indices: _Optional[_Iterable[int]] = ..., class_name: _Optional[str] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("evaluations", "rejected", "rejected_count")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[Evaluation]
    rejected: _containers.RepeatedCompositeFieldContainer[_cache_pb2.RejectedExample]
    rejected_count: int
    def __init__(self, evaluations: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[_cache_pb2.RejectedExample, _Mapping]]] = ..., rejected_count: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("version", "count", "top1", "top5", "zero_shot_top1", "cross_entropy", "expected_calibration_error", "classes", "confusion", "unknown", "multi_label")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TOP1_FIELD_NUMBER: _ClassVar[int]
    TOP5_FIELD_NUMBER: _ClassVar[int]
    ZERO_SHOT_TOP1_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    MULTI_LABEL_FIELD_NUMBER: _ClassVar[int]
    version: str
    count: int
    top1: float
    top5: float
    zero_shot_top1: float
    cross_entropy: float
    expected_calibration_error: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassEvaluation]
    confusion: _containers.RepeatedScalarFieldContainer[int]
    unknown: UnknownEvaluation
    multi_label: MultiLabelEvaluation
    def __init__(self, version: _Optional[str] = ..., count: _Optional[int] = ..., top1: _Optional[float] = ..., top5: _Optional[float] = ..., zero_shot_top1: _Optional[float] = ..., cross_entropy: _Optional[float] = ..., expected_calibration_error: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassEvaluation, _Mapping]]] = ..., confusion: _Optional[_Iterable[int]] = ..., unknown: _Optional[_Union[UnknownEvaluation, _Mapping]] = ..., multi_label: _Optional[_Union[MultiLabelEvaluation, _Mapping]] = ...) -> None: ...

class MultiLabelEvaluation(_message.Message):
    __slots__ = ("mean_average_precision", "micro_f1", "macro_f1", "precision", "recall", "classes")
    MEAN_AVERAGE_PRECISION_FIELD_NUMBER: _ClassVar[int]
    MICRO_F1_FIELD_NUMBER: _ClassVar[int]
    MACRO_F1_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    precision: float
    recall: float
    classes: _containers.RepeatedCompositeFieldContainer[LabelEvaluation]
    def __init__(self, mean_average_precision: _Optional[float] = ..., micro_f1: _Optional[float] = ..., macro_f1: _Optional[float] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[LabelEvaluation, _Mapping]]] = ...) -> None: ...

class LabelEvaluation(_message.Message):
    __slots__ = ("index", "display_name", "count", "average_precision", "precision", "recall", "f1")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_PRECISION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    F1_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    count: int
    average_precision: float
    precision: float
    recall: float
    f1: float
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., count: _Optional[int] = ..., average_precision: _Optional[float] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ..., f1: _Optional[float] = ...) -> None: ...

class UnknownEvaluation(_message.Message):
    __slots__ = ("count", "auroc", "false_positive_rate", "threshold", "accepted", "rejected", "accepted_top1")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AUROC_FIELD_NUMBER: _ClassVar[int]
    FALSE_POSITIVE_RATE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOP1_FIELD_NUMBER: _ClassVar[int]
    count: int
    auroc: float
    false_positive_rate: float
    threshold: float
    accepted: float
    rejected: float
    accepted_top1: float
    def __init__(self, count: _Optional[int] = ..., auroc: _Optional[float] = ..., false_positive_rate: _Optional[float] = ..., threshold: _Optional[float] = ..., accepted: _Optional[float] = ..., rejected: _Optional[float] = ..., accepted_top1: _Optional[float] = ...) -> None: ...

class ClassEvaluation(_message.Message):
    __slots__ = ("index", "display_name", "count", "accuracy")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    count: int
    accuracy: float
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., count: _Optional[int] = ..., accuracy: _Optional[float] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "bundle", "device", "dtype", "limits", "text_dtype", "caller", "bundles")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TEXT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    version: str
    bundle: BundleInfo
    device: str
    dtype: str
    limits: _containers.ScalarMap[str, int]
    text_dtype: str
    caller: CallerInfo
    bundles: _containers.RepeatedCompositeFieldContainer[BundleInfo]
    def __init__(self, version: _Optional[str] = ..., bundle: _Optional[_Union[BundleInfo, _Mapping]] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., limits: _Optional[_Mapping[str, int]] = ..., text_dtype: _Optional[str] = ..., caller: _Optional[_Union[CallerInfo, _Mapping]] = ..., bundles: _Optional[_Iterable[_Union[BundleInfo, _Mapping]]] = ...) -> None: ...

class CallerInfo(_message.Message):
    __slots__ = ("name", "role", "cache_prefix")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CACHE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    cache_prefix: str
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., cache_prefix: _Optional[str] = ...) -> None: ...

class BundleInfo(_message.Message):
    __slots__ = ("name", "fingerprint", "width", "image_size", "has_image_encoder", "has_text_encoder", "logit_scale", "templates", "resize_to", "interpolation", "resize", "logit_bias", "int8", "feature_statistics")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    HAS_IMAGE_ENCODER_FIELD_NUMBER: _ClassVar[int]
    HAS_TEXT_ENCODER_FIELD_NUMBER: _ClassVar[int]
    LOGIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    RESIZE_TO_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    INT8_FIELD_NUMBER: _ClassVar[int]
    FEATURE_STATISTICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    width: int
    image_size: int
    has_image_encoder: bool
    has_text_encoder: bool
    logit_scale: float
    templates: _containers.RepeatedScalarFieldContainer[str]
    resize_to: int
    interpolation: str
    resize: str
    logit_bias: float
    int8: EncoderAgreement
    feature_statistics: bool
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., width: _Optional[int] = ..., image_size: _Optional[int] = ..., has_image_encoder: bool = ..., has_text_encoder: bool = ..., logit_scale: _Optional[float] = ..., templates: _Optional[_Iterable[str]] = ..., resize_to: _Optional[int] = ..., interpolation: _Optional[str] = ..., resize: _Optional[str] = ..., logit_bias: _Optional[float] = ..., int8: _Optional[_Union[EncoderAgreement, _Mapping]] = ..., feature_statistics: bool = ...) -> None: ...

class EncoderAgreement(_message.Message):
    __slots__ = ("source", "count", "cosine_least", "cosine_mean", "noise", "neighbour", "head")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    COSINE_LEAST_FIELD_NUMBER: _ClassVar[int]
    COSINE_MEAN_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    source: str
    count: int
    cosine_least: float
    cosine_mean: float
    noise: float
    neighbour: float
    head: float
    def __init__(self, source: _Optional[str] = ..., count: _Optional[int] = ..., cosine_least: _Optional[float] = ..., cosine_mean: _Optional[float] = ..., noise: _Optional[float] = ..., neighbour: _Optional[float] = ..., head: _Optional[float] = ...) -> None: ...
