"""From what users have (paths, bytes, arrays, Pillow pictures) to what the wire takes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from tipserve._proto import input_pb2
from tipserve.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

Picture: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    "PIL.Image.Image",
    "NDArray[np.uint8]",
    "NDArray[np.floating[Any]]",
    Sequence[float],
]
"""A file's path; a file's bytes; a Pillow picture; pixels, uint8 of [height,
width, 3] or [height, width]; or an embedding, floats of [D]."""

# A message may carry other things beside its one picture: ids, tags, lengths.
ENVELOPE_BYTES = 4096
JPEG_QUALITY = 95
# By the server's names, which in capitals are those of PIL.Image.Resampling.
INTERPOLATIONS = ("bicubic", "bilinear")


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
    jpeg: bool = False
    """Send what was resized as JPEG instead of raw pixels."""

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
            raise _too_large(size, self.max_input_bytes)
        return made

    def _encode(self, picture: Picture) -> input_pb2.Input:
        if isinstance(picture, str | os.PathLike):
            return self._file(_read(picture, self.max_input_bytes, whole=self.image_size is None))
        if isinstance(picture, bytes | bytearray | memoryview):
            return self._file(bytes(picture))
        if _is_pillow(picture):
            return self._pillow(picture)
        if hasattr(picture, "__array__") or hasattr(picture, "shape"):
            return self._array(picture)
        if isinstance(picture, Sequence):
            return _embedding(picture)
        raise TypeError(
            f"a {type(picture).__name__} is no picture: give a path, bytes, a Pillow picture, "
            "a uint8 array of [height, width, 3], or an embedding"
        )

    def _file(self, data: bytes) -> input_pb2.Input:
        if not data:
            raise _invalid("the picture is empty (0 bytes)", "PICTURE_EMPTY")
        if self.image_size is not None:
            import PIL.Image

            try:
                with PIL.Image.open(io.BytesIO(data)) as opened:
                    return self._resized(opened, self.image_size)
            except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
                # The server decides about what Pillow cannot read, so that an
                # error is the same whoever resizes.
                pass
        return input_pb2.Input(encoded_image=data)

    def _pillow(self, picture: Any) -> input_pb2.Input:
        try:
            if self.image_size is not None:
                return self._resized(picture, self.image_size)
            return self._pixels(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            # Pillow decodes when it must, and only then sees a damaged file.
            raise _invalid(f"Pillow cannot read it: {error}", "PICTURE_UNDECODABLE") from error

    def _pixels(self, rgb: Any) -> input_pb2.Input:
        """Raw pixels, or PNG where those are over the limit."""
        raw = input_pb2.RawRgb(width=rgb.width, height=rgb.height, data=rgb.tobytes())
        if len(raw.data) <= self.max_input_bytes - 64:
            return input_pb2.Input(raw_rgb=raw)
        png = io.BytesIO()
        rgb.save(png, "PNG", compress_level=1)
        return input_pb2.Input(encoded_image=png.getvalue())

    def _resized(self, picture: Any, size: int) -> input_pb2.Input:
        made = resize_and_crop(picture, size, self.crop_size, self.interpolation)
        if not self.jpeg:
            return self._pixels(made)
        # Colours at full resolution: the encoder sees every pixel.
        file = io.BytesIO()
        made.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return input_pb2.Input(encoded_image=file.getvalue())

    def _array(self, array: Any) -> input_pb2.Input:
        import numpy

        array = numpy.asarray(array)
        if array.ndim == 1 and array.dtype.kind in "fiu" and array.dtype != numpy.uint8:
            return _embedding(array.astype(numpy.float32).tolist())
        if array.dtype != numpy.uint8 or not (
            array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
        ):
            raise TypeError(
                f"an array of {array.dtype} {list(array.shape)} is neither pixels (uint8 of "
                "[height, width, 3] or [height, width]) nor an embedding (floats of [D])"
            )
        if 0 in array.shape:
            raise _invalid(f"the picture has no pixels: {list(array.shape)}", "PICTURE_EMPTY")
        if array.ndim == 2:
            array = numpy.repeat(array[:, :, None], 3, axis=2)
        height, width = array.shape[:2]
        if self.image_size is not None or array.nbytes > self.max_input_bytes - 64:
            try:
                import PIL.Image
            except ImportError:
                raise _too_large(array.nbytes, self.max_input_bytes) from None
            return self._pillow(PIL.Image.fromarray(array))
        raw = input_pb2.RawRgb(width=width, height=height, data=array.tobytes())
        return input_pb2.Input(raw_rgb=raw)


def _invalid(message: str, reason: str, **metadata: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, metadata=metadata)


def _too_large(size: int, limit: int) -> InvalidArgument:
    return _invalid(
        f"the picture takes {size} bytes, over the limit of {limit} bytes that the server's "
        "largest message leaves; make it smaller, or let the client do it: Client(resize='client')",
        "PICTURE_TOO_LARGE",
        what="message bytes",
        value=str(size),
        limit=str(limit),
    )


def _is_pillow(picture: object) -> bool:
    # Without Pillow there can be no Pillow pictures, so it need not be imported.
    return any(kind.__module__.startswith("PIL.") for kind in type(picture).__mro__)


def _read(path: str | os.PathLike[str], limit: int, *, whole: bool) -> bytes:
    """The file's bytes; one that is over the limit is not read at all."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if whole and size > limit:
                raise _too_large(size, limit)
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise _invalid(
            f"cannot read {os.fspath(path)}: {reason}", "FILE_UNREADABLE", path=os.fspath(path)
        ) from error
    except ValueError as error:  # a path with a NUL in it
        raise _invalid(f"cannot read {os.fspath(path)!r}: {error}", "FILE_UNREADABLE") from error


