from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExifOrientation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXIF_ORIENTATION_UNSPECIFIED: _ClassVar[ExifOrientation]
    EXIF_ORIENTATION_APPLY: _ClassVar[ExifOrientation]
    EXIF_ORIENTATION_IGNORE: _ClassVar[ExifOrientation]
EXIF_ORIENTATION_UNSPECIFIED: ExifOrientation
EXIF_ORIENTATION_APPLY: ExifOrientation
EXIF_ORIENTATION_IGNORE: ExifOrientation

class Input(_message.Message):
    __slots__ = ("encoded_image", "raw_rgb", "embedding")
    ENCODED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    RAW_RGB_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    encoded_image: bytes
    raw_rgb: RawRgb
    embedding: Embedding
    def __init__(self, encoded_image: _Optional[bytes] = ..., raw_rgb: _Optional[_Union[RawRgb, _Mapping]] = ..., embedding: _Optional[_Union[Embedding, _Mapping]] = ...) -> None: ...

class RawRgb(_message.Message):
    __slots__ = ("width", "height", "data")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    data: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...
