"""COCO annotations as labelled pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipserve._examples import ClassSpec, Example, Opened
from tipserve._files import readable
from tipserve.errors import InvalidArgument
from tipserve.pictures import Unusable


def open_coco(path: Path) -> Opened:
    """The pictures of a COCO file, each an example of the category it is annotated with.

    A picture without annotations is no example. One with several categories is
    rejected, by its id: which of them it shows is not to be guessed.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _wrong(path, str(error)) from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise _wrong(path, "it lacks images, annotations or categories: it is no COCO file")
    try:
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        pictures = {one["id"]: str(one["file_name"]) for one in content["images"]}
        found: dict[Any, set[Any]] = {}
        for one in content["annotations"]:
            found.setdefault(one["image_id"], set()).add(one["category_id"])
    except (KeyError, TypeError) as error:
        raise _wrong(path, f"an entry lacks {error}") from error
    order = {id: index for index, id in enumerate(categories)}
    unknown = {id for ids in found.values() for id in ids} - set(order)
    if unknown or set(found) - set(pictures):
        raise _wrong(path, "annotations name a category or an image that is not there")
    folder = _folder(path, next(iter(pictures.values()), ""))
    labels = [
        (pictures[image], [order[id] for id in sorted(ids, key=order.__getitem__)])
        for image, ids in found.items()
    ]
    classes = [ClassSpec(name) for name in categories.values()]
    return Opened(_CocoExamples(folder, labels, list(categories.values())), classes)


@dataclass(frozen=True)
class _CocoExamples:
    folder: Path
    labels: list[tuple[str, list[int]]]
    names: list[str]

    def __iter__(self) -> Iterator[Example]:
        for file, indices in self.labels:
            picture: Any = self.folder / file
            if len(indices) > 1:
                names = ", ".join(self.names[index] for index in indices)
                picture = Unusable(
                    InvalidArgument(
                        f"{file} is annotated with {len(indices)} categories ({names}): crop its "
                        "objects first, or give (picture, label) pairs",
                        reason="SEVERAL_CATEGORIES",
                    )
                )
            yield Example(indices[0], picture, id=readable(file))


def _folder(path: Path, first: str) -> Path:
    """Where the pictures lie, by where the first one is."""
    here = path.parent
    split = path.stem.split("_")[-1]  # instances_val2017.json, val2017/
    tried = [here, here / "images", here.parent, here.parent / split, here.parent / "images"]
    for folder in (*tried, here.parent / "images" / split):
        if first and (folder / first).is_file():
            return folder
    raise _wrong(
        path, f"its first picture, {first!r}, is not beside it, nor in images/ or {split}/"
    )


def _wrong(path: Path, why: str) -> InvalidArgument:
    name = readable(str(path))
    return InvalidArgument(
        f"cannot read {name}: {why}", reason="FILE_UNREADABLE", metadata={"path": name}
    )
