import math
from pathlib import Path

import open_clip
import pytest
import torch
from agreement import assert_agrees, manifest
from conftest import lively
from tipserve_export.cli import main


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-vit-quickgelu", "tiny-rn", "tiny-rn-quickgelu"])
def test_weights_of_a_file(name: str, tmp_path: Path, seed: int) -> None:
    model = lively(open_clip.create_model(name))
    model.logit_scale.data.fill_(3.5)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    out = tmp_path / "bundle"
    arguments = ["open-clip", name, "--pretrained", str(tmp_path / "weights.pt")]
    assert main([*arguments, "--out", str(out), "--template", "a {}", "--template", "{}!"]) == 0
    info = assert_agrees(out, model.encode_image, model.encode_text)
    assert info["format"] == 1
    assert info["name"] == name
    assert info["width"] == 48
    assert math.isclose(info["logit_scale"], math.exp(3.5), rel_tol=1e-6)
    assert info["templates"] == ["a {}", "{}!"]
    assert info["image"]["size"] == info["image"]["resize_to"] == 96
    assert info["image"]["mean"] == list(open_clip.OPENAI_DATASET_MEAN)
    assert info["image"]["std"] == list(open_clip.OPENAI_DATASET_STD)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "RN50"])
def test_whole_models(name: str, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "bundle"
    # Measuring how its 8 bits would agree takes longer than all else here.
    arguments = ["open-clip", name, "--random-init", str(seed), "--int8", "never"]
    assert main([*arguments, "--out", str(out)]) == 0
    torch.manual_seed(seed)
    model = open_clip.create_model(name).eval()
    info = assert_agrees(out, model.encode_image, model.encode_text)
    assert info["width"] == model.visual.output_dim
    assert info["image"]["size"] == 224


def test_the_activation_matters(tmp_path: Path, seed: int) -> None:
    """GELU and QuickGELU are told apart: the same weights give other features."""
    model = lively(open_clip.create_model("tiny-vit"))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    arguments = ["open-clip", "tiny-vit-quickgelu", "--pretrained", str(tmp_path / "weights.pt")]
    assert main([*arguments, "--out", str(tmp_path / "bundle")]) == 0
    with pytest.raises(AssertionError):
        assert_agrees(tmp_path / "bundle", model.encode_image, model.encode_text)


def test_preprocessing_of_weights_without_a_tag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(open_clip.create_model("tiny-vit"))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    base = ["open-clip", "tiny-vit", "--pretrained", str(tmp_path / "weights.pt"), "--int8"]
    base += ["never", "--out", str(tmp_path / "bundle"), "--force"]

    def taken(*more: str) -> tuple[list[float], str]:
        assert main([*base, *more]) == 0
        image = manifest(tmp_path / "bundle")["image"]
        return image["mean"], image["resize"]

    openai = list(open_clip.OPENAI_DATASET_MEAN)
    assert taken() == (openai, "shortest-side")
    assert "has no tag of this model" in capsys.readouterr().err
    # As ViT-L-14's: LAION-2B's weights were trained with another mean.
    tags = open_clip.pretrained._PRETRAINED
    monkeypatch.setitem(tags, "tiny-vit", tags["ViT-L-14"])
    assert taken() == (openai, "shortest-side")
    said = capsys.readouterr().err
    assert "Taken: mean 0.4815 0.4578 0.4082, std 0.2686 0.2613 0.2758, bicubic, shortest." in said
    assert "laion2b_s32b_b82k by mean 0.5 0.5 0.5, std 0.5 0.5 0.5, bicubic, shortest" in said
    assert "--preprocessing-of TAG" in said
    assert taken("--preprocessing-of", "laion2b_s32b_b82k") == ([0.5] * 3, "shortest-side")
    assert "warning" not in capsys.readouterr().err
    other = "ViT-B-16-SigLIP:webli"
    assert taken("--preprocessing-of", other) == ([0.5] * 3, "squash")
    monkeypatch.setitem(tags, "tiny-vit", tags["ViT-B-16-SigLIP"])
    assert taken() == ([0.5] * 3, "squash")
    assert "warning" not in capsys.readouterr().err
    assert main([*base, "--preprocessing-of", "no_such"]) == 3
    assert "'no_such' is no tag of open_clip's tiny-vit; its tags are webli" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["ViT-B-32", "--pretrained", "openai", "--preprocessing-of", "openai"],
            "for weights without a tag",
        ),
        (["no-such-model", "--random-init", "1"], "no model 'no-such-model'"),
        (["ViT-B-32", "--pretrained", "no-such-tag"], "neither a file nor a tag"),
        (["coca_ViT-B-32", "--random-init", "1"], "CoCa"),
        (["ViT-B-32", "--random-init", "1", "--tokenizer", "x"], "CLIP's tokens"),
    ],
)
def test_what_cannot_be_exported(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["open-clip", *arguments, "--out", str(tmp_path / "bundle")]) == 3
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
