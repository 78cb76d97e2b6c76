"""Exports a model with fresh random weights and writes its features.

    python3 clip_features.py OUT SEED MODEL

OUT/bundle is the bundle that `python3 -m tipserve_export open-clip` makes;
OUT/N.png are pictures; OUT/image.npy [n,D] and OUT/text.npy [m,D] are the raw
features of open_clip's own model in float32 on Pillow's and torchvision's
preprocessing; OUT/texts.json the texts.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import open_clip
import torch
from PIL import Image
from torchvision import transforms

out, seed, name = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(2)
# Measuring how an 8-bit encoder would agree takes minutes: not where none can run, nor of a
# ResNet, whose convolutions stay as they are.
int8 = torch.cpu._is_vnni_supported() and not name.startswith("RN")
int8 = () if int8 else ("--int8", "never")
subprocess.run(
    [
        sys.executable,
        "-m",
        "tipserve_export",
        "open-clip",
        name,
        "--random-init",
        str(seed),
        *int8,
        "--out",
        str(out / "bundle"),
    ],
    check=True,
    stdout=subprocess.DEVNULL,
)

# The exporter's own way to draw random weights.
torch.manual_seed(seed)
model = open_clip.create_model(name, pretrained=None).eval()

rng = np.random.default_rng(seed)
prepare = transforms.Compose(
    [
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(
            (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        ),
    ]
)
inputs = []
for number in range(6):
    height, width = rng.integers(60, 420, 2)
    y, x = np.mgrid[0:height, 0:width] / 100
    planes = [
        127
        + 70 * np.sin(rng.uniform(1, 9) * x + rng.uniform(0, 6))
        + 50 * np.cos(rng.uniform(1, 9) * y)
        for _ in range(3)
    ]
    levels = np.clip(np.stack(planes, -1) + rng.normal(0, 9, (height, width, 3)), 0, 255)
    image = Image.fromarray(levels.astype(np.uint8))
    image.save(out / f"{number}.png")
    inputs.append(prepare(image.convert("RGB")))

texts = [
    "a photo of a cat.",
    "",
    "A Photo of an “Ångström” &amp; co",
    "the " * 90,
    f"number {seed}",
]
with torch.inference_mode():
    np.save(out / "image.npy", model.encode_image(torch.stack(inputs)).numpy())
    np.save(out / "text.npy", model.encode_text(open_clip.get_tokenizer(name)(texts)).numpy())
(out / "texts.json").write_text(json.dumps(texts))
