"""Adds 8-bit archives to a bundle that is there, whatever made it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tipserve_export.bundle import MANIFEST, sha256_of
from tipserve_export.errors import OutputError, SourceError
from tipserve_export.int8.agreement import Agreement, agreement
from tipserve_export.int8.pictures import compared
from tipserve_export.int8.prompts import token_ids
from tipserve_export.read_bundle import checked_manifest, load_archive, read_manifest
from tipserve_export.statistics import prepared

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tipserve_export.int8.rewrite import Rewritten

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
    before = plain_part(read_manifest(bundle))
    if not before.endswith("\n"):
        raise SourceError(
            f"{bundle / MANIFEST} does not end with a line break: it was changed by hand"
        )
    manifest = checked_manifest(bundle, before)
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

    def __init__(self, found: Agreement, source: str, *, is_smoothed: bool = False) -> None:
        self.agreement = found
        self.source = source
        self.is_smoothed = is_smoothed

    def table(self) -> dict[str, Any]:
        found = self.agreement
        smoothed = {"smoothed": True} if self.is_smoothed else {}
        return smoothed | {
            "source": self.source,
            "count": found.count,
            "cosine_least": found.cosine_least,
            "cosine_mean": found.cosine_mean,
            "noise": found.noise,
            "neighbour": found.neighbour,
            "head": found.head,
        }


def _unfit() -> str | None:
    """Why 8-bit archives cannot be made here."""
    import torch  # noqa: PLC0415

    from tipserve_export.int8.rewrite import ENGINE, exact_engine  # noqa: PLC0415

    if ENGINE not in torch.backends.quantized.supported_engines:
        return "this torch is built without oneDNN's 8-bit kernels"
    if exact_engine() is None:
        return (
            "this CPU has no VNNI and this torch no QNNPACK, so how well 8 bits agree cannot be "
            "measured"
        )
    return None


def _verdict(encoder: str, result: _Made | str, *, always: bool) -> str:
    if isinstance(result, str):
        return f"no int8 {encoder} encoder: {result}"
    found = result.agreement
    figures = (
        f"cosine {found.cosine_mean} (least {found.cosine_least}), noise {found.noise}, nearest "
        f"neighbour the same in {found.neighbour:.1%}, head's class in {found.head:.1%} of "
        f"{found.count} inputs ({result.source}{', smoothed' if result.is_smoothed else ''})"
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
    """Writes the archive in 8 bits to ``out`` and holds the file against the float one.

    If it is too far, activations are smoothed by what they are on half of the inputs: the nearest
    archive is kept, and what is stated of it is measured on the others.
    """
    import torch  # noqa: PLC0415

    from tipserve_export.int8.rewrite import rewrite, smoothed  # noqa: PLC0415

    def load() -> torch.jit.ScriptModule:
        return load_archive(archive)

    rewritten = rewrite(load())
    if rewritten.share < LEAST_SHARE:
        return (
            f"{rewritten.share:.0%} of its layers' weights are in linear ones: 8 bits would not pay"
        )
    torch.jit.save(rewritten.module, str(out))
    classes, source = labels()
    plain = _unit(load().eval(), batches)
    made = _Made(agreement(plain, _unit(_exact(out), batches), classes), source)
    if made.agreement.is_enough:
        return made
    return _smoothed(smoothed(load(), batches[::2]), out, batches, plain, classes, made)


def _smoothed(
    candidates: Iterator[Rewritten],
    out: Path,
    batches: list[torch.Tensor],
    plain: NDArray[np.float64],
    classes: list[str | None],
    made: _Made,
) -> _Made:
    """The nearest of ``made``, whose file is ``out``, and the candidates; its file is ``out``."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    shown = np.concatenate([np.full(len(it), n % 2 == 0) for n, it in enumerate(batches)])
    unlabelled = [None] * int(shown.sum())
    others = [label for label, one in zip(classes, shown, strict=True) if not one]

    def noise(int8: NDArray[np.float64]) -> float:
        """What the strength is chosen by: on the inputs that the factors are from."""
        return agreement(plain[shown], int8[shown], unlabelled).noise

    least = noise(_unit(_exact(out), batches))
    tried = out.with_suffix(".smoothed")
    for candidate in candidates:
        torch.jit.save(candidate.module, str(tried))
        int8 = _unit(_exact(tried), batches)
        if (found := noise(int8)) < least:
            least = found
            tried.replace(out)
            of_others = agreement(plain[~shown], int8[~shown], others)
            made = _Made(of_others, made.source, is_smoothed=True)
    tried.unlink(missing_ok=True)
    return made


def _exact(archive: Path) -> torch.jit.ScriptModule:
    """An 8-bit archive, to be run as a CPU with VNNI does."""
    import torch  # noqa: PLC0415

    from tipserve_export.int8.rewrite import exact_engine  # noqa: PLC0415

    torch.backends.quantized.engine = exact_engine()
    return torch.jit.load(str(archive)).eval()


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
