"""Pixels and embeddings as numpy arrays and torch tensors, told apart without guessing.

Nothing is cast in silence: what could mean two things is refused, and the
error says what to give instead.
"""

from __future__ import annotations

from typing import Any, Literal

from tipserve.errors import InvalidArgument

Color = Literal["rgb", "bgr"]
"""The order of an array's channels. Pictures are RGB; OpenCV's arrays are "bgr"."""

COLORS = ("rgb", "bgr")

# What files begin with: cv2.imencode gives a file's bytes as an array. What the server does not
# read goes to it all the same, which says what it is.
_FILES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*"),
    *(b"II+\0", b"MM\0+", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7"),
    *(b"\0\0\0 ftyp", b"\0\0\0\x1cftyp", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)

_WANTED = (
    "pixels are uint8, or floats from 0 to 1, of [height, width, 3], [3, height, width], "
    "[height, width, 1] or [height, width]; an embedding is floats of [D]"
)


def is_array(thing: object) -> bool:
    """Whether it is an array or a tensor."""
    return hasattr(thing, "shape") and (hasattr(thing, "__array__") or hasattr(thing, "dtype"))


def is_tensor(thing: object) -> bool:
    """Whether it is torch's: its pictures are [3, height, width]."""
    return any(kind.__module__.split(".")[0] == "torch" for kind in type(thing).__mro__)


def as_numpy(thing: Any) -> Any:
    """The array, in main memory."""
    import numpy

    if is_tensor(thing):
        return _of_tensor(thing)
    if isinstance(thing, numpy.ma.MaskedArray) and numpy.ma.is_masked(thing):
        raise TypeError("a masked array has values that count as missing: fill them first")
    return numpy.asarray(thing)


def _of_tensor(tensor: Any) -> Any:
    try:
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # which numpy does not have
            tensor = tensor.float()
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        # Sparse, quantised, without data, of a dtype that numpy does not have.
        raise TypeError(f"this tensor cannot be read as an array: {error}") from error


def file_bytes(array: Any) -> bytes | None:
    """The file that an array of bytes is, as cv2.imencode gives it: [size] or [size, 1]."""
    flat = array.ndim == 1 or (array.ndim == 2 and 1 in array.shape)
    if array.dtype.kind == "u" and array.dtype.itemsize == 1 and flat and array.size:
        data = bytes(array.tobytes())
        if data.startswith(_FILES):
            return data
    return None


def is_embedding(array: Any) -> bool:
    """Whether it is one: numbers of [D], of more than 8 bits."""
    return array.ndim == 1 and array.dtype.kind in "fiu" and str(array.dtype) != "uint8"


def is_one_picture(array: Any, tensor: bool) -> bool:
    """Whether it is the pixels of one picture, and not several things in a row."""
    if array.ndim == 3:
        return _channels_last(array.shape, tensor) is not None
    return array.ndim == 2 and array.dtype.kind in "bu" and array.dtype.itemsize == 1


def _channels_last(shape: tuple[int, ...], tensor: bool) -> bool | None:
    """Whether the channels are the last axis of three; None where neither can be."""
    last, first = shape[2] in (1, 3), shape[0] in (1, 3)
    if not (last or first):
        return None
    return not first if tensor else last


def rgb_pixels(array: Any, tensor: bool, color: str) -> Any:
    """uint8 of [height, width, 3], in RGB.

    Raises TypeError for what is no picture, and `InvalidArgument` for values
    that would have to be guessed at.
    """
    import numpy

    shape = list(array.shape)
    channels_last = _channels_last(array.shape, tensor) if array.ndim == 3 else True
    whole = array.dtype == numpy.uint8
    if array.ndim not in (2, 3) or channels_last is None or not (whole or array.dtype.kind == "f"):
        hint = _hint(array)
        raise TypeError(f"an array of {array.dtype} {shape} is no picture: {hint}{_WANTED}")
    if array.ndim == 2 and not whole:
        raise TypeError(
            f"an array of {array.dtype} {shape} may be a grey picture or several embeddings: give "
            "a grey picture as uint8 or [height, width, 1], embeddings one by one"
        )
    if 0 in array.shape:
        raise InvalidArgument(f"the picture has no pixels: {shape}", reason="PICTURE_EMPTY")
    if array.ndim == 3 and not channels_last:
        array = numpy.moveaxis(array, 0, 2)
    if not whole:
        array = _from_floats(array)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = numpy.repeat(array, 3, axis=2)
    if color == "bgr":
        array = array[:, :, ::-1]
    return numpy.ascontiguousarray(array)


def _hint(array: Any) -> str:
    """What to do with an array that is a picture in another form."""
    if array.ndim == 4:
        return "give the pictures of a batch one by one; "
    if array.dtype.kind == "b":
        return "for white where it is True, give array.astype('uint8') * 255; "
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        return "scale it to uint8 first, by what white is in it; "
    if array.ndim == 3 and array.shape[2] == 4:
        return "leave the alpha channel out, array[:, :, :3]; "
    return ""


def _from_floats(array: Any) -> Any:
    import numpy

    low, high = float(array.min()), float(array.max())
    # What resizing leaves: a few units in the last place beyond white.
    slack = 4 * float(numpy.finfo(array.dtype).eps)
    if not (low >= -slack and high <= 1 + slack):
        found = f"these are from {low:.9g} to {high:.9g}"
        if numpy.isnan(low):
            found = "some of these are no number (NaN)"
        raise InvalidArgument(
            f"pixels as floats are from 0 to 1, and {found}: give what was not normalised, or "
            "uint8 for values from 0 to 255",
            reason="PIXELS_OUT_OF_RANGE",
            metadata={"min": f"{low:g}", "max": f"{high:g}"},
        )
    return numpy.rint(array.clip(0, 1) * numpy.float32(255)).astype(numpy.uint8)


def check_color(color: str) -> None:
    """Raises ValueError for another order of channels."""
    if color not in COLORS:
        raise ValueError(f"color is {color!r}, must be 'rgb' or 'bgr'")


def check_many(things: Any) -> None:
    """Raises TypeError for one picture or embedding where an iterable of them is meant."""
    one = None
    if is_array(things):
        array = as_numpy(things)
        if file_bytes(array) is not None:
            one = "a file's bytes"
        elif array.ndim == 3 and array.shape[2] in (2, 4):
            # No pictures of rows this short, but one with an alpha channel.
            raise TypeError(
                f"this is the pixels of one picture with alpha, {list(array.shape)}: leave the "
                "alpha out, array[:, :, :-1], and give an iterable of such, or use classify_one"
            )
        elif is_one_picture(array, is_tensor(things)):
            one = f"the pixels of one picture, {list(array.shape)}"
        elif array.ndim < 2 and array.dtype.kind in "biuf":
            one = f"one embedding, [{array.size}]"
    elif isinstance(things, list | tuple) and things and isinstance(things[0], int | float):
        one = f"one embedding, [{len(things)}]"
    if one is not None:
        raise TypeError(f"this is {one}; give an iterable of them, [picture], or use classify_one")
