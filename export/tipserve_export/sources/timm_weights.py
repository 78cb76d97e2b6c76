"""Weights for a timm model, each of them in its place: timm itself passes over what misfits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tipserve_export.errors import SourceError

NAMED = 3
"""How many tensors of a kind an error names."""

COUNTER = "num_batches_tracked"
"""Of batch norms. Nothing is computed with it, and old checkpoints do not have it."""


@dataclass(frozen=True)
class Misfit:
    """What keeps a checkpoint from being a model's."""

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.misshapen)

    def refusal(self, weights: str, name: str) -> SourceError:
        """The error, with the number of tensors of each kind and the first of them."""
        kinds = [
            (self.missing, "are missing"),
            (self.misshapen, "have another shape"),
            (self.unknown, "have no place in it"),
        ]
        said = [
            f"{len(names)} {what} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
            for names, what in kinds
            if names
        ]
        return SourceError(
            f"{weights} does not hold the weights of timm's {name} with its pooling: of the "
            f"tensors {', '.join(said)}. Only a classifier may be left out: "
            "give the name, and with --pool the pooling, that the weights were trained with"
        )


class Place(NamedTuple):
    """A model that timm makes: by ``make(**options)``, and what it is called."""

    make: Callable[..., nn.Module]
    name: str


def with_tensors(place: Place, tensors: Mapping[str, Any], weights: str) -> nn.Module:
    """The model with these tensors; ``weights`` says in errors where they are from.

    Tensors that do not fit by name and shape are given to the filter that timm has for checkpoints
    of the model's authors, which renames and resizes them.
    """
    model = place.make()
    misfit = _misfit(place, model, tensors)
    if not misfit:
        model.load_state_dict(dict(tensors), strict=False)
        return model
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise misfit.refusal(weights, place.name)
    with _recorded_loads() as loads:
        try:
            model = place.make(
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": dict(tensors), "custom_load": False},
            )
        except Exception as error:  # filters stumble over foreign tensors in many ways
            raise misfit.refusal(weights, place.name) from error
    filtered = next((keys for loaded, keys in loads if loaded is model), None)
    if filtered is None:
        raise misfit.refusal(weights, place.name)
    if misfit := _of_keys(place, model, *filtered):
        raise misfit.refusal(weights, place.name)
    # It would be copied with the model.
    model.pretrained_cfg.pop("state_dict", None)
    return model


def with_own_weights(place: Place) -> nn.Module:
    """The model with the weights that its name stands for, none of them missing."""
    with _recorded_loads() as loads:
        model = place.make(pretrained=True)
    for loaded, (missing, _) in loads:
        # What timm's checkpoints have beyond the model is known to timm: text towers, for one.
        if loaded is model and (misfit := _of_keys(place, model, missing, [])):
            raise misfit.refusal(f"the checkpoint of {place.name}", place.name)
    return model


def read_file(timm: Any, file: Path) -> Mapping[str, Any]:
    """A checkpoint's tensors, averaged ones where it has such, without wrappers' prefixes."""
    if not file.is_file():
        raise SourceError(f"--pretrained {file} is neither 'default' nor a file")
    try:
        return timm.models.load_state_dict(str(file))
    except Exception as error:  # pickle's, torch's and safetensors' own kinds
        raise SourceError(f"cannot read {file}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _recorded_loads() -> Iterator[list[tuple[nn.Module, tuple[list[str], list[str]]]]]:
    """Each module that is loaded meanwhile, and the missing and the unexpected names.

    timm loads inside of what makes a model, without being strict where the classifier is left
    out, and tells its log alone what was not there.
    """
    loads: list[tuple[nn.Module, tuple[list[str], list[str]]]] = []
    own = nn.Module.load_state_dict

    def load(self: nn.Module, *args: Any, **options: Any) -> Any:
        keys = own(self, *args, **options)
        loads.append((self, (list(keys.missing_keys), list(keys.unexpected_keys))))
        return keys

    nn.Module.load_state_dict = load
    logging.disable(logging.WARNING)
    try:
        yield loads
    finally:
        logging.disable(logging.NOTSET)
        nn.Module.load_state_dict = own


def _misfit(place: Place, model: nn.Module, tensors: Mapping[str, Any]) -> Misfit:
    own = model.state_dict()
    misshapen = tuple(
        f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
        if isinstance(tensors[name], Tensor)
        else f"{name}, which is no tensor"
        for name in own
        if name in tensors
        and not (isinstance(tensors[name], Tensor) and tensors[name].shape == own[name].shape)
    )
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    found = _of_keys(place, model, missing, unexpected)
    return Misfit(found.missing, found.unknown, misshapen)


def _of_keys(place: Place, model: nn.Module, missing: list[str], unexpected: list[str]) -> Misfit:
    """What counts among the names: a checkpoint may hold a classifier, which is left out."""
    missing = [name for name in missing if not name.endswith(COUNTER)]
    unknown = list(unexpected)
    if unknown:
        classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        unknown = [n for n in unknown if not any(n.startswith(f"{head}.") for head in heads)]
    if unknown and not missing:
        # Heads have more layers than the one that timm names, and pooling may have its own.
        with torch.random.fork_rng(devices=[]):
            whole = place.make(num_classes=None, global_pool=None).state_dict()
        unknown = [name for name in unknown if name not in whole]
    return Misfit(tuple(missing), tuple(unknown))
