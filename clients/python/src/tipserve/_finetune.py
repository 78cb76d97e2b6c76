"""The handle of a running `finetune`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from tipserve.errors import Cancelled, TipserveError, from_rpc_error
from tipserve.types import FineTuneProgress, FineTuneRun, RunState, Version

if TYPE_CHECKING:
    from tipserve.client import Client


class FineTune:
    """A run: an iterator over its progress, a context manager that cancels on leaving early.

    A run that is not detached ends with its handle: keep it.
    """

    def __init__(self, call: Any, client: Client) -> None:
        self._call = call
        self._client = client
        self.run: FineTuneRun | None = None
        """The run as the server last described it."""

    def __enter__(self) -> FineTune:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[FineTuneProgress]:
        try:
            for response in self._call:
                progress = take(self, response)
                if progress is not None:
                    yield progress
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def result(self) -> Version:
        """Waits for the end; the version that was made.

        Raises `Cancelled` for a cancelled run, and the run's own error for one
        that failed.
        """
        for _ in self:
            pass
        return version_of(self.run)

    def cancel(self) -> None:
        """Cancels the run, detached or not."""
        if self.run is None:
            # Its name comes with the first message.
            try:
                for response in self._call:
                    take(self, response)
                    break
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None
        if self.run is not None and not self.run.state.ended:
            self.run = self._client.cancel_fine_tune(self.run.name)
        self.close()

    def close(self) -> None:
        """Stops listening. The run goes on only if it is detached."""
        self._call.cancel()


def take(handle: Any, response: Any) -> FineTuneProgress | None:
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
