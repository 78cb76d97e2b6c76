"""What the server answers, as plain values."""

from tipserve.types._answer import ClassScore, Embeddings, Neighbour, Result, Timings, to_pandas
from tipserve.types._arrays import matrix, vector
from tipserve.types._cache import (
    Cache,
    ClassInfo,
    CreateProgress,
    ExampleInfo,
    FineTuneRecord,
    Rejected,
    SourceCounts,
    Version,
)
from tipserve.types._evaluation import ClassEvaluation, Evaluation
from tipserve.types._finetune import FineTuneProgress, FineTuneRun
from tipserve.types._head import Candidate, Head, Selection
from tipserve.types._names import (
    ClassBalance,
    ExifOrientation,
    GridKind,
    KeyDtype,
    Method,
    MethodName,
    OnRejected,
    RunState,
    Schedule,
    enum_name,
)
from tipserve.types._server import BundleInfo, ServerInfo

__all__ = [
    "BundleInfo",
    "Cache",
    "Candidate",
    "ClassBalance",
    "ClassEvaluation",
    "ClassInfo",
    "ClassScore",
    "CreateProgress",
    "Embeddings",
    "Evaluation",
    "ExampleInfo",
    "ExifOrientation",
    "FineTuneProgress",
    "FineTuneRecord",
    "FineTuneRun",
    "GridKind",
    "Head",
    "KeyDtype",
    "Method",
    "MethodName",
    "Neighbour",
    "OnRejected",
    "Rejected",
    "Result",
    "RunState",
    "Schedule",
    "Selection",
    "ServerInfo",
    "SourceCounts",
    "Timings",
    "Version",
    "enum_name",
    "matrix",
    "to_pandas",
    "vector",
]
