"""Reading a bundle back as a server would, and holding it against the source model."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

START, END = 49406, 49407


def manifest(bundle: Path) -> dict[str, Any]:
    """``bundle.toml``, after checking that every file is listed with its checksum."""
    content = tomllib.loads((bundle / "bundle.toml").read_text(encoding="utf-8"))
    files = {p.name for p in bundle.iterdir()} - {"bundle.toml"}
    listed = content["files"] | content.get("int8", {}).get("files", {})
    assert files == set(listed)
    for name, checksum in listed.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == checksum
    return content


def random_ids(texts: int, context: int) -> Tensor:
    """Texts of random lengths as a server pads them."""
    ids = torch.zeros(texts, context, dtype=torch.int64)
    for row in ids:
        length = random.randint(2, context)
        row[:length] = torch.randint(0, START, (length,))
        row[0], row[length - 1] = START, END
    return ids


def least_cosine(got: Tensor, want: Tensor) -> float:
    """The smallest cosine between rows, in float64."""
    assert got.shape == want.shape
    return float(F.cosine_similarity(got.double(), want.double(), dim=1).min())


def assert_agrees(
    bundle: Path, image: Callable[[Tensor], Tensor], text: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    """The archives give the source's features in float32 and bfloat16, at several batch sizes."""
    info = manifest(bundle)
    side, context = info["image"]["size"], info["text"]["context_length"]
    with torch.inference_mode():
        pixels = [torch.randn(n, 3, side, side) for n in (1, 5)]
        ids = [random_ids(n, context) for n in (1, 9)]
        for file, inputs, source in (("image.pt", pixels, image), ("text.pt", ids, text)):
            archive = torch.jit.load(bundle / file)
            features = [source(x).clone() for x in inputs]
            for x, want in zip(inputs, features, strict=True):
                got = archive(x)
                assert got.dtype == torch.float32
                assert got.shape == (len(x), info["width"])
                assert least_cosine(got, want) >= 0.99999
                # Raw features: their length is the source's too.
                assert torch.allclose(got.norm(dim=1), want.norm(dim=1), rtol=1e-3)
            archive.to(torch.bfloat16)
            for x, want in zip(inputs, features, strict=True):
                got = archive(x.bfloat16() if x.is_floating_point() else x)
                assert got.dtype == torch.bfloat16
                assert least_cosine(got, want) >= 0.999
    return info
