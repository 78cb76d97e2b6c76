"""Embeddings in an .npz file, read as the command line reads them: nothing is cast in silence."""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

from tipserve._files import readable
from tipserve.errors import InvalidArgument

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
# The flag of a member that needs a password.
_ENCRYPTED = 1


@dataclass(frozen=True)
class Embedded:
    """What an .npz file holds."""

    features: Any
    """float32, [M, D]."""
    labels: list[int]
    """[M], each an index into `classes`."""
    classes: list[str]
    """[N]"""
    text_weights: Any | None
    """float32, [N, D]."""


def read_npz(path: str | os.PathLike[str]) -> Embedded:
    """Reads `features` [M, D], `labels` [M], `classes` [N] and, if there, `text_weights` [N, D].

    Raises `InvalidArgument` with the reason NPZ_INVALID, naming file and array.
    """
    name = readable(os.fspath(path))
    if importlib.util.find_spec("numpy") is None:
        raise _invalid(f"reading {name} needs numpy: pip install 'tipserve[numpy]'", name)
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        why = str(error) or "it is cut short"
        raise _invalid(f"{name} is not an .npz file: {why}", name) from error
    with archive:
        return _Reader(name, archive).read()


class _Reader:
    """One open archive; its errors name the file and the array."""

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        members = archive.namelist()
        self._names = {one.removesuffix(".npy") for one in members if one.endswith(".npy")}

    def read(self) -> Embedded:
        features = self._matrix("features")
        labels = self._labels(len(features))
        classes = self._classes()
        for row, label in enumerate(labels):
            if not 0 <= label < len(classes):
                raise self._wrong(
                    "labels",
                    f"holds {label} at position {row}, but classes has {len(classes)} names: "
                    f"labels are 0 to {len(classes) - 1}",
                )
        weights = None
        if "text_weights" in self._names:
            weights = self._matrix("text_weights")
            if weights.shape != (len(classes), features.shape[1]):
                raise self._wrong(
                    "text_weights",
                    f"has shape {list(weights.shape)}, but classes and features ask for "
                    f"[{len(classes)}, {features.shape[1]}]",
                )
        return Embedded(features, labels, classes, weights)

    def _matrix(self, name: str) -> Any:
        import numpy

        array = self._array(name)
        if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
            raise self._wrong(name, f"has dtype {array.dtype}, not float16, float32 or float64")
        if array.ndim != 2 or not array.shape[1]:
            raise self._wrong(name, f"has shape {list(array.shape)}, not [rows, width]")
        # A float64 beyond float32's range becomes infinite; the server says so.
        with numpy.errstate(over="ignore"):
            return array.astype(numpy.float32, copy=False)

    def _labels(self, rows: int) -> list[int]:
        array = self._array("labels")
        if array.dtype.kind not in "iu":
            raise self._wrong("labels", f"has dtype {array.dtype}, not whole numbers")
        if array.ndim != 1:
            raise self._wrong("labels", f"has shape {list(array.shape)}, not [M]")
        if len(array) != rows:
            raise self._wrong("labels", f"has {len(array)} values, but features has {rows} rows")
        return [int(label) for label in array]

    def _classes(self) -> list[str]:
        array = self._array("classes")
        if array.dtype.kind not in "US":
            raise self._wrong("classes", f"has dtype {array.dtype}, not strings")
        if array.ndim != 1:
            raise self._wrong("classes", f"has shape {list(array.shape)}, not [N]")
        if not len(array):
            raise self._wrong("classes", "is empty: at least one class is needed")
        if array.dtype.kind == "U":
            self._check_letters(array)
            names = [str(one) for one in array]
        else:
            try:
                names = [bytes(one).decode() for one in array]
            except UnicodeDecodeError as error:
                raise self._wrong("classes", f"holds bytes that are not UTF-8: {error}") from error
        for position, name in enumerate(names):
            if not name.strip():
                raise self._wrong("classes", f"has no name at position {position}")
            control = next((one for one in name if unicodedata.category(one) == "Cc"), None)
            if control is not None:
                raise self._wrong(
                    "classes",
                    f"has a name at position {position} that holds the control character "
                    f"U+{ord(control):04X}",
                )
        return names

    def _check_letters(self, classes: Any) -> None:
        """numpy takes any number for a letter: half of a surrogate pair, or one beyond Unicode."""
        import numpy

        letters = classes.dtype.itemsize // 4
        if not letters:
            return
        kind = numpy.dtype("u4").newbyteorder(classes.dtype.byteorder)
        codes = numpy.frombuffer(classes.tobytes(), kind).reshape(-1, letters)
        wrong = (codes > sys.maxunicode) | ((codes >= 0xD800) & (codes <= 0xDFFF))
        for position, letter in numpy.argwhere(wrong)[:1]:
            raise self._wrong(
                "classes",
                f"has a name at position {position} with the value {codes[position, letter]:#x}, "
                "which is no character",
            )

    def _array(self, name: str) -> Any:
        import numpy

        if name not in self._names:
            there = ", ".join(sorted(self._names)) or "none"
            raise self._wrong(name, f"is missing (arrays in the file: {there})")
        member = self._archive.getinfo(f"{name}.npy")
        if member.compress_type not in _COMPRESSIONS:
            raise self._wrong(name, "cannot be read: only stored, deflated and bzip2 arrays are")
        if member.flag_bits & _ENCRYPTED:
            raise self._wrong(name, "cannot be read: it is encrypted")
        try:
            # numpy.load takes other files too, and gives what is no array as bytes.
            with self._archive.open(member) as file:
                array = numpy.lib.format.read_array(file, allow_pickle=False)
                # A checksum is compared where a member ends.
                while file.read(1 << 16):
                    pass
                return array
        except ValueError as error:
            if "pickle" in str(error) or "Object arrays" in str(error):
                raise self._wrong(
                    name,
                    "holds Python objects (dtype object), which are never unpickled; save it with "
                    "a dtype of numbers, or as strings with np.array(names, dtype=str)",
                ) from error
            raise self._wrong(name, f"cannot be read: {error}") from error
        except (OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise self._wrong(name, f"cannot be read: {error}") from error

    def _wrong(self, array: str, why: str) -> InvalidArgument:
        return _invalid(f"{self._path}: the array {array} {why}", self._path, array=array)


def _invalid(message: str, path: str, **metadata: str) -> InvalidArgument:
    return InvalidArgument(message, reason="NPZ_INVALID", metadata={"path": path, **metadata})
