"""From what users have (paths, bytes, arrays, Pillow pictures) to what the wire takes."""

from __future__ import annotations

import array
import inspect
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeAlias, Union

from tipserve._arrays import (
    as_numpy,
    file_bytes,
    is_array,
    is_embedding,
    is_tensor,
    rgb_pixels,
)
from tipserve._decode import ORIENTATION, PictureLimits, decoded
from tipserve._files import read_file, too_large
from tipserve._proto import input_pb2
from tipserve.errors import InvalidArgument


class PillowPicture(Protocol):
    """What is asked of a PIL.Image.Image; Pillow itself need not be installed."""

    @property
    def mode(self) -> str:
        """Its pixel format."""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""

    def getexif(self) -> Any:
        """Its EXIF data."""


class Array(Protocol):
    """What is asked of an array or a tensor: numpy's, torch's, cv2's."""

    @property
    def shape(self) -> Any:
        """Its sides."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """It, as numpy's."""


Picture: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    IO[bytes],
    PillowPicture,
    Array,
    Sequence[float],
    Mapping[str, Any],
]
"""One picture, or its embedding.

A file's path or URL; a file's bytes, also as an array (cv2.imencode); an open
binary file, read from its beginning; a Pillow picture; pixels as an array or a
tensor, uint8 or floats from 0 to 1, of [height, width, 3], [3, height, width] or
[height, width], in RGB unless `color="bgr"`; an embedding, floats of [D]; or
datasets' {"bytes": ..., "path": ...}.
"""

# A message may carry other things beside its one picture: ids, tags, lengths.
ENVELOPE_BYTES = 4096
JPEG_QUALITY = 95
# By the server's names, which in capitals are those of PIL.Image.Resampling.
INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_RULES = ("shortest-side", "squash")
# Pillow's modes whose conversion to RGB loses nothing that counts. The others
# hold more than 8 bits, which Pillow cuts off at white.
_MODES = frozenset(
    ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
)
# Formats that the server reads itself, by Pillow's names.
_FORMATS = frozenset(("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"))


@dataclass(frozen=True)
class Unusable:
    """In a picture's place: why there is none."""

    error: InvalidArgument


