"""How the blocking client waits, calls and streams. `tipserve._tasks` is its asyncio twin."""

from tipserve._threads.calls import Stream, off_loop, sleep, unary
from tipserve._threads.sources import AnyItems, AnySource, collected
from tipserve._threads.stream import ClassifyStream
from tipserve._threads.uploads import uploading

__all__ = [
    "AnyItems",
    "AnySource",
    "ClassifyStream",
    "Stream",
    "collected",
    "off_loop",
    "sleep",
    "unary",
    "uploading",
]
