"""Image models of timm, without text: ``timm NAME``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tipserve_export.bundle import check_output
from tipserve_export.errors import SourceError
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.timm_modules import for_archive, import_timm, timm_preprocessing
from tipserve_export.sources.timm_weights import (
    Place,
    read_file,
    with_own_weights,
    with_tensors,
)
from tipserve_export.sources.towers import ImageTower, Origin, write_towers

LICENCES = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause"}


def export_timm(
    name: str,
    out: Path,
    labels: Labels,
    *,
    pretrained: str | None,
    seed: int | None,
    pool: str | None,
    force: bool,
) -> None:
    """Exports a model with its own weights, those of a file, or random ones.

    ``pretrained`` is ``default`` (downloads what the name stands for) or a file; ``pool``
    replaces the model's own pooling (``token``, ``avg``, ``map``).
    """
    check_output(out, force=force)
    timm = import_timm("a timm model")
    model = create(timm, name, pretrained, seed, pool)
    config = timm.data.resolve_data_config({}, model=model)
    weights = f"random init, seed {seed}" if pretrained is None else f"pretrained {pretrained}"
    licence = (getattr(model, "pretrained_cfg", None) or {}).get("license")
    write_towers(
        out,
        ImageTower(
            module=for_archive(model, name),
            preprocessing=timm_preprocessing(config, name),
            reference=model,
        ),
        None,
        Origin(
            name=name.replace("/", "-"),
            source=f"timm {name}, {weights}",
            licence=LICENCES.get(licence, licence) if pretrained == "default" else None,
        ),
        labels,
        force=force,
    )


def create(
    timm: Any, name: str, pretrained: str | None, seed: int | None, pool: str | None
) -> nn.Module:
    """The model without its classifier."""
    options = {} if pool is None else {"global_pool": pool}
    hint = " (weights are downloaded: is there a network?)" if pretrained == "default" else ""
    with making(name, hint):
        place, model = empty(timm, name, options, seed=seed or 0)
        if pretrained is not None:
            model = _with_weights(timm, place, model, pretrained)
    return model.eval().requires_grad_(False)


def empty(
    timm: Any, name: str, options: Mapping[str, Any], *, seed: int = 0
) -> tuple[Place, nn.Module]:
    """What makes a model without its classifier, for pictures of one size, and one of them."""
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.', maxsplit=1)[0][:8]}*")[:8]
        raise SourceError(f"timm has no model {name!r}; it has {', '.join(near) or 'others'}")
    if "naflex" in name:
        raise SourceError(
            f"{name} takes pictures of any number of patches (naflex): the server batches "
            "pictures of one size only. Its fixed-size variant works"
        )
    own: dict[str, Any] = {"num_classes": 0, **options}

    def make(**more: Any) -> nn.Module:
        torch.manual_seed(seed)
        return timm.create_model(name, **own | more)

    model = make()
    if getattr(model, "dynamic_img_size", False):
        # One size is served: positions are then constants, not computed for each picture.
        own["dynamic_img_size"] = False
        model = make()
    return Place(make, name), model


@contextlib.contextmanager
def making(name: str, hint: str = "") -> Iterator[None]:
    """What timm raises in here says that it cannot make the model."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, OSError, AssertionError, KeyError) as error:
        raise SourceError(f"timm cannot make {name}{hint}: {error}") from error


def _with_weights(timm: Any, place: Place, model: nn.Module, pretrained: str) -> nn.Module:
    if pretrained == "default":
        return with_own_weights(place)
    if Path(pretrained).suffix.lower() in (".npz", ".npy"):
        # JAX's names: the model's own reader asks for each tensor that it needs.
        timm.models.load_checkpoint(model, pretrained)
        return model
    return with_tensors(place, read_file(timm, Path(pretrained)), pretrained)
