"""Prompts to compare two text encoders on, as token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# fmt: off
NAMES = [
    "cat", "dog", "horse", "cow", "sheep", "goat", "pig", "chicken", "duck", "goose",
    "eagle", "owl", "parrot", "snake", "lizard", "frog", "fish", "shark", "whale",
    "dolphin", "crab", "spider", "bee", "butterfly", "ant", "tree", "flower", "rose",
    "tulip", "grass", "mushroom", "apple", "banana", "orange", "lemon", "strawberry",
    "tomato", "carrot", "potato", "bread", "cheese", "pizza", "cake", "car", "truck", "bus",
    "bicycle", "train", "boat", "aeroplane", "bridge", "tower", "house", "castle", "church",
    "table", "chair", "lamp", "clock", "bottle", "cup", "knife", "shoe", "hat",
]
# fmt: on
TEMPLATES = ("a photo of a {}.", "a close-up photo of the {} in low light, from above")


def token_ids(bundle: Path, text: dict[str, Any]) -> list[list[int]] | None:
    """Rows of ``context_length`` ids; None where the package ``tokenizers`` is not installed.

    Close to what the server makes of the prompts, not equal in every rule: both encoders are
    given the same.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415
    except ImportError:
        return None
    file = bundle / text["tokenizer"]
    tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    vocabulary = json.loads(file.read_text(encoding="utf-8"))["model"].get("vocab", {})
    context, pad = text["context_length"], text["pad_id"]
    rows = []
    for template in TEMPLATES:
        for name in NAMES:
            ids = tokenizer.encode(template.format(name)).ids
            if text["rules"] == "clip":
                ends = [vocabulary[f"<|{end}oftext|>"] for end in ("start", "end")]
                ids = [ends[0], *ids[: context - 2], ends[1]]
            ids = ids[:context]
            padding = [pad] * (context - len(ids))
            rows.append(padding + ids if text.get("pad_side") == "left" else ids + padding)
    return rows
