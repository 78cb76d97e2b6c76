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
    """What a picture's shorter side is resized to before the crop."""
    interpolation: str = ""
    """How it is resized: "bicubic" or "bilinear". Empty without encoder, and
    from servers of before this field, which mean "bicubic"."""


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
            ),
            device=m.device,
            dtype=m.dtype,
            limits=dict(m.limits),
        )
