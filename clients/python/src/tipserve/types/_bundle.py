"""The bundles of a server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from tipserve._proto import bundle_pb2, classify_pb2
from tipserve.types._names import enum_name
from tipserve.types._record import Record

BundleState = Literal["available", "loading", "ready", "unloading"]
"""Where a bundle stands: in its folder, being loaded, serving, or answering what it was given."""


@dataclass(frozen=True)
class BundleInfo(Record):
    """A model that is served."""

    name: str
    fingerprint: str
    width: int
    image_size: int
    has_image_encoder: bool
    has_text_encoder: bool
    logit_scale: float
    templates: tuple[str, ...]
    resize_to: int = 0
    """What a picture's shorter side, or both, is resized to before the crop."""
    interpolation: str = ""
    """How it is resized: "bicubic" or "bilinear". Empty without encoder, and
    from servers of before this field, which mean "bicubic"."""
    resize: str = ""
    """What is resized to `resize_to`: "shortest-side", or "squash" (both sides);
    "server" where only the server can do it (several encoders, pictures that are
    no squares, bundles side by side that take other sizes). Empty without
    encoder, and from servers of before this field, which mean "shortest-side"."""
    logit_bias: float | None = None
    """What a model of a sigmoid loss (SigLIP) adds to its logits; it changes
    neither ranking nor softmax. None of others."""
    feature_statistics: bool = False
    """Whether it brings the mean and variance of its embeddings (`tipserve-export
    --statistics`), by which the automatic choice standardises features."""

    @classmethod
    def _from(cls, m: classify_pb2.BundleInfo) -> BundleInfo:
        return cls(
            name=m.name,
            fingerprint=m.fingerprint,
            width=m.width,
            image_size=m.image_size,
            has_image_encoder=m.has_image_encoder,
            has_text_encoder=m.has_text_encoder,
            logit_scale=m.logit_scale,
            templates=tuple(m.templates),
            resize_to=m.resize_to,
            interpolation=m.interpolation,
            resize=m.resize,
            logit_bias=m.logit_bias if m.HasField("logit_bias") else None,
            feature_statistics=m.feature_statistics,
        )


@dataclass(frozen=True)
class Bundle(Record):
    """A bundle, and where it stands on the server."""

    info: BundleInfo
    """What it is; name and fingerprint alone of one that is not loaded."""
    folder: str
    """Name of its folder on the server: what `load_bundle` takes."""
    state: BundleState
    is_default: bool
    """Whether it serves requests that name no bundle."""
    device: str
    dtype: str
    text_dtype: str
    load_time: datetime | None
    """When it began to serve."""
    load_seconds: float | None
    """How long loading and warming took."""
    in_flight_items: int
    """Items that it has taken and not yet answered."""

    @classmethod
    def _from(cls, m: bundle_pb2.Bundle) -> Bundle:
        loaded = m.HasField("load_time")
        return cls(
            info=BundleInfo._from(m.info),
            folder=m.folder,
            state=enum_name(bundle_pb2.Bundle.State, m.state, "STATE_"),  # type: ignore[arg-type]
            is_default=m.is_default,
            device=m.device,
            dtype=m.dtype,
            text_dtype=m.text_dtype,
            load_time=m.load_time.ToDatetime(tzinfo=timezone.utc) if loaded else None,
            load_seconds=m.load_duration.ToTimedelta().total_seconds() if loaded else None,
            in_flight_items=m.in_flight_items,
        )
