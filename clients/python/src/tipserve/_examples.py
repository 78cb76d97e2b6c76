"""Examples, classes, and examples with the classes that their indices point into."""

from __future__ import annotations

import operator
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tipserve._files import is_data_url, readable
from tipserve._proto import cache_pb2, input_pb2
from tipserve.pictures import Picture


@dataclass(frozen=True)
class Example:
    """A picture (or embedding) with its class."""

    class_: str | int | Sequence[str | int]
    """The class's display name, or its index; several of them, or none, of a version
    with `multi_label`."""
    picture: Picture
    id: str = ""
    """Unique in the cache. Default: the path, else the position."""
    validation: bool = False
    """Chooses numbers, and never becomes a key."""
    unknown: bool = False
    """Of none of the classes (`class_` does not count): it sharpens what is
    rejected, and never becomes a key."""
    unlabelled: bool = False
    """Without a label (`class_` does not count): AUTO learns from it where that
    helps. Nothing is kept of it but its feature."""


@dataclass(frozen=True)
class ClassSpec:
    """A class, where a display name alone does not say enough."""

    display_name: str
    prompts: Sequence[str] = ()
    """Complete prompts, instead of the templates."""
    text_weight: Sequence[float] | None = None
    """Its row of the text classifier, instead of prompts. All classes or none."""

    def _message(self) -> cache_pb2.ClassSpec:
        made = cache_pb2.ClassSpec(display_name=self.display_name, prompts=self.prompts)
        if self.text_weight is not None:
            made.text_weight.CopyFrom(
                input_pb2.Embedding(values=[float(v) for v in self.text_weight])
            )
        return made


@dataclass(frozen=True)
class Labelled:
    """Examples with the list of classes that their indices point into."""

    classes: tuple[ClassSpec, ...]
    examples: Iterable[Example]
    """Their `class_` is an index."""
    repeatable: bool = True
    """Whether `examples` can be gone through a second time."""


class Lookup:
    """From display names and indices to indices.

    '_' and ' ' are the same in names, and so are the ways to write é (NFC).
    """

    def __init__(self, classes: Sequence[ClassSpec]) -> None:
        self._names = [one.display_name for one in classes]
        self._exact = _positions(self._names)
        self._plain = _positions([plain(name) for name in self._names])

    def __call__(self, class_: str | int) -> int:
        """The class's index; ValueError if there is none, or more than one."""
        if isinstance(class_, str):
            found = self._exact.get(class_) or self._plain.get(plain(class_))
            if found is None:
                raise ValueError(f"no class is called {class_!r}; there are: {self._known()}")
            if len(found) > 1:
                raise ValueError(f"more than one class is called {class_!r}: give its index")
            return found[0]
        index = operator.index(class_)
        if not 0 <= index < len(self._names):
            raise ValueError(f"class index {index} is not one of the {len(self._names)} classes")
        return index

    def has(self, name: str) -> bool:
        """Whether a class, or more than one, is called so."""
        return plain(name) in self._plain

    def _known(self) -> str:
        first = ", ".join(self._names[:10])
        return first if len(self._names) <= 10 else f"{first}, ... {len(self._names)} in all"


def _positions(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name, []).append(position)
    return found


def composed(name: str) -> str:
    """A name as the server keeps it, in NFC: macOS writes é as two characters."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """A name as names are compared: folders write '_' for ' ', tables leave spaces around it."""
    return composed(name).replace("_", " ").strip()


@dataclass(frozen=True)
class Indexed:
    """Examples whose classes are looked up as they are read."""

    source: Iterable[Example]
    lookup: Lookup

    def __iter__(self) -> Iterator[Example]:
        for position, example in enumerate(self.source):
            apart = example.unknown or example.unlabelled
            index = 0 if apart else self.looked_up(example.class_)
            yield replace(
                example, class_=index, id=example.id or default_id(example.picture, position)
            )

    def looked_up(self, class_: str | int | Sequence[str | int]) -> int | tuple[int, ...]:
        """One index, or those of several classes."""
        if isinstance(class_, str) or not isinstance(class_, Sequence):
            return self.lookup(class_)
        return tuple(self.lookup(one) for one in class_)


@dataclass(frozen=True)
class Marked:
    """Examples that are all for validation, their ids kept apart from training's."""

    source: Iterable[Example]

    def __iter__(self) -> Iterator[Example]:
        for example in self.source:
            yield replace(example, validation=True, id=f"validation/{example.id}")


@dataclass(frozen=True)
class OfNoClass:
    """Pictures of none of the classes as examples."""

    pictures: Iterable[Picture]
    prefix: str
    """What their ids begin with."""
    unlabelled: bool = False
    """They may well be of one; nobody has said of which."""

    def __iter__(self) -> Iterator[Example]:
        for position, picture in enumerate(self.pictures):
            id = f"{self.prefix}{default_id(picture, position)}"
            yield Example(
                0, picture, id=id, unknown=not self.unlabelled, unlabelled=self.unlabelled
            )


@dataclass(frozen=True)
class Prefixed:
    """Examples with something before their ids."""

    source: Iterable[Example]
    prefix: str

    def __iter__(self) -> Iterator[Example]:
        for example in self.source:
            yield replace(example, id=f"{self.prefix}{example.id}")


@dataclass(frozen=True)
class Named:
    """Examples of which those that are not named get their position, after `prefix`."""

    source: Iterable[Example]
    prefix: str

    def __iter__(self) -> Iterator[Example]:
        for position, example in enumerate(self.source):
            if example.id or default_id(example.picture, position) != str(position):
                yield example
            else:
                yield replace(example, id=f"{self.prefix}{position}")


def class_fields(example: Example) -> Any:
    """An example's class, or classes, as the messages have them."""
    if isinstance(example.class_, Sequence) and not isinstance(example.class_, str):
        return {"class_indices": [int(one) for one in example.class_]}
    return {"class_index": int(example.class_)}


def default_id(picture: Picture, position: int) -> str:
    """The path or address if there is one, else the position.

    Bytes of a path that are not UTF-8 are written as \\xNN.
    """
    if isinstance(picture, str | os.PathLike) and not is_data_url(picture):
        return readable(os.fspath(picture))
    return str(position)


def spec_of(one: str | ClassSpec) -> ClassSpec:
    """The class of that name."""
    return one if isinstance(one, ClassSpec) else ClassSpec(one)


@dataclass(frozen=True)
class Opened:
    """A source of examples as it was found, before its classes are matched with others."""

    examples: Iterable[Example]
    """Their `class_` is a name, or an index into `classes`."""
    classes: Sequence[ClassSpec] | None = None
    """The source's own list; None: the names that occur."""
    complete: bool = False
    """Each of `classes` is meant, whether it has examples or not."""
    repeatable: bool = True
    """Whether `examples` can be gone through a second time."""
