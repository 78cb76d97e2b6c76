"""Versions made of examples: what CreateCache and AddExamples are told, and what they answer.

No threads, no sockets: both clients send what this says, and hand it the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tipserve._proto import cache_pb2, input_pb2
from tipserve._requests import ExampleMessages, Grid, class_specs, enum_value
from tipserve._uploads import new_request_id
from tipserve.errors import TipserveError
from tipserve.labelled import (
    ClassSpec,
    Labelled,
    Source,
    choose_shots,
    default_prefix,
    load,
    load_additions,
    load_validation,
    of_no_class,
    prefixed,
    without_label,
)
from tipserve.pictures import Encoder
from tipserve.types import CreateProgress, Method, Rejected, Version


def cache_parts(
    source: Source,
    classes: Sequence[str | ClassSpec] | None,
    *,
    shots: int | None,
    seed: int,
    validation: Source | None,
    unknown: Iterable[Any] | None,
    unlabelled: Iterable[Any] | None,
) -> list[Labelled]:
    """The examples of CreateCache: keys, for validation, of no class, without labels."""
    labelled = load(source, classes)
    if shots is not None:
        labelled = choose_shots(labelled, shots, seed)
    parts = [labelled]
    if validation is not None:
        parts.append(load_validation(validation, labelled.classes))
    if unknown is not None:
        parts.append(of_no_class(unknown, "unknown/", labelled.classes))
    if unlabelled is not None:
        parts.append(without_label(unlabelled, "unlabelled/", labelled.classes))
    return parts


def added_parts(
    base: Version,
    source: Source | None,
    new_classes: Sequence[str | ClassSpec] | None,
    *,
    id_prefix: str | None,
    shots: int | None,
    seed: int,
    validation: Source | None,
    unknown: Iterable[Any] | None,
    unlabelled: Iterable[Any] | None,
) -> tuple[list[Labelled], Sequence[ClassSpec]]:
    """The examples of AddExamples, and the classes that the base does not have."""
    known = class_specs(base)
    parts: list[Labelled] = []
    added: Sequence[ClassSpec] = ()
    if source is not None:
        prefix = default_prefix(source) if id_prefix is None else id_prefix
        labelled = load_additions(source, known, new_classes, base.version)
        if shots is not None:
            labelled = choose_shots(labelled, shots, seed)
        added = labelled.classes[len(known) :]
        known = list(labelled.classes)
        parts.append(prefixed(labelled, prefix))
    elif new_classes:
        added = [one if isinstance(one, ClassSpec) else ClassSpec(one) for one in new_classes]
        known = [*known, *added]
    if validation is not None:
        prefix = default_prefix(validation) if id_prefix is None else id_prefix
        marked = load_validation(validation, known, base.version)
        parts.append(prefixed(marked, prefix))
    if unknown is not None:
        # Positions begin at 0 in every call, and ids are unique in a version.
        prefix = f"{base.version}+" if id_prefix is None else id_prefix
        parts.append(of_no_class(unknown, f"unknown/{prefix}", known))
    if unlabelled is not None:
        prefix = f"{base.version}+" if id_prefix is None else id_prefix
        parts.append(without_label(unlabelled, f"unlabelled/{prefix}", known))
    return parts, added


def cache_spec(
    cache_id: str,
    labelled: Labelled,
    *,
    templates: Sequence[str] | None,
    method: Method | str,
    alpha: float | None,
    beta: float | None,
    lambda_: float | None,
    views: int,
    exif_orientation: str,
    seed: int,
    on_rejected: str,
    description: str,
    labels: Mapping[str, str] | None,
    class_balance: str | None,
    grid: Grid | None,
    key_dtype: str | None,
    without_text: bool,
    multi_label: bool,
    truncate_prompts: bool,
    allow_empty_classes: bool,
    created_by: str,
    etag: str,
    bundle: str,
) -> cache_pb2.CacheSpec:
    """The first message of CreateCache."""
    if labelled.several and not multi_label:
        raise ValueError(
            "the examples have lists of labels: multi_label=True makes a version of independent "
            "labels; otherwise each example has one label, not a list"
        )
    _strings("templates", templates)
    spec = cache_pb2.CacheSpec(
        cache_id=cache_id,
        classes=[one._message() for one in labelled.classes],
        prompt_templates=templates or (),
        views=views,
        seed=seed,
        description=description,
        labels=labels or {},
        without_text=without_text,
        multi_label=multi_label,
        truncate_prompts=truncate_prompts,
        allow_empty_classes=allow_empty_classes,
        created_by=created_by,
        etag=etag,
        bundle=bundle,
        request_id=new_request_id(),
        alpha=alpha,
        beta=beta,
        **{"lambda": lambda_},  # type: ignore[arg-type]
    )
    spec.method = enum_value(cache_pb2.Method, "METHOD_", str(method))  # type: ignore[assignment]
    spec.on_rejected = enum_value(  # type: ignore[assignment]
        cache_pb2.CacheSpec.OnRejected, "ON_REJECTED_", on_rejected
    )
    spec.class_balance = enum_value(  # type: ignore[assignment]
        cache_pb2.ClassBalance, "CLASS_BALANCE_", class_balance
    )
    spec.key_dtype = enum_value(  # type: ignore[assignment]
        cache_pb2.KeyDtype, "KEY_DTYPE_", key_dtype
    )
    spec.exif_orientation = enum_value(  # type: ignore[assignment]
        input_pb2.ExifOrientation, "EXIF_ORIENTATION_", exif_orientation
    )
    if grid is not None:
        spec.grid.CopyFrom(grid._message())
    return spec


def add_spec(
    base: Version,
    new_classes: Sequence[ClassSpec],
    *,
    remove: Iterable[str],
    drop_unlabelled: bool,
    relabel: Mapping[str, str | int],
    templates: Sequence[str] | None,
    method: Method | str | None,
    alpha: float | None,
    beta: float | None,
    lambda_: float | None,
    seed: int,
    on_rejected: str,
    description: str,
    labels: Mapping[str, str] | None,
    grid: Grid | None,
    truncate_prompts: bool,
    allow_empty_classes: bool,
    created_by: str,
    etag: str,
) -> cache_pb2.AddExamplesSpec:
    """The first message of AddExamples."""
    _strings("templates", templates)
    _strings("remove", remove)
    spec = cache_pb2.AddExamplesSpec(
        # By its number: an alias that moves meanwhile must not mix up classes.
        base=base.name,
        new_classes=[one._message() for one in new_classes],
        remove_example_ids=remove,
        drop_unlabelled=drop_unlabelled,
        relabel=[_relabelled(id_, label) for id_, label in relabel.items()],
        prompt_templates=templates or (),
        seed=seed,
        description=description,
        labels=labels or {},
        truncate_prompts=truncate_prompts,
        allow_empty_classes=allow_empty_classes,
        created_by=created_by,
        etag=etag,
        request_id=new_request_id(),
        alpha=alpha,
        beta=beta,
        **{"lambda": lambda_},  # type: ignore[arg-type]
    )
    spec.method = enum_value(  # type: ignore[assignment]
        cache_pb2.Method, "METHOD_", None if method is None else str(method)
    )
    spec.on_rejected = enum_value(  # type: ignore[assignment]
        cache_pb2.CacheSpec.OnRejected, "ON_REJECTED_", on_rejected
    )
    if grid is not None:
        spec.grid.CopyFrom(grid._message())
    return spec


def _relabelled(example_id: str, label: str | int) -> cache_pb2.Relabelled:
    if isinstance(label, str):
        return cache_pb2.Relabelled(example_id=example_id, class_name=label)
    return cache_pb2.Relabelled(example_id=example_id, class_index=label)


def _strings(name: str, given: Iterable[str] | None) -> None:
    if isinstance(given, str):
        raise TypeError(f"{name} must be a list of strings, not one string")


@dataclass
class Making:
    """One try at a CreateCache or AddExamples."""

    spec: cache_pb2.CacheSpec | cache_pb2.AddExamplesSpec
    parts: Sequence[Labelled]
    encoder: Encoder
    fail: bool
    """Raise for an example that the client itself cannot send."""
    on_progress: Callable[[CreateProgress], None] | None
    _rejected: list[Rejected] = field(default_factory=list)
    _version: cache_pb2.Version | None = None

    def __post_init__(self) -> None:
        self._messages = ExampleMessages(self.parts, self.encoder, self.fail)

    def requests(self) -> Iterator[Any]:
        """All requests."""
        if isinstance(self.spec, cache_pb2.CacheSpec):
            yield cache_pb2.CreateCacheRequest(spec=self.spec)
            for batch in self._messages.batches():
                yield cache_pb2.CreateCacheRequest(examples=batch)
        else:
            yield cache_pb2.AddExamplesRequest(spec=self.spec)
            for batch in self._messages.batches():
                yield cache_pb2.AddExamplesRequest(examples=batch)

    def take(self, response: Any) -> None:
        """Takes in an answer."""
        event = response.WhichOneof("event")
        if event == "progress" and self.on_progress is not None:
            self.on_progress(CreateProgress._from(response.progress))
        elif event == "rejected":
            self._rejected.append(Rejected._from(response.rejected))
        elif event == "version":
            self._version = response.version

    def made(self) -> Version:
        """The finished version."""
        if self._version is None:
            raise TipserveError("the server ended the call without a version")
        return Version._from(self._version, [*self._messages.rejected, *self._rejected])
