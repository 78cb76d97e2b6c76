"""8-bit archives: held against the float ones, left out where they are too far, outside the
fingerprint.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import least_cosine, manifest, random_ids
from PIL import Image
from tipserve_export.bundle import BundleInfo, Preprocessing, write_bundle
from tipserve_export.cli import main
from tipserve_export.int8.add import plain_part
from tipserve_export.int8.agreement import MOST_NOISE, agreement
from tipserve_export.int8.rewrite import exact_engine, rewrite
from torch import nn

pytestmark = pytest.mark.skipif(
    "onednn" not in torch.backends.quantized.supported_engines or exact_engine() is None,
    reason="this torch has no engine for 8-bit archives",
)


def loaded(file: Path | io.BytesIO) -> torch.jit.ScriptModule:
    """An 8-bit archive, run by the engine that is exact on this CPU."""
    torch.backends.quantized.engine = exact_engine()
    return torch.jit.load(file)


def export(out: Path, *more: str, model: str = "tiny-vit") -> None:
    assert main(["open-clip", model, "--random-init", "3", "--out", str(out), *more]) == 0


def test_the_archives_agree_and_the_fingerprint_stays(tmp_path: Path, seed: int) -> None:
    export(tmp_path / "both")
    export(tmp_path / "float", "--int8", "never")
    both, plain = tmp_path / "both", tmp_path / "float"
    whole = (both / "bundle.toml").read_text()
    assert "int8" not in (plain / "bundle.toml").read_text()
    # What the server takes the fingerprint of.
    assert plain_part(whole) == (plain / "bundle.toml").read_text()
    info = manifest(both)
    assert info["int8"]["agreement"]["noise"] <= MOST_NOISE
    assert info["int8"]["agreement"]["count"] >= 32
    for file, batch in (
        ("image", torch.randn(5, 3, 96, 96)),
        ("text", random_ids(5, 77)),
    ):
        archive = torch.jit.load(both / f"{file}.pt")
        int8 = loaded(both / f"{file}.int8.pt")
        with torch.inference_mode():
            want, got = archive(batch), int8(batch)
            one = int8(batch[:1])
        assert got.dtype == torch.float32
        assert least_cosine(got, want) >= 0.995
        assert least_cosine(one, want[:1]) >= 0.995
        # Raw features: their length is the float ones' too.
        assert torch.allclose(got.norm(dim=1), want.norm(dim=1), rtol=0.05)
        # No linear layer is left in float, those that attend from one row included.
        kinds = {node.kind() for node in int8.inlined_graph.nodes()}
        assert "quantized::linear_dynamic" in kinds
        assert not kinds & {"aten::linear", "aten::conv2d"}


def test_a_bundle_gets_them_later_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    export(bundle, "--int8", "never")
    before = (bundle / "bundle.toml").read_bytes()
    assert main(["int8", str(bundle)]) == 0
    first = (bundle / "bundle.toml").read_bytes()
    assert first.startswith(before)
    assert "int8 image encoder: cosine 0.99" in capsys.readouterr().err
    assert main(["int8", str(bundle)]) == 0
    assert (bundle / "bundle.toml").read_bytes() == first


def test_pictures_given_by_class(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(40):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        levels = rng.integers(0, 256, (100, 120, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
    export(tmp_path / "bundle", "--int8-pictures", str(tmp_path / "pictures"))
    found = manifest(tmp_path / "bundle")["int8"]["agreement"]
    assert (found["source"], found["count"]) == ("pictures", 40)


class Uneven(nn.Module):
    """Pictures whose activations are of sizes that no scale for a whole call fits."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(3 * size * size, 64)
        self.second = nn.Linear(64, width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self.first(pixels.flatten(1))
        return self.second(hidden * torch.pow(10.0, 4 * torch.sin(50 * hidden[:, :1])))


def uneven_bundle(out: Path) -> None:
    info = BundleInfo(
        name="uneven",
        width=16,
        logit_scale=100.0,
        templates=("{}",),
        source="test",
        image=Preprocessing(size=8, resize_to=8, mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    module = torch.jit.script(Uneven(8, 16).eval())
    files = {"image.pt": lambda path: torch.jit.save(module, path)}
    write_bundle(out, info, files, force=False)


def test_one_that_is_too_far_is_left_out_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    bundle = tmp_path / "bundle"
    uneven_bundle(bundle)
    before = (bundle / "bundle.toml").read_bytes()
    assert main(["int8", str(bundle)]) == 0
    assert "left out, too far from float32" in capsys.readouterr().err
    assert (bundle / "bundle.toml").read_bytes() == before
    assert {p.name for p in bundle.iterdir()} == {"bundle.toml", "image.pt"}
    assert main(["int8", str(bundle), "--always"]) == 0
    assert manifest(bundle)["int8"]["agreement"]["noise"] > MOST_NOISE
    # Asked again without it, they go.
    assert main(["int8", str(bundle)]) == 0
    assert (bundle / "bundle.toml").read_bytes() == before
    assert not (bundle / "image.int8.pt").exists()


def test_convolutions_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path / "bundle", model="tiny-rn")
    assert "8 bits would not pay" in capsys.readouterr().err
    assert "int8" not in manifest(tmp_path / "bundle")


def test_what_is_no_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["int8", str(tmp_path / "none")]) == 3
    assert str(tmp_path / "none") in capsys.readouterr().err


class Patches(nn.Module):
    """A convolution by patches, one that overlaps, and a linear layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.overlapping = nn.Conv2d(24, 24, 3, padding=1)
        self.linear = nn.Linear(24, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.overlapping(self.patches(x)).flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_patches_are_a_linear_layer(memory: torch.memory_format, seed: int) -> None:
    module = Patches().eval().requires_grad_(False)
    rewritten = rewrite(torch.jit.script(module))
    kinds = [node.kind() for node in rewritten.module.inlined_graph.nodes()]
    assert kinds.count("quantized::linear_dynamic") == 2
    assert kinds.count("aten::conv2d") == 1
    x = torch.randn(3, 3, 12, 20).contiguous(memory_format=memory)
    file = io.BytesIO()
    torch.jit.save(rewritten.module, file)
    file.seek(0)
    with torch.inference_mode():
        assert least_cosine(loaded(file)(x), module(x)) > 0.995
    weights = 24 * 3 * 16 + 24 * 8
    assert rewritten.share == pytest.approx(weights / (weights + 24 * 24 * 9))


def test_what_is_measured_are_the_features_of_exact_sums(seed: int) -> None:
    """As CPUs with VNNI compute them, on every CPU: held against sums in float64."""
    layer = nn.Linear(300, 40).eval().requires_grad_(False)
    # Many large activations and weights of one sign: their pairs are beyond 16 bits.
    layer.weight.abs_()
    x = torch.rand(50, 300) * 4 - 0.1
    file = io.BytesIO()
    torch.jit.save(rewrite(torch.jit.script(layer)).module, file)
    file.seek(0)
    with torch.inference_mode():
        got = loaded(file)(x).double()
    x, weight = x.double(), layer.weight.double()
    scale = (x.max() - x.min()) / 255
    levels = torch.round(x / scale) - torch.round(x.min() / scale)
    levels = levels.clamp(0, 255) + torch.round(x.min() / scale)
    steps = weight.abs().amax(dim=1) / 127
    sums = levels @ torch.round(weight / steps[:, None]).T
    want = sums * scale * steps + layer.bias.double()
    # A level that falls between two may be rounded either way.
    assert float((got - want).abs().max()) < 3 * float(scale * steps.max()) * 127


def test_agreement_is_counted_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(60, 12))
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    classes = [str(number % 3) for number in range(60)]
    same = agreement(plain, plain, classes)
    assert (same.cosine_least, same.noise, same.neighbour, same.head) == (1.0, 0.0, 1.0, 1.0)
    other = plain + 0.05 * rng.normal(size=plain.shape)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    found = agreement(plain, other, classes)
    assert found.cosine_mean == pytest.approx(np.mean(np.sum(plain * other, axis=1)), abs=1e-6)
    variance = np.trace(np.cov(plain.T, bias=True))
    assert found.noise == pytest.approx(
        np.mean(np.sum((plain - other) ** 2, 1)) / variance, abs=1e-6
    )
    same_neighbour, same_class = 0, 0
    for row in range(60):
        others = [n for n in range(60) if n != row]
        best = [max(others, key=lambda n, f=f: f[row] @ plain[n]) for f in (plain, other)]
        same_neighbour += best[0] == best[1]
        votes = [
            [sum(np.exp(-5.5 * (1 - f[row] @ plain[n])) for n in others if n % 3 == c)
             for c in range(3)]
            for f in (plain, other)
        ]  # fmt: skip
        same_class += np.argmax(votes[0]) == np.argmax(votes[1])
    assert found.neighbour == pytest.approx(same_neighbour / 60, abs=1e-6)
    assert found.head == pytest.approx(same_class / 60, abs=1e-6)
    broken = agreement(plain, np.full_like(plain, np.nan), classes)
    assert not broken.is_enough


def test_checksums_are_of_the_files(tmp_path: Path) -> None:
    export(tmp_path / "bundle")
    listed = manifest(tmp_path / "bundle")["int8"]["files"]
    assert set(listed) == {"image.int8.pt", "text.int8.pt"}
    for name, checksum in listed.items():
        digest = hashlib.sha256((tmp_path / "bundle" / name).read_bytes()).hexdigest()
        assert digest == checksum