@dataclass(frozen=True)
class Encoder:
    """Makes messages of pictures, none of them over the server's limit."""

    max_message_bytes: int
    """The largest message that the server takes."""
    image_size: int | None = None
    """Resize to this shorter side and cut out this square; None: leave it to the server."""
    crop_size: int | None = None
    """The square that the server then cuts out of that; None: all of it."""
    interpolation: str = "bicubic"
    """How pictures are resized: one of INTERPOLATIONS."""
    squash: bool = False
    """Resize both sides to `image_size`, whatever the aspect ratio."""
    jpeg: bool = False
    """Send what was resized as JPEG instead of raw pixels."""
    limits: PictureLimits = field(default_factory=PictureLimits)
    """Of the server, for pictures that are decoded here."""
    color: str = "rgb"
    """The order of the channels of arrays."""

    @property
    def max_input_bytes(self) -> int:
        """The largest single input."""
        return max(self.max_message_bytes - ENVELOPE_BYTES, 0)

    def encode(self, picture: Picture) -> input_pb2.Input:
        """The message for one picture or embedding.

        Raises `InvalidArgument` for one that cannot be sent (it says why),
        and TypeError for what is no picture at all.
        """
        made = self._encode(picture)
        if made.ByteSize() > self.max_input_bytes:
            content = made.encoded_image or made.raw_rgb.data
            size = len(content) or 4 * len(made.embedding.values)
            raise too_large(size, self.max_input_bytes)
        return made

    def _encode(self, picture: Any) -> input_pb2.Input:
        if isinstance(picture, str | os.PathLike):
            return self._file(read_file(picture, self._file_limit))
        if isinstance(picture, memoryview) and picture.ndim > 1:
            picture = as_numpy(picture)
        if isinstance(picture, array.array) and picture.itemsize == 1:
            picture = memoryview(picture)
        if isinstance(picture, bytes | bytearray | memoryview):
            if isinstance(picture, memoryview) and picture.itemsize != 1:
                raise TypeError(f"a memoryview of {picture.format!r} is no file: give its bytes")
            return self._file(bytes(picture))
        if _is_pillow(picture):
            return self._pillow(picture)
        if is_array(picture):
            return self._array(picture)
        if isinstance(picture, Unusable):
            raise picture.error
        if isinstance(picture, Mapping):
            return self._encode(_undecoded(picture))
        if callable(getattr(picture, "read", None)):
            return self._file(_read_open(picture))
        if isinstance(picture, Sequence):
            _refuse_pair(picture)
            return _embedding(picture)
        what = "None" if picture is None else f"an object of type {type(picture).__name__}"
        raise TypeError(
            f"{what} is no picture: give a path, bytes, a Pillow picture, "
            "a uint8 array of [height, width, 3], or an embedding"
        )

    @property
    def _file_limit(self) -> int | None:
        """A file that is resized here may be larger than a message."""
        return self.max_input_bytes if self.image_size is None else None

    def _file(self, data: bytes) -> input_pb2.Input:
        if not data:
            raise _invalid("the picture is empty (0 bytes)", "PICTURE_EMPTY")
        if self.image_size is not None:
            picture = decoded(data, self.limits)
            if picture is not None:
                return self._resized(picture, self.image_size)
        return input_pb2.Input(encoded_image=data)

    def _pillow(self, picture: Any) -> input_pb2.Input:
        data = _file_of(picture)
        if data is not None:
            return self._file(data)
        if picture.mode == "F":
            return self._rgb(_of_floats(picture))
        if picture.mode not in _MODES:
            raise _invalid(
                f"a picture in Pillow's mode {picture.mode} is not supported (convert it to 8 "
                "bits: where to put white is the sender's to say)",
                "PICTURE_UNSUPPORTED",
                mode=str(picture.mode),
            )
        try:
            if picture.mode == "La":  # which Pillow turns into LA alone
                picture = picture.convert("LA")
            rgb = picture.convert("RGB")
            exif = picture.getexif()
        except (OSError, SyntaxError, ValueError) as error:
            # Pillow decodes when it must, and only then sees a damaged file.
            raise _invalid(f"Pillow cannot read it: {error}", "PICTURE_UNDECODABLE") from error
        turned = _turned(exif)
        if turned is not None:
            # Whether it is turned is the server's to say, as of a file.
            return _png(rgb, turned)
        return self._rgb(rgb)

    def _rgb(self, rgb: Any) -> input_pb2.Input:
        if self.image_size is not None:
            return self._resized(rgb, self.image_size)
        return self._pixels(rgb)

    def _pixels(self, rgb: Any) -> input_pb2.Input:
        """Raw pixels, or PNG where those are over the limit."""
        raw = input_pb2.RawRgb(width=rgb.width, height=rgb.height, data=rgb.tobytes())
        if len(raw.data) <= self.max_input_bytes - 64:
            return input_pb2.Input(raw_rgb=raw)
        return _png(rgb)

    def _resized(self, picture: Any, size: int) -> input_pb2.Input:
        made = resize_and_crop(
            picture, size, self.crop_size, self.interpolation, squash=self.squash
        )
        if not self.jpeg:
            return self._pixels(made)
        # Colours at full resolution: the encoder sees every pixel.
        file = io.BytesIO()
        made.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return input_pb2.Input(encoded_image=file.getvalue())

    def _array(self, given: Any) -> input_pb2.Input:
        pixels = as_numpy(given)
        data = file_bytes(pixels)
        if data is not None:
            return self._file(data)
        if is_embedding(pixels):
            return _embedding(pixels.astype("float32").tolist())
        pixels = rgb_pixels(pixels, is_tensor(given), self.color)
        if self.image_size is not None or pixels.nbytes > self.max_input_bytes - 64:
            try:
                import PIL.Image
            except ImportError:
                raise too_large(pixels.nbytes, self.max_input_bytes) from None
            return self._rgb(PIL.Image.fromarray(pixels))
        height, width = pixels.shape[:2]
        raw = input_pb2.RawRgb(width=width, height=height, data=pixels.tobytes())
        return input_pb2.Input(raw_rgb=raw)


def _invalid(message: str, reason: str, **metadata: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, metadata=metadata)


def _of_floats(picture: Any) -> Any:
    """RGB of grey in floating point: as in an array or a TIFF, 0 is black and 1 is white."""
    import numpy
    import PIL.Image

    levels = numpy.asarray(picture)[:, :, None]
    try:
        return PIL.Image.fromarray(rgb_pixels(levels, False, "rgb"))
    except InvalidArgument as error:
        raise _invalid(
            f"a picture in Pillow's mode F is not supported where {error.message}",
            "PICTURE_UNSUPPORTED",
            mode="F",
        ) from error


def _turned(exif: Any) -> bytes | None:
    """EXIF data that says how a picture is turned; None if it is upright.

    Of all tags only that one: others that a camera wrote may not be what Pillow can write.
    """
    found = exif.get(ORIENTATION, 1) if exif else 1
    if not isinstance(found, int) or not 2 <= found <= 8:
        return None
    import PIL.Image

    kept = PIL.Image.Exif()
    kept[ORIENTATION] = found
    return kept.tobytes()


def _is_pillow(picture: object) -> bool:
    # Without Pillow there can be no Pillow pictures, so it need not be imported.
    return any(kind.__module__.startswith("PIL.") for kind in type(picture).__mro__)


