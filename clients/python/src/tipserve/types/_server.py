"""A server, its bundle and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tipserve._proto import classify_pb2
from tipserve.types._record import Record


@dataclass(frozen=True)
class BundleInfo(Record):
    """The model that is served."""

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
    no squares). Empty without encoder, and from servers of before this field,
    which mean "shortest-side"."""
    logit_bias: float | None = None
    """What a model of a sigmoid loss (SigLIP) adds to its logits; it changes
    neither ranking nor softmax. None of others."""


@dataclass(frozen=True)
class ServerInfo(Record):
    """What is served, and within which limits."""

    version: str
    bundle: BundleInfo
    device: str
    dtype: str
    limits: Mapping[str, int]

    @classmethod
    def _from(cls, m: classify_pb2.ServerInfo) -> ServerInfo:
        b = m.bundle
        return cls(
            version=m.version,
            bundle=BundleInfo(
                name=b.name,
                fingerprint=b.fingerprint,
                width=b.width,
                image_size=b.image_size,
                has_image_encoder=b.has_image_encoder,
                has_text_encoder=b.has_text_encoder,
                logit_scale=b.logit_scale,
                templates=tuple(b.templates),
                resize_to=b.resize_to,
                interpolation=b.interpolation,
                resize=b.resize,
                logit_bias=b.logit_bias if b.HasField("logit_bias") else None,
            ),
            device=m.device,
            dtype=m.dtype,
            limits=dict(m.limits),
        )
