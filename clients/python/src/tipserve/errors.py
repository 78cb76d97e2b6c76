"""What goes wrong, as exceptions that carry everything the server said."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class Code(enum.IntEnum):
    """The canonical codes, numbered as in google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def _missing_(cls, value: object) -> Code:
        return cls.UNKNOWN


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request that the server does not accept."""

    field: str
    """Path to the field, "spec.cache_id"."""
    description: str
    """What is wrong with it."""


class TipserveError(Exception):
    """A call, or one item of a call, failed.

    The subclass says the code: `NotFound`, `InvalidArgument` and so on.
    """

    code: Code = Code.UNKNOWN
    """The canonical code."""

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_delay: float | None = None,
        request_id: str = "",
        details: Iterable[Message] = (),
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.message = message
        """The reason, for people."""
        self.reason = reason
        """The reason, for programs: "PICTURE_UNDECODABLE" (google.rpc.ErrorInfo)."""
        self.domain = domain
        """Who gave the reason; empty if the client itself did."""
        self.metadata: dict[str, str] = dict(metadata or {})
        """What the reason is about: names, limits, values."""
        self.violations = tuple(violations)
        """The fields that were not accepted (google.rpc.BadRequest)."""
        self.retry_delay = retry_delay
        """Seconds after which to try again; None if the server named none."""
        self.request_id = request_id
        """The server's id of the request, for its logs."""
        self.details = tuple(details)
        """Every detail message of a known type."""

    def __str__(self) -> str:
        text = f"{self.code.name}: {self.message}"
        if self.reason:
            text += f" [{self.reason}]"
        for violation in self.violations:
            text += f"\n  {violation.field}: {violation.description}"
        if self.request_id:
            text += f"\n  request: {self.request_id}"
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, reason={self.reason!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process borders (multiprocessing, Ray); the default
        # would call the constructor without its keywords.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def _rebuild(cls: type[TipserveError], message: str, state: dict[str, Any]) -> TipserveError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class Cancelled(TipserveError):
    """The call was cancelled."""

    code = Code.CANCELLED


class InvalidArgument(TipserveError):
    """The request is wrong, whatever the server's state."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(TipserveError):
    """It took longer than was allowed."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(TipserveError):
    """What was named is not there."""

    code = Code.NOT_FOUND


class AlreadyExists(TipserveError):
    """What was to be made is there already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(TipserveError):
    """The token does not allow this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(TipserveError):
    """A limit or a queue is full; see `retry_delay`."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(TipserveError):
    """Not possible in the state that things are in."""

    code = Code.FAILED_PRECONDITION


class Aborted(TipserveError):
    """Somebody else changed the same thing at the same time."""

    code = Code.ABORTED


class Conflict(Aborted):
    """The cache has another etag by now: somebody else changed it first.

    Nothing was changed. Look at it again, and decide again.
    """


class OutOfRange(TipserveError):
    """Over a bound, for instance of a message's size."""

    code = Code.OUT_OF_RANGE


class Unimplemented(TipserveError):
    """The server does not know this call; it may be older than the client."""

    code = Code.UNIMPLEMENTED


class Internal(TipserveError):
    """The server made a mistake."""

    code = Code.INTERNAL


class Unavailable(TipserveError):
    """The server cannot be reached, or is going away."""

    code = Code.UNAVAILABLE


class DataLoss(TipserveError):
    """Stored data is damaged."""

    code = Code.DATA_LOSS


class Unauthenticated(TipserveError):
    """A token is missing or unknown."""

    code = Code.UNAUTHENTICATED


_BY_CODE: dict[Code, type[TipserveError]] = {
    cls.code: cls for cls in TipserveError.__subclasses__()
}

_DETAIL_TYPES: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.RequestInfo,
    error_details_pb2.ResourceInfo,
    error_details_pb2.QuotaFailure,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.DebugInfo,
    error_details_pb2.Help,
    error_details_pb2.LocalizedMessage,
)


def error_for(code: int, message: str, **rest: Any) -> TipserveError:
    """The exception for a code: of its subclass, or of the base class for UNKNOWN."""
    known = Code(code)
    if known is Code.ABORTED and rest.get("reason") == "ETAG_MISMATCH":
        return Conflict(message, **rest)
    return _BY_CODE.get(known, TipserveError)(message, code=known, **rest)


def from_status(status: status_pb2.Status) -> TipserveError:
    """The exception for a google.rpc.Status, with its details unpacked."""
    found: dict[str, Any] = {}
    details: list[Message] = []
    for packed in status.details:
        detail = _unpack(packed)
        if detail is None:
            continue
        details.append(detail)
        if isinstance(detail, error_details_pb2.ErrorInfo):
            found["reason"] = detail.reason
            found["domain"] = detail.domain
            found["metadata"] = dict(detail.metadata)
        elif isinstance(detail, error_details_pb2.BadRequest):
            found["violations"] = [
                FieldViolation(violation.field, violation.description)
                for violation in detail.field_violations
            ]
        elif isinstance(detail, error_details_pb2.RetryInfo):
            found["retry_delay"] = detail.retry_delay.ToNanoseconds() / 1e9
        elif isinstance(detail, error_details_pb2.RequestInfo):
            found["request_id"] = detail.request_id
    return error_for(status.code, status.message, details=details, **found)


def _unpack(packed: Any) -> Message | None:
    for kind in _DETAIL_TYPES:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            try:
                packed.Unpack(detail)
            except DecodeError:
                return None
            return detail
    return None


def from_rpc_error(error: Any) -> TipserveError:
    """The exception for what grpc raised, of the sync or of the asyncio kind."""
    if not (hasattr(error, "code") and hasattr(error, "details")):
        return TipserveError(str(error))
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that contradict the call's own code are a proxy's mistake;
        # the code is what counts.
        status = None
    if status is not None:
        return from_status(status)
    code = error.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else Code.UNKNOWN
    return error_for(number, error.details() or "", request_id=_request_id(error))


def _request_id(error: Any) -> str:
    """The request's id from the answer's metadata, for a status without details."""
    for part in ("initial_metadata", "trailing_metadata"):
        metadata = getattr(error, part, lambda: None)()
        for key, value in metadata or ():
            if key == "x-request-id":
                return str(value)
    return ""
