"""Data sets of Hugging Face's `datasets` and of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tipserve._examples import ClassSpec, Example, Opened
from tipserve._sources.folders import part_of, splits_message
from tipserve._sources.tables import Columns, Row, Rows, label_of
from tipserve.errors import InvalidArgument


def is_hugging_face(thing: object) -> bool:
    """Whether it is a data set of `datasets`, streamed or not, or a dict of them.

    One of its columns is a list as any other.
    """
    return type(thing).__module__.split(".")[0] == "datasets" and hasattr(thing, "cast_column")


def open_hugging_face(data: Any) -> Opened:
    """Its pictures, as the files that they are, with the names of its ClassLabel."""
    refuse_splits(data)
    columns = _columns(data, labelled=True)
    label = (data.features or {}).get(columns.label)
    # Of a list of labels, what it is a list of.
    names = getattr(getattr(label, "feature", label), "names", None)
    classes = None if names is None else [ClassSpec(str(name)) for name in names]
    return Opened(Rows(columns, undecoded_rows(data, columns.picture)), classes)


def hugging_face_pictures(data: Any) -> tuple[str, Callable[[], Iterator[Row]]]:
    """The column of its pictures, and its rows."""
    refuse_splits(data)
    column = _columns(data, labelled=False).picture
    return column, undecoded_rows(data, column)


def undecoded_rows(data: Any, column: str) -> Callable[[], Iterator[Row]]:
    """Its rows, with files instead of pixels: the server decodes."""
    feature: Any = (data.features or {}).get(column)
    kind = (getattr(data, "format", None) or {}).get("type")
    if kind == "custom":
        # A transform of the caller's, which expects pictures.
        return lambda: iter(data)
    if kind is not None:
        # Rows as they are, not as a framework's arrays or a frame of one row.
        data = data.with_format(None)
    if type(feature).__name__ == "Image":
        data = data.cast_column(column, type(feature)(decode=False))
    return lambda: iter(data)


def _columns(data: Any, *, labelled: bool) -> Columns:
    features: Mapping[str, Any] = data.features or next(iter(data), {})
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if len(pictures) == 1 and (not labelled or len(labels) == 1 or "label" in labels):
        label = "label" if "label" in labels else next(iter(labels), None)
        return Columns(pictures[0], label, None)
    return Columns.among(features, "the data set", labelled=labelled)


def refuse_splits(data: Any) -> None:
    """Refuses {"train": ..., "test": ...}, which `load_dataset` gives."""
    if not isinstance(data, Mapping) or not data:
        return
    names = [str(name) for name in data]
    if not is_hugging_face(data) and any(part_of(name) is None for name in names):
        return
    parts = [
        next((f"data[{name!r}]" for name in names if part_of(name) == part), None)
        for part in range(3)
    ]
    raise InvalidArgument(
        splits_message(f"this dict ({', '.join(names)})", parts), reason="FOLDER_OF_SPLITS"
    )


def is_torch_dataset(thing: object) -> bool:
    """Whether it gives (picture, label) by index: torchvision's, or a torch Dataset."""
    if isinstance(thing, str | bytes | list | tuple | Mapping):
        return False
    mapped = hasattr(type(thing), "__getitem__") and hasattr(type(thing), "__len__")
    bases = type(thing).__mro__
    torch = any(kind.__module__.startswith("torch.utils.data") for kind in bases)
    return mapped and (torch or isinstance(getattr(thing, "classes", None), list | tuple))


def open_torch_dataset(data: Any) -> Opened:
    """Its examples, read one by one; its own list of classes, if it has one."""
    names = _names(data)
    classes = None if names is None else [ClassSpec(name) for name in names]
    return Opened(_Indexable(data), classes)


def _names(data: Any) -> list[str] | None:
    if data is None:
        return None
    names = getattr(data, "classes", None)
    if isinstance(names, list | tuple) and names:
        return [_name(one) for one in names]
    parts = getattr(data, "datasets", None)  # a ConcatDataset's
    if isinstance(parts, list) and parts:
        first, *others = [_names(part) for part in parts]
        if any(other != first for other in others):
            raise InvalidArgument(
                "the data sets that were joined have different classes: an index means another "
                "class in each",
                reason="CLASSES_DIFFER",
            )
        return first
    return _names(getattr(data, "dataset", None))  # a Subset's


def _name(one: Any) -> str:
    if isinstance(one, str):
        return one
    if isinstance(one, tuple | list):  # of synonyms, as ImageNet has them
        return ", ".join(map(str, one))
    raise TypeError(f"the data set's classes are no names: {one!r} is one of them")


@dataclass(frozen=True)
class _Indexable:
    data: Any

    def __iter__(self) -> Iterator[Example]:
        for position in range(len(self.data)):
            given = self.data[position]
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise TypeError(f"item {position} of the data set is no (picture, label)")
            yield Example(label_of(given[1], position), given[0])


@dataclass(frozen=True)
class TorchPictures:
    """The pictures of a data set, read one by one."""

    data: Any

    def __iter__(self) -> Iterator[Any]:
        for position in range(len(self.data)):
            given = self.data[position]
            yield given[0] if isinstance(given, tuple | list) else given
