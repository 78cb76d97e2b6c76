"""Labelled pictures: from whatever they come in to classes and examples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, Union

from tipserve._examples import (
    ClassSpec,
    Example,
    Indexed,
    Lookup,
    Marked,
    Named,
    OfNoClass,
    Opened,
    Prefixed,
    composed,
    default_id,
    spec_of,
)
from tipserve._sources import open_source
from tipserve.pictures import Picture

__all__ = [
    "ClassSpec",
    "Example",
    "Labelled",
    "Lookup",
    "Source",
    "choose_shots",
    "default_id",
    "default_prefix",
    "load",
    "load_additions",
    "load_validation",
    "of_no_class",
    "prefixed",
    "without_label",
]


class DataSet(Protocol):
    """What is asked of torchvision's data sets: (picture, label) by index."""

    def __getitem__(self, index: Any, /) -> Any:
        """One example."""

    def __len__(self) -> int:
        """How many there are."""


class Frame(Protocol):
    """What is asked of a data frame, of pandas or polars."""

    @property
    def columns(self) -> Any:
        """The columns' names."""

    def __getitem__(self, name: Any, /) -> Any:
        """A column."""


Source: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    Iterable[Example],
    Iterable[tuple[Picture, str | int]],
    Iterable[tuple[Picture, Sequence[str | int]]],
    Iterable[Mapping[str, Any]],
    Mapping[str, Any],
    Frame,
    DataSet,
]
"""Labelled pictures.

* a folder with one folder a class, whose name is the class's, '_' read as ' '; or
  its address, "s3://bucket/train"; or a pattern, "train/*/*.jpg";
* an .npz file of embeddings: `features` [M, D], `labels` [M], `classes` [N] and,
  optionally, `text_weights` [N, D];
* a .csv, .tsv, .jsonl or .parquet file, a data frame, dicts, or a dict of columns,
  with a picture (`image`, `path`, `file_name`, `url`, ...) and a `label`;
* a COCO .json file;
* `Example`s, or (picture, label) pairs, with `multi_label` (picture, [labels]);
* {"cat": pictures, "dog": pictures};
* a data set of `datasets` or of torchvision.
"""


@dataclass(frozen=True)
class Labelled:
    """Examples with the list of classes that their indices point into."""

    classes: tuple[ClassSpec, ...]
    examples: Iterable[Example]
    """Their `class_` is an index."""
    repeatable: bool = True
    """Whether `examples` can be gone through a second time."""
    several: bool = False
    """Whether an example is known to have a list of classes."""


def load(source: Source, classes: Sequence[str | ClassSpec] | None = None) -> Labelled:
    """Reads what the examples' classes are, and no picture yet.

    Without `classes`, they are the source's own, or the names that occur, sorted;
    an iterable is then gone through first, and must end.
    """
    return _match(open_source(source), None if classes is None else [spec_of(c) for c in classes])


def _match(opened: Opened, given: list[ClassSpec] | None) -> Labelled:
    """Points the examples of a source into a list of classes."""
    if opened.classes is None:
        if given is None:
            opened, given, several = _gathered(opened)
        else:
            several = False
        indexed = Indexed(opened.examples, Lookup(given))
        return Labelled(tuple(given), indexed, opened.repeatable, several)
    own = opened.classes
    same = given is None or [_folded(one) for one in own] == [_folded(one) for one in given]
    given = list(own) if given is None else given
    lookup = Lookup(given)
    examples = opened.examples
    if same:
        # The same list: names that occur twice do no harm.
        pass
    elif opened.complete:
        examples = _Renumbered(examples, [lookup(one.display_name) for one in own])
    else:
        examples = _Renumbered(examples, [one.display_name for one in own])
    return Labelled(tuple(given), Indexed(examples, lookup), opened.repeatable)


def _folded(one: ClassSpec) -> str:
    return one.display_name.replace("_", " ")


@dataclass(frozen=True)
class _Renumbered:
    """Examples whose indices are those of another list."""

    source: Iterable[Example]
    classes: Sequence[str | int]
    """By index, what the class is in the list that is wanted."""

    def __iter__(self) -> Any:
        for example in self.source:
            yield replace(example, class_=_renumbered(self.classes, example.class_))


def _renumbered(
    classes: Sequence[str | int], class_: str | int | Sequence[str | int]
) -> str | int | Sequence[str | int]:
    if isinstance(class_, str):
        return class_
    if isinstance(class_, Sequence):
        return tuple(one if isinstance(one, str) else _at(classes, one) for one in class_)
    return _at(classes, class_)


def _at(classes: Sequence[str | int], index: int) -> str | int:
    if not 0 <= index < len(classes):
        raise ValueError(f"class index {index} is not one of the {len(classes)} classes")
    return classes[index]


