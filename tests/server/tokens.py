"""Tokens for tests, made by the program's own command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import grpc
import wire
from conftest import BINARY


def new(name: str, role: str, prefix: str = "", extra: str = "") -> tuple[str, str]:
    """A token, and its entry with more lines."""
    arguments = [BINARY, "--json", "token", "new", "--name", name, "--role", role]
    if prefix:
        arguments += ["--prefix", prefix]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    made = json.loads(done.stdout)
    return made["token"], made["entry"] + extra


class TokensFile:
    """The file of a server's tokens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.toml"
        self.entries: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.path.write_text("")

    def add(self, name: str, role: str, prefix: str = "", extra: str = "") -> str:
        """Adds a token, and returns it."""
        self.tokens[name], self.entries[name] = new(name, role, prefix, extra)
        self.write()
        return self.tokens[name]

    def remove(self, name: str) -> None:
        """Removes a token."""
        del self.entries[name]
        self.write()

    def write(self) -> None:
        """Writes the file as an operator's tool would: in one step."""
        part = self.path.with_suffix(".part")
        part.write_text("\n".join(self.entries.values()))
        part.replace(self.path)


class _Metadata(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, metadata) -> None:
        self.metadata = metadata

    def _with(self, run, details, request):
        given = list(details.metadata or ()) + list(self.metadata)
        return run(details._replace(metadata=given), request)

    intercept_unary_unary = intercept_unary_stream = _with
    intercept_stream_unary = intercept_stream_stream = _with


def api(address: str, token: str | None = None, *, credentials=None, **headers) -> wire.Api:
    """The services at an address, with a token on every call."""
    made = wire.Api(address)
    options = [("grpc.max_receive_message_length", -1)]
    if credentials is None:
        plain = grpc.insecure_channel(address, options)
    else:
        plain = grpc.secure_channel(address, credentials, options)
    metadata = [(key.replace("_", "-"), value) for key, value in headers.items()]
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    made.channel.close()
    made.channel = grpc.intercept_channel(plain, _Metadata(metadata))
    made.caches = wire.cache_grpc.CacheServiceStub(made.channel)
    made.classifying = wire.classify_grpc.ClassifyServiceStub(made.channel)
    made.tuning = wire.finetune_grpc.FineTuneServiceStub(made.channel)
    made.analysing = wire.analysis_grpc.AnalysisServiceStub(made.channel)
    made.bundles = wire.bundle_grpc.BundleServiceStub(made.channel)
    return made