def _file_of(picture: Any) -> bytes | None:
    """The file behind a picture that Pillow has opened and not decoded yet.

    The server decodes that, and so refuses what it always refuses, where
    Pillow would fill in what is missing.
    """
    if (
        getattr(picture, "format", None) not in _FORMATS
        or not getattr(picture, "tile", None)  # decoded by now
        or getattr(picture, "decoderconfig", None)  # at a fraction of its size
        or picture.tell() != 0
    ):
        return None
    file = picture.fp
    if file is None:
        raise _invalid("Pillow's file was closed before it was read", "PICTURE_UNDECODABLE")
    try:
        at = file.tell()
        file.seek(0)
        data = bytes(file.read())
        file.seek(at)
    except (AttributeError, OSError, ValueError) as error:
        raise _invalid(f"Pillow's file cannot be read: {error}", "PICTURE_UNDECODABLE") from error
    return data


def _read_open(file: Any) -> bytes:
    """An open file's bytes, from its beginning: writing leaves it at its end."""
    if inspect.iscoroutinefunction(file.read):
        raise TypeError("the file's read() has to be awaited: give `await file.read()`")
    try:
        # A mapped file says only from Python 3.13 on that it is seekable: it always is.
        if getattr(file, "seekable", lambda: hasattr(file, "seek"))():
            file.seek(0)
        data = file.read()
    except (AttributeError, OSError, ValueError) as error:
        raise _invalid(f"the open file cannot be read: {error}", "FILE_UNREADABLE") from error
    if not isinstance(data, bytes):
        raise TypeError("the file is open for text: open it with mode 'rb'")
    return data


def _undecoded(picture: Mapping[str, Any]) -> Any:
    """What is in a picture of `datasets` that is not decoded."""
    for key in ("bytes", "path"):
        if picture.get(key) is not None:
            return picture[key]
    keys = ", ".join(map(str, picture)) or "nothing"
    raise TypeError(f"a mapping of {keys} is no picture: one has bytes or a path")


def _png(rgb: Any, exif: bytes | None = None) -> input_pb2.Input:
    png = io.BytesIO()
    more = {} if exif is None else {"exif": exif}
    rgb.save(png, "PNG", compress_level=1, **more)
    return input_pb2.Input(encoded_image=png.getvalue())


def _refuse_pair(given: Sequence[Any]) -> None:
    """Refuses (picture, label), as data sets give, where a picture is meant."""
    if len(given) == 2 and not isinstance(given[0], int | float):
        raise TypeError(
            f"a pair of {type(given[0]).__name__} and {type(given[1]).__name__} is no picture: "
            "give the picture without its label"
        )


def _embedding(values: Any) -> input_pb2.Input:
    if len(values) and isinstance(values[0], bool):
        raise TypeError("an embedding must be a list of numbers, and these are True and False")
    try:
        embedding = input_pb2.Embedding(values=values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"an embedding must be a list of numbers: {error}") from error
    if not embedding.values:
        raise _invalid("the embedding is empty", "EMBEDDING_EMPTY")
    return input_pb2.Input(embedding=embedding)


def resize_and_crop(
    picture: Any,
    size: int,
    crop: int | None = None,
    interpolation: str = "bicubic",
    *,
    squash: bool = False,
) -> Any:
    """CLIP's own preprocessing up to the pixels, as the server computes it.

    RGB first; the shorter side to `size` (the longer to int(size · long /
    short)) with Pillow's bicubic or bilinear, as `interpolation` says; then the
    centre, its offset rounded half to even. The square has sides of `size`, and
    where `crop` is given it lies so that its own centre of `crop` × `crop`
    pixels is that of the whole picture. With `squash` both sides become `size`,
    whatever the aspect ratio, and nothing is cropped here.

    Raises ValueError for another interpolation.
    """
    import PIL.Image

    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is one of {INTERPOLATIONS}, not {interpolation!r}")
    rgb = picture.convert("RGB")
    width, height = rgb.size
    if not (width and height):
        raise _invalid("the picture has no pixels", "PICTURE_EMPTY")
    if squash:
        new = (size, size)
    elif width <= height:
        new = (size, int(size * height / width))
    else:
        new = (int(size * width / height), size)
    kernel = PIL.Image.Resampling[interpolation.upper()]
    # One axis after the other, each rounded to 8 bits: the order is CLIP's and
    # the server's, that of Pillow up to 12. Pillow 13 chooses by the sizes.
    strip = height > 100 * width and new[1] < height
    steps = [(width, new[1]), new] if strip else [(new[0], height), new]
    for step in steps:
        if step != rgb.size:
            rgb = rgb.resize(step, kernel)
    # Rounding twice is not rounding once: what the server will take off is
    # left out of the one rounding that there should be.
    inner = size if crop is None else crop
    left = round((rgb.width - inner) / 2) - round((size - inner) / 2)
    top = round((rgb.height - inner) / 2) - round((size - inner) / 2)
    return rgb.crop((left, top, left + size, top + size))
