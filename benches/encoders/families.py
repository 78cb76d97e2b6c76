"""Today's models on one core: exactness and speed in float32, bfloat16 and 8 bits.

    .venv/bin/python benches/encoders/families.py [--only NAME]... [--large]

Each is the real architecture at its real size with random weights, exported as a user would and run
as the server runs it: one thread, processor time, the formats taking turns, the least of the rounds
counts. Formats that the CPU has no instructions for, which the server would not take there, are not
timed. The cosine to the source is the export's own check: the least of the archive's features with
those of the library's model, in float32. What 8 bits lose is the export's own figures too, on any
CPU (docs/performance.md says what noise is). The rows go to target/bench/families.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomllib

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from processor_time import measured, pictures
from runtimes import torch_archive

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from measure import ROOT, machine, say
from tipserve_export.cli import main as export


@dataclass
class Family:
    """A model and what exports it, given a folder to put files into."""

    name: str
    arguments: Callable[[Path], list[str]]
    large: bool = False


def open_clip(name: str, *, large: bool = False) -> Family:
    return Family(name, lambda _: ["open-clip", name, "--random-init", "1"], large)


def timm(shown: str, name: str, *more: str, large: bool = False) -> Family:
    return Family(shown, lambda _: ["timm", name, "--random-init", "1", *more], large)


def dinov2(folder: Path) -> list[str]:
    """transformers' DINOv2 base, for pictures of 224."""
    import transformers

    torch.manual_seed(1)
    source = folder / "dinov2"
    transformers.Dinov2Model(transformers.Dinov2Config()).save_pretrained(source)
    size = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    scale = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = size | scale | {"resample": 3, "do_center_crop": True}
    (source / "preprocessor_config.json").write_text(json.dumps(processor))
    return ["huggingface", str(source)]


FAMILIES = [
    open_clip("RN50"),
    open_clip("ViT-B-32-quickgelu"),
    open_clip("ViT-B-16"),
    open_clip("ViT-L-14", large=True),
    open_clip("ViT-L-14-336", large=True),
    timm("SigLIP 2 B/32-256, pictures", "vit_base_patch32_siglip_256", "--pool", "map"),
    timm("SigLIP 2 B/16, pictures", "vit_base_patch16_siglip_224", "--pool", "map"),
    timm(
        "SigLIP 2 So400m/14, pictures", "vit_so400m_patch14_siglip_224", "--pool", "map", large=True
    ),
    open_clip("EVA02-B-16"),
    open_clip("PE-Core-B-16"),
    open_clip("MobileCLIP2-S2"),
    Family("DINOv2 B/14", dinov2),
    timm("DINOv3 B/16", "vit_base_patch16_dinov3", "--pool", "token"),
    timm("ConvNeXt-T", "convnext_tiny"),
]


def row(family: Family, batch: int, rounds: int, compared: list[str]) -> dict[str, object]:
    """Exports a model, with the options that say what 8 bits are compared on, and measures it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "bundle"
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            options = ["--int8", "always", *compared, "--out", str(bundle)]
            code = export([*family.arguments(folder), *options])
        if code != 0:
            raise SystemExit(f"{family.name}: {said.getvalue()}")
        manifest = tomllib.loads((bundle / "bundle.toml").read_text())
        archive, int8 = bundle / "image.pt", bundle / "image.int8.pt"
        runtimes = [torch_archive("float32", archive, torch.float32)]
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            runtimes.append(torch_archive("bfloat16", archive, torch.bfloat16))
        if int8.is_file() and torch.cpu._is_vnni_supported():
            runtimes.append(torch_archive("int8", int8, torch.float32))
        size = manifest["image"]["size"]
        height, width = size if isinstance(size, list) else (size, size)
        x = pictures(batch, max(height, width), 3)[:, :, :height, :width]
        least = measured(runtimes, [x], rounds)
        source = re.search(r"image\.pt: least cosine to the (.*) (\S+)", said.getvalue())
        return {
            "family": family.name,
            "side": size,
            "width": manifest["width"],
            "archive_mb": round(archive.stat().st_size / 1e6),
            "source_cosine": float(source[2]) if source and source[1] == "source model" else None,
            "ms": {it: round(1e3 * of[batch], 1) for it, of in least.items()},
            "int8": manifest.get("int8", {}).get("agreement"),
            "int8_said": [line for line in said.getvalue().splitlines() if "int8 image" in line],
        }


def shown(rows: list[dict]) -> str:
    """A table in Markdown: pictures a second of one core."""
    lines = [
        "| model | pixels | MB | cosine to source | float32 | bfloat16 | int8 | cosine, noise |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for it in rows:
        speeds = [
            f"{1e3 / it['ms'][kind]:.2f}" if kind in it["ms"] else "not timed"
            for kind in ("float32", "bfloat16", "int8")
        ]
        eight = it["int8"]
        agreement = f"{eight['cosine_mean']:.5f}, {eight['noise']:.4f}" if eight else "no archive"
        source = f"{it['source_cosine']:.7f}" if it["source_cosine"] else "the export's own check"
        cells = [it["family"], it["side"], it["archive_mb"], source, *speeds, agreement]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="models whose name has NAME"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--int8-pictures", type=Path, metavar="PICTURES", help="as the export's option of that name"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="models of 300 million weights too")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/families.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted = [
        it
        for it in FAMILIES
        if (arguments.large or not it.large)
        and (not arguments.only or any(part in it.name for part in arguments.only))
    ]
    given = arguments.int8_pictures
    compared = ["--int8-pictures", str(given)] if given else []
    rows = []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for family in wanted:
        say(family.name)
        rows.append(row(family, arguments.batch, arguments.rounds, compared))
        # Each as it ends: a run that is cut short loses nothing.
        common = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "batch": arguments.batch}
        arguments.out.write_text(json.dumps([it | common for it in rows], indent=2) + "\n")
    print(f"machine: {machine()}; load: {os.getloadavg()[0]:.1f}; {time.strftime('%Y-%m-%d')}")
    print(f"pictures a second of one core, batches of {arguments.batch}\n")
    print(shown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
