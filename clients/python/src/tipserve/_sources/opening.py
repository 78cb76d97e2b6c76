"""Labelled pictures, in whatever they come: what `create_cache` and `evaluate` go through."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipserve._arrays import is_array
from tipserve._examples import ClassSpec, Example, Opened
from tipserve._files import (
    exists,
    is_data_url,
    is_url,
    local_path,
    matching,
    refuse_empty,
    shortened,
)
from tipserve._npz import read_npz
from tipserve._sources.coco import open_coco
from tipserve._sources.datasets import (
    is_hugging_face,
    is_torch_dataset,
    open_hugging_face,
    open_torch_dataset,
    refuse_splits,
)
from tipserve._sources.folders import open_folder, open_pattern, open_url
from tipserve._sources.items import items_of
from tipserve._sources.tables import (
    Columns,
    Rows,
    columns_rows,
    frame_columns,
    frame_rows,
    is_columns,
    is_frame,
    labels_of,
    open_csv,
    open_jsonl,
    open_parquet,
)

_BY_SUFFIX: dict[str, Callable[[Path], Opened]] = {
    ".npz": lambda path: _open_npz(path),
    ".csv": lambda path: open_csv(path, None),
    ".tsv": lambda path: open_csv(path, "\t"),
    ".jsonl": open_jsonl,
    ".ndjson": open_jsonl,
    ".parquet": open_parquet,
    ".json": open_coco,
}


def open_source(source: Any) -> Opened:
    """Finds out what a source is, and what its classes are; reads no picture yet."""
    if isinstance(source, str | os.PathLike):
        return _open_path(source)
    if is_frame(source):
        columns = Columns.among(frame_columns(source), "the data frame")
        return Opened(Rows(columns, frame_rows(source)))
    if isinstance(source, bytes | bytearray | memoryview) or is_array(source):
        raise TypeError(f"a {type(source).__name__} is not a folder and holds no examples")
    if is_hugging_face(source):
        return open_hugging_face(source)
    if isinstance(source, Mapping):
        return _open_mapping(source)
    if is_torch_dataset(source):
        return open_torch_dataset(source)
    if not isinstance(source, Iterable):
        raise TypeError(f"a {type(source).__name__} holds no examples")
    return Opened(_Examples(source), repeatable=iter(source) is not source)


def _open_path(source: str | os.PathLike[str]) -> Opened:
    refuse_empty(source)
    if isinstance(source, str):
        if is_data_url(source):
            raise TypeError("a data: address is one picture, and holds no examples")
        source = local_path(source)
        files = matching(source)
        if files is not None:
            if not files:
                raise FileNotFoundError(f"no file matches {shortened(source)}")
            return open_pattern(files)
        if is_url(source):
            return open_url(source)
    path = Path(source)
    if exists(path, Path.is_file):
        by_suffix = _BY_SUFFIX.get(path.suffix.lower())
        if by_suffix is not None:
            return by_suffix(path)
    return open_folder(path)


def _open_mapping(source: Mapping[Any, Any]) -> Opened:
    """{"image": [...], "label": [...]}, or {"cat": pictures, "dog": pictures}."""
    refuse_splits(source)
    if is_columns(source):
        return Opened(Rows(Columns.among(source, "the dict"), columns_rows(source)))
    for name in source:
        if not isinstance(name, str):
            raise TypeError(f"a dict of classes has names as its keys, not {name!r}")
    classes = [ClassSpec(name) for name in source]
    groups = [items_of(pictures) for pictures in source.values()]
    repeatable = all(iter(group) is not group for group in groups)
    return Opened(_Grouped(groups), classes, complete=True, repeatable=repeatable)


@dataclass(frozen=True)
class _Grouped:
    groups: list[Any]

    def __iter__(self) -> Iterator[Example]:
        for index, group in enumerate(self.groups):
            for picture in group:
                yield Example(index, picture)


@dataclass(frozen=True)
class _Examples:
    """What an iterable gives, as examples."""

    source: Iterable[Any]

    def __iter__(self) -> Iterator[Example]:
        columns: Columns | None = None
        for position, given in enumerate(self.source):
            if isinstance(given, Mapping):
                columns = columns or Columns.among(given, f"example {position}")
                try:
                    example = columns.example(given, position)
                except KeyError as error:
                    raise ValueError(f"example {position} lacks {error}") from error
                yield example
            else:
                yield _example(given, position)


def _example(given: Any, position: int) -> Example:
    if isinstance(given, Example):
        return given
    if isinstance(given, tuple | list) and len(given) == 2 and not isinstance(given[0], float):
        return Example(labels_of(given[1], position), given[0])
    raise TypeError(
        f"example {position} is a {type(given).__name__}: give tipserve.Example, (picture, label) "
        "pairs or dicts with a picture and a label"
    )


def _open_npz(path: Path) -> Opened:
    held = read_npz(path)
    rows = held.text_weights
    classes = [
        ClassSpec(name, text_weight=None if rows is None else rows[index].tolist())
        for index, name in enumerate(held.classes)
    ]
    examples = [
        Example(label, row, id=str(position))
        for position, (label, row) in enumerate(zip(held.labels, held.features, strict=True))
    ]
    return Opened(examples, classes)
