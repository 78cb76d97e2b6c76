"""Escape sequences, line ends and forged log lines in every text of every method: neither the log,
at any level, nor an error, nor an answer shows them raw. A table over the descriptors.
"""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote

import grpc
import numpy as np
import pytest
import wire
from conftest import WIDTH, Server
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from over_http import call
from test_hostile_messages import METHODS
from wire import cache

DATE = "2001-02-03T04:05:06.000000Z"
# What tells a stream's answers apart comes back as it was sent: ids, and in the Open Inference
# Protocol the model.
ECHOED = ("id", "key", "model_name", "model_version")


@pytest.fixture(scope="module")
def traced(features_bundle, tmp_path_factory):
    """A server that logs all that it and its libraries have to say, for people."""
    store = tmp_path_factory.mktemp("traced") / "store"
    server = Server(features_bundle, store, env={"RUST_LOG": "trace"})
    spec = cache.CacheSpec(cache_id="here", classes=wire.classes("ab"))
    server.api.create(spec, wire.examples_of(np.random.normal(size=(8, WIDTH)), [0, 1] * 4))
    yield server
    server.close()


def naming(kind, target: str, depth: int = 3):
    """A request that names a cache wherever it can name something."""
    made = message_factory.GetMessageClass(kind)()
    names = {"name", "parent", "cache", "base", "cache_id", "model_name"}
    for field in kind.fields:
        first = field.containing_oneof is None or field.containing_oneof.fields[0] is field
        if field.is_repeated or not first:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            nested = field.message_type
            if depth and not nested.full_name.startswith("google."):
                getattr(made, field.name).CopyFrom(naming(nested, target, depth - 1))
        elif field.name in names:
            setattr(made, field.name, target)
        elif field.name == "alias":
            made.alias = "moved"
        elif field.name in ("version", "keep") and field.type != FieldDescriptor.TYPE_STRING:
            setattr(made, field.name, 1)
    return made


def texts(kind, prefix=(), within=()):
    """Ways to all text fields of a message."""
    for field in kind.fields:
        here, nested = (*prefix, field), field.message_type
        if field.type == FieldDescriptor.TYPE_STRING:
            yield here
        elif nested and nested.full_name not in within and nested.file.package != "google.protobuf":
            yield from texts(nested, here, (*within, nested.full_name))


def put(message, way, text: str) -> None:
    """Sets the field at the end of a way, with one element of each list on it."""
    field, *rest = way
    held = getattr(message, field.name, None)
    if field.message_type and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        key = text if rest[0].name == "key" else "key"
        if entry.message_type:
            made = held[key]
            if rest[0].name == "value":
                put(made, rest[1:], text)
        elif entry.type == FieldDescriptor.TYPE_STRING:
            held[key] = text if rest[0].name == "value" else "value"
        else:
            held[key] = 1
    elif not rest and field.is_repeated:
        held.append(text)
    elif not rest:
        setattr(message, field.name, text)
    else:
        put(held.add() if field.is_repeated else held, rest, text)


def messages(kind, way, text: str) -> list[bytes]:
    """What is sent: in a stream, what must come first comes first."""
    first, made = naming(kind, "here"), naming(kind, "here")
    put(made, way, text)
    oneof = way[0].containing_oneof
    later = oneof is not None and oneof.fields[0] is not way[0]
    return [one.SerializeToString() for one in ([first, made] if later else [made])]


def clean(server, said_before: int, mark: str) -> str:
    """What was logged since, of which no line is forged and nothing commands a terminal."""
    with open(server.log, "rb") as log:
        log.seek(said_before)
        said = log.read().decode()
    raw = set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", said))
    assert not raw, (raw, re.findall(rf".*{mark}.*", said)[:3])
    assert not re.search(rf"^({DATE}|forged)", said, re.MULTILINE), "a line was forged"
    return said


METHOD_KINDS = {
    f"/{method.containing_service.full_name}/{method.name}": method.input_type
    for method in METHODS
    if any(texts(method.input_type))
}


@pytest.mark.parametrize("path", METHOD_KINDS, ids=lambda path: path.rsplit(".")[-1])
def test_texts_are_never_shown_raw(traced, path):
    before = traced.log.stat().st_size
    for way in texts(METHOD_KINDS[path]):
        field = ".".join(part.name for part in way)
        mark = secrets.token_hex(4)
        text = f"x{mark}\x1b[2J\x9b1m\r\n{DATE}  INFO tipserve::audit: forged"
        ask = traced.api.channel.stream_stream(path)
        try:
            for answer in ask(iter(messages(METHOD_KINDS[path], way, text)), timeout=60):
                assert field.endswith(ECHOED) or text.encode() not in answer, field
        except grpc.RpcError as error:
            assert error.details().isprintable(), (field, error.details())
            for name, value in error.trailing_metadata():
                if name == "grpc-status-details-bin":
                    assert b"\x1b[2J" not in value, field
        clean(traced, before, mark)


@pytest.mark.parametrize("verb", ["GET", "DELETE", "OPTIONS"])
def test_paths_are_never_shown_raw(traced, verb):
    before = traced.log.stat().st_size
    text = quote(f"x\x1b[2J\r\n{DATE}  INFO tipserve::audit: forged", safe="")
    for path in (f"/v1/caches/{text}", f"/v1/{text}", f"/v2/models/{text}/ready", f"/{text}"):
        answer = call(traced, verb, path)
        assert b"\x1b" not in answer.body and b"\r\n2001" not in answer.body
    clean(traced, before, "forged")
