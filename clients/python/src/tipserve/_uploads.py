"""When a call that streams examples up may be made again; both clients use it."""

from __future__ import annotations

from tipserve._retry import is_broken_connection
from tipserve.errors import Code, TipserveError


class Broken(Exception):
    """An upload failed in a way that another try may mend."""

    def __init__(self, error: TipserveError, sent_all: bool) -> None:
        super().__init__(str(error))
        self.error = error
        # A refusal is proof that nothing was made. A connection that broke
        # after the last example proves nothing: the answer may be what was lost.
        self.nothing_made = error.code is Code.RESOURCE_EXHAUSTED or not sent_all


def upload_failure(error: TipserveError, sent_all: bool) -> Exception:
    """What to raise for a failed upload: `Broken` where another try may mend it."""
    refused = error.code is Code.RESOURCE_EXHAUSTED and error.retry_delay is not None
    return Broken(error, sent_all) if refused or is_broken_connection(error) else error
