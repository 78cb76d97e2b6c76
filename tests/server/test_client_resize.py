"""Pictures resized by the Python client get the answers of those that the server resizes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pictures import photo, saved

tipserve = pytest.importorskip("tipserve")


@pytest.fixture(params=[0, 3, 30], ids=lambda more: f"resize-{more}-more-than-the-crop")
def server(request, serve, tiny_bundle, tmp_path):
    """A bundle that resizes to what it takes, or to more and cuts the centre out."""
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    text = (bundle / "bundle.toml").read_text(encoding="utf-8")
    size = next(line for line in text.splitlines() if line.startswith("size = "))
    resize_to = next(line for line in text.splitlines() if line.startswith("resize_to = "))
    larger = int(size.removeprefix("size = ")) + request.param
    (bundle / "bundle.toml").write_text(text.replace(resize_to, f"resize_to = {larger}"))
    return serve(bundle, "--dtype", "float32")


def test_the_answers_are_the_servers(server, chance, tmp_path):
    photos = [photo(chance, kind=number % 3) for number in range(12)]
    files = [saved(picture, "JPEG", quality=92) for picture in photos]
    logits, embeddings = {}, {}
    with tipserve.Client(server.address) as client:
        width = client.server_info().bundle.width
        points = chance.standard_normal((8, width)).astype(np.float32)
        examples = [tipserve.Example(i % 4, point) for i, point in enumerate(points)]
        client.create_cache(
            "c", examples, classes=["a", "b", "c", "d"], without_text=True,
            method="tip_adapter", alpha=1, beta=5.5,
        )  # fmt: skip
    for resize in ("server", "client", "client-jpeg"):
        with tipserve.Client(server.address, resize=resize) as client:
            results = list(client.classify("c", files, logits=True, embedding=True))
            assert [result.error for result in results] == [None] * len(files)
            logits[resize] = np.stack([result.logits for result in results])
            embeddings[resize] = np.stack([result.embedding for result in results])
    # The same pixels: what is left is the order of sums in batches of other sizes.
    np.testing.assert_allclose(logits["client"], logits["server"], rtol=1e-5, atol=1e-4)
    # JPEG of quality 95 is not quite the same.
    cosine = (embeddings["client-jpeg"] * embeddings["server"]).sum(1)
    print("least cosine of client-jpeg", cosine.min())
    assert cosine.min() >= 0.99
    assert (cosine < 1 - 1e-9).any()
