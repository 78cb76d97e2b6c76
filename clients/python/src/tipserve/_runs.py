"""What the messages of a fine-tuning run say; both handles use it."""

from __future__ import annotations

from typing import Any, Protocol

from tipserve.errors import Cancelled, TipserveError
from tipserve.types import FineTuneProgress, FineTuneRun, RunState, Version


class Handle(Protocol):
    """A handle that keeps the run as it was last described."""

    run: FineTuneRun | None


def take(handle: Handle, response: Any) -> FineTuneProgress | None:
    """Takes in one message; returns progress if it is that."""
    event = response.WhichOneof("event")
    if event == "run":
        handle.run = FineTuneRun._from(response.run)
    elif event == "progress":
        return FineTuneProgress._from(response.progress)
    return None


def version_of(run: FineTuneRun | None) -> Version:
    """The version that an ended run made, or the error that says why there is none."""
    if run is None:
        raise TipserveError("the server ended the call without a run")
    if run.state is RunState.SUCCEEDED and run.version is not None:
        return run.version
    if run.error is not None:
        raise run.error
    if run.state is RunState.CANCELLED:
        raise Cancelled(f"{run.name} was cancelled")
    raise TipserveError(f"{run.name} ended as {run.state}, without a version")
