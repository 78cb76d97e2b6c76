"""What may be given to the blocking client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

from tipserve._requests import Item
from tipserve.labelled import Source
from tipserve.pictures import Picture

AnySource: TypeAlias = Source
"""Labelled pictures."""

AnyItems: TypeAlias = str | Iterable[Picture | Item]
"""Pictures to classify."""

S = TypeVar("S")


def collected(source: S) -> S:
    """The source itself: there are no async iterables here."""
    return source
