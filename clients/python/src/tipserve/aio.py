"""The client for asyncio programs: `Client` with awaits."""

from tipserve._aio.client import AsyncClient
from tipserve._aio.fine_tune import AsyncFineTune
from tipserve._help import readable

__all__ = ["AsyncClient", "AsyncFineTune"]

readable(AsyncClient)
readable(AsyncFineTune)
