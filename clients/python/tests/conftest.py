"""Fixtures: a fake server, clients in both flavours, and the real server where it is built."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_server import FakeServer

import tipserve

FAST = tipserve.RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.05)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer().start()
    yield server
    server.stop()


class Flavour:
    """The sync and the asyncio client behind one face, so that both run every test.

    What takes a client's method and collects its answers is all that is here;
    early closing and cancelling are tested on each by itself.
    """

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address

    def __call__(self, method: str, /, *args: Any, retry: Any = FAST, **kwargs: Any) -> Any:
        """Calls a method on a fresh client; streams come back as lists."""
        options = {"retry": retry}
        for name in ("resize", "token", "timeout"):
            if f"client_{name}" in kwargs:
                options[name] = kwargs.pop(f"client_{name}")
        if self.kind == "sync":
            with tipserve.Client(self.address, **options) as client:
                made = getattr(client, method)(*args, **kwargs)
                return list(made) if hasattr(made, "__next__") else made
        return asyncio.run(self._asynchronously(method, options, args, kwargs))

    async def _asynchronously(self, method: str, options: Any, args: Any, kwargs: Any) -> Any:
        async with tipserve.AsyncClient(self.address, **options) as client:
            made = getattr(client, method)(*args, **kwargs)
            if hasattr(made, "__anext__"):
                return [one async for one in made]
            return await made


@pytest.fixture(params=["sync", "asyncio"])
def call(request: pytest.FixtureRequest, fake: FakeServer) -> Flavour:
    """Calls methods of either client on the fake server."""
    return Flavour(request.param, fake.address)
