"""What `--jpeg-shrink` saves and what it costs: processor time of a picture, and how far its
embedding moves.

    python benches/engine/shrink.py [--bundle bundles/demo] [--data FOLDER]

Pictures of several sizes: mosaics of real ones (`scripts/demo-data`), which have the grain of
photographs at every size, and made-up ones. The embeddings are those of a server with the setting
and one without.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np
from measure import BINARY, ROOT, server
from PIL import Image
from tipserve import Client

sys.path.insert(0, str(ROOT / "tests/server"))
from pictures import photo, saved

SIZES = {"1 MP": (1152, 864), "3 MP": (2048, 1536), "12 MP": (4000, 3000)}
EACH = 6
SHRINKS = (0, 4, 2, 1)


def mosaic(rng: np.random.Generator, tiles: list[Path], size: tuple[int, int]) -> bytes:
    """Real pictures side by side until it is full."""
    whole = Image.new("RGB", size)
    x = y = 0
    while y < size[1]:
        tile = Image.open(tiles[rng.integers(len(tiles))]).convert("RGB")
        whole.paste(tile, (x, y))
        x += tile.width
        if x >= size[0]:
            x, y = 0, y + tile.height
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=90)
    return file.getvalue()


def decoding(bundle: Path, folder: Path, shrink: float) -> float:
    """Milliseconds of one core for a picture."""
    done = subprocess.run(
        [
            *(
                BINARY.with_name("tipserve-measure"),
                "decode",
                "--bundle",
                bundle,
                "--pictures",
                folder,
            ),
            *("--seconds", "2", "--jpeg-shrink", str(shrink)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return 1e3 * found["cores"] / found["pictures_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles/demo")
    parser.add_argument("--data", type=Path, help="real pictures; default: the demo's")
    arguments = parser.parse_args()
    data = arguments.data
    if data is None:
        found = subprocess.run([ROOT / "scripts/demo-data"], capture_output=True, text=True)
        data = Path(found.stdout.strip())
    tiles = sorted(data.rglob("*.jpg"))
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for name, (width, height) in SIZES.items():
            for kind in ("mosaic", "made up"):
                folder = Path(scratch) / f"{name} {kind}"
                folder.mkdir()
                folders[name, kind] = folder
                for number in range(EACH):
                    if kind == "mosaic":
                        file = mosaic(rng, tiles, (width, height))
                    else:
                        sides = (int(0.9 * height), int(1.1 * width))
                        file = saved(photo(rng, number % 3, sides), "JPEG", quality=90)
                    (folder / f"{number}.jpg").write_bytes(file)
        features, times = {}, {}
        for shrink in SHRINKS:
            flags = ("--dtype", "float32", "--jpeg-shrink", str(shrink))
            with (
                server(arguments.bundle, *flags) as running,
                Client(running.address, timeout=600) as client,
            ):
                for key, folder in folders.items():
                    files = sorted(folder.iterdir())
                    features[key, shrink] = client.embed(files).pictures
        for key, folder in folders.items():
            for _ in range(3):
                for shrink in SHRINKS:
                    took = decoding(arguments.bundle, folder, shrink)
                    times.setdefault((key, shrink), []).append(took)
    print(f"machine: {measure.machine()}; milliseconds of one core: decode, resize, crop")
    print(f"{'pictures':<18}{'shrink':>7}{'ms':>9}{'least cosine':>14}{'mean cosine':>13}")
    for key in folders:
        for shrink in SHRINKS:
            cosine = (features[key, shrink] * features[key, 0]).sum(1)
            took = sorted(times[key, shrink])[1]
            print(
                f"{' '.join(key):<18}{shrink:>7}{took:>9.1f}"
                f"{cosine.min():>14.5f}{cosine.mean():>13.5f}"
            )


if __name__ == "__main__":
    main()
