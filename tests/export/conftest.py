"""Fresh random CLIP models, small ones, and the bundles made of them."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))

TINY_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3}
TINY = {
    "tiny-vit": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 96, "layers": 3, "width": 128, "patch_size": 32},
        "text_cfg": TINY_TEXT,
    },
    "tiny-rn": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 96, "layers": [2, 1, 2, 1], "width": 32},
        "text_cfg": TINY_TEXT,
    },
}


@pytest.fixture
def seed() -> int:
    """A new seed for every test; pytest shows it where the test fails."""
    value = secrets.randbelow(2**31)
    print(f"seed {value}")
    torch.manual_seed(value)
    return value


@pytest.fixture(scope="session", autouse=True)
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Registers the small architectures, each with GELU and with QuickGELU, in open_clip."""
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("configs")
    for name, config in TINY.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
        (folder / f"{name}-quickgelu.json").write_text(json.dumps(config | {"quick_gelu": True}))
    open_clip.add_model_config(folder)


def lively(model: nn.Module) -> nn.Module:
    """Gives every weight that initialisation leaves at 0 or 1 a value that can be seen."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale" and parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.copy_(torch.rand_like(part.weight) + 0.5)
                part.running_mean.copy_(torch.randn_like(part.running_mean) * 0.2)
                part.running_var.copy_(torch.rand_like(part.running_var) + 0.5)
    return model.eval()
