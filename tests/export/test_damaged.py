"""Bundles and folders that are damaged or contradict themselves: a line of reason, exit code 3."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tipserve_export.bundle import Preprocessing, check_preprocessing, sha256_of
from tipserve_export.cli import main
from tipserve_export.errors import SourceError

pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "bundle"
    arguments = ["timm", "test_vit", "--random-init", "1", "--int8", "never"]
    assert main([*arguments, "--out", str(out)]) == 0
    return out


def damaged(bundle: Path) -> None:
    (bundle / "image.pt").write_bytes(b"xx")


def missing(bundle: Path) -> None:
    (bundle / "image.pt").unlink()


def no_archive(bundle: Path) -> None:
    """The checksum is right: somebody wrote it."""
    checksum = sha256_of(bundle / "image.pt")
    damaged(bundle)
    changed(checksum, sha256_of(bundle / "image.pt"))(bundle)


def changed(text: str, by: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        manifest = bundle / "bundle.toml"
        content = manifest.read_text(encoding="utf-8")
        assert text in content
        manifest.write_text(content.replace(text, by), encoding="utf-8")

    return change


@pytest.mark.parametrize("command", ["int8", "join"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (damaged, "image.pt is not what bundle.toml says"),
        (missing, "image.pt is missing"),
        (no_archive, "image.pt is no TorchScript archive"),
        (changed("format = 1", "format = 2"), "format = 2"),
        (changed("format = 1", "format = "), "cannot read"),
        (changed("resize_to", "resized"), "has no image.resize_to"),
        (changed('"image.pt" =', '"other.pt" ='), "has no files.image.pt"),
        (shutil.rmtree, "there is no bundle at"),
    ],
)
def test_bundles(
    command: str,
    change: Callable[[Path], None],
    said: str,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(whole, tmp_path / "bundle")
    change(tmp_path / "bundle")
    if command == "int8":
        arguments = ["int8", str(tmp_path / "bundle")]
    else:
        arguments = ["join", str(whole), str(tmp_path / "bundle"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 3
    error = capsys.readouterr().err
    assert said in error and str(tmp_path / "bundle") in error
    assert not (tmp_path / "out").exists()


TOWER = {
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 96,
}


def dinov2(folder: Path) -> None:
    config = transformers.Dinov2Config(**TOWER, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))


def dinov3(folder: Path) -> None:
    config = transformers.DINOv3ViTConfig(**TOWER, image_size=32, patch_size=16)
    transformers.DINOv3ViTModel(config).save_pretrained(folder)
    size = {"size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))


def siglip(folder: Path) -> None:
    config = transformers.SiglipConfig(
        vision_config=TOWER | {"image_size": 32, "patch_size": 16},
        text_config=TOWER | {"vocab_size": 99},
    )
    transformers.SiglipModel(config).save_pretrained(folder)


def clip(folder: Path) -> None:
    config = transformers.CLIPConfig(
        vision_config=TOWER | {"image_size": 32, "patch_size": 16}, text_config=TOWER
    )
    transformers.CLIPModel(config).save_pretrained(folder)


def stated(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        content |= values
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return change


def heads(*towers: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for tower in towers:
            content[tower]["num_attention_heads"] = 5
        (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def crop(height: float, width: float) -> Callable[[Path], None]:
    return stated("preprocessor_config.json", crop_size={"height": height, "width": width})


@pytest.mark.parametrize(
    ("make", "change", "said"),
    [
        (dinov2, crop(0, 0), "a side of 0 pixels: 1 to 4096"),
        (dinov2, crop(-14, 28), "a side of -14 pixels"),
        (dinov2, crop(28.5, 28), "a side of 28.5 pixels"),
        (dinov2, stated("preprocessor_config.json", crop_size=28.5), "crops to 28.5"),
        (dinov2, stated("preprocessor_config.json", size=32.5), "resizes to 32.5"),
        (dinov2, crop(42, 42), "resized to 32 pixels and 42 of them cut out: 42 to 8192"),
        (dinov2, stated("preprocessor_config.json", image_std=[0.2, 0, 0.2]), "deviations over 0"),
        (dinov2, stated("config.json", num_attention_heads=5), "5 attention heads do not divide"),
        (dinov2, stated("config.json", num_attention_heads=0), "0 attention heads do not divide"),
        (dinov2, stated("config.json", patch_size=0), "patch_size = 0"),
        (dinov2, stated("config.json", hidden_size="48"), "config.json do not fit together"),
        (dinov2, without("layernorm.weight"), "no tensor 'layernorm.weight'"),
        (dinov3, stated("config.json", num_attention_heads=5), "5 attention heads do not divide"),
        (dinov3, stated("config.json", hidden_size=96), "do not fit together"),
        (siglip, heads("vision_config"), "5 attention heads do not divide the width 48"),
        (siglip, heads("text_config"), "transformers cannot load"),
        (siglip, without("vision_model.head.probe"), "no tensor 'head.probe'"),
        (clip, heads("vision_config"), "5 attention heads do not divide the width 48"),
        (clip, heads("text_config"), "5 attention heads do not divide the width 48"),
    ],
)
def test_folders(
    make: Callable[[Path], None],
    change: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    folder = tmp_path / "folder"
    make(folder)
    change(folder)
    arguments = ["huggingface", str(folder), "--int8", "never", "--out", str(tmp_path / "out")]
    assert main(arguments) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_server_takes() -> None:
    levels = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    check_preprocessing(Preprocessing(size=(56, 42), resize_to=66, **levels))
    check_preprocessing(Preprocessing((56, 42), (60, 42), **levels, resize="squash"))
    for size, to, rule, said in [
        (4097, 4097, "squash", "4097"),
        (64, 8193, "squash", "8193"),
        ((64, 70), 66, "shortest-side", "66 pixels and 70"),
        (64, (66, 70), "shortest-side", "66 or 70 pixels"),
        ((64.5, 64), 66, "squash", "64.5"),
    ]:
        with pytest.raises(SourceError, match=said):
            check_preprocessing(Preprocessing(size, to, **levels, resize=rule))


def test_the_encoder_of_a_bundle_runs_on(whole: Path) -> None:
    """What the checks pass is what was there before."""
    archive = torch.jit.load(whole / "image.pt")
    assert archive(torch.zeros(1, 3, 160, 160)).shape[0] == 1
