#!/usr/bin/env python3
"""Embeds pictures at hand with the demo bundle, for `make bench-tip`.

Writes target/bench/pictures.npz: for each set `NAME.features` [P, D] (unit
rows), `NAME.labels`, `NAME.train` (what shots are drawn from) and `NAME.text`
[N, D]. Sets: the demo's textiles (conformal-clip-data), and the hands showing
digits of ../shared/data where that is present.
"""

import argparse
import pathlib
import random

import numpy as np
import tomllib
import torch
from PIL import Image
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# Pictures of a class, of which the first half teaches and the rest tests.
TEXTILES = 60


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Bundle:
    def __init__(self, folder):
        self.settings = tomllib.loads((folder / "bundle.toml").read_text())
        self.image = torch.jit.load(folder / "image.pt").eval()
        self.text = torch.jit.load(folder / "text.pt").eval()
        self.tokenizer = Tokenizer.from_file(str(folder / self.settings["text"]["tokenizer"]))

    def picture(self, path):
        image = self.settings["image"]
        size, shorter = image["size"], image["resize_to"]
        picture = Image.open(path).convert("RGB")
        w, h = picture.size
        to = (shorter, shorter * h // w) if w < h else (shorter * w // h, shorter)
        picture = picture.resize(to, Image.Resampling.BICUBIC)
        left, top = round((to[0] - size) / 2), round((to[1] - size) / 2)
        picture = picture.crop((left, top, left + size, top + size))
        pixels = (np.asarray(picture, np.float32) / 255 - image["mean"]) / image["std"]
        return torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)

    @torch.no_grad()
    def pictures(self, paths):
        batches = [paths[i : i + 8] for i in range(0, len(paths), 8)]
        rows = [self.image(torch.stack([self.picture(p) for p in batch])) for batch in batches]
        return unit(torch.cat(rows).double().numpy()).astype(np.float32)

    @torch.no_grad()
    def texts(self, names):
        text = self.settings["text"]
        rows = []
        for name in names:
            ids = self.tokenizer.encode(name).ids
            ids += [text["pad_id"]] * (text["context_length"] - len(ids))
            rows.append(self.text(torch.tensor([ids])).double().numpy()[0])
        return unit(np.array(rows)).astype(np.float32)


def textiles():
    import conformal_clip_data

    root = pathlib.Path(conformal_clip_data.textile_simulated_root())
    for label, name in enumerate(sorted(folder.name for folder in root.iterdir())):
        paths = sorted((root / name).glob("*.jpg"))
        random.Random(label).shuffle(paths)
        for at, path in enumerate(paths[:TEXTILES]):
            yield path, label, at < TEXTILES // 2


def sign_digits():
    root = ROOT.parent / "shared/data/sign-digits"
    for part in ("train", "test"):
        for digit in range(10):
            for path in sorted((root / part / str(digit)).glob("*.JPG")):
                yield path, digit, part == "train"


SETS = {
    "textiles": (textiles, ["textile", "textile with a local defect", "nominal textile"]),
    "sign-digits": (sign_digits, [f"hand showing {digit}" for digit in DIGITS]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=pathlib.Path, default=ROOT / "bundles/demo")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/bench/pictures.npz")
    arguments = parser.parse_args()
    bundle, arrays = Bundle(arguments.bundle), {}
    for name, (pictures, texts) in SETS.items():
        found = list(pictures())
        if not found:
            print(f"{name}: no pictures, left out")
            continue
        arrays[f"{name}.features"] = bundle.pictures([path for path, _, _ in found])
        arrays[f"{name}.labels"] = np.array([label for _, label, _ in found], np.int64)
        arrays[f"{name}.train"] = np.array([train for _, _, train in found], np.int64)
        arrays[f"{name}.text"] = bundle.texts(texts)
        print(f"{name}: {len(found)} pictures")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, **arrays)


if __name__ == "__main__":
    main()
