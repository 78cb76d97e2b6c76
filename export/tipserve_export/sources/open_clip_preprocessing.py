"""How open_clip prepares pictures: what a tag says, or what is known where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tipserve_export.bundle import Preprocessing
from tipserve_export.errors import SourceError

KEYS = ("mean", "std", "interpolation", "resize_mode")
"""Of what a tag states, all that says how pictures are prepared."""


def open_clip_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """As open_clip's evaluation transform computes it."""
    size = config["size"]
    sides = (size, size) if isinstance(size, int) else tuple(size)
    mode = config["resize_mode"]
    if mode == "longest":
        raise SourceError(
            "the resize mode 'longest' pads pictures to a square: only 'shortest' and 'squash' are "
            "supported"
        )
    if sides[0] != sides[1] and mode != "squash":
        raise SourceError(
            f"pictures are cropped to {sides[0]}×{sides[1]} pixels, which is no square: only "
            "squashing to other shapes is supported"
        )
    size = sides[0] if sides[0] == sides[1] else sides
    return Preprocessing(
        size=size,
        resize_to=size,
        resize="squash" if mode == "squash" else "shortest-side",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )


def without_tag(
    open_clip: ModuleType,
    name: str,
    stated: Mapping[str, Any],
    preprocessing_of: str | None,
    *,
    is_trained: bool,
) -> dict[str, Any]:
    """The preprocessing for weights that come without a tag.

    open_clip knows it by the tag alone, and takes OpenAI's (``stated``) otherwise: wrong for
    SigLIP. Taken is that of the tag ``preprocessing_of``, or what all tags of the model agree on;
    where neither is there and weights are trained, a line says what is taken.
    """
    if preprocessing_of is not None:
        return {**stated, **_of_tag(open_clip, name, preprocessing_of)}
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = {tag: _keys(open_clip.get_pretrained_cfg(name, tag)) for tag in tags}
    if known and all(one == known[tags[0]] for one in known.values()):
        return {**stated, **known[tags[0]]}
    if is_trained:
        print(_warning(name, {key: stated[key] for key in KEYS}, known), file=sys.stderr)
    return dict(stated)


def _of_tag(open_clip: ModuleType, name: str, given: str) -> dict[str, Any]:
    """What a tag says: ``TAG`` of the model itself, or ``MODEL:TAG``."""
    model, _, tag = given.rpartition(":")
    model = model.replace("/", "-") or name
    found = open_clip.get_pretrained_cfg(model, tag)
    if not found:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise SourceError(
            f"--preprocessing-of {given}: {tag!r} is no tag of open_clip's {model}; its tags are "
            f"{', '.join(tags) or 'none: another model has them as MODEL:TAG'}"
        )
    return _keys(found)


def _keys(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in KEYS if config.get(key) is not None}


def _warning(name: str, taken: dict[str, Any], known: Mapping[str, dict[str, Any]]) -> str:
    kinds: list[tuple[dict[str, Any], list[str]]] = []
    for tag, config in known.items():
        same = next((tags for kind, tags in kinds if kind == config), None)
        if same is None:
            kinds.append((config, [tag]))
        else:
            same.append(tag)
    if not kinds:
        reason = "open_clip has no tag of this model that says how its pictures are prepared"
    else:
        reason = "open_clip's tags of this model prepare pictures in different ways: " + "; ".join(
            f"{', '.join(tags)} by {_said(kind)}" for kind, tags in kinds
        )
    return (
        f"warning: {name}: {reason}. Taken: {_said(taken)}. If the weights were trained "
        "otherwise, export them again with --preprocessing-of TAG (or MODEL:TAG)"
    )


def _said(config: Mapping[str, Any]) -> str:
    levels = [
        f"{key} {' '.join(f'{value:.4g}' for value in config[key])}"
        for key in ("mean", "std")
        if key in config
    ]
    return ", ".join([*levels, *(config[key] for key in KEYS[2:] if key in config)])
