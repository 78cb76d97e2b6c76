from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tipserve._proto import input_pb2 as _input_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FineTuneRecipe(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINE_TUNE_RECIPE_UNSPECIFIED: _ClassVar[FineTuneRecipe]
    FINE_TUNE_RECIPE_RESIDUAL: _ClassVar[FineTuneRecipe]
    FINE_TUNE_RECIPE_TIP_ADAPTER_F: _ClassVar[FineTuneRecipe]

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_AUTO: _ClassVar[Method]
    METHOD_ZERO_SHOT: _ClassVar[Method]
    METHOD_TIP_ADAPTER: _ClassVar[Method]
    METHOD_GDA: _ClassVar[Method]
    METHOD_PROKER: _ClassVar[Method]
    METHOD_CLASS_MEAN: _ClassVar[Method]
    METHOD_TIP_ADAPTER_F: _ClassVar[Method]
    METHOD_STACK: _ClassVar[Method]

class Standardised(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STANDARDISED_UNSPECIFIED: _ClassVar[Standardised]
    STANDARDISED_OWN: _ClassVar[Standardised]
    STANDARDISED_BUNDLE: _ClassVar[Standardised]

class ClassBalance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLASS_BALANCE_UNSPECIFIED: _ClassVar[ClassBalance]
    CLASS_BALANCE_SUM: _ClassVar[ClassBalance]
    CLASS_BALANCE_MEAN: _ClassVar[ClassBalance]

class KeyDtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_DTYPE_UNSPECIFIED: _ClassVar[KeyDtype]
    KEY_DTYPE_F32: _ClassVar[KeyDtype]
    KEY_DTYPE_BF16: _ClassVar[KeyDtype]
    KEY_DTYPE_F16: _ClassVar[KeyDtype]

class SelectionSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTION_SOURCE_UNSPECIFIED: _ClassVar[SelectionSource]
    SELECTION_SOURCE_GIVEN: _ClassVar[SelectionSource]
    SELECTION_SOURCE_VALIDATION: _ClassVar[SelectionSource]
    SELECTION_SOURCE_LEAVE_ONE_OUT: _ClassVar[SelectionSource]
    SELECTION_SOURCE_DEFAULT: _ClassVar[SelectionSource]
    SELECTION_SOURCE_HELD_BACK_VIEWS: _ClassVar[SelectionSource]
FINE_TUNE_RECIPE_UNSPECIFIED: FineTuneRecipe
FINE_TUNE_RECIPE_RESIDUAL: FineTuneRecipe
FINE_TUNE_RECIPE_TIP_ADAPTER_F: FineTuneRecipe
METHOD_UNSPECIFIED: Method
METHOD_AUTO: Method
METHOD_ZERO_SHOT: Method
METHOD_TIP_ADAPTER: Method
METHOD_GDA: Method
METHOD_PROKER: Method
METHOD_CLASS_MEAN: Method
METHOD_TIP_ADAPTER_F: Method
METHOD_STACK: Method
STANDARDISED_UNSPECIFIED: Standardised
STANDARDISED_OWN: Standardised
STANDARDISED_BUNDLE: Standardised
CLASS_BALANCE_UNSPECIFIED: ClassBalance
CLASS_BALANCE_SUM: ClassBalance
CLASS_BALANCE_MEAN: ClassBalance
KEY_DTYPE_UNSPECIFIED: KeyDtype
KEY_DTYPE_F32: KeyDtype
KEY_DTYPE_BF16: KeyDtype
KEY_DTYPE_F16: KeyDtype
SELECTION_SOURCE_UNSPECIFIED: SelectionSource
SELECTION_SOURCE_GIVEN: SelectionSource
SELECTION_SOURCE_VALIDATION: SelectionSource
SELECTION_SOURCE_LEAVE_ONE_OUT: SelectionSource
SELECTION_SOURCE_DEFAULT: SelectionSource
SELECTION_SOURCE_HELD_BACK_VIEWS: SelectionSource

class Cache(_message.Message):
    __slots__ = ("name", "create_time", "latest", "aliases", "version_count", "etag")
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    VERSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    create_time: _timestamp_pb2.Timestamp
    latest: Version
    aliases: _containers.ScalarMap[str, int]
    version_count: int
    etag: str
    def __init__(self, name: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., latest: _Optional[_Union[Version, _Mapping]] = ..., aliases: _Optional[_Mapping[str, int]] = ..., version_count: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("name", "version", "create_time", "parent", "description", "labels", "classes", "width", "key_count", "views", "bundle_fingerprint", "head", "size_bytes", "fine_tune", "created_by", "bundle_name", "source", "class_count", "exif_orientation", "picture_count", "encoder_dtype", "unknown_count", "multi_label", "part_weights")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FINE_TUNE_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXIF_ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    PICTURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENCODER_DTYPE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MULTI_LABEL_FIELD_NUMBER: _ClassVar[int]
    PART_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    create_time: _timestamp_pb2.Timestamp
    parent: str
    description: str
    labels: _containers.ScalarMap[str, str]
    classes: _containers.RepeatedCompositeFieldContainer[ClassInfo]
    width: int
    key_count: int
    views: int
    bundle_fingerprint: str
    head: Head
    size_bytes: int
    fine_tune: FineTuneRecord
    created_by: str
    bundle_name: str
    source: SourceCounts
    class_count: int
    exif_orientation: _input_pb2.ExifOrientation
    picture_count: int
    encoder_dtype: str
    unknown_count: int
    multi_label: bool
    part_weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., parent: _Optional[str] = ..., description: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., classes: _Optional[_Iterable[_Union[ClassInfo, _Mapping]]] = ..., width: _Optional[int] = ..., key_count: _Optional[int] = ..., views: _Optional[int] = ..., bundle_fingerprint: _Optional[str] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., size_bytes: _Optional[int] = ..., fine_tune: _Optional[_Union[FineTuneRecord, _Mapping]] = ..., created_by: _Optional[str] = ..., bundle_name: _Optional[str] = ..., source: _Optional[_Union[SourceCounts, _Mapping]] = ..., class_count: _Optional[int] = ..., exif_orientation: _Optional[_Union[_input_pb2.ExifOrientation, str]] = ..., picture_count: _Optional[int] = ..., encoder_dtype: _Optional[str] = ..., unknown_count: _Optional[int] = ..., multi_label: bool = ..., part_weights: _Optional[_Iterable[float]] = ...) -> None: ...

class SourceCounts(_message.Message):
    __slots__ = ("received", "rejected", "inherited", "removed", "without_end_mark")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    INHERITED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_END_MARK_FIELD_NUMBER: _ClassVar[int]
    received: int
    rejected: int
    inherited: int
    removed: int
    without_end_mark: int
    def __init__(self, received: _Optional[int] = ..., rejected: _Optional[int] = ..., inherited: _Optional[int] = ..., removed: _Optional[int] = ..., without_end_mark: _Optional[int] = ...) -> None: ...

class ClassInfo(_message.Message):
    __slots__ = ("index", "display_name", "example_count", "validation_count", "threshold")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    index: int
    display_name: str
    example_count: int
    validation_count: int
    threshold: float
    def __init__(self, index: _Optional[int] = ..., display_name: _Optional[str] = ..., example_count: _Optional[int] = ..., validation_count: _Optional[int] = ..., threshold: _Optional[float] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("method", "alpha", "beta", "logit_scale", "class_balance", "temperature", "selection", "key_dtype", "standardised", "unlabelled")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    LOGIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    CLASS_BALANCE_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    KEY_DTYPE_FIELD_NUMBER: _ClassVar[int]
    STANDARDISED_FIELD_NUMBER: _ClassVar[int]
    UNLABELLED_FIELD_NUMBER: _ClassVar[int]
    method: Method
    alpha: float
    beta: float
    logit_scale: float
    class_balance: ClassBalance
    temperature: float
    selection: Selection
    key_dtype: KeyDtype
    standardised: Standardised
    unlabelled: UnlabelledUse
    def __init__(self, method: _Optional[_Union[Method, str]] = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., logit_scale: _Optional[float] = ..., class_balance: _Optional[_Union[ClassBalance, str]] = ..., temperature: _Optional[float] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ..., key_dtype: _Optional[_Union[KeyDtype, str]] = ..., standardised: _Optional[_Union[Standardised, str]] = ..., unlabelled: _Optional[_Union[UnlabelledUse, _Mapping]] = ..., **kwargs) -> None: ...

class UnlabelledUse(_message.Message):
    __slots__ = ("count", "used", "example_count", "cross_entropy_before", "cross_entropy_after", "accuracy_before", "accuracy_after", "reason")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_AFTER_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    count: int
    used: bool
    example_count: int
    cross_entropy_before: float
    cross_entropy_after: float
    accuracy_before: float
    accuracy_after: float
    reason: str
    def __init__(self, count: _Optional[int] = ..., used: bool = ..., example_count: _Optional[int] = ..., cross_entropy_before: _Optional[float] = ..., cross_entropy_after: _Optional[float] = ..., accuracy_before: _Optional[float] = ..., accuracy_after: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("source", "example_count", "score", "grid", "candidates", "reason")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    source: SelectionSource
    example_count: int
    score: str
    grid: str
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    reason: str
    def __init__(self, source: _Optional[_Union[SelectionSource, str]] = ..., example_count: _Optional[int] = ..., score: _Optional[str] = ..., grid: _Optional[str] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("method", "alpha", "beta", "accuracy", "cross_entropy", "skipped", "weight", "temperature", "standardised")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    STANDARDISED_FIELD_NUMBER: _ClassVar[int]
    method: Method
    alpha: float
    beta: float
    accuracy: float
    cross_entropy: float
    skipped: str
    weight: float
    temperature: float
    standardised: Standardised
    def __init__(self, method: _Optional[_Union[Method, str]] = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., accuracy: _Optional[float] = ..., cross_entropy: _Optional[float] = ..., skipped: _Optional[str] = ..., weight: _Optional[float] = ..., temperature: _Optional[float] = ..., standardised: _Optional[_Union[Standardised, str]] = ..., **kwargs) -> None: ...

class FineTuneRecord(_message.Message):
    __slots__ = ("epochs", "best_epoch", "seed", "loss", "accuracy_before", "accuracy_after", "source", "seconds", "recipe", "strength", "cross_entropy_before", "cross_entropy_after", "example_count")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_AFTER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_AFTER_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    best_epoch: int
    seed: int
    loss: float
    accuracy_before: float
    accuracy_after: float
    source: SelectionSource
    seconds: float
    recipe: FineTuneRecipe
    strength: float
    cross_entropy_before: float
    cross_entropy_after: float
    example_count: int
    def __init__(self, epochs: _Optional[int] = ..., best_epoch: _Optional[int] = ..., seed: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy_before: _Optional[float] = ..., accuracy_after: _Optional[float] = ..., source: _Optional[_Union[SelectionSource, str]] = ..., seconds: _Optional[float] = ..., recipe: _Optional[_Union[FineTuneRecipe, str]] = ..., strength: _Optional[float] = ..., cross_entropy_before: _Optional[float] = ..., cross_entropy_after: _Optional[float] = ..., example_count: _Optional[int] = ...) -> None: ...

class SearchGrid(_message.Message):
    __slots__ = ("kind", "beta_scale", "alpha_scale")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[SearchGrid.Kind]
        KIND_OFFICIAL: _ClassVar[SearchGrid.Kind]
        KIND_WIDE: _ClassVar[SearchGrid.Kind]
    KIND_UNSPECIFIED: SearchGrid.Kind
    KIND_OFFICIAL: SearchGrid.Kind
    KIND_WIDE: SearchGrid.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    BETA_SCALE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_SCALE_FIELD_NUMBER: _ClassVar[int]
    kind: SearchGrid.Kind
    beta_scale: float
    alpha_scale: float
    def __init__(self, kind: _Optional[_Union[SearchGrid.Kind, str]] = ..., beta_scale: _Optional[float] = ..., alpha_scale: _Optional[float] = ...) -> None: ...

class CacheSpec(_message.Message):
    __slots__ = ("cache_id", "classes", "prompt_templates", "method", "alpha", "beta", "views", "seed", "on_rejected", "description", "labels", "class_balance", "grid", "key_dtype", "without_text", "truncate_prompts", "allow_empty_classes", "created_by", "etag", "request_id", "exif_orientation", "keep_pictures", "multi_label", "bundle")
    class OnRejected(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ON_REJECTED_UNSPECIFIED: _ClassVar[CacheSpec.OnRejected]
        ON_REJECTED_SKIP: _ClassVar[CacheSpec.OnRejected]
        ON_REJECTED_FAIL: _ClassVar[CacheSpec.OnRejected]
    ON_REJECTED_UNSPECIFIED: CacheSpec.OnRejected
    ON_REJECTED_SKIP: CacheSpec.OnRejected
    ON_REJECTED_FAIL: CacheSpec.OnRejected
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CACHE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ON_REJECTED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLASS_BALANCE_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    KEY_DTYPE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_EMPTY_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXIF_ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    KEEP_PICTURES_FIELD_NUMBER: _ClassVar[int]
    MULTI_LABEL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    cache_id: str
    classes: _containers.RepeatedCompositeFieldContainer[ClassSpec]
    prompt_templates: _containers.RepeatedScalarFieldContainer[str]
    method: Method
    alpha: float
    beta: float
    views: int
    seed: int
    on_rejected: CacheSpec.OnRejected
    description: str
    labels: _containers.ScalarMap[str, str]
    class_balance: ClassBalance
    grid: SearchGrid
    key_dtype: KeyDtype
    without_text: bool
    truncate_prompts: bool
    allow_empty_classes: bool
    created_by: str
    etag: str
    request_id: str
    exif_orientation: _input_pb2.ExifOrientation
    keep_pictures: bool
    multi_label: bool
    bundle: str
    def __init__(self, cache_id: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[ClassSpec, _Mapping]]] = ..., prompt_templates: _Optional[_Iterable[str]] = ..., method: _Optional[_Union[Method, str]] = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., views: _Optional[int] = ..., seed: _Optional[int] = ..., on_rejected: _Optional[_Union[CacheSpec.OnRejected, str]] = ..., description: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., class_balance: _Optional[_Union[ClassBalance, str]] = ..., grid: _Optional[_Union[SearchGrid, _Mapping]] = ..., key_dtype: _Optional[_Union[KeyDtype, str]] = ..., without_text: bool = ..., truncate_prompts: bool = ..., allow_empty_classes: bool = ..., created_by: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ..., exif_orientation: _Optional[_Union[_input_pb2.ExifOrientation, str]] = ..., keep_pictures: bool = ..., multi_label: bool = ..., bundle: _Optional[str] = ..., **kwargs) -> None: ...

class ClassSpec(_message.Message):
    __slots__ = ("display_name", "prompts", "text_weight")
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    TEXT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    display_name: str
    prompts: _containers.RepeatedScalarFieldContainer[str]
    text_weight: _input_pb2.Embedding
    def __init__(self, display_name: _Optional[str] = ..., prompts: _Optional[_Iterable[str]] = ..., text_weight: _Optional[_Union[_input_pb2.Embedding, _Mapping]] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("example_id", "class_index", "input", "validation", "uri", "metadata", "thumbnail", "unknown", "class_indices", "unlabelled", "class_name")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    UNLABELLED_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    input: _input_pb2.Input
    validation: bool
    uri: str
    metadata: _containers.ScalarMap[str, str]
    thumbnail: bytes
    unknown: bool
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    unlabelled: bool
    class_name: str
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., input: _Optional[_Union[_input_pb2.Input, _Mapping]] = ..., validation: bool = ..., uri: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., thumbnail: _Optional[bytes] = ..., unknown: bool = ..., class_indices: _Optional[_Iterable[int]] = ..., unlabelled: bool = ..., class_name: _Optional[str] = ...) -> None: ...

class CreateCacheRequest(_message.Message):
    __slots__ = ("spec", "examples")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    spec: CacheSpec
    examples: ExampleBatch
    def __init__(self, spec: _Optional[_Union[CacheSpec, _Mapping]] = ..., examples: _Optional[_Union[ExampleBatch, _Mapping]] = ...) -> None: ...

class ExampleBatch(_message.Message):
    __slots__ = ("examples",)
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[Example]
    def __init__(self, examples: _Optional[_Iterable[_Union[Example, _Mapping]]] = ...) -> None: ...

class CreateCacheResponse(_message.Message):
    __slots__ = ("progress", "rejected", "version")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    progress: CreateProgress
    rejected: RejectedExample
    version: Version
    def __init__(self, progress: _Optional[_Union[CreateProgress, _Mapping]] = ..., rejected: _Optional[_Union[RejectedExample, _Mapping]] = ..., version: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class AddExamplesSpec(_message.Message):
    __slots__ = ("base", "new_classes", "remove_example_ids", "prompt_templates", "method", "alpha", "beta", "seed", "on_rejected", "description", "labels", "grid", "truncate_prompts", "allow_empty_classes", "created_by", "etag", "request_id", "keep_pictures", "drop_unlabelled", "relabel")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BASE_FIELD_NUMBER: _ClassVar[int]
    NEW_CLASSES_FIELD_NUMBER: _ClassVar[int]
    REMOVE_EXAMPLE_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ON_REJECTED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_EMPTY_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_PICTURES_FIELD_NUMBER: _ClassVar[int]
    DROP_UNLABELLED_FIELD_NUMBER: _ClassVar[int]
    RELABEL_FIELD_NUMBER: _ClassVar[int]
    base: str
    new_classes: _containers.RepeatedCompositeFieldContainer[ClassSpec]
    remove_example_ids: _containers.RepeatedScalarFieldContainer[str]
    prompt_templates: _containers.RepeatedScalarFieldContainer[str]
    method: Method
    alpha: float
    beta: float
    seed: int
    on_rejected: CacheSpec.OnRejected
    description: str
    labels: _containers.ScalarMap[str, str]
    grid: SearchGrid
    truncate_prompts: bool
    allow_empty_classes: bool
    created_by: str
    etag: str
    request_id: str
    keep_pictures: bool
    drop_unlabelled: bool
    relabel: _containers.RepeatedCompositeFieldContainer[Relabelled]
    def __init__(self, base: _Optional[str] = ..., new_classes: _Optional[_Iterable[_Union[ClassSpec, _Mapping]]] = ..., remove_example_ids: _Optional[_Iterable[str]] = ..., prompt_templates: _Optional[_Iterable[str]] = ..., method: _Optional[_Union[Method, str]] = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., seed: _Optional[int] = ..., on_rejected: _Optional[_Union[CacheSpec.OnRejected, str]] = ..., description: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., grid: _Optional[_Union[SearchGrid, _Mapping]] = ..., truncate_prompts: bool = ..., allow_empty_classes: bool = ..., created_by: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ..., keep_pictures: bool = ..., drop_unlabelled: bool = ..., relabel: _Optional[_Iterable[_Union[Relabelled, _Mapping]]] = ..., **kwargs) -> None: ...

class Relabelled(_message.Message):
    __slots__ = ("example_id", "class_index", "class_name")
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    class_name: str
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., class_name: _Optional[str] = ...) -> None: ...

class AddExamplesRequest(_message.Message):
    __slots__ = ("spec", "examples")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    spec: AddExamplesSpec
    examples: ExampleBatch
    def __init__(self, spec: _Optional[_Union[AddExamplesSpec, _Mapping]] = ..., examples: _Optional[_Union[ExampleBatch, _Mapping]] = ...) -> None: ...

class AddExamplesResponse(_message.Message):
    __slots__ = ("progress", "rejected", "version")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    progress: CreateProgress
    rejected: RejectedExample
    version: Version
    def __init__(self, progress: _Optional[_Union[CreateProgress, _Mapping]] = ..., rejected: _Optional[_Union[RejectedExample, _Mapping]] = ..., version: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class CreateProgress(_message.Message):
    __slots__ = ("stage", "received", "encoded", "rejected")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STAGE_UNSPECIFIED: _ClassVar[CreateProgress.Stage]
        STAGE_TEXT: _ClassVar[CreateProgress.Stage]
        STAGE_EXAMPLES: _ClassVar[CreateProgress.Stage]
        STAGE_SELECTION: _ClassVar[CreateProgress.Stage]
        STAGE_STORING: _ClassVar[CreateProgress.Stage]
    STAGE_UNSPECIFIED: CreateProgress.Stage
    STAGE_TEXT: CreateProgress.Stage
    STAGE_EXAMPLES: CreateProgress.Stage
    STAGE_SELECTION: CreateProgress.Stage
    STAGE_STORING: CreateProgress.Stage
    STAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    stage: CreateProgress.Stage
    received: int
    encoded: int
    rejected: int
    def __init__(self, stage: _Optional[_Union[CreateProgress.Stage, str]] = ..., received: _Optional[int] = ..., encoded: _Optional[int] = ..., rejected: _Optional[int] = ...) -> None: ...

class RejectedExample(_message.Message):
    __slots__ = ("example_id", "code", "message", "reason")
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    code: int
    message: str
    reason: str
    def __init__(self, example_id: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetCacheRequest(_message.Message):
    __slots__ = ("name", "read_mask")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, name: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListCachesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "read_mask", "filter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    read_mask: _field_mask_pb2.FieldMask
    filter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., filter: _Optional[str] = ...) -> None: ...

class ListCachesResponse(_message.Message):
    __slots__ = ("caches", "next_page_token")
    CACHES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    caches: _containers.RepeatedCompositeFieldContainer[Cache]
    next_page_token: str
    def __init__(self, caches: _Optional[_Iterable[_Union[Cache, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteCacheRequest(_message.Message):
    __slots__ = ("name", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ("name", "read_mask")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, name: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "read_mask")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    read_mask: _field_mask_pb2.FieldMask
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListExamplesRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListExamplesResponse(_message.Message):
    __slots__ = ("examples", "next_page_token")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[ExampleInfo]
    next_page_token: str
    def __init__(self, examples: _Optional[_Iterable[_Union[ExampleInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExampleInfo(_message.Message):
    __slots__ = ("example_id", "class_index", "display_name", "validation", "uri", "metadata", "has_picture", "unknown", "class_indices")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    HAS_PICTURE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    example_id: str
    class_index: int
    display_name: str
    validation: bool
    uri: str
    metadata: _containers.ScalarMap[str, str]
    has_picture: bool
    unknown: bool
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, example_id: _Optional[str] = ..., class_index: _Optional[int] = ..., display_name: _Optional[str] = ..., validation: bool = ..., uri: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., has_picture: bool = ..., unknown: bool = ..., class_indices: _Optional[_Iterable[int]] = ...) -> None: ...

class GetExamplePictureRequest(_message.Message):
    __slots__ = ("parent", "example_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    example_id: str
    def __init__(self, parent: _Optional[str] = ..., example_id: _Optional[str] = ...) -> None: ...

class ExamplePicture(_message.Message):
    __slots__ = ("data", "content_type")
    DATA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    content_type: str
    def __init__(self, data: _Optional[bytes] = ..., content_type: _Optional[str] = ...) -> None: ...

class DeleteVersionRequest(_message.Message):
    __slots__ = ("name", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class PruneVersionsRequest(_message.Message):
    __slots__ = ("name", "keep", "validate_only", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    keep: int
    validate_only: bool
    etag: str
    def __init__(self, name: _Optional[str] = ..., keep: _Optional[int] = ..., validate_only: bool = ..., etag: _Optional[str] = ...) -> None: ...

class PruneVersionsResponse(_message.Message):
    __slots__ = ("deleted_versions",)
    DELETED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    deleted_versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, deleted_versions: _Optional[_Iterable[int]] = ...) -> None: ...

class ExportVersionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ExportVersionResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: ExportHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[ExportHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ExportHeader(_message.Message):
    __slots__ = ("version", "size_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: Version
    size_bytes: int
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ImportVersionRequest(_message.Message):
    __slots__ = ("spec", "chunk")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    spec: ImportSpec
    chunk: bytes
    def __init__(self, spec: _Optional[_Union[ImportSpec, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ImportSpec(_message.Message):
    __slots__ = ("cache_id", "size_bytes", "allow_other_bundle", "etag", "request_id")
    CACHE_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOW_OTHER_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    cache_id: str
    size_bytes: int
    allow_other_bundle: bool
    etag: str
    request_id: str
    def __init__(self, cache_id: _Optional[str] = ..., size_bytes: _Optional[int] = ..., allow_other_bundle: bool = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("cache", "alias", "version", "etag")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    cache: str
    alias: str
    version: int
    etag: str
    def __init__(self, cache: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("cache", "alias", "etag")
    CACHE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    cache: str
    alias: str
    etag: str
    def __init__(self, cache: _Optional[str] = ..., alias: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...
