"""How a version computes logits, and how its numbers were chosen."""

from __future__ import annotations

from dataclasses import dataclass

from tipserve._proto import cache_pb2
from tipserve.types._names import Method, enum_name, method_of, source_of
from tipserve.types._record import Record


def _whose(standardised: int) -> str:
    """Whose: own or bundle; empty for plain features."""
    name = enum_name(cache_pb2.Standardised, standardised, "STANDARDISED_")
    return "" if name == "unspecified" else name


@dataclass(frozen=True)
class Candidate(Record):
    """One method with its best numbers, from the choice of the head."""

    method: Method
    alpha: float
    beta: float
    lambda_: float
    accuracy: float
    """Share classified rightly, 0 to 1."""
    cross_entropy: float
    """Mean, in nats."""
    skipped: str
    """Why it was left out; empty if it was scored."""
    weight: float | None = None
    """Its weight in a stack's sum; None if it is no part of it."""
    temperature: float | None = None
    """At which its own logits are probabilities; None if none was recorded."""
    standardised: str = ""
    """Whose statistics standardised the features: "own", "bundle"; "" for plain."""

    @classmethod
    def _from(cls, m: cache_pb2.Candidate) -> Candidate:
        return cls(
            method=method_of(m.method),
            alpha=m.alpha,
            beta=m.beta,
            lambda_=getattr(m, "lambda"),
            accuracy=m.accuracy,
            cross_entropy=m.cross_entropy,
            skipped=m.skipped,
            weight=m.weight if m.HasField("weight") else None,
            temperature=m.temperature if m.HasField("temperature") else None,
            standardised=_whose(m.standardised),
        )


@dataclass(frozen=True)
class Selection(Record):
    """On what, and how, method, α, β and temperature were chosen."""

    source: str
    """One of "validation", "leave_one_out", "default" and so on."""
    example_count: int
    score: str
    grid: str
    candidates: tuple[Candidate, ...]
    """Every candidate, the chosen one first."""
    reason: str
    """Why, in one sentence."""

    @classmethod
    def _from(cls, m: cache_pb2.Selection) -> Selection:
        return cls(
            source=source_of(m.source),
            example_count=m.example_count,
            score=m.score,
            grid=m.grid,
            candidates=tuple(Candidate._from(candidate) for candidate in m.candidates),
            reason=m.reason,
        )


@dataclass(frozen=True)
class UnlabelledUse(Record):
    """What a version learnt from pictures without labels."""

    count: int
    """Unlabelled pictures."""
    used: bool
    """Whether the head learns from them."""
    example_count: int
    """Labelled examples that neither head had seen, on which that was decided; 0
    where there were none: the pictures are then used unchecked."""
    cross_entropy_before: float
    """Mean cross-entropy on these without the pictures, nats."""
    cross_entropy_after: float
    """The same with them."""
    accuracy_before: float
    """Share classified rightly without the pictures, 0 to 1."""
    accuracy_after: float
    """The same with them."""
    reason: str
    """One sentence for people."""

    @classmethod
    def _from(cls, m: cache_pb2.UnlabelledUse) -> UnlabelledUse:
        return cls(
            count=m.count,
            used=m.used,
            example_count=m.example_count,
            cross_entropy_before=m.cross_entropy_before,
            cross_entropy_after=m.cross_entropy_after,
            accuracy_before=m.accuracy_before,
            accuracy_after=m.accuracy_after,
            reason=m.reason,
        )


@dataclass(frozen=True)
class Head(Record):
    """How logits are computed: f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V."""

    method: Method
    alpha: float
    beta: float
    lambda_: float
    logit_scale: float
    class_balance: str
    """One of "sum" and "mean"."""
    temperature: float
    """Probabilities are softmax(logits / temperature)."""
    selection: Selection
    key_dtype: str
    """Number format of the resident keys: "f32", "bf16", "f16"."""
    standardised: str = ""
    """Whose statistics put the features on one scale: "own", "bundle"; "" where
    they are plain."""
    unlabelled: UnlabelledUse | None = None
    """What came of pictures without labels; None if there are none."""

    @classmethod
    def _from(cls, m: cache_pb2.Head) -> Head:
        return cls(
            method=method_of(m.method),
            alpha=m.alpha,
            beta=m.beta,
            lambda_=getattr(m, "lambda"),
            logit_scale=m.logit_scale,
            class_balance=enum_name(cache_pb2.ClassBalance, m.class_balance, "CLASS_BALANCE_"),
            temperature=m.temperature,
            selection=Selection._from(m.selection),
            key_dtype=enum_name(cache_pb2.KeyDtype, m.key_dtype, "KEY_DTYPE_"),
            standardised=_whose(m.standardised),
            unlabelled=(UnlabelledUse._from(m.unlabelled) if m.HasField("unlabelled") else None),
        )
