"""A bundle of each of today's families, exported and served."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import wire
from pictures import photo, png
from wire import cache

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("timm")
pytest.importorskip("transformers")

families = pytest.importorskip("families")

CLASSES = ["ash", "oak", "elm"]

# How pictures are resized, and the logit bias, of those that were trained with a sigmoid loss.
SIGMOID = {
    "siglip2": ("squash", -10),
    "siglip": ("squash", -10),
    "siglip2-transformers": ("squash", -9.5),
    "siglip-transformers": ("squash", -9.5),
    "join": ("server", -9.5),
}


@pytest.fixture(params=families.FAMILIES)
def family(request, tmp_path):
    """Its name, its bundle and its library's own model."""
    if request.param in ("siglip", "siglip-transformers"):
        pytest.importorskip("sentencepiece", reason="SentencePiece models are converted with it")
    reference = families.FAMILIES[request.param](tmp_path, 7)
    return request.param, tmp_path / "bundle", reference


def test_is_served(family, serve, chance):
    name, bundle, reference = family
    server = serve(bundle, "--dtype", "float32")
    stated = server.cli("info")["bundle"]
    assert stated["has_text_encoder"] == (reference.text is not None)
    if name in SIGMOID:
        resize, bias = SIGMOID[name]
        assert stated["resize"] == resize
        assert stated["logit_bias"] == pytest.approx(bias)
    else:
        assert stated["logit_bias"] is None
    classes = wire.classes(CLASSES)
    examples = [
        wire.example(label, wire.encoded(png(photo(chance, label))), f"{label}-{shot}")
        for label in range(len(CLASSES))
        for shot in range(3)
    ]
    spec = cache.CacheSpec(cache_id="few", classes=classes, method=cache.METHOD_CLASS_MEAN)
    server.api.create(spec, examples)
    # Pictures have the features that the family's library gives them.
    pictures = [photo(chance, label) for label in range(len(CLASSES))]
    sent = [wire.encoded(png(picture)) for picture in pictures]
    answers = [server.api.one("few", content, embedding=True) for content in sent]
    with torch.inference_mode():
        features = reference.image(
            torch.stack([reference.prepare(picture) for picture in pictures])
        )
    features = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    for answer, feature in zip(answers, features, strict=True):
        assert float(np.dot(np.array(answer.embedding.values, np.float64), feature)) > 0.99999
    zero = cache.CacheSpec(
        cache_id="zero", classes=classes, method=cache.METHOD_ZERO_SHOT, allow_empty_classes=True
    )
    if reference.text is not None:
        server.api.create(zero, [])
        texts = [f"a photo of a {word}." for word in CLASSES]
        with torch.inference_mode():
            rows = reference.text(reference.tokens(texts)).double()
        rows = torch.nn.functional.normalize(rows, dim=1).numpy()
        wanted = stated["logit_scale"] * features @ rows.T
        np.testing.assert_allclose(server.api.logits("zero", sent), wanted, rtol=1e-3, atol=5e-3)
    else:
        with pytest.raises(grpc.RpcError) as refused:
            server.api.create(zero, [])
        assert "text encoder" in refused.value.details()
