"""Folders with one folder a class, on disk or at an address."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipserve._examples import ClassSpec, Example, Opened
from tipserve._files import picture_files, readable, subfolders, url_files
from tipserve.errors import InvalidArgument

_TRAINING = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "dev")
_TEST = ("test", "testing")


def open_folder(root: Path) -> Opened:
    """The examples of a folder; no picture is read yet."""
    folders = [] if root.is_file() else subfolders(root)
    if not folders:
        raise _without_classes(root)
    _refuse_splits(root, folders)
    # By position: 'a_b' and 'a b' are two classes of one display name.
    classes = [ClassSpec(display_name(folder.name)) for folder in folders]
    return Opened(_FolderExamples(root, folders), classes, complete=True)


def display_name(folder: str) -> str:
    """A class's name by that of its folder."""
    return readable(folder).replace("_", " ")


@dataclass(frozen=True)
class _FolderExamples:
    root: Path
    folders: Sequence[Path]

    def __iter__(self) -> Iterator[Example]:
        for index, folder in enumerate(self.folders):
            for path in picture_files(folder):
                yield Example(index, path, id=readable(path.relative_to(self.root).as_posix()))


def _without_classes(root: Path) -> InvalidArgument:
    name = readable(str(root))
    if root.is_file():
        return InvalidArgument(
            f"{name} is a file: labelled pictures come from a folder with one folder a class, or "
            "an .npz, .csv, .tsv, .jsonl, .parquet or COCO .json file",
            reason="SOURCE_UNKNOWN",
            metadata={"path": name},
        )
    return InvalidArgument(
        f"{name} has no folders in it: expected one folder a class",
        reason="FOLDER_WITHOUT_CLASSES",
        metadata={"path": name},
    )


def _refuse_splits(root: Path, folders: Sequence[Path]) -> None:
    """Refuses a folder of train, val and test, each with the classes in it.

    A class may be called "test": then there are pictures in its folder, and no
    folders.
    """
    by_name = {folder.name.lower(): folder for folder in folders}
    known = (*_TRAINING, *_VALIDATION, *_TEST)
    if not all(name in known for name in by_name):
        return
    if not all(subfolders(folder) for folder in folders):
        return
    parts = [
        next((str(by_name[name]) for name in names if name in by_name), None)
        for names in (_TRAINING, _VALIDATION, _TEST)
    ]
    raise InvalidArgument(
        splits_message(readable(str(root)), [part and repr(readable(part)) for part in parts]),
        reason="FOLDER_OF_SPLITS",
        metadata={"path": readable(str(root)), "folders": ", ".join(sorted(by_name))},
    )


def splits_message(what: str, parts: Sequence[str | None]) -> str:
    """What to do with parts of data, given by how each is written: train, val, test."""
    train, validation, test = parts
    message = f"{what} holds parts of a data set, not classes"
    if train is not None:
        more = f", validation={validation}" if validation is not None else ""
        message += f"; make the cache of one: create_cache(ID, {train}{more})"
    if test is not None:
        message += f"; and see how well it does: evaluate(ID, {test})"
    return message


def open_url(url: str) -> Opened:
    """The same at an address: a file's first folder is its class."""
    examples = [
        Example(display_name(inside.split("/")[0]), file, id=inside)
        for inside, file in url_files(url)
        if "/" in inside
    ]
    if not examples:
        raise InvalidArgument(
            f"{url} has no folders with files in it: expected one folder a class",
            reason="FOLDER_WITHOUT_CLASSES",
            metadata={"path": url},
        )
    return Opened(examples)


def open_pattern(files: Sequence[str]) -> Opened:
    """The files that a pattern stands for; the folder that each lies in is its class."""
    return Opened([Example(_folder_of(file), file, id=readable(file)) for file in files])


def _folder_of(file: str) -> str:
    folder = os.path.basename(os.path.dirname(os.path.abspath(file) if "://" not in file else file))
    return display_name(folder)
