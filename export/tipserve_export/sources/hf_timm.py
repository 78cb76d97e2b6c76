"""Local folders with an image model of timm: as its own hub has them, or ``timm_wrapper``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tipserve_export.errors import SourceError
from tipserve_export.sources.hf_folder import model_card_licence, read_weights
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.timm import LICENCES, empty, making
from tipserve_export.sources.timm_modules import for_archive, import_timm, timm_preprocessing
from tipserve_export.sources.timm_weights import with_tensors
from tipserve_export.sources.towers import ImageTower, Origin, write_towers

WRAPPER = "timm_wrapper"
PREFIX = "timm_model."
"""Before the names of timm's tensors, where transformers saved them."""


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a folder is one of timm: its own say no ``model_type``."""
    kind = config.get("model_type")
    return kind == WRAPPER or (kind is None and isinstance(config.get("architecture"), str))


def export_timm_folder(
    folder: Path, config: dict[str, Any], out: Path, labels: Labels, *, force: bool
) -> None:
    """Exports the model without its classifier, ``pooler_output`` in transformers."""
    timm = import_timm("a timm model")
    name = config.get("architecture")
    options = config.get("model_args") or {}
    if not isinstance(name, str) or not isinstance(options, dict):
        raise SourceError(
            f"{folder / 'config.json'} has architecture = {name!r} and model_args = {options!r}: a "
            "name of timm's and an object are needed"
        )
    if options.get("features_only"):
        raise SourceError(f"{folder} holds a {name} with features_only: it gives no single feature")
    tensors = {k.removeprefix(PREFIX): tensor for k, tensor in read_weights(folder).items()}
    with making(name):
        place, model = empty(timm, name, options)
        model = with_tensors(place, tensors, str(folder)).eval().requires_grad_(False)
        # Old folders of timm's have its keys beside the architecture.
        stated = config.get("pretrained_cfg") or (config if "mean" in config else {})
        data = timm.data.resolve_data_config(stated, model=None if stated else model)
    licence = model_card_licence(folder) or stated.get("license")
    write_towers(
        out,
        ImageTower(for_archive(model, name), timm_preprocessing(data, name), model),
        None,
        Origin(
            name=folder.resolve().name,
            source=f"Hugging Face timm {name} {folder.resolve().name}",
            licence=LICENCES.get(licence, licence),
        ),
        labels,
        force=force,
    )
