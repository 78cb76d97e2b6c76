"""Several bundles as one: features side by side, one decoded picture, text where one has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tipserve_export.archive import archive_writer
from tipserve_export.bundle import (
    DEFAULT_TEMPLATES,
    MANIFEST,
    BundleInfo,
    Preprocessing,
    TextRules,
    check_output,
    sha256_of,
    write_bundle,
)
from tipserve_export.errors import SourceError
from tipserve_export.models.side_by_side import Part, SideBySideImage, SideBySideText
from tipserve_export.read_bundle import checked_manifest, load_archive, read_manifest
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.towers import IMAGE_ONLY_LOGIT_SCALE, TextTower

MOST = 4
"""How many encoders a server takes in one bundle."""


@dataclass(frozen=True)
class Member:
    """A bundle to be joined."""

    folder: Path
    manifest: dict[str, Any]
    weight: float

    @property
    def width(self) -> int:
        """D of its embeddings."""
        return self.manifest["width"]

    @property
    def preprocessing(self) -> Preprocessing:
        """How it sees pictures."""
        image = self.manifest["image"]
        return Preprocessing(
            size=_pixels(image["size"]),
            resize_to=_pixels(image["resize_to"]),
            mean=tuple(image["mean"]),
            std=tuple(image["std"]),
            interpolation=image["interpolation"],
            resize=image["resize"],
        )

    def archive(self, table: str) -> nn.Module:
        """Its encoder of ``image`` or ``text``."""
        return load_archive(self.folder / self.manifest[table]["file"])


def export_join(
    folders: list[Path], weights: list[float] | None, out: Path, labels: Labels, *, force: bool
) -> None:
    """Joins 2 to 4 bundles with image encoders; ``weights`` are equal unless given.

    Text is that of the first that has some. The logit scale is made larger by as much as text
    loses to the other parts, so that zero-shot logits are the part's own.
    """
    check_output(out, force=force)
    members = _members(folders, weights)
    tops = [sum(m.preprocessing.sides[0] for m in members[:i]) for i in range(len(members))]
    image = SideBySideImage([_part(m, top) for m, top in zip(members, tops, strict=True)])
    sides = (
        sum(m.preprocessing.sides[0] for m in members),
        max(m.preprocessing.sides[1] for m in members),
    )
    generator = torch.Generator().manual_seed(0)
    canvas = torch.rand(2, 3, *sides, generator=generator)
    files = {"image.pt": archive_writer(image, canvas, _reference(members, tops))}
    told = next((i for i, m in enumerate(members) if "text" in m.manifest), None)
    scale, bias, rules = IMAGE_ONLY_LOGIT_SCALE, None, None
    templates = labels.templates or DEFAULT_TEMPLATES
    if told is not None:
        member = members[told]
        scale = member.manifest["logit_scale"] / member.weight**0.5
        bias = member.manifest.get("logit_bias")
        own = tuple(member.manifest.get("templates", ()))
        templates = labels.templates or own or DEFAULT_TEMPLATES
        before = sum(m.width for m in members[:told])
        behind = sum(m.width for m in members[told + 1 :])
        text = _text(member, before, behind)
        rules = text.rules
        files["text.pt"] = archive_writer(text.module, text.example(generator), None)
        files["tokenizer.json"] = text.write_tokenizer
    licences = [m.manifest.get("licence") for m in members]
    info = BundleInfo(
        name=labels.name_or("+".join(m.manifest["name"] for m in members)),
        width=sum(m.width for m in members),
        logit_scale=scale,
        logit_bias=bias,
        templates=templates,
        source=_source(members),
        licence=labels.licence or ("; ".join(dict.fromkeys(licences)) if all(licences) else None),
        image=Preprocessing(
            size=sides,
            resize_to=sides,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            resize="squash",
            parts=tuple(replace(m.preprocessing, share=(m.width, m.weight)) for m in members),
        ),
        text=rules,
    )
    write_bundle(out, info, files, force=force)


def _members(folders: list[Path], weights: list[float] | None) -> list[Member]:
    if not 2 <= len(folders) <= MOST:
        raise SourceError(f"2 to {MOST} bundles are joined, not {len(folders)}")
    given = [1.0] * len(folders) if weights is None else weights
    if len(given) != len(folders):
        raise SourceError(f"{len(given)} weights for {len(folders)} bundles: one each is needed")
    if not all(0 < weight < float("inf") for weight in given):
        raise SourceError(f"weights must be over 0 and finite, not {given}")
    members = []
    for folder, weight in zip(folders, given, strict=True):
        manifest = checked_manifest(folder, read_manifest(folder))
        if "image" not in manifest:
            raise SourceError(f"{folder} has no image encoder: there is nothing to join")
        if "parts" in manifest["image"]:
            raise SourceError(f"{folder} is a join already: give its own parts")
        members.append(Member(folder, manifest, weight / sum(given)))
    return members


def _part(member: Member, top: int) -> Part:
    seen = member.preprocessing
    mean, std = torch.tensor(seen.mean), torch.tensor(seen.std)
    return Part(member.archive("image"), top, seen.sides, mean, std, member.weight)


def _reference(members: list[Member], tops: list[int]) -> Any:
    """The features of each bundle's own archive, put side by side in float64."""

    def features(canvas: Tensor) -> Tensor:
        rows = []
        for member, top in zip(members, tops, strict=True):
            seen = member.preprocessing
            height, width = seen.sides
            own = canvas[:, :, top : top + height, :width].double()
            mean, std = (
                torch.tensor(v).double().reshape(1, 3, 1, 1) for v in (seen.mean, seen.std)
            )
            raw = member.archive("image")(((own - mean) / std).float()).double()
            rows.append(raw / raw.norm(dim=1, keepdim=True) * member.weight**0.5)
        return torch.cat(rows, dim=1)

    return features


def _text(member: Member, before: int, behind: int) -> TextTower:
    stated = member.manifest["text"]
    content = (member.folder / stated["tokenizer"]).read_text(encoding="utf-8")
    return TextTower(
        module=SideBySideText(member.archive("text"), before, behind),
        rules=TextRules(
            rules=stated["rules"],
            context_length=stated["context_length"],
            pad_id=stated["pad_id"],
            pad_side=stated.get("pad_side", "right"),
        ),
        vocabulary=_vocabulary(content),
        write_tokenizer=lambda path: path.write_text(content, encoding="utf-8"),
    )


def _vocabulary(content: str) -> int:
    """How many ids a ``tokenizer.json`` has: one more than the largest."""
    model = json.loads(content)["model"]
    vocabulary = model["vocab"]
    return max(vocabulary.values()) + 1 if isinstance(vocabulary, dict) else len(vocabulary)


def _source(members: list[Member]) -> str:
    parts = [
        f"{m.manifest['name']} ({m.weight:.3g}; {m.manifest.get('source', 'source not stated')}; "
        f"{sha256_of(m.folder / MANIFEST)[:12]})"
        for m in members
    ]
    return f"join of {' and '.join(parts)}"


def _pixels(size: Any) -> int | tuple[int, int]:
    return size if isinstance(size, int) else (size[0], size[1])
