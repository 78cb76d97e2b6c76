"""When a call that streams examples up may be made again; both clients use it."""

from __future__ import annotations

import uuid

from tipserve._retry import is_broken_connection
from tipserve.errors import Code, TipserveError


class Broken(Exception):
    """An upload failed in a way that another try may mend."""

    def __init__(self, error: TipserveError) -> None:
        super().__init__(str(error))
        self.error = error


def upload_failure(error: TipserveError) -> Exception:
    """What to raise for a failed upload: `Broken` where another try may mend it."""
    refused = error.code is Code.RESOURCE_EXHAUSTED and error.retry_delay is not None
    return Broken(error) if refused or is_broken_connection(error) else error


def new_request_id() -> str:
    """An id that tells a call from every other (AIP-155).

    Every try of the call carries it, so that the server makes one version
    however often the connection breaks.
    """
    return str(uuid.uuid4())
