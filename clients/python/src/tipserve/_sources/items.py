"""Pictures without classes: what `classify` goes through."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tipserve._arrays import check_many
from tipserve._files import (
    exists,
    is_data_url,
    is_url,
    local_path,
    matching,
    picture_files,
    refuse_empty,
    shortened,
    url_files,
)
from tipserve._sources.datasets import (
    TorchPictures,
    hugging_face_pictures,
    is_hugging_face,
    is_torch_dataset,
    refuse_splits,
)
from tipserve._sources.tables import Columns, Pictures, frame_columns, frame_rows, is_frame


def items_of(source: Any) -> Any:
    """What `classify` was given, as something to iterate over.

    Raises TypeError for one thing where many are meant: going through the rows
    of a picture would give a result a row.
    """
    if isinstance(source, str | os.PathLike):
        return _files(source)
    if isinstance(source, bytes | bytearray | memoryview) or _is_one(source):
        raise TypeError(
            f"classify takes an iterable of pictures, and this is one ({type(source).__name__}): "
            "give [picture], or use classify_one"
        )
    if is_frame(source):
        names = frame_columns(source)
        column = Columns.among(names, "the data frame", labelled=False).picture
        return Pictures(column, frame_rows(source))
    check_many(source)
    if is_hugging_face(source):
        return Pictures(*hugging_face_pictures(source))
    if isinstance(source, Mapping):
        refuse_splits(source)
        raise TypeError("a dict is no iterable of pictures: give its values")
    if is_torch_dataset(source):
        return TorchPictures(source)
    if not isinstance(source, Iterable) and not hasattr(source, "__aiter__"):
        raise TypeError(f"classify takes an iterable of pictures, not a {type(source).__name__}")
    return source


def _is_one(source: Any) -> bool:
    pillow = any(kind.__module__.startswith("PIL.") for kind in type(source).__mro__)
    item = type(source).__name__ == "Item" and hasattr(source, "picture")
    return pillow or item or callable(getattr(source, "read", None))


def _files(source: str | os.PathLike[str]) -> Iterable[Any]:
    refuse_empty(source)
    if isinstance(source, str):
        if is_data_url(source):
            return [source]
        source = local_path(source)
        files = matching(source)
        if files is not None:
            if not files:
                raise FileNotFoundError(f"no file matches {shortened(source)}")
            return files
        if is_url(source):
            return [url for _, url in url_files(source)]
    path = Path(source)
    if exists(path, Path.is_file):
        return [path]
    if not exists(path, Path.is_dir):
        raise FileNotFoundError(f"there is no file or folder {shortened(str(path))}")
    return picture_files(path)
