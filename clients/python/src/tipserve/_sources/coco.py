"""COCO annotations as labelled pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipserve._examples import ClassSpec, Example, Opened
from tipserve._files import readable
from tipserve._sources.tables import finite, no_number, text_of, trimmed
from tipserve.errors import InvalidArgument
from tipserve.pictures import Unusable


def open_coco(path: Path) -> Opened:
    """The pictures of a COCO file, each an example of the category it is annotated with.

    A picture without annotations is no example. One with several categories is
    rejected, by its id: which of them it shows is not to be guessed.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text, parse_constant=no_number, parse_float=finite)
        text_of(content)
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(path, str(error)) from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise _wrong(path, "it lacks images, annotations or categories: it is no COCO file")
    try:
        categories: dict[str, str] = {}
        for one in content["categories"]:
            if _key(one["id"]) in categories:
                raise _wrong(path, f"two of its categories have the id {one['id']}")
            categories[_key(one["id"])] = _name(path, one)
        pictures: dict[str, str] = {}
        for one in content["images"]:
            if _key(one["id"]) in pictures:
                raise _wrong(path, f"two of its images have the id {one['id']}")
            pictures[_key(one["id"])] = _file(path, one)
        annotated = [
            (_key(one["image_id"]), _key(one["category_id"])) for one in content["annotations"]
        ]
    except KeyError as error:
        raise _wrong(path, f"an entry lacks {error}") from error
    except TypeError as error:
        why = "its images, annotations and categories are not lists of objects"
        raise _wrong(path, why) from error
    order = {id: index for index, id in enumerate(categories)}
    found: dict[str, set[int]] = {}
    for image, category in annotated:
        if category not in order or image not in pictures:
            raise _wrong(
                path,
                f"an annotation names the category {category} or the image {image}, which is not "
                "there",
            )
        found.setdefault(pictures[image], set()).add(order[category])
    folder = _folder(path, next(iter(pictures.values()), ""))
    labels = [(file, sorted(indices)) for file, indices in found.items()]
    classes = [ClassSpec(name) for name in categories.values()]
    return Opened(_CocoExamples(folder, labels, list(categories.values())), classes)


def _key(id: Any) -> str:
    """An id as it is written: to Python 1, 1.0 and true would be the same."""
    return json.dumps(id, sort_keys=True)


def _name(path: Path, category: Any) -> str:
    name = category["name"]
    if not isinstance(name, str) or not trimmed(name):
        raise _wrong(path, f"its category {category['id']} has no name")
    return trimmed(name)


def _file(path: Path, image: Any) -> str:
    file = image["file_name"]
    if not isinstance(file, str):
        raise _wrong(path, f"its image {image['id']} has the file name {file!r}, which is no text")
    return file


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
