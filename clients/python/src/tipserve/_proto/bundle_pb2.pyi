from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tipserve._proto import classify_pb2 as _classify_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Bundle(_message.Message):
    __slots__ = ("info", "folder", "state", "is_default", "device", "dtype", "text_dtype", "load_time", "load_duration", "in_flight_items")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Bundle.State]
        STATE_AVAILABLE: _ClassVar[Bundle.State]
        STATE_LOADING: _ClassVar[Bundle.State]
        STATE_READY: _ClassVar[Bundle.State]
        STATE_UNLOADING: _ClassVar[Bundle.State]
    STATE_UNSPECIFIED: Bundle.State
    STATE_AVAILABLE: Bundle.State
    STATE_LOADING: Bundle.State
    STATE_READY: Bundle.State
    STATE_UNLOADING: Bundle.State
    INFO_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    LOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    LOAD_DURATION_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_ITEMS_FIELD_NUMBER: _ClassVar[int]
    info: _classify_pb2.BundleInfo
    folder: str
    state: Bundle.State
    is_default: bool
    device: str
    dtype: str
    text_dtype: str
    load_time: _timestamp_pb2.Timestamp
    load_duration: _duration_pb2.Duration
    in_flight_items: int
    def __init__(self, info: _Optional[_Union[_classify_pb2.BundleInfo, _Mapping]] = ..., folder: _Optional[str] = ..., state: _Optional[_Union[Bundle.State, str]] = ..., is_default: bool = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., text_dtype: _Optional[str] = ..., load_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., load_duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., in_flight_items: _Optional[int] = ...) -> None: ...

class ListBundlesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBundlesResponse(_message.Message):
    __slots__ = ("bundles",)
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[Bundle]
    def __init__(self, bundles: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ...) -> None: ...

class LoadBundleRequest(_message.Message):
    __slots__ = ("folder", "make_default")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    MAKE_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    folder: str
    make_default: bool
    def __init__(self, folder: _Optional[str] = ..., make_default: bool = ...) -> None: ...

class UnloadBundleRequest(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    def __init__(self, bundle: _Optional[str] = ...) -> None: ...

class UnloadBundleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
