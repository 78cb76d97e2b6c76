"""A progress bar for what takes long: with tqdm if it is installed, else plain lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tipserve.types import CreateProgress

Report = Callable[[CreateProgress], None]


def reporter(wanted: Report | bool | None) -> Report | None:
    """What to call with every progress message."""
    if wanted is True:
        return ProgressBar()
    return wanted or None


class ProgressBar:
    """Draws how many examples are encoded, of those that were received.

    Give it as `on_progress`. Encoding is what takes the time: files are sent
    well ahead of it.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, progress: CreateProgress) -> None:
        if self._bar is None:
            # tqdm's bar has no truth value before its total is known.
            bar = _tqdm()
            self._bar = _Lines() if bar is None else bar
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._bar.set_description(progress.stage)
        self._bar.total = max(progress.received, progress.encoded) or None
        if progress.rejected:
            self._bar.set_postfix_str(f"{progress.rejected} rejected")
        self._bar.update(progress.encoded - self._bar.n)
        self._bar.refresh()
        if progress.stage == "storing":
            self._bar.close()


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(unit=" pictures")


class _Lines:
    """A line on standard error for each stage."""

    def __init__(self) -> None:
        self.n = 0
        self.total: int | None = None
        self._rejected = ""

    def set_description(self, stage: str) -> None:
        """Begins a stage."""
        print(f"{stage}: {self.n} pictures{self._rejected}", file=sys.stderr)

    def set_postfix_str(self, text: str) -> None:
        """Keeps what goes with the next line."""
        self._rejected = f", {text}"

    def update(self, more: int) -> None:
        """Counts on."""
        self.n += more

    def refresh(self) -> None:
        """Nothing is redrawn."""

    def close(self) -> None:
        """The last line."""
        print(f"done: {self.n} pictures{self._rejected}", file=sys.stderr)
