"""Client for tipserve: a few labelled pictures become a served classifier.

with tipserve.Client("127.0.0.1:50051") as client:
    client.create_cache("pets", "pets/train")
    for result in client.classify("pets", ["cat.jpg", "dog.jpg"]):
        print(result.id, result.error or result.best.display_name)
"""

from tipserve._afinetune import AsyncFineTune
from tipserve._finetune import FineTune
from tipserve._requests import Grid, Item
from tipserve._retry import NO_RETRIES, RetryPolicy
from tipserve.aio import AsyncClient
from tipserve.client import Client
from tipserve.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    Code,
    Conflict,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    TipserveError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from tipserve.labelled import ClassSpec, Example
from tipserve.pictures import Picture, resize_and_crop
from tipserve.types import (
    BundleInfo,
    Cache,
    Candidate,
    ClassEvaluation,
    ClassInfo,
    ClassScore,
    CreateProgress,
    Embeddings,
    Evaluation,
    ExampleInfo,
    FineTuneProgress,
    FineTuneRecord,
    FineTuneRun,
    Head,
    Method,
    Neighbour,
    Rejected,
    Result,
    RunState,
    Selection,
    ServerInfo,
    SourceCounts,
    Timings,
    Version,
)

__version__ = "0.1.0"

__all__ = [
    "NO_RETRIES",
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncFineTune",
    "BundleInfo",
    "Cache",
    "Cancelled",
    "Candidate",
    "ClassEvaluation",
    "ClassInfo",
    "ClassScore",
    "ClassSpec",
    "Client",
    "Code",
    "Conflict",
    "CreateProgress",
    "DataLoss",
    "DeadlineExceeded",
    "Embeddings",
    "Evaluation",
    "Example",
    "ExampleInfo",
    "FailedPrecondition",
    "FieldViolation",
    "FineTune",
    "FineTuneProgress",
    "FineTuneRecord",
    "FineTuneRun",
    "Grid",
    "Head",
    "Internal",
    "InvalidArgument",
    "Item",
    "Method",
    "Neighbour",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Picture",
    "Rejected",
    "ResourceExhausted",
    "Result",
    "RetryPolicy",
    "RunState",
    "Selection",
    "ServerInfo",
    "SourceCounts",
    "Timings",
    "TipserveError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Version",
    "resize_and_crop",
]
