"""Folders with one folder a class, on disk or at an address."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipserve._examples import ClassSpec, Example, Opened
from tipserve._files import exists, picture_files, readable, subfolders, url_files
from tipserve.errors import InvalidArgument

# The parts of a data set: for training, validation and testing.
_PARTS = (
    ("train", "training"),
    ("val", "valid", "validation", "dev", "eval", "evaluation"),
    ("test", "testing", "holdout"),
)


def open_folder(root: Path) -> Opened:
    """The examples of a folder; no picture is read yet."""
    folders = [] if exists(root, Path.is_file) else subfolders(root)
    if not folders:
        raise _without_classes(root)
    _refuse_splits(
        str(root),
        {folder.name: str(folder) for folder in folders},
        lambda one: subfolders(Path(one)),
    )
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


# What may follow a part's name: a year, and before that a word for pictures.
_AFTER_PART = re.compile(r"(?:[_ -]?(?:set|images|data|split))?(?:[_ -]?(?<![0-9])[0-9]{4})?")


def part_of(name: str) -> int | None:
    """Which part of a data set a name is that of: training, validation, testing, by position.

    "val2017" and "train_images" are, too.
    """
    plain = name.lower()
    for part, names in enumerate(_PARTS):
        for one in names:
            if plain.startswith(one) and _AFTER_PART.fullmatch(plain, len(one)):
                return part
    return None


def _refuse_splits(
    root: str, folders: Mapping[str, str], inside: Callable[[str], Collection[Any]]
) -> None:
    """Refuses a folder of the parts of a data set.

    Its folders, given by name, all have folders inside, and either all are named as parts, or
    one is for training and one for validation or testing. A class may be called "test": then
    there are pictures in its folder, and no folders.
    """
    found: dict[int | None, str] = {}
    for name, folder in folders.items():
        found.setdefault(part_of(name), folder)
    train, validation, test = (found.get(part) for part in range(3))
    if None in found and (train is None or (validation is None and test is None)):
        return
    if not all(inside(folder) for folder in folders.values()):
        return
    parts = [part and repr(readable(part)) for part in (train, validation, test)]
    raise InvalidArgument(
        splits_message(readable(root), parts),
        reason="FOLDER_OF_SPLITS",
        metadata={"path": readable(root), "folders": ", ".join(map(readable, folders))},
    )


def splits_message(what: str, parts: Sequence[str | None]) -> str:
    """What to do with parts of data, given by how each is written: train, val, test."""
    train, validation, test = parts
    if train is None and test is None:
        test = validation
    message = f"{what} holds parts of a data set, not classes"
    if train is not None:
        more = f", validation={validation}" if validation is not None else ""
        message += f"; make the cache of one: create_cache(ID, {train}{more})"
    if test is not None:
        message += f"; and see how well it does: evaluate(ID, {test})"
    return message


def open_url(url: str) -> Opened:
    """The same at an address: a file's first folder is its class."""
    files = [(inside, file) for inside, file in url_files(url) if "/" in inside]
    if not files:
        raise InvalidArgument(
            f"{url} has no folders with files in it: expected one folder a class",
            reason="FOLDER_WITHOUT_CLASSES",
            metadata={"path": url},
        )
    within: dict[str, set[str]] = {}
    for inside, _ in files:
        folder, *more = inside.split("/")
        within.setdefault(f"{url.rstrip('/')}/{folder}", set()).update(more[:-1])
    _refuse_splits(
        url, {folder.rpartition("/")[2]: folder for folder in sorted(within)}, within.__getitem__
    )
    return Opened(
        [Example(display_name(inside.split("/")[0]), file, id=inside) for inside, file in files]
    )


def open_pattern(files: Sequence[str]) -> Opened:
    """The files that a pattern stands for; the folder that each lies in is its class."""
    return Opened([Example(_folder_of(file), file, id=readable(file)) for file in files])


def _folder_of(file: str) -> str:
    folder = os.path.basename(os.path.dirname(os.path.abspath(file) if "://" not in file else file))
    return display_name(folder)
