"""Joined bundles: how much each encoder counts is chosen for each version, and queries agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wire
from pictures import png
from PIL import Image
from random_bundle import random_bundle
from wire import cache, classify

torch = pytest.importorskip("torch")
export = pytest.importorskip("tipserve_export.cli")

CLASSES = ["ash", "oak", "elm"]
BETA = 5.0
WIDTHS = (24, 16)


COLOURS = np.array([[140, 120, 120], [120, 140, 120], [120, 120, 140]])


def plain(chance, kind: int) -> Image.Image:
    """A picture of nearly grey: the class's colour is little more than the grain."""
    levels = COLOURS[kind] + chance.normal(0, 30, (48, 48, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


class Noise(torch.nn.Module):
    """Features that say nothing of a picture: sines of sums that are many turns apart."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(9)
        self.weight = torch.nn.Parameter(torch.randn(3 * size * size, width, generator=generator))

    def forward(self, x):
        return torch.sin(x.float().flatten(1) @ self.weight)


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Path:
    """A telling encoder and one of noise, with equal weights."""
    folder = tmp_path_factory.mktemp("joined")
    telling = random_bundle(folder / "telling", seed=3, width=WIDTHS[0])
    noise = random_bundle(folder / "noise", seed=4, width=WIDTHS[1], module=Noise(32, WIDTHS[1]))
    arguments = ["join", str(telling), str(noise), "--int8", "never"]
    assert export.main([*arguments, "--out", str(folder / "both")]) == 0
    return folder / "both"


def examples(chance, count: int, first: int = 0) -> list:
    return [
        wire.example(i % 3, wire.encoded(png(plain(chance, i % 3))), str(first + i))
        for i in range(count)
    ]


def features(server, contents: list) -> np.ndarray:
    """The bundle's own, [n, D]."""
    answer = server.api.classifying.Embed(classify.EmbedRequest(inputs=contents), timeout=60)
    return np.array([one.embedding.values for one in answer.inputs], np.float64)


def formula(queries, keys, labels, version) -> np.ndarray:
    """Tip-Adapter's logits of features whose parts are weighed as the version says, in float64."""
    factors = np.repeat(np.sqrt(np.array(version.part_weights) / 0.5), WIDTHS)
    queries, keys = queries * factors, keys * factors
    affinity = np.exp(-version.head.beta * (1 - queries @ keys.T))
    return version.head.alpha * affinity @ np.eye(3)[labels]


def test_noise_never_counts_more_and_queries_agree(serve, joined, chance):
    server = serve(joined, "--dtype", "float32")
    spec = cache.CacheSpec(
        cache_id="trees",
        classes=wire.classes(CLASSES),
        method=cache.METHOD_TIP_ADAPTER,
        alpha=1.0,
        beta=BETA,
    )
    shown = examples(chance, 60)
    version = server.api.create(spec, shown).version
    telling, noise = version.part_weights
    assert telling + noise == pytest.approx(1)
    # Never noise; more of the other only where the draw shows that beyond chance.
    assert telling >= 0.5
    asked = [wire.encoded(png(plain(chance, i % 3))) for i in range(6)]
    queries = features(server, asked)
    keys = features(server, [one.input for one in shown])
    labels = np.arange(60) % 3
    wanted = formula(queries, keys, labels, version)
    np.testing.assert_allclose(server.api.logits("trees", asked), wanted, rtol=1e-3, atol=1e-4)
    # Embeddings are the bundle's own, and so are those that are sent.
    sent = [wire.embedding(row.astype(np.float32)) for row in queries]
    np.testing.assert_allclose(server.api.logits("trees", sent), wanted, rtol=1e-3, atol=1e-4)

    # What is added to a version is weighed with the rest, and what it has is not weighed twice.
    more = examples(chance, 6, first=60)
    added = server.api.add(cache.AddExamplesSpec(base="trees"), more).version
    keys = np.concatenate([keys, features(server, [one.input for one in more])])
    wanted = formula(queries, keys, np.arange(66) % 3, added)
    np.testing.assert_allclose(server.api.logits("trees", asked), wanted, rtol=1e-3, atol=1e-4)

    # Trained keys, and a server that reads the version from its store.
    run = server.cli("finetune", "trees", "--recipe", "tip-adapter-f", "--epochs", "1")
    assert run["version"]["part_weights"] == pytest.approx(list(added.part_weights))
    before = server.api.logits("trees", asked)
    assert server.terminate() == 0
    server.start()
    np.testing.assert_allclose(server.api.logits("trees", asked), before, rtol=1e-4, atol=1e-4)


def test_methods_and_exports_keep_the_weights(serve, joined, chance, tmp_path):
    server = serve(joined, "--dtype", "float32")
    shown, asked = examples(chance, 18), examples(chance, 9)
    contents = [one.input for one in asked]
    for method in (cache.METHOD_AUTO, cache.METHOD_CLASS_MEAN, cache.METHOD_PROKER):
        name = f"of-{method}"
        spec = cache.CacheSpec(cache_id=name, classes=wire.classes(CLASSES), method=method)
        version = server.api.create(spec, shown).version
        assert sum(version.part_weights) == pytest.approx(1), method
        logits = server.api.logits(name, contents)
        file = tmp_path / f"{name}.tip"
        server.cli("caches", "export", name, str(file))
        server.cli("caches", "import", str(file), f"{name}-again")
        again = server.api.logits(f"{name}-again", contents)
        np.testing.assert_allclose(again, logits, rtol=1e-3, atol=1e-3)
