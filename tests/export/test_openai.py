from pathlib import Path

import open_clip
import pytest
import torch
from agreement import assert_agrees
from conftest import lively
from tipserve_export.cli import main
from torch import Tensor, nn


class Leaf(nn.Module):
    """A branch of the archive's module tree; it only carries tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Official(nn.Module):
    """Shaped as OpenAI's archives are: half precision, ``cuda:0`` written into the graph."""

    def __init__(self, weights: dict[str, Tensor], resolution: int) -> None:
        super().__init__()
        for name, tensor in weights.items():
            *branches, leaf = name.split(".")
            place: nn.Module = self
            for branch in branches:
                if branch not in place._modules:
                    place.add_module(branch, Leaf())
                place = place._modules[branch]
            half = tensor.half() if tensor.is_floating_point() else tensor
            if tensor.is_floating_point():
                place.register_parameter(leaf, nn.Parameter(half, requires_grad=False))
            else:
                place.register_buffer(leaf, half)
        self.register_buffer("input_resolution", torch.tensor(resolution))
        self.register_buffer("context_length", torch.tensor(77))
        self.register_buffer("vocab_size", torch.tensor(49408))

    def forward(self, image: Tensor) -> Tensor:
        return image.to(torch.device("cuda:0"), torch.float16)


@pytest.mark.parametrize("name", ["tiny-vit-quickgelu", "tiny-rn-quickgelu"])
@pytest.mark.parametrize("scripted", [True, False])
def test_an_official_archive(name: str, scripted: bool, tmp_path: Path, seed: int) -> None:
    model = lively(open_clip.create_model(name))
    official = Official(model.state_dict(), 96)
    file = tmp_path / "Tiny.pt"
    if scripted:
        torch.jit.save(torch.jit.script(official), file)
    else:
        torch.save(official.state_dict(), file)
    assert main(["openai", str(file), "--out", str(tmp_path / "bundle")]) == 0
    # The archive's half-precision weights are the truth, in float32.
    model.load_state_dict(model.half().float().state_dict())
    info = assert_agrees(tmp_path / "bundle", model.encode_image, model.encode_text)
    assert info["name"] == "Tiny"
    assert info["licence"] == "MIT"
    assert info["image"]["size"] == 96


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    for name, said in (
        ("absent.pt", "there is no file"),
        ("text.pt", "no file that torch.save"),
        ("other.pt", "no tensor 'visual.conv1.weight'"),
    ):
        assert main(["openai", str(tmp_path / name), "--out", str(tmp_path / "bundle")]) == 3
        message = capsys.readouterr().err
        assert name in message
        assert said in message
