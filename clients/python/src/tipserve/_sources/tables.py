"""Rows with a picture and its class: data frames, dicts, CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import math
import operator
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipserve._examples import ClassSpec, Example, Opened
from tipserve._files import is_data_url, is_url, local_path, readable
from tipserve.errors import InvalidArgument

# In the order in which they are preferred.
PICTURES = (
    *("image", "img", "picture", "photo"),
    *("image_path", "img_path", "filepath", "file_path", "path", "file_name", "filename", "file"),
    *("image_url", "img_url", "url", "embedding", "embeddings", "features"),
)
LABELS = ("label", "labels", "class", "class_name", "category", "target")
_IDS = ("id", "example_id", "image_id")
# As large as a C long is everywhere; the csv module's own limit is 128 KiB.
_LONGEST_FIELD = 2**31 - 1

# Unicode's; str.strip() takes four control characters off, too.
_SPACES = "".join(filter(str.isspace, map(chr, [*range(0x1C), *range(0x20, 0x3001)])))

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """Which columns hold what."""

    picture: str
    label: str | None
    id: str | None

    @classmethod
    def among(cls, names: Iterable[Any], what: str, *, labelled: bool = True) -> Columns:
        """The columns by their names; `InvalidArgument` where that would be a guess."""
        listed = [str(name) for name in names]
        found = {name.lower(): name for name in reversed(listed)}
        picture = next((found[name] for name in PICTURES if name in found), None)
        labels = [found[name] for name in LABELS if name in found]
        if picture is None:
            raise _columns(what, listed, f"none is a picture's: {', '.join(PICTURES)}")
        if labelled and len(labels) != 1:
            which = " and ".join(labels) or "none"
            raise _columns(what, listed, f"{which} may be the class's: name one of them 'label'")
        label = labels[0] if len(labels) == 1 else None
        id = next((found[name] for name in _IDS if name in found), None)
        for name in (picture, label, id):
            if name is not None and [one.lower() for one in listed].count(name.lower()) > 1:
                raise _columns(what, listed, f"several are called {name!r}: leave all but one out")
        return cls(picture, label, id)

    def example(self, row: Row, position: int, folder: Path | None = None) -> Example:
        """One row; KeyError if it lacks a column."""
        picture = row[self.picture]
        if is_missing(picture):
            raise ValueError(f"example {position} has no picture")
        if folder is not None:
            if isinstance(picture, Mapping) and picture.get("bytes") is None:
                # A picture of `datasets` by the path of its file.
                picture = picture.get("path")
            if picture is None or picture == "":
                raise ValueError(f"example {position} has no picture")
        id = "" if self.id is None else _id_of(row[self.id], position)
        if folder is not None and isinstance(picture, str) and not is_data_url(picture):
            picture = local_path(picture)
            if not is_url(picture):
                # As it is written in the file: the same wherever the folder lies.
                id = id or picture
                picture = os.path.join(folder, picture)
        assert self.label is not None
        return Example(labels_of(row[self.label], position), picture, id=id)


def is_missing(value: Any) -> bool:
    """Whether a table has nothing there: None, NaN of any kind, pandas's NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    # numpy's float16 and float32 are no floats.
    return type(value).__name__.startswith("float") and bool(value != value)


def text_of_str(value: str) -> str:
    """The text of a str: of an Enum's member, str() gives its name."""
    return str.__str__(value)


def trimmed(name: str) -> str:
    """A class's name without the spaces around it."""
    return text_of_str(name).strip(_SPACES)


def _id_of(value: Any, position: int) -> str:
    """An id as text; none where a table has nothing.

    What another program would write otherwise is no id: a column of whole numbers in which one
    is missing has become one of floats.
    """
    if is_missing(value):
        return ""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str):
        return text_of_str(value)
    whole = None if isinstance(value, bool) else _whole(value)
    if whole is None or not -(2**63) <= whole < 2**64:
        raise ValueError(
            f"example {position}: its id is {value!r}, neither a text nor a whole number of at "
            "most 64 bits"
        )
    return str(whole)


