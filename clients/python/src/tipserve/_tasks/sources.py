"""What may be given to the asyncio client: all that the blocking one takes, and async iterables."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, TypeAlias, overload

from tipserve._requests import Item
from tipserve.labelled import Example, Source
from tipserve.pictures import Picture

AnySource: TypeAlias = Source | AsyncIterable[Example]
"""Labelled pictures."""

AnyItems: TypeAlias = str | Iterable[Picture | Item] | AsyncIterable[Picture | Item]
"""Pictures to classify."""


@overload
async def collected(source: AnySource) -> Source: ...  # type: ignore[overload-overlap]


@overload
async def collected(source: AnySource | None) -> Source | None: ...  # type: ignore[overload-overlap]


@overload
async def collected(source: AnyItems) -> str | Iterable[Picture | Item]: ...


async def collected(source: Any) -> Any:
    """The same source; an async iterable's examples as a list."""
    if isinstance(source, AsyncIterable):
        return [example async for example in source]
    return source


async def iterate(source: Any) -> AsyncIterator[Any]:
    """Goes through an iterable of either kind."""
    if isinstance(source, AsyncIterable):
        async for thing in source:
            yield thing
    else:
        for thing in source:
            yield thing