def _embedding(values: Any) -> input_pb2.Input:
    try:
        embedding = input_pb2.Embedding(values=values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"an embedding must be a list of numbers: {error}") from error
    if not embedding.values:
        raise _invalid("the embedding is empty", "EMBEDDING_EMPTY")
    return input_pb2.Input(embedding=embedding)


def resize_and_crop(
    picture: Any, size: int, crop: int | None = None, interpolation: str = "bicubic"
) -> Any:
    """CLIP's own preprocessing up to the pixels, as the server computes it.

    RGB first; the shorter side to `size` (the longer to int(size · long /
    short)) with Pillow's bicubic or bilinear, as `interpolation` says; then the
    centre, its offset rounded half to even. The square has sides of `size`, and
    where `crop` is given it lies so that its own centre of `crop` × `crop`
    pixels is that of the whole picture.

    Raises ValueError for another interpolation.
    """
    import PIL.Image

    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is one of {INTERPOLATIONS}, not {interpolation!r}")
    rgb = picture.convert("RGB")
    width, height = rgb.size
    if not (width and height):
        raise _invalid("the picture has no pixels", "PICTURE_EMPTY")
    if width <= height:
        new = (size, int(size * height / width))
    else:
        new = (int(size * width / height), size)
    if new != (width, height):
        rgb = rgb.resize(new, PIL.Image.Resampling[interpolation.upper()])
    # Rounding twice is not rounding once: what the server will take off is
    # left out of the one rounding that there should be.
    inner = size if crop is None else crop
    left = round((rgb.width - inner) / 2) - round((size - inner) / 2)
    top = round((rgb.height - inner) / 2) - round((size - inner) / 2)
    return rgb.crop((left, top, left + size, top + size))


def picture_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The files under a folder, hidden ones left out, each folder sorted by name.

    What is no picture, the server says. A generator that holds one folder's
    names at a time. Links are followed, but not in circles.
    """
    return _walk(Path(folder), ())


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), (*above, here))
        elif entry.is_file() or entry.is_symlink():
            yield Path(entry.path)
