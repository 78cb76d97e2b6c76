"""Adds 8-bit archives to a bundle that is there, whatever made it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tipserve_export.bundle import MANIFEST, sha256_of
from tipserve_export.errors import OutputError, SourceError
from tipserve_export.int8.agreement import Agreement, agreement
from tipserve_export.int8.pictures import compared
from tipserve_export.int8.prompts import token_ids
from tipserve_export.statistics import prepared

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

IMAGE, TEXT = "image.int8.pt", "text.int8.pt"
BATCH = 16

LEAST_SHARE = 0.4
"""Of the weights of an encoder's layers, what must be in linear ones for 8 bits to pay.

Transformers have nearly all there. Networks of convolutions have few, and gain nothing
(docs/performance.md).
"""


def add_int8(bundle: Path, pictures: Path | None, *, always: bool) -> list[str]:
    """Writes the 8-bit archives that agree with the float ones, all with ``always``.

    ``bundle.toml`` gets the table ``[int8]`` behind everything else, or a new one in its place;
    what comes before it, and with it the bundle's fingerprint, stays as it is. Returns what came
    of each encoder, in a line each.
    """
    manifest_path = bundle / MANIFEST
    try:
        whole = manifest_path.read_text(encoding="utf-8")
    except OSError as error:
        raise SourceError(f"there is no bundle at {bundle}: {error}") from error
    before = plain_part(whole)
    if not before.endswith("\n"):
        raise SourceError(f"{manifest_path} does not end with a line break: it was changed by hand")
    manifest = tomllib.loads(before)
    if "image" not in manifest:
        return ["no int8: the bundle has no image encoder"]
    if (reason := _unfit()) is not None:
        return [f"no int8: {reason}"]
    content: dict[str, Any] = {}
    said: list[str] = []
    with tempfile.TemporaryDirectory(dir=bundle, prefix=".int8-") as folder:
        staging = Path(folder)
        image = _image(bundle, manifest["image"], pictures, staging / IMAGE)
        said.append(_verdict("image", image, always=always))
        if isinstance(image, _Made) and (always or image.agreement.is_enough):
            content |= {"image": IMAGE, "agreement": image.table()}
        if content and "text" in manifest:
            text = _text(bundle, manifest["text"], staging / TEXT)
            said.append(_verdict("text", text, always=always))
            if isinstance(text, _Made) and (always or text.agreement.is_enough):
                content |= {"text": TEXT, "text_agreement": text.table()}
        _publish(bundle, staging, before, content)
    return said


def plain_part(manifest: str) -> str:
    """``bundle.toml`` before its table ``[int8]``, as the server's fingerprint takes it."""
    lines = manifest.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.rstrip() == "[int8]":
            return "".join(lines[:number])
    return manifest


class _Made:
    """An archive written, and how it agrees."""

    def __init__(self, found: Agreement, source: str) -> None:
        self.agreement = found
        self.source = source

    def table(self) -> dict[str, Any]:
        found = self.agreement
        return {
            "source": self.source,
            "count": found.count,
            "cosine_least": found.cosine_least,
            "cosine_mean": found.cosine_mean,
            "noise": found.noise,
            "neighbour": found.neighbour,
            "head": found.head,
        }


def _unfit() -> str | None:
    """Why agreement cannot be measured here."""
    import torch  # noqa: PLC0415

    if "onednn" not in torch.backends.quantized.supported_engines:
        return "this torch is built without oneDNN's 8-bit kernels"
    if not torch.cpu._is_vnni_supported():
        return "this CPU has no VNNI, so how well 8 bits agree cannot be measured"
    return None


def _verdict(encoder: str, result: _Made | str, *, always: bool) -> str:
    if isinstance(result, str):
        return f"no int8 {encoder} encoder: {result}"
    found = result.agreement
    figures = (
        f"cosine {found.cosine_mean} (least {found.cosine_least}), noise {found.noise}, nearest "
        f"neighbour the same in {found.neighbour:.1%}, head's class in {found.head:.1%} of "
        f"{found.count} inputs ({result.source})"
    )
    if found.is_enough:
        return f"int8 {encoder} encoder: {figures}"
    what = "written nevertheless" if always else "left out"
    return f"int8 {encoder} encoder {what}, too far from float32: {figures}"


def _image(bundle: Path, image: dict[str, Any], folder: Path | None, out: Path) -> _Made | str:
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    pictures, classes, source = compared(folder)
    batches = [
        torch.from_numpy(np.stack([prepared(p, image) for p in pictures[at : at + BATCH]]))
        for at in range(0, len(pictures), BATCH)
    ]
    return _compare(bundle / image["file"], out, batches, lambda: (classes, source))


def _text(bundle: Path, text: dict[str, Any], out: Path) -> _Made | str:
    import torch  # noqa: PLC0415

    rows = token_ids(bundle, text)
    if rows is None:
        return "comparing needs the package tokenizers"
    ids = torch.tensor(rows)
    labels = ([None] * len(rows), "prompts")
    return _compare(bundle / text["file"], out, list(ids.split(BATCH)), lambda: labels)


def _compare(
    archive: Path,
    out: Path,
    batches: list[torch.Tensor],
    labels: Callable[[], tuple[list[str | None], str]],
) -> _Made | str:
    """Writes the archive in 8 bits to ``out`` and holds the file against the float one."""
    import torch  # noqa: PLC0415

    from tipserve_export.int8.rewrite import rewrite  # noqa: PLC0415

    plain = torch.jit.load(str(archive)).eval()
    rewritten = rewrite(torch.jit.load(str(archive)))
    if rewritten.share < LEAST_SHARE:
        return (
            f"{rewritten.share:.0%} of its layers' weights are in linear ones: 8 bits would not pay"
        )
    torch.jit.save(rewritten.module, str(out))
    int8 = torch.jit.load(str(out)).eval()
    classes, source = labels()
    return _Made(agreement(_unit(plain, batches), _unit(int8, batches), classes), source)


def _unit(encoder: torch.jit.ScriptModule, batches: list[torch.Tensor]) -> NDArray[np.float64]:
    """Features of unit length, [n, D]."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        rows = np.concatenate([encoder(batch).double().numpy() for batch in batches])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _publish(bundle: Path, staging: Path, before: str, content: dict[str, Any]) -> None:
    manifest_path = bundle / MANIFEST
    try:
        files = [name for name in (IMAGE, TEXT) if name in content.values()]
        whole = before
        if files:
            content["files"] = {name: sha256_of(staging / name) for name in files}
            whole = before + tomli_w.dumps({"int8": content})
        for name in files:
            (staging / name).replace(bundle / name)
        new = staging / MANIFEST
        new.write_text(whole, encoding="utf-8")
        shutil.copymode(manifest_path, new)
        new.replace(manifest_path)
        for name in {IMAGE, TEXT} - set(files):
            (bundle / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write int8 archives into {bundle}: {error}") from error
