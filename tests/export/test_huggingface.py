import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tipserve_export
import torch
from agreement import assert_agrees, manifest
from conftest import lively
from tipserve_export.cli import main
from torch import Tensor

transformers = pytest.importorskip("transformers")


def tiny(activation: str) -> Any:
    """A small random CLIPModel."""
    tower = {
        "num_hidden_layers": 2,
        "intermediate_size": 192,
        "hidden_act": activation,
        "projection_dim": 40,
    }
    config = transformers.CLIPConfig(
        vision_config=tower
        | {"hidden_size": 96, "num_attention_heads": 3, "image_size": 64, "patch_size": 16},
        text_config=tower | {"hidden_size": 64, "num_attention_heads": 4},
        projection_dim=40,
    )
    return lively(transformers.CLIPModel(config))


def features(get: Callable[..., Any], key: str) -> Callable[[Tensor], Tensor]:
    """The raw features, in old and new releases of transformers."""

    def call(x: Tensor) -> Tensor:
        output = get(**{key: x})
        return output if isinstance(output, Tensor) else output.pooler_output

    return call


def save(model: Any, folder: Path, kind: str) -> None:
    """Saves a model as safetensors or, as old releases did, as pytorch_model.bin."""
    model.save_pretrained(folder)
    if kind == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


@pytest.mark.parametrize(("kind", "activation"), [("safetensors", "quick_gelu"), ("bin", "gelu")])
def test_a_folder(kind: str, activation: str, tmp_path: Path, seed: int) -> None:
    model = tiny(activation)
    save(model, tmp_path / "clip", kind)
    preprocessor = {
        "size": {"shortest_edge": 72},
        "crop_size": {"height": 64, "width": 64},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 2,
    }
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert main(["huggingface", str(tmp_path / "clip"), "--out", str(tmp_path / "bundle")]) == 0
    info = assert_agrees(
        tmp_path / "bundle",
        features(model.get_image_features, "pixel_values"),
        features(model.get_text_features, "input_ids"),
    )
    assert info["name"] == "clip"
    assert info["width"] == 40
    assert info["image"]["size"] == 64
    assert info["image"]["resize_to"] == 72
    assert info["image"]["mean"] == [0.1, 0.2, 0.3]
    assert info["image"]["std"] == [0.4, 0.5, 0.6]
    assert info["image"]["interpolation"] == "bilinear"


def test_a_preprocessor_that_squeezes_pictures(tmp_path: Path) -> None:
    save(tiny("gelu"), tmp_path / "clip", "safetensors")
    preprocessor = {"size": {"height": 70, "width": 80}, "crop_size": {"height": 64, "width": 64}}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert main(["huggingface", str(tmp_path / "clip"), "--out", str(tmp_path / "bundle")]) == 0
    image = manifest(tmp_path / "bundle")["image"]
    assert (image["resize"], image["resize_to"], image["size"]) == ("squash", [70, 80], 64)


def test_same_input_same_bytes(tmp_path: Path, seed: int) -> None:
    save(tiny("quick_gelu"), tmp_path / "clip", "safetensors")
    environment = os.environ | {"PYTHONPATH": str(Path(tipserve_export.__file__).parents[1])}
    environment.pop("PYTHONHASHSEED", None)
    for out in ("first", "second"):
        subprocess.run(
            [sys.executable, "-m", "tipserve_export", "huggingface", "clip", "--out", out],
            cwd=tmp_path,
            env=environment,
            check=True,
        )
    first, second = ((tmp_path / out / "bundle.toml").read_bytes() for out in ("first", "second"))
    assert first == second


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "config.json"),
        ({"model_type": "bert"}, "'bert'"),
        ({"model_type": "clip", "architectures": ["CLIPTextModel"]}, "CLIPTextModel"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "neither model.safetensors"),
    ],
)
def test_folders_without_a_clip_model(
    config: dict[str, Any] | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    assert main(["huggingface", str(folder), "--out", str(tmp_path / "bundle")]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_broken_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    folder = tmp_path / "clip"
    save(tiny("gelu"), folder, "safetensors")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["huggingface", str(folder), "--out", str(tmp_path / "bundle")]) == 3
    assert "model.safetensors" in capsys.readouterr().err
