"""The client for ordinary, blocking programs. `tipserve.aio` has the asyncio one."""

from tipserve._help import readable
from tipserve._sync.client import Client
from tipserve._sync.fine_tune import FineTune

__all__ = ["Client", "FineTune"]

readable(Client)
readable(FineTune)
