"""Signatures as `help` and notebooks show them: annotations without quotes."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

C = TypeVar("C", bound=type[Any])


class _Text(str):
    """An annotation that has not been evaluated, shown as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def readable(kind: C) -> C:
    """A class whose methods, inherited ones included, show their signatures as written."""
    for base in kind.__mro__:
        if not base.__module__.startswith("tipserve"):
            continue
        for name, member in vars(base).items():
            if inspect.isfunction(member) and (name.startswith("__") or name[0] != "_"):
                member.__signature__ = _as_written(inspect.signature(member))  # type: ignore[attr-defined]
    return kind


def _as_written(signature: inspect.Signature) -> inspect.Signature:
    def text(annotation: Any) -> Any:
        return _Text(annotation) if isinstance(annotation, str) else annotation

    parameters = [
        one.replace(annotation=text(one.annotation)) for one in signature.parameters.values()
    ]
    return signature.replace(
        parameters=parameters, return_annotation=text(signature.return_annotation)
    )
