"""Activations with large channels, as trained transformers have them, are smoothed for 8 bits."""

from pathlib import Path

import pytest
import torch
from agreement import least_cosine, manifest
from tipserve_export.bundle import BundleInfo, Preprocessing, write_bundle
from tipserve_export.cli import main
from tipserve_export.int8.agreement import MOST_NOISE
from tipserve_export.int8.rewrite import ENGINE, exact_engine, rewrite
from tipserve_export.int8.smooth import LEAST_RANGE, Smoothing, key, ranges
from tipserve_export.models.transformer import Block
from torch import nn

pytestmark = pytest.mark.skipif(
    ENGINE not in torch.backends.quantized.supported_engines or exact_engine() is None,
    reason="this torch has no engine for 8-bit archives",
)

WIDTH, SIDE = 128, 32


class Transformer(nn.Module):
    """Patches, blocks, and the mean; ``times`` is how large some channels are made."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, stride=8)
        blocks = [Block(WIDTH, 2, 4 * WIDTH, quick_gelu=False, eps=1e-5) for _ in range(3)]
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Linear(WIDTH, 48)
        for block in blocks:
            for norm, linear in (
                (block.norm_1, block.attention.qkv),
                (block.norm_2, block.expand),
            ):
                # The same function, whatever they are multiplied by.
                channels = torch.randperm(WIDTH)[:3]
                with torch.no_grad():
                    norm.weight[channels] *= times
                    norm.bias[channels] *= times
                    linear.weight[:, channels] /= times

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, False)
        return self.out(x.mean(dim=1))


def bundle_of(module: nn.Module, out: Path) -> Path:
    info = BundleInfo(
        name="large-channels",
        width=48,
        logit_scale=100.0,
        templates=("{}",),
        source="test",
        image=Preprocessing(size=SIDE, resize_to=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    script = torch.jit.script(module.eval().requires_grad_(False))
    write_bundle(out, info, {"image.pt": lambda path: torch.jit.save(script, path)}, force=False)
    return out


def features(file: Path, x: torch.Tensor) -> torch.Tensor:
    torch.backends.quantized.engine = exact_engine()
    with torch.inference_mode():
        return torch.jit.load(file)(x)


def test_a_model_with_large_channels_is_saved(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of(Transformer(100.0), tmp_path / "bundle")
    assert main(["int8", str(bundle)]) == 0
    assert ", smoothed)" in capsys.readouterr().err
    found = manifest(bundle)["int8"]["agreement"]
    assert found["smoothed"] is True
    # Of 96 pictures half say how large channels become, and half how well it agrees.
    assert (found["count"], found["noise"] <= MOST_NOISE) == (48, True)
    assert {file.name for file in bundle.iterdir()} == {
        "bundle.toml",
        "image.pt",
        "image.int8.pt",
    }
    # Pictures of another kind, too, and nothing less would have done.
    x = torch.randn(20, 3, SIDE, SIDE)
    plain = torch.jit.load(bundle / "image.pt")
    with torch.inference_mode():
        want = plain(x)
    smoothed = least_cosine(features(bundle / "image.int8.pt", x), want)
    torch.jit.save(rewrite(plain).module, tmp_path / "plain.pt")
    unsmoothed = least_cosine(features(tmp_path / "plain.pt", x), want)
    assert 1 - smoothed < (1 - unsmoothed) / 10


def test_one_without_is_left_as_it_is(tmp_path: Path, seed: int) -> None:
    bundle = bundle_of(Transformer(1.0), tmp_path / "bundle")
    assert main(["int8", str(bundle)]) == 0
    found = manifest(bundle)["int8"]["agreement"]
    assert ("smoothed" in found, found["count"]) == (False, 96)
    kinds = [n.kind() for n in torch.jit.load(bundle / "image.int8.pt").inlined_graph.nodes()]
    assert "quantized::linear_dynamic" in kinds


def test_factors_are_smooth_quants(seed: int) -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4)).eval()
    frozen = torch.jit.freeze(torch.jit.script(module))
    batches = [torch.randn(7, 6) * 3, torch.randn(2, 3, 6)]
    found = ranges(frozen, batches)
    weight = next(
        node.inputsAt(1).toIValue()
        for node in frozen.graph.findAllNodes("aten::linear")
        if node.inputsAt(1).toIValue().shape == (5, 6)
    )
    largest = torch.cat([batch.reshape(-1, 6) for batch in batches]).abs().amax(dim=0)
    assert torch.equal(found[key(weight)], largest)
    factors = Smoothing(found, 0.75).factors([weight])
    wanted = largest.double() ** 0.75 / weight.double().abs().amax(dim=0) ** 0.25
    assert torch.allclose(factors.double(), wanted, rtol=1e-5)
    # An input that is always 0, and one that no output takes.
    none = Smoothing({key(weight): torch.zeros(6)}, 0.5).factors([weight])
    assert bool((none >= LEAST_RANGE).all())
    assert Smoothing({}, 0.5).factors([weight]) is None
