"""Weights of a file go into a timm model whole, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import least_cosine
from conftest import lively
from tipserve_export.cli import main
from tipserve_export.errors import SourceError
from tipserve_export.sources.timm import create
from torch import Tensor, nn

timm = pytest.importorskip("timm")


def exported(tmp_path: Path, name: str, content: Any, *more: str) -> int:
    torch.save(content, tmp_path / "weights.pt")
    arguments = ["timm", name, "--pretrained", str(tmp_path / "weights.pt"), *more]
    return main([*arguments, "--int8", "never", "--out", str(tmp_path / "bundle")])


def assert_features(tmp_path: Path, model: nn.Module) -> None:
    pixels = torch.randn(3, 3, *model.pretrained_cfg["input_size"][1:])
    with torch.inference_mode():
        got = torch.jit.load(tmp_path / "bundle" / "image.pt")(pixels)
        assert least_cosine(got, model(pixels)) > 0.99999


def bare(model: nn.Module, **options: Any) -> nn.Module:
    """The model without its classifier, as the bundle has it."""
    own = timm.create_model(model.pretrained_cfg["architecture"], num_classes=0, **options).eval()
    own.load_state_dict(model.state_dict(), strict=False)
    return own


def without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: {k: t for k, t in tensors.items() if k != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: {"nothing": torch.zeros(3)}, ["78 are missing (cls_token, ", "(nothing)"]),
        (without("norm.weight"), ["1 are missing (norm.weight)"]),
        (lambda own: own | {"extra.weight": torch.ones(2)}, ["1 have no place in it (extra.weigh"]),
        (
            lambda own: own | {"norm.weight": torch.ones(2)},
            ["1 have another shape (norm.weight [2] instead of [64])"],
        ),
        (lambda own: own | {"norm.weight": "x"}, ["norm.weight, which is no tensor"]),
        (lambda own: {"epoch": 3, "weights": own}, ["78 are missing", "(epoch, weights)"]),
        (lambda _: timm.create_model("test_vit2").state_dict(), ["3 are missing", "reg_token"]),
        (lambda own: list(own.values()), ["cannot read"]),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[Any], Any],
    said: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    content = change(dict(timm.create_model("test_vit").state_dict()))
    assert exported(tmp_path, "test_vit", content) == 3
    error = capsys.readouterr().err
    assert all(part in error for part in [*said, "weights.pt"]), error
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_a_classifier_is_left_out(name: str, tmp_path: Path, seed: int) -> None:
    model = lively(timm.create_model(name, num_classes=7))
    wrapped = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
    assert exported(tmp_path, name, {"state_dict": wrapped, "epoch": 3}) == 0
    assert_features(tmp_path, bare(model))


def test_timms_filters_are_applied(tmp_path: Path, seed: int) -> None:
    """A checkpoint for larger pictures: timm resizes its positions."""
    larger = lively(timm.create_model("test_vit", img_size=224))
    torch.save(larger.state_dict(), tmp_path / "larger.pt")
    assert exported(tmp_path, "test_vit", larger.state_dict()) == 0
    own = timm.create_model(
        "test_vit",
        pretrained=True,
        num_classes=0,
        pretrained_cfg_overlay={"file": str(tmp_path / "larger.pt")},
    )
    assert_features(tmp_path, own.eval())


def test_pooling_has_weights_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    model = lively(timm.create_model("test_vit"))
    for pool, said in (("map", "attn_pool.latent"), ("avg", "fc_norm.weight")):
        assert exported(tmp_path, "test_vit", model.state_dict(), "--pool", pool) == 3
        assert said in capsys.readouterr().err
    mapped = lively(timm.create_model("test_vit3"))
    assert exported(tmp_path, "test_vit3", mapped.state_dict(), "--pool", "avg", "--force") == 3
    assert "fc_norm.weight" in capsys.readouterr().err
    assert exported(tmp_path, "test_vit3", mapped.state_dict(), "--pool", "token", "--force") == 3
    assert "cannot make" in capsys.readouterr().err


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("weights.pt", "weights.safetensors", "weights.npz"):
        (tmp_path / name).write_bytes(b"hello")
        arguments = ["timm", "test_vit", "--pretrained", str(tmp_path / name)]
        assert main([*arguments, "--out", str(tmp_path / "bundle")]) == 3
        assert name in capsys.readouterr().err
    assert main(["timm", "test_vit", "--pretrained", "absent", "--out", str(tmp_path / "b")]) == 3
    assert "absent is neither 'default' nor a file" in capsys.readouterr().err


def test_what_a_name_stands_for(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a downloaded checkpoint: whole, or it is refused."""
    model = lively(timm.create_model("test_vit"))
    torch.save(model.state_dict(), tmp_path / "own.pt")
    place = timm.get_pretrained_cfg("test_vit").to_dict() | {"file": str(tmp_path / "own.pt")}
    original = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **o: original(name, pretrained_cfg=place, **o)
    )
    made = create(timm, "test_vit", "default", None, None)
    assert torch.equal(made.state_dict()["norm.weight"], model.state_dict()["norm.weight"])
    with pytest.raises(SourceError, match=r"13 are missing \(attn_pool.latent"):
        create(timm, "test_vit", "default", None, "map")
