"""Request messages, and the grouping of items into messages; shared by both clients."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tipserve._arrays import check_many
from tipserve._examples import class_fields
from tipserve._proto import cache_pb2, classify_pb2, finetune_pb2, input_pb2
from tipserve._retry import RetryPolicy
from tipserve.errors import InvalidArgument, TipserveError, from_status
from tipserve.labelled import ClassSpec, Example, Labelled, default_id
from tipserve.pictures import ENVELOPE_BYTES, Encoder, Picture
from tipserve.types import Embeddings, GridKind, Rejected, ServerInfo, Version, matrix

DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""gRPC's own default limit, for servers that name none."""

_MESSAGE_LIMITS = ("max_message_bytes", "message_bytes")

# A message is full at so much, however much more the server would take:
# smaller ones keep the pipe even.
BATCH_BYTES = 1024 * 1024
BATCH_ITEMS = 64

Priority = Literal["interactive", "bulk"]
"""Whether somebody waits for the answer."""

M = TypeVar("M")


def max_message_bytes(info: ServerInfo) -> int:
    """The largest message that a server takes."""
    for name in _MESSAGE_LIMITS:
        limit = info.limits.get(name, 0)
        if limit > 0:
            return limit
    return DEFAULT_MAX_MESSAGE_BYTES


def batch_bytes(limit: int) -> int:
    """When to close a message of several items."""
    return max(min(BATCH_BYTES, limit - ENVELOPE_BYTES), 1)


def grouped(messages: Iterable[M], limit: int, size: Callable[[M], int]) -> Iterator[list[M]]:
    """Groups messages so that each group stays under the limit in bytes."""
    group: list[M] = []
    total = 0
    for message in messages:
        # Every item costs its own tag and length besides, at most 6 + 1 bytes.
        own = size(message) + 8
        if group and (total + own > batch_bytes(limit) or len(group) >= BATCH_ITEMS):
            yield group
            group, total = [], 0
        group.append(message)
        total += own
    if group:
        yield group


def _byte_size(message: Message) -> int:
    return int(message.ByteSize())


def enum_value(kind: Any, prefix: str, name: str | None) -> int:
    """The number of an enumeration's value by its short name; 0 for None."""
    if name is None:
        return 0
    full = prefix + str(name).upper().replace("-", "_")
    names = list(kind.keys())
    if full not in names:
        known = ", ".join(
            key.removeprefix(prefix).lower() for key in names if not key.endswith("SPECIFIED")
        )
        raise ValueError(f"{name!r} is not one of: {known}")
    return int(kind.Value(full))


def read_mask(fields: Sequence[str] | None) -> FieldMask | None:
    """A field mask; None asks for everything."""
    return None if fields is None else FieldMask(paths=list(fields))


@dataclass(frozen=True)
class Grid:
    """Which α and β are searched: "wide" (logarithmic) or "official" (the authors')."""

    kind: GridKind = "wide"
    beta_scale: float = 0.0
    """Official: the largest β. Default 7."""
    alpha_scale: float = 0.0
    """Official: the largest α. Default 3."""

    def _message(self) -> cache_pb2.SearchGrid:
        made = cache_pb2.SearchGrid(beta_scale=self.beta_scale, alpha_scale=self.alpha_scale)
        made.kind = enum_value(cache_pb2.SearchGrid.Kind, "KIND_", self.kind)  # type: ignore[assignment]
        return made


@dataclass
class ExampleMessages:
    """Examples as messages, read while they are sent.

    What the client itself cannot read or send is `rejected` and left out.
    """

    labelled: Sequence[Labelled]
    encoder: Encoder
    fail: bool
    """Raise for a rejected example instead."""
    rejected: list[Rejected] = field(default_factory=list)

    def _encoded(self) -> Iterator[tuple[Example, input_pb2.Input]]:
        for part in self.labelled:
            for example in part.examples:
                try:
                    encoded = self.encoder.encode(example.picture)
                except TipserveError as error:
                    if self.fail:
                        raise
                    self.rejected.append(Rejected(example.id, error))
                    continue
                yield example, encoded

    def batches(self) -> Iterator[cache_pb2.ExampleBatch]:
        """The examples of CreateCache and AddExamples."""
        examples = (
            cache_pb2.Example(
                example_id=one.id,
                **class_fields(one),
                input=made,
                validation=one.validation,
                unknown=one.unknown,
                unlabelled=one.unlabelled,
            )
            for one, made in self._encoded()
        )
        for group in grouped(examples, self.encoder.max_message_bytes, _byte_size):
            yield cache_pb2.ExampleBatch(examples=group)

    def for_evaluate(
        self,
        caches: Sequence[str],
        unknown: Iterable[Any] | None,
        reject: classify_pb2.RejectOptions | None,
    ) -> Iterator[classify_pb2.EvaluateRequest]:
        """All requests of Evaluate; `unknown` are pictures of other classes."""
        config = classify_pb2.EvaluateConfig(caches=caches, reject=reject)
        yield classify_pb2.EvaluateRequest(config=config)
        known = (
            classify_pb2.LabelledItem(id=one.id, input=made, **class_fields(one))
            for one, made in self._encoded()
        )
        items = chain(known, self._unknown(unknown or ()))
        for group in grouped(items, self.encoder.max_message_bytes, _byte_size):
            yield classify_pb2.EvaluateRequest(items=classify_pb2.LabelledBatch(items=group))

    def _unknown(self, pictures: Iterable[Any]) -> Iterator[classify_pb2.LabelledItem]:
        for position, picture in enumerate(pictures):
            id, made, _ = prepare(picture, position, None, self.encoder.encode)
            if isinstance(made, TipserveError):
                self.rejected.append(Rejected(id, made))
            else:
                yield classify_pb2.LabelledItem(id=id, input=made, unknown=True)