def _whole(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None


def no_number(text: str) -> Any:
    """What JSON does not have, and Python's reader takes: NaN, Infinity."""
    raise ValueError(f"{text} is no JSON")


def finite(text: str) -> float:
    """A number that is not whole; ValueError for one that has no end as a float."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def text_of(value: Any) -> None:
    """Raises ValueError for half of a surrogate pair in a text of JSON."""
    json.dumps(value, ensure_ascii=False).encode()


def labels_of(value: Any, position: int) -> str | int | tuple[str | int, ...]:
    """A class's name or index, or a list of them; ValueError for anything else."""
    if type(value).__name__ == "ndarray" and value.ndim == 1:
        # A cell of a data frame: names. Numbers may be one for each class.
        names = value.tolist()
        if all(isinstance(one, str) for one in names):
            value = names
    if isinstance(value, list | tuple | set | frozenset):
        labels = tuple(label_of(one, position) for one in value)
        indices = [one for one in labels if not isinstance(one, str)]
        if len(set(indices)) < len(indices):
            raise ValueError(
                f"example {position} has a class twice in its list, {value!r}: a list has the "
                "indices of its classes, not a number for each class"
            )
        return labels
    return label_of(value, position)


def label_of(value: Any, position: int) -> str | int:
    """A class's name, without spaces around it, or its index; ValueError for anything else."""
    if isinstance(value, str):
        if "\ufeff" in value:
            raise ValueError(f"example {position} has a byte order mark in its class, {value!r}")
        name = trimmed(value)
        if name:
            return name
    elif not isinstance(value, bool) and not _is_true_or_false(value):
        whole = _whole(value)
        if whole is not None:
            return whole
    missing = is_missing(value) or isinstance(value, str)
    what = "has no class" if missing else f"has the class {value!r}, neither a name nor an index"
    raise ValueError(f"example {position} {what}")


def _is_true_or_false(value: Any) -> bool:
    """Of a tensor or an array of one value, which would be 0 or 1."""
    return str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _columns(what: str, listed: Sequence[str], why: str) -> InvalidArgument:
    names = ", ".join(listed) or "none"
    return InvalidArgument(
        f"{what}: of its columns ({names}) {why}; or give (picture, label) pairs",
        reason="COLUMNS_UNCLEAR",
        metadata={"columns": names},
    )


@dataclass(frozen=True)
class Rows:
    """Rows that can be gone through more than once, as examples."""

    columns: Columns
    rows: Callable[[], Iterator[Row]]
    file: Path | None = None
    """The file that they are in; paths begin at its folder."""

    def __iter__(self) -> Iterator[Example]:
        if self.file is None:
            for position, row in enumerate(self.rows()):
                yield self.columns.example(row, position)
        else:
            yield from self._of_file(self.file)

    def _of_file(self, file: Path) -> Iterator[Example]:
        for position, row in enumerate(self.rows()):
            try:
                example = self.columns.example(row, position, file.parent)
            except KeyError as error:
                raise _damaged(file, f"example {position} lacks {error}") from error
            except ValueError as error:
                raise _damaged(file, str(error)) from error
            yield example


@dataclass(frozen=True)
class Pictures:
    """The pictures of rows."""

    column: str
    rows: Callable[[], Iterator[Row]]

    def __iter__(self) -> Iterator[Any]:
        for row in self.rows():
            yield row[self.column]


# Frames and dicts of columns


def is_frame(thing: object) -> bool:
    """Whether it is a data frame of pandas or polars, or a table of Arrow's."""
    named = any(kind.__name__ == "DataFrame" for kind in type(thing).__mro__)
    return (named and hasattr(thing, "columns")) or _is_arrow(thing)


def _is_arrow(thing: object) -> bool:
    is_its = type(thing).__module__.split(".")[0] == "pyarrow"
    return is_its and hasattr(thing, "to_pylist") and hasattr(thing, "schema")


def frame_columns(frame: Any) -> list[Any]:
    """The names of its columns."""
    return list(frame.schema.names if _is_arrow(frame) else frame.columns)


def frame_rows(frame: Any) -> Callable[[], Iterator[Row]]:
    """Its rows, one by one."""
    columns = frame_columns(frame)
    names = [str(name) for name in columns]

    def rows() -> Iterator[Row]:
        if _is_arrow(frame):
            for batch in frame.to_batches() if hasattr(frame, "to_batches") else [frame]:
                yield from batch.to_pylist()
            return
        # By their places: several may have one name.
        if hasattr(frame, "itertuples"):
            found = frame.itertuples(index=False, name=None)
        elif hasattr(frame, "iter_rows"):
            found = frame.iter_rows()
        else:
            kind = f"{type(frame).__module__}.{type(frame).__name__}"
            raise TypeError(f"a {kind} has no rows to go through: give one of pandas or polars")
        for row in found:
            yield dict(zip(names, row, strict=True))

    return rows


def is_columns(thing: object) -> bool:
    """Whether it is a dict of columns, {"image": [...], "label": [...]}."""
    if not isinstance(thing, Mapping):
        return False
    names = {str(name).lower() for name in thing}
    return not names.isdisjoint(PICTURES) and not names.isdisjoint(LABELS)


def columns_rows(table: Mapping[str, Sequence[Any]]) -> Callable[[], Iterator[Row]]:
    """Its rows, one by one.

    Raises TypeError where a column is one thing, which would be gone through letter by letter,
    and ValueError where one is longer than another.
    """
    for name, column in table.items():
        if isinstance(column, str | bytes | bytearray | Mapping):
            raise TypeError(
                f"the dict's column {name!r} is a {type(column).__name__}, not a list: give lists "
                "of pictures and labels, or a list of dicts"
            )
    lengths = {name: len(column) for name, column in table.items() if hasattr(column, "__len__")}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise ValueError(f"the dict's columns are not of one length: {told}")

    def rows() -> Iterator[Row]:
        for values in zip(*table.values(), strict=True):
            yield dict(zip(table, values, strict=True))

    return rows


# Files


def open_csv(path: Path, delimiter: str | None) -> Opened:
    """A CSV or TSV file with a line of names; paths begin at its folder.

    Without a delimiter it is what the first line has most of: a comma, a semicolon (as
    spreadsheets write in countries with a decimal comma), or a tab.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    by_columns = delimiter or max(",;\t", key=first.count)
    # A picture may stand in its field, as a data: address. The limit is the whole process's.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))

    def lines() -> Iterator[tuple[int, list[str]]]:
        # The mark that Excel begins a file with is no part of the first name.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=by_columns, strict=True)
            try:
                for line in reader:
                    if line:
                        yield reader.line_num, line
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise _damaged(path, f"line {reader.line_num}: {error}") from error

    names = [name.strip() for name in next(lines(), (0, []))[1]]
    columns = Columns.among(names, readable(str(path)))
    # The list of labels that the command line writes and reads.
    several = by_columns == "," and sorted(names) == ["file", "labels"]

    def rows() -> Iterator[Row]:
        for number, line in itertools.islice(lines(), 1, None):
            if len(line) != len(names):
                raise _damaged(path, f"line {number} has another number of columns")
            row: dict[str, Any] = dict(zip(names, line, strict=True))
            if columns.label is not None:
                label = trimmed(row[columns.label])
                row[columns.label] = _several(label) if several else label
            yield row

    return Opened(Rows(columns, rows, path))


def _several(labels: str) -> list[str]:
    """ "cat;dog", or nothing, as a list."""
    parts = (trimmed(label) for label in labels.split(";"))
    return [label for label in parts if label]


def open_jsonl(path: Path) -> Opened:
    """JSON lines, one object an example; paths begin at the file's folder."""

    def rows(picture: str | None = None) -> Iterator[Row]:
        try:
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _json_object(path, line, number, picture)
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(path, str(error)) from error

    first = next(rows(), None)
    if first is None:
        raise _damaged(path, "it has no lines")
    columns = Columns.among(first, readable(str(path)))
    return Opened(Rows(columns, functools.partial(rows, columns.picture), path))


def _json_object(path: Path, line: str, number: int, picture: str | None) -> Row:
    try:
        row = json.loads(line, parse_constant=no_number, parse_float=finite)
        text_of(row)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise _damaged(path, f"line {number} is no object")
    given = row.get(picture)
    if isinstance(given, list):
        for value in given:
            if isinstance(value, bool) or not isinstance(value, int | float):
                what = f"its embedding holds {json.dumps(value)}, which is no number"
                raise _damaged(path, f"line {number}: {what}")
    elif given is not None and not isinstance(given, str):
        what = f'"{picture}" is {json.dumps(given)}, neither a path nor an embedding'
        raise _damaged(path, f"line {number}: {what}")
    return row


def open_parquet(path: Path) -> Opened:
    """A Parquet file, as `datasets` writes them too: with the names of its classes."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise _damaged(path, "reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        schema = parquet.read_schema(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    columns = Columns.among(schema.names, readable(str(path)))
    wanted = [name for name in (columns.picture, columns.label, columns.id) if name is not None]

    def rows() -> Iterator[Row]:
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=64, columns=wanted):
                    yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error

    names = _names_in(schema.metadata or {}, columns.label)
    classes = None if names is None else [ClassSpec(name) for name in names]
    return Opened(Rows(columns, rows, path), classes)


def _names_in(metadata: Mapping[bytes, bytes], label: str | None) -> list[str] | None:
    """What the indices of a column of `datasets` stand for."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label]
        # Of a list of labels, what it is a list of.
        return [str(name) for name in feature.get("feature", feature)["names"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _damaged(path: Path, why: str) -> InvalidArgument:
    name = readable(str(path))
    return InvalidArgument(
        f"cannot read {name}: {why}", reason="FILE_UNREADABLE", metadata={"path": name}
    )
