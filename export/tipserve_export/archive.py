"""TorchScript archives: scripted, written, read back and held against the source model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tipserve_export.errors import MismatchError, SourceError

MIN_COSINE = 0.99999
"""What an archive's features must agree to with the source's, both in float32."""


def archive_writer(
    module: nn.Module, example: Tensor, expected: Callable[[Tensor], Tensor] | None
) -> Callable[[Path], None]:
    """What writes ``module`` as a TorchScript archive and checks the file.

    The file read back must give, for ``example``, the features of ``expected`` (the source
    model; ``module`` itself where the source cannot be run).
    """

    def write(path: Path) -> None:
        with warnings.catch_warnings():
            # torch announces TorchScript's end; the server's torch is pinned to one that has it.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(scripted(module), path)
            cosine = check(path, example, expected or module)
        against = "source model" if expected else "model before it was written"
        print(f"{path.name}: least cosine to the {against} {cosine:.7f}", file=sys.stderr)

    return write


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """``module`` as TorchScript; a :class:`SourceError` names the line that cannot be one."""
    try:
        return torch.jit.script(module.eval().requires_grad_(False))
    except RuntimeError as error:
        # TorchScript's own message goes on with the whole stack of calls.
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        place = next((line for line in said if line.startswith("File ")), "")
        raise SourceError(
            f"this architecture cannot be written as TorchScript: {said[0].rstrip(':')}"
            + (f" ({place})" if place else "")
        ) from error


def check(path: Path, example: Tensor, expected: Callable[[Tensor], Tensor]) -> float:
    """The least cosine of the archive's features with the expected ones.

    Raises :class:`MismatchError` if it is below ``MIN_COSINE`` or the shapes differ.
    """
    archive = torch.jit.load(path, map_location="cpu")
    with torch.inference_mode():
        got, want = archive(example).double(), expected(example).double()
    if got.shape != want.shape:
        raise MismatchError(
            f"{path.name} gives features of shape {list(got.shape)}, "
            f"the source model of shape {list(want.shape)}"
        )
    cosine = float(F.cosine_similarity(got, want, dim=1).min())
    if not cosine >= MIN_COSINE:
        raise MismatchError(
            f"{path.name} does not compute what the source model computes: "
            f"cosine {cosine:.6f} where {MIN_COSINE} is the least"
        )
    return cosine
