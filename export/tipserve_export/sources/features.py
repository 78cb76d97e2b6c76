"""A bundle without encoders, for embeddings that are computed elsewhere."""

from __future__ import annotations

from pathlib import Path

from tipserve_export.bundle import DEFAULT_TEMPLATES, BundleInfo, write_bundle
from tipserve_export.sources.labels import Labels


def export_features(
    width: int, logit_scale: float, out: Path, labels: Labels, *, force: bool
) -> None:
    """Writes a bundle that says a width and a logit scale, and has no files."""
    info = BundleInfo(
        name=labels.name_or(f"features-{width}"),
        width=width,
        logit_scale=logit_scale,
        templates=labels.templates or DEFAULT_TEMPLATES,
        source=f"embeddings of width {width}, computed elsewhere",
        licence=labels.licence,
    )
    write_bundle(out, info, {}, force=force)
