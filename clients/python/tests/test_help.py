"""What `help` shows: every public name with what it is for."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc

import pytest

import tipserve

PUBLIC = [name for name in tipserve.__all__ if name != "Picture"]  # an alias of types


def members(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is_for(name):
    thing = getattr(tipserve, name)
    assert inspect.getdoc(thing)
    if not inspect.isclass(thing):
        return
    fields = (
        {one.name for one in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else ()
    )
    for member in members(thing):
        found = inspect.getattr_static(thing, member)
        if callable(found) or isinstance(found, property | classmethod | staticmethod):
            assert inspect.getdoc(getattr(thing, member, found)), f"{name}.{member}"
    text = pydoc.render_doc(thing, renderer=pydoc.plaintext)
    for member in fields:
        assert member in text


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_every_argument_of_the_clients_calls_is_told(name):
    """By its own line, or because a call without a list of them says it in its text."""
    kind = getattr(tipserve, name)
    for member in members(kind):
        call = getattr(kind, member)
        text = inspect.getdoc(call) or ""
        if "Args:" not in text:
            continue
        for argument in inspect.signature(call).parameters:
            if argument != "self":
                assert f"\n    {argument}: " in text, f"{name}.{member}: {argument}"


def test_help_shows_signatures_as_they_were_written_and_what_fields_mean():
    text = pydoc.render_doc(tipserve.Result, renderer=pydoc.plaintext)
    assert "accepted: bool | None = None" in text
    assert "'bool" not in text.split("Method resolution")[0]
    assert "Fields:" in text
    text = pydoc.render_doc(tipserve.Client.classify, renderer=pydoc.plaintext)
    assert "cache: str, items: AnyItems" in text
