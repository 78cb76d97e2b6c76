"""What the sources of today's families refuse, and what they say of it.

Their features, tokens and pixels are held against their own libraries in tests/clip/families.rs.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import manifest
from tipserve_export.cli import main
from tipserve_export.errors import SourceError
from tipserve_export.sources.hf_preprocessing import DINOV2, DINOV3, SIGLIP, preprocessing
from tipserve_export.sources.timm_modules import for_archive, timm_preprocessing
from tipserve_export.sources.tokenizer_files import read_tokenizer
from torch import nn

pytest.importorskip("timm")


def exported(out: Path, seed: int, *more: str) -> Path:
    arguments = ["timm", "test_vit", "--random-init", str(seed), "--int8", "never", *more]
    assert main([*arguments, "--out", str(out)]) == 0
    return out


def folder_with(tmp_path: Path, **files: Any) -> Path:
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


CONFIG = {"input_size": (3, 64, 64), "interpolation": "bicubic", "crop_pct": 0.9} | {
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "crop_mode": "center",
}


def test_timms_preprocessing() -> None:
    centre = timm_preprocessing(CONFIG, "m")
    assert (centre.resize, centre.size, centre.resize_to) == ("shortest-side", 64, 71)
    wide = timm_preprocessing(CONFIG | {"crop_mode": "squash", "input_size": (3, 64, 32)}, "m")
    assert (wide.resize, wide.size, wide.resize_to) == ("squash", (64, 32), (71, 35))
    for change, said in [
        ({"crop_mode": "border"}, "pads"),
        ({"input_size": (3, 64, 32)}, "no square"),
        ({"interpolation": "lanczos"}, "lanczos"),
    ]:
        with pytest.raises(SourceError, match=said):
            timm_preprocessing(CONFIG | change, "m")


def test_transformers_preprocessing(tmp_path: Path) -> None:
    assert preprocessing(tmp_path, SIGLIP, 64).resize == "squash"
    dino = preprocessing(tmp_path, DINOV2, 518, any_size=True)
    assert (dino.resize, dino.resize_to, dino.size) == ("shortest-side", 256, 224)
    third = preprocessing(tmp_path, DINOV3, 224, any_size=True)
    assert (third.resize, third.size, third.interpolation) == ("squash", 224, "bilinear")
    for content, said in [
        ({"max_num_patches": 256}, "naflex"),
        ({"do_rescale": False}, "do_rescale"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"size": {"shortest_edge": 64}}, "crops nothing"),
        ({"size": {"height": 32, "width": 32}}, "32×32"),
        ({"resample": 1}, "filter 1"),
    ]:
        folder = folder_with(tmp_path, preprocessor_config=content)
        with pytest.raises(SourceError, match=said):
            preprocessing(folder, SIGLIP, 64)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "siglip2"}, "naflex"),
        ({"model_type": "metaclip_2"}, "XLM-V"),
        ({"model_type": "vit"}, "dinov3_vit"),
        ({"model_type": "siglip"}, "neither model.safetensors"),
        ({"model_type": "dinov2"}, "neither model.safetensors"),
    ],
)
def test_folders_that_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_with(tmp_path, config=config)
    assert main(["huggingface", str(folder), "--out", str(tmp_path / "bundle")]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_model", "--random-init", "1"], "no model 'no_such_model'"),
        (["naflexvit_base_patch16_gap", "--random-init", "1"], "naflex"),
        (["test_vit", "--random-init", "1", "--pool", "nonsense"], "cannot make"),
        # Its blocks reshape by lists whose length TorchScript does not know.
        (["hiera_tiny_224", "--random-init", "1"], "cannot be written as TorchScript: cannot"),
    ],
)
def test_timm_models_that_are_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["timm", *arguments, "--out", str(tmp_path / "bundle")]) == 3
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_counters_of_batch_norms_are_left_out(seed: int) -> None:
    model = for_archive(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "m")
    assert all(tensor.is_floating_point() for tensor in model.state_dict().values())
    torch.jit.script(model)


def test_a_tokenizer_without_its_special_tokens(tmp_path: Path) -> None:
    content = {
        "model": {"type": "BPE", "vocab": {"<pad>": 0, "<eos>": 1, "a": 2}, "merges": []},
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": True},
            {"id": 3, "content": "▁▁", "special": False},
        ],
        "truncation": {"max_length": 3},
        "padding": {"pad_id": 9},
        "normalizer": {"type": "Replace"},
    }
    config = {"pad_token": "<pad>", "tokenizer_class": "GemmaTokenizer"}
    read = read_tokenizer(folder_with(tmp_path, tokenizer=content, tokenizer_config=config))
    assert (read.pad_id, read.pad_side) == (0, "left")
    assert [token["id"] for token in read.content["added_tokens"]] == [3]
    assert read.content["truncation"] is read.content["padding"] is None
    steps = read.in_lower_case().content["normalizer"]["normalizers"]
    assert [step["type"] for step in steps] == ["Lowercase", "Replace"]
    assert read.in_lower_case().in_lower_case() == read.in_lower_case()
    with pytest.raises(SourceError, match="not in its vocabulary"):
        read_tokenizer(folder_with(tmp_path, tokenizer_config={"pad_token": "[PAD]"}))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match="SentencePiece"):
        read_tokenizer(tmp_path)


def test_joins(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    one = exported(tmp_path / "one", seed)
    two = exported(tmp_path / "two", seed + 1)

    def join(*arguments: object) -> int:
        return main(["join", *map(str, arguments), "--int8", "never", "--out", str(tmp_path / "o")])

    assert join(one, two, "--weight", 3, "--weight", 1) == 0
    info = manifest(tmp_path / "o")
    assert info["width"] == 2 * manifest(one)["width"]
    parts = info["image"]["parts"]
    width = manifest(one)["width"]
    assert [(it["width"], it["weight"]) for it in parts] == [(width, 0.75), (width, 0.25)]
    assert "text" not in info
    pixels = torch.rand(2, 3, *info["image"]["size"])
    norms = torch.jit.load(tmp_path / "o" / "image.pt")(pixels).norm(dim=1)
    assert torch.allclose(norms, torch.ones(2), atol=1e-5)
    for arguments, said in [
        ([one], "not 1"),
        ([one, two, "--weight", 1], "1 weights for 2"),
        ([one, two, "--weight", 1, "--weight", 0], "over 0"),
        ([one, tmp_path], "cannot read"),
        ([tmp_path / "o", one], "a join already"),
    ]:
        assert join(*arguments, "--force") == 3
        assert said in capsys.readouterr().err
    (two / "image.pt").write_bytes(b"x")
    assert join(one, two, "--force") == 3
    assert "SHA-256" in capsys.readouterr().err