def _gathered(opened: Opened) -> tuple[Opened, list[ClassSpec], bool]:
    """The examples, gone through once, the classes that occur in them, sorted, and whether an
    example has a list of them."""
    examples = list(opened.examples)
    names = set()
    for example in examples:
        for name in _several(example.class_):
            if not isinstance(name, str):
                raise ValueError(
                    "examples that name their class by index need classes=[...]: the number of "
                    "classes is never guessed from the largest index"
                )
            names.add(composed(name))
    # What can be gone through only once is kept: it has been, by now.
    kept = opened if opened.repeatable else Opened(examples)
    several = any(not isinstance(example.class_, str) for example in examples)
    return kept, [ClassSpec(name) for name in sorted(names)], several


def _several(class_: str | int | Sequence[str | int]) -> Sequence[str | int]:
    """An example's class, or classes."""
    if isinstance(class_, str) or not isinstance(class_, Sequence):
        return (class_,)
    return class_


def load_validation(
    source: Source, classes: Sequence[ClassSpec], number: int | None = None
) -> Labelled:
    """Examples of classes that are known already, marked as validation.

    `number` is that of the version that they are added to, see `load_additions`.
    """
    opened = open_source(source)
    if number is not None:
        opened = _numbered(source, opened, number)
    loaded = _match(opened, list(classes))
    return replace(loaded, examples=Marked(loaded.examples))


def load_additions(
    source: Source,
    base: Sequence[ClassSpec],
    new_classes: Sequence[str | ClassSpec] | None,
    number: int,
) -> Labelled:
    """Examples to add to version `number`, whose classes are `base`.

    The classes are those of the base, then the new ones: `new_classes`, or
    those that occur in `source` and that the base does not have. Where an
    example has no id but its position, the version's number goes before it:
    positions begin at 0 in every call, and ids are unique in a version.
    """
    known = Lookup(base)
    opened = open_source(source)
    if new_classes is not None:
        added = [spec_of(one) for one in new_classes]
    elif opened.classes is not None:
        added = [one for one in opened.classes if not known.has(one.display_name)]
    else:
        examples = list(opened.examples)
        of_all = (name for one in examples for name in _several(one.class_))
        names = {composed(name) for name in of_all if isinstance(name, str)}
        added = [ClassSpec(name) for name in sorted(names) if not known.has(name)]
        if not opened.repeatable:
            opened = Opened(examples)
    return _match(_numbered(source, opened, number), [*base, *added])


def _numbered(source: Source, opened: Opened, number: int) -> Opened:
    """Those that have no id but their position are named after the version too."""
    if isinstance(source, str | os.PathLike):
        return opened
    return replace(opened, examples=Named(opened.examples, f"{number}+"))


def of_no_class(pictures: Iterable[Any], prefix: str, classes: Sequence[ClassSpec]) -> Labelled:
    """Pictures of none of the classes, as examples."""
    repeatable = not isinstance(pictures, Iterator)
    return Labelled(tuple(classes), OfNoClass(pictures, prefix), repeatable)


def without_label(pictures: Iterable[Any], prefix: str, classes: Sequence[ClassSpec]) -> Labelled:
    """Pictures without labels, as examples."""
    repeatable = not isinstance(pictures, Iterator)
    return Labelled(tuple(classes), OfNoClass(pictures, prefix, unlabelled=True), repeatable)


def prefixed(labelled: Labelled, prefix: str) -> Labelled:
    """The same examples with something before their ids."""
    if not prefix:
        return labelled
    return replace(labelled, examples=Prefixed(labelled.examples, prefix))


def default_prefix(source: object) -> str:
    """What goes before the ids of added examples: rows count from 0 in every file."""
    if isinstance(source, str | os.PathLike) and Path(source).is_file():
        return f"{Path(source).stem}/"
    return ""


def choose_shots(labelled: Labelled, shots: int, seed: int) -> Labelled:
    """At most `shots` training examples of each class, in their order.

    Those whose SHA-256 of "SEED/ID" comes first: the draw of `tipserve create
    --shots`, which depends on nothing but the seed and the ids.
    """
    if shots < 1:
        raise ValueError(f"shots is {shots}, must be at least 1")
    examples = list(labelled.examples)

    def rank(position: int) -> tuple[bytes, int]:
        id = examples[position].id.encode("utf-8", "surrogateescape")
        return hashlib.sha256(b"%d/%s" % (seed, id)).digest(), position

    kept = {i for i, example in enumerate(examples) if example.validation}
    of_class: dict[str | int, list[int]] = {}
    for position, example in enumerate(examples):
        if isinstance(example.class_, Sequence) and not isinstance(example.class_, str):
            raise ValueError("shots are drawn of examples with one class each, these have several")
        if not example.validation:
            of_class.setdefault(example.class_, []).append(position)
    for positions in of_class.values():
        kept.update(sorted(positions, key=rank)[:shots])
    return replace(labelled, examples=[examples[i] for i in sorted(kept)], repeatable=True)
