"""Versions as files: what Export sends into one, what Import sends of one.

Both hold no more than a message of it; both clients use them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Union

from tipserve._proto import cache_pb2
from tipserve.errors import TipserveError
from tipserve.pictures import ENVELOPE_BYTES
from tipserve.types import Version

CHUNK_BYTES = 1024 * 1024
"""Of a file in one message, if the server takes so large ones."""

Target = Union[str, "os.PathLike[str]", IO[bytes]]
"""A file to make, or something with `write`."""


class Incoming:
    """A file as it arrives. It has its name only once it is whole."""

    def __init__(self, target: Target, overwrite: bool) -> None:
        self._header: cache_pb2.ExportHeader | None = None
        self._written = 0
        self._part: str | None = None
        self._path: Path | None = None
        self._overwrite = overwrite
        if not isinstance(target, str | os.PathLike):
            self._file: IO[bytes] = target
            return
        # Through a link, what it leads to is replaced.
        self._path = path = Path(target).resolve()
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} is there already: overwrite=True replaces it")
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is no regular file")
        # Not by tempfile, whose files nobody else may read.
        part = path.parent / f".tipserve-export-{secrets.token_hex(8)}"
        self._file = open(part, "xb")  # noqa: SIM115
        self._part = str(part)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._part is not None:
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part)

    def take(self, response: cache_pb2.ExportVersionResponse) -> None:
        """Takes in an answer."""
        if response.WhichOneof("payload") == "header":
            self._header = response.header
        else:
            self._file.write(response.chunk)
            self._written += len(response.chunk)

    def finish(self) -> Version:
        """Puts the whole file in its place; the version that it holds."""
        if self._header is None:
            raise TipserveError("the server ended the call without a header")
        if self._written != self._header.size_bytes:
            raise TipserveError(
                f"the server promised {self._header.size_bytes} bytes and sent {self._written}"
            )
        self._file.flush()
        if self._part is not None and self._path is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            if self._overwrite:
                os.replace(self._part, self._path)
            else:
                os.link(self._part, self._path)  # fails if it is there by now
        return Version._from(self._header.version)


def import_requests(
    path: str | os.PathLike[str], spec: cache_pb2.ImportSpec, limit: int
) -> Iterator[Any]:
    """All requests of ImportVersion, for a server that takes messages of `limit` bytes."""
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        spec.size_bytes = left
        yield cache_pb2.ImportVersionRequest(spec=spec)
        while left > 0:
            chunk = file.read(min(CHUNK_BYTES, max(limit - ENVELOPE_BYTES, 1), left))
            if not chunk:
                raise OSError(f"{os.fspath(path)} became shorter while it was read")
            left -= len(chunk)
            yield cache_pb2.ImportVersionRequest(chunk=chunk)