def reject_options(
    reject: float | bool, reject_below: float | None, precision: float | None
) -> classify_pb2.RejectOptions | None:
    """When an item counts as of an unknown class; True for the server's default."""
    if (reject is not False) + (reject_below is not None) + (precision is not None) > 1:
        raise ValueError("reject, reject_below and precision exclude each other")
    if precision is not None:
        return classify_pb2.RejectOptions(precision=precision)
    if reject_below is not None:
        return classify_pb2.RejectOptions(threshold=reject_below)
    if reject is False:
        return None
    return classify_pb2.RejectOptions(accept=None if reject is True else reject)


def classify_options(
    *,
    top_k: int,
    logits: bool,
    probabilities: bool,
    neighbours: int,
    embedding: bool,
    timings: bool,
    reject: float | bool,
    reject_below: float | None,
    precision: float | None,
    coverage: float | None,
) -> classify_pb2.ClassifyOptions:
    """What to return for each item."""
    return classify_pb2.ClassifyOptions(
        top_k=top_k,
        logits=logits,
        probabilities=probabilities,
        neighbours=neighbours,
        embedding=embedding,
        timings=timings,
        reject=reject_options(reject, reject_below, precision),
        coverage=coverage,
    )


def priority(name: str) -> Any:
    """The number of "interactive" or "bulk"."""
    return enum_value(classify_pb2.Priority, "PRIORITY_", name)


@dataclass(frozen=True)
class Item:
    """One thing to classify, where a picture alone does not say enough."""

    picture: Picture
    id: str = ""
    """Comes back with the result. Default: the path, else the position."""
    time_limit: float | None = None
    """Seconds for which the answer is of use, from when it was sent."""


def check_time_limit(seconds: float | None) -> None:
    """Raises ValueError for an item's time limit that is none."""
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"time_limit is {seconds}, must be a number of seconds over 0")


def prepare(
    thing: Any, position: int, time_limit: float | None, encode: Callable[[Any], input_pb2.Input]
) -> tuple[str, input_pb2.Input | TipserveError, float | None]:
    """An item's id, its message or why there is none, and its time limit."""
    item = thing if isinstance(thing, Item) else Item(thing)
    id = item.id or default_id(item.picture, position)
    limit = time_limit if item.time_limit is None else item.time_limit
    try:
        check_time_limit(limit)
        return id, encode(item.picture), limit
    except TipserveError as error:
        return id, error, None
    except Exception as cause:
        # One thing that is no picture must not end a stream of a million.
        unusable = InvalidArgument(f"this item cannot be sent: {cause}", reason="ITEM_UNUSABLE")
        unusable.__cause__ = cause
        return id, unusable, None


def fine_tune_request(
    cache: str,
    *,
    epochs: int,
    learning_rate: float | None,
    batch_size: int,
    schedule: str | None,
    weight_decay: float | None,
    seed: int | None,
    patience: int,
    move_alias: str,
    only_if_improved: bool,
    detached: bool,
    alpha: float | None,
    beta: float | None,
    grid: Grid | None,
    description: str,
    recipe: str | None,
) -> finetune_pb2.FineTuneRequest:
    """The request of FineTune."""
    request = finetune_pb2.FineTuneRequest(
        cache=cache,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
        patience=patience,
        move_alias=move_alias,
        only_if_improved=only_if_improved,
        detached=detached,
        alpha=alpha,
        beta=beta,
        description=description,
    )
    request.schedule = enum_value(  # type: ignore[assignment]
        finetune_pb2.FineTuneRequest.Schedule, "SCHEDULE_", schedule
    )
    request.recipe = enum_value(  # type: ignore[assignment]
        cache_pb2.FineTuneRecipe, "FINE_TUNE_RECIPE_", recipe
    )
    if grid is not None:
        request.grid.CopyFrom(grid._message())
    return request


