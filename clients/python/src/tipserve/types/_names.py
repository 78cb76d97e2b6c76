"""Enumerations by their names, and times."""

from __future__ import annotations

import enum
from datetime import datetime, timezone
from typing import Any, Literal

from google.protobuf.timestamp_pb2 import Timestamp

from tipserve._proto import cache_pb2

MethodName = Literal["auto", "zero_shot", "tip_adapter", "gda", "proker", "class_mean"]
"""What `create_cache` may be told to make: not what `finetune` and "auto" make."""

OnRejected = Literal["skip", "fail"]
ClassBalance = Literal["sum", "mean"]
KeyDtype = Literal["f32", "bf16", "f16"]
GridKind = Literal["wide", "official"]
ExifOrientation = Literal["apply", "ignore"]
Schedule = Literal["cosine", "constant"]
FineTuneRecipe = Literal["residual", "tip_adapter_f"]
SuggestStrategy = Literal["typical", "margin"]


class _Name(str, enum.Enum):
    """An enumeration whose values are the names used on the command line too."""

    def __str__(self) -> str:
        return str(self.value)


class Method(_Name):
    """How a classifier's head is made; docs/api.md has the formulas."""

    AUTO = "auto"
    """The weighted sum of text, GDA and kernel ridge regression."""
    ZERO_SHOT = "zero_shot"
    """CLIP's text classifier alone."""
    TIP_ADAPTER = "tip_adapter"
    """Tip-Adapter (Zhang et al., ECCV 2022)."""
    GDA = "gda"
    """Gaussian discriminant analysis (Wang et al., ICLR 2024)."""
    PROKER = "proker"
    """Kernel ridge regression (ProKeR, CVPR 2025)."""
    CLASS_MEAN = "class_mean"
    """Nearest class mean."""
    TIP_ADAPTER_F = "tip_adapter_f"
    """Fine-tuned keys; only `finetune` makes it."""
    STACK = "stack"
    """What AUTO makes; not to be asked for by name."""
    UNKNOWN = "unknown"
    """One that this client does not know; the server is newer."""


class RunState(_Name):
    """Where a fine-tuning run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


def time_of(stamp: Timestamp) -> datetime | None:
    """A time, or None if there is none."""
    if not (stamp.seconds or stamp.nanos):
        return None
    return stamp.ToDatetime(tzinfo=timezone.utc)


def enum_name(kind: Any, number: int, prefix: str) -> str:
    """The lower-case name of a protobuf enumeration's value, without its prefix."""
    try:
        return str(kind.Name(number)).removeprefix(prefix).lower()
    except ValueError:
        return "unknown"


def method_of(number: int) -> Method:
    """A method by its number."""
    name = enum_name(cache_pb2.Method, number, "METHOD_")
    return Method(name) if name in Method._value2member_map_ else Method.UNKNOWN


def source_of(number: int) -> str:
    """What numbers were chosen on, by its number."""
    return enum_name(cache_pb2.SelectionSource, number, "SELECTION_SOURCE_")
