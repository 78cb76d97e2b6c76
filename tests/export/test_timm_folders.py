"""Folders with an image model of timm, as transformers' TimmWrapperModel reads them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import least_cosine, manifest
from conftest import lively
from PIL import Image
from safetensors.torch import load_file, save_file
from tipserve_export.cli import main
from tipserve_export.statistics import prepared

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
families = pytest.importorskip("families")

STATED = {
    "input_size": [3, 64, 64],
    "crop_pct": 0.9,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.4, 0.5],
    "interpolation": "bilinear",
    "crop_mode": "squash",
    "license": "apache-2.0",
}
# A small PE: its class is the Perception Encoder's.
MODELS = {"tiny_pe": {}, "test_vit": {"img_size": 64}}


def wrapped(folder: Path, name: str) -> Any:
    config = transformers.TimmWrapperConfig(
        architecture=name, model_args=MODELS[name], pretrained_cfg=dict(STATED)
    )
    model = lively(transformers.TimmWrapperModel(config))
    model.save_pretrained(folder)
    return model


def export(folder: Path, *more: str) -> int:
    arguments = ["huggingface", str(folder), "--int8", "never", *more]
    return main([*arguments, "--out", str(folder.parent / "bundle")])


def as_timms_hub(folder: Path) -> None:
    """Without transformers' own keys, and with a classifier."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: config[key] for key in ("architecture", "model_args", "pretrained_cfg")}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("timm_model."): tensor for name, tensor in tensors.items()}
    width = next(t for name, t in tensors.items() if name.endswith("norm.weight")).shape[0]
    tensors |= {"head.weight": torch.zeros(5, width), "head.bias": torch.zeros(5)}
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("is_hub", [False, True])
def test_a_folder_of_timm(name: str, is_hub: bool, tmp_path: Path, seed: int) -> None:
    model = wrapped(tmp_path / "folder", name)
    # The library's own processor of the folder, before it is made timm's.
    library = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    if is_hub:
        as_timms_hub(tmp_path / "folder")
    assert export(tmp_path / "folder") == 0
    info = manifest(tmp_path / "bundle")
    assert (info["name"], info["licence"]) == ("folder", "Apache-2.0")
    assert info["source"] == f"Hugging Face timm {name} folder"
    archive = torch.jit.load(tmp_path / "bundle" / "image.pt")
    chance = np.random.default_rng(seed)
    pictures = [
        Image.fromarray(chance.integers(0, 256, (*shape, 3), dtype=np.uint8))
        for shape in ((80, 120), (64, 64), (40, 300))
    ]
    theirs = torch.cat([library(one)["pixel_values"] for one in pictures])
    ours = torch.from_numpy(np.stack([prepared(one, info["image"]) for one in pictures]))
    assert torch.allclose(ours, theirs, atol=1e-6)
    with torch.inference_mode():
        want = model(pixel_values=theirs).pooler_output
        assert least_cosine(archive(ours), want) > 0.99999


def test_what_a_folder_of_timm_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    folder = tmp_path / "folder"
    wrapped(folder, "test_vit")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for change, said in [
        ({"architecture": "no_such"}, "timm has no model 'no_such'"),
        ({"architecture": None}, "architecture = None"),
        ({"model_args": {"features_only": True}}, "features_only"),
        ({"model_args": {"nonsense": 1}}, "timm cannot make test_vit"),
        ({"model_args": {"depth": 2}}, "have no place in it"),
        ({"architecture": "test_vit2"}, "are missing"),
    ]:
        (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        assert export(folder) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("kind", ["pe_video", "pe_audio_video", "pe_video_encoder"])
def test_encoders_of_videos_are_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(json.dumps({"model_type": kind}))
    assert export(tmp_path / "folder") == 3
    said = capsys.readouterr().err
    assert "open-clip PE-Core-L-14-336" in said and "vit_pe_core_large_patch14_336" in said