@dataclass
class EmbedCall:
    """One request of an `embed`, with the positions that it is about."""

    request: classify_pb2.EmbedRequest
    pictures: list[int]
    texts: list[int]


@dataclass
class EmbedPlan:
    """An `embed` as requests, its pictures read as they are sent, and its outcome."""

    pictures: Sequence[Picture]
    texts: Sequence[str]
    encoder: Encoder
    truncate: bool
    raw: bool
    exif_orientation: int
    bundle: str
    picture_rows: dict[int, Sequence[float] | TipserveError] = field(default_factory=dict)
    text_rows: dict[int, Sequence[float] | TipserveError] = field(default_factory=dict)

    def calls(self) -> Iterator[EmbedCall]:
        """The requests, pictures first."""
        limit = self.encoder.max_message_bytes
        for group in grouped(self._encoded(), limit, size=lambda one: one[1].ByteSize()):
            request = self._request(inputs=[made for _, made in group])
            yield EmbedCall(request, [position for position, _ in group], [])
        lines = enumerate(self.texts)
        for few in grouped(lines, limit, size=lambda one: len(one[1].encode("utf-8", "replace"))):
            request = self._request(texts=[text for _, text in few])
            yield EmbedCall(request, [], [position for position, _ in few])

    def _request(self, **what: Any) -> classify_pb2.EmbedRequest:
        return classify_pb2.EmbedRequest(
            truncate_texts=self.truncate,
            raw=self.raw,
            exif_orientation=self.exif_orientation,  # type: ignore[arg-type]
            bundle=self.bundle,
            **what,
        )

    def _encoded(self) -> Iterator[tuple[int, input_pb2.Input]]:
        for position, picture in enumerate(self.pictures):
            try:
                made = self.encoder.encode(picture)
            except TipserveError as error:
                self.picture_rows[position] = error
                continue
            yield position, made

    def take(self, call: EmbedCall, response: classify_pb2.EmbedResponse) -> None:
        """Takes in what one request brought."""
        self.picture_rows.update(zip(call.pictures, map(_row, response.inputs), strict=True))
        self.text_rows.update(zip(call.texts, map(_row, response.texts), strict=True))

    def outcome(self, *, strict: bool, width: int) -> Embeddings:
        """All rows in the order of what was given.

        `width` is that of rows if none succeeded. Raises the first error
        where `strict`.
        """
        picture_errors = _errors(self.picture_rows)
        text_errors = _errors(self.text_rows)
        if strict:
            for what, errors in (("picture", picture_errors), ("text", text_errors)):
                for position, error in errors.items():
                    error.message = f"{what} {position}: {error.message}"
                    raise error
        rows = [*self.picture_rows.values(), *self.text_rows.values()]
        width = next((len(row) for row in rows if not isinstance(row, TipserveError)), width)
        return Embeddings(
            pictures=matrix(self.picture_rows, width),
            texts=matrix(self.text_rows, width),
            picture_errors=picture_errors,
            text_errors=text_errors,
        )


def embed_plan(
    pictures: Sequence[Picture],
    texts: Sequence[str],
    encoder: Encoder,
    *,
    truncate: bool,
    raw: bool,
    exif_orientation: str,
    bundle: str,
) -> EmbedPlan:
    """An `embed`, its arguments checked."""
    if isinstance(pictures, str | bytes | os.PathLike):
        raise TypeError("pictures must be a list of pictures, not one picture")
    check_many(pictures)
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, not one string")
    turn = enum_value(input_pb2.ExifOrientation, "EXIF_ORIENTATION_", exif_orientation)
    return EmbedPlan(pictures, texts, encoder, truncate, raw, turn, bundle)


def class_specs(version: Version) -> list[ClassSpec]:
    """A version's classes, for labels to be matched with."""
    return [ClassSpec(info.display_name) for info in version.classes]


def with_attempts(policy: RetryPolicy, attempts: int) -> RetryPolicy:
    """The policy with another number of repetitions."""
    return replace(policy, attempts=attempts)


def _row(result: classify_pb2.EmbedResult) -> Sequence[float] | TipserveError:
    if result.WhichOneof("outcome") == "embedding":
        return result.embedding.values
    return from_status(result.error)


def _errors(rows: Mapping[int, Sequence[float] | TipserveError]) -> dict[int, TipserveError]:
    return {i: row for i, row in sorted(rows.items()) if isinstance(row, TipserveError)}
