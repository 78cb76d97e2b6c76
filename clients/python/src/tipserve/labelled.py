"""Labelled pictures: from folders, arrays and iterables to classes and examples."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, Union

from tipserve._files import picture_files
from tipserve._proto import cache_pb2, input_pb2
from tipserve.errors import InvalidArgument
from tipserve.pictures import Picture


@dataclass(frozen=True)
class Example:
    """A picture (or embedding) with its class."""

    class_: str | int
    """The class's display name, or its index."""
    picture: Picture
    id: str = ""
    """Unique in the cache. Default: the path, else the position."""
    validation: bool = False
    """Chooses numbers, and never becomes a key."""


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


Source: TypeAlias = Union[str, "os.PathLike[str]", Iterable[Example]]
"""A folder with one folder a class, an .npz file, or examples.

A class folder's name is its display name, '_' read as ' '. An .npz file holds
`features` [M, D], `labels` [M], `classes` [N], and may hold `text_weights`
[N, D].
"""


@dataclass(frozen=True)
class Labelled:
    """Examples with the list of classes that their indices point into."""

    classes: tuple[ClassSpec, ...]
    examples: Iterable[Example]
    """Their `class_` is an index."""
    repeatable: bool = True
    """Whether `examples` can be gone through a second time."""
    _index: dict[str, int] = field(default_factory=dict, compare=False)


def load(source: Source, classes: Sequence[str | ClassSpec] | None = None) -> Labelled:
    """Reads what the examples' classes are, and no picture yet.

    Without `classes`, a folder's or an iterable's classes are the names that
    occur, sorted; the iterable is then gone through first, and must end.
    """
    given = None if classes is None else [_spec(one) for one in classes]
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix == ".npz" and path.is_file():
            return _npz(path, given)
        return _folder(path, given)
    if isinstance(source, bytes | bytearray | Mapping):
        raise TypeError(f"a {type(source).__name__} is not a folder and holds no examples")
    if given is None:
        source = list(source)
        names = set()
        for example in source:
            _check(example)
            if not isinstance(example.class_, str):
                raise ValueError(
                    "examples that name their class by index need classes=[...]: the number of "
                    "classes is never guessed from the largest index"
                )
            names.add(example.class_)
        given = [ClassSpec(name) for name in sorted(names)]
    lookup = Lookup(given)
    repeatable = not source.once if isinstance(source, _Named) else iter(source) is not source
    return Labelled(tuple(given), _Indexed(source, lookup), repeatable)


def load_validation(
    source: Source, classes: Sequence[ClassSpec], number: int | None = None
) -> Labelled:
    """Examples of classes that are known already, marked as validation.

    `number` is that of the version that they are added to, see `load_additions`.
    """
    if number is not None and not isinstance(source, str | os.PathLike):
        source = _Named(source, f"{number}+")
    loaded = load(source, classes)
    return replace(loaded, examples=_Marked(loaded.examples))


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
    given = None if new_classes is None else [_spec(one) for one in new_classes]
    if isinstance(source, str | os.PathLike):
        if given is None:
            given = [one for one in load(source).classes if not known.has(one.display_name)]
    elif not isinstance(source, bytes | bytearray | Mapping):
        if given is None:
            source = list(source)
            for example in source:
                _check(example)
            names = {e.class_ for e in source if isinstance(e.class_, str)}
            given = [ClassSpec(name) for name in sorted(names) if not known.has(name)]
        source = _Named(source, f"{number}+")
    return load(source, [*base, *(given or ())])


def prefixed(labelled: Labelled, prefix: str) -> Labelled:
    """The same examples with something before their ids."""
    if not prefix:
        return labelled
    return replace(labelled, examples=_Prefixed(labelled.examples, prefix))


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
        if not example.validation:
            of_class.setdefault(example.class_, []).append(position)
    for positions in of_class.values():
        kept.update(sorted(positions, key=rank)[:shots])
    return replace(labelled, examples=[examples[i] for i in sorted(kept)], repeatable=True)


class Lookup:
    """From display names ('_' and ' ' being the same) and indices to indices."""

    def __init__(self, classes: Sequence[ClassSpec]) -> None:
        self._names = [one.display_name for one in classes]
        self._exact = _positions(self._names)
        self._plain = _positions([_plain(name) for name in self._names])

    def __call__(self, class_: str | int) -> int:
        """The class's index; ValueError where there is none, or more than one."""
        if isinstance(class_, str):
            found = self._exact.get(class_) or self._plain.get(_plain(class_))
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
        return _plain(name) in self._plain

    def _known(self) -> str:
        first = ", ".join(self._names[:10])
        return first if len(self._names) <= 10 else f"{first}, ... {len(self._names)} in all"


def _positions(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name, []).append(position)
    return found


def _plain(name: str) -> str:
    # Folders write '_' for ' '.
    return name.replace("_", " ")


