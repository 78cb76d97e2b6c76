"""--statistics: mean and variance of a bundle's embeddings."""

import hashlib

import numpy as np
import pytest
import tomllib
import torch
from PIL import Image
from tipserve_export.bundle import BundleInfo, Preprocessing, write_bundle
from tipserve_export.cli import main
from tipserve_export.errors import SourceError
from tipserve_export.statistics import add_statistics, prepared

SIZE = 8


class Encoder(torch.nn.Module):
    """Pixel columns, summed over the rest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=(1, 2)) + 0.01 * x[:, 0, 0]


@pytest.fixture
def bundle(tmp_path):
    out = tmp_path / "bundle"
    info = BundleInfo(
        name="columns",
        width=SIZE,
        logit_scale=1.0,
        templates=("{}",),
        source="a test",
        image=Preprocessing(SIZE, SIZE + 2, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    )
    archive = torch.jit.script(Encoder())
    write_bundle(out, info, {"image.pt": lambda path: archive.save(str(path))}, force=False)
    return out


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng()
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for i in range(40):
        shape = (*rng.integers(9, 40, 2), 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "note.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_they_are_those_of_unit_embeddings(bundle, pictures):
    assert add_statistics(bundle, pictures) == 40
    manifest = tomllib.loads((bundle / "bundle.toml").read_text())
    assert manifest["statistics"] == {"file": "statistics.f32", "pictures": 40}
    raw = (bundle / "statistics.f32").read_bytes()
    assert manifest["files"]["statistics.f32"] == hashlib.sha256(raw).hexdigest()
    mean, variance = np.frombuffer(raw, "<f4").reshape(2, SIZE)

    rows = []
    for path in sorted(pictures.rglob("[0-9]*.png")):
        levels = prepared(Image.open(path).convert("RGB"), manifest["image"])
        row = levels.astype(np.float64).sum((0, 1)) + 0.01 * levels[0, 0]
        rows.append(row / np.linalg.norm(row))
    np.testing.assert_allclose(mean, np.mean(rows, 0), atol=1e-5)
    np.testing.assert_allclose(variance, np.var(rows, 0), atol=1e-5)


def test_too_few_pictures_are_refused(bundle, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    before = (bundle / "bundle.toml").read_bytes()
    with pytest.raises(SourceError, match="at least 32"):
        add_statistics(bundle, folder)
    assert (bundle / "bundle.toml").read_bytes() == before


def test_a_bundle_without_encoder_has_none(tmp_path, pictures, capsys):
    out = tmp_path / "features"
    code = main(["features", "--width", "8", "--out", str(out), "--statistics", str(pictures)])
    assert code == 3
    assert "image encoder" in capsys.readouterr().err
