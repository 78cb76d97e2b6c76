"""What `help` and notebooks show: annotations without quotes, and what fields mean."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
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


def documented(kind: C) -> C:
    """A data class whose `help` says what its fields mean, and how it is made."""
    initialise: Any = vars(kind).get("__init__")
    if inspect.isfunction(initialise):
        initialise.__signature__ = _as_written(inspect.signature(initialise))  # type: ignore[attr-defined]
    kind.__doc__ = _WithFields(kind.__doc__ or "")  # type: ignore[assignment]
    return kind


class _WithFields:
    """The text of a class and of its fields, read from the source when it is asked for.

    Python drops what is written below a field; editors read it there.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._whole: str | None = None

    def __get__(self, instance: object, kind: type[Any]) -> str:
        if self._whole is None:
            of_all = (pair for base in reversed(kind.__mro__) for pair in _field_texts(base))
            fields = [f"    {name}: {text}" for name, text in of_all]
            own = inspect.cleandoc(self._text)
            self._whole = "\n".join([own, "", "Fields:", *fields]) if fields else own
        return self._whole


def _field_texts(kind: type[Any]) -> Iterator[tuple[str, str]]:
    if not kind.__module__.startswith("tipserve"):
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):  # there may be no source
        return
    for made in tree.body:
        body = made.body if isinstance(made, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = inspect.cleandoc(str(below.value.value))
                yield field.target.id, text.replace("\n", "\n        ")