@dataclass(frozen=True)
class _Indexed:
    """Examples whose classes are looked up as they are read."""

    source: Iterable[Example]
    lookup: Lookup

    def __iter__(self) -> Iterator[Example]:
        for position, example in enumerate(self.source):
            _check(example)
            index = self.lookup(example.class_)
            yield replace(
                example, class_=index, id=example.id or default_id(example.picture, position)
            )


@dataclass(frozen=True)
class _Marked:
    """Examples that are all for validation, their ids kept apart from training's."""

    source: Iterable[Example]

    def __iter__(self) -> Iterator[Example]:
        for example in self.source:
            yield replace(example, validation=True, id=f"validation/{example.id}")


@dataclass(frozen=True)
class _Prefixed:
    source: Iterable[Example]
    prefix: str

    def __iter__(self) -> Iterator[Example]:
        for example in self.source:
            yield replace(example, id=f"{self.prefix}{example.id}")


class _Named:
    """Examples of which those that are not named get their position, after `prefix`."""

    def __init__(self, source: Iterable[Example], prefix: str) -> None:
        self._source = source
        self._prefix = prefix
        self.once = iter(source) is source
        """Whether it can be gone through only once."""

    def __iter__(self) -> Iterator[Example]:
        for position, example in enumerate(self._source):
            _check(example)
            if example.id or isinstance(example.picture, str | os.PathLike):
                yield example
            else:
                yield replace(example, id=f"{self._prefix}{position}")


def default_id(picture: Picture, position: int) -> str:
    """The path where there is one, else the position."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    return str(position)


def _check(example: object) -> None:
    if not isinstance(example, Example):
        raise TypeError(f"expected a tipserve.Example, got a {type(example).__name__}")


def _spec(one: str | ClassSpec) -> ClassSpec:
    return one if isinstance(one, ClassSpec) else ClassSpec(one)


@dataclass(frozen=True)
class _FolderExamples:
    root: Path
    folders: Sequence[tuple[int, Path]]

    def __iter__(self) -> Iterator[Example]:
        for index, folder in self.folders:
            for path in picture_files(folder):
                yield Example(index, path, id=path.relative_to(self.root).as_posix())


def _folder(root: Path, given: list[ClassSpec] | None) -> Labelled:
    try:
        folders = sorted(
            (path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")),
            key=lambda path: os.fsencode(path.name),
        )
    except OSError as error:
        raise InvalidArgument(
            f"cannot read the folder {root}: {error.strerror or error}",
            reason="FOLDER_UNREADABLE",
            metadata={"path": str(root)},
        ) from error
    if not folders:
        raise InvalidArgument(
            f"{root} has no folders in it: expected one folder a class",
            reason="FOLDER_WITHOUT_CLASSES",
            metadata={"path": str(root)},
        )
    if given is None:
        # By position: 'a_b' and 'a b' are two classes of one display name.
        classes = [ClassSpec(folder.name.replace("_", " ")) for folder in folders]
        indexed = list(enumerate(folders))
    else:
        classes = given
        lookup = Lookup(given)
        names = [folder.name.replace("_", " ") for folder in folders]
        if names == [spec.display_name.replace("_", " ") for spec in given]:
            # The same list: names that occur twice do no harm.
            indexed = list(enumerate(folders))
        else:
            indexed = [(lookup(name), folder) for name, folder in zip(names, folders, strict=True)]
    return Labelled(tuple(classes), _FolderExamples(root, indexed))


def _npz(path: Path, given: list[ClassSpec] | None) -> Labelled:
    import numpy

    with numpy.load(path, allow_pickle=False) as arrays:
        missing = {"features", "labels", "classes"} - set(arrays.files)
        if missing:
            raise ValueError(f"{path} lacks the arrays {sorted(missing)}")
        features: Any = numpy.asarray(arrays["features"], dtype=numpy.float32)
        labels = [int(label) for label in arrays["labels"]]
        names = [str(name) for name in arrays["classes"]]
        weights = arrays["text_weights"] if "text_weights" in arrays.files else None
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            f"{path}: features {list(features.shape)} and labels [{len(labels)}] do not go together"
        )
    outside = [label for label in labels if not 0 <= label < len(names)]
    if outside:
        raise ValueError(f"{path}: label {outside[0]} is not one of the {len(names)} classes")
    if given is None:
        given = [
            ClassSpec(name, text_weight=None if weights is None else weights[i].tolist())
            for i, name in enumerate(names)
        ]
    # The file's own labels are by its own classes; `given` may order them otherwise.
    lookup = Lookup(given)
    same = names == [spec.display_name for spec in given]
    examples = [
        Example(label if same else names[label], row, id=str(i))
        for i, (label, row) in enumerate(zip(labels, features, strict=True))
    ]
    return Labelled(tuple(given), _Indexed(examples, lookup))
