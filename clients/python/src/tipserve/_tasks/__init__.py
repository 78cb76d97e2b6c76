"""How the asyncio client waits, calls and streams. `tipserve._threads` is its blocking twin.

Both have the same names, so that one source (`tipserve._aio`) serves both.
"""

from asyncio import sleep
from asyncio import to_thread as off_loop

from tipserve._tasks.bridge import Stream, unary
from tipserve._tasks.sources import AnyItems, AnySource, collected
from tipserve._tasks.stream import ClassifyStream
from tipserve._tasks.uploads import uploading

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
