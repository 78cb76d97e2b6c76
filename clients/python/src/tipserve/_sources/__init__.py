"""Everything that pictures and labelled pictures come in."""

from tipserve._sources.items import items_of
from tipserve._sources.opening import open_source

__all__ = ["items_of", "open_source"]
